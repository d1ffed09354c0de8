//! What goes wrong, and what a caller hears of it.

use std::sync::Arc;

use diesel::result::{DatabaseErrorKind, Error as DieselError};
use frontrow_domain::ports::StorageError;
use frontrow_domain::unit_of_work::CommitError;

use super::served_file::FileReplaced;

/// Why a read failed.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The database could not answer.
    Database(DieselError),
    /// A row makes no sense.
    Row(StorageError),
}

impl From<DieselError> for ReadError {
    fn from(error: DieselError) -> Self {
        match error {
            DieselError::DeserializationError(source) => Self::Row(StorageError::Corrupt(source.to_string())),
            other => Self::Database(other),
        }
    }
}

impl From<StorageError> for ReadError {
    fn from(error: StorageError) -> Self {
        Self::Row(error)
    }
}

impl From<ReadError> for StorageError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Database(source) => Self::Unavailable(Box::new(source)),
            ReadError::Row(error) => error,
        }
    }
}

/// Why a unit of work could not be applied.
#[derive(Debug)]
pub(super) enum ApplyError {
    /// For this reason, unless there is one that is reported before it.
    Rejected(CommitError),
    /// The database failed.
    Database(DieselError),
}

impl From<CommitError> for ApplyError {
    fn from(error: CommitError) -> Self {
        Self::Rejected(error)
    }
}

impl From<DieselError> for ApplyError {
    fn from(error: DieselError) -> Self {
        use DatabaseErrorKind::{
            CheckViolation, ForeignKeyViolation, NotNullViolation, RestrictViolation, UniqueViolation,
        };
        match &error {
            DieselError::DatabaseError(
                CheckViolation | ForeignKeyViolation | NotNullViolation | RestrictViolation | UniqueViolation,
                said,
            ) => Self::Rejected(CommitError::Backstop { constraint: constraint_in(said.message()) }),
            _ => Self::Database(error),
        }
    }
}

impl From<ReadError> for ApplyError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Database(source) => source.into(),
            ReadError::Row(source) => Self::Rejected(CommitError::Unavailable(Box::new(source))),
        }
    }
}

/// What SQLite said. diesel drops its result code, but keeps its text, which is part of SQLite's interface.
pub(super) fn said_by(error: &DieselError) -> Option<&str> {
    match error {
        DieselError::DatabaseError(_, said) => Some(said.message()),
        _ => None,
    }
}

/// SQLite names a CHECK that has a name; of the others it says which columns.
fn constraint_in(message: &str) -> String {
    message.strip_prefix("CHECK constraint failed: ").unwrap_or(message).to_owned()
}

/// The batch that a unit was in failed as a whole.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the batch was not written")]
pub(super) struct BatchFailed(#[source] pub(super) Arc<BatchCause>);

/// Why a batch failed as a whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchCause {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DieselError),
    /// The file is no longer the one that is served.
    #[error(transparent)]
    FileReplaced(#[from] FileReplaced),
}

/// A worker ended without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the database thread ended before it answered")]
pub(super) struct WorkerGone;
