//! Ages of the background passes: when each was last completed, against how long that may take.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many paces a pass may take before it counts as late.
const PACES: u32 = 10;
/// No pass is late before this age: a slow answer of storage, or a busy machine, is no reason to leave the load balancer.
const SHORTEST_BOUND: Duration = Duration::from_secs(10);

/// The registry of background passes. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Heartbeats(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    name: &'static str,
    bound: Duration,
    is_advisory: bool,
    completed_at: Instant,
}

/// The age of one pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassAge {
    /// The name of the pass.
    pub name: &'static str,
    /// Time since it was last completed, or since the start.
    pub age: Duration,
    /// The age at which it is late.
    pub bound: Duration,
    /// Whether the node can serve without it.
    pub is_advisory: bool,
}

impl PassAge {
    /// Whether the pass has not been completed for too long.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.age >= self.bound
    }

    /// Whether it keeps the node from serving.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.is_late() && !self.is_advisory
    }
}

/// Reports the completions of one pass.
#[derive(Debug)]
pub struct Heartbeat {
    of: Heartbeats,
    index: usize,
}

impl Heartbeats {
    /// Registers a pass that is due at this pace, and counts its age from now on.
    #[must_use]
    pub fn register(&self, name: &'static str, pace: Duration) -> Heartbeat {
        self.enter(name, pace, false)
    }

    /// Registers a pass that the node can serve without: readiness warns when it is late.
    #[must_use]
    pub fn register_advisory(&self, name: &'static str, pace: Duration) -> Heartbeat {
        self.enter(name, pace, true)
    }

    fn enter(&self, name: &'static str, pace: Duration, is_advisory: bool) -> Heartbeat {
        let bound = pace.saturating_mul(PACES).max(SHORTEST_BOUND);
        let mut entries = self.entries();
        entries.push(Entry { name, bound, is_advisory, completed_at: Instant::now() });
        Heartbeat { of: self.clone(), index: entries.len() - 1 }
    }

    /// The age of every pass, in the order of their registration.
    #[must_use]
    pub fn ages(&self) -> Vec<PassAge> {
        self.ages_at(Instant::now())
    }

    fn ages_at(&self, now: Instant) -> Vec<PassAge> {
        let age = |entry: &Entry| PassAge {
            name: entry.name,
            age: now.saturating_duration_since(entry.completed_at),
            bound: entry.bound,
            is_advisory: entry.is_advisory,
        };
        self.entries().iter().map(age).collect()
    }

    /// Nothing that is done under this lock can panic half way.
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heartbeat {
    /// The pass is completed.
    pub fn beat(&self) {
        if let Some(entry) = self.of.entries().get_mut(self.index) {
            entry.completed_at = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_late_after_ten_paces_and_ten_seconds_at_least() {
        let heartbeats = Heartbeats::default();
        let _quick = heartbeats.register("quick", Duration::from_millis(100));
        let _slow = heartbeats.register("slow", Duration::from_secs(10));
        let late = |seconds: u64| -> Vec<bool> {
            let now = Instant::now() + Duration::from_secs(seconds);
            heartbeats.ages_at(now).iter().map(PassAge::is_late).collect()
        };
        assert_eq!([late(8), late(11), late(101)], [[false, false], [true, false], [true, true]]);
    }

    #[test]
    fn a_late_advisory_pass_does_not_block() {
        let heartbeats = Heartbeats::default();
        let _needed = heartbeats.register("needed", Duration::ZERO);
        let _advisory = heartbeats.register_advisory("advisory", Duration::ZERO);
        let blocks = |seconds: u64| -> Vec<(bool, bool)> {
            let now = Instant::now() + Duration::from_secs(seconds);
            heartbeats.ages_at(now).iter().map(|pass| (pass.is_late(), pass.blocks())).collect()
        };
        assert_eq!(blocks(8), [(false, false), (false, false)]);
        assert_eq!(blocks(11), [(true, true), (true, false)]);
    }

    #[test]
    fn a_beat_renews_its_own_pass_alone() {
        let heartbeats = Heartbeats::default();
        let (first, _second) =
            (heartbeats.register("a", Duration::ZERO), heartbeats.register("b", Duration::ZERO));
        std::thread::sleep(Duration::from_millis(20));
        first.beat();
        let ages = heartbeats.ages();
        assert!(ages[0].age < ages[1].age, "{ages:?}");
    }
}
