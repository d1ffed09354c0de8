//! A bounded queue whose items are worked off many at a time.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use frontrow_domain::unit_of_work::Priority;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::lanes::{Lanes, Pushed};

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
    queue: Arc<Queue<T>>,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

struct Queue<T> {
    items: Mutex<Items<T>>,
    /// Wakes a worker: an item has come, or the queue is closed.
    wake: Notify,
}

struct Items<T> {
    lanes: Lanes<T>,
    is_closed: bool,
}

impl<T: Send + 'static> Batches<T> {
    /// Starts the workers on the current runtime. Each takes what is queued, up to a batch, and does it with `work`. There
    /// is no timer: a lone item goes at once, and while one batch is done the next one gathers by itself.
    pub(super) fn start<F, Done>(bounds: Bounds, work: F) -> Self
    where
        F: Fn(Vec<T>) -> Done + Clone + Send + 'static,
        Done: Future<Output = ()> + Send + 'static,
    {
        let items = Mutex::new(Items { lanes: Lanes::new(bounds.queue), is_closed: false });
        let queue = Arc::new(Queue { items, wake: Notify::new() });
        let start = |_| tokio::spawn(work_off(queue.clone(), bounds.batch.max(1), work.clone()));
        let workers = Mutex::new((0..bounds.workers.max(1)).map(start).collect());
        Self { queue, workers }
    }

    /// Queues an item. Gives back one that had to make room for it, if any: it is not done.
    pub(super) fn push(&self, priority: Priority, item: T) -> Result<Option<T>, Refused> {
        let pushed = {
            let mut items = lock(&self.queue.items);
            if items.is_closed {
                return Err(Refused::Closed);
            }
            items.lanes.push(priority, item)
        };
        match pushed {
            Pushed::Queued => {
                self.queue.wake.notify_one();
                Ok(None)
            }
            Pushed::InsteadOf(other) => Ok(Some(other)),
            Pushed::Refused(_) => Err(Refused::Full),
        }
    }

    /// How many items are queued.
    pub(super) fn queued(&self) -> usize {
        lock(&self.queue.items).lanes.len()
    }

    /// Takes no more, and waits at most `limit` until all that is queued is done. False when that was not enough.
    pub(super) async fn close(&self, limit: Duration) -> bool {
        self.queue.close();
        let workers = std::mem::take(&mut *lock(&self.workers));
        tokio::time::timeout(limit, join_all(workers)).await.is_ok()
    }
}

impl<T> Drop for Batches<T> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl<T> Queue<T> {
    /// Whoever ends wakes the next one.
    fn close(&self) {
        lock(&self.items).is_closed = true;
        self.wake.notify_one();
    }

    /// The next batch; an empty one when there will be no more.
    async fn next(&self, limit: usize) -> Vec<T> {
        loop {
            {
                let mut items = lock(&self.items);
                let batch = items.lanes.pop_many(limit);
                if !batch.is_empty() {
                    return batch;
                }
                if items.is_closed {
                    self.wake.notify_one();
                    return batch;
                }
            }
            self.wake.notified().await;
        }
    }
}

/// Nothing that could panic happens under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn work_off<T, F, Done>(queue: Arc<Queue<T>>, limit: usize, work: F)
where
    F: Fn(Vec<T>) -> Done,
    Done: Future<Output = ()>,
{
    loop {
        let batch = queue.next(limit).await;
        if batch.is_empty() {
            return;
        }
        if AssertUnwindSafe(work(batch)).catch_unwind().await.is_err() {
            tracing::error!("a batch panicked; its callers get no answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{Semaphore, mpsc, oneshot};

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
        queue.push(Priority::Pay, 1).unwrap();
        assert_eq!(batches.recv().await, Some(vec![1]));
        (2..=6).for_each(|item| assert_eq!(queue.push(Priority::Pay, item).unwrap(), None));
        assert_eq!(queue.queued(), 5);
        gate.add_permits(9);
        assert_eq!(batches.recv().await, Some(vec![2, 3, 4]));
        assert_eq!(batches.recv().await, Some(vec![5, 6]));
    }

    #[tokio::test]
    async fn a_full_queue_takes_nothing() {
        let (queue, mut batches, _gate) = gated(Bounds { workers: 1, batch: 1, queue: 2 });
        queue.push(Priority::Pay, 1).unwrap();
        batches.recv().await;
        queue.push(Priority::Pay, 2).unwrap();
        queue.push(Priority::Pay, 3).unwrap();
        assert!(matches!(queue.push(Priority::Pay, 4), Err(Refused::Full)));
    }

    #[tokio::test]
    async fn a_full_queue_makes_room_for_who_goes_first() {
        let (queue, mut batches, gate) = gated(Bounds { workers: 1, batch: 9, queue: 2 });
        queue.push(Priority::Join, 1).unwrap();
        batches.recv().await;
        queue.push(Priority::Join, 2).unwrap();
        queue.push(Priority::Hold, 3).unwrap();
        assert_eq!(queue.push(Priority::Pay, 4).unwrap(), Some(2));
        assert!(matches!(queue.push(Priority::Join, 5), Err(Refused::Full)));
        gate.add_permits(9);
        assert_eq!(batches.recv().await, Some(vec![4, 3]));
    }

    #[tokio::test]
    async fn every_worker_ends_when_the_queue_is_dropped() {
        let (queue, mut batches, gate) = gated(Bounds { workers: 3, batch: 1, queue: 9 });
        (1..=5).for_each(|item| assert_eq!(queue.push(Priority::Pay, item).unwrap(), None));
        drop(queue);
        gate.add_permits(9);
        let mut done = Vec::new();
        while let Some(batch) = tokio::time::timeout(PATIENCE, batches.recv()).await.unwrap() {
            done.extend(batch);
        }
        done.sort_unstable();
        assert_eq!(done, [1, 2, 3, 4, 5], "and what was queued is done");
    }

    #[tokio::test]
    async fn closing_finishes_what_is_queued_and_waits_no_longer_than_it_may() {
        let (queue, mut batches, gate) = gated(Bounds { workers: 1, batch: 1, queue: 9 });
        queue.push(Priority::Pay, 1).unwrap();
        queue.push(Priority::Pay, 2).unwrap();
        assert!(!queue.close(Duration::from_millis(10)).await, "the gate is shut");
        assert!(matches!(queue.push(Priority::Pay, 3), Err(Refused::Closed)));
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
        queue.push(Priority::Pay, gone).unwrap();
        let (reply, answer) = oneshot::channel();
        queue.push(Priority::Pay, reply).unwrap();
        answer.await.unwrap_err();
        assert!(queue.close(PATIENCE).await);
    }
}
