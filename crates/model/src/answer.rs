//! What is answered.

use crate::{Name, Policy, Time};

/// The answer to an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the contract's of its name")]
pub enum Answer {
    /// Nothing to tell.
    Done,
    Refused(Refusal),
    SessionOpened {
        session: Name,
        until: Time,
    },
    SessionRenewed {
        guest: Name,
        until: Time,
    },
    /// Whose call it is: the guest of that session.
    Caller(Name),
    Entered {
        place: Place,
        is_new: bool,
    },
    Place(Place),
    Left,
    Dates(Vec<DateSeen>),
    /// The status of each seat of the date, in order.
    Seats(Vec<SeatStatus>),
    Held(ReservationSeen),
    Reservation(ReservationSeen),
    /// By name.
    Reservations(Vec<ReservationSeen>),
    Cancelled,
    Charged(EntrySeen),
    Balance(i64),
    Entries(Vec<EntrySeen>),
    Paid(Receipt),
    /// An earlier answer, given again.
    Replayed(Box<Answer>),
    Room(RoomSeen),
    Rooms(Vec<RoomSeen>),
    Admitted(u64),
    Sales(SalesSeen),
}

/// Why not. Named as the contract's codes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the contract's code of its name")]
pub enum Refusal {
    Unauthenticated,
    WaitTokenMissing,
    WaitTokenInvalid,
    WaitTokenNotActive,
    WaitTokenExpired,
    ConcertNotFound,
    PerformanceDateNotFound,
    RoomNotFound,
    SoldOut,
    RoomClosed,
    RoomFull,
    /// With the seats of another date, if that is why.
    InvalidRequest(Vec<usize>),
    InvalidPolicy(String),
    SalePaused,
    NotOnSale,
    SeatNotFound(Vec<usize>),
    SeatLimitExceeded,
    SeatNotAvailable(Vec<usize>),
    ReservationNotFound,
    ReservationExpired,
    ReservationCancelled,
    AlreadyPaid,
    InsufficientBalance {
        required: i64,
        balance: i64,
    },
    InvalidAmount,
    AccountConflict,
    IdempotencyKeyReused,
    /// What is never right: a failure, or a conflict that should have been resolved.
    Failure(String),
}

/// The status of a queue token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the contract's of its name")]
pub enum TokenStatus {
    Wait,
    Active,
    Expired,
}

/// The status of a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the contract's of its name")]
pub enum SeatStatus {
    Available,
    Reserved,
    Unavailable,
}

/// The status of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the contract's of its name")]
pub enum ReservationStatus {
    Reserved,
    Done,
    Expired,
    Cancelled,
}

/// A place in a line, as its holder sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the contract's of its name")]
pub struct Place {
    pub token: Name,
    pub room: usize,
    pub user: usize,
    pub status: TokenStatus,
    pub position: u64,
    pub estimated_wait_seconds: Option<u64>,
    pub entered_at: Time,
    pub activated_at: Option<Time>,
    pub expires_at: Option<Time>,
}

/// A date with its seats counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the contract's of its name")]
pub struct DateSeen {
    pub date: usize,
    pub starts_at: Time,
    pub on_sale_at: Option<Time>,
    pub total_seats: u64,
    pub available_seats: u64,
}

/// A reservation as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the contract's of its name")]
pub struct ReservationSeen {
    pub reservation: Name,
    pub user: usize,
    pub date: usize,
    /// With their prices, in the order asked for or of their numbers.
    pub seats: Vec<(usize, i64)>,
    pub total_amount: i64,
    pub status: ReservationStatus,
    pub hold_expires_at: Time,
    /// The payment with the seats that there are tickets for, once paid.
    pub payment: Option<(Name, Vec<usize>)>,
}

/// What an entry records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Money came in.
    Charge,
    /// This reservation was paid.
    Payment(Name),
}

/// A line of an account's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the contract's of its name")]
pub struct EntrySeen {
    /// The call that made it.
    pub entry: Name,
    pub number: i64,
    pub kind: EntryKind,
    pub amount: i64,
    pub balance_after: i64,
    pub at: Time,
}

/// A payment that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the contract's of its name")]
pub struct Receipt {
    pub payment: Name,
    pub reservation: Name,
    pub amount: i64,
    pub balance: i64,
    pub paid_at: Time,
    /// The seats that there are tickets for, by number.
    pub tickets: Vec<usize>,
}

/// A room as operators see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the contract's of its name")]
pub struct RoomSeen {
    pub room: usize,
    pub policy: Policy,
    pub waiting: u64,
    pub active: u64,
    pub next_tick_at: Time,
}

/// How a date sells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the contract's of its name")]
pub struct SalesSeen {
    pub available: u64,
    pub reserved: u64,
    pub unavailable: u64,
    pub amount_sold: i64,
}

impl Answer {
    /// What kind of answer it is, for counting: a refusal by its code.
    #[must_use]
    pub fn kind(&self) -> String {
        let text = match self {
            Self::Refused(refusal) => format!("{refusal:?}"),
            Self::Replayed(_) => "Replayed".to_owned(),
            other => format!("{other:?}"),
        };
        text.chars().take_while(char::is_ascii_alphanumeric).collect()
    }
}
