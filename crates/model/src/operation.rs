//! What anybody may do.

use crate::{Patch, Time};

/// What an operation calls the thing it makes.
pub type Name = u32;
/// An idempotency key.
pub type Key = u8;
/// The name of a token that nobody made.
pub const FORGED: Name = Name::MAX;

/// One request, one look at the clock, or one pass of the scheduler. Indices beyond their lists stand for what does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is what it is called")]
pub enum Operation {
    /// Time passes.
    Wait {
        micros: Time,
    },
    /// Time passes until the nth thing that will happen by itself, and `offset` more or less.
    WaitFor {
        deadline: usize,
        offset: Time,
    },
    /// A guest becomes a user.
    OpenSession {
        call: Name,
    },
    /// Somebody calls with the access token of that session.
    UseSession {
        session: Name,
    },
    /// Makes a new access token for the guest of that session.
    RenewSession {
        call: Name,
        session: Name,
    },
    /// Takes a place in the line of a concert; without a concert in the global room, which is the first.
    Enter {
        call: Name,
        user: usize,
        concert: Option<usize>,
    },
    LookUp {
        user: usize,
        token: Option<Name>,
    },
    Leave {
        user: usize,
        token: Option<Name>,
    },
    ListDates {
        user: usize,
        token: Option<Name>,
        concert: usize,
        all: bool,
    },
    LookAtSeats {
        user: usize,
        token: Option<Name>,
        concert: usize,
        date: usize,
    },
    Reserve {
        call: Name,
        user: usize,
        token: Option<Name>,
        date: usize,
        seats: Vec<usize>,
        key: Option<Key>,
    },
    FindReservation {
        user: usize,
        reservation: Name,
    },
    ListReservations {
        user: usize,
    },
    Cancel {
        user: usize,
        reservation: Name,
    },
    Charge {
        call: Name,
        user: usize,
        amount: i64,
        key: Option<Key>,
    },
    Balance {
        user: usize,
    },
    Entries {
        user: usize,
        before: Option<i64>,
        limit: u32,
    },
    Pay {
        call: Name,
        user: usize,
        reservation: Name,
        key: Option<Key>,
    },
    ChangeRoom {
        room: usize,
        patch: Patch,
    },
    Admit {
        room: usize,
        count: u32,
    },
    Rooms,
    Sales {
        date: usize,
    },
    /// For this time the node runs and watches over its lines, while one person polls as told, or nobody does.
    Watch {
        seconds: Time,
        polling: Option<(usize, Name)>,
    },
    /// The scheduler admits whoever is due.
    Tick,
    /// The scheduler expires what has lapsed.
    Sweep,
    /// The scheduler deletes what is over long since.
    Prune,
    /// The scheduler brings what the node keeps in memory up to date.
    Refresh,
}

impl Operation {
    /// The idempotency key that it comes with.
    #[must_use]
    pub const fn key(&self) -> Option<Key> {
        match self {
            Self::Reserve { key, .. } | Self::Charge { key, .. } | Self::Pay { key, .. } => *key,
            _ => None,
        }
    }
}

/// A step of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// One operation, done before the next begins.
    Alone(Operation),
    /// A few operations at once.
    Together(Vec<Operation>),
}

impl Step {
    /// The operations of the step.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        match self {
            Self::Alone(operation) => std::slice::from_ref(operation),
            Self::Together(operations) => operations,
        }
    }
}
