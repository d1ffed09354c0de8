//! A batch of units: tried, tried again, taken apart, and answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use frontrow_domain::Change;
use frontrow_domain::unit_of_work::{Command, CommandOutcome, CommitError, Committed, Source, UnitOfWork};
use futures_util::TryFutureExt;
use futures_util::future::try_join3;

use super::failure::{Failure, StatementBounds};
use super::plan::{Plan, Verdict, plan};
use super::queue::{Counters, Unit};
use super::witness::Witness;
use super::write::statement::run_all;
use super::{command, find, lock, write};
use crate::postgres::connection::{self, Pool};
use crate::postgres::shared::Shared;
use crate::postgres::transaction::{CommitFailure, Transaction};

/// How often a batch is tried at most before it is taken apart.
pub(super) const MAX_ATTEMPTS: u32 = 5;

/// How often a batch is tried at most whose connections end.
const MAX_CONNECTIONS: u32 = 3;

/// How long to wait before the second attempt; before each later one, twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(4);

/// How many statements may fail for one batch before the rest of it is given up.
const MAX_FAILED: u32 = 32;

/// For how long a batch is tried again and taken apart. An attempt that has begun comes to its end, which a server that is
/// silent delays by a multiple of [`PostgresOptions::answer_timeout`](crate::postgres::PostgresOptions): meanwhile
/// everybody in the queue waits.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(15);

/// Writes batches.
#[derive(Clone)]
pub(in crate::postgres) struct Writer {
    pool: Pool,
    /// The longest that a statement runs.
    statement_timeout: Duration,
    counters: Arc<Counters>,
}

impl Writer {
    /// Takes its connections from this pool, whose sessions end statements that run for longer than this.
    pub(in crate::postgres) fn new(pool: Pool, statement_timeout: Duration) -> Self {
        Self { pool, statement_timeout, counters: Arc::default() }
    }

    pub(super) fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    pub(super) const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Writes and answers units: in one transaction those that can share one, each of the others in one of its own. No
    /// statement waits for a lock longer than `lock_wait`. Returns, unanswered, the units of each transaction in which one did.
    pub(super) async fn write<U: Unit>(&self, jobs: Vec<U>, lock_wait: Duration) -> Vec<U> {
        let (together, alone): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| can_share(job.work()));
        let mut blocked = Vec::new();
        if !together.is_empty() {
            blocked.extend(self.settle(together, lock_wait).await);
        }
        for job in alone {
            blocked.extend(self.settle(vec![job], lock_wait).await);
        }
        blocked
    }

    /// Writes and answers a batch. Where it fails for what may be the fault of one unit it is halved, until that one is
    /// alone: so a bad one costs its batch twice the logarithm of its size in transactions.
    async fn settle<U: Unit>(&self, jobs: Vec<U>, lock_wait: Duration) -> Vec<U> {
        let mut failed = 0;
        let given_up_at = Instant::now() + GIVEN_UP_AFTER;
        let mut blocked = Vec::new();
        let mut left = vec![jobs];
        while let Some(mut jobs) = left.pop() {
            let failure = match self.try_group(&jobs, lock_wait, given_up_at).await {
                Ok(verdicts) => {
                    left.extend(answer(jobs, verdicts).into_iter().map(|job| vec![job]));
                    continue;
                }
                Err(Failure::Locked(cause)) => {
                    tracing::debug!(units = jobs.len(), %cause, "a batch waited for a lock in vain");
                    blocked.extend(jobs);
                    continue;
                }
                Err(failure) => failure,
            };
            failed += u32::from(matches!(failure, Failure::Failed(_)));
            let is_hopeless = matches!(failure, Failure::Unavailable(_) | Failure::Lost(_))
                || failed >= MAX_FAILED
                || given_up_at <= Instant::now();
            if jobs.len() > 1 && !is_hopeless {
                tracing::debug!(units = jobs.len(), ?failure, "a batch is taken apart");
                let second = jobs.split_off(jobs.len() / 2);
                left.extend([second, jobs]);
                continue;
            }
            if is_hopeless {
                jobs.extend(left.drain(..).flatten());
            }
            let errors = failure.answers(jobs.len());
            jobs.into_iter().zip(errors).for_each(|(job, error)| job.answer(Err(error)));
        }
        blocked
    }

    async fn try_group<U: Unit>(
        &self,
        jobs: &[U],
        lock_wait: Duration,
        given_up_at: Instant,
    ) -> Result<Vec<Verdict>, Failure> {
        let units: Vec<&UnitOfWork> = jobs.iter().map(Unit::work).collect();
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        loop {
            let ended = self.attempt(&units, lock_wait).await;
            let most = if matches!(ended, Err(Failure::Lost(_))) { MAX_CONNECTIONS } else { MAX_ATTEMPTS };
            match ended {
                Err(Failure::Again(cause) | Failure::Lost(cause))
                    if attempt < most && Instant::now() < given_up_at =>
                {
                    tracing::debug!(attempt, %cause, units = units.len(), "a batch is tried again");
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2);
                    attempt += 1;
                }
                ended => return ended,
            }
        }
    }

    async fn attempt(&self, units: &[&UnitOfWork], lock_wait: Duration) -> Result<Vec<Verdict>, Failure> {
        self.counters.transactions.fetch_add(1, Ordering::Relaxed);
        self.counters.units.fetch_add(u64::try_from(units.len()).unwrap_or(0), Ordering::Relaxed);
        let connection = connection::acquire(&self.pool).await.map_err(Failure::unavailable)?;
        let begun_at = Instant::now();
        let mut transaction = Transaction::new(connection);
        match apply(&mut transaction, units, lock_wait).await {
            Ok(Applied { plan, .. }) if !plan.writes() => {
                transaction.rollback().await;
                Ok(plan.verdicts)
            }
            Ok(Applied { plan, number }) => self.commit(transaction, plan, number).await,
            Err(failure) => {
                let bounds = StatementBounds { lock_wait, statement: self.statement_timeout };
                let failure = failure.after(begun_at.elapsed(), bounds);
                let is_sound = failure.leaves_connection_sound() && transaction.rollback().await;
                Err(if is_sound { failure } else { failure.on_dead_connection() })
            }
        }
    }

    /// Commits, and finds out what became of it when the answer is lost.
    async fn commit(
        &self,
        transaction: Transaction,
        plan: Plan<'_>,
        number: i64,
    ) -> Result<Vec<Verdict>, Failure> {
        let cause = match transaction.commit().await {
            Ok(()) => return Ok(plan.verdicts),
            Err(CommitFailure::NotSent(cause)) => return Err(Failure::lost(cause)),
            Err(CommitFailure::Unanswered(cause)) => cause,
        };
        match Witness::of(&plan, number).ask(&self.pool).await {
            Some(true) => Ok(plan.verdicts),
            Some(false) => Err(Failure::Again(Box::new(cause))),
            None => Ok(unknown(plan.verdicts, Box::new(cause))),
        }
    }
}

/// Whether the unit may share its transaction: it does nothing but what is written for many at once.
pub(super) fn can_share(work: &UnitOfWork) -> bool {
    let is_new_seat = |change: &Change<_>| matches!(change, Change::Insert(_));
    let shares = matches!(work.command, None | Some(Command::Join(_)));
    shares && !write::has_catalogue(work) && !work.seats.iter().any(is_new_seat)
}

/// A transaction in which everything is written, and nothing committed.
struct Applied<'u> {
    plan: Plan<'u>,
    /// The number of the transaction.
    number: i64,
}

/// Two flights: locks and what is to be known, then, with all decided, the writes.
async fn apply<'u>(
    transaction: &mut Transaction,
    units: &[&'u UnitOfWork],
    lock_wait: Duration,
) -> Result<Applied<'u>, Failure> {
    let shared = transaction.shared()?;
    let begin = transaction.begin(lock_wait).map_err(Failure::lost);
    let locked = lock::lock(shared, units).map_err(Failure::from);
    let ((), locked, found) = try_join3(begin, locked, find::find(shared, units)).await?;
    let mut plan = plan(units, &locked, &found)?;
    if let ([work], [verdict @ Verdict::Done(_)]) = (units, plan.verdicts.as_mut_slice()) {
        let connection = transaction.connection()?;
        let mut outcome = None;
        if let Some(command) = &work.command {
            outcome = command::execute(connection, command, &locked).await?;
        }
        write::write_catalogue(connection, work, outcome).await?;
        if outcome.is_some() {
            *verdict = Verdict::Done(outcome);
        }
    }
    run_all(transaction.shared()?, write::statements(&plan, &locked)).await?;
    Ok(Applied { plan, number: locked.transaction() })
}

impl Plan<'_> {
    /// Whether there is anything to make durable; if not, its locks need not wait for the disk.
    fn writes(&self) -> bool {
        let is_idle = |work: &&UnitOfWork| {
            UnitOfWork { guards: Vec::new(), command: None, ..(*work).clone() } == UnitOfWork::default()
        };
        let did_something = |verdict: &Verdict| {
            use CommandOutcome::{
                Admitted, AlreadyJoined, AnswersPruned, HoldsExpired, PollsNoted, TokensExpired,
                TokensPaused, TokensPruned,
            };
            let Verdict::Done(outcome) = verdict else { return false };
            match outcome {
                None | Some(AlreadyJoined(_)) => false,
                Some(
                    Admitted(rows) | TokensExpired(rows) | HoldsExpired(rows) | PollsNoted(rows)
                    | AnswersPruned(rows) | TokensPaused(rows),
                ) => *rows > 0,
                Some(TokensPruned(pruned)) => pruned.deleted > 0,
                Some(_) => true,
            }
        };
        self.verdicts.iter().any(did_something) || !self.units.iter().all(is_idle)
    }
}

/// Answers all that are through, and gives back those that have to come again.
fn answer<U: Unit>(jobs: Vec<U>, verdicts: Vec<Verdict>) -> Vec<U> {
    let mut back = Vec::new();
    for (job, verdict) in jobs.into_iter().zip(verdicts) {
        match verdict {
            Verdict::Done(outcome) => job.answer(Ok(Committed { outcome })),
            Verdict::Refused(error) => job.answer(Err(error)),
            Verdict::Alone => back.push(job),
        }
    }
    back
}

/// What was refused is not written in any case.
fn unknown(verdicts: Vec<Verdict>, cause: Source) -> Vec<Verdict> {
    let cause = Shared::of(cause);
    let unless_refused = |verdict| match verdict {
        Verdict::Done(_) => Verdict::Refused(CommitError::OutcomeUnknown(Box::new(cause.clone()))),
        verdict => verdict,
    };
    verdicts.into_iter().map(unless_refused).collect()
}
