//! Idempotency keys with their answers.

use diesel::sql_types::{Array, Binary, Integer, Text};
use frontrow_domain::unit_of_work::UnitOfWork;

use super::statement::Statement;
use super::{column, some_rows};
use crate::sql::types::{DbId, DbTime, Id, Instant};

const INSERT: &str = "\
    INSERT INTO idempotency_records AS old (user_id, idempotency_key, fingerprint, answer_status, \
        answer_content_type, answer_body, created_at, expires_at) \
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS new (user_id, idempotency_key) \
    ORDER BY user_id, idempotency_key \
    ON CONFLICT (user_id, idempotency_key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, \
        answer_status = EXCLUDED.answer_status, answer_content_type = EXCLUDED.answer_content_type, \
        answer_body = EXCLUDED.answer_body, created_at = EXCLUDED.created_at, expires_at = EXCLUDED.expires_at \
    WHERE old.expires_at <= EXCLUDED.created_at";

/// Takes the keys of all units, waiting for twins that are just committing. A key that has run out is free.
pub(super) fn take_keys<'u>(units: &[&'u UnitOfWork]) -> Option<Statement<'u>> {
    let records: Vec<_> = units.iter().filter_map(|work| work.idempotency.as_ref()).collect();
    Some(
        some_rows("idempotency_records", INSERT, &records)?
            .bind::<Array<Id>, _>(column(&records, |record| DbId(record.request.user_id.get())))
            .bind::<Array<Text>, _>(column(&records, |record| record.request.key.as_str()))
            .bind::<Array<Binary>, _>(column(&records, |record| record.request.fingerprint.0.as_slice()))
            .bind::<Array<Integer>, _>(column(&records, |record| i32::from(record.answer.status)))
            .bind::<Array<Text>, _>(column(&records, |record| record.answer.content_type.as_str()))
            .bind::<Array<Binary>, _>(column(&records, |record| record.answer.body.as_slice()))
            .bind::<Array<Instant>, _>(column(&records, |record| DbTime(record.created_at)))
            .bind::<Array<Instant>, _>(column(&records, |record| DbTime(record.expires_at))),
    )
}
