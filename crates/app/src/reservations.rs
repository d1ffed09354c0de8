//! Reservations: hold, give back, look up (seed: ReservationService, 좌석 예약 요청).
//!
//! Reads and writes: a hold is 3 reads at once (date, seats, what the user has of the date) and 1 commit, besides the gate's
//! read; each lapsed hold in its way, or of the same user on the date, costs 1 read more and, for its other seats, one read
//! for all of them. Who is told that a seat is taken costs 2 reads at once more. Giving back is 2 reads and 1 commit. Both are
//! safe to repeat, so a conflict is decided anew by the new state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use frontrow_domain::concert::{Concert, NotOnSale, PerformanceDate};
use frontrow_domain::idempotency::{Answer, KeyReused};
use frontrow_domain::ports::{
    Clock, Committer, Concerts, IdGenerator, ReservationQueries, ReservationView, Reservations, Seats,
};
use frontrow_domain::queue::SalePaused;
use frontrow_domain::reservation::{
    HoldTerms, Holdings, InvalidHold, Reservation, ReservationError, ReservedSeat,
};
use frontrow_domain::seat::{Seat, SeatError, SeatStatus};
use frontrow_domain::unit_of_work::CommitError;
use frontrow_domain::{
    Change, PerformanceDateId, ReservationId, SeatId, Timestamp, UnitOfWork, UserId, Versioned,
};
use futures_util::future::{try_join, try_join_all, try_join3};

use crate::{
    Failure, Gate, GateError, GatePass, Idempotency, Keyed, MAX_ATTEMPTS, ReplayError, Reply, WrongRoom,
};

/// The limits of holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldRules {
    /// How long a hold lasts, in seconds.
    pub hold_seconds: u32,
    /// The most live seats a user may have on one date.
    pub max_seats_per_user: u32,
}

/// Which seats are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReserveRequest {
    /// The date all of them belong to.
    pub performance_date_id: PerformanceDateId,
    /// The seats, in the client's order.
    pub seat_ids: Vec<SeatId>,
}

/// Seats that are held now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The reservation.
    pub reservation: Reservation,
    /// Its seats in the client's order.
    pub seats: Vec<Seat>,
}

/// Why seats were not held. Nothing changed then.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// The pass is not good any more.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// See [`WrongRoom`].
    #[error(transparent)]
    WrongRoom(#[from] WrongRoom),
    /// The seats make no reservation.
    #[error(transparent)]
    InvalidHold(#[from] InvalidHold),
    /// More seats than one user may have.
    #[error("at most {max} seats can be reserved at once")]
    TooManySeats {
        /// How many may be.
        max: u32,
    },
    /// There is no such date.
    #[error("there is no such performance date")]
    PerformanceDateNotFound,
    /// See [`SalePaused`].
    #[error(transparent)]
    SalePaused(#[from] SalePaused),
    /// See [`NotOnSale`].
    #[error(transparent)]
    NotOnSale(#[from] NotOnSale),
    /// These seats do not exist.
    #[error("there is no such seat")]
    SeatNotFound(Vec<SeatId>),
    /// These seats belong to another date.
    #[error("a seat belongs to another performance date")]
    SeatOfAnotherDate(Vec<SeatId>),
    /// The user would have too many live seats on this date.
    #[error("at most {max} seats a person can be held or bought on one date, {live} are already")]
    SeatLimitExceeded {
        /// How many the user has.
        live: u32,
        /// How many it may have.
        max: u32,
    },
    /// These seats are held or sold (seed: 좌석 예약 불가능 반환).
    #[error("a seat is taken")]
    SeatNotAvailable(Vec<SeatId>),
    /// Others were faster, again and again.
    #[error("the seats kept changing")]
    Conflict,
    /// See [`KeyReused`].
    #[error(transparent)]
    KeyReused(KeyReused),
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<ReplayError> for ReserveError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::KeyReused(reused) => Self::KeyReused(reused),
            ReplayError::Failure(failure) => Self::Failure(failure),
        }
    }
}

/// Why a reservation cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadReservationError {
    /// There is no such reservation of this user.
    #[error("there is no such reservation")]
    NotFound,
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Why a reservation was not given back. Nothing changed then.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// There is no such reservation of this user.
    #[error("there is no such reservation")]
    NotFound,
    /// It is paid, or its deadline has passed.
    #[error(transparent)]
    Reservation(ReservationError),
    /// Others were faster, again and again.
    #[error("the reservation kept changing")]
    Conflict,
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// What a hold is decided by.
struct Loaded {
    date: PerformanceDate,
    concert: Concert,
    seats: Vec<Versioned<Seat>>,
    holdings: Holdings,
}

/// Lapsed holds that are to be expired, with the seats they had besides.
struct Lapsed {
    reservations: Vec<Versioned<Reservation>>,
    other_seats: Vec<Versioned<Seat>>,
}

/// The seed's ReservationService.
#[derive(Clone)]
#[allow(missing_docs, reason = "each field is the port of its type")]
pub struct ReservationService {
    pub rules: HoldRules,
    pub gate: Gate,
    pub reservations: Arc<dyn Reservations>,
    pub concerts: Arc<dyn Concerts>,
    pub seats: Arc<dyn Seats>,
    pub queries: Arc<dyn ReservationQueries>,
    pub committer: Arc<dyn Committer>,
    pub idempotency: Idempotency,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdGenerator>,
}

impl ReservationService {
    /// Holds seats, all or none, for the owner of the pass.
    ///
    /// # Errors
    /// [`ReserveError`] says why not; nothing changed then.
    pub async fn reserve(
        &self,
        pass: GatePass,
        request: &ReserveRequest,
        keyed: Keyed<'_, Held>,
    ) -> Result<Reply, ReserveError> {
        self.check(request)?;
        let key = keyed.request.clone();
        let attempt = self.reserve_once(pass, request, &keyed);
        let is_failure = |error: &ReserveError| {
            matches!(error, ReserveError::Failure(_) | ReserveError::Gate(GateError::Failure(_)))
        };
        self.idempotency.once(key, attempt, is_failure).await
    }

    /// One reservation of a user.
    ///
    /// # Errors
    /// [`ReadReservationError`] says why not.
    pub async fn find(
        &self,
        user_id: UserId,
        id: ReservationId,
    ) -> Result<ReservationView, ReadReservationError> {
        let found = self.queries.find_own(user_id, id, self.clock.now()).await.map_err(Failure::from)?;
        found.ok_or(ReadReservationError::NotFound)
    }

    /// Up to `limit` reservations of a user with an id before `before`, newest first.
    ///
    /// # Errors
    /// [`Failure`] alone.
    pub async fn list(
        &self,
        user_id: UserId,
        before: Option<ReservationId>,
        limit: u32,
    ) -> Result<Vec<ReservationView>, Failure> {
        Ok(self.queries.list_own(user_id, before, limit, self.clock.now()).await?)
    }

    /// Gives an unpaid hold back. Doing so again changes nothing.
    ///
    /// # Errors
    /// [`CancelError`] says why not; nothing changed then.
    pub async fn cancel(&self, user_id: UserId, id: ReservationId) -> Result<(), CancelError> {
        for _ in 0..MAX_ATTEMPTS {
            let found = self.reservations.find(id).await.map_err(Failure::from)?;
            let own = found.filter(|reservation| reservation.value.user_id == user_id);
            let reservation = own.ok_or(CancelError::NotFound)?;
            let reservation = match reservation.try_map(|r| r.cancel(self.clock.now())) {
                Ok(cancelled) => cancelled,
                Err(ReservationError::Cancelled) => return Ok(()),
                Err(error) => return Err(CancelError::Reservation(error)),
            };
            let seats = self.seats.find_many(reservation.value.seat_ids()).await.map_err(Failure::from)?;
            let Ok(seats) = released(seats, id) else { continue };
            let work = UnitOfWork {
                reservations: vec![Change::Update(reservation)],
                seats,
                ..UnitOfWork::default()
            };
            match self.committer.commit(work).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(Failure::from(error).into()),
            }
        }
        Err(CancelError::Conflict)
    }

    /// What is wrong with a request whatever is stored.
    fn check(&self, request: &ReserveRequest) -> Result<(), ReserveError> {
        let max = self.rules.max_seats_per_user;
        let wanted: BTreeSet<&SeatId> = request.seat_ids.iter().collect();
        if wanted.is_empty() {
            return Err(InvalidHold::NoSeat.into());
        }
        if wanted.len() < request.seat_ids.len() {
            return Err(InvalidHold::DuplicateSeat.into());
        }
        if count(request.seat_ids.len()) > max { Err(ReserveError::TooManySeats { max }) } else { Ok(()) }
    }

    async fn reserve_once(
        &self,
        mut pass: GatePass,
        request: &ReserveRequest,
        keyed: &Keyed<'_, Held>,
    ) -> Result<Answer, ReserveError> {
        for attempt in 0..MAX_ATTEMPTS {
            if attempt > 0 {
                // The token first: its version stands for the count of live seats that is read after it.
                pass = self.gate.renew(&pass).await?;
            }
            let now = self.clock.now();
            let loaded = self.load(&pass, request, now).await?;
            let judged = self.judge(&pass, request, &loaded, now);
            let is_doubtful = matches!(judged, Err(ReserveError::SeatNotAvailable(_)));
            if is_doubtful && !self.was_all_so_at_once(&pass, &loaded.seats).await? {
                continue;
            }
            judged?;
            let Some(lapsed) = self.load_lapsed(&loaded, now).await? else { continue };
            let Some((mut work, held)) = self.decide(&pass, request, loaded, lapsed, now)? else { continue };
            let (answer, record) = keyed.answer(&held, now);
            work.idempotency = record;
            match self.committer.commit(work).await {
                Ok(_) => return Ok(answer),
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::DuplicateIdempotencyKey) => return Err(ReserveError::Conflict),
                Err(error) => return Err(Failure::from(error).into()),
            }
        }
        Err(ReserveError::Conflict)
    }

    async fn load(
        &self,
        pass: &GatePass,
        request: &ReserveRequest,
        now: Timestamp,
    ) -> Result<Loaded, ReserveError> {
        let date = self.concerts.find_date(request.performance_date_id);
        let seats = self.seats.find_many(request.seat_ids.clone());
        let holdings = self.reservations.holdings(pass.user_id(), request.performance_date_id, now);
        let (date, seats, holdings) = try_join3(date, seats, holdings).await.map_err(Failure::from)?;
        let (date, concert) = date.ok_or(ReserveError::PerformanceDateNotFound)?;
        Ok(Loaded { date, concert, seats, holdings })
    }

    /// Whether seats and holdings, which are read at two moments, can have been so at one. A seat that the user took in between
    /// is a matter of the limit, which comes first in the contract's order. The user's live seats become more under a new
    /// version of the token alone. So if that is the same, they were no more at the moment of the seats than when they were
    /// counted, or the count came later: then the seats, if they are the same, were so at the moment of the count.
    async fn was_all_so_at_once(
        &self,
        pass: &GatePass,
        seats: &[Versioned<Seat>],
    ) -> Result<bool, ReserveError> {
        let token = async { self.gate.renew(pass).await.map_err(ReserveError::from) };
        let ids = seats.iter().map(|seat| seat.value.id).collect();
        let again = async { Ok(self.seats.find_many(ids).await.map_err(Failure::from)?) };
        let (renewed, again) = try_join(token, again).await?;
        Ok(renewed.token().version == pass.token().version && again == seats)
    }

    /// Refuses in the order that the contract fixes.
    fn judge(
        &self,
        pass: &GatePass,
        request: &ReserveRequest,
        loaded: &Loaded,
        now: Timestamp,
    ) -> Result<(), ReserveError> {
        pass.require_room(loaded.concert.room_id)?;
        pass.require_unpaused()?;
        loaded.date.require_on_sale(now)?;
        let found: BTreeMap<SeatId, &Seat> = loaded.seats.iter().map(|s| (s.value.id, &s.value)).collect();
        let those = |refused: &dyn Fn(Option<&&Seat>) -> bool| -> Vec<SeatId> {
            request.seat_ids.iter().copied().filter(|id| refused(found.get(id))).collect()
        };
        let unknown = those(&|seat| seat.is_none());
        if !unknown.is_empty() {
            return Err(ReserveError::SeatNotFound(unknown));
        }
        let foreign = those(&|seat| seat.is_some_and(|s| s.performance_date_id != loaded.date.id));
        if !foreign.is_empty() {
            return Err(ReserveError::SeatOfAnotherDate(foreign));
        }
        let (live, max) = (loaded.holdings.live_seats, self.rules.max_seats_per_user);
        if live.saturating_add(count(request.seat_ids.len())) > max {
            return Err(ReserveError::SeatLimitExceeded { live, max });
        }
        let taken = those(&|seat| seat.is_some_and(|s| s.status_at(now) != SeatStatus::Available));
        if taken.is_empty() { Ok(()) } else { Err(ReserveError::SeatNotAvailable(taken)) }
    }

    /// The lapsed holds on the wanted seats, and those of the user, to be expired in the same unit of work; `None` when one has
    /// gone by now. The user's own would not be counted here, and could still be paid on a node whose clock is behind: so
    /// many seats more than the limit.
    async fn load_lapsed(&self, loaded: &Loaded, now: Timestamp) -> Result<Option<Lapsed>, ReserveError> {
        let seats = &loaded.seats;
        let in_the_way = seats.iter().filter_map(|s| s.value.lapsed_hold(now));
        let ids: BTreeSet<ReservationId> = in_the_way.chain(loaded.holdings.lapsed.iter().copied()).collect();
        let found = try_join_all(ids.into_iter().map(|id| self.reservations.find(id))).await;
        let found = found.map_err(Failure::from)?.into_iter().flatten();
        let expired = found.map(|reservation| reservation.try_map(|r| r.expire(now)));
        let Ok(reservations) = expired.collect::<Result<Vec<_>, ReservationError>>() else { return Ok(None) };
        let wanted: BTreeSet<SeatId> = seats.iter().map(|s| s.value.id).collect();
        let others: Vec<SeatId> =
            reservations.iter().flat_map(|r| r.value.seat_ids()).filter(|id| !wanted.contains(id)).collect();
        let other_seats = if others.is_empty() {
            Vec::new()
        } else {
            self.seats.find_many(others).await.map_err(Failure::from)?
        };
        Ok(Some(Lapsed { reservations, other_seats }))
    }

    /// The whole hold as one unit of work; `None` when what was loaded does not fit together, because it changed between
    /// two of the loads.
    fn decide(
        &self,
        pass: &GatePass,
        request: &ReserveRequest,
        loaded: Loaded,
        lapsed: Lapsed,
        now: Timestamp,
    ) -> Result<Option<(UnitOfWork, Held)>, ReserveError> {
        let token = pass.token();
        let terms = HoldTerms {
            user_id: pass.user_id(),
            performance_date_id: loaded.date.id,
            room_id: loaded.concert.room_id,
            token_id: token.value.id,
            reserved_at: now,
            hold_expires_at: now.plus_seconds(self.rules.hold_seconds),
        };
        let price =
            |seat: &Versioned<Seat>| ReservedSeat { seat_id: seat.value.id, price: seat.value.place.price };
        let id = ReservationId::new(self.ids.next_id());
        let reservation = Reservation::hold(id, terms, loaded.seats.iter().map(price).collect())?;
        let held = loaded.seats.into_iter();
        let held = held.map(|seat| seat.try_map(|seat| seat.hold(id, terms.hold_expires_at, now)));
        let Ok(held) = held.collect::<Result<Vec<_>, SeatError>>() else { return Ok(None) };
        let Ok(mut seats) = released_from(lapsed.other_seats, &lapsed.reservations) else { return Ok(None) };
        let mut shown: BTreeMap<SeatId, Seat> = held.iter().map(|s| (s.value.id, s.value.clone())).collect();
        let shown = request.seat_ids.iter().filter_map(|id| shown.remove(id)).collect();
        seats.extend(held.into_iter().map(Change::Update));
        let mut reservations: Vec<_> = lapsed.reservations.into_iter().map(Change::Update).collect();
        reservations.push(Change::Insert(reservation.clone()));
        let work = UnitOfWork { queue_tokens: vec![token], reservations, seats, ..UnitOfWork::default() };
        Ok(Some((work, Held { reservation, seats: shown })))
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Seats given back by the reservation that holds them.
fn released(seats: Vec<Versioned<Seat>>, by: ReservationId) -> Result<Vec<Change<Seat>>, SeatError> {
    seats.into_iter().map(|seat| seat.try_map(|seat| seat.release(by)).map(Change::Update)).collect()
}

/// Seats given back by whichever of these reservations has them.
fn released_from(
    seats: Vec<Versioned<Seat>>,
    reservations: &[Versioned<Reservation>],
) -> Result<Vec<Change<Seat>>, SeatError> {
    let holder =
        |id: SeatId| reservations.iter().find(|r| r.value.seats.iter().any(|seat| seat.seat_id == id));
    let release = |seat: Versioned<Seat>| {
        let by = holder(seat.value.id).ok_or(SeatError::NotHeld)?.value.id;
        seat.try_map(|seat| seat.release(by)).map(Change::Update)
    };
    seats.into_iter().map(release).collect()
}

#[cfg(test)]
mod tests;
