//! Places near the head of a line whose holders stay away.

use diesel::QueryResult;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Nullable};
use diesel_async::RunQueryDsl;
use frontrow_domain::queue::RoomPolicy;
use frontrow_domain::unit_of_work::GiveUpAbandoned;
use frontrow_domain::{QueueTokenId, Timestamp};

use super::command::Counted;
use crate::postgres::cached::Cached;
use crate::postgres::session::Session;
use crate::sql::types::{DbId, DbTime, Id, Instant};

/// Tokens that others work on at this moment are on their way out of the line, or are noted by the next poll.
const NOTE_POLLS: &str = "\
    WITH polled AS MATERIALIZED ( \
        SELECT token_id FROM queue_tokens WHERE token_id = ANY ($1) AND status = 'WAIT' \
        ORDER BY token_id FOR NO KEY UPDATE SKIP LOCKED), \
    noted AS ( \
        UPDATE queue_tokens SET last_seen_at = $2 \
        WHERE token_id = ANY (ARRAY(SELECT token_id FROM polled)) RETURNING 1) \
    SELECT count(*) AS rows FROM noted";

/// No line is locked, and no version changes: this is no decision about a token.
pub(super) async fn note_polls(
    connection: &mut Session,
    tokens: &[QueueTokenId],
    now: Timestamp,
) -> QueryResult<u32> {
    let ids: Vec<DbId> = tokens.iter().map(|id| DbId(id.get())).collect();
    let query = sql_query(NOTE_POLLS).bind::<Array<Id>, _>(ids).bind::<Instant, _>(DbTime(now));
    let noted: Counted = Cached(query).get_result(connection).await?;
    Ok(noted.get())
}

/// Takes the head of the line, by ticket, and locks it by id, which is the order of everybody else. The line is locked:
/// nobody joins, leaves or is admitted meanwhile. Who was never seen here is seen now ($4), as is everybody when nobody
/// is judged ($3 is null). Then the line is looked at further than its head ($5), and whoever was seen there is forgotten.
const GIVE_UP: &str = "\
    WITH line AS MATERIALIZED ( \
        SELECT token_id, ticket, last_seen_at FROM queue_tokens WHERE room_id = $1 AND status = 'WAIT' \
        AND ticket > (SELECT admitted_through FROM lines WHERE room_id = $1) ORDER BY ticket LIMIT $5), \
    head AS MATERIALIZED ( \
        SELECT max(ticket) AS last FROM (SELECT ticket FROM line ORDER BY ticket LIMIT $2) AS near), \
    locked AS MATERIALIZED ( \
        SELECT token_id, ticket, last_seen_at FROM queue_tokens WHERE token_id = ANY (ARRAY( \
            SELECT token_id FROM line WHERE ticket <= (SELECT last FROM head) OR last_seen_at IS NOT NULL)) \
        ORDER BY token_id FOR NO KEY UPDATE), \
    started AS ( \
        UPDATE queue_tokens SET last_seen_at = CASE WHEN ticket <= (SELECT last FROM head) THEN $4 END \
        WHERE token_id = ANY (ARRAY( \
            SELECT token_id FROM locked WHERE last_seen_at IS NULL OR $3::TIMESTAMPTZ IS NULL))), \
    gone AS MATERIALIZED ( \
        SELECT token_id, row_number() OVER (ORDER BY ticket) AS number FROM locked WHERE last_seen_at <= $3), \
    given_up AS ( \
        UPDATE queue_tokens SET status = 'EXPIRED', expires_at = $4, version = version + 1, \
            departure = (SELECT departures FROM lines WHERE room_id = $1) + gone.number \
        FROM gone WHERE queue_tokens.token_id = gone.token_id RETURNING 1), \
    counted AS ( \
        UPDATE lines SET waiting = waiting - (SELECT count(*) FROM given_up), \
            departures = departures + (SELECT count(*) FROM given_up) \
        WHERE room_id = $1 AND EXISTS (SELECT FROM given_up)) \
    SELECT count(*) AS rows FROM given_up";

pub(super) async fn give_up(connection: &mut Session, sweep: GiveUpAbandoned) -> QueryResult<u32> {
    let looked_at = if sweep.gone_since.is_some() { sweep.window } else { RoomPolicy::MAX_WINDOW };
    let query = sql_query(GIVE_UP)
        .bind::<Id, _>(DbId(sweep.room_id.get()))
        .bind::<BigInt, _>(i64::from(sweep.window))
        .bind::<Nullable<Instant>, _>(sweep.gone_since.map(DbTime))
        .bind::<Instant, _>(DbTime(sweep.now))
        .bind::<BigInt, _>(i64::from(looked_at));
    let given_up: Counted = Cached(query).get_result(connection).await?;
    Ok(given_up.get())
}
