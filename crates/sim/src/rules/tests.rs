use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::idempotency::{Answer, IdempotencyRecord};
use frontrow_domain::queue::{DEFAULT_ROOM_ID, Room, RoomPolicy, TicketNumber};
use frontrow_domain::reservation::{HoldTerms, ReservedSeat};
use frontrow_domain::seat::{Seat, SeatPlace, SeatState};
use frontrow_domain::unit_of_work::Admit;
use frontrow_domain::{
    ConcertId, Label, Money, PerformanceDateId, QueueTokenId, ReservationId, SeatId, UserId, Version,
    Versioned,
};
use uuid::Uuid;

use super::*;
use crate::requests;

const DATE: PerformanceDateId = PerformanceDateId::new(Uuid::from_u128(1));
const HELD: ReservationId = ReservationId::new(Uuid::from_u128(2));

fn user(n: u128) -> UserId {
    UserId::new(Uuid::from_u128(n))
}

fn token_id(n: u128) -> QueueTokenId {
    QueueTokenId::new(Uuid::from_u128(n))
}

fn seat_id(n: u128) -> SeatId {
    SeatId::new(Uuid::from_u128(n))
}

/// So many seconds after the beginning.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_micros(seconds * 1_000_000).unwrap()
}

fn stored<T>(value: T) -> Versioned<T> {
    Versioned::new(value, Version::FIRST)
}

fn waiting(n: u128) -> QueueToken {
    let ticket = TicketNumber(i64::try_from(n).unwrap());
    let (room_id, state) = (DEFAULT_ROOM_ID, QueueTokenState::Wait);
    QueueToken { id: token_id(n), room_id, user_id: user(n), ticket, entered_at: at(0), state }
}

fn active(n: u128) -> QueueToken {
    waiting(n).admit(at(0), 100).unwrap()
}

/// A hold of the first user until second 50.
fn hold(id: ReservationId, seats: u128) -> Reservation {
    let terms = HoldTerms {
        user_id: user(1),
        performance_date_id: DATE,
        room_id: DEFAULT_ROOM_ID,
        token_id: token_id(1),
        reserved_at: at(0),
        hold_expires_at: at(50),
    };
    let price = Money::new(100).unwrap();
    let seats = (1..=seats).map(|n| ReservedSeat { seat_id: seat_id(n), price }).collect();
    Reservation::hold(id, terms, seats).unwrap()
}

/// A step at second 10. In the room, whose next tick is at second 600, the first is ACTIVE and holds a seat; two others wait.
struct Step {
    before: State,
    after: State,
    work: UnitOfWork,
    committed: Committed,
}

impl Step {
    fn new() -> Self {
        let mut before = State::default();
        let room = Room::new(DEFAULT_ROOM_ID, RoomPolicy::default(), at(0));
        before.rooms.insert(room.id, stored(room));
        for token in [active(1), waiting(2), waiting(3)] {
            before.queue_tokens.insert(token.id, stored(token));
        }
        let label = |text| Label::new(text).unwrap();
        let (id, title, venue) = (ConcertId::new(Uuid::from_u128(4)), label("A concert"), label("A hall"));
        before.concerts.insert(id, Concert { id, title, venue, room_id: DEFAULT_ROOM_ID });
        before.performance_dates.insert(DATE, PerformanceDate::new(DATE, id, at(1_000), None).unwrap());
        let (section, grade, price) = (label("A"), label("R"), Money::new(100).unwrap());
        let place = SeatPlace { section, row: 1, number: 1, grade, price };
        let state = SeatState::Reserved { reservation_id: HELD, hold_expires_at: at(50) };
        let seat = Seat { id: seat_id(1), performance_date_id: DATE, place, state };
        before.seats.insert(seat.id, stored(seat));
        before.reservations.insert(HELD, stored(hold(HELD, 1)));
        let after = before.clone();
        Self { before, after, work: UnitOfWork::default(), committed: Committed::default() }
    }

    fn breaches(&self) -> Vec<String> {
        let Self { before, after, work, committed } = self;
        let is_asked_for = false;
        Written { before, after, work, committed, now: at(10), is_asked_for, max_seats: 4 }.breaches()
    }

    fn becomes(&mut self, token: QueueToken) {
        self.after.queue_tokens.insert(token.id, stored(token));
    }

    fn admits(&mut self, n: u128, max_active: Option<u32>) {
        self.becomes(active(n));
        let (room_id, active_ttl_seconds) = (DEFAULT_ROOM_ID, 100);
        let admit = Admit { room_id, limit: 1, max_active, active_ttl_seconds, now: at(10) };
        self.work.command = Some(Command::Admit(admit));
    }

    fn joins(&mut self, token: QueueToken) {
        self.becomes(token);
        let QueueToken { id: token_id, room_id, user_id, .. } = token;
        self.work.command = Some(Command::Join(Join { token_id, room_id, user_id, now: at(10) }));
        self.committed.outcome = Some(CommandOutcome::Joined(token));
    }

    fn has_mode(&mut self, mode: RoomMode) {
        self.before.rooms.get_mut(&DEFAULT_ROOM_ID).unwrap().value.policy.mode = mode;
    }

    fn reservation_becomes(&mut self, status: ReservationStatus) {
        self.after.reservations.get_mut(&HELD).unwrap().value.status = status;
    }
}

#[test]
fn a_sound_step_breaks_nothing() {
    assert_eq!(Step::new().breaches(), Vec::<String>::new());
    let mut admission = Step::new();
    admission.admits(2, Some(2));
    assert_eq!(admission.breaches(), Vec::<String>::new());
    let mut join = Step::new();
    join.joins(waiting(4));
    assert_eq!(join.breaches(), Vec::<String>::new());
}

/// A rule, and how to break it.
type Break = (&'static str, fn(&mut Step));

#[test]
fn each_rule_that_is_broken_is_named() {
    let breaks: [Break; 15] = [
        ("is gone", |step| step.after.queue_tokens.retain(|id, _| *id != token_id(2))),
        ("a token changed otherwise", |step| step.becomes(waiting(1))),
        ("expired before its time", |step| step.becomes(active(1).expire(at(10)).unwrap())),
        ("nobody asked to give up", |step| step.becomes(waiting(3).expire(at(10)).unwrap())),
        ("out of order", |step| step.admits(3, None)),
        ("than maxActive", |step| step.admits(2, Some(1))),
        ("the room admits nobody", |step| {
            step.has_mode(RoomMode::Hold);
            step.admits(2, None);
        }),
        ("a tick was taken before its time", |step| {
            let room = step.before.rooms[&DEFAULT_ROOM_ID];
            let ticked = room.try_map(|room| room.tick(at(600)).map(|(room, _)| room).ok_or(())).unwrap();
            step.work.rooms.push(Change::Update(ticked));
        }),
        ("whom the room refuses", |step| {
            step.has_mode(RoomMode::Closed);
            step.joins(waiting(4));
        }),
        ("otherwise than at the tail", |step| {
            step.joins(QueueToken { ticket: TicketNumber(3), ..waiting(4) });
        }),
        ("who had a place", |step| step.joins(QueueToken { user_id: user(3), ..waiting(4) })),
        ("a reservation changed otherwise", |step| {
            step.before.reservations.get_mut(&HELD).unwrap().value.status = ReservationStatus::Done;
        }),
        ("a hold was expired early", |step| step.reservation_becomes(ReservationStatus::Expired)),
        ("more seats than allowed", |step| {
            let id = ReservationId::new(Uuid::from_u128(3));
            step.after.reservations.insert(id, stored(hold(id, 4)));
            step.work.reservations.push(Change::Insert(hold(id, 4)));
        }),
        ("without its idempotency record", |step| {
            let answer = Answer { status: 200, content_type: String::new(), body: Vec::new() };
            let request = requests::key(user(1), 1).unwrap();
            step.work.idempotency = Some(IdempotencyRecord::new(request, answer, at(10)));
        }),
    ];
    for (rule, break_it) in breaks {
        let mut step = Step::new();
        break_it(&mut step);
        let breaches = step.breaches();
        assert!(breaches.iter().any(|breach| breach.contains(rule)), "{rule:?} is not among {breaches:?}");
    }
}
