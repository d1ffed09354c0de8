//! Seats: up to a whole house of new ones at once.

use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use frontrow_domain::seat::Seat;
use frontrow_domain::unit_of_work::AggregateRef;
use frontrow_domain::{Change, SeatId, Version};

use super::{Failure, Written, column, require_all, split};
use crate::postgres::cached::Cached;
use crate::sql::rows::{SeatRow, SeatStateRow};
use crate::sql::types::{DbId, Id, Instant};

/// The most seats that one statement inserts: it stays well below the statement timeout.
const CHUNK: usize = 20_000;

/// Stores new and changed seats.
pub(super) async fn write(
    connection: &mut AsyncPgConnection,
    changes: &[Change<Seat>],
) -> Result<(), Failure> {
    let changed =
        |seat: &Seat, version: Version| (DbId(seat.id.get()), SeatStateRow::new(&seat.state, version));
    let (mut inserts, updates) = split(changes, SeatRow::new, changed);
    inserts.sort_unstable_by_key(|row| row.seat_id);
    for chunk in inserts.chunks(CHUNK) {
        insert(connection, chunk).await?;
    }
    update(connection, &updates).await
}

const INSERT: &str = "\
    INSERT INTO seats (seat_id, performance_date_id, section, row_number, seat_number, grade, price, status, \
        reservation_id, hold_expires_at, version) \
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) AS new (seat_id) ORDER BY seat_id \
    ON CONFLICT (seat_id) DO NOTHING RETURNING seat_id AS id";

async fn insert(connection: &mut AsyncPgConnection, rows: &[SeatRow]) -> Result<(), Failure> {
    let ids = column(rows, |row| row.seat_id);
    let query = sql_query(INSERT)
        .bind::<Array<Id>, _>(&ids)
        .bind::<Array<Id>, _>(column(rows, |row| row.performance_date_id))
        .bind::<Array<Text>, _>(column(rows, |row| row.place.section.as_str()))
        .bind::<Array<Integer>, _>(column(rows, |row| row.place.row_number))
        .bind::<Array<Integer>, _>(column(rows, |row| row.place.seat_number))
        .bind::<Array<Text>, _>(column(rows, |row| row.place.grade.as_str()))
        .bind::<Array<BigInt>, _>(column(rows, |row| row.place.price))
        .bind::<Array<Text>, _>(column(rows, |row| row.state.status.as_str()))
        .bind::<Array<Nullable<Id>>, _>(column(rows, |row| row.state.reservation_id))
        .bind::<Array<Nullable<Instant>>, _>(column(rows, |row| row.state.hold_expires_at))
        .bind::<Array<BigInt>, _>(column(rows, |row| row.state.version));
    let written: Vec<Written> = Cached(query).load(connection).await?;
    require_all(|id| AggregateRef::Seat(SeatId::new(id)), ids, written)
}

const UPDATE: &str = "\
    UPDATE seats SET status = new.status, reservation_id = new.reservation_id, \
        hold_expires_at = new.hold_expires_at, version = new.version \
    FROM unnest($1, $2, $3, $4, $5) AS new (id, status, reservation_id, hold_expires_at, version) \
    WHERE seats.seat_id = new.id AND seats.version = new.version - 1 RETURNING seats.seat_id AS id";

async fn update(connection: &mut AsyncPgConnection, rows: &[(DbId, SeatStateRow)]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids = column(rows, |(id, _)| *id);
    let query = sql_query(UPDATE)
        .bind::<Array<Id>, _>(&ids)
        .bind::<Array<Text>, _>(column(rows, |(_, row)| row.status.as_str()))
        .bind::<Array<Nullable<Id>>, _>(column(rows, |(_, row)| row.reservation_id))
        .bind::<Array<Nullable<Instant>>, _>(column(rows, |(_, row)| row.hold_expires_at))
        .bind::<Array<BigInt>, _>(column(rows, |(_, row)| row.version));
    let written: Vec<Written> = Cached(query).load(connection).await?;
    require_all(|id| AggregateRef::Seat(SeatId::new(id)), ids, written)
}
