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
