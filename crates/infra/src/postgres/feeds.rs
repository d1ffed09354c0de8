//! The feeds of dates, read by whoever shows seats: one statement each, so that each is one snapshot.

use async_trait::async_trait;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel_async::RunQueryDsl;
use frontrow_domain::ports::{SeatFeeds, SeatNews, SeatsOfDate, StorageError};
use frontrow_domain::seat::{FeedVersion, SeatUpdate};
use frontrow_domain::{PerformanceDateId, SeatId};

use super::Postgres;
use super::cached::Cached;
use super::error::read_error;
use crate::sql::rows::{SeatRow, SeatStateRow};
use crate::sql::schema::{seat_feeds, seats};
use crate::sql::types::{DbId, DbTime, Id, Instant};

/// The seats are found by their ids in an array: for a join the planner of a prepared statement would read all seats.
const NEWS: &str = "\
    WITH changes AS MATERIALIZED ( \
        SELECT seat_ids FROM seat_changes WHERE performance_date_id = $1 AND version > $2) \
    SELECT feed.version AS feed_version, (SELECT count(*) FROM changes) AS versions, seats.seat_id, seats.status, \
        seats.reservation_id, seats.hold_expires_at, seats.version \
    FROM seat_feeds AS feed LEFT JOIN seats ON seats.seat_id = ANY (ARRAY( \
        SELECT encode(substring(seat_ids FROM 16 * n + 1 FOR 16), 'hex')::uuid \
        FROM changes, generate_series(0, length(seat_ids) / 16 - 1) AS n)) \
    WHERE feed.performance_date_id = $1";

/// A seat that has changed. A date of which none has changed is one row without a seat.
#[derive(QueryableByName)]
struct NewsRow {
    #[diesel(sql_type = BigInt)]
    feed_version: i64,
    /// How many versions are told of.
    #[diesel(sql_type = BigInt)]
    versions: i64,
    #[diesel(sql_type = Nullable<Id>)]
    seat_id: Option<DbId>,
    #[diesel(sql_type = Nullable<Text>)]
    status: Option<String>,
    #[diesel(sql_type = Nullable<Id>)]
    reservation_id: Option<DbId>,
    #[diesel(sql_type = Nullable<Instant>)]
    hold_expires_at: Option<DbTime>,
    #[diesel(sql_type = Nullable<BigInt>)]
    version: Option<i64>,
}

impl NewsRow {
    fn update(self) -> Option<Result<SeatUpdate, StorageError>> {
        let Self { reservation_id, hold_expires_at, .. } = self;
        let state =
            SeatStateRow { status: self.status?, reservation_id, hold_expires_at, version: self.version? };
        Some(state.update(SeatId::new(self.seat_id?.0)))
    }
}

#[async_trait]
impl SeatFeeds for Postgres {
    async fn versions(
        &self,
        ids: Vec<PerformanceDateId>,
    ) -> Result<Vec<(PerformanceDateId, FeedVersion)>, StorageError> {
        let ids: Vec<DbId> = ids.into_iter().map(|id| DbId(id.get())).collect();
        let query = seat_feeds::table
            .filter(seat_feeds::performance_date_id.eq_any(ids))
            .order(seat_feeds::performance_date_id)
            .select((seat_feeds::performance_date_id, seat_feeds::version));
        let mut connection = self.connection().await?;
        let rows: Vec<(DbId, i64)> = Cached(query).load(&mut connection).await.map_err(read_error)?;
        drop(connection);
        let feed = |(id, version): (DbId, i64)| (PerformanceDateId::new(id.0), FeedVersion::new(version));
        Ok(rows.into_iter().map(feed).collect())
    }

    async fn news(
        &self,
        id: PerformanceDateId,
        since: FeedVersion,
    ) -> Result<Option<SeatNews>, StorageError> {
        let query = sql_query(NEWS).bind::<Id, _>(DbId(id.get())).bind::<BigInt, _>(since.get());
        let mut connection = self.connection().await?;
        let rows: Vec<NewsRow> = Cached(query).load(&mut connection).await.map_err(read_error)?;
        drop(connection);
        let [NewsRow { feed_version, versions, .. }, ..] = rows.as_slice() else { return Ok(None) };
        let version = *feed_version;
        // One row of changes a version, or some are forgotten.
        if version.checked_sub(since.get()) != Some(*versions) {
            return Ok(None);
        }
        let updates = rows.into_iter().filter_map(NewsRow::update).collect::<Result<_, _>>()?;
        Ok(Some(SeatNews { updates, version: FeedVersion::new(version) }))
    }

    async fn load(&self, id: PerformanceDateId) -> Result<Option<SeatsOfDate>, StorageError> {
        let query = seat_feeds::table
            .left_join(seats::table.on(seats::performance_date_id.eq(seat_feeds::performance_date_id)))
            .filter(seat_feeds::performance_date_id.eq(DbId(id.get())))
            .select((seat_feeds::version, Option::<SeatRow>::as_select()));
        let mut connection = self.connection().await?;
        let rows: Vec<(i64, Option<SeatRow>)> =
            Cached(query).load(&mut connection).await.map_err(read_error)?;
        drop(connection);
        let [(version, _), ..] = rows.as_slice() else { return Ok(None) };
        let version = FeedVersion::new(*version);
        let seats = rows.into_iter().filter_map(|(_, seat)| seat.map(TryInto::try_into));
        Ok(Some(SeatsOfDate { seats: seats.collect::<Result<_, _>>()?, version }))
    }
}
