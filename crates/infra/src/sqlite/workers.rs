//! Threads that own a connection each, and the bounded queue in front of them.

use std::io;
use std::sync::{Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use diesel::sqlite::SqliteConnection;

/// Why a queue takes no job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueueError {
    /// As many jobs are queued as may.
    #[error("the queue of the database is full")]
    Full,
    /// The queue has been closed, or all its threads are gone.
    #[error("the database has been closed")]
    Closed,
}

/// A queue of jobs and its threads.
pub(super) struct Workers<J> {
    /// Absent once closed. The threads end when it is gone and what was queued is done.
    queue: RwLock<Option<Sender<J>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Never carries anything: it disconnects when the last thread ends.
    ended: Receiver<()>,
}

impl<J: Send + 'static> Workers<J> {
    /// Starts a thread per connection. Each runs `work` until the queue ends.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        name: &str,
        connections: Vec<SqliteConnection>,
        queue_limit: usize,
        work: impl Fn(SqliteConnection, &Receiver<J>) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        // A queue of 0 would only take a job while a thread happens to be waiting for one.
        let (queue, jobs) = bounded(queue_limit.max(1));
        let (running, ended) = bounded(0);
        let mut threads = Vec::with_capacity(connections.len());
        for connection in connections {
            let (work, jobs, running) = (work.clone(), jobs.clone(), running.clone());
            let body = move || {
                let _running: Sender<()> = running;
                work(connection, &jobs);
            };
            threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(body)?);
        }
        Ok(Self { queue: RwLock::new(Some(queue)), threads: Mutex::new(threads), ended })
    }

    /// Queues a job, or says at once why not.
    pub(super) fn send(&self, job: J) -> Result<(), QueueError> {
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.as_ref().ok_or(QueueError::Closed)?;
        queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => QueueError::Full,
            TrySendError::Disconnected(_) => QueueError::Closed,
        })
    }

    /// Whether it takes no more jobs.
    pub(super) fn is_closed(&self) -> bool {
        self.queue.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// How many jobs are queued.
    pub(super) fn queued(&self) -> usize {
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        queue.as_ref().map_or(0, Sender::len)
    }

    /// Takes no more jobs, and waits until those that are queued are done, at most `limit`. False when they are not.
    pub(super) fn close(&self, limit: Duration) -> bool {
        drop(self.queue.write().unwrap_or_else(PoisonError::into_inner).take());
        if self.ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            return false;
        }
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = threads.drain(..).filter_map(|thread| thread.join().err()).count();
        failed == 0
    }
}

#[cfg(test)]
mod tests {
    use diesel::prelude::Connection;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn connections(count: usize) -> Vec<SqliteConnection> {
        (0..count).map(|_| SqliteConnection::establish(":memory:").unwrap()).collect()
    }

    /// Each job says that it has begun, then waits until it may end.
    fn gated(threads: usize, queue_limit: usize) -> (Workers<u32>, Receiver<u32>, Sender<()>) {
        let (begun, begins) = bounded(100);
        let (gate, may_end) = bounded::<()>(100);
        let work = move |_: SqliteConnection, jobs: &Receiver<u32>| {
            while let Ok(job) = jobs.recv() {
                begun.send(job).unwrap();
                may_end.recv().unwrap();
            }
        };
        (Workers::start("test", connections(threads), queue_limit, work).unwrap(), begins, gate)
    }

    #[test]
    fn every_thread_takes_a_job_and_a_full_queue_takes_none() {
        let (workers, begins, gate) = gated(2, 2);
        for job in 1..=2 {
            workers.send(job).unwrap();
            assert_eq!(begins.recv_timeout(LONG), Ok(job), "both are at work");
        }
        assert_eq!(
            (workers.send(3), workers.send(4), workers.send(5)),
            (Ok(()), Ok(()), Err(QueueError::Full))
        );
        assert_eq!(workers.queued(), 2);
        for _ in 0..4 {
            gate.send(()).unwrap();
        }
        assert!(workers.close(LONG));
        let rest: std::collections::BTreeSet<u32> = begins.try_iter().collect();
        assert_eq!(rest, [3, 4].into(), "what was queued is done");
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_waits_no_longer_than_it_may() {
        let (workers, begins, gate) = gated(1, 1);
        workers.send(1).unwrap();
        assert_eq!(begins.recv_timeout(LONG), Ok(1));
        assert!(!workers.close(Duration::from_millis(20)), "it is still at work");
        assert_eq!(workers.send(2), Err(QueueError::Closed));
        gate.send(()).unwrap();
        assert!(workers.close(LONG));
    }

    #[test]
    fn a_thread_that_fails_is_told_of() {
        let work = |_: SqliteConnection, jobs: &Receiver<u32>| {
            let job = jobs.recv().unwrap();
            assert_eq!(job, 1, "a failure on purpose");
        };
        let workers = Workers::start("test", connections(1), 1, work).unwrap();
        workers.send(2).unwrap();
        assert!(!workers.close(LONG));
    }
}
