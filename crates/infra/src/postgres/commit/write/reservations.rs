//! Reservations, and which seats each has.

use diesel::sql_types::{Array, BigInt, Bool, Text};
use frontrow_domain::reservation::Reservation;
use frontrow_domain::unit_of_work::UnitOfWork;
use frontrow_domain::{Change, Version};

use super::statement::Statement;
use super::{column, some_rows, split};
use crate::sql::rows::{
    ReservationRow, ReservationSeatRow, ReservationStateRow, owns_seats, reservation_seat_rows,
};
use crate::sql::types::{DbId, Id, Instant};

/// What changes of a reservation, and whose it is.
struct Changed {
    id: DbId,
    owns_seats: bool,
    state: ReservationStateRow,
}

impl Changed {
    fn new(reservation: &Reservation, version: Version) -> Self {
        Self {
            id: DbId(reservation.id.get()),
            owns_seats: owns_seats(reservation.status),
            state: ReservationStateRow::new(reservation.status, version),
        }
    }
}

/// Stores new and changed reservations, and gives the seats of those that have ended back before others take them.
pub(super) fn write<'u>(units: &[&'u UnitOfWork], statements: &mut Vec<Statement<'u>>) {
    let changes = units.iter().flat_map(|work| &work.reservations);
    let (inserts, updates) = split(changes, ReservationRow::new, Changed::new);
    statements.extend(insert(inserts));
    statements.extend(update(updates));
}

const INSERT: &str = "\
    INSERT INTO reservations (reservation_id, user_id, performance_date_id, room_id, token_id, total_amount, \
        reserved_at, hold_expires_at, version, status) \
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) AS new (reservation_id) ORDER BY reservation_id \
    ON CONFLICT (reservation_id) DO NOTHING";

fn insert<'u>(rows: Vec<ReservationRow>) -> Option<Statement<'u>> {
    let statement = some_rows("reservations", INSERT, &rows)?
        .bind::<Array<Id>, _>(column(&rows, |row| row.reservation_id))
        .bind::<Array<Id>, _>(column(&rows, |row| row.user_id))
        .bind::<Array<Id>, _>(column(&rows, |row| row.performance_date_id))
        .bind::<Array<Id>, _>(column(&rows, |row| row.room_id))
        .bind::<Array<Id>, _>(column(&rows, |row| row.token_id))
        .bind::<Array<BigInt>, _>(column(&rows, |row| row.total_amount))
        .bind::<Array<Instant>, _>(column(&rows, |row| row.reserved_at))
        .bind::<Array<Instant>, _>(column(&rows, |row| row.hold_expires_at))
        .bind::<Array<BigInt>, _>(column(&rows, |row| row.state.version));
    Some(statement.bind::<Array<Text>, _>(rows.into_iter().map(|row| row.state.status).collect::<Vec<_>>()))
}

/// Whether its seats are its own goes by the status, and is written only where it turns.
const UPDATE: &str = "\
    WITH new AS MATERIALIZED ( \
        SELECT * FROM unnest($1, $2, $3, $4) AS new (id, version, live, status)), \
    turned AS ( \
        UPDATE reservation_seats SET live = new.live FROM new \
        WHERE reservation_seats.reservation_id = new.id AND reservation_seats.live <> new.live \
            AND reservation_seats.reservation_id = ANY($1)) \
    UPDATE reservations SET status = new.status, version = new.version FROM new \
    WHERE reservations.reservation_id = new.id AND reservations.version = new.version - 1 \
        AND reservations.reservation_id = ANY($1)";

fn update<'u>(rows: Vec<Changed>) -> Option<Statement<'u>> {
    let statement = some_rows("reservations", UPDATE, &rows)?
        .bind::<Array<Id>, _>(column(&rows, |row| row.id))
        .bind::<Array<BigInt>, _>(column(&rows, |row| row.state.version))
        .bind::<Array<Bool>, _>(column(&rows, |row| row.owns_seats));
    Some(statement.bind::<Array<Text>, _>(rows.into_iter().map(|row| row.state.status).collect::<Vec<_>>()))
}

const INSERT_SEATS: &str = "\
    INSERT INTO reservation_seats (reservation_id, seat_id, price, live) \
    SELECT * FROM unnest($1, $2, $3, $4) AS new (reservation_id, seat_id) ORDER BY seat_id";

/// Stores which seats the new reservations have.
pub(super) fn insert_seats<'u>(units: &[&'u UnitOfWork]) -> Option<Statement<'u>> {
    let new = units.iter().flat_map(|work| &work.reservations).filter_map(|change| match change {
        Change::Insert(reservation) => Some(reservation),
        Change::Update(_) => None,
    });
    let rows: Vec<ReservationSeatRow> = new.flat_map(reservation_seat_rows).collect();
    Some(
        some_rows("reservation_seats", INSERT_SEATS, &rows)?
            .bind::<Array<Id>, _>(column(&rows, |row| row.reservation_id))
            .bind::<Array<Id>, _>(column(&rows, |row| row.seat_id))
            .bind::<Array<BigInt>, _>(column(&rows, |row| row.price))
            .bind::<Array<Bool>, _>(column(&rows, |row| row.live)),
    )
}
