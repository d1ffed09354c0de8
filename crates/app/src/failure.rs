//! What can go wrong in any use case, whatever was asked.

use frontrow_domain::ports::StorageError;
use frontrow_domain::unit_of_work::{CommitError, Source};

/// A failure that is nobody's mistake but ours or the machine's.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Storage cannot be reached or is overloaded. Nothing was written: try again later.
    #[error("storage is unavailable")]
    Unavailable(#[source] Source),
    /// The answer to a commit was lost: its effect is there, or not. A repeat with the same idempotency key finds out.
    #[error("it is unknown whether the request took effect")]
    OutcomeUnknown(#[source] Source),
    /// The code or the data is wrong. Nothing was written.
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Unavailable(source) => Self::Unavailable(source),
            StorageError::Corrupt(_) => Self::Internal(error.to_string()),
        }
    }
}

/// For use cases that have dealt with the outcomes they expect.
impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Unavailable(source) => Self::Unavailable(source),
            CommitError::OutcomeUnknown(source) => Self::OutcomeUnknown(source),
            unexpected => Self::Internal(unexpected.to_string()),
        }
    }
}
