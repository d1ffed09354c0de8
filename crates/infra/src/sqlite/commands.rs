//! The commands of a unit of work, a constant number of statements each. The writer's transaction holds the only write
//! lock there is, so what is read here stays true until it is written.

use diesel::prelude::{ExpressionMethods, OptionalExtension, QueryDsl, QueryableByName, RunQueryDsl};
use diesel::sql_types::BigInt;
use diesel::sqlite::SqliteConnection;
use diesel::{QueryResult, SelectableHelper};
use frontrow_domain::queue::{Entrance, QueueToken, QueueTokenState, Room, RoomPolicy, TicketNumber};
use frontrow_domain::unit_of_work::{
    Admit, AggregateRef, Command, CommandOutcome, CommitError, Fill, GiveUpAbandoned, Join, PauseTokens,
};
use frontrow_domain::{QueueTokenId, RoomId, Timestamp, Version, Versioned};

use super::error::ApplyError;
use super::feeds::FreedSeat;
use super::statement::Sql;
use super::{repositories, unit};
use crate::sql::rows::{LineRow, QueueTokenRow, RoomRow};
use crate::sql::schema::{lines, queue_tokens, rooms};
use crate::sql::types::{DbId, DbTime};

/// Does a command, and says which seats it freed.
pub(super) fn execute(
    connection: &mut SqliteConnection,
    command: &Command,
    freed: &mut Vec<FreedSeat>,
) -> Result<CommandOutcome, ApplyError> {
    match *command {
        Command::Join(join) => take_place(connection, &join),
        Command::Admit(admit) => admit_waiters(connection, &admit).map(CommandOutcome::Admitted),
        Command::PauseTokens(pause) => pause_tokens(connection, &pause).map(CommandOutcome::TokensPaused),
        Command::ExpireTokens { now, limit } => {
            Ok(CommandOutcome::TokensExpired(expire_tokens(connection, now, limit)?))
        }
        Command::ExpireHolds { now, limit } => {
            Ok(CommandOutcome::HoldsExpired(expire_holds(connection, now, limit, freed)?))
        }
        Command::NotePolls { ref tokens, now } => {
            Ok(CommandOutcome::PollsNoted(note_polls(connection, tokens, now)?))
        }
        Command::Fill(ref fill) => fill_line(connection, fill),
        Command::GiveUpAbandoned(sweep) => give_up_abandoned(connection, &sweep).map(CommandOutcome::GivenUp),
        Command::PruneTokens(prune) => {
            Ok(CommandOutcome::TokensPruned(super::prune::tokens(connection, &prune)?))
        }
        Command::PruneAnswers { now, limit } => {
            Ok(CommandOutcome::AnswersPruned(super::prune::answers(connection, now, limit)?))
        }
    }
}

/// A line, as it is now.
struct Line {
    room: Room,
    last_ticket: i64,
    waiting: i64,
}

fn find_line(connection: &mut SqliteConnection, id: RoomId) -> Result<Line, ApplyError> {
    let found: Option<(RoomRow, i64, i64)> = rooms::table
        .inner_join(lines::table)
        .filter(rooms::room_id.eq(DbId(id.get())))
        .select((RoomRow::as_select(), lines::last_ticket, lines::waiting))
        .get_result(connection)
        .optional()?;
    let (row, last_ticket, waiting) = found.ok_or(CommitError::Conflict(AggregateRef::Room(id)))?;
    let room = Versioned::<Room>::try_from(row).map_err(super::error::ReadError::from)?;
    Ok(Line { room: room.value, last_ticket, waiting })
}

fn take_place(connection: &mut SqliteConnection, join: &Join) -> Result<CommandOutcome, ApplyError> {
    let Line { room, last_ticket, waiting } = find_line(connection, join.room_id)?;
    if let Some(live) = repositories::find_live_token(connection, join.room_id, join.user_id)? {
        if live.value.is_live(join.now) {
            return Ok(CommandOutcome::AlreadyJoined(live.value));
        }
        if let Ok(lapsed) = live.try_map(|token| token.expire(join.now)) {
            unit::update_token(connection, &lapsed)?;
        }
    }
    let active = if room.policy.entrance_needs_active() {
        count_active(connection, join.room_id, join.now)?
    } else {
        0
    };
    let entrance = room.policy.entrance(count(waiting), active).map_err(CommitError::Refused)?;
    let token = new_token(join, &room.policy, entrance, TicketNumber(last_ticket.saturating_add(1)));
    add_to_line(connection, &token)?;
    Ok(CommandOutcome::Joined(token))
}

fn new_token(join: &Join, policy: &RoomPolicy, entrance: Entrance, ticket: TicketNumber) -> QueueToken {
    let Join { token_id, room_id, user_id, now } = *join;
    let state = match entrance {
        Entrance::Wait => QueueTokenState::Wait,
        Entrance::Active => QueueTokenState::Active {
            activated_at: now,
            expires_at: now.plus_seconds(policy.active_ttl_seconds),
            paused_at: None,
        },
    };
    QueueToken { id: token_id, room_id, user_id, ticket, entered_at: now, state }
}

/// Whoever is let straight through is the last one admitted: nobody waits then.
fn add_to_line(connection: &mut SqliteConnection, token: &QueueToken) -> QueryResult<()> {
    let row = QueueTokenRow::new(token, Version::FIRST);
    let line = if token.state == QueueTokenState::Wait {
        "UPDATE lines SET last_ticket = ?1, waiting = waiting + 1 WHERE room_id = ?2"
    } else {
        "UPDATE lines SET last_ticket = ?1, admitted_through = ?1 WHERE room_id = ?2"
    };
    Sql(line, (row.ticket, row.room_id)).execute(connection)?;
    diesel::insert_into(queue_tokens::table).values(&row).execute(connection)?;
    Ok(())
}

fn admit_waiters(connection: &mut SqliteConnection, admit: &Admit) -> Result<u32, ApplyError> {
    let room_id = DbId(admit.room_id.get());
    let line: Option<LineRow> =
        lines::table.find(room_id).select(LineRow::as_select()).get_result(connection).optional()?;
    let line = line.ok_or(CommitError::Conflict(AggregateRef::Room(admit.room_id)))?;
    let limit = count(line.waiting).min(u64::from(admit.limit));
    let free = match admit.max_active {
        Some(max) if limit > 0 => {
            u64::from(max).saturating_sub(count_active(connection, admit.room_id, admit.now)?)
        }
        _ => u64::MAX,
    };
    let limit = limit.min(free);
    if limit == 0 {
        return Ok(0);
    }
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let admitted = activate_first(connection, admit, line.admitted_through, limit)?;
    let through = admitted.iter().map(|row| row.ticket).max().unwrap_or(line.admitted_through);
    let left = line.waiting.saturating_sub(i64::try_from(admitted.len()).unwrap_or(i64::MAX));
    let text = "UPDATE lines SET waiting = ?, admitted_through = ? WHERE room_id = ?";
    Sql(text, (left, through, room_id)).execute(connection)?;
    Ok(u32::try_from(admitted.len()).unwrap_or(u32::MAX))
}

#[derive(QueryableByName)]
struct Ticket {
    #[diesel(sql_type = BigInt)]
    ticket: i64,
}

/// The scan starts behind the last one admitted, so that it never walks over those who are through.
fn activate_first(
    connection: &mut SqliteConnection,
    admit: &Admit,
    behind: i64,
    limit: i64,
) -> QueryResult<Vec<Ticket>> {
    let text = "UPDATE queue_tokens SET status = 'ACTIVE', activated_at = ?, expires_at = ?, version = version + 1 \
                WHERE token_id IN (SELECT token_id FROM queue_tokens WHERE room_id = ? AND status = 'WAIT' \
                                   AND ticket > ? ORDER BY ticket LIMIT ?) RETURNING ticket";
    let expires_at = DbTime(admit.now.plus_seconds(admit.active_ttl_seconds));
    let parameters = (DbTime(admit.now), expires_at, DbId(admit.room_id.get()), behind, limit);
    Sql(text, parameters).load(connection)
}

/// A statement a person, prepared once: a crowd in one statement would be another text for every size.
fn fill_line(connection: &mut SqliteConnection, fill: &Fill) -> Result<CommandOutcome, ApplyError> {
    let room_id = DbId(fill.room_id.get());
    let last: Option<i64> =
        lines::table.find(room_id).select(lines::last_ticket).get_result(connection).optional()?;
    let last = last.ok_or(CommitError::Conflict(AggregateRef::Room(fill.room_id)))?;
    let insert = "INSERT INTO queue_tokens (token_id, room_id, user_id, ticket, entered_at, status, version) \
                  VALUES (?, ?, ?, ?, ?, 'WAIT', 1)";
    for ((token_id, user_id), ticket) in fill.people.iter().zip(last.saturating_add(1)..) {
        let parameters = (DbId(token_id.get()), room_id, DbId(user_id.get()), ticket, DbTime(fill.now));
        Sql(insert, parameters).execute(connection)?;
    }
    let people = i64::try_from(fill.people.len()).unwrap_or(i64::MAX);
    let line = "UPDATE lines SET last_ticket = last_ticket + ?1, waiting = waiting + ?1 WHERE room_id = ?2";
    Sql(line, (people, room_id)).execute(connection)?;
    Ok(CommandOutcome::Filled)
}

/// No version changes: a poll is no decision about the token.
fn note_polls(
    connection: &mut SqliteConnection,
    tokens: &[QueueTokenId],
    now: Timestamp,
) -> QueryResult<u32> {
    let text = "UPDATE queue_tokens SET last_seen_at = ? WHERE status = 'WAIT' \
                AND token_id IN (SELECT unhex(value) FROM json_each(?))";
    let ids = repositories::json_of(tokens.iter().map(|id| id.get()));
    let noted = Sql(text, (DbTime(now), ids)).execute(connection)?;
    Ok(u32::try_from(noted).unwrap_or(u32::MAX))
}

fn give_up_abandoned(connection: &mut SqliteConnection, sweep: &GiveUpAbandoned) -> Result<u32, ApplyError> {
    let GiveUpAbandoned { room_id, window, gone_since, now } = *sweep;
    let (id, window, now) = (DbId(room_id.get()), i64::from(window), DbTime(now));
    let exists: Option<i64> =
        lines::table.find(id).select(lines::waiting).get_result(connection).optional()?;
    exists.ok_or(CommitError::Conflict(AggregateRef::Room(room_id)))?;
    let start = "UPDATE queue_tokens SET last_seen_at = ?3 WHERE (last_seen_at IS NULL OR ?4) AND token_id IN (\
                     SELECT token_id FROM queue_tokens WHERE room_id = ?1 AND status = 'WAIT' \
                     AND ticket > (SELECT admitted_through FROM lines WHERE room_id = ?1) \
                     ORDER BY ticket LIMIT ?2)";
    Sql(start, (id, window, now, gone_since.is_none())).execute(connection)?;
    let Some(gone_since) = gone_since else {
        let forget = "UPDATE queue_tokens SET last_seen_at = NULL WHERE last_seen_at IS NOT NULL AND token_id IN (\
                          SELECT token_id FROM queue_tokens WHERE room_id = ?1 AND status = 'WAIT' \
                          AND ticket > (SELECT admitted_through FROM lines WHERE room_id = ?1) \
                          ORDER BY ticket LIMIT ?3 OFFSET ?2)";
        Sql(forget, (id, window, i64::from(RoomPolicy::MAX_WINDOW))).execute(connection)?;
        return Ok(0);
    };
    let give_up = "UPDATE queue_tokens SET status = 'EXPIRED', expires_at = ?3, version = version + 1, \
                       departure = (SELECT departures FROM lines WHERE room_id = ?1) + gone.number \
                   FROM (SELECT token_id, row_number() OVER (ORDER BY ticket) AS number FROM (\
                       SELECT token_id, ticket, last_seen_at FROM queue_tokens WHERE room_id = ?1 AND status = 'WAIT' \
                       AND ticket > (SELECT admitted_through FROM lines WHERE room_id = ?1) \
                       ORDER BY ticket LIMIT ?2) AS head WHERE last_seen_at <= ?4) AS gone \
                   WHERE queue_tokens.token_id = gone.token_id";
    let gone = Sql(give_up, (id, window, now, DbTime(gone_since))).execute(connection)?;
    if gone > 0 {
        let leave =
            "UPDATE lines SET waiting = waiting - ?1, departures = departures + ?1 WHERE room_id = ?2";
        Sql(leave, (i64::try_from(gone).unwrap_or(i64::MAX), id)).execute(connection)?;
    }
    Ok(u32::try_from(gone).unwrap_or(u32::MAX))
}

fn pause_tokens(connection: &mut SqliteConnection, pause: &PauseTokens) -> Result<u32, ApplyError> {
    let PauseTokens { room_id, begins, now } = *pause;
    let id = DbId(room_id.get());
    let exists: Option<i64> =
        lines::table.find(id).select(lines::waiting).get_result(connection).optional()?;
    exists.ok_or(CommitError::Conflict(AggregateRef::Room(room_id)))?;
    let text = if begins {
        "UPDATE queue_tokens SET paused_at = ?2, version = version + 1 \
         WHERE room_id = ?1 AND status = 'ACTIVE' AND expires_at > ?2 AND paused_at IS NULL"
    } else {
        "UPDATE queue_tokens SET expires_at = expires_at + max(0, ?2 - paused_at), paused_at = NULL, version = version + 1 \
         WHERE room_id = ?1 AND status = 'ACTIVE' AND paused_at IS NOT NULL"
    };
    let paused = Sql(text, (id, DbTime(now))).execute(connection)?;
    Ok(u32::try_from(paused).unwrap_or(u32::MAX))
}

/// A lapsed token ended at its deadline, which it keeps. A paused one has none.
fn expire_tokens(connection: &mut SqliteConnection, now: Timestamp, limit: u32) -> QueryResult<u32> {
    let expired = run_on_lapsed(
        connection,
        "UPDATE queue_tokens SET status = 'EXPIRED', version = version + 1 WHERE token_id IN (\
             SELECT token_id FROM queue_tokens WHERE status = 'ACTIVE' AND paused_at IS NULL AND expires_at <= ? \
             ORDER BY expires_at, token_id LIMIT ?)",
        now,
        limit,
    )?;
    Ok(u32::try_from(expired).unwrap_or(u32::MAX))
}

/// The reservations themselves come last: the statements before them look for the same ones.
fn expire_holds(
    connection: &mut SqliteConnection,
    now: Timestamp,
    limit: u32,
    freed: &mut Vec<FreedSeat>,
) -> QueryResult<u32> {
    let free = "WITH lapsed AS MATERIALIZED (\
             SELECT reservation_id FROM reservations WHERE status = 'RESERVED' AND hold_expires_at <= ? \
             ORDER BY hold_expires_at, reservation_id LIMIT ?) \
         UPDATE seats SET status = 'AVAILABLE', reservation_id = NULL, hold_expires_at = NULL, version = version + 1 \
         WHERE status = 'RESERVED' AND (seat_id, reservation_id) IN (\
             SELECT held.seat_id, held.reservation_id FROM lapsed CROSS JOIN reservation_seats AS held USING (reservation_id)) \
         RETURNING seat_id, performance_date_id";
    *freed = Sql(free, (DbTime(now), i64::from(limit))).load(connection)?;
    run_on_lapsed(
        connection,
        "UPDATE reservation_seats SET live = 0 WHERE live AND reservation_id IN (\
             SELECT reservation_id FROM reservations WHERE status = 'RESERVED' AND hold_expires_at <= ? \
             ORDER BY hold_expires_at, reservation_id LIMIT ?)",
        now,
        limit,
    )?;
    let expired = run_on_lapsed(
        connection,
        "UPDATE reservations SET status = 'EXPIRED', version = version + 1 WHERE reservation_id IN (\
             SELECT reservation_id FROM reservations WHERE status = 'RESERVED' AND hold_expires_at <= ? \
             ORDER BY hold_expires_at, reservation_id LIMIT ?)",
        now,
        limit,
    )?;
    Ok(u32::try_from(expired).unwrap_or(u32::MAX))
}

fn run_on_lapsed(
    connection: &mut SqliteConnection,
    text: &'static str,
    now: Timestamp,
    limit: u32,
) -> QueryResult<usize> {
    Sql(text, (DbTime(now), i64::from(limit))).execute(connection)
}

#[derive(QueryableByName)]
struct Active {
    #[diesel(sql_type = BigInt)]
    active: i64,
}

fn count_active(connection: &mut SqliteConnection, room_id: RoomId, now: Timestamp) -> QueryResult<u64> {
    let text = "SELECT COUNT(*) AS active FROM queue_tokens \
                WHERE room_id = ? AND status = 'ACTIVE' AND (expires_at > ? OR paused_at IS NOT NULL)";
    let found: Active = Sql(text, (DbId(room_id.get()), DbTime(now))).get_result(connection)?;
    Ok(count(found.active))
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
