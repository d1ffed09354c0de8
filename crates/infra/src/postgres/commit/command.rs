//! The commands of a unit of work. Each takes whole sets of rows by one statement.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable};
use diesel_async::RunQueryDsl;
use frontrow_domain::unit_of_work::{Admit, AggregateRef, Command, CommandOutcome, PauseTokens};
use frontrow_domain::{RoomId, Timestamp};

use super::abandoned;
use super::failure::Failure;
use super::fill;
use super::lock::Locked;
use super::prune;
use super::write::seat_feeds::Feeds;
use super::write::statement::run_all;
use crate::postgres::cached::Cached;
use crate::postgres::session::Session;
use crate::sql::types::{DbId, DbTime, Id, Instant};

/// Does the command of a unit that comes alone. The line of its room is locked, if it has one. `None` for a Join, which
/// has its outcome from the plan of its batch.
pub(super) async fn execute(
    connection: &mut Session,
    command: &Command,
    locked: &Locked,
) -> Result<Option<CommandOutcome>, Failure> {
    let outcome = match *command {
        Command::Join(_) => return Ok(None),
        Command::Admit(admit) => {
            require_line(admit.room_id, locked)?;
            CommandOutcome::Admitted(self::admit(connection, admit).await?)
        }
        Command::PauseTokens(pause) => {
            require_line(pause.room_id, locked)?;
            CommandOutcome::TokensPaused(pause_tokens(connection, pause).await?)
        }
        Command::ExpireTokens { now, limit } => {
            CommandOutcome::TokensExpired(expire_tokens(connection, now, limit).await?)
        }
        Command::ExpireHolds { now, limit } => {
            CommandOutcome::HoldsExpired(expire_holds(connection, now, limit).await?)
        }
        Command::NotePolls { ref tokens, now } => {
            CommandOutcome::PollsNoted(abandoned::note_polls(connection, tokens, now).await?)
        }
        Command::GiveUpAbandoned(sweep) => {
            require_line(sweep.room_id, locked)?;
            CommandOutcome::GivenUp(abandoned::give_up(connection, sweep).await?)
        }
        Command::PruneTokens(prune) => CommandOutcome::TokensPruned(prune::tokens(connection, prune).await?),
        Command::PruneAnswers { now, limit } => {
            CommandOutcome::AnswersPruned(prune::answers(connection, now, limit).await?)
        }
        Command::Fill(ref crowd) => {
            require_line(crowd.room_id, locked)?;
            fill::fill(connection, crowd).await?;
            CommandOutcome::Filled
        }
    };
    Ok(Some(outcome))
}

fn require_line(room_id: RoomId, locked: &Locked) -> Result<(), Failure> {
    locked.line(room_id).map(|_| ()).ok_or_else(|| Failure::conflict(AggregateRef::Room(room_id)))
}

#[derive(QueryableByName)]
pub(super) struct Counted {
    #[diesel(sql_type = BigInt)]
    rows: i64,
}

impl Counted {
    /// Every command has a limit of 32 bits.
    pub(super) fn get(&self) -> u32 {
        u32::try_from(self.rows).unwrap_or(u32::MAX)
    }
}

// In these statements the rows found are handed on as an array: of how many rows a LIMIT leaves, the planner of a
// prepared statement thinks a tenth of the table, and would read all of it for a join.

/// Takes the head of the line, by ticket, and locks it by id, which is the order of everybody else. Nobody can leave
/// or join meanwhile: the line is locked. The scan starts behind the last who was admitted, so that it never walks the
/// index entries of those who are through. The count of ACTIVE tokens runs only where there is a limit ($3).
const ADMIT: &str = "\
    WITH head AS MATERIALIZED ( \
        SELECT token_id FROM queue_tokens WHERE room_id = $1 AND status = 'WAIT' \
            AND ticket > (SELECT admitted_through FROM lines WHERE room_id = $1) ORDER BY ticket \
        LIMIT CASE WHEN $3 IS NULL THEN $2 ELSE LEAST($2, GREATEST(0, $3 - ( \
            SELECT count(*) FROM queue_tokens WHERE room_id = $1 AND status = 'ACTIVE' \
                AND (expires_at > $4 OR paused_at IS NOT NULL)))) END), \
    locked AS MATERIALIZED ( \
        SELECT token_id FROM queue_tokens WHERE token_id IN (SELECT token_id FROM head) \
        ORDER BY token_id FOR NO KEY UPDATE), \
    admitted AS ( \
        UPDATE queue_tokens SET status = 'ACTIVE', activated_at = $4, expires_at = $5, version = version + 1 \
        WHERE token_id = ANY (ARRAY(SELECT token_id FROM locked)) AND status = 'WAIT' RETURNING ticket), \
    line AS ( \
        UPDATE lines SET waiting = waiting - (SELECT count(*) FROM admitted), \
            admitted_through = (SELECT max(ticket) FROM admitted) \
        WHERE room_id = $1 AND EXISTS (SELECT FROM admitted)) \
    SELECT count(*) AS rows FROM admitted";

async fn admit(connection: &mut Session, admit: Admit) -> QueryResult<u32> {
    let query = sql_query(ADMIT)
        .bind::<Id, _>(DbId(admit.room_id.get()))
        .bind::<BigInt, _>(i64::from(admit.limit))
        .bind::<Nullable<BigInt>, _>(admit.max_active.map(i64::from))
        .bind::<Instant, _>(DbTime(admit.now))
        .bind::<Instant, _>(DbTime(admit.now.plus_seconds(admit.active_ttl_seconds)));
    let admitted: Counted = Cached(query).get_result(connection).await?;
    Ok(admitted.get())
}

/// Locks by id, which is the order of everything else. A hold that is under way is waited for, and came first; a token that
/// has ended meanwhile drops out.
const PAUSE_TOKENS: &str = "\
    WITH live AS MATERIALIZED ( \
        SELECT token_id FROM queue_tokens WHERE room_id = $1 AND status = 'ACTIVE' AND expires_at > $2 \
            AND paused_at IS NULL ORDER BY token_id FOR NO KEY UPDATE), \
    paused AS ( \
        UPDATE queue_tokens SET paused_at = $2, version = version + 1 \
        WHERE token_id = ANY (ARRAY(SELECT token_id FROM live)) RETURNING 1) \
    SELECT count(*) AS rows FROM paused";

/// The pause is added to the deadlines.
const RESUME_TOKENS: &str = "\
    WITH live AS MATERIALIZED ( \
        SELECT token_id FROM queue_tokens WHERE room_id = $1 AND status = 'ACTIVE' AND paused_at IS NOT NULL \
        ORDER BY token_id FOR NO KEY UPDATE), \
    resumed AS ( \
        UPDATE queue_tokens SET expires_at = expires_at + GREATEST($2 - paused_at, INTERVAL '0'), paused_at = NULL, \
            version = version + 1 \
        WHERE token_id = ANY (ARRAY(SELECT token_id FROM live)) RETURNING 1) \
    SELECT count(*) AS rows FROM resumed";

async fn pause_tokens(connection: &mut Session, pause: PauseTokens) -> QueryResult<u32> {
    let text = if pause.begins { PAUSE_TOKENS } else { RESUME_TOKENS };
    let query =
        sql_query(text).bind::<Id, _>(DbId(pause.room_id.get())).bind::<Instant, _>(DbTime(pause.now));
    let paused: Counted = Cached(query).get_result(connection).await?;
    Ok(paused.get())
}

/// A lapsed token ended at its deadline, which `expires_at` says already. It left the line when it was admitted. A paused one
/// has no deadline.
const EXPIRE_TOKENS: &str = "\
    WITH lapsed AS MATERIALIZED ( \
        SELECT token_id FROM queue_tokens WHERE status = 'ACTIVE' AND paused_at IS NULL AND expires_at <= $1 \
        ORDER BY expires_at, token_id LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED), \
    expired AS ( \
        UPDATE queue_tokens SET status = 'EXPIRED', version = version + 1 \
        WHERE token_id = ANY (ARRAY(SELECT token_id FROM lapsed)) RETURNING 1) \
    SELECT count(*) AS rows FROM expired";

async fn expire_tokens(connection: &mut Session, now: Timestamp, limit: u32) -> QueryResult<u32> {
    let query = sql_query(EXPIRE_TOKENS).bind::<Instant, _>(DbTime(now)).bind::<BigInt, _>(i64::from(limit));
    let expired: Counted = Cached(query).get_result(connection).await?;
    Ok(expired.get())
}

/// The reservations are locked before anything of theirs is looked at: whoever pays, cancels or takes over such a hold
/// locks them too. Those that are locked by such a one at this moment are left to the next sweep, as are those of which a
/// seat is locked: one seat that another session keeps does not stop the sweep of all others. Returns a row for each seat
/// that was freed, and one without a seat for each reservation.
const EXPIRE_HOLDS: &str = "\
    WITH lapsed AS MATERIALIZED ( \
        SELECT reservation_id FROM reservations WHERE status = 'RESERVED' AND hold_expires_at <= $1 \
        ORDER BY hold_expires_at, reservation_id LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED), \
    held AS MATERIALIZED ( \
        SELECT reservation_id, seat_id FROM reservation_seats JOIN seats USING (reservation_id, seat_id) \
        WHERE reservation_seats.reservation_id = ANY (ARRAY(SELECT reservation_id FROM lapsed)) \
        ORDER BY seat_id FOR NO KEY UPDATE OF seats SKIP LOCKED), \
    stuck AS MATERIALIZED ( \
        SELECT reservation_id FROM reservation_seats JOIN seats USING (reservation_id, seat_id) \
        WHERE reservation_seats.reservation_id = ANY (ARRAY(SELECT reservation_id FROM lapsed)) \
            AND seat_id <> ALL (ARRAY(SELECT seat_id FROM held))), \
    ended AS MATERIALIZED ( \
        SELECT reservation_id FROM lapsed WHERE reservation_id <> ALL (ARRAY(SELECT reservation_id FROM stuck))), \
    freed AS ( \
        UPDATE seats SET status = 'AVAILABLE', reservation_id = NULL, hold_expires_at = NULL, version = version + 1 \
        WHERE seat_id = ANY (ARRAY(SELECT seat_id FROM held \
            WHERE reservation_id = ANY (ARRAY(SELECT reservation_id FROM ended)))) AND status = 'RESERVED' \
        RETURNING performance_date_id, seat_id), \
    given_back AS ( \
        UPDATE reservation_seats SET live = FALSE \
        WHERE reservation_id = ANY (ARRAY(SELECT reservation_id FROM ended))), \
    expired AS ( \
        UPDATE reservations SET status = 'EXPIRED', version = version + 1 \
        WHERE reservation_id = ANY (ARRAY(SELECT reservation_id FROM ended)) RETURNING performance_date_id) \
    SELECT performance_date_id, NULL AS seat_id FROM expired \
    UNION ALL SELECT performance_date_id, seat_id FROM freed";

/// A reservation that was expired, or a seat that was freed.
#[derive(QueryableByName)]
struct Swept {
    #[diesel(sql_type = Id)]
    performance_date_id: DbId,
    #[diesel(sql_type = Nullable<Id>)]
    seat_id: Option<DbId>,
}

async fn expire_holds(connection: &mut Session, now: Timestamp, limit: u32) -> Result<u32, Failure> {
    let query = sql_query(EXPIRE_HOLDS).bind::<Instant, _>(DbTime(now)).bind::<BigInt, _>(i64::from(limit));
    let swept: Vec<Swept> = Cached(query).load(connection).await?;
    let mut feeds = Feeds::default();
    let mut expired = 0_u32;
    for row in swept {
        match row.seat_id {
            Some(seat_id) => feeds.freed(row.performance_date_id, seat_id),
            None => expired = expired.saturating_add(1),
        }
    }
    run_all(connection, feeds.bump().into_iter().collect()).await?;
    Ok(expired)
}
