//! Whether storage answers, for machines that look after the server.
//!
//! Anybody may ask, as often as it likes: so at most one read is under way, and whoever asks meanwhile waits for its answer.

use std::sync::{Arc, Mutex, PoisonError};

use frontrow_domain::ports::AdminQueries;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, WeakShared};

use crate::Failure;
use crate::flight::{Flight, Unread};

/// A read that ends with those who wait for it: one that nobody looks after says nothing of the time when it is joined.
type LastAsked = WeakShared<BoxFuture<'static, Result<(), Unread>>>;

/// Asks storage for an answer. Cloning shares the question.
#[derive(Clone)]
pub struct Readiness {
    queries: Arc<dyn AdminQueries>,
    last_asked: Arc<Mutex<Option<LastAsked>>>,
}

impl Readiness {
    /// Has asked nothing yet.
    #[must_use]
    pub fn new(queries: Arc<dyn AdminQueries>) -> Self {
        Self { queries, last_asked: Arc::default() }
    }

    /// Whether storage answers now.
    ///
    /// # Errors
    /// [`Failure`] alone.
    pub async fn ask(&self) -> Result<(), Failure> {
        let flight = self.flight();
        Ok(flight.await?)
    }

    /// The read that is under way, or a new one. Its answer comes later than the question in either case.
    fn flight(&self) -> Flight<()> {
        let mut last_asked = self.last_asked.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = last_asked.as_ref().and_then(WeakShared::upgrade);
        if let Some(flight) = under_way.filter(|flight| flight.peek().is_none()) {
            return flight;
        }
        let queries = self.queries.clone();
        let ping = async move { queries.ping().await.map_err(Unread::from) };
        let flight = ping.boxed().shared();
        *last_asked = flight.downgrade();
        flight
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use frontrow_domain::ports::{MockAdminQueries, StorageError};
    use futures_util::future::join_all;

    use super::*;

    /// Storage whose answers tell how many questions came before; the third has none.
    fn readiness() -> (Readiness, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let mut queries = MockAdminQueries::new();
        let count = asked.clone();
        queries.expect_ping().returning(move || match count.fetch_add(1, Ordering::SeqCst) {
            2 => Err(StorageError::Unavailable("down".into())),
            _ => Ok(()),
        });
        (Readiness::new(Arc::new(queries)), asked)
    }

    #[tokio::test]
    async fn whoever_asks_at_the_same_time_shares_one_read() {
        let (readiness, asked) = readiness();
        let flights: Vec<_> = (0..100).map(|_| readiness.clone().flight()).collect();
        assert!(join_all(flights).await.iter().all(Result::is_ok));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn who_asks_later_is_told_how_it_is_then() {
        let (readiness, asked) = readiness();
        let kept = readiness.flight();
        kept.clone().await.unwrap();
        readiness.ask().await.unwrap();
        let down = readiness.ask().await;
        assert!(matches!(&down, Err(Failure::Unavailable(_))), "{down:?}");
        readiness.ask().await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 4, "an answer that is still held is no read under way");
    }

    #[tokio::test]
    async fn a_read_that_nobody_waits_for_is_not_joined() {
        let (readiness, asked) = readiness();
        let first = readiness.flight();
        assert!(first.ptr_eq(&readiness.flight()));
        drop(first);
        readiness.ask().await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 1, "the first was never sent");
    }
}
