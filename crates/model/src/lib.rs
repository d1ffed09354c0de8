//! A reference model of frontrow: what every request has to be answered, and what has to be true afterwards.
//!
//! It says the contract a second time, in the plainest way there is: collections, integers and one function an operation,
//! all of it in one thread. It depends on nothing of frontrow, so that no rule can be wrong in both for one reason. Where it can, it
//! keeps no state that could disagree with another: whose a seat is follows from the reservations, a balance from the entries,
//! who waits from the tokens. Deadlines are compared with the time, so sweeps do nothing here (ADR 0011).
//!
//! [`Model::new`] takes a [`World`], [`Model::apply`] an [`Operation`] and gives the [`Answer`], [`Model::snapshot`] shows all
//! that anybody can see. Whoever drives the real thing gives it the same operations and compares.
//!
//! What an operation makes is called by the [`Name`] that the operation carries, not by the order in which it was made: so an
//! operation means the same wherever it stands in a history, and one that was left out leaves dangling names, which stand
//! for things that were never there.
//!
//! `tests/random` does that with the real use cases on memory, SQLite and PostgreSQL: at random, step by step and several at
//! once. `FRONTROW_MODEL_CASES=1000 cargo test -p frontrow-model --test random` runs more cases (`just model`). A failure prints
//! the shrunk history as Rust, to be pasted into `tests/random/regressions.rs`.
//!
//! Not in the model: making concerts and dates, and what only the transport knows.

mod answer;
mod line;
mod operation;
mod sale;
mod session;
mod snapshot;
mod wallet;
mod world;

use std::collections::BTreeMap;

pub use answer::{
    Answer, DateSeen, EntryKind, EntrySeen, Place, Receipt, Refusal, ReservationSeen, ReservationStatus,
    RoomSeen, SalesSeen, SeatStatus, TokenStatus,
};
pub use operation::{FORGED, Key, Name, Operation, Step};
pub use snapshot::Snapshot;
pub use world::{DateSpec, MAX_CHARGE, Mode, Patch, Policy, World};

use line::{Room, Token};
use sale::{Date, Reservation, Seat};
use wallet::Kept;

/// Time, in microseconds since the world began.
pub type Time = i64;
/// Microseconds a second.
pub const SECOND: Time = 1_000_000;

/// All that frontrow knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    now: Time,
    hold_seconds: i64,
    max_seats: usize,
    keep_tokens: Time,
    users: usize,
    /// The guest of each session, and when it ends.
    sessions: BTreeMap<Name, (Name, Time)>,
    rooms: Vec<Room>,
    /// The room of each concert.
    concerts: Vec<usize>,
    dates: Vec<Date>,
    seats: Vec<Seat>,
    tokens: BTreeMap<Name, Token>,
    reservations: BTreeMap<Name, Reservation>,
    /// The history of each user's account, oldest first.
    entries: Vec<Vec<EntrySeen>>,
    /// Answers given under a user's key.
    kept: BTreeMap<(usize, Key), Kept>,
}

impl Model {
    /// The world as it begins.
    #[must_use]
    pub fn new(world: &World) -> Self {
        let seats = world.dates.iter().enumerate();
        let seats =
            seats.flat_map(|(date, spec)| spec.prices.iter().map(move |price| Seat { date, price: *price }));
        Self {
            now: 0,
            hold_seconds: world.hold_seconds,
            max_seats: world.max_seats,
            keep_tokens: world.keep_tokens_seconds * SECOND,
            users: world.opening_balances.len(),
            sessions: BTreeMap::new(),
            rooms: world.rooms.iter().map(|policy| Room::new(*policy)).collect(),
            concerts: world.concerts.clone(),
            dates: world.dates.iter().map(Date::new).collect(),
            seats: seats.collect(),
            tokens: BTreeMap::new(),
            reservations: BTreeMap::new(),
            entries: wallet::opened(&world.opening_balances),
            kept: BTreeMap::new(),
        }
    }

    /// What time it is.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Does one operation, and says what it is answered.
    pub fn apply(&mut self, operation: &Operation) -> Answer {
        let answered = match *operation {
            Operation::Wait { micros } => self.wait(micros),
            Operation::WaitFor { deadline, offset } => self.wait_for(deadline, offset),
            Operation::OpenSession { call } => Ok(self.open_session(call)),
            Operation::UseSession { session } => self.use_session(session),
            Operation::RenewSession { call, session } => self.renew_session(call, session),
            Operation::Enter { call, user, concert } => self.enter(call, user, concert),
            Operation::LookUp { user, token } => self.look_up(user, token),
            Operation::Leave { user, token } => self.leave(user, token),
            Operation::ListDates { user, token, concert, all } => self.list_dates(user, token, concert, all),
            Operation::LookAtSeats { user, token, concert, date } => {
                self.look_at_seats(user, token, concert, date)
            }
            Operation::Reserve { call, user, token, date, ref seats, key } => {
                self.reserve(call, user, token, date, seats, key)
            }
            Operation::FindReservation { user, reservation } => self.find_reservation(user, reservation),
            Operation::ListReservations { user } => Ok(self.list_reservations(user)),
            Operation::Cancel { user, reservation } => self.cancel(user, reservation),
            Operation::Charge { call, user, amount, key } => self.charge(call, user, amount, key),
            Operation::Balance { user } => Ok(Answer::Balance(self.balance(user))),
            Operation::Entries { user, before, limit } => Ok(self.list_entries(user, before, limit)),
            Operation::Pay { call, user, reservation, key } => self.pay(call, user, reservation, key),
            Operation::ChangeRoom { room, patch } => self.change_room(room, &patch),
            Operation::Admit { room, count } => Ok(self.admit_now(room, count)),
            Operation::Rooms => Ok(Answer::Rooms(self.rooms_seen())),
            Operation::Sales { date } => self.sales(date),
            Operation::Tick => Ok(self.tick()),
            Operation::Watch { seconds, polling } => Ok(self.watch(seconds, polling)),
            Operation::Sweep | Operation::Prune | Operation::Refresh => Ok(Answer::Done),
        };
        answered.unwrap_or_else(Answer::Refused)
    }

    /// Does an operation as by the oldest view that may decide it, where that differs from [`Model::apply`]: joining goes by
    /// a view of what is left to sell that is at most a second old. Otherwise it does nothing.
    pub fn apply_by_older_view(&mut self, operation: &Operation) -> Option<Answer> {
        match *operation {
            Operation::Enter { call, user, concert } => self.enter_by_older_view(call, user, concert),
            _ => None,
        }
    }

    fn wait(&mut self, micros: Time) -> Result<Answer, Refusal> {
        self.now += micros.max(0);
        Ok(Answer::Done)
    }

    fn wait_for(&mut self, deadline: usize, offset: Time) -> Result<Answer, Refusal> {
        let deadlines = self.deadlines();
        let chosen = deadlines.get(deadline % deadlines.len().max(1)).copied();
        self.now = self.now.max(chosen.unwrap_or(self.now) + offset);
        Ok(Answer::Done)
    }

    /// Every time from now on at which something happens by itself.
    fn deadlines(&self) -> Vec<Time> {
        let ticks = self.rooms.iter().map(|room| room.upcoming(self.now).next_tick);
        let tokens = self.tokens.values().filter_map(Token::deadline);
        let holds = self.reservations.values().filter_map(Reservation::deadline);
        let keys = self.kept.values().map(|kept| kept.until);
        let sales = self.dates.iter().flat_map(|date| date.on_sale_at.into_iter().chain([date.starts_at]));
        let sessions = self.sessions.values().map(|(_, until)| *until);
        let mut all: Vec<Time> =
            ticks.chain(sessions).chain(tokens).chain(holds).chain(keys).chain(sales).collect();
        all.retain(|time| *time >= self.now);
        all.sort_unstable();
        all.dedup();
        all
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
