//! Why an attempt to write a unit of work failed, and what is to be done about it.

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind as Kind, Error as DieselError};
use frontrow_domain::unit_of_work::{AggregateRef, CommitError, Source};

use crate::postgres::transaction::CommitFailure;

/// What PostgreSQL calls a deadlock (SQLSTATE 40P01, which diesel drops).
const DEADLOCK: &str = "deadlock detected";

/// Why an attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The caller's answer.
    Final(CommitError),
    /// The same work may well succeed at the next attempt. Nothing was written.
    Again(Source),
}

impl Failure {
    /// An aggregate is not as the unit expects it.
    pub(super) const fn conflict(aggregate: AggregateRef) -> Self {
        Self::Final(CommitError::Conflict(aggregate))
    }

    pub(super) fn unavailable(cause: impl Into<Source>) -> Self {
        Self::Final(CommitError::Unavailable(cause.into()))
    }

    /// The connection was dead before anything was asked of it.
    pub(super) fn not_begun(cause: DieselError) -> Self {
        Self::Again(Box::new(cause))
    }

    /// Whether the server still answers on the connection, so that a rollback is worth its round trip. On a server
    /// that has become read-only the connection is of no use, sound or not.
    pub(super) const fn leaves_connection_sound(&self) -> bool {
        !matches!(self, Self::Final(CommitError::Unavailable(_) | CommitError::OutcomeUnknown(_)))
    }
}

impl From<Failure> for CommitError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Final(error) => error,
            Failure::Again(cause) => Self::Unavailable(cause),
        }
    }
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
            _ => Self::unavailable(error),
        }
    }
}

fn constraint(info: &(dyn DatabaseErrorInformation + Send + Sync)) -> String {
    info.constraint_name().unwrap_or_else(|| info.message()).to_owned()
}

impl From<CommitFailure> for Failure {
    fn from(failure: CommitFailure) -> Self {
        match failure {
            CommitFailure::NotSent(cause) => Self::unavailable(cause),
            CommitFailure::Unanswered(cause) => Self::Final(CommitError::OutcomeUnknown(Box::new(cause))),
        }
    }
}
