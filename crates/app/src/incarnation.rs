//! The incarnation of the stored data that the caches of a node belong to (ADR 0018).
//!
//! Every refresh of the lines reads it. When another one has begun, the caches of this node may hold what never happened: each
//! cache compares the generation that an entry was read in with the present one, and drops what is of an earlier one. A read
//! that began in an earlier generation fills no cache of a later one.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use frontrow_domain::Incarnation;

/// The incarnation as this node knows it. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct KnownIncarnation(Arc<RwLock<State>>);

#[derive(Debug, Default)]
struct State {
    incarnation: Option<Incarnation>,
    generation: Generation,
    /// Something was seen that only data that went back can show, in this generation.
    evidence: Option<Generation>,
}

/// How many incarnations this node has seen end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Generation(u64);

impl KnownIncarnation {
    /// The incarnation; `None` before the first refresh.
    pub(crate) fn current(&self) -> Option<Incarnation> {
        self.read().incarnation
    }

    /// The generation of what is read from now on.
    pub(crate) fn generation(&self) -> Generation {
        self.read().generation
    }

    /// Takes in the incarnation that was read last. True when another one was known before.
    pub(crate) fn adopt(&self, incarnation: Incarnation) -> bool {
        let mut state = self.write();
        if state.incarnation == Some(incarnation) {
            return false;
        }
        let has_ended = state.incarnation.replace(incarnation).is_some();
        if has_ended {
            state.generation = Generation(state.generation.0.saturating_add(1));
        }
        has_ended
    }

    /// Reports what only data that went back can show, by a read that began in this generation: a version or a number that
    /// is lower than one that was read before it. The next refresh begins a new incarnation.
    pub(crate) fn report_gone_back(&self, generation: Generation) {
        self.write().evidence = Some(generation);
    }

    /// Whether there is such a report of the present generation.
    pub(crate) fn is_reported_gone_back(&self) -> bool {
        let state = self.read();
        state.evidence == Some(state.generation)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::incarnation_of as incarnation;

    #[test]
    fn another_incarnation_is_another_generation() {
        let known = KnownIncarnation::default();
        let first = known.generation();
        assert!(!known.adopt(incarnation(1)), "none has ended");
        assert!(!known.adopt(incarnation(1)));
        assert_eq!(known.generation(), first);
        assert!(known.adopt(incarnation(2)));
        assert!(known.generation() > first);
    }

    #[test]
    fn a_report_counts_in_its_generation() {
        let known = KnownIncarnation::default();
        known.adopt(incarnation(1));
        assert!(!known.is_reported_gone_back());
        known.report_gone_back(known.generation());
        assert!(known.is_reported_gone_back());
        known.adopt(incarnation(2));
        assert!(!known.is_reported_gone_back());
    }
}
