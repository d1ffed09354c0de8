//! The row locks of a batch, all by one statement.

use std::collections::{BTreeSet, HashMap, HashSet};

use diesel::sql_types::{Array, BigInt, Bool, Integer};
use diesel::{QueryResult, QueryableByName, sql_query};
use diesel_async::RunQueryDsl;
use frontrow_domain::queue::{QueueToken, QueueTokenState};
use frontrow_domain::unit_of_work::{AggregateRef, Command, UnitOfWork};
use frontrow_domain::{PerformanceDateId, QueueTokenId, ReservationId, RoomId, SeatId, UserId, Version};

use crate::postgres::cached::Cached;
use crate::postgres::session::Session;
use crate::sql::types::{DbId, Id};

/// One subselect a table, in the lock order. Each sorts before it locks, and an append runs its parts one after the
/// other: so the rows are locked in this order. Rows that had to be waited for come back as they are then.
///
/// `marked` tells a token that waits, and a seat that is AVAILABLE. Only lines have the four numbers.
/// The last row is the number of the transaction, by which its end can be asked for.
const LOCK: &str = "\
    SELECT 0 AS kind, room_id AS id, 0::BIGINT AS version, FALSE AS marked, \
        last_ticket, waiting, admitted_through, departures FROM (SELECT * FROM lines \
        WHERE room_id = ANY($1) ORDER BY room_id FOR UPDATE) AS locked_lines \
    UNION ALL \
    SELECT 1, room_id, version, FALSE, 0, 0, 0, 0 FROM (SELECT room_id, version FROM rooms \
        WHERE room_id = ANY($2) ORDER BY room_id FOR NO KEY UPDATE) AS locked_rooms \
    UNION ALL \
    SELECT 2, token_id, version, status = 'WAIT', 0, 0, 0, 0 FROM (SELECT token_id, version, status \
        FROM queue_tokens WHERE token_id = ANY($3) ORDER BY token_id FOR NO KEY UPDATE) AS locked_tokens \
    UNION ALL \
    SELECT 3, user_id, version, FALSE, 0, 0, 0, 0 FROM (SELECT user_id, version FROM accounts \
        WHERE user_id = ANY($4) ORDER BY user_id FOR NO KEY UPDATE) AS locked_accounts \
    UNION ALL \
    SELECT 4, reservation_id, version, FALSE, 0, 0, 0, 0 FROM (SELECT reservation_id, version \
        FROM reservations WHERE reservation_id = ANY($5) ORDER BY reservation_id FOR NO KEY UPDATE) \
        AS locked_reservations \
    UNION ALL \
    SELECT 5, seat_id, version, status = 'AVAILABLE', 0, 0, 0, 0 FROM (SELECT seat_id, version, status \
        FROM seats WHERE seat_id = ANY($6) ORDER BY seat_id FOR NO KEY UPDATE) AS locked_seats \
    UNION ALL \
    SELECT 6, '00000000-0000-0000-0000-000000000000', pg_current_xact_id()::TEXT::BIGINT, FALSE, 0, 0, 0, 0";

/// A row that units of work lock, or wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Row {
    /// The line of a room.
    Line(RoomId),
    /// An aggregate.
    Aggregate(AggregateRef),
    /// The change feed of a date.
    Feed(PerformanceDateId),
}

/// The rows that a unit locks by key. Not among them: what its command finds for itself, and new rows.
pub(super) fn rows_of(work: &UnitOfWork) -> Vec<Row> {
    let lines = moved_lines(work).into_iter().map(Row::Line);
    let versions = work.expected_versions().into_iter().map(|(aggregate, _)| Row::Aggregate(aggregate));
    let feeds = work.seats.iter().map(|seat| Row::Feed(seat.value().performance_date_id));
    // A new token refers to its room, and waits for an exclusive lock of it.
    let joined = match &work.command {
        Some(Command::Join(join)) => Some(Row::Aggregate(AggregateRef::Room(join.room_id))),
        _ => None,
    };
    lines.chain(versions).chain(feeds).chain(joined).collect()
}

/// The counters of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LineCounters {
    /// The highest ticket there is.
    pub(super) last_ticket: i64,
    /// How many wait.
    pub(super) waiting: i64,
    /// The highest ticket that was ever admitted.
    pub(super) admitted_through: i64,
    /// How many left without being admitted.
    pub(super) departures: i64,
}

/// The rows a batch has locked, as they are now and stay until its end.
#[derive(Debug, Default)]
pub(super) struct Locked {
    lines: HashMap<RoomId, LineCounters>,
    versions: HashMap<AggregateRef, Version>,
    waiting: HashSet<QueueTokenId>,
    available: HashSet<SeatId>,
    transaction: i64,
}

impl Locked {
    /// The line of this room, which is locked; `None` when there is no such room.
    pub(super) fn line(&self, room_id: RoomId) -> Option<LineCounters> {
        self.lines.get(&room_id).copied()
    }

    /// The version of an aggregate; `None` when there is no such aggregate.
    pub(super) fn version_of(&self, aggregate: AggregateRef) -> Option<Version> {
        self.versions.get(&aggregate).copied()
    }

    /// Whether this token waits.
    pub(super) fn waits(&self, id: QueueTokenId) -> bool {
        self.waiting.contains(&id)
    }

    /// The number of the transaction.
    pub(super) const fn transaction(&self) -> i64 {
        self.transaction
    }

    /// Whether this seat is stored as AVAILABLE.
    pub(super) fn is_available(&self, id: SeatId) -> bool {
        self.available.contains(&id)
    }
}

#[derive(QueryableByName)]
struct LockedRow {
    #[diesel(sql_type = Integer)]
    kind: i32,
    #[diesel(sql_type = Id)]
    id: DbId,
    #[diesel(sql_type = BigInt)]
    version: i64,
    #[diesel(sql_type = Bool)]
    marked: bool,
    #[diesel(sql_type = BigInt)]
    last_ticket: i64,
    #[diesel(sql_type = BigInt)]
    waiting: i64,
    #[diesel(sql_type = BigInt)]
    admitted_through: i64,
    #[diesel(sql_type = BigInt)]
    departures: i64,
}

/// Locks what the units write or guard, and the lines they move.
pub(super) async fn lock(mut connection: &Session, units: &[&UnitOfWork]) -> QueryResult<Locked> {
    let keys = Keys::of(units);
    let query = sql_query(LOCK)
        .bind::<Array<Id>, _>(Vec::from_iter(keys.lines))
        .bind::<Array<Id>, _>(Vec::from_iter(keys.rooms))
        .bind::<Array<Id>, _>(Vec::from_iter(keys.queue_tokens))
        .bind::<Array<Id>, _>(Vec::from_iter(keys.accounts))
        .bind::<Array<Id>, _>(Vec::from_iter(keys.reservations))
        .bind::<Array<Id>, _>(Vec::from_iter(keys.seats));
    let rows: Vec<LockedRow> = Cached(query).load(&mut connection).await?;
    let mut locked = Locked::default();
    for row in rows {
        locked.add(row);
    }
    Ok(locked)
}

impl Locked {
    fn add(&mut self, row: LockedRow) {
        let LockedRow { kind, id: DbId(id), version, marked, .. } = row;
        let aggregate = match kind {
            0 => {
                let LockedRow { last_ticket, waiting, admitted_through, departures, .. } = row;
                let counters = LineCounters { last_ticket, waiting, admitted_through, departures };
                self.lines.insert(RoomId::new(id), counters);
                return;
            }
            1 => AggregateRef::Room(RoomId::new(id)),
            2 => AggregateRef::QueueToken(QueueTokenId::new(id)),
            3 => AggregateRef::Account(UserId::new(id)),
            4 => AggregateRef::Reservation(ReservationId::new(id)),
            5 => AggregateRef::Seat(SeatId::new(id)),
            _ => {
                self.transaction = version;
                return;
            }
        };
        self.versions.insert(aggregate, Version::new(version));
        match aggregate {
            AggregateRef::QueueToken(id) if marked => drop(self.waiting.insert(id)),
            AggregateRef::Seat(id) if marked => drop(self.available.insert(id)),
            _ => {}
        }
    }
}

#[derive(Default)]
struct Keys {
    lines: BTreeSet<DbId>,
    rooms: BTreeSet<DbId>,
    queue_tokens: BTreeSet<DbId>,
    accounts: BTreeSet<DbId>,
    reservations: BTreeSet<DbId>,
    seats: BTreeSet<DbId>,
}

impl Keys {
    fn of(units: &[&UnitOfWork]) -> Self {
        let mut keys = Self::default();
        for work in units {
            keys.lines.extend(moved_lines(work).into_iter().map(|id| DbId(id.get())));
            for (aggregate, _) in work.expected_versions() {
                keys.add(aggregate);
            }
        }
        keys
    }

    fn add(&mut self, aggregate: AggregateRef) {
        let (keys, id) = match aggregate {
            AggregateRef::Room(id) => (&mut self.rooms, id.get()),
            AggregateRef::QueueToken(id) => (&mut self.queue_tokens, id.get()),
            AggregateRef::Account(id) => (&mut self.accounts, id.get()),
            AggregateRef::Reservation(id) => (&mut self.reservations, id.get()),
            AggregateRef::Seat(id) => (&mut self.seats, id.get()),
        };
        keys.insert(DbId(id));
    }
}

/// The lines whose length, or whose room, the unit may change.
pub(super) fn moved_lines(work: &UnitOfWork) -> Vec<RoomId> {
    let of_command = match &work.command {
        Some(Command::Join(join)) => Some(join.room_id),
        Some(Command::Admit(admit)) => Some(admit.room_id),
        Some(Command::GiveUpAbandoned(sweep)) => Some(sweep.room_id),
        Some(Command::Fill(fill)) => Some(fill.room_id),
        Some(Command::PauseTokens(pause)) => Some(pause.room_id),
        Some(
            Command::ExpireTokens { .. }
            | Command::ExpireHolds { .. }
            | Command::NotePolls { .. }
            | Command::PruneTokens(_)
            | Command::PruneAnswers { .. },
        )
        | None => None,
    };
    // A room that is written with a new date keeps its policy, which is all that joins read of it: the line stays free while the
    // seats are inserted.
    let has_date = !work.performance_dates.is_empty();
    let of_rooms = work.rooms.iter().filter(|_| !has_date).map(|change| change.value().id);
    let leaving = work.queue_tokens.iter().map(|token| &token.value).filter(|token| was_waiting(token));
    of_command.into_iter().chain(of_rooms).chain(leaving.map(|token| token.room_id)).collect()
}

/// Whether a token that is written EXPIRED left the line by that: it was never admitted.
pub(super) const fn was_waiting(token: &QueueToken) -> bool {
    matches!(token.state, QueueTokenState::Expired { activated_at: None, .. })
}
