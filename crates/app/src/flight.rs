//! Reads that several requests share.

use std::sync::Arc;

use frontrow_domain::ports::StorageError;
use futures_util::future::{BoxFuture, Shared};

use crate::Failure;

/// A read that is under way, for whoever waits for it. Goes on as long as anybody does; nobody needs to.
pub(crate) type Flight<T> = Shared<BoxFuture<'static, Result<T, Unread>>>;

/// Why a shared read came to nothing.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the read that was shared has failed")]
pub(crate) struct Unread(#[source] Arc<StorageError>);

impl From<StorageError> for Unread {
    fn from(error: StorageError) -> Self {
        Self(Arc::new(error))
    }
}

impl From<Unread> for Failure {
    fn from(unread: Unread) -> Self {
        match &*unread.0 {
            StorageError::Unavailable(_) => Self::Unavailable(Box::new(unread)),
            StorageError::Corrupt(_) => Self::Internal(unread.0.to_string()),
        }
    }
}
