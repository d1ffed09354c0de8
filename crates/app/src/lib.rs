//! The use cases of frontrow. Each loads what its decision needs, decides in the domain, and commits one unit of work.
//!
//! Architecture invariant: nothing here knows HTTP, SQL or a runtime. Services are named as in the seed's diagrams.

mod abandonment;
mod accounts;
mod admin;
mod admission;
mod announcing;
mod concerts;
mod expiry;
mod failure;
mod flight;
mod gate;
mod heartbeats;
mod idempotency;
mod incarnation;
mod kept;
mod known_concerts;
mod lines;
mod nodes;
mod offers;
mod outage;
mod payment;
mod pruning;
mod queue;
mod readiness;
mod reservations;
mod seat_maps;
mod sessions;
#[cfg(test)]
mod testing;

pub use abandonment::Abandonment;
pub use accounts::{AccountService, ChargeError, ChargePermit, ChargeReceipt};
pub use admin::{AdminError, AdminService, NewDate};
pub use admission::{Admission, Admitted};
pub use announcing::AnnouncingCommitter;
pub use concerts::{ConcertError, ConcertService};
pub use expiry::{Expired, Expiry};
pub use failure::Failure;
pub use gate::{Gate, GateError, GatePass, WrongRoom};
pub use heartbeats::{Heartbeat, Heartbeats, PassAge};
pub use idempotency::{Idempotency, Keyed, ReplayError, Reply};
pub use incarnation::KnownIncarnation;
pub use known_concerts::KnownConcerts;
pub use lines::{Lines, WatchedCommitter};
pub use nodes::{NodeComparison, NodeDifference, NodeDifferences};
pub use offers::Offers;
pub use payment::{PayError, PayReceipt, PaymentService};
pub use pruning::{Pruned, Pruning};
pub use queue::{EnterError, Entered, LookUpError, QueuePlace, QueueService};
pub use readiness::{NodeHealth, Readiness, StorageFault};
pub use reservations::{
    CancelError, Held, HoldRules, ReadReservationError, ReservationService, ReserveError, ReserveRequest,
};
pub use seat_maps::{SeatMap, SeatMaps, SeatsChanged, SeatsShown};
pub use sessions::{Caller, RenewError, Session, SessionService, Unauthenticated};

/// Every use case, for a transport to call.
#[derive(Clone)]
#[allow(missing_docs, reason = "each field is the use case of its type")]
pub struct UseCases {
    pub sessions: SessionService,
    pub gate: Gate,
    pub idempotency: Idempotency,
    pub queue: QueueService,
    pub concerts: ConcertService,
    pub reservations: ReservationService,
    pub accounts: AccountService,
    pub payment: PaymentService,
    pub admin: AdminService,
    pub readiness: Readiness,
}

/// How often a use case that is safe to repeat is decided anew after a conflict, before it gives up.
pub(crate) const MAX_ATTEMPTS: u32 = 10;
