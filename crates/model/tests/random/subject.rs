//! The real thing: the use cases of a node as it ships, on the storage of a case, with a clock that stands until it is turned.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use frontrow::app::{Identity, Node, Rules};
use frontrow_app::{HoldRules, NewDate};
use frontrow_domain::account::{Account, Entry, EntryKind as DomainEntryKind, WalletCharging};
use frontrow_domain::concert::{Concert, SeatPlan, Section};
use frontrow_domain::ports::{AccessTokens, Clock, IdGenerator};
use frontrow_domain::queue::{DEFAULT_ROOM_ID, RoomMode, RoomPolicy, RoomPolicyPatch};
use frontrow_domain::{
    Change, ConcertId, EntryId, Label, Money, PerformanceDateId, RoomId, SeatId, Timestamp, UnitOfWork,
    UserId,
};
use frontrow_infra::Storage;
use frontrow_infra::identity::{AccessKeys, Secret, WaitTokens};
use frontrow_model::{Mode, Name, Patch, Policy, Time, World};
use uuid::Uuid;

use crate::mutants::{Lenient, Mutation};
use crate::names::{Made, Names};

/// Who makes concerts, changes rooms, and admits.
pub(crate) const OPERATOR: UserId = UserId::new(Uuid::from_u128(0xad));

/// When the world begins.
const BEGINNING: &str = "2030-01-01T00:00:00Z";
/// Ids are counted from here: UUIDs of version 7.
const FIRST_ID: u128 = 0x0190_0000_0000_7000_8000_0000_0000_0000;
/// People are counted from here.
const FIRST_USER: u128 = 0x0180_0000_0000_7000_8000_0000_0000_0001;
/// What does not exist is counted from here.
const NOTHING: u128 = 0x0170_0000_0000_7000_8000_0000_0000_0000;

/// A clock that stands until it is turned.
#[derive(Debug)]
pub(crate) struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

/// Ids in the order in which they were asked for.
struct Counted(AtomicU64);

impl IdGenerator for Counted {
    fn next_id(&self) -> Uuid {
        Uuid::from_u128(FIRST_ID + u128::from(self.0.fetch_add(1, Ordering::SeqCst)))
    }
}

/// A node, and what everything of the world is called there.
pub(crate) struct Subject {
    pub(crate) node: Node,
    pub(crate) storage: Storage,
    clock: Arc<SetClock>,
    identity: Identity,
    rules: Rules,
    beginning: Timestamp,
    pub(crate) users: Vec<UserId>,
    pub(crate) rooms: Vec<RoomId>,
    pub(crate) concerts: Vec<ConcertId>,
    pub(crate) dates: Vec<PerformanceDateId>,
    seats: Vec<SeatId>,
    seat_numbers: HashMap<SeatId, usize>,
    names: Mutex<Names>,
}

impl Subject {
    /// A node with nothing to sell yet: it makes the world on empty storage.
    pub(crate) async fn new(world: &World, storage: Storage, mutation: Option<Mutation>) -> Self {
        let beginning = Timestamp::parse(BEGINNING).unwrap();
        let clock = Arc::new(SetClock(AtomicI64::new(beginning.unix_micros())));
        let secret = Secret::new("a secret for tests and for nothing else").unwrap();
        let own: Arc<dyn AccessTokens> = Arc::new(AccessKeys::own(&secret));
        let lenient = mutation == Some(Mutation::KnowsGuestsTooLong);
        let identity = Identity {
            access_tokens: if lenient { Arc::new(Lenient(own)) } else { own },
            wait_tokens: Arc::new(WaitTokens::new(&secret)),
            clock: clock.clone(),
            ids: Arc::new(Counted(AtomicU64::new(1))),
        };
        let holds = HoldRules {
            hold_seconds: u32::try_from(world.hold_seconds).unwrap(),
            max_seats_per_user: u32::try_from(world.max_seats).unwrap(),
        };
        let keep_tokens_for = u32::try_from(world.keep_tokens_seconds).unwrap();
        let rules = Rules { holds, charging: WalletCharging::default(), keep_tokens_for };
        let mut subject = Self {
            node: Node::new(storage.clone(), &identity, rules),
            storage,
            clock,
            identity,
            rules,
            beginning,
            users: (0..)
                .zip(&world.opening_balances)
                .map(|(n, _)| UserId::new(Uuid::from_u128(FIRST_USER + n)))
                .collect(),
            rooms: Vec::new(),
            concerts: Vec::new(),
            dates: Vec::new(),
            seats: Vec::new(),
            seat_numbers: HashMap::new(),
            names: Mutex::default(),
        };
        subject.make_rooms(world).await;
        subject.make_dates(world).await;
        subject.open_accounts(&world.opening_balances).await;
        subject
    }

    /// The first room is the global one. Each of the others is made with the first concert that is behind it.
    async fn make_rooms(&mut self, world: &World) {
        let admin = &self.node.use_cases.admin;
        admin.ensure_global_room(self.policy(&world.rooms[0])).await.unwrap();
        self.rooms.push(DEFAULT_ROOM_ID);
        for room in &world.concerts {
            let (title, venue) = (label("A Concert"), label("A Hall"));
            if *room == self.rooms.len() {
                let patch = self.patch(&as_patch(&world.rooms[*room]));
                let made = admin.create_concert(OPERATOR, title, venue, Some(&patch)).await.unwrap();
                self.rooms.push(made.room_id);
                self.concerts.push(made.id);
            } else {
                let id = ConcertId::new(self.identity.ids.next_id());
                let concert = Concert { id, title, venue, room_id: self.rooms[*room] };
                let work = UnitOfWork { concerts: vec![concert], ..UnitOfWork::default() };
                self.storage.committer.commit(work).await.unwrap();
                self.concerts.push(id);
            }
        }
    }

    async fn make_dates(&mut self, world: &World) {
        for date in &world.dates {
            let section = |(number, price): (usize, &i64)| Section {
                section: label(&format!("S{number:02}")),
                grade: label("R"),
                price: Money::new(*price).unwrap(),
                rows: 1,
                seats_per_row: 1,
            };
            let new = NewDate {
                concert_id: self.concerts[date.concert],
                starts_at: self.at(date.starts_at),
                on_sale_at: date.on_sale_at.map(|time| self.at(time)),
                seats: SeatPlan::new(date.prices.iter().enumerate().map(section).collect()).unwrap(),
            };
            let (id, _) = self.node.use_cases.admin.create_date(OPERATOR, new).await.unwrap();
            let mut seats = self.storage.seat_feeds.load(id).await.unwrap().unwrap().seats;
            seats.sort_by_key(|seat| seat.value.place.section.clone());
            for seat in seats {
                self.seat_numbers.insert(seat.value.id, self.seats.len());
                self.seats.push(seat.value.id);
            }
            self.dates.push(id);
        }
    }

    /// More than could be charged in any time, so that a balance comes near to what can be stored.
    async fn open_accounts(&self, balances: &[i64]) {
        for ((user_id, balance), name) in self.users.iter().zip(balances).zip(1_000_000..) {
            if *balance > 0 {
                let (amount, id) = (Money::new(*balance).unwrap(), EntryId::new(self.identity.ids.next_id()));
                let account = Account { user_id: *user_id, balance: amount, entry_count: 1 };
                let entry = Entry {
                    id,
                    user_id: *user_id,
                    number: 1,
                    kind: DomainEntryKind::Charge,
                    amount,
                    balance_after: amount,
                    at: self.beginning,
                };
                let accounts = vec![Change::Insert(account)];
                let work = UnitOfWork { accounts, entries: vec![entry], ..UnitOfWork::default() };
                self.storage.committer.commit(work).await.unwrap();
                self.names().learn(name, Made::Other(id.get()));
            }
        }
    }

    /// The same with another node, which has just been started and knows nothing but what is stored.
    pub(crate) fn restarted(&self) -> Node {
        Node::new(self.storage.clone(), &self.identity, self.rules)
    }

    pub(crate) fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap()
    }

    pub(crate) fn turn_clock_to(&self, time: Time) {
        self.clock.0.store(self.at(time).unix_micros(), Ordering::SeqCst);
    }

    pub(crate) fn turn_clock_by(&self, seconds: u32) {
        self.clock.0.store(self.now().plus_seconds(seconds).unix_micros(), Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A time of the model.
    fn at(&self, time: Time) -> Timestamp {
        Timestamp::from_unix_micros(self.beginning.unix_micros() + time).unwrap()
    }

    /// A time, as the model counts it.
    pub(crate) fn time(&self, at: Timestamp) -> Time {
        at.unix_micros() - self.beginning.unix_micros()
    }

    /// The id of the nth of a list; beyond it, one that nobody has.
    pub(crate) fn seat(&self, number: usize) -> SeatId {
        let nothing = || SeatId::new(nothing(number));
        self.seats.get(number).copied().unwrap_or_else(nothing)
    }

    pub(crate) fn room(&self, number: usize) -> RoomId {
        self.rooms.get(number).copied().unwrap_or_else(|| RoomId::new(nothing(number)))
    }

    pub(crate) fn concert(&self, number: usize) -> ConcertId {
        self.concerts.get(number).copied().unwrap_or_else(|| ConcertId::new(nothing(number)))
    }

    pub(crate) fn date(&self, number: usize) -> PerformanceDateId {
        self.dates.get(number).copied().unwrap_or_else(|| PerformanceDateId::new(nothing(number)))
    }

    pub(crate) fn seat_count(&self) -> usize {
        self.seats.len()
    }

    /// The number of a seat; of one that does not exist, the number that it was asked for by.
    pub(crate) fn seat_number(&self, id: SeatId) -> usize {
        let unknown = || usize::try_from(id.get().as_u128() - NOTHING).unwrap();
        self.seat_numbers.get(&id).copied().unwrap_or_else(unknown)
    }

    pub(crate) fn user_number(&self, id: Uuid) -> usize {
        self.users.iter().position(|user| user.get() == id).unwrap_or(usize::MAX)
    }

    pub(crate) fn room_number(&self, id: RoomId) -> usize {
        self.rooms.iter().position(|room| *room == id).unwrap_or(usize::MAX)
    }

    pub(crate) fn date_number(&self, id: Uuid) -> usize {
        self.dates.iter().position(|date| date.get() == id).unwrap_or(usize::MAX)
    }

    pub(crate) fn learn(&self, call: Name, made: Made) {
        self.names().learn(call, made);
    }
}

fn nothing(number: usize) -> Uuid {
    Uuid::from_u128(NOTHING + u128::try_from(number).unwrap())
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

const MODES: [(Mode, RoomMode); 5] = [
    (Mode::Auto, RoomMode::Auto),
    (Mode::Hold, RoomMode::Hold),
    (Mode::Open, RoomMode::Open),
    (Mode::Closed, RoomMode::Closed),
    (Mode::Paused, RoomMode::Paused),
];

fn as_patch(policy: &Policy) -> Patch {
    Patch {
        admit_batch: Some(policy.admit_batch),
        admit_interval_seconds: Some(policy.admit_interval_seconds),
        active_ttl_seconds: Some(policy.active_ttl_seconds),
        max_active: Some(policy.max_active),
        max_waiting: Some(policy.max_waiting),
        wait_grace_seconds: Some(policy.wait_grace_seconds),
        opens_at: Some(policy.opens_at),
        mode: Some(policy.mode),
    }
}

impl Subject {
    fn policy(&self, of: &Policy) -> RoomPolicy {
        RoomPolicy::default().patched(&self.patch(&as_patch(of))).unwrap()
    }

    pub(crate) fn patch(&self, of: &Patch) -> RoomPolicyPatch {
        let mode = |mode: Mode| MODES.iter().find(|(of, _)| *of == mode).unwrap().1;
        RoomPolicyPatch {
            admit_batch: of.admit_batch,
            admit_interval_seconds: of.admit_interval_seconds,
            active_ttl_seconds: of.active_ttl_seconds,
            max_active: of.max_active,
            max_waiting: of.max_waiting,
            wait_grace_seconds: of.wait_grace_seconds,
            opens_at: of.opens_at.map(|given| given.map(|time| self.at(time))),
            mode: of.mode.map(mode),
        }
    }

    pub(crate) fn policy_seen(&self, of: &RoomPolicy) -> Policy {
        Policy {
            admit_batch: of.admit_batch.into(),
            admit_interval_seconds: of.admit_interval_seconds.into(),
            active_ttl_seconds: of.active_ttl_seconds.into(),
            max_active: of.max_active.map(i64::from),
            max_waiting: of.max_waiting.map(i64::from),
            wait_grace_seconds: of.wait_grace_seconds.map(i64::from),
            opens_at: of.opens_at.map(|time| self.time(time)),
            mode: MODES.iter().find(|(_, mode)| *mode == of.mode).unwrap().0,
        }
    }
}
