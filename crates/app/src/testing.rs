//! What the unit tests of the use cases share: facts in storage, mocked ports that read them, and a committer that
//! keeps every unit of work it is given and answers by a script.
//!
//! A commit that no script expects fails the test, so a refusal that writes anything is seen. The mocks never write to
//! the facts: what a faster request would have changed, a script or a hook does.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard};

use frontrow_domain::account::Account;
use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::idempotency::{Answer, Fingerprint, IdempotencyKey, IdempotencyRecord, KeyedRequest};
use frontrow_domain::ports::{
    Accounts, Clock, Committer, Concerts, IdGenerator, IdempotencyRecords, InvalidWaitToken, MockAccounts,
    MockClock, MockCommitter, MockConcertQueries, MockConcerts, MockIdGenerator, MockIdempotencyRecords,
    MockQueueQueries, MockQueueTokens, MockReservations, MockRooms, MockSeats, MockTokenProvider, Offer,
    QueueQueries, QueueTokens, Reservations, Rooms, Seats, StorageError, StoredLines, TokenProvider,
    WaitClaims,
};
use frontrow_domain::queue::{
    Departure, LineState, QueueToken, QueueTokenState, Room, RoomPolicy, RoomWithWaiters, TicketNumber,
};
use frontrow_domain::reservation::{Holdings, Reservation, ReservationStatus, ReservedSeat};
use frontrow_domain::seat::{Seat, SeatPlace, SeatState};
use frontrow_domain::unit_of_work::{AggregateRef, Command, CommandOutcome, CommitError, Committed};
use frontrow_domain::{
    ConcertId, Incarnation, IncarnationId, Label, Money, PerformanceDateId, QueueTokenId, ReservationId,
    RoomId, SeatId, Timestamp, UnitOfWork, UserId, Version, Versioned,
};
use uuid::Uuid;

use crate::{Gate, GatePass, Idempotency, Keyed, KnownIncarnation, Lines, Offers};

pub(crate) const USER: UserId = UserId::new(Uuid::from_u128(0x11));
pub(crate) const STRANGER: UserId = UserId::new(Uuid::from_u128(0x12));
pub(crate) const ROOM: RoomId = RoomId::new(Uuid::from_u128(0x21));
pub(crate) const OTHER_ROOM: RoomId = RoomId::new(Uuid::from_u128(0x22));
pub(crate) const TOKEN: QueueTokenId = QueueTokenId::new(Uuid::from_u128(0x31));
pub(crate) const CONCERT: ConcertId = ConcertId::new(Uuid::from_u128(0x41));
pub(crate) const OTHER_CONCERT: ConcertId = ConcertId::new(Uuid::from_u128(0x42));
pub(crate) const DATE: PerformanceDateId = PerformanceDateId::new(Uuid::from_u128(0x51));
pub(crate) const OTHER_DATE: PerformanceDateId = PerformanceDateId::new(Uuid::from_u128(0x52));
pub(crate) const HELD: ReservationId = ReservationId::new(Uuid::from_u128(0x61));
pub(crate) const LAPSED: ReservationId = ReservationId::new(Uuid::from_u128(0x62));

/// The price of every seat.
pub(crate) const PRICE: i64 = 100;

/// This many seconds after 1970.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_micros(seconds * 1_000_000).unwrap()
}

/// The n-th incarnation of the data, which began long before everything else.
pub(crate) fn incarnation_of(n: u128) -> Incarnation {
    Incarnation { id: IncarnationId::new(Uuid::from_u128(n)), started_at: at(0) }
}

fn next(incarnation: Incarnation) -> Incarnation {
    incarnation_of(incarnation.id.get().as_u128() + 1)
}

/// The time of every test until it turns the clock.
pub(crate) fn now() -> Timestamp {
    at(1_000)
}

/// The n-th id that a test's generator gives, from 1.
pub(crate) const fn given(n: u128) -> Uuid {
    Uuid::from_u128(0xF000 + n)
}

pub(crate) const fn seat_id(n: u128) -> SeatId {
    SeatId::new(Uuid::from_u128(0x500 + n))
}

pub(crate) fn money(units: i64) -> Money {
    Money::new(units).unwrap()
}

pub(crate) fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

pub(crate) const fn version(version: i64) -> Version {
    Version::new(version)
}

/// A stored aggregate.
pub(crate) const fn stored<T>(value: T, at_version: i64) -> Versioned<T> {
    Versioned::new(value, version(at_version))
}

pub(crate) const WAITING: QueueTokenState = QueueTokenState::Wait;

/// ACTIVE since second 500, until `until`.
pub(crate) fn active_until(until: i64) -> QueueTokenState {
    QueueTokenState::Active { activated_at: at(500), expires_at: at(until), paused_at: None }
}

/// Over since second 800.
pub(crate) fn over() -> QueueTokenState {
    QueueTokenState::Expired { activated_at: Some(at(500)), expires_at: at(800) }
}

pub(crate) fn token(state: QueueTokenState) -> QueueToken {
    QueueToken {
        id: TOKEN,
        room_id: ROOM,
        user_id: USER,
        ticket: TicketNumber(7),
        entered_at: at(100),
        state,
    }
}

pub(crate) fn room(policy: RoomPolicy, created_at: Timestamp) -> Room {
    Room::new(ROOM, policy, created_at)
}

pub(crate) fn concert(id: ConcertId, room_id: RoomId) -> Concert {
    Concert { id, title: label("Concert"), venue: label("Hall"), room_id }
}

/// A seat is left, and a date to come.
pub(crate) fn open_offer() -> Offer {
    Offer { next_date_at: Some(at(9_000)), from_price: Some(money(PRICE)) }
}

/// A date to come without an unsold seat.
pub(crate) fn sold_out() -> Offer {
    Offer { from_price: None, ..open_offer() }
}

/// A date of [`CONCERT`] that is on sale from second 0 to second 9,000.
pub(crate) fn date(id: PerformanceDateId) -> PerformanceDate {
    PerformanceDate::new(id, CONCERT, at(9_000), Some(at(0))).unwrap()
}

/// Seat `n` of [`DATE`].
pub(crate) fn seat(n: u32, state: SeatState) -> Seat {
    let place = SeatPlace { section: label("A"), row: 1, number: n, grade: label("R"), price: money(PRICE) };
    Seat { id: seat_id(n.into()), performance_date_id: DATE, place, state }
}

pub(crate) fn held_by(reservation_id: ReservationId, until: i64) -> SeatState {
    SeatState::Reserved { reservation_id, hold_expires_at: at(until) }
}

pub(crate) fn sold_to(reservation_id: ReservationId) -> SeatState {
    SeatState::Unavailable { reservation_id }
}

/// A reservation of [`USER`] for these seats of [`DATE`].
pub(crate) fn reservation(
    id: ReservationId,
    seats: &[u128],
    status: ReservationStatus,
    hold_expires_at: Timestamp,
) -> Reservation {
    let reserved = |n: &u128| ReservedSeat { seat_id: seat_id(*n), price: money(PRICE) };
    Reservation {
        id,
        user_id: USER,
        performance_date_id: DATE,
        room_id: ROOM,
        token_id: TOKEN,
        seats: seats.iter().map(reserved).collect(),
        total_amount: Money::total(seats.iter().map(|_| money(PRICE))).unwrap(),
        reserved_at: at(600),
        hold_expires_at,
        status,
    }
}

pub(crate) fn account(balance: i64) -> Account {
    Account { user_id: USER, balance: money(balance), entry_count: 4 }
}

/// A keyed request of [`USER`]; another body is another request under the same key.
pub(crate) fn keyed_request(body: u8) -> KeyedRequest {
    KeyedRequest {
        user_id: USER,
        key: IdempotencyKey::new("key").unwrap(),
        fingerprint: Fingerprint([body; 32]),
    }
}

/// The bytes that every test's transport makes of a result.
pub(crate) fn encoded<R: Debug>(result: &R) -> Answer {
    Answer { status: 299, content_type: "text/debug".into(), body: format!("{result:?}").into_bytes() }
}

/// The answer that a twin got.
pub(crate) fn twins_answer() -> Answer {
    Answer { status: 298, content_type: "text/plain".into(), body: b"the twin's".to_vec() }
}

/// The record of a twin that was answered just now.
pub(crate) fn twins_record() -> IdempotencyRecord {
    IdempotencyRecord::new(keyed_request(1), twins_answer(), now())
}

pub(crate) fn unkeyed<R: Debug>() -> Keyed<'static, R> {
    Keyed { request: None, encode: &encoded::<R> }
}

pub(crate) fn keyed<R: Debug>() -> Keyed<'static, R> {
    Keyed { request: Some(keyed_request(1)), encode: &encoded::<R> }
}

/// What an error says of itself, to compare with.
pub(crate) fn refusal<T: Debug, E: Debug>(result: Result<T, E>) -> String {
    format!("{:?}", result.expect_err("it should have been refused"))
}

/// One kind of read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    Token,
    LiveToken,
    Lines,
    Departures,
    DepartedTickets,
    Room,
    DueRooms,
    Concert,
    Offers,
    Date,
    Seats,
    Holdings,
    Reservation,
    Account,
    Record,
}

type Answered = Result<Committed, CommitError>;
type Step = Box<dyn FnOnce(&mut Facts) -> Answered + Send>;
type Hook = Box<dyn FnOnce(&mut Facts) + Send>;

/// What is stored, and what happened.
pub(crate) struct Facts {
    pub(crate) now: Timestamp,
    pub(crate) tokens: BTreeMap<QueueTokenId, Versioned<QueueToken>>,
    /// How many wait before the first token that waits.
    pub(crate) ahead: i64,
    /// When the first waiter of every room entered.
    pub(crate) waiting_since: Option<Timestamp>,
    /// Who left [`ROOM`] without being admitted.
    pub(crate) departures: Vec<Departure>,
    pub(crate) rooms: BTreeMap<RoomId, Versioned<Room>>,
    pub(crate) concerts: BTreeMap<ConcertId, Concert>,
    /// Those that are not here have a seat left, see [`open_offer`].
    pub(crate) offers: BTreeMap<ConcertId, Offer>,
    pub(crate) dates: BTreeMap<PerformanceDateId, PerformanceDate>,
    pub(crate) seats: BTreeMap<SeatId, Versioned<Seat>>,
    pub(crate) reservations: BTreeMap<ReservationId, Versioned<Reservation>>,
    pub(crate) account: Option<Versioned<Account>>,
    pub(crate) record: Option<IdempotencyRecord>,
    pub(crate) incarnation: Incarnation,
    /// Wait-Tokens that were issued, whether or not they are stored.
    pub(crate) signed: Vec<WaitClaims>,
    /// This kind of read fails.
    pub(crate) down: Option<Load>,
    /// Every read so far.
    pub(crate) loads: Vec<Load>,
    works: Vec<UnitOfWork>,
    script: VecDeque<Step>,
    hooks: Vec<(Load, Hook)>,
    ids_given: u128,
}

impl Facts {
    pub(crate) fn put_token(&mut self, token: Versioned<QueueToken>) {
        self.signed.push(WaitClaims::from(&token.value));
        self.tokens.insert(token.value.id, token);
    }

    pub(crate) fn put_room(&mut self, room: Versioned<Room>) {
        self.rooms.insert(room.value.id, room);
    }

    pub(crate) fn put_seat(&mut self, seat: Versioned<Seat>) {
        self.seats.insert(seat.value.id, seat);
    }

    pub(crate) fn put_reservation(&mut self, reservation: Versioned<Reservation>) {
        self.reservations.insert(reservation.value.id, reservation);
    }

    /// The next read of this kind finds the facts changed like this.
    pub(crate) fn before(&mut self, load: Load, hook: impl FnOnce(&mut Self) + Send + 'static) {
        self.hooks.push((load, Box::new(hook)));
    }

    /// What the command of the unit that has just reached the committer comes to when nobody is concerned.
    pub(crate) fn answer_to_last(&self) -> Committed {
        let outcome = match self.works.last().and_then(|work| work.command.as_ref()) {
            Some(Command::NotePolls { tokens, .. }) => {
                CommandOutcome::PollsNoted(u32::try_from(tokens.len()).unwrap())
            }
            Some(Command::GiveUpAbandoned(_)) => CommandOutcome::GivenUp(0),
            other => panic!("{other:?}"),
        };
        Committed { outcome: Some(outcome) }
    }

    /// Nothing more may be committed.
    pub(crate) fn forget_script(&mut self) {
        self.script.clear();
    }

    /// Notes a read, after the first hook that waits for it.
    fn read(&mut self, load: Load) -> Result<(), StorageError> {
        self.loads.push(load);
        if let Some(index) = self.hooks.iter().position(|(waits_for, _)| *waits_for == load) {
            let (_, hook) = self.hooks.remove(index);
            hook(self);
        }
        if self.down == Some(load) { Err(StorageError::Unavailable("down".into())) } else { Ok(()) }
    }

    /// The line of a room. All who are stored have got their tickets, and all of them are through but those who wait.
    fn line(&self, room: Versioned<Room>) -> LineState {
        let tokens = self.tokens.values().map(|token| &token.value);
        let tokens: Vec<_> = tokens.filter(|token| token.room_id == room.value.id).collect();
        let last = tokens.iter().map(|token| token.ticket.0).max().unwrap_or(0);
        let first = tokens.iter().filter(|token| token.state == WAITING).map(|token| token.ticket.0).min();
        let through = first.map_or(last, |first| first - 1 - self.ahead);
        let departed = self.departures.iter().filter(|departure| departure.ticket.0 > through).count();
        LineState {
            room,
            waiting: u64::try_from(last - through).unwrap() - u64::try_from(departed).unwrap(),
            last_ticket: TicketNumber(last),
            admitted_through: TicketNumber(through),
            departures: self.departures.last().map_or(0, |departure| departure.number),
        }
    }

    fn with_waiters(&self, room: Versioned<Room>) -> RoomWithWaiters {
        RoomWithWaiters { room, waiting_since: self.waiting_since }
    }

    fn holdings(&self, user: UserId, date: PerformanceDateId, now: Timestamp) -> Holdings {
        let own = self.reservations.values().map(|row| &row.value);
        let own = own.filter(|r| (r.user_id, r.performance_date_id) == (user, date));
        let stored_live =
            own.filter(|r| matches!(r.status, ReservationStatus::Reserved | ReservationStatus::Done));
        let (lapsed, live): (Vec<_>, Vec<_>) =
            stored_live.partition(|r| r.status_at(now) == ReservationStatus::Expired);
        let live_seats = u32::try_from(live.iter().map(|r| r.seats.len()).sum::<usize>()).unwrap();
        Holdings { live_seats, lapsed: lapsed.iter().map(|r| r.id).collect() }
    }
}

/// A handle on the facts, which hands out the mocked ports.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<Facts>>);

/// [`USER`] is ACTIVE in [`ROOM`], whose concert has a date with the seats 1 to 6, all free.
pub(crate) fn world() -> World {
    let mut facts = Facts {
        now: now(),
        tokens: BTreeMap::new(),
        ahead: 0,
        waiting_since: Some(at(1)),
        departures: Vec::new(),
        rooms: BTreeMap::new(),
        concerts: BTreeMap::from([(CONCERT, concert(CONCERT, ROOM))]),
        offers: BTreeMap::new(),
        dates: BTreeMap::from([(DATE, date(DATE))]),
        seats: BTreeMap::new(),
        reservations: BTreeMap::new(),
        account: None,
        record: None,
        incarnation: incarnation_of(1),
        signed: Vec::new(),
        down: None,
        loads: Vec::new(),
        works: Vec::new(),
        script: VecDeque::new(),
        hooks: Vec::new(),
        ids_given: 0,
    };
    facts.put_token(stored(token(active_until(1_100)), 2));
    facts.put_room(stored(room(RoomPolicy::default(), at(900)), 3));
    for n in 1..=6 {
        facts.put_seat(stored(seat(n, SeatState::Available), 1));
    }
    World(Arc::new(Mutex::new(facts)))
}

impl World {
    /// The facts, to read or change.
    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap()
    }

    /// Every unit of work that has reached the committer.
    pub(crate) fn works(&self) -> Vec<UnitOfWork> {
        self.facts().works.clone()
    }

    /// The only unit of work that has reached the committer.
    pub(crate) fn work(&self) -> UnitOfWork {
        let mut works = self.works();
        assert_eq!(works.len(), 1, "units of work");
        works.remove(0)
    }

    /// Checks that nothing was written, nor tried.
    pub(crate) fn assert_untouched(&self) {
        assert_eq!(self.works(), []);
    }

    /// The reads since this was last asked.
    pub(crate) fn take_loads(&self) -> Vec<Load> {
        std::mem::take(&mut self.facts().loads)
    }

    /// See [`Facts::before`].
    pub(crate) fn before(&self, load: Load, hook: impl FnOnce(&mut Facts) + Send + 'static) {
        self.facts().before(load, hook);
    }

    /// The next commit is answered like this.
    pub(crate) fn on_commit(&self, step: impl FnOnce(&mut Facts) -> Answered + Send + 'static) {
        self.facts().script.push_back(Box::new(step));
    }

    /// The next commit goes well.
    pub(crate) fn will_commit(&self) {
        self.on_commit(|_| Ok(Committed::default()));
    }

    /// The next commit goes well, and its command comes to this.
    pub(crate) fn will_come_to(&self, outcome: CommandOutcome) {
        self.on_commit(move |_| Ok(Committed { outcome: Some(outcome) }));
    }

    /// The next commit meets another version, because the facts have changed like this.
    pub(crate) fn will_conflict(&self, on: AggregateRef, faster: impl FnOnce(&mut Facts) + Send + 'static) {
        self.on_commit(move |facts| {
            faster(facts);
            Err(CommitError::Conflict(on))
        });
    }

    /// The next commit finds its key taken by a twin.
    pub(crate) fn will_meet_its_twin(&self) {
        self.on_commit(|facts| {
            facts.record = Some(twins_record());
            Err(CommitError::DuplicateIdempotencyKey)
        });
    }

    /// The next commit fails.
    pub(crate) fn will_fail(&self, error: CommitError) {
        self.on_commit(|_| Err(error));
    }

    fn handle(&self) -> Self {
        self.clone()
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        let (world, mut mock) = (self.handle(), MockClock::new());
        mock.expect_now().returning(move || world.facts().now);
        Arc::new(mock)
    }

    pub(crate) fn ids(&self) -> Arc<dyn IdGenerator> {
        let (world, mut mock) = (self.handle(), MockIdGenerator::new());
        mock.expect_next_id().returning(move || {
            let mut facts = world.facts();
            facts.ids_given += 1;
            given(facts.ids_given)
        });
        Arc::new(mock)
    }

    pub(crate) fn committer(&self) -> Arc<dyn Committer> {
        let (world, mut mock) = (self.handle(), MockCommitter::new());
        mock.expect_commit().returning(move |work| {
            let mut facts = world.facts();
            let Some(step) = facts.script.pop_front() else {
                drop(facts);
                panic!("nothing more may be committed, least of all {work:?}");
            };
            facts.works.push(work);
            step(&mut facts)
        });
        Arc::new(mock)
    }

    pub(crate) fn provider(&self) -> Arc<dyn TokenProvider> {
        let (world, mut mock) = (self.handle(), MockTokenProvider::new());
        mock.expect_issue().returning(signed);
        mock.expect_verify().returning(move |text| {
            let facts = world.facts();
            facts.signed.iter().find(|claims| signed(claims) == text).copied().ok_or(InvalidWaitToken)
        });
        Arc::new(mock)
    }

    pub(crate) fn tokens(&self) -> Arc<dyn QueueTokens> {
        let mut mock = MockQueueTokens::new();
        let world = self.handle();
        mock.expect_find().returning(move |id| {
            let mut facts = world.facts();
            facts.read(Load::Token)?;
            Ok(facts.tokens.get(&id).copied())
        });
        let world = self.handle();
        mock.expect_find_live().returning(move |room, user| {
            let mut facts = world.facts();
            facts.read(Load::LiveToken)?;
            let is_live = |token: &&Versioned<QueueToken>| {
                let over = matches!(token.value.state, QueueTokenState::Expired { .. });
                (token.value.room_id, token.value.user_id) == (room, user) && !over
            };
            Ok(facts.tokens.values().find(is_live).copied())
        });
        Arc::new(mock)
    }

    pub(crate) fn queue_queries(&self) -> Arc<dyn QueueQueries> {
        let (world, mut mock) = (self.handle(), MockQueueQueries::new());
        mock.expect_lines().returning(move || {
            let mut facts = world.facts();
            facts.read(Load::Lines)?;
            let have_waiters = facts.waiting_since.is_some();
            let rooms = facts.rooms.values().filter(|_| have_waiters);
            let lines = rooms.map(|room| facts.line(*room)).collect();
            Ok(StoredLines { incarnation: facts.incarnation, lines })
        });
        let world = self.handle();
        mock.expect_rooms_after().returning(move |after, limit| {
            let facts = world.facts();
            let ids = facts.rooms.keys().copied().filter(|id| after.is_none_or(|after| *id > after));
            Ok(ids.take(usize::try_from(limit).unwrap()).collect())
        });
        let world = self.handle();
        mock.expect_lines_of().returning(move |rooms| {
            let mut facts = world.facts();
            facts.read(Load::Lines)?;
            let found = rooms.iter().filter_map(|id| facts.rooms.get(id));
            let lines = found.map(|room| facts.line(*room)).collect();
            Ok(StoredLines { incarnation: facts.incarnation, lines })
        });
        let world = self.handle();
        mock.expect_begin_incarnation().returning(move |after, now| {
            let mut facts = world.facts();
            if facts.incarnation.id == after {
                facts.incarnation = Incarnation { started_at: now, ..next(facts.incarnation) };
            }
            Ok(())
        });
        let world = self.handle();
        mock.expect_departures().returning(move |after, limit| {
            let mut facts = world.facts();
            facts.read(Load::Departures)?;
            let later = |(room, after): (RoomId, i64)| {
                let later = facts.departures.iter().filter(move |departure| departure.number > after);
                later.take(usize::try_from(limit).unwrap()).map(move |departure| (room, *departure))
            };
            Ok(after.into_iter().flat_map(later).collect())
        });
        let world = self.handle();
        mock.expect_departed_tickets().returning(move |_, after, limit| {
            let mut facts = world.facts();
            facts.read(Load::DepartedTickets)?;
            let mut tickets: Vec<_> = facts.departures.iter().map(|departure| departure.ticket).collect();
            tickets.retain(|ticket| *ticket > after);
            tickets.sort();
            tickets.truncate(usize::try_from(limit).unwrap());
            Ok(tickets)
        });
        Arc::new(mock)
    }

    /// What a node knows that has just been started.
    pub(crate) fn lines(&self) -> Lines {
        Lines::new(self.queue_queries(), self.tokens(), self.clock())
    }

    pub(crate) fn rooms(&self) -> Arc<dyn Rooms> {
        let mut mock = MockRooms::new();
        let world = self.handle();
        mock.expect_find().returning(move |id| {
            let mut facts = world.facts();
            facts.read(Load::Room)?;
            Ok(facts.rooms.get(&id).copied())
        });
        let world = self.handle();
        mock.expect_find_with_waiters().returning(move |id| {
            let mut facts = world.facts();
            facts.read(Load::Room)?;
            Ok(facts.rooms.get(&id).map(|room| facts.with_waiters(*room)))
        });
        let world = self.handle();
        mock.expect_due().returning(move |now, after, limit| {
            let mut facts = world.facts();
            facts.read(Load::DueRooms)?;
            let key = |found: &RoomWithWaiters| (found.room.value.next_tick_at, found.room.value.id);
            let found = facts.rooms.values().map(|room| facts.with_waiters(*room));
            let mut due: Vec<_> =
                found.filter(|found| found.has_work(now) && Some(key(found)) > after).collect();
            due.sort_by_key(key);
            due.truncate(usize::try_from(limit).unwrap());
            Ok(due)
        });
        Arc::new(mock)
    }

    pub(crate) fn concerts(&self) -> Arc<dyn Concerts> {
        let mut mock = MockConcerts::new();
        let world = self.handle();
        mock.expect_find().returning(move |id| {
            let mut facts = world.facts();
            facts.read(Load::Concert)?;
            Ok(facts.concerts.get(&id).cloned())
        });
        let world = self.handle();
        mock.expect_find_date().returning(move |id| {
            let mut facts = world.facts();
            facts.read(Load::Date)?;
            let date = facts.dates.get(&id).copied();
            Ok(date.map(|date| (date, facts.concerts[&date.concert_id].clone())))
        });
        let world = self.handle();
        mock.expect_sales_starts().returning(move |id| {
            let facts = world.facts();
            let dates = facts.dates.values().filter(|date| date.concert_id == id);
            Ok(dates.map(|date| date.on_sale_at).collect())
        });
        Arc::new(mock)
    }

    pub(crate) fn offers(&self) -> Offers {
        let (world, mut mock) = (self.handle(), MockConcertQueries::new());
        mock.expect_offers().returning(move |ids, _| {
            let mut facts = world.facts();
            facts.read(Load::Offers)?;
            let offer = |id| (id, facts.offers.get(&id).copied().unwrap_or_else(open_offer));
            Ok(ids.into_iter().map(offer).collect())
        });
        Offers::new(Arc::new(mock), self.clock(), KnownIncarnation::default())
    }

    pub(crate) fn seats(&self) -> Arc<dyn Seats> {
        let (world, mut mock) = (self.handle(), MockSeats::new());
        mock.expect_find_many().returning(move |ids| {
            let mut facts = world.facts();
            facts.read(Load::Seats)?;
            Ok(facts.seats.values().filter(|seat| ids.contains(&seat.value.id)).cloned().collect())
        });
        Arc::new(mock)
    }

    pub(crate) fn reservations(&self) -> Arc<dyn Reservations> {
        let mut mock = MockReservations::new();
        let world = self.handle();
        mock.expect_find().returning(move |id| {
            let mut facts = world.facts();
            facts.read(Load::Reservation)?;
            Ok(facts.reservations.get(&id).cloned())
        });
        let world = self.handle();
        mock.expect_holdings().returning(move |user, date, now| {
            let mut facts = world.facts();
            facts.read(Load::Holdings)?;
            Ok(facts.holdings(user, date, now))
        });
        Arc::new(mock)
    }

    pub(crate) fn accounts(&self) -> Arc<dyn Accounts> {
        let (world, mut mock) = (self.handle(), MockAccounts::new());
        mock.expect_find().returning(move |user| {
            let mut facts = world.facts();
            facts.read(Load::Account)?;
            Ok(facts.account.filter(|account| account.value.user_id == user))
        });
        Arc::new(mock)
    }

    pub(crate) fn records(&self) -> Arc<dyn IdempotencyRecords> {
        let (world, mut mock) = (self.handle(), MockIdempotencyRecords::new());
        mock.expect_find().returning(move |user, key| {
            let mut facts = world.facts();
            facts.read(Load::Record)?;
            let record = facts.record.clone();
            Ok(record.filter(|record| record.request.user_id == user && record.request.key == *key))
        });
        Arc::new(mock)
    }

    pub(crate) fn idempotency(&self) -> Idempotency {
        Idempotency::new(self.records(), self.clock())
    }

    pub(crate) fn gate(&self) -> Gate {
        self.gate_over(self.lines())
    }

    /// A gate that looks by what is known there.
    pub(crate) fn gate_over(&self, lines: Lines) -> Gate {
        Gate::new(self.provider(), self.tokens(), lines, self.clock())
    }

    /// A pass for the stored token of [`USER`], which must be ACTIVE. The read for it is forgotten.
    pub(crate) async fn pass(&self) -> GatePass {
        let token = self.facts().tokens[&TOKEN].value;
        let pass = self.gate().check(USER, Some(&wait_token(&token))).await.unwrap();
        self.take_loads();
        pass
    }
}

/// The Wait-Token that stands for a token.
pub(crate) fn wait_token(token: &QueueToken) -> String {
    signed(&WaitClaims::from(token))
}

pub(crate) fn signed(claims: &WaitClaims) -> String {
    format!("signed {claims:?}")
}
