//! Concerts, dates and seats (seed: ConcertService, 예약 가능 날짜 / 좌석). Dates and seats lie behind the gate.
//!
//! Reads: concerts 1; dates 2 (the concert, its dates); seats 2 (the date with its concert, the seats), besides the gate's 1.

use std::sync::Arc;

use frontrow_domain::concert::Concert;
use frontrow_domain::ports::{
    Clock, ConcertQueries, Concerts, DateFilter, DateSummary, SeatFilter, SeatView,
};
use frontrow_domain::{ConcertId, PerformanceDateId};

use crate::{Failure, GatePass, WrongRoom};

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

/// The seed's ConcertService.
#[derive(Clone)]
#[allow(missing_docs, reason = "each field is the port of its type")]
pub struct ConcertService {
    pub concerts: Arc<dyn Concerts>,
    pub queries: Arc<dyn ConcertQueries>,
    pub clock: Arc<dyn Clock>,
}

impl ConcertService {
    /// Up to `limit` concerts after `after`. Public.
    ///
    /// # Errors
    /// [`Failure`] alone.
    pub async fn list_concerts(&self, after: Option<ConcertId>, limit: u32) -> Result<Vec<Concert>, Failure> {
        Ok(self.queries.list_concerts(after, limit).await?)
    }

    /// The dates of a concert (seed: 예약 가능한 날짜 목록 조회).
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
        let dates = self.queries.list_dates(concert_id, filter, self.clock.now()).await;
        Ok(dates.map_err(Failure::from)?)
    }

    /// The seats of a date (seed: 예약 가능한 좌석 목록 조회).
    ///
    /// # Errors
    /// [`ConcertError`] says why not.
    pub async fn list_seats(
        &self,
        pass: &GatePass,
        concert_id: ConcertId,
        date_id: PerformanceDateId,
        filter: SeatFilter,
    ) -> Result<Vec<SeatView>, ConcertError> {
        let found = self.concerts.find_date(date_id).await.map_err(Failure::from)?;
        let Some((_, concert)) = found.filter(|(date, _)| date.concert_id == concert_id) else {
            self.find_concert(concert_id).await?;
            return Err(ConcertError::PerformanceDateNotFound);
        };
        pass.require_room(concert.room_id)?;
        let seats = self.queries.list_seats(date_id, filter, self.clock.now()).await;
        Ok(seats.map_err(Failure::from)?)
    }

    async fn find_concert(&self, id: ConcertId) -> Result<Concert, ConcertError> {
        self.concerts.find(id).await.map_err(Failure::from)?.ok_or(ConcertError::ConcertNotFound)
    }
}

#[cfg(test)]
mod tests;
