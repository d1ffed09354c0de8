//! One cause of many answers.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use frontrow_domain::unit_of_work::Source;

/// An error that several callers get, as the cause of theirs.
#[derive(Debug)]
pub(super) struct Shared<E: ?Sized>(pub(super) Arc<E>);

impl Shared<dyn Error + Send + Sync> {
    /// Shares a cause of any kind.
    pub(super) fn of(cause: Source) -> Self {
        Self(Arc::from(cause))
    }
}

impl<E: ?Sized> Clone for Shared<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E: Error + ?Sized> fmt::Display for Shared<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: Error + ?Sized> Error for Shared<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
