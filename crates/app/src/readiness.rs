//! Readiness: whether storage answers and can be written, and whether the background passes are on time.
//!
//! Any client may ask, as often as it likes. At most one read of storage is in flight, and requests that arrive meanwhile
//! share its answer.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use frontrow_domain::ports::{StorageHealth, Writability};
use futures_util::future::WeakShared;

use crate::Failure;
use crate::flight::{Flight, Reading, Unread, share};
use crate::heartbeats::{Heartbeats, PassAge};
use crate::nodes::{NodeDifference, NodeDifferences};

/// A read that ends with its waiters: one without waiters makes no progress, and would answer for an earlier time when
/// joined.
type LastAsked = WeakShared<Reading<Writability>>;

/// Checks the node. Cloning shares the read of storage.
#[derive(Clone)]
pub struct Readiness {
    storage: Arc<dyn StorageHealth>,
    passes: Heartbeats,
    nodes: NodeDifferences,
    last_asked: Arc<Mutex<Option<LastAsked>>>,
}

/// What keeps storage from serving.
#[derive(Debug)]
pub enum StorageFault {
    /// It does not answer.
    Failure(Failure),
    /// It does not answer in time.
    Late,
    /// It answers, and cannot be written for this reason.
    NotWritable(Cow<'static, str>),
}

/// The state of a node.
#[derive(Debug)]
pub struct NodeHealth {
    /// Storage.
    pub storage: Result<(), StorageFault>,
    /// The background passes. A late one makes the node unready, unless it is advisory.
    pub passes: Vec<PassAge>,
    /// Nodes on the same database that differ from this one. They do not make it unready.
    pub nodes: Vec<NodeDifference>,
}

impl NodeHealth {
    /// Whether the node can serve.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.storage.is_ok() && !self.passes.iter().any(PassAge::blocks)
    }
}

impl Readiness {
    /// Checks this storage; no pass is registered yet.
    #[must_use]
    pub fn new(storage: Arc<dyn StorageHealth>) -> Self {
        let (passes, nodes) = (Heartbeats::default(), NodeDifferences::default());
        Self { storage, passes, nodes, last_asked: Arc::default() }
    }

    /// Where passes are registered.
    #[must_use]
    pub fn passes(&self) -> Heartbeats {
        self.passes.clone()
    }

    /// Where differences of nodes are written.
    #[must_use]
    pub fn nodes(&self) -> NodeDifferences {
        self.nodes.clone()
    }

    /// Whether storage answers now, and can be written.
    ///
    /// # Errors
    /// [`StorageFault`], but never that it is late: time is the caller's to take.
    pub async fn storage(&self) -> Result<(), StorageFault> {
        match self.flight().await {
            Ok(Writability::Writable) => Ok(()),
            Ok(Writability::NotWritable(reason)) => Err(StorageFault::NotWritable(reason)),
            Err(unread) => Err(StorageFault::Failure(unread.into())),
        }
    }

    /// The state of the node, with what the check of storage has found.
    #[must_use]
    pub fn health(&self, storage: Result<(), StorageFault>) -> NodeHealth {
        NodeHealth { storage, passes: self.passes.ages(), nodes: self.nodes.list() }
    }

    /// The read that is in flight, or a new one. Its answer is later than the question in either case.
    fn flight(&self) -> Flight<Writability> {
        let mut last_asked = self.last_asked.lock().unwrap_or_else(PoisonError::into_inner);
        let in_flight = last_asked.as_ref().and_then(WeakShared::upgrade);
        if let Some(flight) = in_flight.filter(|flight| flight.peek().is_none()) {
            return flight;
        }
        let storage = self.storage.clone();
        let flight = share(async move { storage.writability().await.map_err(Unread::from) });
        *last_asked = flight.downgrade();
        flight
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use frontrow_domain::ports::{MockStorageHealth, StorageError};
    use futures_util::future::join_all;

    use super::*;

    /// Storage that counts its checks; the third has no answer, the fifth is that it is read-only.
    fn readiness() -> (Readiness, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let mut storage = MockStorageHealth::new();
        let count = asked.clone();
        storage.expect_writability().returning(move || match count.fetch_add(1, Ordering::SeqCst) {
            2 => Err(StorageError::Unavailable("down".into())),
            4 => Ok(Writability::refused("read-only")),
            _ => Ok(Writability::Writable),
        });
        (Readiness::new(Arc::new(storage)), asked)
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
        readiness.storage().await.unwrap();
        let down = readiness.storage().await;
        assert!(matches!(&down, Err(StorageFault::Failure(Failure::Unavailable(_)))), "{down:?}");
        readiness.storage().await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 4, "an answer that is still held is no read under way");
        let read_only = readiness.storage().await;
        assert!(
            matches!(&read_only, Err(StorageFault::NotWritable(why)) if why == "read-only"),
            "{read_only:?}"
        );
    }

    #[derive(Default)]
    struct PanicsOnce(AtomicUsize);

    #[async_trait::async_trait]
    impl StorageHealth for PanicsOnce {
        async fn writability(&self) -> Result<Writability, StorageError> {
            assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "on purpose");
            Ok(Writability::Writable)
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_read_fails_that_read_alone() {
        let readiness = Readiness::new(Arc::new(PanicsOnce::default()));
        let held = readiness.flight();
        held.clone().await.unwrap_err();
        readiness.storage().await.unwrap();
        held.await.unwrap_err();
    }

    #[tokio::test]
    async fn a_read_that_nobody_waits_for_is_not_joined() {
        let (readiness, asked) = readiness();
        let first = readiness.flight();
        assert!(first.ptr_eq(&readiness.flight()));
        drop(first);
        readiness.storage().await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 1, "the first was never sent");
    }

    #[test]
    fn a_late_pass_makes_a_node_unready_and_a_node_that_differs_does_not() {
        let (readiness, _) = readiness();
        let health = |age, is_advisory| {
            let bound = Duration::from_secs(10);
            let passes =
                vec![PassAge { name: "admission", age: Duration::from_secs(age), bound, is_advisory }];
            let node = frontrow_domain::NodeId::new(uuid::Uuid::nil());
            let nodes = vec![NodeDifference { node, subjects: vec!["secret".to_owned()] }];
            NodeHealth { passes, nodes, ..readiness.health(Ok(())) }
        };
        assert!(health(9, false).is_ready() && !health(10, false).is_ready());
        assert!(health(10, true).is_ready(), "the node can serve without it");
        assert!(!NodeHealth { storage: Err(StorageFault::Late), ..health(9, false) }.is_ready());
    }
}
