//! A batch of units: tried, tried again, taken apart, and answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use frontrow_domain::Change;
use frontrow_domain::unit_of_work::{Command, CommandOutcome, CommitError, Committed, Source, UnitOfWork};
use futures_util::TryFutureExt;
use futures_util::future::try_join3;

use super::failure::Failure;
use super::plan::{Plan, Verdict, plan};
use super::queue::{Counters, Job};
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

/// How many statements may fail for one batch before the rest of it is given up: each may have waited.
const MAX_FAILED: u32 = 32;

/// For how long a batch is tried again and taken apart. An attempt that has begun comes to its end, which a server that is
/// silent delays by a multiple of [`PostgresOptions::answer_timeout`](crate::postgres::PostgresOptions): meanwhile
/// everybody in the queue waits.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(15);

/// Writes batches.
#[derive(Clone)]
pub(in crate::postgres) struct Writer {
    pool: Pool,
    counters: Arc<Counters>,
}

/// Units that are written together or taken apart.
struct Group {
    jobs: Vec<Job>,
    /// A part of a batch that waited in vain: it waits for no lock any more.
    impatient: bool,
}

impl Group {
    fn halves(mut self, impatient: bool) -> [Self; 2] {
        let second = self.jobs.split_off(self.jobs.len() / 2);
        let impatient = self.impatient || impatient;
        [Self { jobs: second, impatient }, Self { jobs: self.jobs, impatient }]
    }
}

impl Writer {
    /// Takes its connections from this pool.
    pub(in crate::postgres) fn new(pool: Pool) -> Self {
        Self { pool, counters: Arc::default() }
    }

    pub(super) fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Writes and answers all: in one transaction those that can share one, each of the others in one of its own.
    pub(super) async fn commit_all(&self, jobs: Vec<Job>) {
        let (together, alone): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| can_share(&job.work));
        if !together.is_empty() {
            self.settle(together).await;
        }
        for job in alone {
            self.settle(vec![job]).await;
        }
    }

    /// Writes and answers a batch. Where it fails for what may be the fault of one unit it is halved, until that one is
    /// alone: so a bad one costs its batch twice the logarithm of its size in transactions.
    async fn settle(&self, jobs: Vec<Job>) {
        let mut failed = 0;
        let given_up_at = Instant::now() + GIVEN_UP_AFTER;
        let mut left = vec![Group { jobs, impatient: false }];
        while let Some(group) = left.pop() {
            let failure = match self.try_group(&group, given_up_at).await {
                Ok(verdicts) => {
                    let back = answer(group.jobs, verdicts);
                    left.extend(back.into_iter().map(|job| Group { jobs: vec![job], impatient: false }));
                    continue;
                }
                Err(failure) => failure,
            };
            let waited = matches!(failure, Failure::Failed(_));
            failed += u32::from(waited);
            let is_hopeless = matches!(failure, Failure::Unavailable(_) | Failure::Lost(_))
                || failed >= MAX_FAILED
                || given_up_at <= Instant::now();
            if group.jobs.len() > 1 && !is_hopeless {
                tracing::debug!(units = group.jobs.len(), ?failure, "a batch is taken apart");
                left.extend(group.halves(waited));
                continue;
            }
            let mut jobs = group.jobs;
            if is_hopeless {
                jobs.extend(left.drain(..).flat_map(|group| group.jobs));
            }
            let errors = failure.answers(jobs.len());
            jobs.into_iter().zip(errors).for_each(|(job, error)| job.answer(Err(error)));
        }
    }

    async fn try_group(&self, group: &Group, given_up_at: Instant) -> Result<Vec<Verdict>, Failure> {
        let units: Vec<&UnitOfWork> = group.jobs.iter().map(|job| &job.work).collect();
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        loop {
            let ended = self.attempt(&units, group.impatient).await;
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

    async fn attempt(&self, units: &[&UnitOfWork], impatient: bool) -> Result<Vec<Verdict>, Failure> {
        self.counters.transactions.fetch_add(1, Ordering::Relaxed);
        self.counters.units.fetch_add(u64::try_from(units.len()).unwrap_or(0), Ordering::Relaxed);
        let connection = connection::acquire(&self.pool).await.map_err(Failure::unavailable)?;
        let mut transaction = Transaction::new(connection);
        match apply(&mut transaction, units, impatient).await {
            Ok(Applied { plan, .. }) if !plan.writes() => {
                transaction.rollback().await;
                Ok(plan.verdicts)
            }
            Ok(Applied { plan, number }) => self.commit(transaction, plan, number).await,
            Err(failure) => {
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
fn can_share(work: &UnitOfWork) -> bool {
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
    impatient: bool,
) -> Result<Applied<'u>, Failure> {
    let shared = transaction.shared()?;
    let begin = transaction.begin(impatient).map_err(Failure::lost);
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
                Admitted, AlreadyJoined, AnswersPruned, HoldsExpired, PollsNoted, TokensExpired, TokensPruned,
            };
            let Verdict::Done(outcome) = verdict else { return false };
            match outcome {
                None | Some(AlreadyJoined(_)) => false,
                Some(
                    Admitted(rows) | TokensExpired(rows) | HoldsExpired(rows) | PollsNoted(rows)
                    | AnswersPruned(rows),
                ) => *rows > 0,
                Some(TokensPruned(pruned)) => pruned.deleted > 0,
                Some(_) => true,
            }
        };
        self.verdicts.iter().any(did_something) || !self.units.iter().all(is_idle)
    }
}

/// Answers all that are through, and gives back those that have to come again.
fn answer(jobs: Vec<Job>, verdicts: Vec<Verdict>) -> Vec<Job> {
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
