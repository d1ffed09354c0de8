//! Read models.

use async_trait::async_trait;
use frontrow_domain::account::Entry;
use frontrow_domain::audit_log::AuditEntry;
use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::ports::{
    AccountQueries, AdminQueries, ConcertQueries, DateFilter, DateSummary, Offer, PaymentView, QueueQueries,
    ReservationQueries, ReservationView, RoomOverview, Sales, StorageError, StorageHealth, StoredLines,
    Writability,
};
use frontrow_domain::queue::{Departure, LineState, Room, TicketNumber};
use frontrow_domain::reservation::Reservation;
use frontrow_domain::seat::{SeatPlace, SeatState, SeatStatus};
use frontrow_domain::{
    AuditEntryId, ConcertId, Incarnation, IncarnationId, Label, Money, PerformanceDateId, ReservationId,
    RoomId, SeatId, Timestamp, UserId, Versioned,
};
use uuid::Uuid;

use super::{Memory, State, at_most, count};

#[async_trait]
impl QueueQueries for Memory {
    async fn lines(&self) -> Result<StoredLines, StorageError> {
        let incarnation = *self.incarnation();
        let state = self.state();
        let lines = state.rooms.values().map(|room| state.line(*room));
        Ok(StoredLines { incarnation, lines: lines.filter(|line| line.waiting > 0).collect() })
    }

    async fn lines_of(&self, rooms: Vec<RoomId>) -> Result<StoredLines, StorageError> {
        let incarnation = *self.incarnation();
        let state = self.state();
        let found = rooms.iter().filter_map(|id| state.rooms.get(id));
        Ok(StoredLines { incarnation, lines: found.map(|room| state.line(*room)).collect() })
    }

    async fn begin_incarnation(&self, after: IncarnationId, now: Timestamp) -> Result<(), StorageError> {
        let mut incarnation = self.incarnation();
        if incarnation.id == after {
            let id = IncarnationId::new(Uuid::from_u128(after.get().as_u128().wrapping_add(1)));
            *incarnation = Incarnation { id, started_at: now };
        }
        Ok(())
    }

    async fn rooms_after(&self, after: Option<RoomId>, limit: u32) -> Result<Vec<RoomId>, StorageError> {
        let state = self.state();
        let ids = state.rooms.keys().copied().filter(|id| after.is_none_or(|after| *id > after));
        Ok(ids.take(at_most(limit)).collect())
    }

    async fn departures(
        &self,
        after: Vec<(RoomId, i64)>,
        limit: u32,
    ) -> Result<Vec<(RoomId, Departure)>, StorageError> {
        let state = self.state();
        let mut found = Vec::new();
        for (room_id, after) in after {
            let later = state.departures_in(room_id).filter(|departure| departure.number > after);
            let mut later: Vec<_> = later.map(|departure| (room_id, departure)).collect();
            later.sort_by_key(|(_, departure)| departure.number);
            later.truncate(at_most(limit));
            found.extend(later);
        }
        Ok(found)
    }

    async fn departed_tickets(
        &self,
        room_id: RoomId,
        after: TicketNumber,
        limit: u32,
    ) -> Result<Vec<TicketNumber>, StorageError> {
        let state = self.state();
        let mut tickets: Vec<_> = state.departures_in(room_id).map(|departure| departure.ticket).collect();
        tickets.retain(|ticket| *ticket > after);
        tickets.sort();
        tickets.truncate(at_most(limit));
        Ok(tickets)
    }
}

#[async_trait]
impl ConcertQueries for Memory {
    async fn list_concerts(
        &self,
        after: Option<ConcertId>,
        limit: u32,
    ) -> Result<Vec<Concert>, StorageError> {
        let state = self.state();
        let rest = state.concerts.values().filter(|concert| after.is_none_or(|after| concert.id > after));
        Ok(rest.take(at_most(limit)).cloned().collect())
    }

    async fn offers(
        &self,
        ids: Vec<ConcertId>,
        now: Timestamp,
    ) -> Result<Vec<(ConcertId, Offer)>, StorageError> {
        let state = self.state();
        Ok(ids.into_iter().map(|id| (id, state.offer(id, now))).collect())
    }

    async fn list_dates(
        &self,
        concert_id: ConcertId,
        filter: DateFilter,
        now: Timestamp,
    ) -> Result<Vec<DateSummary>, StorageError> {
        let state = self.state();
        let dates = state.performance_dates.values().filter(|date| date.concert_id == concert_id);
        let mut dates: Vec<_> = dates.map(|date| state.summary(date, now)).collect();
        if filter == DateFilter::Reservable {
            dates.retain(|date| date.starts_at > now && date.available_seats > 0);
        }
        dates.sort_by_key(|date| (date.starts_at, date.id));
        Ok(dates)
    }
}

#[async_trait]
impl ReservationQueries for Memory {
    async fn find_own(
        &self,
        user_id: UserId,
        id: ReservationId,
        now: Timestamp,
    ) -> Result<Option<ReservationView>, StorageError> {
        let state = self.state();
        let own = state.reservations.get(&id).filter(|row| row.value.user_id == user_id);
        Ok(own.map(|row| state.view(&row.value, now)))
    }

    async fn list_own(
        &self,
        user_id: UserId,
        before: Option<ReservationId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<ReservationView>, StorageError> {
        let state = self.state();
        let newest_first = state.reservations.values().rev().map(|row| &row.value);
        let own = newest_first
            .filter(|row| row.user_id == user_id && before.is_none_or(|before| row.id < before))
            .take(at_most(limit));
        Ok(own.map(|reservation| state.view(reservation, now)).collect())
    }
}

#[async_trait]
impl AccountQueries for Memory {
    async fn list_entries(
        &self,
        user_id: UserId,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Entry>, StorageError> {
        let state = self.state();
        let own = state.entries.values().filter(|entry| entry.user_id == user_id);
        let mut entries: Vec<_> =
            own.filter(|entry| before.is_none_or(|before| entry.number < before)).copied().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.number));
        entries.truncate(at_most(limit));
        Ok(entries)
    }
}

#[async_trait]
impl AdminQueries for Memory {
    async fn list_rooms(
        &self,
        after: Option<RoomId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<RoomOverview>, StorageError> {
        let state = self.state();
        let rest = state.rooms.values().filter(|row| after.is_none_or(|after| row.value.id > after));
        Ok(rest.take(at_most(limit)).map(|row| state.overview(row.value, now)).collect())
    }

    async fn find_room(&self, id: RoomId, now: Timestamp) -> Result<Option<RoomOverview>, StorageError> {
        let state = self.state();
        Ok(state.rooms.get(&id).map(|row| state.overview(row.value, now)))
    }

    async fn sales(&self, id: PerformanceDateId, now: Timestamp) -> Result<Option<Sales>, StorageError> {
        let state = self.state();
        if !state.performance_dates.contains_key(&id) {
            return Ok(None);
        }
        let with = |status| state.seats_of(id).filter(move |seat| seat.status_at(now) == status);
        let amount_sold = Money::total(with(SeatStatus::Unavailable).map(|seat| seat.place.price));
        Ok(Some(Sales {
            available: count(with(SeatStatus::Available)),
            reserved: count(with(SeatStatus::Reserved)),
            unavailable: count(with(SeatStatus::Unavailable)),
            amount_sold: amount_sold
                .ok_or_else(|| StorageError::Corrupt(format!("the sales of {id} are beyond counting")))?,
        }))
    }

    async fn list_audit_log(
        &self,
        before: Option<AuditEntryId>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StorageError> {
        let state = self.state();
        let newest_first = state.audit_log.values().rev();
        let rest = newest_first.filter(|entry| before.is_none_or(|before| entry.id < before));
        Ok(rest.take(at_most(limit)).cloned().collect())
    }
}

#[async_trait]
impl StorageHealth for Memory {
    async fn writability(&self) -> Result<Writability, StorageError> {
        Ok(Writability::Writable)
    }
}

impl State {
    fn line(&self, room: Versioned<Room>) -> LineState {
        let id = room.value.id;
        LineState {
            room,
            waiting: self.waiting(id),
            last_ticket: self.last_ticket(id),
            admitted_through: self.admitted_through(id),
            departures: self.last_departure(id),
        }
    }

    fn summary(&self, date: &PerformanceDate, now: Timestamp) -> DateSummary {
        let free = self.seats_of(date.id).filter(|seat| seat.status_at(now) == SeatStatus::Available);
        DateSummary {
            id: date.id,
            starts_at: date.starts_at,
            on_sale_at: date.on_sale_at,
            total_seats: count(self.seats_of(date.id)),
            available_seats: count(free),
        }
    }

    fn offer(&self, id: ConcertId, now: Timestamp) -> Offer {
        let of_concert = self.performance_dates.values().filter(|date| date.concert_id == id);
        let ahead: Vec<_> = of_concert.filter(|date| date.starts_at > now).collect();
        let seats = ahead.iter().flat_map(|date| self.seats_of(date.id));
        let unsold = seats.filter(|seat| !matches!(seat.state, SeatState::Unavailable { .. }));
        Offer {
            next_date_at: ahead.iter().map(|date| date.starts_at).min(),
            from_price: unsold.map(|seat| seat.place.price).min(),
        }
    }

    fn view(&self, reservation: &Reservation, now: Timestamp) -> ReservationView {
        let place_of = |id: SeatId| self.seats.get(&id).map(|row| (id, row.value.place.clone()));
        let mut seats: Vec<_> = reservation.seat_ids().into_iter().filter_map(place_of).collect();
        seats.sort_by(|(_, a), (_, b)| in_house(a).cmp(&in_house(b)));
        let payment = self.payments.values().find(|payment| payment.reservation_id == reservation.id);
        let payment = payment.map(|payment| {
            let ticket_of = |(id, _): &(SeatId, SeatPlace)| payment.tickets.iter().find(|t| t.seat_id == *id);
            PaymentView { id: payment.id, tickets: seats.iter().filter_map(ticket_of).copied().collect() }
        });
        ReservationView {
            id: reservation.id,
            user_id: reservation.user_id,
            performance_date_id: reservation.performance_date_id,
            seats,
            total_amount: reservation.total_amount,
            status: reservation.status_at(now),
            hold_expires_at: reservation.hold_expires_at,
            payment,
        }
    }

    fn overview(&self, room: Room, now: Timestamp) -> RoomOverview {
        RoomOverview { room, waiting: self.waiting(room.id), active: self.active(room.id, now) }
    }
}

/// The order of seats in the house.
const fn in_house(place: &SeatPlace) -> (&Label, u32, u32) {
    (&place.section, place.row, place.number)
}
