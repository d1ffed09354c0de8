//! The feeds of dates: moved on once a batch for each date whose seats it changes, and read by whoever shows seats.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use diesel::prelude::{
    Connection, ExpressionMethods, OptionalExtension, QueryDsl, QueryableByName, RunQueryDsl,
    SelectableHelper,
};
use diesel::sql_types::{BigInt, Bool, Text};
use diesel::sqlite::SqliteConnection;
use diesel::{QueryResult, dsl::sql};
use frontrow_domain::ports::{SeatFeeds, SeatNews, SeatsOfDate, StorageError};
use frontrow_domain::seat::{FeedVersion, Seat, SeatState};
use frontrow_domain::unit_of_work::UnitOfWork;
use frontrow_domain::{Change, PerformanceDateId, SeatId, Versioned};

use super::Sqlite;
use super::error::ReadError;
use super::repositories::json_of;
use super::statement::{Cached, Sql};
use crate::sql::KEPT_SEAT_CHANGES;
use crate::sql::rows::{SeatRow, SeatStateRow};
use crate::sql::schema::{seat_changes, seat_feeds, seats};
use crate::sql::types::{DbId, Id};

/// A seat that an ended hold gave back.
#[derive(QueryableByName)]
pub(super) struct FreedSeat {
    #[diesel(sql_type = Id)]
    seat_id: DbId,
    #[diesel(sql_type = Id)]
    performance_date_id: DbId,
}

#[derive(QueryableByName)]
struct StoredSeat {
    #[diesel(sql_type = Id)]
    seat_id: DbId,
    #[diesel(sql_type = BigInt)]
    version: i64,
    #[diesel(sql_type = Bool)]
    is_free: bool,
}

#[derive(QueryableByName)]
struct FeedRow {
    #[diesel(sql_type = BigInt)]
    version: i64,
}

/// What a batch changes of the seats of dates. Units that are refused change nothing.
#[derive(Default)]
pub(super) struct BatchOfSeats {
    /// The seats that units change, as they are by now.
    seats: BTreeMap<DbId, Known>,
    dates: BTreeMap<DbId, ChangedDate>,
}

#[derive(Clone, Copy)]
struct Known {
    version: i64,
    /// Whether it is AVAILABLE.
    is_free: bool,
}

#[derive(Default)]
struct ChangedDate {
    is_new: bool,
    changed: BTreeSet<DbId>,
    /// How many seats there are more.
    added: i64,
    /// How many more of them are AVAILABLE; fewer, when below zero.
    freed: i64,
}

impl BatchOfSeats {
    /// Looks at the seats that units are about to change.
    pub(super) fn before(connection: &mut SqliteConnection, units: &[UnitOfWork]) -> QueryResult<Self> {
        let seats = units.iter().flat_map(|work| &work.seats);
        let mut changed = seats
            .filter_map(|change| match change {
                Change::Update(seat) => Some(seat.value.id.get()),
                Change::Insert(_) => None,
            })
            .peekable();
        if changed.peek().is_none() {
            return Ok(Self::default());
        }
        let text = "SELECT seat_id, version, status = 'AVAILABLE' AS is_free FROM seats \
                    WHERE seat_id IN (SELECT unhex(value) FROM json_each(?))";
        let stored: Vec<StoredSeat> = Sql(text, (json_of(changed),)).load(connection)?;
        let known = |StoredSeat { seat_id, version, is_free }| (seat_id, Known { version, is_free });
        Ok(Self { seats: stored.into_iter().map(known).collect(), ..Self::default() })
    }

    /// Whether a seat has changed since the unit loaded it: by far the most common reason to refuse one.
    pub(super) fn is_stale(&self, work: &UnitOfWork) -> bool {
        work.seats.iter().any(|change| match change {
            Change::Update(Versioned { value, version }) => {
                self.seats.get(&DbId(value.id.get())).is_none_or(|seat| seat.version != version.get())
            }
            Change::Insert(_) => false,
        })
    }

    /// Adds a unit that was written, and the seats that its command freed.
    pub(super) fn add(&mut self, work: &UnitOfWork, freed: &[FreedSeat]) {
        for date in &work.performance_dates {
            self.dates.entry(DbId(date.id.get())).or_default().is_new = true;
        }
        for change in &work.seats {
            let seat = change.value();
            let date = DbId(seat.performance_date_id.get());
            self.changed(date, DbId(seat.id.get()), seat.state == SeatState::Available);
            if matches!(change, Change::Insert(_)) {
                let date = self.dates.entry(date).or_default();
                date.added = date.added.saturating_add(1);
            }
        }
        for seat in freed {
            self.changed(seat.performance_date_id, seat.seat_id, true);
        }
    }

    fn changed(&mut self, date: DbId, seat: DbId, is_free: bool) {
        // A new seat, or one that only a sweep has freed, was no AVAILABLE one before.
        let known = self.seats.entry(seat).or_insert(Known { version: 0, is_free: false });
        let was_free = known.is_free;
        *known = Known { version: known.version.saturating_add(1), is_free };
        let date = self.dates.entry(date).or_default();
        date.changed.insert(seat);
        date.freed = date.freed.saturating_add(i64::from(is_free)).saturating_sub(i64::from(was_free));
    }

    /// Moves the feed of every date on.
    pub(super) fn write(self, connection: &mut SqliteConnection) -> QueryResult<()> {
        for (id, date) in self.dates {
            if date.is_new {
                let text = "INSERT INTO seat_feeds (performance_date_id, version, total_seats, available_seats) \
                            VALUES (?, 1, ?, ?)";
                Sql(text, (id, date.added, date.freed)).execute(connection)?;
            } else {
                move_on(connection, id, &date)?;
            }
        }
        Ok(())
    }
}

fn move_on(connection: &mut SqliteConnection, id: DbId, date: &ChangedDate) -> QueryResult<()> {
    let text = "UPDATE seat_feeds SET version = version + 1, total_seats = total_seats + ?, \
                    available_seats = available_seats + ? WHERE performance_date_id = ? RETURNING version";
    let moved: Vec<FeedRow> = Sql(text, (date.added, date.freed, id)).load(connection)?;
    for FeedRow { version } in moved {
        let seat_ids: Vec<u8> = date.changed.iter().flat_map(|seat| *seat.0.as_bytes()).collect();
        let text = "INSERT INTO seat_changes (performance_date_id, version, seat_ids) VALUES (?, ?, ?)";
        Sql(text, (id, version, seat_ids)).execute(connection)?;
        let text = "DELETE FROM seat_changes WHERE performance_date_id = ? AND version = ?";
        Sql(text, (id, version.saturating_sub(KEPT_SEAT_CHANGES))).execute(connection)?;
    }
    Ok(())
}

#[async_trait]
impl SeatFeeds for Sqlite {
    async fn versions(
        &self,
        ids: Vec<PerformanceDateId>,
    ) -> Result<Vec<(PerformanceDateId, FeedVersion)>, StorageError> {
        self.read(move |connection| {
            let named = sql::<Bool>("performance_date_id IN (SELECT unhex(value) FROM json_each(")
                .bind::<Text, _>(json_of(ids.into_iter().map(PerformanceDateId::get)))
                .sql("))");
            let query = seat_feeds::table
                .filter(named)
                .order(seat_feeds::performance_date_id)
                .select((seat_feeds::performance_date_id, seat_feeds::version));
            let rows: Vec<(DbId, i64)> = Cached(query).load(connection)?;
            let feed = |(id, version): (DbId, i64)| (PerformanceDateId::new(id.0), FeedVersion::new(version));
            Ok(rows.into_iter().map(feed).collect())
        })
        .await
    }

    async fn news(
        &self,
        id: PerformanceDateId,
        since: FeedVersion,
    ) -> Result<Option<SeatNews>, StorageError> {
        self.read(move |connection| connection.transaction(|connection| news(connection, id, since))).await
    }

    async fn load(&self, id: PerformanceDateId) -> Result<Option<SeatsOfDate>, StorageError> {
        self.read(move |connection| {
            connection.transaction(|connection| {
                let Some(version) = version_of(connection, id)? else { return Ok(None) };
                let rows: Vec<SeatRow> = seats::table
                    .filter(seats::performance_date_id.eq(DbId(id.get())))
                    .select(SeatRow::as_select())
                    .load(connection)?;
                let seats = rows.into_iter().map(Versioned::<Seat>::try_from);
                Ok(Some(SeatsOfDate { seats: seats.collect::<Result<_, StorageError>>()?, version }))
            })
        })
        .await
    }
}

fn version_of(
    connection: &mut SqliteConnection,
    id: PerformanceDateId,
) -> Result<Option<FeedVersion>, ReadError> {
    let version: Option<i64> = seat_feeds::table
        .find(DbId(id.get()))
        .select(seat_feeds::version)
        .get_result(connection)
        .optional()?;
    Ok(version.map(FeedVersion::new))
}

fn news(
    connection: &mut SqliteConnection,
    id: PerformanceDateId,
    since: FeedVersion,
) -> Result<Option<SeatNews>, ReadError> {
    let Some(version) = version_of(connection, id)? else { return Ok(None) };
    let changes: Vec<Vec<u8>> = seat_changes::table
        .filter(seat_changes::performance_date_id.eq(DbId(id.get())))
        .filter(seat_changes::version.gt(since.get()))
        .select(seat_changes::seat_ids)
        .load(connection)?;
    // One row a version, or some are forgotten.
    if i64::try_from(changes.len()).ok() != version.get().checked_sub(since.get()) {
        return Ok(None);
    }
    let ids = changes.iter().flat_map(|ids| ids.chunks(16)).map(uuid::Uuid::from_slice);
    let ids: BTreeSet<_> =
        ids.collect::<Result<_, _>>().map_err(|error| StorageError::Corrupt(error.to_string()))?;
    let named = sql::<Bool>("seat_id IN (SELECT unhex(value) FROM json_each(")
        .bind::<Text, _>(json_of(ids))
        .sql("))");
    let query = seats::table.filter(named).select((seats::seat_id, SeatStateRow::as_select()));
    let rows: Vec<(DbId, SeatStateRow)> = Cached(query).load(connection)?;
    let update = |(id, row): (DbId, SeatStateRow)| row.update(SeatId::new(id.0));
    Ok(Some(SeatNews {
        updates: rows.into_iter().map(update).collect::<Result<_, StorageError>>()?,
        version,
    }))
}
