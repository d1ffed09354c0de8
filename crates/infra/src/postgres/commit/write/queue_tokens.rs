//! Queue tokens, and the lines they stand in.

use std::collections::BTreeMap;

use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use frontrow_domain::queue::{QueueToken, QueueTokenState};
use frontrow_domain::unit_of_work::AggregateRef;
use frontrow_domain::{QueueTokenId, Version, Versioned};

use super::{Failure, Locked, Written, column, require_all};
use crate::postgres::cached::Cached;
use crate::sql::rows::{QueueTokenRow, QueueTokenStateRow};
use crate::sql::types::{DbId, Id, Instant};

const UPDATE: &str = "\
    UPDATE queue_tokens SET status = new.status, activated_at = new.activated_at, expires_at = new.expires_at, \
        version = new.version \
    FROM unnest($1, $2, $3, $4, $5) AS new (id, status, activated_at, expires_at, version) \
    WHERE queue_tokens.token_id = new.id AND queue_tokens.version = new.version - 1 \
    RETURNING queue_tokens.token_id AS id";

/// Stores what changed of tokens, one version on. Says nothing to their lines.
pub(in crate::postgres::commit) async fn update(
    connection: &mut AsyncPgConnection,
    tokens: &[Versioned<QueueToken>],
) -> Result<(), Failure> {
    if tokens.is_empty() {
        return Ok(());
    }
    let ids = column(tokens, |token| DbId(token.value.id.get()));
    let rows = column(tokens, |token| QueueTokenStateRow::new(&token.value.state, token.version.next()));
    let query = sql_query(UPDATE)
        .bind::<Array<Id>, _>(&ids)
        .bind::<Array<Text>, _>(column(&rows, |row| row.status.as_str()))
        .bind::<Array<Nullable<Instant>>, _>(column(&rows, |row| row.activated_at))
        .bind::<Array<Nullable<Instant>>, _>(column(&rows, |row| row.expires_at))
        .bind::<Array<BigInt>, _>(column(&rows, |row| row.version));
    let written: Vec<Written> = Cached(query).load(connection).await?;
    require_all(|id| AggregateRef::QueueToken(QueueTokenId::new(id)), ids, written)
}

const MOVE: &str = "\
    UPDATE lines SET waiting = waiting + moved.by FROM unnest($1, $2) AS moved (room_id, by) \
    WHERE lines.room_id = moved.room_id";

/// Keeps the number of waiters of each line, for tokens that are written into another state than they were locked in.
pub(super) async fn move_lines(
    connection: &mut AsyncPgConnection,
    tokens: &[Versioned<QueueToken>],
    locked: &Locked,
) -> Result<(), Failure> {
    let mut moved: BTreeMap<DbId, i64> = BTreeMap::new();
    for token in tokens.iter().map(|token| &token.value) {
        let waits = i64::from(token.state == QueueTokenState::Wait);
        *moved.entry(DbId(token.room_id.get())).or_default() += waits - i64::from(locked.waits(token.id));
    }
    moved.retain(|_, by| *by != 0);
    if moved.is_empty() {
        return Ok(());
    }
    let (rooms, by): (Vec<DbId>, Vec<i64>) = moved.into_iter().unzip();
    let query = sql_query(MOVE).bind::<Array<Id>, _>(rooms).bind::<Array<BigInt>, _>(by);
    Cached(query).execute(connection).await?;
    Ok(())
}

const INSERT_LAST: &str = "\
    WITH line AS (UPDATE lines SET last_ticket = $4, waiting = waiting + $10 WHERE room_id = $2) \
    INSERT INTO queue_tokens \
        (token_id, room_id, user_id, ticket, entered_at, status, activated_at, expires_at, version) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// Stores a new token as the last of its line, which is locked.
pub(in crate::postgres::commit) async fn insert_last(
    connection: &mut AsyncPgConnection,
    token: &QueueToken,
) -> Result<(), Failure> {
    let row = QueueTokenRow::new(token, Version::FIRST);
    let query = sql_query(INSERT_LAST)
        .bind::<Id, _>(row.token_id)
        .bind::<Id, _>(row.room_id)
        .bind::<Id, _>(row.user_id)
        .bind::<BigInt, _>(row.ticket)
        .bind::<Instant, _>(row.entered_at)
        .bind::<Text, _>(row.state.status)
        .bind::<Nullable<Instant>, _>(row.state.activated_at)
        .bind::<Nullable<Instant>, _>(row.state.expires_at)
        .bind::<BigInt, _>(row.state.version)
        .bind::<BigInt, _>(i64::from(token.state == QueueTokenState::Wait));
    Cached(query).execute(connection).await?;
    Ok(())
}
