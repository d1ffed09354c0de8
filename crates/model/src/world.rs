//! What there is at the beginning, and what operators may change of it.

use crate::{Refusal, Time};

/// The most that one charge may add.
pub const MAX_CHARGE: i64 = 10_000_000;
/// The longest time in a policy, in seconds.
const MAX_SECONDS: i64 = 2_592_000;
/// The shortest grace of those who stay away, in seconds.
const MIN_GRACE: i64 = 120;
/// The largest count of people in a policy.
const MAX_COUNT: i64 = 10_000_000;
/// The most people a tick may admit.
const MAX_BATCH: i64 = 100_000;

/// Who is admitted, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// A batch at every tick.
    Auto,
    /// Nobody; newcomers wait.
    Hold,
    /// Everyone at once.
    Open,
    /// Nobody; newcomers are refused.
    Closed,
    /// Nobody, not even by hand, and nothing is held; newcomers wait. Whoever is ACTIVE stays so.
    Paused,
}

/// The policy of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the contract's of its name")]
pub struct Policy {
    pub admit_batch: i64,
    pub admit_interval_seconds: i64,
    pub active_ttl_seconds: i64,
    pub max_active: Option<i64>,
    pub max_waiting: Option<i64>,
    pub wait_grace_seconds: Option<i64>,
    pub opens_at: Option<Time>,
    pub mode: Mode,
}

/// The contract's defaults.
impl Default for Policy {
    fn default() -> Self {
        Self {
            admit_batch: 10,
            admit_interval_seconds: 600,
            active_ttl_seconds: 600,
            max_active: None,
            max_waiting: None,
            wait_grace_seconds: None,
            opens_at: None,
            mode: Mode::Auto,
        }
    }
}

/// The fields of a policy that an operator gives; the others stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "each field is the contract's of its name")]
pub struct Patch {
    pub admit_batch: Option<i64>,
    pub admit_interval_seconds: Option<i64>,
    pub active_ttl_seconds: Option<i64>,
    pub max_active: Option<Option<i64>>,
    pub max_waiting: Option<Option<i64>>,
    pub wait_grace_seconds: Option<Option<i64>>,
    pub opens_at: Option<Option<Time>>,
    pub mode: Option<Mode>,
}

impl Policy {
    /// The policy with the given fields replaced; the first that is out of range is named.
    pub(crate) fn patched(self, patch: &Patch) -> Result<Self, Refusal> {
        let limit = |given: Option<Option<i64>>| given.flatten();
        for (field, given, least, most) in [
            ("admitBatch", patch.admit_batch, 1, MAX_BATCH),
            ("admitIntervalSeconds", patch.admit_interval_seconds, 1, MAX_SECONDS),
            ("activeTtlSeconds", patch.active_ttl_seconds, 1, MAX_SECONDS),
            ("maxActive", limit(patch.max_active), 0, MAX_COUNT),
            ("maxWaiting", limit(patch.max_waiting), 0, MAX_COUNT),
            ("waitGraceSeconds", limit(patch.wait_grace_seconds), MIN_GRACE, MAX_SECONDS),
        ] {
            if given.is_some_and(|number| number < least || number > most) {
                return Err(Refusal::InvalidPolicy(field.to_owned()));
            }
        }
        Ok(Self {
            admit_batch: patch.admit_batch.unwrap_or(self.admit_batch),
            admit_interval_seconds: patch.admit_interval_seconds.unwrap_or(self.admit_interval_seconds),
            active_ttl_seconds: patch.active_ttl_seconds.unwrap_or(self.active_ttl_seconds),
            max_active: patch.max_active.unwrap_or(self.max_active),
            max_waiting: patch.max_waiting.unwrap_or(self.max_waiting),
            wait_grace_seconds: patch.wait_grace_seconds.unwrap_or(self.wait_grace_seconds),
            opens_at: patch.opens_at.unwrap_or(self.opens_at),
            mode: patch.mode.unwrap_or(self.mode),
        })
    }
}

/// A performance date and its seats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DateSpec {
    /// Whose date.
    pub concert: usize,
    /// When its sales start; at once when absent.
    pub on_sale_at: Option<Time>,
    /// When the performance starts.
    pub starts_at: Time,
    /// The price of each of its seats.
    pub prices: Vec<i64>,
}

/// What there is at the beginning. Everything is called by where it stands in its list; seats are counted through, date by date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// How long a hold lasts.
    pub hold_seconds: i64,
    /// The most live seats a user may have on one date.
    pub max_seats: usize,
    /// How long a token can be asked for after its end. Nobody may rely on it any longer.
    pub keep_tokens_seconds: i64,
    /// The waiting rooms.
    pub rooms: Vec<Policy>,
    /// The room of each concert.
    pub concerts: Vec<usize>,
    /// The dates.
    pub dates: Vec<DateSpec>,
    /// What each user has in the account. Who has nothing has no account yet.
    pub opening_balances: Vec<i64>,
}
