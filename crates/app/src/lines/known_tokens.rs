//! Tokens that were read or written a moment ago, and tokens that are known to be stored.

use frontrow_domain::queue::QueueToken;
use frontrow_domain::{QueueTokenId, RoomId, Timestamp, Versioned};
use quick_cache::sync::{Cache, EntryAction, EntryResult};

use crate::incarnation::Generation;

/// How many tokens are known at most: some 200 bytes each.
const CAPACITY: usize = 65_536;
/// How many tokens are known to be stored at most: some 50 bytes each. Only those are among them that entered before the
/// incarnation of the data began.
const STORED_CAPACITY: usize = 262_144;

/// A token and when it was so.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownToken {
    pub(super) token: Versioned<QueueToken>,
    at: Timestamp,
    generation: Generation,
}

impl KnownToken {
    /// How old this knowledge is, in whole seconds; old for ever when the clock was turned back.
    pub(super) fn age_seconds(&self, now: Timestamp) -> u64 {
        if now < self.at { u64::MAX } else { now.since(self.at).as_secs() }
    }
}

/// A bounded number of tokens. Within a generation what is known of a token never goes back to an older version.
pub(super) struct KnownTokens {
    known: Cache<QueueTokenId, KnownToken>,
    stored: Cache<QueueTokenId, Generation>,
}

impl KnownTokens {
    pub(super) fn new() -> Self {
        Self { known: Cache::new(CAPACITY), stored: Cache::new(STORED_CAPACITY) }
    }

    pub(super) fn get(&self, id: QueueTokenId, generation: Generation) -> Option<KnownToken> {
        self.known.get(&id).filter(|known| known.generation == generation)
    }

    /// Takes in what was read or written `at`, and gives back what is known now: a read that was overtaken by a later
    /// version, or by another generation, changes nothing.
    pub(super) fn put(
        &self,
        token: Versioned<QueueToken>,
        at: Timestamp,
        generation: Generation,
    ) -> Versioned<QueueToken> {
        let new = KnownToken { token, at, generation };
        let kept = self.known.entry(&token.value.id, None, |_, known| {
            if (generation, token.version) >= (known.generation, known.token.version) {
                *known = new;
            }
            EntryAction::Retain(known.token)
        });
        match kept {
            EntryResult::Retained(kept) => kept,
            EntryResult::Vacant(guard) => {
                // Refused only when somebody else put something there meanwhile.
                let _ = guard.insert(new);
                token
            }
            EntryResult::Removed(..) | EntryResult::Replaced(..) | EntryResult::Timeout => token,
        }
    }

    pub(super) fn remove(&self, id: QueueTokenId) {
        self.known.remove(&id);
    }

    /// Notes that a token is stored.
    pub(super) fn note_stored(&self, id: QueueTokenId, generation: Generation) {
        self.stored.insert(id, generation);
    }

    /// Whether a token is known to be stored.
    pub(super) fn is_known_stored(&self, id: QueueTokenId, generation: Generation) -> bool {
        self.stored.get(&id) == Some(generation)
    }

    /// Removes every token of a room.
    pub(super) fn remove_room(&self, room_id: RoomId) {
        self.known.retain(|_, known| known.token.value.room_id != room_id);
    }
}
