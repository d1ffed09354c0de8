//! Tokens that were read or written a moment ago.

use frontrow_domain::queue::QueueToken;
use frontrow_domain::{QueueTokenId, RoomId, Timestamp, Versioned};
use quick_cache::sync::{Cache, EntryAction, EntryResult};

/// How many tokens are known at most: some 200 bytes each.
const CAPACITY: usize = 65_536;

/// A token and when it was so.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownToken {
    pub(super) token: Versioned<QueueToken>,
    at: Timestamp,
}

impl KnownToken {
    /// How old this knowledge is, in whole seconds; old for ever when the clock was turned back.
    pub(super) fn age_seconds(&self, now: Timestamp) -> u64 {
        if now < self.at { u64::MAX } else { now.since(self.at).as_secs() }
    }
}

/// A bounded number of tokens. What is known of a token never goes back to an older version.
pub(super) struct KnownTokens(Cache<QueueTokenId, KnownToken>);

impl KnownTokens {
    pub(super) fn new() -> Self {
        Self(Cache::new(CAPACITY))
    }

    pub(super) fn get(&self, id: QueueTokenId) -> Option<KnownToken> {
        self.0.get(&id)
    }

    /// Takes in what was read or written `at`, and gives back what is known now: a read that was overtaken by a later
    /// version changes nothing.
    pub(super) fn put(&self, token: Versioned<QueueToken>, at: Timestamp) -> Versioned<QueueToken> {
        let new = KnownToken { token, at };
        let kept = self.0.entry(&token.value.id, None, |_, known| {
            if token.version >= known.token.version {
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
        self.0.remove(&id);
    }

    /// Removes every token of a room.
    pub(super) fn remove_room(&self, room_id: RoomId) {
        self.0.retain(|_, known| known.token.value.room_id != room_id);
    }
}
