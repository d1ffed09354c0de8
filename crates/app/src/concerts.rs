//! Concerts, dates and seats (seed: ConcertService, 예약 가능 날짜 / 좌석). Dates and seats lie behind the gate.
//!
//! Reads, apart from the gate's and that of a concert or date that is not known yet: concerts 1, dates 1, each shared by all
//! requests for the same page or dates meanwhile; offers at most 2 a second and node, see [`Offers`]; seats none, see
//! [`SeatMaps`].

use std::sync::Arc;

use frontrow_domain::concert::Concert;
use frontrow_domain::ports::{Clock, ConcertQueries, Concerts, DateFilter, DateSummary, Offer};
use frontrow_domain::{ConcertId, PerformanceDateId, Timestamp};
use futures_util::FutureExt;

use crate::kept::Kept;
use crate::seat_maps::{SeatMap, SeatMaps};
use crate::{Failure, GatePass, Offers, WrongRoom};

/// Why dates or seats cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum ConcertError {
    /// There is no such concert.
    #[error("there is no such concert")]
    ConcertNotFound,
    /// The concert has no such date.
    #[error("the concert has no such date")]
    PerformanceDateNotFound,
    /// See [`WrongRoom`].
    #[error(transparent)]
    WrongRoom(#[from] WrongRoom),
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Pages of concerts, by where they start and how many there may be.
type Listed = Kept<(Option<ConcertId>, u32), Vec<Concert>>;
/// Dates, by concert and filter.
type Dates = Kept<(ConcertId, DateFilter), Vec<DateSummary>>;

/// The seed's ConcertService. Cloning shares what it keeps.
#[derive(Clone)]
pub struct ConcertService {
    concerts: Arc<dyn Concerts>,
    queries: Arc<dyn ConcertQueries>,
    offers: Offers,
    seat_maps: SeatMaps,
    clock: Arc<dyn Clock>,
    listed: Arc<Listed>,
    dates: Arc<Dates>,
}

impl ConcertService {
    /// Answers by these ports and maps.
    #[must_use]
    pub fn new(
        concerts: Arc<dyn Concerts>,
        queries: Arc<dyn ConcertQueries>,
        offers: Offers,
        seat_maps: SeatMaps,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let incarnation = seat_maps.incarnation();
        let listed = Arc::new(Kept::new(clock.clone(), incarnation.clone()));
        let dates = Arc::new(Kept::new(clock.clone(), incarnation));
        Self { concerts, queries, offers, seat_maps, clock, listed, dates }
    }

    /// Up to `limit` concerts after `after`. Public. The last answer does for half a minute while the database is away.
    ///
    /// # Errors
    /// [`Failure`] alone.
    pub async fn list_concerts(&self, after: Option<ConcertId>, limit: u32) -> Result<Vec<Concert>, Failure> {
        let queries = self.queries.clone();
        let read = move |_| async move { queries.list_concerts(after, limit).await }.boxed();
        Ok(self.listed.ask((after, limit), read).await?)
    }

    /// What each of these concerts has left to sell, in their order. Public. See [`Offers::of`].
    ///
    /// # Errors
    /// [`Failure`] alone.
    pub async fn offers(&self, ids: &[ConcertId]) -> Result<Vec<Offer>, Failure> {
        self.offers.of(ids).await
    }

    /// The dates of a concert (seed: 예약 가능한 날짜 목록 조회). The last answer does for half a minute while the database is away.
    ///
    /// # Errors
    /// [`ConcertError`] says why not.
    pub async fn list_dates(
        &self,
        pass: &GatePass,
        concert_id: ConcertId,
        filter: DateFilter,
    ) -> Result<Vec<DateSummary>, ConcertError> {
        let concert = self.find_concert(concert_id).await?;
        pass.require_room(concert.room_id)?;
        let queries = self.queries.clone();
        let read = move |now| async move { queries.list_dates(concert_id, filter, now).await }.boxed();
        let dates = self.dates.ask((concert_id, filter), read).await;
        Ok(dates.map_err(Failure::from)?)
    }

    /// The map of the seats of a date (seed: 예약 가능한 좌석 목록 조회).
    ///
    /// # Errors
    /// [`ConcertError`] says why not.
    pub async fn seat_map(
        &self,
        pass: &GatePass,
        concert_id: ConcertId,
        date_id: PerformanceDateId,
    ) -> Result<Arc<SeatMap>, ConcertError> {
        let found = self.concerts.find_date(date_id).await.map_err(Failure::from)?;
        let Some((_, concert)) = found.filter(|(date, _)| date.concert_id == concert_id) else {
            self.find_concert(concert_id).await?;
            return Err(ConcertError::PerformanceDateNotFound);
        };
        pass.require_room(concert.room_id)?;
        Ok(self.seat_maps.find(date_id).await?)
    }

    /// Brings the maps up to date, because somebody knows more than they. When that fails, what they know must do.
    pub async fn look_again(&self) {
        if let Err(error) = self.seat_maps.look_again().await {
            tracing::debug!(%error, "seat maps could not be brought up to date");
        }
    }

    /// Now, for looking at a map.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn find_concert(&self, id: ConcertId) -> Result<Concert, ConcertError> {
        self.concerts.find(id).await.map_err(Failure::from)?.ok_or(ConcertError::ConcertNotFound)
    }
}

#[cfg(test)]
mod tests;
