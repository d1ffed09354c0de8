//! Readiness of storage.

use std::borrow::Cow;

use async_trait::async_trait;

use crate::ports::StorageError;

/// Whether storage that answers can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writability {
    /// Everything is in place for a write, as far as storage can tell without one.
    Writable,
    /// A write would fail, for this reason. Anyone may read it: it has no path, address or secret.
    NotWritable(Cow<'static, str>),
}

impl Writability {
    /// A write would fail for this reason.
    pub fn refused(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::NotWritable(reason.into())
    }
}

/// Checks storage for readiness.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait StorageHealth: Send + Sync {
    /// Whether storage can be written now, in at most one round trip.
    ///
    /// # Errors
    /// [`StorageError`] when it does not answer.
    async fn writability(&self) -> Result<Writability, StorageError>;
}
