//! Threads that own a connection each, and the bounded queue in front of them.
//!
//! A thread is supervised (ADR 0016): after a panic it goes on with a new connection, since nothing tells in which state
//! the panic has left the old one.

use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use diesel::sqlite::SqliteConnection;
use frontrow_domain::unit_of_work::Priority;

use crate::lanes::{Lanes, Pushed};

/// How long a thread pauses after a panic; after each further one, twice as long.
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
/// How long a thread pauses at most.
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// Panics further apart than this have nothing to do with each other.
const CALM_AFTER: Duration = Duration::from_secs(10);

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

/// Jobs that wait for a thread.
pub(super) struct Queue<J> {
    jobs: Mutex<Jobs<J>>,
    /// Wakes a thread: a job has come, or the queue is closed.
    wake: Condvar,
}

struct Jobs<J> {
    lanes: Lanes<J>,
    /// How many threads wait to be woken.
    idle: usize,
    /// How many threads run.
    threads: usize,
    /// No job is taken any more. The threads end when what was queued is done.
    is_closed: bool,
}

impl<J> Queue<J> {
    fn new(limit: usize, threads: usize) -> Self {
        let jobs = Jobs { lanes: Lanes::new(limit), idle: 0, threads, is_closed: false };
        Self { jobs: Mutex::new(jobs), wake: Condvar::new() }
    }

    /// No job is run under this lock.
    fn jobs(&self) -> MutexGuard<'_, Jobs<J>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.jobs().is_closed = true;
        self.wake.notify_all();
    }

    /// Takes what is queued, without waiting.
    fn take_all(&self) -> Vec<J> {
        self.jobs().lanes.pop_many(usize::MAX)
    }

    /// Waits for jobs, and takes at most so many. None when there will be no more.
    pub(super) fn take(&self, limit: usize) -> Vec<J> {
        let mut jobs = self.jobs();
        loop {
            let taken = jobs.lanes.pop_many(limit.max(1));
            if !taken.is_empty() || jobs.is_closed {
                return taken;
            }
            jobs.idle = jobs.idle.saturating_add(1);
            jobs = self.wake.wait(jobs).unwrap_or_else(PoisonError::into_inner);
            jobs.idle = jobs.idle.saturating_sub(1);
        }
    }
}

/// A thread that runs. When the last one ends, however it does, nobody may wait for it any more.
struct Running<J>(Arc<Queue<J>>);

impl<J> Drop for Running<J> {
    fn drop(&mut self) {
        let mut jobs = self.0.jobs();
        jobs.threads = jobs.threads.saturating_sub(1);
        if jobs.threads == 0 {
            jobs.is_closed = true;
            let orphans = jobs.lanes.pop_many(usize::MAX);
            drop(jobs);
            drop(orphans);
        }
    }
}

/// How a thread goes on after a panic.
pub(super) struct Recovery<J> {
    /// Opens another connection.
    pub(super) reopen: Arc<dyn Fn() -> Result<SqliteConnection, Box<dyn Error + Send + Sync>> + Send + Sync>,
    /// Answers a job that no thread can do while no connection can be opened.
    pub(super) refuse: fn(J),
}

impl<J> Clone for Recovery<J> {
    fn clone(&self) -> Self {
        Self { reopen: self.reopen.clone(), refuse: self.refuse }
    }
}

/// Runs `work` until the queue ends, over panics.
fn supervise<J>(
    name: &str,
    mut connection: SqliteConnection,
    queue: &Queue<J>,
    work: impl Fn(&mut SqliteConnection, &Queue<J>),
    recovery: &Recovery<J>,
) {
    let (mut backoff, mut panicked_at) = (FIRST_BACKOFF, None::<Instant>);
    while catch_unwind(AssertUnwindSafe(|| work(&mut connection, queue))).is_err() {
        tracing::error!("a database thread panicked: {name}; going on with a new connection");
        backoff = match panicked_at.replace(Instant::now()) {
            Some(before) if before.elapsed() < CALM_AFTER => backoff.saturating_mul(2).min(MAX_BACKOFF),
            _ => FIRST_BACKOFF,
        };
        std::thread::sleep(backoff);
        match reopen(name, queue, recovery) {
            Some(opened) => connection = opened,
            None => return,
        }
    }
}

/// Another connection; `None` when the queue is closed before there is one. Meanwhile jobs are refused, not kept waiting.
fn reopen<J>(name: &str, queue: &Queue<J>, recovery: &Recovery<J>) -> Option<SqliteConnection> {
    let mut backoff = FIRST_BACKOFF;
    loop {
        match (recovery.reopen)() {
            Ok(connection) => return Some(connection),
            Err(error) => {
                tracing::error!(%error, "a database thread has no connection: {name}; trying again");
            }
        }
        queue.take_all().into_iter().for_each(recovery.refuse);
        if queue.jobs().is_closed {
            return None;
        }
        std::thread::sleep(backoff);
        backoff = backoff.saturating_mul(2).min(MAX_BACKOFF);
    }
}

/// A queue of jobs and its threads.
pub(super) struct Workers<J> {
    queue: Arc<Queue<J>>,
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
        work: impl Fn(&mut SqliteConnection, &Queue<J>) + Clone + Send + 'static,
        recovery: Recovery<J>,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue::new(queue_limit, connections.len()));
        let (alive, ended) = bounded(0);
        let mut threads = Vec::with_capacity(connections.len());
        for connection in connections {
            let (work, running, alive) = (work.clone(), Running(queue.clone()), alive.clone());
            let (recovery, thread_name) = (recovery.clone(), name.to_owned());
            let body = move || {
                let _alive: Sender<()> = alive;
                supervise(&thread_name, connection, &running.0, work, &recovery);
            };
            threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(body)?);
        }
        Ok(Self { queue, threads: Mutex::new(threads), ended })
    }

    /// Queues a job, or says at once why not. Gives back one that had to make room for it, if any: it is not done.
    pub(super) fn send(&self, priority: Priority, job: J) -> Result<Option<J>, QueueError> {
        let (pushed, is_awaited) = {
            let mut jobs = self.queue.jobs();
            if jobs.is_closed {
                return Err(QueueError::Closed);
            }
            (jobs.lanes.push(priority, job), jobs.idle > 0)
        };
        match pushed {
            Pushed::Queued => {
                if is_awaited {
                    self.queue.wake.notify_one();
                }
                Ok(None)
            }
            Pushed::InsteadOf(other) => Ok(Some(other)),
            Pushed::Refused(_) => Err(QueueError::Full),
        }
    }

    /// Whether it takes no more jobs.
    pub(super) fn is_closed(&self) -> bool {
        self.queue.jobs().is_closed
    }

    /// How many jobs are queued.
    pub(super) fn queued(&self) -> usize {
        self.queue.jobs().lanes.len()
    }

    /// Takes no more jobs, and waits until those that are queued are done, at most `limit`. False when they are not.
    pub(super) fn close(&self, limit: Duration) -> bool {
        self.queue.close();
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

    fn recovery<J>() -> Recovery<J> {
        Recovery { reopen: Arc::new(|| Ok(SqliteConnection::establish(":memory:")?)), refuse: drop }
    }

    /// Each job says that it has begun, then waits until it may end.
    fn gated(threads: usize, queue_limit: usize) -> (Workers<u32>, Receiver<u32>, Sender<()>) {
        let (begun, begins) = bounded(100);
        let (gate, may_end) = bounded::<()>(100);
        let work = move |_: &mut SqliteConnection, jobs: &Queue<u32>| {
            while let Some(job) = jobs.take(1).pop() {
                begun.send(job).unwrap();
                may_end.recv().unwrap();
            }
        };
        (Workers::start("test", connections(threads), queue_limit, work, recovery()).unwrap(), begins, gate)
    }

    #[test]
    fn every_thread_takes_a_job_and_a_full_queue_takes_none() {
        let (workers, begins, gate) = gated(2, 2);
        for job in 1..=2 {
            workers.send(Priority::Pay, job).unwrap();
            assert_eq!(begins.recv_timeout(LONG), Ok(job), "both are at work");
        }
        assert_eq!(
            (workers.send(Priority::Pay, 3), workers.send(Priority::Pay, 4), workers.send(Priority::Pay, 5)),
            (Ok(None), Ok(None), Err(QueueError::Full))
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
        workers.send(Priority::Pay, 1).unwrap();
        assert_eq!(begins.recv_timeout(LONG), Ok(1));
        assert!(!workers.close(Duration::from_millis(20)), "it is still at work");
        assert_eq!(workers.send(Priority::Pay, 2), Err(QueueError::Closed));
        gate.send(()).unwrap();
        assert!(workers.close(LONG));
    }

    #[test]
    fn a_thread_goes_on_after_a_panic_and_nobody_waits_for_the_job_it_had() {
        let work = |_: &mut SqliteConnection, jobs: &Queue<(u32, Sender<u32>)>| {
            while let Some((job, reply)) = jobs.take(1).pop() {
                assert!(job % 3 > 0, "a failure on purpose");
                reply.send(job).unwrap();
            }
        };
        let workers = Workers::start("test", connections(1), 9, work, recovery()).unwrap();
        for job in 0..9 {
            let (reply, answer) = bounded(1);
            workers.send(Priority::Pay, (job, reply)).unwrap();
            let expected = if job % 3 > 0 { Ok(job) } else { Err(RecvTimeoutError::Disconnected) };
            assert_eq!(answer.recv_timeout(LONG), expected);
        }
        assert!(workers.close(LONG), "the thread ends in order");
    }

    #[test]
    fn jobs_are_refused_while_no_connection_can_be_opened() {
        let work = |_: &mut SqliteConnection, jobs: &Queue<Sender<&'static str>>| {
            let job = jobs.take(1);
            assert!(job.is_empty(), "a failure on purpose");
        };
        let recovery = Recovery {
            reopen: Arc::new(|| Err("no file".into())),
            refuse: |reply: Sender<&'static str>| reply.send("refused").unwrap(),
        };
        let workers = Workers::start("test", connections(1), 9, work, recovery).unwrap();
        let (reply, answer) = bounded(2);
        workers.send(Priority::Pay, reply.clone()).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        workers.send(Priority::Pay, reply).unwrap();
        assert_eq!(answer.recv_timeout(LONG), Ok("refused"));
        assert!(workers.close(LONG), "a thread without a connection ends as well");
    }

    #[test]
    fn a_full_queue_makes_room_for_who_goes_first() {
        let (workers, begins, gate) = gated(1, 2);
        workers.send(Priority::Join, 1).unwrap();
        assert_eq!(begins.recv_timeout(LONG), Ok(1));
        workers.send(Priority::Join, 2).unwrap();
        workers.send(Priority::Hold, 3).unwrap();
        assert_eq!(workers.send(Priority::Pay, 4), Ok(Some(2)));
        assert_eq!(workers.send(Priority::Join, 5), Err(QueueError::Full));
        (0..3).for_each(|_| gate.send(()).unwrap());
        assert!(workers.close(LONG));
        assert_eq!(begins.try_iter().collect::<Vec<_>>(), [4, 3]);
    }
}
