//! Who polled near the head of a line, until it is written down.

use std::collections::HashMap;

use frontrow_domain::{QueueTokenId, Timestamp};

/// How many tokens are kept at most.
const CAPACITY: usize = 100_000;
/// A token that was noted is not noted again for so long, in seconds: a small part of the shortest grace.
const NOTED_FOR_SECONDS: u64 = 30;

/// A bounded number of polls.
#[derive(Debug, Default)]
pub(crate) struct Polls {
    noted: HashMap<QueueTokenId, Timestamp>,
    pending: Vec<QueueTokenId>,
    missed: bool,
}

impl Polls {
    /// The holder of this token polled.
    pub(super) fn note(&mut self, id: QueueTokenId, now: Timestamp) {
        if self.noted.get(&id).is_some_and(|at| is_recent(*at, now)) {
            return;
        }
        if self.pending.len() >= CAPACITY || self.noted.len() >= CAPACITY.saturating_mul(2) {
            self.missed = true;
            return;
        }
        self.noted.insert(id, now);
        self.pending.push(id);
    }

    /// Hands out what is to be written.
    pub(crate) fn take(&mut self, now: Timestamp) -> Vec<QueueTokenId> {
        self.noted.retain(|_, at| is_recent(*at, now));
        std::mem::take(&mut self.pending)
    }

    /// These could not be written.
    pub(crate) fn put_back(&mut self, ids: &[QueueTokenId]) {
        let room = CAPACITY.saturating_sub(self.pending.len());
        self.missed |= ids.len() > room;
        self.pending.extend(ids.iter().take(room));
    }

    /// Drops everything, which counts as polls that went unnoted.
    pub(super) fn clear(&mut self) {
        *self = Self { missed: true, ..Self::default() };
    }

    /// Whether polls went unnoted since this was last asked.
    pub(crate) fn take_missed(&mut self) -> bool {
        std::mem::take(&mut self.missed)
    }
}

fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    at <= now && now.since(at).as_secs() < NOTED_FOR_SECONDS
}
