//! Dates, seats, reservations. Whose a seat is follows from the reservations alone.

use std::collections::BTreeSet;

use crate::wallet::Request;
use crate::{
    Answer, DateSeen, DateSpec, Key, Model, Name, Refusal, ReservationSeen, ReservationStatus, SECOND,
    SalesSeen, SeatStatus, Time, count,
};

/// A performance date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Date {
    pub(crate) concert: usize,
    pub(crate) on_sale_at: Option<Time>,
    pub(crate) starts_at: Time,
}

impl Date {
    pub(crate) fn new(spec: &DateSpec) -> Self {
        Self { concert: spec.concert, on_sale_at: spec.on_sale_at, starts_at: spec.starts_at }
    }

    fn is_on_sale(&self, now: Time) -> bool {
        self.on_sale_at.is_none_or(|on_sale_at| on_sale_at <= now) && now < self.starts_at
    }
}

/// A seat: which date it is of and what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) date: usize,
    pub(crate) price: i64,
}

/// Seats that somebody holds, held or bought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub(crate) user: usize,
    pub(crate) date: usize,
    /// In the order asked for.
    pub(crate) seats: Vec<usize>,
    pub(crate) total: i64,
    until: Time,
    pub(crate) end: End,
}

/// How a reservation ended, but for its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    None,
    /// By this call.
    Paid {
        payment: Name,
        at: Time,
    },
    Cancelled,
}

impl Reservation {
    pub(crate) fn status(&self, now: Time) -> ReservationStatus {
        match self.end {
            End::Paid { .. } => ReservationStatus::Done,
            End::Cancelled => ReservationStatus::Cancelled,
            End::None if now < self.until => ReservationStatus::Reserved,
            End::None => ReservationStatus::Expired,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        (self.end == End::None).then_some(self.until)
    }
}

impl Model {
    pub(crate) fn list_dates(
        &self,
        user: usize,
        token: Option<Name>,
        concert: usize,
        all: bool,
    ) -> Result<Answer, Refusal> {
        let token = self.pass(user, token)?;
        self.concerts.get(concert).ok_or(Refusal::ConcertNotFound)?;
        self.require_room(&token, concert)?;
        let dates = self.dates_seen().filter(|(of, _)| *of == concert).map(|(_, date)| date);
        let wanted = dates.filter(|date| all || (date.starts_at > self.now && date.available_seats > 0));
        let mut dates: Vec<DateSeen> = wanted.collect();
        dates.sort_by_key(|date| date.starts_at);
        Ok(Answer::Dates(dates))
    }

    pub(crate) fn look_at_seats(
        &self,
        user: usize,
        token: Option<Name>,
        concert: usize,
        date: usize,
    ) -> Result<Answer, Refusal> {
        let token = self.pass(user, token)?;
        self.concerts.get(concert).ok_or(Refusal::ConcertNotFound)?;
        let of_it = self.dates.get(date).filter(|date| date.concert == concert);
        of_it.ok_or(Refusal::PerformanceDateNotFound)?;
        self.require_room(&token, concert)?;
        Ok(Answer::Seats(self.seats_of(date).map(|(_, status)| status).collect()))
    }

    /// Whether a concert has a date ahead, and every seat of those was sold by the payments that count.
    fn is_sold_out_at(&self, concert: usize, at: Time, counts: impl Fn(Time) -> bool) -> bool {
        let is_sold = |seat: usize| {
            self.reservations.values().any(|reservation| {
                let paid = matches!(reservation.end, End::Paid { at, .. } if counts(at));
                paid && reservation.seats.contains(&seat)
            })
        };
        let dates = self.dates.iter().enumerate();
        let mut ahead = dates.filter(|(_, date)| date.concert == concert && date.starts_at > at).peekable();
        ahead.peek().is_some() && ahead.all(|(date, _)| self.seats_of(date).all(|(seat, _)| is_sold(seat)))
    }

    pub(crate) fn is_sold_out(&self, concert: usize) -> bool {
        self.is_sold_out_at(concert, self.now, |_| true)
    }

    /// Whether a node may still believe otherwise, by a view that is at most a second old.
    pub(crate) fn may_be_seen_otherwise(&self, concert: usize) -> bool {
        let payments = self.reservations.values().filter_map(|reservation| match reservation.end {
            End::Paid { at, .. } => Some(at),
            End::None | End::Cancelled => None,
        });
        let starts = self.dates.iter().flat_map(|date| [date.starts_at - 1, date.starts_at]);
        let oldest = self.now - SECOND;
        let moments = payments.chain(starts).filter(|at| (oldest..=self.now).contains(at)).chain([oldest]);
        let mut seen = moments.flat_map(|moment| {
            // A view of the very time of a payment may be from before it.
            let before = self.is_sold_out_at(concert, moment, |at| at < moment);
            [before, self.is_sold_out_at(concert, moment, |at| at <= moment)]
        });
        let now = self.is_sold_out(concert);
        seen.any(|seen| seen != now)
    }

    pub(crate) fn reserve(
        &mut self,
        call: Name,
        user: usize,
        token: Option<Name>,
        date: usize,
        seats: &[usize],
        key: Option<Key>,
    ) -> Result<Answer, Refusal> {
        let request = Request::Reserve { date, seats: seats.to_vec() };
        self.keyed(user, key, request, |model| {
            let total = model.judge_hold(user, token, date, seats)?;
            let until = model.now + model.hold_seconds * SECOND;
            let held = Reservation { user, date, seats: seats.to_vec(), total, until, end: End::None };
            let seen = model.seen(call, &held);
            model.reservations.insert(call, held);
            Ok(Answer::Held(seen))
        })
    }

    /// Refuses in the order of the contract, or gives the sum of the prices.
    fn judge_hold(
        &self,
        user: usize,
        token: Option<Name>,
        date: usize,
        seats: &[usize],
    ) -> Result<i64, Refusal> {
        let token = self.pass(user, token)?;
        let distinct: BTreeSet<&usize> = seats.iter().collect();
        if seats.is_empty() || distinct.len() < seats.len() || seats.len() > self.max_seats {
            return Err(Refusal::InvalidRequest(Vec::new()));
        }
        let on = self.dates.get(date).ok_or(Refusal::PerformanceDateNotFound)?;
        self.require_room(&token, on.concert)?;
        if token.is_paused() {
            return Err(Refusal::SalePaused);
        }
        if !on.is_on_sale(self.now) {
            return Err(Refusal::NotOnSale);
        }
        let those = |refused: &dyn Fn(usize) -> bool| -> Vec<usize> {
            seats.iter().copied().filter(|seat| refused(*seat)).collect()
        };
        let unknown = those(&|seat| seat >= self.seats.len());
        if !unknown.is_empty() {
            return Err(Refusal::SeatNotFound(unknown));
        }
        let foreign = those(&|seat| self.seats.get(seat).is_some_and(|seat| seat.date != date));
        if !foreign.is_empty() {
            return Err(Refusal::InvalidRequest(foreign));
        }
        if self.live_seats(user, date) + seats.len() > self.max_seats {
            return Err(Refusal::SeatLimitExceeded);
        }
        let taken = those(&|seat| self.seat_status(seat) != SeatStatus::Available);
        if !taken.is_empty() {
            return Err(Refusal::SeatNotAvailable(taken));
        }
        let total = seats.iter().try_fold(0_i64, |sum, seat| sum.checked_add(self.price(*seat)));
        total.ok_or(Refusal::InvalidRequest(Vec::new()))
    }

    pub(crate) fn find_reservation(&self, user: usize, name: Name) -> Result<Answer, Refusal> {
        let found = self.own_reservation(user, name)?;
        Ok(Answer::Reservation(self.listed(name, found)))
    }

    pub(crate) fn list_reservations(&self, user: usize) -> Answer {
        Answer::Reservations(self.reservations_of(user).collect())
    }

    pub(crate) fn cancel(&mut self, user: usize, name: Name) -> Result<Answer, Refusal> {
        let status = self.own_reservation(user, name)?.status(self.now);
        match status {
            ReservationStatus::Reserved | ReservationStatus::Cancelled => {
                self.end_reservation(name, End::Cancelled);
                Ok(Answer::Cancelled)
            }
            ReservationStatus::Done => Err(Refusal::AlreadyPaid),
            ReservationStatus::Expired => Err(Refusal::ReservationExpired),
        }
    }

    pub(crate) fn sales(&self, date: usize) -> Result<Answer, Refusal> {
        self.dates.get(date).ok_or(Refusal::PerformanceDateNotFound)?;
        Ok(Answer::Sales(self.sales_of(date)))
    }

    pub(crate) fn sales_of(&self, date: usize) -> SalesSeen {
        let with = |wanted| self.seats_of(date).filter(move |(_, status)| *status == wanted);
        SalesSeen {
            available: count(with(SeatStatus::Available).count()),
            reserved: count(with(SeatStatus::Reserved).count()),
            unavailable: count(with(SeatStatus::Unavailable).count()),
            amount_sold: with(SeatStatus::Unavailable).map(|(seat, _)| self.price(seat)).sum(),
        }
    }

    /// Every date with the concert it is of.
    pub(crate) fn dates_seen(&self) -> impl Iterator<Item = (usize, DateSeen)> {
        self.dates.iter().enumerate().map(|(date, of)| {
            let sales = self.sales_of(date);
            let seen = DateSeen {
                date,
                starts_at: of.starts_at,
                on_sale_at: of.on_sale_at,
                total_seats: count(self.seats_of(date).count()),
                available_seats: sales.available,
            };
            (of.concert, seen)
        })
    }

    pub(crate) fn seat_statuses(&self) -> Vec<SeatStatus> {
        (0..self.seats.len()).map(|seat| self.seat_status(seat)).collect()
    }

    pub(crate) fn reservations_of(&self, user: usize) -> impl Iterator<Item = ReservationSeen> {
        let own = self.reservations.iter().filter(move |(_, reservation)| reservation.user == user);
        own.map(|(name, reservation)| self.listed(*name, reservation))
    }

    pub(crate) fn own_reservation(&self, user: usize, name: Name) -> Result<&Reservation, Refusal> {
        let own = self.reservations.get(&name).filter(|reservation| reservation.user == user);
        own.ok_or(Refusal::ReservationNotFound)
    }

    pub(crate) fn end_reservation(&mut self, name: Name, end: End) {
        if let Some(reservation) = self.reservations.get_mut(&name) {
            reservation.end = end;
        }
    }

    fn seats_of(&self, date: usize) -> impl Iterator<Item = (usize, SeatStatus)> {
        let of_it = self.seats.iter().enumerate().filter(move |(_, seat)| seat.date == date);
        of_it.map(|(seat, _)| (seat, self.seat_status(seat)))
    }

    fn seat_status(&self, seat: usize) -> SeatStatus {
        let with_it = self.reservations.values().filter(|reservation| reservation.seats.contains(&seat));
        let statuses: Vec<_> = with_it.map(|reservation| reservation.status(self.now)).collect();
        if statuses.contains(&ReservationStatus::Done) {
            SeatStatus::Unavailable
        } else if statuses.contains(&ReservationStatus::Reserved) {
            SeatStatus::Reserved
        } else {
            SeatStatus::Available
        }
    }

    fn live_seats(&self, user: usize, date: usize) -> usize {
        let own = self.reservations.values().filter(|r| (r.user, r.date) == (user, date));
        let live = own
            .filter(|r| matches!(r.status(self.now), ReservationStatus::Reserved | ReservationStatus::Done));
        live.map(|reservation| reservation.seats.len()).sum()
    }

    fn price(&self, seat: usize) -> i64 {
        self.seats.get(seat).map_or(0, |seat| seat.price)
    }

    fn seen(&self, name: Name, reservation: &Reservation) -> ReservationSeen {
        ReservationSeen {
            reservation: name,
            user: reservation.user,
            date: reservation.date,
            seats: reservation.seats.iter().map(|seat| (*seat, self.price(*seat))).collect(),
            total_amount: reservation.total,
            status: reservation.status(self.now),
            hold_expires_at: reservation.until,
            payment: match reservation.end {
                End::Paid { payment, .. } => Some((payment, reservation.seats.clone())),
                End::None | End::Cancelled => None,
            },
        }
    }

    /// As it is listed: with its seats in the order of their numbers.
    fn listed(&self, name: Name, reservation: &Reservation) -> ReservationSeen {
        let mut seen = self.seen(name, reservation);
        seen.seats.sort_unstable();
        if let Some((_, tickets)) = &mut seen.payment {
            tickets.sort_unstable();
        }
        seen
    }
}
