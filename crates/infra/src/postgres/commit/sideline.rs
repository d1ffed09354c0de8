//! Avoidance of head-of-line blocking: units on rows that another session holds wait on a sideline, others go on (ADR 0022).
//!
//! A committer waits for a lock for [`PostgresOptions::batch_lock_timeout`] at most. A batch that waited in vain is sorted by one
//! statement: units on rows that are locked now go to the sideline, the others are tried once more. From then on, units on
//! such rows enter no batch of a committer.
//!
//! The sideline holds as many units as the queue of commits. It is one task with two connections at most. Several times a second it asks which of the rows are locked,
//! and writes the units whose rows are free. One wait at a time queues for a contended row (a line or a feed), so that
//! sessions that hold it in turns do not starve this node. A unit is refused as unavailable once it has waited for
//! [`PostgresOptions::lock_timeout`], and after one look when its row has been locked for so long.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use frontrow_domain::unit_of_work::{Command, UnitOfWork};
use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout_at};

use super::batch::{Writer, can_share};
use super::lock::{Row, moved_lines, rows_of};
use super::queue::{Job, Outcome, Unit};
use super::stuck::{Known, StuckRows, locked_now};
use crate::postgres::PostgresOptions;

/// How often the rows are looked at while units wait.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often they are looked at while none does: so long units are refused after a row has become free.
const LOOK_IDLY_EVERY: Duration = Duration::from_millis(250);
/// How long after a look the rows are looked at again because a unit has come in.
const LOOK_SOON: Duration = Duration::from_millis(20);
/// The longest wait in the queue of a contended row.
const MAX_QUEUEING: Duration = Duration::from_secs(1);
/// The longest search for the unit of a batch that waits for something else than its rows.
const MAX_ISOLATION: Duration = Duration::from_secs(2);
/// What part of the lock timeout a command of the scheduler waits, at most: it is repeated, and other rooms wait behind it.
const COMMAND_PART: u32 = 10;

/// How long units wait for locks.
#[derive(Debug, Clone, Copy)]
pub(super) struct LockWaits {
    /// In a batch of a committer.
    batch: Duration,
    /// In all.
    total: Duration,
}

impl LockWaits {
    pub(super) fn new(options: &PostgresOptions) -> Self {
        let PostgresOptions { batch_lock_timeout, lock_timeout, .. } = *options;
        Self { batch: batch_lock_timeout.min(lock_timeout), total: lock_timeout }
    }

    /// How long a unit waits in all.
    fn of(self, work: &UnitOfWork) -> Duration {
        match work.command {
            // A request of an operator is not repeated. An Admit may be one, and looks like those of the scheduler.
            None | Some(Command::Join(_) | Command::PauseTokens(_) | Command::Fill(_)) => self.total,
            Some(_) => self.total / COMMAND_PART,
        }
    }
}

/// Why a unit on a stuck row is refused.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Stuck {
    #[error("another session has locked a row for longer than {0:?}")]
    TooLong(Duration),
    #[error("too many units wait for rows that other sessions have locked")]
    TooMany,
}

/// A unit on the sideline.
struct Parked {
    job: Job,
    rows: Vec<Row>,
    since: Instant,
    tried_at: Option<Instant>,
    /// It waited in vain although all its rows were free: it is tried alone.
    is_suspect: bool,
    place: Place,
}

impl Parked {
    /// When it was last tried, or came.
    fn waits_since(&self) -> Instant {
        self.tried_at.unwrap_or(self.since)
    }

    fn needs_any(&self, rows: &HashSet<Row>) -> bool {
        self.rows.iter().any(|row| rows.contains(row))
    }
}

impl Unit for Parked {
    fn work(&self) -> &UnitOfWork {
        self.job.work()
    }

    fn answer(self, outcome: Outcome) {
        drop(self.place);
        self.job.answer(outcome);
    }
}

/// A place on the sideline, until it is dropped.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.units.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The state that the committers and the sideline share.
struct Shared {
    stuck: StuckRows,
    waits: LockWaits,
    units: AtomicUsize,
    /// The most units on the sideline.
    max_units: usize,
}

impl Shared {
    /// Whether a unit has waited too long, counted from the moment it was parked or, if earlier, its rows were locked.
    fn is_overdue(&self, work: &UnitOfWork, known: Known, parked_at: Instant, now: Instant) -> bool {
        let longest = self.waits.of(work);
        let locked_since = if let Known::Stuck(Some(since)) = known { since } else { parked_at };
        now.duration_since(parked_at.min(locked_since)) >= longest
    }

    fn refuse(&self, unit: impl Unit) {
        let longest = self.waits.of(unit.work());
        unit.refuse(Stuck::TooLong(longest));
    }

    /// A place on the sideline, if one is left.
    fn place(self: &Arc<Self>) -> Option<Place> {
        let place = Place(self.clone());
        (self.units.fetch_add(1, Ordering::Relaxed) < self.max_units).then_some(place)
    }
}

/// The commit function of a committer.
#[derive(Clone)]
pub(super) struct Committer {
    writer: Writer,
    shared: Arc<Shared>,
    aside: Sender<Parked>,
}

impl Committer {
    /// Writes and answers all, except those that it puts on the sideline. The registry is asked for each unit that has a
    /// transaction of its own, so that any number of them wait for a row that is newly stuck once.
    pub(super) async fn commit_all(&self, jobs: Vec<Job>) {
        let (together, alone): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| can_share(job.work()));
        self.commit(together).await;
        for job in alone {
            self.commit(vec![job]).await;
        }
    }

    async fn commit(&self, jobs: Vec<Job>) {
        let jobs = self.without_stuck(jobs);
        if jobs.is_empty() {
            return;
        }
        let batch = self.shared.waits.batch;
        let blocked = self.writer.write(jobs, batch).await;
        if blocked.is_empty() {
            return;
        }
        let free = self.sort_out(blocked).await;
        for job in self.writer.write(free, batch).await {
            self.park(job);
        }
    }

    /// Puts units on rows that are known to be stuck on the sideline, where they are refused at once if these are locked still
    /// and have been for too long.
    fn without_stuck(&self, mut jobs: Vec<Job>) -> Vec<Job> {
        if self.shared.stuck.is_empty() {
            return jobs;
        }
        let is_stuck = |job: &mut Job| self.shared.stuck.known(&rows_of(job.work())) != Known::Free;
        for job in jobs.extract_if(.., is_stuck) {
            self.park(job);
        }
        jobs
    }

    /// Puts those units on the sideline whose rows are locked now; all of them when none is, as what they wait for is
    /// something else. Returns the others.
    async fn sort_out(&self, blocked: Vec<Job>) -> Vec<Job> {
        let rows: BTreeSet<Row> = blocked.iter().flat_map(|job| rows_of(job.work())).collect();
        let locked = locked_now(self.writer.pool(), &rows, self.shared.waits.batch).await.unwrap_or_default();
        self.shared.stuck.looked_at(&rows, &locked, Instant::now());
        let is_free = |job: &Job| !rows_of(job.work()).iter().any(|row| locked.contains(row));
        let (free, stuck) = blocked.into_iter().partition(|job| !locked.is_empty() && is_free(job));
        for job in Vec::from_iter::<Vec<Job>>(stuck) {
            self.park(job);
        }
        free
    }

    fn park(&self, job: Job) {
        let Some(place) = self.shared.place() else {
            job.refuse(Stuck::TooMany);
            return;
        };
        let (rows, since) = (rows_of(job.work()), Instant::now());
        let unit = Parked { job, rows, since, tried_at: None, is_suspect: false, place };
        // The channel has room for as many units as have places; it is closed only when the runtime has ended.
        if let Err(refused) = self.aside.try_send(unit) {
            refused.into_inner().refuse(Stuck::TooMany);
        }
    }
}

/// The handle of the sideline's task.
pub(super) struct Sideline {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Sideline {
    /// Starts it on the current runtime, with what committers write by. It ends when the last of those is dropped and no
    /// unit is left.
    pub(super) fn start(writer: Writer, options: &PostgresOptions) -> (Arc<Self>, Committer) {
        let PostgresOptions { group_commit_limit, queue_limit, .. } = *options;
        let max_units = queue_limit.clamp(1, Semaphore::MAX_PERMITS);
        let (aside, parked) = mpsc::channel(max_units);
        let (stuck, waits) = (StuckRows::default(), LockWaits::new(options));
        let shared = Arc::new(Shared { stuck, waits, units: AtomicUsize::new(0), max_units });
        let worker = Worker {
            writer: writer.clone(),
            shared: shared.clone(),
            batch_limit: group_commit_limit.max(1),
            parked: Vec::new(),
            queueing: None,
            has_warned: false,
        };
        let task = Mutex::new(Some(tokio::spawn(worker.run(parked))));
        (Arc::new(Self { shared: shared.clone(), task }), Committer { writer, shared, aside })
    }

    /// How many units are on it.
    pub(super) fn units(&self) -> usize {
        self.shared.units.load(Ordering::Relaxed)
    }

    /// Waits for its end; false when that is later than `until`.
    pub(super) async fn ended(&self, until: Instant) -> bool {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        match task {
            Some(task) => timeout_at(until.into(), task).await.is_ok(),
            None => true,
        }
    }
}

/// A wait in the queue of rows. Its task writes units once it is over, and returns those that it did not write.
struct Queueing {
    rows: BTreeSet<Row>,
    task: JoinHandle<Vec<Parked>>,
}

/// The task of the sideline.
struct Worker {
    writer: Writer,
    shared: Arc<Shared>,
    batch_limit: usize,
    parked: Vec<Parked>,
    queueing: Option<Queueing>,
    has_warned: bool,
}

impl Worker {
    async fn run(mut self, mut incoming: Receiver<Parked>) {
        let (mut is_open, mut looked_at) = (true, Instant::now());
        let mut look_at = looked_at;
        while is_open || !self.parked.is_empty() || self.queueing.is_some() {
            let is_idle = self.parked.is_empty() && self.queueing.is_none() && self.shared.stuck.is_empty();
            tokio::select! {
                unit = incoming.recv(), if is_open => match unit {
                    Some(unit) => {
                        self.parked.push(unit);
                        look_at = look_at.min(looked_at + LOOK_SOON);
                    }
                    None => is_open = false,
                },
                returned = ended(&mut self.queueing) => {
                    self.queueing = None;
                    self.parked.extend(returned);
                }
                () = sleep_until(look_at.into()), if !is_idle => {
                    if AssertUnwindSafe(self.round()).catch_unwind().await.is_err() {
                        tracing::error!("a round of the sideline panicked; its callers get no answer");
                    }
                    let pause = if self.parked.is_empty() { LOOK_IDLY_EVERY } else { LOOK_EVERY };
                    looked_at = Instant::now();
                    look_at = looked_at + pause;
                }
            }
        }
    }

    /// Refuses what waits for too long, writes what is free, and queues for a row that is not.
    async fn round(&mut self) {
        let of_units = self.parked.iter().flat_map(|unit| &unit.rows).copied();
        let rows: BTreeSet<Row> = of_units.chain(self.shared.stuck.all()).collect();
        let looked = locked_now(self.writer.pool(), &rows, self.shared.waits.batch).await;
        let now = Instant::now();
        if let Ok(locked) = &looked {
            self.shared.stuck.looked_at(&rows, locked, now);
        }
        self.refuse_overdue(now);
        let Ok(locked) = looked else { return };
        if locked.is_empty() {
            self.has_warned = false;
        }
        self.sort();
        let free = self.take_free(&locked, now);
        // Before others become suspects in this round.
        let suspect = self.take_suspect(now);
        self.write_free(free).await;
        self.write_free(suspect.into_iter().collect()).await;
        self.sort();
        if self.queueing.is_none() {
            self.queue_for_a_row(&locked, now);
        }
    }

    fn refuse_overdue(&mut self, now: Instant) {
        let shared = self.shared.clone();
        let is_overdue = |unit: &mut Parked| {
            shared.is_overdue(unit.job.work(), shared.stuck.known(&unit.rows), unit.since, now)
        };
        let overdue: Vec<Parked> = self.parked.extract_if(.., is_overdue).collect();
        if let Some(first) = overdue.first()
            && !self.has_warned
        {
            let (units, rows) = (overdue.len(), &first.rows);
            tracing::warn!(units, ?rows, "another session keeps rows locked; units on them are refused");
            self.has_warned = true;
        }
        overdue.into_iter().for_each(|unit| shared.refuse(unit));
    }

    /// Brings the units in the order in which they are taken: by priority, then by arrival.
    fn sort(&mut self) {
        self.parked.sort_by_key(|unit| (Reverse(unit.job.work().priority()), unit.since));
    }

    /// The next units whose rows are all free, the most urgent first. None overtakes those that queue for its rows.
    fn take_free(&mut self, locked: &HashSet<Row>, now: Instant) -> Vec<Parked> {
        let queued_for: HashSet<Row> =
            self.queueing.iter().flat_map(|queueing| &queueing.rows).copied().collect();
        let is_free = |unit: &Parked| !unit.needs_any(locked) && !unit.needs_any(&queued_for);
        let mut left = self.batch_limit;
        let mut free: Vec<Parked> = self
            .parked
            .extract_if(.., |unit| {
                let is_taken = left > 0 && !unit.is_suspect && is_free(unit);
                left = left.saturating_sub(usize::from(is_taken));
                is_taken
            })
            .collect();
        free.iter_mut().for_each(|unit| unit.tried_at = Some(now));
        free
    }

    /// The suspect that was tried least lately.
    fn take_suspect(&mut self, now: Instant) -> Option<Parked> {
        let suspects = self.parked.iter().enumerate().filter(|(_, unit)| unit.is_suspect);
        let (at, _) = suspects.min_by_key(|(_, unit)| unit.waits_since())?;
        let suspect = self.parked.remove(at);
        Some(Parked { tried_at: Some(now), ..suspect })
    }

    /// Writes units whose rows were free. Of those that wait all the same, the one to blame is looked for by halving.
    async fn write_free(&mut self, units: Vec<Parked>) {
        let until = Instant::now() + MAX_ISOLATION;
        let mut groups = vec![units];
        while let Some(units) = groups.pop() {
            if units.is_empty() {
                continue;
            }
            if Instant::now() >= until {
                self.parked.extend(units);
                continue;
            }
            let mut blocked = self.writer.write(units, self.shared.waits.batch).await;
            if blocked.len() > 1 {
                let second = blocked.split_off(blocked.len() / 2);
                groups.extend([second, blocked]);
                continue;
            }
            for unit in &mut blocked {
                // What it waits for is not among its rows: others that need them wait behind it from now on.
                let rows = unit.rows.iter().copied().collect();
                self.shared.stuck.looked_at(&rows, &HashSet::from_iter(unit.rows.clone()), Instant::now());
                unit.is_suspect = true;
            }
            self.parked.extend(blocked);
        }
    }

    /// Begins a wait for the rows that have been waited for least lately.
    fn queue_for_a_row(&mut self, locked: &HashSet<Row>, now: Instant) {
        let locked_of = |unit: &Parked| -> BTreeSet<Row> {
            unit.rows.iter().filter(|row| locked.contains(row)).copied().collect()
        };
        let waiting = self.parked.iter().filter(|unit| !locked_of(unit).is_empty());
        let Some(next) = waiting.min_by_key(|unit| unit.waits_since()) else { return };
        let rows = locked_of(next);
        let shares = can_share(next.job.work());
        let mut left = if shares { self.batch_limit } else { 1 };
        let mut units: Vec<Parked> = self
            .parked
            .extract_if(.., |unit| {
                let of_unit = locked_of(unit);
                let is_taken = left > 0
                    && !of_unit.is_empty()
                    && of_unit.is_subset(&rows)
                    && can_share(unit.job.work()) == shares;
                left = left.saturating_sub(usize::from(is_taken));
                is_taken
            })
            .collect();
        units.iter_mut().for_each(|unit| unit.tried_at = Some(now));
        let wait = self.queueing_time(&rows, &units, locked.len());
        let (writer, shared) = (self.writer.clone(), self.shared.clone());
        let queued_for: Vec<Row> = rows.iter().copied().collect();
        let task = tokio::spawn(async move {
            let blocked = writer.write(units, wait).await;
            if blocked.is_empty() {
                shared.stuck.got_through(&queued_for, Instant::now());
            }
            blocked
        });
        self.queueing = Some(Queueing { rows, task });
    }

    /// How long to queue for rows. Long only for those that many sessions hold in turns, and only while nothing is held that
    /// others need: lines are locked first of all, feeds last. Each of many rows has its turn before units give up.
    fn queueing_time(&self, rows: &BTreeSet<Row>, units: &[Parked], locked: usize) -> Duration {
        let LockWaits { batch, total } = self.shared.waits;
        let moves_no_line = || units.iter().all(|unit| moved_lines(unit.job.work()).is_empty());
        let is_harmless = rows.iter().all(|row| matches!(row, Row::Line(_)))
            || rows.iter().all(|row| matches!(row, Row::Feed(_))) && moves_no_line();
        if !is_harmless {
            return batch;
        }
        let share = total / u32::try_from(locked.max(1)).unwrap_or(u32::MAX);
        share.min(MAX_QUEUEING).max(batch)
    }
}

/// The end of a wait, if there is one.
async fn ended(queueing: &mut Option<Queueing>) -> Vec<Parked> {
    match queueing {
        // The callers of a task that panicked receive no answer.
        Some(queueing) => (&mut queueing.task).await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use frontrow_domain::unit_of_work::PauseTokens;
    use frontrow_domain::{RoomId, Timestamp};

    use super::*;

    #[test]
    fn request_of_an_operator_waits_as_long_as_any_other() {
        let waits = LockWaits::new(&PostgresOptions::default());
        let longest = |command| waits.of(&UnitOfWork { command, ..UnitOfWork::default() });
        let now = Timestamp::MIN;
        let room_id = RoomId::new(uuid::Uuid::nil());
        assert_eq!(longest(None), waits.total);
        assert_eq!(
            longest(Some(Command::PauseTokens(PauseTokens { room_id, begins: true, now }))),
            waits.total
        );
        let sweep = longest(Some(Command::ExpireTokens { now, limit: 1 }));
        assert!(sweep < waits.total, "control: the scheduler repeats it");
    }
}
