//! The change feed of a date: which seats each of its versions changed, and how many are AVAILABLE.
//!
//! Written last: the row of a date is hot, and is locked from here to the COMMIT only. Dates are locked in the order of
//! their ids, and nothing is locked after them.

use std::collections::BTreeMap;

use diesel::sql_types::{Array, BigInt, Binary};
use frontrow_domain::Change;
use frontrow_domain::seat::SeatState;
use frontrow_domain::unit_of_work::UnitOfWork;

use super::statement::Statement;
use super::{Locked, column, some_rows};
use crate::sql::types::{DbId, Id};

const OPEN: &str = "\
    INSERT INTO seat_feeds (performance_date_id, version, total_seats, available_seats) \
    SELECT id, 1, total, available FROM unnest($1, $2, $3) AS new (id, total, available) ORDER BY id";

/// One version on for each date, with the seats that it changed. The version that is 4,096 back is forgotten.
const BUMP: &str = "\
    WITH new AS MATERIALIZED ( \
        SELECT * FROM unnest($1, $2, $3, $4) AS new (id, total, available, seat_ids)), \
    locked AS MATERIALIZED ( \
        SELECT performance_date_id FROM seat_feeds WHERE performance_date_id = ANY($1) \
        ORDER BY performance_date_id FOR NO KEY UPDATE), \
    fed AS ( \
        UPDATE seat_feeds SET version = version + 1, total_seats = total_seats + new.total, \
            available_seats = available_seats + new.available \
        FROM new WHERE performance_date_id = new.id \
            AND performance_date_id = ANY (ARRAY(SELECT performance_date_id FROM locked)) \
        RETURNING performance_date_id, version, seat_ids), \
    forgotten AS ( \
        DELETE FROM seat_changes USING fed \
        WHERE seat_changes.performance_date_id = fed.performance_date_id \
            AND seat_changes.version = fed.version - 4096) \
    INSERT INTO seat_changes (performance_date_id, version, seat_ids) \
    SELECT performance_date_id, version, seat_ids FROM fed";

/// What a transaction changes of each date.
#[derive(Default)]
pub(in crate::postgres::commit) struct Feeds(BTreeMap<DbId, Changed>);

#[derive(Default)]
struct Changed {
    /// By how many the seats are more.
    total: i64,
    /// By how many the seats that are AVAILABLE are more.
    available: i64,
    seat_ids: Vec<u8>,
}

impl Feeds {
    /// What these units come to, whose seats are locked.
    pub(super) fn of(units: &[&UnitOfWork], locked: &Locked) -> Self {
        let mut feeds = Self::default();
        for change in units.iter().flat_map(|work| &work.seats) {
            let seat = change.value();
            let is_new = matches!(change, Change::Insert(_));
            let available = i64::from(seat.state == SeatState::Available);
            let was_available = i64::from(!is_new && locked.is_available(seat.id));
            let date = DbId(seat.performance_date_id.get());
            feeds.add(date, DbId(seat.id.get()), i64::from(is_new), available - was_available);
        }
        feeds
    }

    /// A seat that was held is AVAILABLE again.
    pub(in crate::postgres::commit) fn freed(&mut self, date: DbId, seat_id: DbId) {
        self.add(date, seat_id, 0, 1);
    }

    fn add(&mut self, date: DbId, DbId(seat_id): DbId, total: i64, available: i64) {
        let changed = self.0.entry(date).or_default();
        changed.total += total;
        changed.available += available;
        changed.seat_ids.extend_from_slice(seat_id.as_bytes());
    }

    /// Opens the feeds of new dates, with the seats that come with them: nobody has read those dates before.
    pub(super) fn open<'q>(&mut self, units: &[&UnitOfWork]) -> Option<Statement<'q>> {
        let dates = units.iter().flat_map(|work| &work.performance_dates);
        let ids: Vec<DbId> = dates.map(|date| DbId(date.id.get())).collect();
        let statement = some_rows("seat_feeds", OPEN, &ids)?;
        let first: Vec<Changed> = ids.iter().map(|id| self.0.remove(id).unwrap_or_default()).collect();
        Some(
            statement
                .bind::<Array<Id>, _>(ids)
                .bind::<Array<BigInt>, _>(column(&first, |changed| changed.total))
                .bind::<Array<BigInt>, _>(column(&first, |changed| changed.available)),
        )
    }

    /// Writes the rest.
    pub(in crate::postgres::commit) fn bump<'q>(self) -> Option<Statement<'q>> {
        let dates: Vec<_> = self.0.into_iter().collect();
        let statement = some_rows("seat_feeds", BUMP, &dates)?
            .bind::<Array<Id>, _>(column(&dates, |(date, _)| *date))
            .bind::<Array<BigInt>, _>(column(&dates, |(_, changed)| changed.total))
            .bind::<Array<BigInt>, _>(column(&dates, |(_, changed)| changed.available));
        let seat_ids: Vec<_> = dates.into_iter().map(|(_, changed)| changed.seat_ids).collect();
        Some(statement.bind::<Array<Binary>, _>(seat_ids))
    }
}
