//! A crowd at the tail of a line.

use diesel::QueryResult;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt};
use diesel_async::RunQueryDsl;
use frontrow_domain::unit_of_work::Fill;

use crate::postgres::cached::Cached;
use crate::postgres::session::Session;
use crate::sql::types::{DbId, DbTime, Id, Instant};

/// The line is locked, so the tickets are the next ones, without a gap.
const FILL: &str = "\
    WITH line AS ( \
        UPDATE lines SET last_ticket = last_ticket + $5, waiting = waiting + $5 \
        WHERE room_id = $1 RETURNING last_ticket - $5 AS last_before) \
    INSERT INTO queue_tokens (token_id, room_id, user_id, ticket, entered_at, status, version) \
    SELECT crowd.token_id, $1, crowd.user_id, line.last_before + crowd.number, $4, 'WAIT', 1 \
    FROM line, unnest($2, $3) WITH ORDINALITY AS crowd (token_id, user_id, number)";

pub(super) async fn fill(connection: &mut Session, fill: &Fill) -> QueryResult<usize> {
    let (tokens, users): (Vec<DbId>, Vec<DbId>) =
        fill.people.iter().map(|(token, user)| (DbId(token.get()), DbId(user.get()))).unzip();
    let people = i64::try_from(fill.people.len()).unwrap_or(i64::MAX);
    let query = sql_query(FILL)
        .bind::<Id, _>(DbId(fill.room_id.get()))
        .bind::<Array<Id>, _>(tokens)
        .bind::<Array<Id>, _>(users)
        .bind::<Instant, _>(DbTime(fill.now))
        .bind::<BigInt, _>(people);
    Cached(query).execute(connection).await
}
