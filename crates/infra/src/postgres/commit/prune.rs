//! Deletes what is over, a batch at a time. What others work on at this moment is left to the next time, so that nobody
//! waits for a batch, and no batch for anybody but another node's.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable};
use diesel_async::RunQueryDsl;
use frontrow_domain::Timestamp;
use frontrow_domain::queue::TicketNumber;
use frontrow_domain::unit_of_work::{PruneTokens, TokensPruned};

use super::command::Counted;
use crate::postgres::cached::Cached;
use crate::postgres::session::Session;
use crate::sql::types::{DbId, DbTime, Id, Instant};

/// The tokens that are looked at are those of the next tickets ($3), found by the index of tickets. An EXPIRED token never
/// changes again, and nothing more is reserved under it. What was is counted, a few at most: for NOT EXISTS the planner,
/// which takes the LIMIT for a tenth of the table, may read all reservations.
const PRUNE_TOKENS: &str = "\
    WITH seen AS MATERIALIZED ( \
        SELECT token_id, ticket, status, expires_at FROM queue_tokens WHERE room_id = $1 AND ticket > $2 \
            AND ticket < (SELECT admitted_through FROM lines WHERE room_id = $1) ORDER BY ticket LIMIT $3), \
    ended AS MATERIALIZED ( \
        SELECT token_id FROM queue_tokens WHERE token_id = ANY (ARRAY( \
            SELECT token_id FROM seen WHERE status = 'EXPIRED' AND expires_at <= $4 \
            AND 0 = (SELECT count(*) FROM reservations WHERE reservations.token_id = seen.token_id))) \
        ORDER BY token_id FOR UPDATE SKIP LOCKED), \
    gone AS ( \
        DELETE FROM queue_tokens WHERE token_id = ANY (ARRAY(SELECT token_id FROM ended)) RETURNING departure), \
    counted AS ( \
        INSERT INTO pruned_tokens (room_id, tokens, departures) \
        SELECT $1, count(*), count(departure) FROM gone HAVING count(*) > 0 \
        ON CONFLICT (room_id) DO UPDATE SET tokens = pruned_tokens.tokens + excluded.tokens, \
            departures = pruned_tokens.departures + excluded.departures) \
    SELECT (SELECT count(*) FROM gone) AS deleted, \
        (SELECT max(ticket) FROM seen HAVING count(*) = $3) AS through";

#[derive(QueryableByName)]
struct Pruned {
    #[diesel(sql_type = BigInt)]
    deleted: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    through: Option<i64>,
}

pub(super) async fn tokens(connection: &mut Session, prune: PruneTokens) -> QueryResult<TokensPruned> {
    let PruneTokens { room_id, after, before, limit } = prune;
    let query = sql_query(PRUNE_TOKENS)
        .bind::<Id, _>(DbId(room_id.get()))
        .bind::<BigInt, _>(after.0)
        .bind::<BigInt, _>(i64::from(limit))
        .bind::<Instant, _>(DbTime(before));
    let Pruned { deleted, through } = Cached(query).get_result(connection).await?;
    let deleted = u32::try_from(deleted).unwrap_or(u32::MAX);
    Ok(TokensPruned { deleted, through: through.map(TicketNumber) })
}

/// By their place in the table, which stays what it is while they are locked. One whose key is used anew at this moment
/// is locked, or no longer over.
const PRUNE_ANSWERS: &str = "\
    WITH over AS MATERIALIZED ( \
        SELECT ctid FROM idempotency_records WHERE expires_at <= $1 \
        ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED), \
    gone AS ( \
        DELETE FROM idempotency_records WHERE ctid = ANY (ARRAY(SELECT ctid FROM over)) RETURNING 1) \
    SELECT count(*) AS rows FROM gone";

pub(super) async fn answers(connection: &mut Session, now: Timestamp, limit: u32) -> QueryResult<u32> {
    let query = sql_query(PRUNE_ANSWERS).bind::<Instant, _>(DbTime(now)).bind::<BigInt, _>(i64::from(limit));
    let gone: Counted = Cached(query).get_result(connection).await?;
    Ok(gone.get())
}
