//! Reservations, and which seats each has.

use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use frontrow_domain::reservation::Reservation;
use frontrow_domain::unit_of_work::AggregateRef;
use frontrow_domain::{Change, ReservationId, Version};

use super::{Failure, Written, column, require_all, split};
use crate::postgres::cached::Cached;
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

/// Stores new and changed reservations. The ones that have ended give their seats back before others take them.
pub(super) async fn write(
    connection: &mut AsyncPgConnection,
    changes: &[Change<Reservation>],
) -> Result<(), Failure> {
    let (inserts, updates) = split(changes, ReservationRow::new, Changed::new);
    insert(connection, &inserts).await?;
    update(connection, &updates).await
}

const INSERT: &str = "\
    INSERT INTO reservations (reservation_id, user_id, performance_date_id, room_id, token_id, total_amount, \
        reserved_at, hold_expires_at, status, version) \
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) AS new (reservation_id) ORDER BY reservation_id \
    ON CONFLICT (reservation_id) DO NOTHING RETURNING reservation_id AS id";

async fn insert(connection: &mut AsyncPgConnection, rows: &[ReservationRow]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids = column(rows, |row| row.reservation_id);
    let query = sql_query(INSERT)
        .bind::<Array<Id>, _>(&ids)
        .bind::<Array<Id>, _>(column(rows, |row| row.user_id))
        .bind::<Array<Id>, _>(column(rows, |row| row.performance_date_id))
        .bind::<Array<Id>, _>(column(rows, |row| row.room_id))
        .bind::<Array<Id>, _>(column(rows, |row| row.token_id))
        .bind::<Array<BigInt>, _>(column(rows, |row| row.total_amount))
        .bind::<Array<Instant>, _>(column(rows, |row| row.reserved_at))
        .bind::<Array<Instant>, _>(column(rows, |row| row.hold_expires_at))
        .bind::<Array<Text>, _>(column(rows, |row| row.state.status.as_str()))
        .bind::<Array<BigInt>, _>(column(rows, |row| row.state.version));
    let written: Vec<Written> = Cached(query).load(connection).await?;
    require_all(|id| AggregateRef::Reservation(ReservationId::new(id)), ids, written)
}

/// Whether its seats are its own goes by the status, and is written only where it turns.
const UPDATE: &str = "\
    WITH new AS MATERIALIZED ( \
        SELECT * FROM unnest($1, $2, $3, $4) AS new (id, status, version, live)), \
    turned AS ( \
        UPDATE reservation_seats SET live = new.live FROM new \
        WHERE reservation_seats.reservation_id = new.id AND reservation_seats.live <> new.live) \
    UPDATE reservations SET status = new.status, version = new.version FROM new \
    WHERE reservations.reservation_id = new.id AND reservations.version = new.version - 1 \
    RETURNING reservations.reservation_id AS id";

async fn update(connection: &mut AsyncPgConnection, rows: &[Changed]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids = column(rows, |row| row.id);
    let query = sql_query(UPDATE)
        .bind::<Array<Id>, _>(&ids)
        .bind::<Array<Text>, _>(column(rows, |row| row.state.status.as_str()))
        .bind::<Array<BigInt>, _>(column(rows, |row| row.state.version))
        .bind::<Array<Bool>, _>(column(rows, |row| row.owns_seats));
    let written: Vec<Written> = Cached(query).load(connection).await?;
    require_all(|id| AggregateRef::Reservation(ReservationId::new(id)), ids, written)
}

const INSERT_SEATS: &str = "\
    INSERT INTO reservation_seats (reservation_id, seat_id, price, live) \
    SELECT * FROM unnest($1, $2, $3, $4) AS new (reservation_id, seat_id) ORDER BY seat_id";

/// Stores which seats the new reservations have.
pub(super) async fn insert_seats(
    connection: &mut AsyncPgConnection,
    changes: &[Change<Reservation>],
) -> Result<(), Failure> {
    let new = changes.iter().filter_map(|change| match change {
        Change::Insert(reservation) => Some(reservation),
        Change::Update(_) => None,
    });
    let rows: Vec<ReservationSeatRow> = new.flat_map(reservation_seat_rows).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let query = sql_query(INSERT_SEATS)
        .bind::<Array<Id>, _>(column(&rows, |row| row.reservation_id))
        .bind::<Array<Id>, _>(column(&rows, |row| row.seat_id))
        .bind::<Array<BigInt>, _>(column(&rows, |row| row.price))
        .bind::<Array<Bool>, _>(column(&rows, |row| row.live));
    Cached(query).execute(connection).await?;
    Ok(())
}
