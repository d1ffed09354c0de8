//! Deletes what is over, a batch at a time.

use diesel::prelude::{QueryableByName, RunQueryDsl};
use diesel::sql_types::BigInt;
use diesel::sqlite::SqliteConnection;
use diesel::{OptionalExtension, QueryResult};
use frontrow_domain::Timestamp;
use frontrow_domain::queue::TicketNumber;
use frontrow_domain::unit_of_work::{PruneTokens, TokensPruned};

use super::statement::Sql;
use crate::sql::types::{DbId, DbTime};

#[derive(QueryableByName)]
struct Last {
    #[diesel(sql_type = BigInt)]
    ticket: i64,
}

/// The tokens that are looked at are those of the next `limit` tickets, found by the index of tickets. The last of these
/// is found by its offset: where there are fewer, there is no further batch.
pub(super) fn tokens(connection: &mut SqliteConnection, prune: &PruneTokens) -> QueryResult<TokensPruned> {
    let PruneTokens { room_id, after, before, limit } = *prune;
    let (room, before) = (DbId(room_id.get()), DbTime(before));
    let last = "SELECT ticket FROM queue_tokens WHERE room_id = ?1 AND ticket > ?2 \
                AND ticket < (SELECT admitted_through FROM lines WHERE room_id = ?1) \
                ORDER BY ticket LIMIT 1 OFFSET ?3";
    let offset = i64::from(limit).saturating_sub(1);
    let last: Option<Last> = Sql(last, (room, after.0, offset)).get_result(connection).optional()?;
    let through = last.as_ref().map_or(i64::MAX, |last| last.ticket);
    let count = "INSERT INTO pruned_tokens (room_id, tokens, departures) \
                 SELECT ?1, tokens, departures FROM (\
                     SELECT count(*) AS tokens, count(departure) AS departures FROM queue_tokens \
                     WHERE room_id = ?1 AND ticket > ?2 AND ticket <= ?3 \
                     AND ticket < (SELECT admitted_through FROM lines WHERE room_id = ?1) \
                     AND status = 'EXPIRED' AND expires_at <= ?4 \
                     AND NOT EXISTS (SELECT 1 FROM reservations WHERE reservations.token_id = queue_tokens.token_id)\
                 ) AS found WHERE tokens > 0 \
                 ON CONFLICT (room_id) DO UPDATE SET tokens = tokens + excluded.tokens, \
                     departures = departures + excluded.departures";
    if Sql(count, (room, after.0, through, before)).execute(connection)? == 0 {
        return Ok(TokensPruned { deleted: 0, through: last.map(|last| TicketNumber(last.ticket)) });
    }
    let delete = "DELETE FROM queue_tokens WHERE room_id = ?1 AND ticket > ?2 AND ticket <= ?3 \
                  AND ticket < (SELECT admitted_through FROM lines WHERE room_id = ?1) \
                  AND status = 'EXPIRED' AND expires_at <= ?4 \
                  AND NOT EXISTS (SELECT 1 FROM reservations WHERE reservations.token_id = queue_tokens.token_id)";
    let deleted = Sql(delete, (room, after.0, through, before)).execute(connection)?;
    let deleted = u32::try_from(deleted).unwrap_or(u32::MAX);
    Ok(TokensPruned { deleted, through: last.map(|last| TicketNumber(last.ticket)) })
}

pub(super) fn answers(connection: &mut SqliteConnection, now: Timestamp, limit: u32) -> QueryResult<u32> {
    let text = "DELETE FROM idempotency_records WHERE rowid IN (\
                    SELECT rowid FROM idempotency_records WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)";
    let deleted = Sql(text, (DbTime(now), i64::from(limit))).execute(connection)?;
    Ok(u32::try_from(deleted).unwrap_or(u32::MAX))
}
