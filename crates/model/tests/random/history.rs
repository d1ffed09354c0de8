//! Histories at random: several users, an operator and the scheduler, mostly doing what makes sense, sometimes what does not.

use std::sync::Arc;

use frontrow_model::{
    DateSpec, FORGED, Key, MAX_CHARGE, Mode, Model, Name, Operation, Patch, Place, Policy, ReservationSeen,
    ReservationStatus, SECOND, Snapshot, Step, TokenStatus, World,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::BoxedStrategy;
use proptest_state_machine::ReferenceStateMachine;

const HOUR: i64 = 3_600 * SECOND;
/// More than is left to what can be stored once somebody has this; two seats of that price cannot be added up.
const HUGE: i64 = i64::MAX / 4 * 3;

/// The world of every case: the global room, one that admits by ticks, one that is OPEN; dates that begin soon, late and
/// not yet; seats for nothing and for more than anybody has.
pub(crate) fn world() -> World {
    let ticking = Policy {
        admit_batch: 1,
        admit_interval_seconds: 60,
        active_ttl_seconds: 400,
        max_active: Some(3),
        wait_grace_seconds: Some(120),
        ..Policy::default()
    };
    let open = Policy {
        admit_batch: 2,
        admit_interval_seconds: 30,
        active_ttl_seconds: 90,
        max_active: Some(1),
        max_waiting: Some(1),
        wait_grace_seconds: None,
        opens_at: None,
        mode: Mode::Open,
    };
    let date = |concert, on_sale_at, starts_at, prices: &[i64]| DateSpec {
        concert,
        on_sale_at,
        starts_at,
        prices: prices.to_vec(),
    };
    World {
        hold_seconds: 300,
        max_seats: 3,
        keep_tokens_seconds: 3_600,
        rooms: vec![Policy::default(), ticking, open],
        concerts: vec![0, 1, 2, 1],
        dates: vec![
            date(1, None, 72 * HOUR, &[100, 200, 0, 300, 100, 100]),
            date(1, Some(600 * SECOND), HOUR, &[50, 50]),
            date(2, None, 30 * HOUR, &[HUGE, HUGE, 1_000]),
            date(3, None, 2 * HOUR, &[10, 20]),
        ],
        opening_balances: vec![0, 0, 1_000, i64::MAX - 3 * MAX_CHARGE / 2],
    }
}

/// The seats of each date: the first, and how many.
const SEATS: [(usize, usize); 4] = [(0, 6), (6, 2), (8, 3), (11, 2)];
const USERS: usize = 4;

/// What has happened so far.
#[derive(Debug, Clone)]
pub(crate) struct History {
    model: Model,
    /// What was asked under a key.
    keyed: Vec<Operation>,
    next: Name,
}

/// Numbers that an operation is built from.
#[derive(Debug, Clone, Copy)]
struct Raw {
    kind: usize,
    user: usize,
    /// 0 for what makes most sense, larger for what makes less.
    odd: usize,
    x: usize,
    y: usize,
    key: Option<Key>,
}

fn raw() -> impl Strategy<Value = Raw> {
    let key = prop_oneof![3 => Just(None), 1 => (0..3_u8).prop_map(Some)];
    let numbers = (0..1_000_usize, 0..USERS, 0..20_usize, 0..60_usize, 0..60_usize, key);
    numbers.prop_map(|(kind, user, odd, x, y, key)| Raw { kind, user, odd, x, y, key })
}

/// What there is to be named.
struct Known {
    seen: Snapshot,
    sessions: Vec<Name>,
    keyed: Vec<Operation>,
}

impl Known {
    /// Mostly the user's newest token in a room, else anybody's, none or a forged one.
    fn token(&self, raw: Raw, room: usize) -> Option<Name> {
        let places = &self.seen.places;
        let own = places.iter().rev().find(|place| (place.user, place.room) == (raw.user, room));
        match raw.odd {
            19 => None,
            18 => Some(FORGED),
            15..18 => places.get(raw.y % places.len().max(1)).map(|place| place.token),
            _ => own.map(|place| place.token),
        }
    }

    /// What brings people through the line of a room, while there is nobody who is.
    fn way_in(&self, raw: Raw, room: usize, call: Name) -> Option<Operation> {
        let mut places = self.seen.places.iter().filter(|place| place.room == room);
        let (is_through, waits) = (TokenStatus::Active, TokenStatus::Wait);
        if raw.odd >= 15 || places.clone().any(|place| place.status == is_through) {
            return None;
        }
        if places.any(|place| place.status == waits) {
            return Some(Operation::Admit { room, count: 2 });
        }
        Some(Operation::Enter { call, user: raw.user, concert: Some(room) })
    }

    /// Mostly somebody who is through the line of a room, with that token.
    fn buyer(&self, raw: Raw, room: usize) -> (usize, Option<Name>) {
        let is_through = |place: &&Place| place.room == room && place.status == TokenStatus::Active;
        let through: Vec<&Place> = self.seen.places.iter().filter(is_through).collect();
        match through.get(raw.user % through.len().max(1)) {
            Some(place) if raw.odd < 15 => (place.user, Some(place.token)),
            _ => (raw.user, self.token(raw, room)),
        }
    }

    /// What can be paid.
    fn held(&self) -> Vec<&ReservationSeen> {
        let all = self.seen.reservations.iter().flatten();
        all.filter(|reservation| reservation.status == ReservationStatus::Reserved).collect()
    }

    /// Mostly a hold that can be paid and whose it is, else any reservation.
    fn hold(&self, raw: Raw) -> (usize, Name) {
        let held = self.held();
        match held.get((raw.user + raw.x) % held.len().max(1)) {
            Some(held) if raw.odd < 12 => (held.user, held.reservation),
            _ => (raw.user, self.reservation(raw)),
        }
    }

    /// Mostly one of the user's newest reservations, else anybody's, or one that is not there.
    fn reservation(&self, raw: Raw) -> Name {
        let of = if raw.odd >= 17 { raw.y % USERS } else { raw.user };
        let newest_first: Vec<Name> =
            self.seen.reservations[of].iter().rev().map(|reservation| reservation.reservation).collect();
        let back = raw.x % 8 / 4 + usize::from(raw.odd == 16);
        newest_first.get(back).or(newest_first.last()).copied().unwrap_or(FORGED)
    }
}

type Build = fn(Raw, &Known, Name) -> Operation;

/// What may be done, and how often.
const OPERATIONS: [(usize, Build); 26] = [
    (14, enter),
    (9, admit),
    (18, reserve),
    (11, pay),
    (8, charge),
    (6, again),
    (5, cancel),
    (5, look_up),
    (2, leave),
    (2, list_dates),
    (3, look_at_seats),
    (2, find_reservation),
    (1, |raw, _, _| Operation::ListReservations { user: raw.user }),
    (1, |raw, _, _| Operation::Balance { user: raw.user }),
    (1, entries),
    (4, change_room),
    (1, |_, _, _| Operation::Rooms),
    (1, |raw, _, _| Operation::Sales { date: raw.x % 5 }),
    (3, |_, _, _| Operation::Tick),
    (3, |_, _, _| Operation::Sweep),
    (2, |_, _, _| Operation::Prune),
    (1, |_, _, _| Operation::Refresh),
    (2, watch),
    (4, use_session),
    (2, wait),
    (5, |raw, _, _| Operation::WaitFor { deadline: raw.x % 3, offset: [0, -1, 1][raw.y % 3] }),
];

/// What is done at the same time as others, and how often.
const RACING: [(usize, Build); 12] = [
    (4, enter),
    (3, admit),
    (8, reserve),
    (6, pay),
    (5, charge),
    (3, again),
    (3, cancel),
    (1, look_up),
    (2, leave),
    (1, change_room),
    (1, |_, _, _| Operation::Tick),
    (2, |_, _, _| Operation::Sweep),
];

fn build(table: &[(usize, Build)], raw: Raw, known: &Known, call: Name) -> Operation {
    let mut rest = raw.kind % table.iter().map(|(weight, _)| weight).sum::<usize>();
    for (weight, build) in table {
        if rest < *weight {
            return build(raw, known, call);
        }
        rest -= weight;
    }
    Operation::Refresh
}

fn enter(raw: Raw, _: &Known, call: Name) -> Operation {
    let concert = [Some(1), Some(1), Some(1), Some(2), Some(2), Some(3), None, Some(0)][raw.x % 8];
    let concert = if raw.odd == 19 { Some(9) } else { concert };
    Operation::Enter { call, user: raw.user, concert }
}

fn admit(raw: Raw, _: &Known, _: Name) -> Operation {
    let room = if raw.odd == 19 { 7 } else { [1, 1, 1, 2, 0][raw.x % 5] };
    Operation::Admit { room, count: u32::try_from(raw.y % 4).unwrap() }
}

fn reserve(raw: Raw, known: &Known, call: Name) -> Operation {
    let date = [0, 0, 0, 1, 2, 2, 3][raw.x % 7];
    let room = [1, 1, 2, 1][date];
    if let Some(first) = known.way_in(raw, room, call) {
        return first;
    }
    let ((first, seats), wanted) = (SEATS[date], [1, 1, 2, 3][raw.x / 7 % 4]);
    let mut chosen: Vec<usize> = (0..wanted.min(seats)).map(|n| first + (raw.y + n) % seats).collect();
    match raw.odd {
        14 => chosen.push(99),
        13 => chosen.push((first + seats) % 13),
        12 => chosen.push(chosen[0]),
        11 => chosen.clear(),
        10 => chosen = (first..first + seats).collect(),
        _ => {}
    }
    let date = if raw.odd == 9 { 9 } else { date };
    let (user, token) = known.buyer(raw, room);
    Operation::Reserve { call, user, token, date, seats: chosen, key: raw.key }
}

fn pay(raw: Raw, known: &Known, call: Name) -> Operation {
    if raw.odd < 12 && known.held().is_empty() {
        return reserve(raw, known, call);
    }
    let (user, reservation) = known.hold(raw);
    Operation::Pay { call, user, reservation, key: raw.key }
}

fn charge(raw: Raw, _: &Known, call: Name) -> Operation {
    let usual = [100, 250, 500, 1_000][raw.x % 4];
    let amount = match raw.odd {
        14..16 => MAX_CHARGE,
        16 => 0,
        17 => MAX_CHARGE + 1,
        18 => i64::MAX,
        19 => -5,
        _ => usual,
    };
    let amount = if raw.user == 3 && raw.odd > 7 && raw.odd < 14 { MAX_CHARGE } else { amount };
    Operation::Charge { call, user: raw.user, amount, key: raw.key }
}

/// A request that was sent before, or another one under its key.
fn again(raw: Raw, known: &Known, name: Name) -> Operation {
    let Some(earlier) = known.keyed.get(raw.y % known.keyed.len().max(1)) else {
        return charge(Raw { key: Some(0), ..raw }, known, name);
    };
    let mut again = earlier.clone();
    if let Operation::Reserve { call, .. } | Operation::Charge { call, .. } | Operation::Pay { call, .. } =
        &mut again
    {
        *call = name;
    }
    match &mut again {
        Operation::Reserve { seats, .. } if raw.odd >= 16 => seats.reverse(),
        Operation::Charge { amount, .. } if raw.odd >= 16 => *amount = 77,
        Operation::Pay { reservation, .. } if raw.odd >= 16 => *reservation = 900_000,
        _ => {}
    }
    again
}

fn cancel(raw: Raw, known: &Known, _: Name) -> Operation {
    let (user, reservation) = known.hold(raw);
    Operation::Cancel { user, reservation }
}

fn look_up(raw: Raw, known: &Known, _: Name) -> Operation {
    Operation::LookUp { user: raw.user, token: known.token(raw, [1, 1, 2, 0][raw.x % 4]) }
}

fn leave(raw: Raw, known: &Known, _: Name) -> Operation {
    Operation::Leave { user: raw.user, token: known.token(raw, [1, 1, 2, 0][raw.x % 4]) }
}

fn list_dates(raw: Raw, known: &Known, _: Name) -> Operation {
    let concert = [1, 1, 2, 3, 9][raw.x % 5];
    let (user, token) = known.buyer(raw, if concert == 2 { 2 } else { 1 });
    Operation::ListDates { user, token, concert, all: raw.y.is_multiple_of(2) }
}

fn look_at_seats(raw: Raw, known: &Known, _: Name) -> Operation {
    let (concert, date) = [(1, 0), (1, 0), (1, 1), (2, 2), (3, 3), (1, 2), (9, 0), (1, 9)][raw.x % 8];
    let (user, token) = known.buyer(raw, if concert == 2 { 2 } else { 1 });
    Operation::LookAtSeats { user, token, concert, date }
}

fn find_reservation(raw: Raw, known: &Known, _: Name) -> Operation {
    Operation::FindReservation { user: raw.user, reservation: known.reservation(raw) }
}

fn entries(raw: Raw, _: &Known, _: Name) -> Operation {
    let before = [None, Some(1), Some(2), Some(4)][raw.x % 4];
    Operation::Entries { user: raw.user, before, limit: [100, 1, 2][raw.y % 3] }
}

fn change_room(raw: Raw, _: &Known, _: Name) -> Operation {
    let some = |numbers: [i64; 4]| Some(numbers[raw.y % 4]);
    let limit = [None, Some(0), Some(1), Some(3)][raw.y % 4];
    let modes = [Mode::Auto, Mode::Hold, Mode::Open, Mode::Closed, Mode::Closed, Mode::Paused];
    let kind = if raw.x / 4 == 13 { 8 } else { raw.x / 4 % 8 };
    let patch = match kind {
        0 => Patch { admit_batch: some([1, 2, 3, 5]), ..Patch::default() },
        1 => Patch { admit_interval_seconds: some([30, 60, 7, 600]), ..Patch::default() },
        2 => Patch { active_ttl_seconds: some([60, 90, 400, 1]), ..Patch::default() },
        3 => Patch { max_active: Some(limit), ..Patch::default() },
        4 => Patch { max_waiting: Some(limit), ..Patch::default() },
        5 => Patch {
            wait_grace_seconds: Some([None, Some(120), Some(200), Some(119)][raw.y % 4]),
            ..Patch::default()
        },
        7 => Patch { admit_batch: some([0, -1, 100_001, 2]), max_active: Some(Some(-1)), ..Patch::default() },
        8 => Patch {
            opens_at: Some(
                [None, Some(90), Some(600), Some(1_500)][raw.y % 4].map(|seconds| seconds * SECOND),
            ),
            ..Patch::default()
        },
        _ => Patch { mode: Some(modes[raw.y % 6]), ..Patch::default() },
    };
    Operation::ChangeRoom { room: if raw.odd == 19 { 7 } else { [1, 1, 2, 0][raw.x % 4] }, patch }
}

/// Mostly while somebody who waits polls.
fn watch(raw: Raw, known: &Known, _: Name) -> Operation {
    let waiting: Vec<&Place> =
        known.seen.places.iter().filter(|place| place.status == TokenStatus::Wait).collect();
    let polling = waiting.get(raw.y % waiting.len().max(1)).filter(|_| raw.odd < 15);
    let polling = polling.map(|place| (place.user, place.token));
    Operation::Watch { seconds: [125, 115, 260][raw.x % 3], polling }
}

/// One that was opened, or the first.
fn use_session(raw: Raw, known: &Known, call: Name) -> Operation {
    let session = known.sessions.get(raw.y % known.sessions.len().max(1)).copied();
    match (raw.odd, session) {
        (19, _) => Operation::UseSession { session: FORGED },
        (0..11, Some(session)) => Operation::UseSession { session },
        (11..15, Some(session)) => Operation::RenewSession { call, session },
        _ => Operation::OpenSession { call },
    }
}

fn wait(raw: Raw, _: &Known, _: Name) -> Operation {
    let times = [SECOND, 1, 30 * SECOND, 100 * SECOND, 300 * SECOND, 1_000 * SECOND, 2 * HOUR, 24 * HOUR];
    Operation::Wait { micros: times[raw.x % times.len()] }
}

/// What may come next.
fn step(history: &History) -> BoxedStrategy<Step> {
    let known = Known {
        seen: history.model.snapshot(),
        sessions: history.model.sessions().collect(),
        keyed: history.keyed.clone(),
    };
    let (known, next) = (Arc::new(known), history.next);
    let alone = {
        let known = known.clone();
        raw().prop_map(move |raw| Step::Alone(build(&OPERATIONS, raw, &known, next)))
    };
    let together = (vec(raw(), 2..=4), 0..6_usize).prop_map(move |(mut racers, mix)| {
        let first = racers[0];
        for raw in &mut racers {
            // Most groups are of one user, or all want the same.
            match mix {
                0 | 1 => raw.user = first.user,
                2 => (raw.x, raw.y) = (first.x, first.y),
                3 => (raw.kind, raw.x, raw.y) = (first.kind, first.x, first.y),
                4 => *raw = first,
                _ => {}
            }
        }
        let operation = |(raw, call)| build(&RACING, raw, &known, call);
        Step::Together(racers.into_iter().zip(next..).map(operation).collect())
    });
    prop_oneof![5 => alone, 1 => together].boxed()
}

impl ReferenceStateMachine for History {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self { model: Model::new(&world()), keyed: Vec::new(), next: 1 }).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Step> {
        step(state)
    }

    fn apply(mut state: Self, step: &Step) -> Self {
        for operation in step.operations() {
            state.model.apply(operation);
            if operation.key().is_some() {
                state.keyed.push(operation.clone());
            }
            state.next += 1;
        }
        state
    }
}
