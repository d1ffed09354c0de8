//! One unit of work, statement by statement.
//!
//! The order of the statements is the one that foreign keys and speed ask for. When one of them fails, the unit is
//! undone, and [`first_reason`] looks for what is to be reported in the order that all adapters share.

use diesel::QueryResult;
use diesel::prelude::{BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, RunQueryDsl};
use diesel::sqlite::SqliteConnection;
use frontrow_domain::account::{Account, Payment};
use frontrow_domain::idempotency::IdempotencyRecord;
use frontrow_domain::queue::{QueueToken, QueueTokenState, Room};
use frontrow_domain::reservation::Reservation;
use frontrow_domain::seat::Seat;
use frontrow_domain::unit_of_work::{AggregateRef, CommandOutcome, CommitError, Guard, UnitOfWork};
use frontrow_domain::{Change, Version, Versioned};

use super::commands;
use super::error::ApplyError;
use super::feeds::FreedSeat;
use super::statement::{Cached, Sql};
use crate::sql::rows::{
    AccountRow, AuditRow, ConcertRow, EntryRow, IdempotencyRow, PaymentRow, PerformanceDateRow,
    QueueTokenStateRow, ReservationRow, ReservationStateRow, RoomRow, SeatRow, SeatStateRow, owns_seats,
    reservation_seat_rows, ticket_rows,
};
use crate::sql::schema::{
    accounts, audit_log, concerts, entries, idempotency_records, lines, payments, performance_dates,
    queue_tokens, reservation_seats, reservations, rooms, seats, tickets,
};
use crate::sql::types::{DbId, DbTime};

/// A seat has 11 columns, and a statement at most 32,766 parameters.
const SEATS_PER_INSERT: usize = 500;

type Applied = Result<(), ApplyError>;

/// Writes a unit, all but the feeds of dates. Says what its command came to, and which seats that freed.
pub(super) fn apply(
    connection: &mut SqliteConnection,
    work: &UnitOfWork,
) -> Result<(Option<CommandOutcome>, Vec<FreedSeat>), ApplyError> {
    if let Some(record) = &work.idempotency {
        store_answer(connection, record)?;
    }
    for guard in &work.guards {
        require(connection, guard)?;
    }
    let mut freed = Vec::new();
    let execute = |command| commands::execute(connection, command, &mut freed);
    let outcome = work.command.as_ref().map(execute).transpose()?;
    write_rooms_and_concerts(connection, work)?;
    for token in &work.queue_tokens {
        update_token(connection, token)?;
    }
    for account in &work.accounts {
        write_account(connection, account)?;
    }
    write_reservations_and_seats(connection, work)?;
    write_money(connection, work)?;
    for entry in &work.audit_log {
        let row = AuditRow::new(entry, outcome);
        diesel::insert_into(audit_log::table).values(&row).execute(connection)?;
    }
    Ok((outcome, freed))
}

/// Why a unit that was undone cannot be written: what is found first in the order of [`CommitError`]'s variants, or
/// `found` when nothing is reported before that. A key that is taken is found first as it is.
pub(super) fn first_reason(
    connection: &mut SqliteConnection,
    work: &UnitOfWork,
    found: CommitError,
) -> QueryResult<CommitError> {
    if matches!(found, CommitError::DuplicateIdempotencyKey) {
        return Ok(found);
    }
    for (aggregate, expected) in work.expected_versions() {
        if version_of(connection, aggregate)? != expected {
            return Ok(CommitError::Conflict(aggregate));
        }
    }
    Ok(found)
}

fn version_of(connection: &mut SqliteConnection, aggregate: AggregateRef) -> QueryResult<Option<Version>> {
    let version: Option<i64> = match aggregate {
        AggregateRef::Room(id) => {
            rooms::table.find(DbId(id.get())).select(rooms::version).get_result(connection).optional()
        }
        AggregateRef::QueueToken(id) => queue_tokens::table
            .find(DbId(id.get()))
            .select(queue_tokens::version)
            .get_result(connection)
            .optional(),
        AggregateRef::Account(id) => {
            accounts::table.find(DbId(id.get())).select(accounts::version).get_result(connection).optional()
        }
        AggregateRef::Reservation(id) => reservations::table
            .find(DbId(id.get()))
            .select(reservations::version)
            .get_result(connection)
            .optional(),
        AggregateRef::Seat(id) => {
            seats::table.find(DbId(id.get())).select(seats::version).get_result(connection).optional()
        }
    }?;
    Ok(version.map(Version::new))
}

fn require(connection: &mut SqliteConnection, guard: &Guard) -> Applied {
    if version_of(connection, guard.aggregate)? == Some(guard.version) {
        Ok(())
    } else {
        Err(CommitError::Conflict(guard.aggregate).into())
    }
}

/// What a statement that must write one row means when it wrote `rows`.
fn one_row(rows: usize, aggregate: AggregateRef) -> Applied {
    if rows == 1 { Ok(()) } else { Err(CommitError::Conflict(aggregate).into()) }
}

fn store_answer(connection: &mut SqliteConnection, record: &IdempotencyRecord) -> Applied {
    use idempotency_records::{expires_at, idempotency_key, table, user_id};
    let row = IdempotencyRow::from(record);
    let upsert =
        diesel::insert_into(table).values(&row).on_conflict((user_id, idempotency_key)).do_update().set(&row);
    // An expired answer gives way; one that still counts is left alone, and then no row is written.
    let unless_it_counts =
        diesel::query_dsl::methods::FilterDsl::filter(upsert, expires_at.le(row.created_at));
    let stored: Vec<DbTime> = Cached(unless_it_counts.returning(expires_at)).load(connection)?;
    if stored.len() == 1 { Ok(()) } else { Err(CommitError::DuplicateIdempotencyKey.into()) }
}

fn write_rooms_and_concerts(connection: &mut SqliteConnection, work: &UnitOfWork) -> Applied {
    for room in &work.rooms {
        write_room(connection, room)?;
    }
    for concert in &work.concerts {
        let row = ConcertRow::from(concert);
        diesel::insert_into(concerts::table).values(&row).execute(connection)?;
    }
    for date in &work.performance_dates {
        let row = PerformanceDateRow::from(date);
        diesel::insert_into(performance_dates::table).values(&row).execute(connection)?;
    }
    Ok(())
}

fn write_room(connection: &mut SqliteConnection, room: &Change<Room>) -> Applied {
    let aggregate = AggregateRef::Room(room.value().id);
    match room {
        Change::Insert(room) => {
            let row = RoomRow::new(room, Version::FIRST);
            let insert =
                diesel::insert_into(rooms::table).values(&row).on_conflict(rooms::room_id).do_nothing();
            one_row(insert.execute(connection)?, aggregate)?;
            diesel::insert_into(lines::table).values(lines::room_id.eq(row.room_id)).execute(connection)?;
            Ok(())
        }
        Change::Update(Versioned { value, version }) => {
            let row = RoomRow::new(value, version.next());
            let loaded = rooms::room_id.eq(row.room_id).and(rooms::version.eq(version.get()));
            let update = diesel::update(rooms::table.filter(loaded)).set(&row).returning(rooms::version);
            one_row(Cached(update).load::<i64>(connection)?.len(), aggregate)
        }
    }
}

/// Stores a token over the version that was loaded. One that leaves WAIT leaves the line: admitted, or else with the next
/// departure of the line.
pub(super) fn update_token(connection: &mut SqliteConnection, token: &Versioned<QueueToken>) -> Applied {
    let Versioned { value, version } = token;
    let id = DbId(value.id.get());
    leave_line(connection, value, id)?;
    let QueueTokenStateRow { status, activated_at, expires_at, paused_at, version: next } =
        QueueTokenStateRow::new(&value.state, version.next());
    let update = "UPDATE queue_tokens SET status = ?, activated_at = ?, expires_at = ?, paused_at = ?, version = ? \
                  WHERE token_id = ? AND version = ?";
    let parameters = (status, activated_at, expires_at, paused_at, next, id, version.get());
    one_row(Sql(update, parameters).execute(connection)?, AggregateRef::QueueToken(value.id))
}

fn leave_line(connection: &mut SqliteConnection, token: &QueueToken, id: DbId) -> QueryResult<()> {
    let (departs, admitted) = match token.state {
        // It waits on, or had been admitted before.
        QueueTokenState::Wait | QueueTokenState::Expired { activated_at: Some(_), .. } => return Ok(()),
        QueueTokenState::Expired { activated_at: None, .. } => (true, 0),
        QueueTokenState::Active { .. } => (false, token.ticket.0),
    };
    let room_id = DbId(token.room_id.get());
    let leave = "UPDATE lines SET waiting = waiting - 1, departures = departures + ?3, \
                     admitted_through = max(admitted_through, ?4) \
                 WHERE room_id = ?1 \
                 AND EXISTS (SELECT 1 FROM queue_tokens WHERE token_id = ?2 AND status = 'WAIT')";
    if Sql(leave, (room_id, id, i64::from(departs), admitted)).execute(connection)? > 0 && departs {
        let number = "UPDATE queue_tokens SET departure = (SELECT departures FROM lines WHERE room_id = ?1) \
                      WHERE token_id = ?2";
        Sql(number, (room_id, id)).execute(connection)?;
    }
    Ok(())
}

fn write_account(connection: &mut SqliteConnection, account: &Change<Account>) -> Applied {
    let rows = match account {
        Change::Insert(account) => {
            let row = AccountRow::new(account, Version::FIRST);
            let insert = diesel::insert_into(accounts::table).values(&row);
            insert.on_conflict(accounts::user_id).do_nothing().execute(connection)?
        }
        Change::Update(Versioned { value, version }) => {
            let AccountRow { user_id, balance, entry_count, version: next } =
                AccountRow::new(value, version.next());
            let update = "UPDATE accounts SET balance = ?, entry_count = ?, version = ? \
                          WHERE user_id = ? AND version = ?";
            Sql(update, (balance, entry_count, next, user_id, version.get())).execute(connection)?
        }
    };
    one_row(rows, AggregateRef::Account(account.value().user_id))
}

/// Reservations and seats point at each other: first the reservations, then the seats, then what is between them, where
/// seats are given up before others take them.
fn write_reservations_and_seats(connection: &mut SqliteConnection, work: &UnitOfWork) -> Applied {
    for reservation in &work.reservations {
        write_reservation(connection, reservation)?;
    }
    write_seats(connection, &work.seats)?;
    for owning in [false, true] {
        for reservation in &work.reservations {
            if owns_seats(reservation.value().status) == owning {
                write_reservation_seats(connection, reservation)?;
            }
        }
    }
    Ok(())
}

fn write_reservation(connection: &mut SqliteConnection, reservation: &Change<Reservation>) -> Applied {
    let rows = match reservation {
        Change::Insert(reservation) => {
            let row = ReservationRow::new(reservation, Version::FIRST);
            let insert = diesel::insert_into(reservations::table).values(&row);
            insert.on_conflict(reservations::reservation_id).do_nothing().execute(connection)?
        }
        Change::Update(Versioned { value, version }) => {
            let ReservationStateRow { status, version: next } =
                ReservationStateRow::new(value.status, version.next());
            let update =
                "UPDATE reservations SET status = ?, version = ? WHERE reservation_id = ? AND version = ?";
            Sql(update, (status, next, DbId(value.id.get()), version.get())).execute(connection)?
        }
    };
    one_row(rows, AggregateRef::Reservation(reservation.value().id))
}

fn write_seats(connection: &mut SqliteConnection, changes: &[Change<Seat>]) -> Applied {
    let mut new = Vec::new();
    for change in changes {
        match change {
            Change::Insert(seat) => new.push(seat),
            Change::Update(seat) => update_seat(connection, seat)?,
        }
    }
    for chunk in new.chunks(SEATS_PER_INSERT) {
        insert_seats(connection, chunk)?;
    }
    Ok(())
}

fn update_seat(connection: &mut SqliteConnection, seat: &Versioned<Seat>) -> Applied {
    let Versioned { value, version } = seat;
    let SeatStateRow { status, reservation_id, hold_expires_at, version: next } =
        SeatStateRow::new(&value.state, version.next());
    let update = "UPDATE seats SET status = ?, reservation_id = ?, hold_expires_at = ?, version = ? \
                  WHERE seat_id = ? AND version = ?";
    let parameters = (status, reservation_id, hold_expires_at, next, DbId(value.id.get()), version.get());
    one_row(Sql(update, parameters).execute(connection)?, AggregateRef::Seat(value.id))
}

fn insert_seats(connection: &mut SqliteConnection, new: &[&Seat]) -> Applied {
    let rows: Vec<SeatRow> = new.iter().map(|seat| SeatRow::new(seat, Version::FIRST)).collect();
    let insert = diesel::insert_into(seats::table).values(&rows).on_conflict(seats::seat_id).do_nothing();
    let inserted = insert.execute(connection)?;
    match new.first() {
        // One of them is there already; `first_reason` finds out which.
        Some(seat) if inserted < new.len() => Err(CommitError::Conflict(AggregateRef::Seat(seat.id)).into()),
        _ => Ok(()),
    }
}

fn write_reservation_seats(connection: &mut SqliteConnection, reservation: &Change<Reservation>) -> Applied {
    match reservation {
        Change::Insert(reservation) => {
            for row in reservation_seat_rows(reservation) {
                diesel::insert_into(reservation_seats::table).values(&row).execute(connection)?;
            }
        }
        Change::Update(Versioned { value, .. }) => {
            let settle = "UPDATE reservation_seats SET live = ?1 WHERE reservation_id = ?2 AND live <> ?1";
            Sql(settle, (owns_seats(value.status), DbId(value.id.get()))).execute(connection)?;
        }
    }
    Ok(())
}

fn write_money(connection: &mut SqliteConnection, work: &UnitOfWork) -> Applied {
    for entry in &work.entries {
        let row = EntryRow::from(entry);
        diesel::insert_into(entries::table).values(&row).execute(connection)?;
    }
    for payment in &work.payments {
        write_payment(connection, payment)?;
    }
    Ok(())
}

fn write_payment(connection: &mut SqliteConnection, payment: &Payment) -> Applied {
    let row = PaymentRow::from(payment);
    diesel::insert_into(payments::table).values(&row).execute(connection)?;
    for row in ticket_rows(payment) {
        diesel::insert_into(tickets::table).values(&row).execute(connection)?;
    }
    Ok(())
}
