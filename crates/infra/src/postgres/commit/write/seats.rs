//! Seats: up to a whole house of new ones at once.

use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text};
use frontrow_domain::Version;
use frontrow_domain::seat::Seat;
use frontrow_domain::unit_of_work::UnitOfWork;

use super::statement::Statement;
use super::{column, some_rows, split};
use crate::sql::rows::{SeatRow, SeatStateRow};
use crate::sql::types::{DbId, Id, Instant};

/// The most seats that one statement inserts: it stays well below the statement timeout.
const CHUNK: usize = 20_000;

/// Stores new and changed seats.
pub(super) fn write<'u>(units: &[&'u UnitOfWork], statements: &mut Vec<Statement<'u>>) {
    let changed =
        |seat: &Seat, version: Version| (DbId(seat.id.get()), SeatStateRow::new(&seat.state, version));
    let (mut inserts, updates) = split(units.iter().flat_map(|work| &work.seats), SeatRow::new, changed);
    inserts.sort_unstable_by_key(|row| row.seat_id);
    statements.extend(inserts.chunks(CHUNK).filter_map(insert));
    statements.extend(update(updates));
}

const INSERT: &str = "\
    INSERT INTO seats (seat_id, performance_date_id, section, row_number, seat_number, grade, price, status, \
        reservation_id, hold_expires_at, version) \
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) AS new (seat_id) ORDER BY seat_id \
    ON CONFLICT (seat_id) DO NOTHING";

fn insert<'u>(rows: &[SeatRow]) -> Option<Statement<'u>> {
    let texts = |text: fn(&SeatRow) -> &String| column(rows, |row| text(row).clone());
    Some(
        some_rows("seats", INSERT, rows)?
            .bind::<Array<Id>, _>(column(rows, |row| row.seat_id))
            .bind::<Array<Id>, _>(column(rows, |row| row.performance_date_id))
            .bind::<Array<Text>, _>(texts(|row| &row.place.section))
            .bind::<Array<Integer>, _>(column(rows, |row| row.place.row_number))
            .bind::<Array<Integer>, _>(column(rows, |row| row.place.seat_number))
            .bind::<Array<Text>, _>(texts(|row| &row.place.grade))
            .bind::<Array<BigInt>, _>(column(rows, |row| row.place.price))
            .bind::<Array<Text>, _>(texts(|row| &row.state.status))
            .bind::<Array<Nullable<Id>>, _>(column(rows, |row| row.state.reservation_id))
            .bind::<Array<Nullable<Instant>>, _>(column(rows, |row| row.state.hold_expires_at))
            .bind::<Array<BigInt>, _>(column(rows, |row| row.state.version)),
    )
}

const UPDATE: &str = "\
    UPDATE seats SET status = new.status, reservation_id = new.reservation_id, \
        hold_expires_at = new.hold_expires_at, version = new.version \
    FROM unnest($1, $2, $3, $4, $5) AS new (id, reservation_id, hold_expires_at, version, status) \
    WHERE seats.seat_id = new.id AND seats.version = new.version - 1 AND seats.seat_id = ANY($1)";

fn update<'u>(rows: Vec<(DbId, SeatStateRow)>) -> Option<Statement<'u>> {
    let statement = some_rows("seats", UPDATE, &rows)?
        .bind::<Array<Id>, _>(column(&rows, |(id, _)| *id))
        .bind::<Array<Nullable<Id>>, _>(column(&rows, |(_, row)| row.reservation_id))
        .bind::<Array<Nullable<Instant>>, _>(column(&rows, |(_, row)| row.hold_expires_at))
        .bind::<Array<BigInt>, _>(column(&rows, |(_, row)| row.version));
    Some(statement.bind::<Array<Text>, _>(rows.into_iter().map(|(_, row)| row.status).collect::<Vec<_>>()))
}
