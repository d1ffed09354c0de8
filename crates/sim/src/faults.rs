//! What goes wrong, how often, and how often it did.

use std::collections::BTreeMap;
use std::fmt;

use crate::world::World;

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A unit of work is told that it came too late. Nothing was written.
    Conflict,
    /// A unit of work is turned away. Nothing was written.
    Unavailable,
    /// A read fails.
    ReadFails,
    /// A unit of work is written, and nobody hears of it.
    AnswerLost,
    /// A unit of work is lost, and nobody can tell.
    UnitLost,
    /// A call takes seconds.
    Slow,
    /// A unit of work takes longer than a hold and an admission last.
    PastDeadline,
    /// A node's clock is up to two seconds wrong.
    ClockSkew,
    /// A node dies, with all that it knows and does.
    Crash,
    /// A node that died comes back.
    Restart,
    /// The future of a request is dropped at some step.
    DroppedRequest,
    /// A request arrives twice at once.
    TwiceAtOnce,
    /// A request arrives again later, though it was answered.
    AgainLater,
    /// Storage is away from one node or from all, for seconds.
    Outage,
}

impl Fault {
    /// Every kind, with its name and its largest probability where it can happen.
    pub const ALL: [(Self, &'static str, f64); 14] = [
        (Self::Conflict, "conflict", 0.1),
        (Self::Unavailable, "unavailable", 0.1),
        (Self::ReadFails, "read fails", 0.05),
        (Self::AnswerLost, "answer lost after the commit", 0.15),
        (Self::UnitLost, "unit lost before the commit", 0.1),
        (Self::Slow, "slow", 0.03),
        (Self::PastDeadline, "past the deadline", 0.02),
        (Self::ClockSkew, "clock skew", 1.0),
        (Self::Crash, "crash", 0.8),
        (Self::Restart, "restart", 1.0),
        (Self::DroppedRequest, "dropped request", 0.2),
        (Self::TwiceAtOnce, "twice at once", 0.4),
        (Self::AgainLater, "again later", 0.4),
        (Self::Outage, "outage", 0.6),
    ];
}

/// How often a fault happens where it can. Not every run knows every fault, and in some there are many.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan(BTreeMap<Fault, f64>);

impl Plan {
    /// Nothing goes wrong.
    pub(crate) fn calm() -> Self {
        Self::default()
    }

    /// What goes wrong, and how often. `rare` for what only time brings about: each fault may start a clock anew.
    pub(crate) fn drawn(world: &World, rare: bool) -> Self {
        let shares: &[f64] = if rare { &[0.002, 0.01] } else { &[0.1, 0.4, 1.0] };
        let mut plan = BTreeMap::new();
        for (fault, _, most) in Fault::ALL {
            if fault == Fault::Restart || world.chance(0.7) {
                let share = world.pick(shares).copied().unwrap_or(1.0);
                plan.insert(fault, if fault == Fault::Restart { 1.0 } else { most * share });
            }
        }
        Self(plan)
    }

    pub(crate) fn probability(&self, fault: Fault) -> f64 {
        self.0.get(&fault).copied().unwrap_or(0.0)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (fault, name, _) in Fault::ALL {
            if let Some(probability) = self.0.get(&fault) {
                write!(f, "{name} {probability:.3}, ")?;
            }
        }
        f.write_str("else nothing")
    }
}

/// How often each fault has happened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts(BTreeMap<Fault, u64>);

impl Counts {
    pub(crate) fn add(&mut self, fault: Fault) {
        let count = self.0.entry(fault).or_default();
        *count = count.saturating_add(1);
    }

    /// How often this one has happened.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.0.get(&fault).copied().unwrap_or(0)
    }

    /// Adds those of another run.
    pub fn merge(&mut self, other: &Self) {
        for (fault, count) in &other.0 {
            let sum = self.0.entry(*fault).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, (fault, name, _)) in Fault::ALL.into_iter().enumerate() {
            let comma = if nth == 0 { "" } else { ", " };
            write!(f, "{comma}{name} {}", self.of(fault))?;
        }
        Ok(())
    }
}
