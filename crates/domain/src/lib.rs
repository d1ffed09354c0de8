//! The rules of frontrow: pure and synchronous, without a clock, randomness, input or output.
//!
//! Each aggregate is a consuming state machine with typed errors. A use case loads aggregates through
//! [`ports`], decides by calling their transitions, and hands one [`unit_of_work::UnitOfWork`] to the
//! committer, which writes all of it or nothing (ADR 0001).

pub mod account;
pub mod audit_log;
pub mod concert;
pub mod idempotency;
pub mod ids;
pub mod incarnation;
pub mod label;
pub mod money;
pub mod ports;
pub mod queue;
pub mod reservation;
pub mod seat;
pub mod timestamp;
pub mod unit_of_work;
pub mod version;

pub use ids::{
    AuditEntryId, ConcertId, EntryId, IncarnationId, NodeId, PaymentId, PerformanceDateId, QueueTokenId,
    ReservationId, RoomId, SeatId, TicketId, UserId,
};
pub use incarnation::Incarnation;
pub use label::Label;
pub use money::Money;
pub use timestamp::Timestamp;
pub use unit_of_work::UnitOfWork;
pub use version::{Change, Version, Versioned};
