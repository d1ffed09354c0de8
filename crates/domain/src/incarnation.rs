//! The incarnation of stored data: which of its lives storage is in (ADR 0018).

use crate::{IncarnationId, Timestamp};

/// One life of the stored data, from one event that may have taken it back to the next: a restored backup, or a promoted
/// standby without the last commits. Whatever a process remembers of an earlier incarnation may never have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incarnation {
    /// The name of this life: random, so that two restores of one backup differ.
    pub id: IncarnationId,
    /// When it began. What was written before may be missing.
    pub started_at: Timestamp,
}
