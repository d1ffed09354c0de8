//! Why an attempt to write a batch failed, and what is to be done about it.

use std::time::Duration;

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind as Kind, Error as DieselError};
use frontrow_domain::unit_of_work::{AggregateRef, CommitError, Source};

use crate::postgres::shared::Shared;

/// What PostgreSQL calls a deadlock (SQLSTATE 40P01, which diesel drops).
const DEADLOCK: &str = "deadlock detected";

/// How PostgreSQL begins to say that it has ended a statement, be it for a lock, a timeout or an administrator.
const CANCELED: &str = "canceling statement due to ";

/// What PostgreSQL calls a wait for a lock that was too long (SQLSTATE 55P03).
const LOCK_TIMEOUT: &str = "canceling statement due to lock timeout";

/// Why an attempt failed. Nothing was written.
#[derive(Debug)]
pub(super) enum Failure {
    /// The answer to a unit that was tried alone. Of a batch, one of its units is to blame.
    Final(CommitError),
    /// The same work may well succeed at the next attempt.
    Again(Source),
    /// A statement failed, and the server is still there. Of a batch, perhaps one unit is to blame.
    Failed(Source),
    /// A statement failed after it had waited for as long as it may wait for a lock: another session holds a row of some
    /// of the units. SQLSTATE 55P03 would tell, which diesel drops, and the message may be in the language of the server:
    /// an attempt that took so long, and less than a statement may take, failed for this unless the message says otherwise.
    Locked(Source),
    /// The connection ended before COMMIT was sent. No unit is to blame, and another connection may do.
    Lost(Source),
    /// The database is of no use to anybody now.
    Unavailable(Source),
}

impl Failure {
    /// An aggregate is not as the unit expects it.
    pub(super) const fn conflict(aggregate: AggregateRef) -> Self {
        Self::Final(CommitError::Conflict(aggregate))
    }

    pub(super) fn unavailable(cause: impl Into<Source>) -> Self {
        Self::Unavailable(cause.into())
    }

    /// The connection was dead before anything was asked of it, or before COMMIT.
    pub(super) fn lost(cause: DieselError) -> Self {
        Self::Lost(Box::new(cause))
    }

    /// The same failure, on a connection that turned out to be dead: the failure of a statement is that of the connection
    /// then. A server that ends a session says so in answer to whatever statement runs (SQLSTATE 57P01 to 57P03).
    pub(super) fn on_dead_connection(self) -> Self {
        match self {
            Self::Failed(cause) | Self::Locked(cause) => Self::Lost(cause),
            failure => failure,
        }
    }

    /// Whether the server still answers on the connection, so that a rollback is worth its round trip. On a server
    /// that has become read-only the connection is of no use, sound or not.
    pub(super) const fn leaves_connection_sound(&self) -> bool {
        !matches!(self, Self::Unavailable(_) | Self::Lost(_))
    }

    /// The same failure, of an attempt that took so long under these bounds.
    pub(super) fn after(self, took: Duration, bounds: StatementBounds) -> Self {
        let StatementBounds { lock_wait, statement } = bounds;
        match self {
            Self::Failed(cause) if took >= lock_wait && took < statement && may_be_locked(&cause) => {
                Self::Locked(cause)
            }
            other => other,
        }
    }

    /// The answers to so many units, all of which share this failure.
    pub(super) fn answers(self, units: usize) -> Vec<CommitError> {
        match self {
            Self::Final(error) if units == 1 => vec![error],
            Self::Final(error) => unavailable(Box::new(error), units),
            Self::Again(cause)
            | Self::Failed(cause)
            | Self::Locked(cause)
            | Self::Lost(cause)
            | Self::Unavailable(cause) => unavailable(cause, units),
        }
    }
}

/// Bounds of the statements of an attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct StatementBounds {
    /// The longest that one waits for a lock.
    pub(super) lock_wait: Duration,
    /// The longest that one runs.
    pub(super) statement: Duration,
}

/// Whether the message names no other reason for which a statement was ended.
fn may_be_locked(cause: &Source) -> bool {
    let said = cause.to_string();
    !said.starts_with(CANCELED) || said.starts_with(LOCK_TIMEOUT)
}

fn unavailable(cause: Source, units: usize) -> Vec<CommitError> {
    let shared = Shared::of(cause);
    (0..units).map(|_| CommitError::Unavailable(Box::new(shared.clone()))).collect()
}

/// A statement that failed before COMMIT was sent.
impl From<DieselError> for Failure {
    fn from(error: DieselError) -> Self {
        match &error {
            DieselError::DatabaseError(Kind::SerializationFailure, _) => Self::Again(Box::new(error)),
            DieselError::DatabaseError(Kind::Unknown, info) if info.message() == DEADLOCK => {
                Self::Again(Box::new(error))
            }
            DieselError::DatabaseError(
                Kind::UniqueViolation
                | Kind::ForeignKeyViolation
                | Kind::CheckViolation
                | Kind::NotNullViolation
                | Kind::RestrictViolation
                | Kind::ExclusionViolation,
                info,
            ) => Self::Final(CommitError::Backstop { constraint: constraint(info.as_ref()) }),
            DieselError::DatabaseError(Kind::Unknown, _) => Self::Failed(Box::new(error)),
            DieselError::DatabaseError(Kind::UnableToSendCommand, _) => Self::lost(error),
            _ => Self::unavailable(error),
        }
    }
}

fn constraint(info: &(dyn DatabaseErrorInformation + Send + Sync)) -> String {
    info.constraint_name().unwrap_or_else(|| info.message()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: StatementBounds =
        StatementBounds { lock_wait: Duration::from_millis(100), statement: Duration::from_secs(8) };

    fn failed(said: &str) -> Failure {
        DieselError::DatabaseError(Kind::Unknown, Box::new(said.to_owned())).into()
    }

    fn is_locked(said: &str, took: Duration) -> bool {
        matches!(failed(said).after(took, BOUNDS), Failure::Locked(_))
    }

    #[test]
    fn only_a_failure_that_may_be_a_lock_timeout_counts_as_one() {
        let (soon, wait) = (BOUNDS.lock_wait / 2, BOUNDS.lock_wait * 2);
        assert!(is_locked(LOCK_TIMEOUT, wait));
        assert!(is_locked("Anweisung wird storniert", wait), "in the language of the server");
        assert!(!is_locked(LOCK_TIMEOUT, soon));
        assert!(!is_locked("canceling statement due to statement timeout", wait));
        assert!(!is_locked("canceling statement due to user request", wait));
        assert!(!is_locked("Anweisung wird storniert", BOUNDS.statement), "as long as a statement may run");
    }

    #[test]
    fn wait_for_a_lock_on_a_dead_connection_is_a_lost_connection() {
        let locked = failed(LOCK_TIMEOUT).after(BOUNDS.lock_wait, BOUNDS);
        assert!(matches!(locked.on_dead_connection(), Failure::Lost(_)));
        let refused = Failure::conflict(AggregateRef::Room(frontrow_domain::RoomId::new(uuid::Uuid::nil())));
        assert!(matches!(refused.on_dead_connection(), Failure::Final(_)), "control");
    }
}
