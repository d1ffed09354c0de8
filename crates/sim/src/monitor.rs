//! Watches every unit that is written and every answer that is given, and says which promise is broken.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use frontrow_domain::idempotency::IdempotencyKey;
use frontrow_domain::ports::Clock;
use frontrow_domain::queue::QueueTokenState;
use frontrow_domain::reservation::ReservationStatus;
use frontrow_domain::unit_of_work::{Command, CommandOutcome, CommitError, Committed, TokensPruned};
use frontrow_domain::{QueueTokenId, UnitOfWork, UserId};
use frontrow_infra::{Memory, MemoryState as State};

use crate::ports::NodeClock;
use crate::rules::Written;
use crate::world::{Attempt, NodeRun, World};

/// Who polls as told, and was answered so lately, keeps the place: the longest time between two polls, and what a lost
/// answer or two cost.
const POLLED_LATELY: Duration = Duration::from_secs(65);

/// A unit of work on its way.
#[derive(Clone)]
pub(crate) struct Unit {
    pub(crate) run: NodeRun,
    pub(crate) clock: NodeClock,
    /// The request that it is for, if it is for one.
    pub(crate) attempt: Option<Attempt>,
    pub(crate) work: UnitOfWork,
}

impl Unit {
    /// What a reader of the trace calls it.
    pub(crate) const fn told(&self) -> &'static str {
        let work = &self.work;
        match &work.command {
            Some(Command::Join(_)) => "a join",
            Some(Command::Admit(_)) => "an admission",
            Some(Command::PauseTokens(_)) => "a pause of the sale, or its end",
            Some(Command::ExpireTokens { .. }) => "the expiry of tokens",
            Some(Command::ExpireHolds { .. }) => "the expiry of holds",
            Some(Command::NotePolls { .. }) => "a note of polls",
            Some(Command::GiveUpAbandoned(_)) => "a sweep of abandoned places",
            Some(Command::Fill(_)) => "a crowd",
            Some(Command::PruneTokens(_)) => "a prune of tokens",
            Some(Command::PruneAnswers { .. }) => "a prune of answers",
            None if !work.payments.is_empty() => "a payment",
            None if !work.accounts.is_empty() => "a charge",
            None if !work.seats.is_empty() && !work.queue_tokens.is_empty() => "a hold",
            None if !work.reservations.is_empty() => "a cancellation",
            None if !work.queue_tokens.is_empty() => "a leave",
            None if !work.rooms.is_empty() => "a change of a room",
            None => "a unit",
        }
    }

    /// What it comes to for the one who asked: at most one for each request.
    fn is_effect(&self, committed: &Committed) -> bool {
        let work = &self.work;
        !work.accounts.is_empty()
            || !work.reservations.is_empty()
            || !work.queue_tokens.is_empty()
            || matches!(committed.outcome, Some(CommandOutcome::Joined(_)))
    }

    /// Whether anything that is promised of may have changed by it.
    fn changes(&self, committed: &Committed) -> bool {
        match committed.outcome {
            Some(
                CommandOutcome::Admitted(0)
                | CommandOutcome::TokensExpired(0)
                | CommandOutcome::HoldsExpired(0)
                | CommandOutcome::GivenUp(0)
                | CommandOutcome::AnswersPruned(0)
                | CommandOutcome::TokensPruned(TokensPruned { deleted: 0, .. })
                | CommandOutcome::PollsNoted(_)
                | CommandOutcome::AlreadyJoined(_),
            ) => !self.work.rooms.is_empty(),
            _ => true,
        }
    }
}

/// What somebody was told.
#[derive(Debug, Clone)]
pub(crate) enum Verdict<T> {
    /// It is done.
    Done {
        /// With what.
        answer: T,
        /// Whether that is an earlier request's answer.
        replayed: bool,
    },
    /// It is refused for good: nothing was written.
    Refused(String),
    /// Others were faster, or storage is away: nothing was written.
    NotNow,
    /// It is written, or it is not.
    Unknown,
    /// The server says that it is wrong itself.
    Internal(String),
}

/// An answer, as it is judged.
pub(crate) trait Bytes {
    /// What is given again, byte for byte. Nothing, where answers may differ.
    fn bytes(&self) -> &[u8] {
        &[]
    }

    /// Whether it tells of something that this very request has made.
    fn is_new(&self) -> bool {
        true
    }
}

impl Bytes for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// How many units of each kind there were.
pub type Deeds = BTreeMap<&'static str, u64>;

/// How a kind of request is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A hold, a charge, a payment: one effect when it is done, none when it is not.
    Once,
    /// What may be done already: at most one effect, none when it is refused.
    Idempotent,
    /// A join: one effect when it is said to be new, none when it is said to be old or is refused. Whoever was not heard,
    /// or could not be told of the place, gets it by the next one.
    Join,
    /// What goes on after its effect, or has none.
    Loose,
}

/// One for all nodes.
pub(crate) struct Monitor {
    pub(crate) memory: Arc<Memory>,
    world: World,
    max_seats: usize,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    state: State,
    units: u64,
    deeds: Deeds,
    /// Until when storage is away, by node.
    away: BTreeMap<usize, Duration>,
    by_attempt: BTreeMap<Attempt, u32>,
    by_request: BTreeMap<u64, u32>,
    by_key: BTreeMap<(UserId, IdempotencyKey), u32>,
    answers: BTreeMap<u64, Vec<u8>>,
    polled: BTreeMap<QueueTokenId, Duration>,
}

impl Monitor {
    pub(crate) fn new(world: World, memory: Arc<Memory>, max_seats: usize) -> Self {
        Self { memory, world, max_seats, seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many units were written.
    pub(crate) fn units(&self) -> u64 {
        self.seen().units
    }

    /// How many units of each kind changed something.
    pub(crate) fn deeds(&self) -> Deeds {
        self.seen().deeds.clone()
    }

    pub(crate) fn set_away(&self, node: usize, until: Duration) {
        self.seen().away.insert(node, until);
    }

    pub(crate) fn is_away(&self, node: usize, elapsed: Duration) -> bool {
        self.seen().away.get(&node).is_some_and(|until| elapsed < *until)
    }

    /// Looks at what was just written, or not.
    pub(crate) fn observe(&self, unit: &Unit, written: &Result<Committed, CommitError>) {
        let committed = match written {
            Ok(committed) => committed,
            Err(error) => {
                self.world.note(format_args!("{}: {}: {error}", unit.run, unit.told()));
                if let CommitError::Backstop { constraint } = error {
                    self.world.violate(format_args!("the backstop {constraint} had to say no"));
                }
                return;
            }
        };
        let breaches = {
            let mut seen = self.seen();
            seen.units = seen.units.saturating_add(1);
            if !unit.changes(committed) {
                return;
            }
            seen.did(unit.told());
            let before = std::mem::replace(&mut seen.state, self.memory.look(Clone::clone));
            let written = Written {
                before: &before,
                after: &seen.state,
                work: &unit.work,
                committed,
                now: unit.clock.now(),
                is_asked_for: unit.attempt.is_some(),
                max_seats: self.max_seats,
            };
            let mut breaches = written.breaches();
            if matches!(unit.work.command, Some(Command::GiveUpAbandoned(_))) {
                breaches.extend(self.given_up(&seen, &before));
            }
            breaches.extend(seen.count_effect(unit, committed));
            breaches
        };
        self.world.note(format_args!("{}: {}: {}", unit.run, unit.told(), Told(committed)));
        if !breaches.is_empty() {
            self.world.violate(breaches.join("; "));
        }
    }

    /// People whose places were given up although they poll as told.
    fn given_up(&self, seen: &Seen, before: &State) -> Option<String> {
        let now = self.world.elapsed();
        let mut lately = seen.polled.iter().filter(|(_, at)| now.saturating_sub(**at) <= POLLED_LATELY);
        let (gone, at) = lately.find(|(id, _)| {
            let state = |state: &State| state.queue_tokens.get(id).map(|row| row.value.state);
            state(before) == Some(QueueTokenState::Wait)
                && matches!(state(&seen.state), Some(QueueTokenState::Expired { .. }))
        })?;
        Some(format!("the place {gone} was given up, whose holder polled as told, last at {at:?}"))
    }

    /// Somebody who means to stay was told where he stands.
    pub(crate) fn polled(&self, id: QueueTokenId) {
        let now = self.world.elapsed();
        self.seen().polled.insert(id, now);
    }

    /// Somebody does not poll any more.
    pub(crate) fn stays_away(&self, id: QueueTokenId) {
        self.seen().polled.remove(&id);
    }

    /// Holds an answer against what was written.
    pub(crate) fn judge<T: Bytes>(&self, attempt: Attempt, kind: Kind, verdict: &Verdict<T>) {
        let mut seen = self.seen();
        let own = seen.by_attempt.get(&attempt).copied().unwrap_or(0);
        let all = seen.by_request.get(&attempt.request).copied().unwrap_or(0);
        let breach = match (verdict, kind) {
            (Verdict::Internal(text), _) => Some(format!("an internal error: {text}")),
            (_, Kind::Loose) | (Verdict::NotNow, Kind::Join) => None,
            (Verdict::Done { answer, .. }, Kind::Join) => (own != u32::from(answer.is_new()))
                .then(|| format!("a join is said to be new: {}, and has {own} effects", answer.is_new())),
            (Verdict::Refused(_) | Verdict::NotNow, _) => {
                (own > 0).then(|| format!("it was said that nothing was written: {own} was"))
            }
            (Verdict::Done { replayed: false, .. }, Kind::Once) => {
                (own != 1).then(|| format!("an acknowledged request has {own} effects"))
            }
            (Verdict::Done { replayed: true, .. }, Kind::Once) => {
                (all != 1).then(|| format!("a request that was answered before has {all} effects"))
            }
            (Verdict::Done { .. }, Kind::Idempotent) => {
                (own > 1).then(|| format!("an acknowledged request has {own} effects"))
            }
            (Verdict::Unknown, _) => None,
        };
        if matches!((verdict, kind, own), (Verdict::Unknown | Verdict::NotNow, Kind::Join, 1)) {
            seen.did("a join that nobody heard of");
        }
        let another = match (verdict, kind) {
            (Verdict::Done { answer, .. }, Kind::Once) => {
                let known = seen.answers.entry(attempt.request).or_insert_with(|| answer.bytes().to_vec());
                (known.as_slice() != answer.bytes()).then(|| "a request got two answers".to_owned())
            }
            _ => None,
        };
        drop(seen);
        breach.into_iter().chain(another).for_each(|breach| self.world.violate(breach));
    }

    /// What must not be left once everything has come to rest.
    pub(crate) fn unrest(&self) -> Option<String> {
        self.memory.look(|state| {
            let tokens = || state.queue_tokens.values().map(|row| row.value.state);
            let waiting = tokens().filter(|state| *state == QueueTokenState::Wait).count();
            let active = tokens().filter(|state| matches!(state, QueueTokenState::Active { .. })).count();
            let reservations = state.reservations.values();
            let held = reservations.filter(|row| row.value.status == ReservationStatus::Reserved).count();
            let is_at_rest = waiting + active + held == 0;
            (!is_at_rest).then(|| format!("{waiting} wait, {active} are ACTIVE, {held} holds stand"))
        })
    }
}

impl Seen {
    fn did(&mut self, deed: &'static str) {
        let deeds = self.deeds.entry(deed).or_default();
        *deeds = deeds.saturating_add(1);
    }

    /// Counts an effect, and says when there is one too many.
    fn count_effect(&mut self, unit: &Unit, committed: &Committed) -> Option<String> {
        if let (Some(attempt), true) = (unit.attempt, unit.is_effect(committed)) {
            for count in [
                self.by_attempt.entry(attempt).or_default(),
                self.by_request.entry(attempt.request).or_default(),
            ] {
                *count = count.saturating_add(1);
            }
        }
        let record = unit.work.idempotency.as_ref()?;
        let key = (record.request.user_id, record.request.key.clone());
        let effects = self.by_key.entry(key).or_default();
        *effects = effects.saturating_add(1);
        (*effects > 1).then(|| format!("an idempotency key has had {effects} effects"))
    }
}

/// What a unit came to, in a few words.
struct Told<'a>(&'a Committed);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.outcome {
            Some(CommandOutcome::Joined(token)) => {
                write!(f, "ticket {} for {}", token.ticket.0, token.user_id)
            }
            Some(CommandOutcome::Admitted(people)) => write!(f, "{people} admitted"),
            Some(CommandOutcome::TokensExpired(tokens)) => write!(f, "{tokens} tokens"),
            Some(CommandOutcome::HoldsExpired(holds)) => write!(f, "{holds} holds"),
            Some(CommandOutcome::GivenUp(places)) => write!(f, "{places} places"),
            _ => f.write_str("written"),
        }
    }
}
