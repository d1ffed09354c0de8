//! Reads that several requests share.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use frontrow_domain::ports::StorageError;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::Failure;

/// The future behind a shared read.
pub(crate) type Reading<T> = BoxFuture<'static, Result<T, Unread>>;

/// A shared in-flight read. Goes on as long as it has a waiter, and needs none.
pub(crate) type Flight<T> = Shared<Reading<T>>;

/// Shares a read. A panic in it fails that read: a shared future that panicked would pass the panic on to every later
/// request that looks at it, for ever.
pub(crate) fn share<T: Clone + 'static>(
    read: impl Future<Output = Result<T, Unread>> + Send + 'static,
) -> Flight<T> {
    caught(read).boxed().shared()
}

/// A read whose panic is a failure.
pub(crate) async fn caught<T, E: From<StorageError>>(
    read: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let read = AssertUnwindSafe(read).catch_unwind().await;
    read.unwrap_or_else(|_| Err(StorageError::Unavailable("the read panicked".into()).into()))
}

/// Why a shared read has no answer.
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
