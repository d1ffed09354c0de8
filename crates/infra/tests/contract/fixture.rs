//! Storage under test, and what tests put into it. Everything is decided by the domain, as a use case would.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};

use frontrow_domain::account::{Account, Payment, Ticket};
use frontrow_domain::concert::SeatPlan;
use frontrow_domain::concert::{Concert, PerformanceDate, Section};
use frontrow_domain::idempotency::{Answer, Fingerprint, IdempotencyKey, IdempotencyRecord, KeyedRequest};
use frontrow_domain::queue::{QueueToken, Room, RoomPolicy};
use frontrow_domain::reservation::{HoldTerms, Reservation, ReservedSeat};
use frontrow_domain::seat::Seat;
use frontrow_domain::unit_of_work::{Admit, Command, CommandOutcome, CommitError, Committed, Fill, Join};
use frontrow_domain::{
    Change, ConcertId, EntryId, Label, Money, PaymentId, PerformanceDateId, QueueTokenId, ReservationId,
    RoomId, SeatId, TicketId, Timestamp, UnitOfWork, UserId, Versioned,
};
use frontrow_infra::Storage;
use uuid::Uuid;

/// How long an admitted token lasts, in seconds.
pub(crate) const TTL: u32 = 600;
/// How long a hold lasts, in seconds.
pub(crate) const HOLD: i64 = 300;
/// When every performance starts, in seconds.
pub(crate) const START: i64 = 1_000_000;

/// The time this many seconds after the tests' own zero.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_micros((1_767_225_600 + seconds) * 1_000_000).unwrap()
}

/// The last point in time before another.
pub(crate) fn just_before(time: Timestamp) -> Timestamp {
    Timestamp::from_unix_micros(time.unix_micros() - 1).unwrap()
}

pub(crate) fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

pub(crate) fn money(units: i64) -> Money {
    Money::new(units).unwrap()
}

/// The key of every record that [`Fixture::record`] makes.
pub(crate) fn key() -> IdempotencyKey {
    IdempotencyKey::new("key").unwrap()
}

/// Storage under test.
pub(crate) struct Fixture {
    pub(crate) storage: Storage,
    last_id: AtomicU64,
    transactions: Option<Box<dyn Fn() -> u64 + Send + Sync>>,
    _keep: Box<dyn Any + Send + Sync>,
}

/// A date on sale.
pub(crate) struct Sale {
    pub(crate) room: Room,
    pub(crate) concert: Concert,
    pub(crate) date: PerformanceDate,
    /// By id and by place. Seat n (from 1) costs 100 n.
    pub(crate) seats: Vec<Seat>,
}

impl Sale {
    pub(crate) fn seat_ids(&self) -> Vec<SeatId> {
        self.seats.iter().map(|seat| seat.id).collect()
    }
}

impl Fixture {
    /// Takes empty storage, and whatever must live as long as it does.
    pub(crate) fn new(storage: Storage, keep: impl Any + Send + Sync) -> Self {
        Self { storage, last_id: AtomicU64::new(0), transactions: None, _keep: Box::new(keep) }
    }

    /// Storage that groups units, and says how many transactions it has written.
    pub(crate) fn grouping(self, transactions: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { transactions: Some(Box::new(transactions)), ..self }
    }

    /// An id that was never given before, larger than all given before.
    pub(crate) fn id<T>(&self, kind: fn(Uuid) -> T) -> T {
        kind(nth(self.last_id.fetch_add(1, Ordering::SeqCst) + 1))
    }

    /// All ids that were ever given.
    pub(crate) fn all_ids(&self) -> Vec<Uuid> {
        (1..=self.last_id.load(Ordering::SeqCst)).map(nth).collect()
    }

    pub(crate) async fn commit(&self, work: UnitOfWork) -> Result<Committed, CommitError> {
        self.storage.committer.commit(work).await
    }

    /// Commits what cannot fail.
    pub(crate) async fn write(&self, work: UnitOfWork) {
        self.commit(work).await.unwrap();
    }

    /// Does a command that cannot fail.
    pub(crate) async fn order(&self, command: Command) -> CommandOutcome {
        self.commit(commanded(command)).await.unwrap().outcome.unwrap()
    }

    /// Commits all at once, each in a task of its own; the answers are in the order of the units.
    pub(crate) async fn race(&self, works: Vec<UnitOfWork>) -> Vec<Result<Committed, CommitError>> {
        let racers: Vec<_> = works
            .into_iter()
            .map(|work| {
                let committer = self.storage.committer.clone();
                tokio::spawn(async move { committer.commit(work).await })
            })
            .collect();
        futures_util::future::join_all(racers).await.into_iter().map(Result::unwrap).collect()
    }
}

/// Commits that meet.
impl Fixture {
    /// Whether storage puts units that meet into one transaction.
    pub(crate) fn groups(&self) -> bool {
        self.transactions.is_some()
    }

    /// Commits all, queued in this order. Storage that groups units is busy with something larger meanwhile, so that it finds
    /// many of them waiting: they must not take more than a transaction for every eight. The answers are in the order of the
    /// units.
    pub(crate) async fn together(&self, works: Vec<UnitOfWork>) -> Vec<Result<Committed, CommitError>> {
        let Some(count) = &self.transactions else { return self.at_once(works).await };
        let room_id = self.default_room().await.id;
        let people = (0..2_000).map(|_| (self.id(QueueTokenId::new), self.id(UserId::new))).collect();
        let larger = commanded(Command::Fill(Fill { room_id, people, now: at(0) }));
        let units = u64::try_from(works.len()).unwrap();
        let before = count();
        let mut answers = self.at_once(std::iter::once(larger).chain(works)).await;
        let transactions = count() - before;
        assert!(transactions <= units / 8, "{units} units took {transactions} transactions");
        answers.remove(0).unwrap();
        answers
    }

    /// One task begins them all, one after the other.
    async fn at_once(
        &self,
        works: impl IntoIterator<Item = UnitOfWork>,
    ) -> Vec<Result<Committed, CommitError>> {
        futures_util::future::join_all(works.into_iter().map(|work| self.commit(work))).await
    }
}

/// What is in storage, where it must be.
impl Fixture {
    pub(crate) async fn room(&self, id: RoomId) -> Versioned<Room> {
        self.storage.rooms.find(id).await.unwrap().unwrap()
    }

    pub(crate) async fn token(&self, id: QueueTokenId) -> Versioned<QueueToken> {
        self.storage.queue_tokens.find(id).await.unwrap().unwrap()
    }

    pub(crate) async fn account(&self, id: UserId) -> Versioned<Account> {
        self.storage.accounts.find(id).await.unwrap().unwrap()
    }

    pub(crate) async fn reservation(&self, id: ReservationId) -> Versioned<Reservation> {
        self.storage.reservations.find(id).await.unwrap().unwrap()
    }

    pub(crate) async fn seats(&self, ids: &[SeatId]) -> Vec<Versioned<Seat>> {
        let seats = self.storage.seats.find_many(ids.to_vec()).await.unwrap();
        assert_eq!(seats.len(), ids.len());
        seats
    }

    pub(crate) async fn seat(&self, id: SeatId) -> Versioned<Seat> {
        self.seats(&[id]).await.remove(0)
    }

    /// How many wait and how many are ACTIVE.
    pub(crate) async fn in_room(&self, id: RoomId, now: Timestamp) -> (u64, u64) {
        let overview = self.storage.admin_queries.find_room(id, now).await.unwrap().unwrap();
        (overview.waiting, overview.active)
    }
}

/// Rooms and lines.
impl Fixture {
    /// A room made at time zero.
    pub(crate) async fn new_room(&self, policy: RoomPolicy) -> Room {
        let room = Room::new(self.id(RoomId::new), policy, at(0));
        self.write(UnitOfWork { rooms: vec![Change::Insert(room)], ..Default::default() }).await;
        room
    }

    pub(crate) async fn default_room(&self) -> Room {
        self.new_room(RoomPolicy::default()).await
    }

    /// Stores another policy for a room.
    pub(crate) async fn set_policy(&self, id: RoomId, policy: RoomPolicy) {
        let mut room = self.room(id).await;
        room.value.policy = policy;
        self.write(UnitOfWork { rooms: vec![Change::Update(room)], ..Default::default() }).await;
    }

    pub(crate) fn join_work(&self, room_id: RoomId, user_id: UserId, now: Timestamp) -> UnitOfWork {
        commanded(Command::Join(Join { token_id: self.id(QueueTokenId::new), room_id, user_id, now }))
    }

    /// A new place in a line.
    pub(crate) async fn join(&self, room_id: RoomId, user_id: UserId, now: Timestamp) -> QueueToken {
        match self.commit(self.join_work(room_id, user_id, now)).await.unwrap().outcome {
            Some(CommandOutcome::Joined(token)) => token,
            other => panic!("{user_id} did not join but {other:?}"),
        }
    }

    /// New places for new people.
    pub(crate) async fn crowd(&self, room_id: RoomId, size: usize, now: Timestamp) -> Vec<QueueToken> {
        let mut tokens = Vec::new();
        for _ in 0..size {
            tokens.push(self.join(room_id, self.id(UserId::new), now).await);
        }
        tokens
    }

    pub(crate) async fn admit(&self, room_id: RoomId, limit: u32, now: Timestamp) -> u32 {
        match self.order(admit_up_to(limit, None, room_id, now)).await {
            CommandOutcome::Admitted(admitted) => admitted,
            other => panic!("{other:?}"),
        }
    }

    /// A token of a new user who is through the line, as is everybody who waited there.
    pub(crate) async fn admitted(&self, room_id: RoomId, now: Timestamp) -> Versioned<QueueToken> {
        let token = self.join(room_id, self.id(UserId::new), now).await;
        self.admit(room_id, u32::MAX, now).await;
        self.token(token.id).await
    }

    /// A place is given up.
    pub(crate) async fn leave(&self, id: QueueTokenId, now: Timestamp) {
        let token = self.token(id).await.try_map(|token| token.expire(now)).unwrap();
        self.write(UnitOfWork { queue_tokens: vec![token], ..Default::default() }).await;
    }
}

/// Concerts, dates and seats.
impl Fixture {
    pub(crate) async fn new_concert(&self, room_id: RoomId) -> Concert {
        let concert = Concert {
            id: self.id(ConcertId::new),
            title: label("A concert"),
            venue: label("A hall"),
            room_id,
        };
        self.write(UnitOfWork { concerts: vec![concert.clone()], ..Default::default() }).await;
        concert
    }

    pub(crate) async fn new_date(&self, concert_id: ConcertId, starts_at: Timestamp) -> PerformanceDate {
        let id = self.id(PerformanceDateId::new);
        let date = PerformanceDate::new(id, concert_id, starts_at, None).unwrap();
        self.write(UnitOfWork { performance_dates: vec![date], ..Default::default() }).await;
        date
    }

    /// Seats 1 to `count` of section A. Seat n costs 100 n.
    pub(crate) async fn new_seats(&self, date: PerformanceDateId, count: u32) -> Vec<Seat> {
        let section = Section {
            section: label("A"),
            grade: label("R"),
            price: Money::ZERO,
            rows: 1,
            seats_per_row: count,
        };
        let mut seats = SeatPlan::new(vec![section]).unwrap().seats(date, || self.id(SeatId::new));
        for seat in &mut seats {
            seat.place.price = money(i64::from(seat.place.number) * 100);
        }
        let changes = seats.iter().cloned().map(Change::Insert).collect();
        self.write(UnitOfWork { seats: changes, ..Default::default() }).await;
        seats
    }

    /// Another date of a concert.
    pub(crate) async fn another_date(&self, room: Room, concert: Concert, seats: u32) -> Sale {
        let date = self.new_date(concert.id, at(START)).await;
        let seats = self.new_seats(date.id, seats).await;
        Sale { room, concert, date, seats }
    }

    /// A date on sale, with a room and a concert of its own.
    pub(crate) async fn sale(&self, seats: u32) -> Sale {
        let room = self.default_room().await;
        let concert = self.new_concert(room.id).await;
        self.another_date(room, concert, seats).await
    }
}

/// Buying.
impl Fixture {
    /// What reserving writes: the seats held, the reservation made, the token's version bumped.
    pub(crate) fn hold_work(
        &self,
        token: Versioned<QueueToken>,
        seats: Vec<Versioned<Seat>>,
        now: Timestamp,
    ) -> (ReservationId, UnitOfWork) {
        let id = self.id(ReservationId::new);
        let terms = HoldTerms {
            user_id: token.value.user_id,
            performance_date_id: seats[0].value.performance_date_id,
            room_id: token.value.room_id,
            token_id: token.value.id,
            reserved_at: now,
            hold_expires_at: now.plus_seconds(u32::try_from(HOLD).unwrap()),
        };
        let reserved = seats
            .iter()
            .map(|seat| ReservedSeat { seat_id: seat.value.id, price: seat.value.place.price })
            .collect();
        let reservation = Reservation::hold(id, terms, reserved).unwrap();
        let held = seats
            .into_iter()
            .map(|seat| seat.try_map(|seat| seat.hold(id, terms.hold_expires_at, now)).unwrap())
            .map(Change::Update)
            .collect();
        let work = UnitOfWork {
            queue_tokens: vec![token],
            reservations: vec![Change::Insert(reservation)],
            seats: held,
            ..Default::default()
        };
        (id, work)
    }

    /// Seats held under a token that there is.
    pub(crate) async fn hold_under(
        &self,
        token: QueueTokenId,
        seats: &[SeatId],
        now: Timestamp,
    ) -> Versioned<Reservation> {
        let (id, work) = self.hold_work(self.token(token).await, self.seats(seats).await, now);
        self.write(work).await;
        self.reservation(id).await
    }

    /// Seats held by a new user.
    pub(crate) async fn hold(&self, sale: &Sale, seats: &[SeatId], now: Timestamp) -> Versioned<Reservation> {
        let token = self.admitted(sale.room.id, now).await;
        self.hold_under(token.value.id, seats, now).await
    }

    /// What charging writes over an account as it was loaded, or none.
    pub(crate) fn charge_work(
        &self,
        user_id: UserId,
        loaded: Option<Versioned<Account>>,
        amount: i64,
        now: Timestamp,
    ) -> UnitOfWork {
        let account = loaded.map_or_else(|| Account::empty(user_id), |loaded| loaded.value);
        let (account, entry) = account.charge(self.id(EntryId::new), money(amount), now).unwrap();
        let change = match loaded {
            None => Change::Insert(account),
            Some(loaded) => Change::Update(Versioned::new(account, loaded.version)),
        };
        UnitOfWork { accounts: vec![change], entries: vec![entry], ..Default::default() }
    }

    pub(crate) async fn charge(&self, user_id: UserId, amount: i64, now: Timestamp) -> Versioned<Account> {
        let loaded = self.storage.accounts.find(user_id).await.unwrap();
        self.write(self.charge_work(user_id, loaded, amount, now)).await;
        self.account(user_id).await
    }

    /// What paying a held reservation writes, all of it, for a user who has an account.
    pub(crate) async fn pay_work(&self, id: ReservationId, now: Timestamp) -> UnitOfWork {
        let reservation = self.reservation(id).await;
        let Reservation { user_id, room_id, total_amount, .. } = reservation.value;
        let account = self.account(user_id).await;
        let entry_id = self.id(EntryId::new);
        let (debited, entry) = account.value.pay(entry_id, total_amount, id, now).unwrap();
        let seats = self.seats(&reservation.value.seat_ids()).await;
        let ticket = |seat: &Versioned<Seat>| Ticket { id: self.id(TicketId::new), seat_id: seat.value.id };
        let payment = Payment {
            id: self.id(PaymentId::new),
            reservation_id: id,
            user_id,
            entry_id,
            amount: total_amount,
            paid_at: now,
            tickets: seats.iter().map(ticket).collect(),
        };
        let live = self.storage.queue_tokens.find_live(room_id, user_id).await.unwrap();
        UnitOfWork {
            queue_tokens: live.map(|t| t.try_map(|t| t.expire(now)).unwrap()).into_iter().collect(),
            accounts: vec![Change::Update(Versioned::new(debited, account.version))],
            entries: vec![entry],
            reservations: vec![Change::Update(reservation.try_map(|r| r.pay(now)).unwrap())],
            seats: seats.into_iter().map(|s| Change::Update(s.try_map(|s| s.sell(id)).unwrap())).collect(),
            payments: vec![payment],
            ..Default::default()
        }
    }

    /// What ending a hold writes by hand: a cancellation before the deadline, an expiry after.
    pub(crate) async fn end_work(&self, id: ReservationId, now: Timestamp) -> UnitOfWork {
        let reservation = self.reservation(id).await;
        let seats = self.seats(&reservation.value.seat_ids()).await;
        let lapsed = now >= reservation.value.hold_expires_at;
        let ended = reservation.try_map(|r| if lapsed { r.expire(now) } else { r.cancel(now) }).unwrap();
        UnitOfWork {
            reservations: vec![Change::Update(ended)],
            seats: seats.into_iter().map(|s| Change::Update(s.try_map(|s| s.release(id)).unwrap())).collect(),
            ..Default::default()
        }
    }

    /// Charges a user with enough, and pays.
    pub(crate) async fn pay(&self, id: ReservationId, now: Timestamp) {
        let user_id = self.reservation(id).await.value.user_id;
        self.charge(user_id, 1_000_000, now).await;
        let work = self.pay_work(id, now).await;
        self.write(work).await;
    }

    /// An answer to this user under [`key`].
    pub(crate) fn record(&self, user_id: UserId, now: Timestamp) -> IdempotencyRecord {
        let request = KeyedRequest { user_id, key: key(), fingerprint: Fingerprint([7; 32]) };
        let answer = Answer { status: 200, content_type: "application/json".into(), body: b"{}".to_vec() };
        IdempotencyRecord::new(request, answer, now)
    }
}

fn nth(n: u64) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(n))
}

pub(crate) fn commanded(command: Command) -> UnitOfWork {
    UnitOfWork { command: Some(command), ..Default::default() }
}

pub(crate) fn admit_up_to(limit: u32, max_active: Option<u32>, room_id: RoomId, now: Timestamp) -> Command {
    Command::Admit(Admit { room_id, limit, max_active, active_ttl_seconds: TTL, now })
}

/// One unit of work that does what two do. At most one of them has a record, at most one a command.
pub(crate) fn both(a: UnitOfWork, b: UnitOfWork) -> UnitOfWork {
    fn join<T>(a: Vec<T>, b: Vec<T>) -> Vec<T> {
        a.into_iter().chain(b).collect()
    }
    UnitOfWork {
        idempotency: a.idempotency.or(b.idempotency),
        guards: join(a.guards, b.guards),
        command: a.command.or(b.command),
        rooms: join(a.rooms, b.rooms),
        queue_tokens: join(a.queue_tokens, b.queue_tokens),
        accounts: join(a.accounts, b.accounts),
        entries: join(a.entries, b.entries),
        reservations: join(a.reservations, b.reservations),
        seats: join(a.seats, b.seats),
        payments: join(a.payments, b.payments),
        concerts: join(a.concerts, b.concerts),
        performance_dates: join(a.performance_dates, b.performance_dates),
        audit_log: join(a.audit_log, b.audit_log),
    }
}

/// Reads pages of up to `limit` until an empty one. A page that is not full must be the last.
pub(crate) async fn all_pages<T, C>(
    limit: usize,
    cursor: impl Fn(&T) -> C,
    page: impl AsyncFn(Option<C>) -> Vec<T>,
) -> Vec<T> {
    let mut all: Vec<T> = Vec::new();
    let mut last_was_full = true;
    loop {
        assert!(all.len() < 1_000, "the pages have no end");
        let items = page(all.last().map(&cursor)).await;
        assert!(items.len() <= limit, "{} on a page of {limit}", items.len());
        if items.is_empty() {
            return all;
        }
        assert!(last_was_full, "a page that is not full is followed by another");
        last_was_full = items.len() == limit;
        all.extend(items);
    }
}
