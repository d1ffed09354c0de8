//! A bounded queue whose items are worked off many at a time.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinHandle;

/// How much there may be of everything.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The most batches at the same time.
    pub(super) workers: usize,
    /// The most items in a batch.
    pub(super) batch: usize,
    /// The most items that may be queued.
    pub(super) queue: usize,
}

/// An item is not taken.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(super) enum Refused {
    /// As many are queued as may.
    #[error("the queue to the database is full")]
    Full,
    /// It takes no more.
    #[error("the queue to the database is closed")]
    Closed,
}

/// A queue, and the tasks that empty it. Dropped, they finish what is queued, and end.
pub(super) struct Batches<T> {
    /// `None` once it is closed.
    queue: Mutex<Option<mpsc::Sender<T>>>,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

impl<T: Send + 'static> Batches<T> {
    /// Starts the workers on the current runtime. Each takes what is queued, up to a batch, and does it with `work`. There
    /// is no timer: a lone item goes at once, and while one batch is done the next one gathers by itself.
    pub(super) fn start<F, Done>(bounds: Bounds, work: F) -> Self
    where
        F: Fn(Vec<T>) -> Done + Clone + Send + 'static,
        Done: Future<Output = ()> + Send + 'static,
    {
        let (queue, items) = mpsc::channel(bounds.queue.max(1));
        let items = Arc::new(tokio::sync::Mutex::new(items));
        let start = |_| tokio::spawn(work_off(items.clone(), bounds.batch.max(1), work.clone()));
        let workers = (0..bounds.workers.max(1)).map(start).collect();
        Self { queue: Mutex::new(Some(queue)), workers: Mutex::new(workers) }
    }

    /// Queues an item.
    pub(super) fn push(&self, item: T) -> Result<(), Refused> {
        let queue = lock(&self.queue);
        let pushed = queue.as_ref().ok_or(Refused::Closed)?.try_send(item);
        pushed.map_err(|refused| match refused {
            TrySendError::Full(_) => Refused::Full,
            TrySendError::Closed(_) => Refused::Closed,
        })
    }

    /// How many items are queued.
    pub(super) fn queued(&self) -> usize {
        lock(&self.queue).as_ref().map_or(0, |queue| queue.max_capacity() - queue.capacity())
    }

    /// Takes no more, and waits at most `limit` until all that is queued is done. False when that was not enough.
    pub(super) async fn close(&self, limit: Duration) -> bool {
        lock(&self.queue).take();
        let workers = std::mem::take(&mut *lock(&self.workers));
        tokio::time::timeout(limit, join_all(workers)).await.is_ok()
    }
}

/// Nothing that could panic happens under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn work_off<T, F, Done>(items: Arc<tokio::sync::Mutex<mpsc::Receiver<T>>>, limit: usize, work: F)
where
    F: Fn(Vec<T>) -> Done,
    Done: Future<Output = ()>,
{
    let mut taken = Vec::new();
    while items.lock().await.recv_many(&mut taken, limit).await > 0 {
        let batch = std::mem::take(&mut taken);
        if AssertUnwindSafe(work(batch)).catch_unwind().await.is_err() {
            tracing::error!("a batch panicked; its callers get no answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{Semaphore, oneshot};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// One worker, which says what it takes, and does a batch for each permit.
    fn gated(bounds: Bounds) -> (Batches<u32>, mpsc::UnboundedReceiver<Vec<u32>>, Arc<Semaphore>) {
        let (taken, batches) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let permits = gate.clone();
        let work = move |batch: Vec<u32>| {
            let (taken, permits) = (taken.clone(), permits.clone());
            async move {
                taken.send(batch).unwrap();
                permits.acquire().await.unwrap().forget();
            }
        };
        (Batches::start(bounds, work), batches, gate)
    }

    #[tokio::test]
    async fn a_lone_item_goes_at_once_and_later_ones_gather() {
        let (queue, mut batches, gate) = gated(Bounds { workers: 1, batch: 3, queue: 9 });
        queue.push(1).unwrap();
        assert_eq!(batches.recv().await, Some(vec![1]));
        (2..=6).for_each(|item| queue.push(item).unwrap());
        assert_eq!(queue.queued(), 5);
        gate.add_permits(9);
        assert_eq!(batches.recv().await, Some(vec![2, 3, 4]));
        assert_eq!(batches.recv().await, Some(vec![5, 6]));
    }

    #[tokio::test]
    async fn a_full_queue_takes_nothing() {
        let (queue, mut batches, _gate) = gated(Bounds { workers: 1, batch: 1, queue: 2 });
        queue.push(1).unwrap();
        batches.recv().await;
        queue.push(2).unwrap();
        queue.push(3).unwrap();
        assert!(matches!(queue.push(4), Err(Refused::Full)));
    }

    #[tokio::test]
    async fn closing_finishes_what_is_queued_and_waits_no_longer_than_it_may() {
        let (queue, mut batches, gate) = gated(Bounds { workers: 1, batch: 1, queue: 9 });
        queue.push(1).unwrap();
        queue.push(2).unwrap();
        assert!(!queue.close(Duration::from_millis(10)).await, "the gate is shut");
        assert!(matches!(queue.push(3), Err(Refused::Closed)));
        gate.add_permits(2);
        assert_eq!((batches.recv().await, batches.recv().await), (Some(vec![1]), Some(vec![2])));
        assert_eq!(tokio::time::timeout(PATIENCE, batches.recv()).await.unwrap(), None, "the worker ends");
    }

    #[tokio::test]
    async fn a_panic_ends_no_worker() {
        let work = |batch: Vec<oneshot::Sender<()>>| async move {
            assert!(batch.iter().all(|caller| !caller.is_closed()), "a caller has gone");
        };
        let queue = Batches::start(Bounds { workers: 1, batch: 1, queue: 9 }, work);
        let (gone, caller) = oneshot::channel();
        drop(caller);
        queue.push(gone).unwrap();
        let (reply, answer) = oneshot::channel();
        queue.push(reply).unwrap();
        answer.await.unwrap_err();
        assert!(queue.close(PATIENCE).await);
    }
}
