//! What runs by itself: this node's views of the lines and its seat maps, admission, abandoned places, expiry, pruning, the
//! discipline of the clock, on PostgreSQL the comparison of the nodes, and a look at the keys of an outside identity provider.
//! While the clock is unsettled, the passes that judge time pause (ADR 0017). Any number of nodes may run it.
//!
//! Every pass is supervised (ADR 0016): one that fails or panics is logged and run again, and readiness knows the age of each.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use frontrow_app::{
    Abandonment, Admission, Expiry, Heartbeat, Heartbeats, Lines, NodeComparison, Pruning, SeatMaps,
};
use frontrow_infra::clock::{SystemClock, Verdict};
use frontrow_infra::identity::KeySetFile;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::backend::Backend;
use crate::file::ServeLock;

/// How often rooms are looked at. An OPEN room is drained within a second.
const ADMISSION_EVERY: Duration = Duration::from_millis(500);
/// How often what this node knows of the lines is brought up to date: within a second, with room for a slow answer.
const LINES_EVERY: Duration = Duration::from_millis(250);
/// How often polls near the head of a line are noted, and abandoned places given up.
const ABANDONMENT_EVERY: Duration = Duration::from_secs(1);
/// How often lapsed tokens and holds are expired: they show as such within two seconds.
const EXPIRY_EVERY: Duration = Duration::from_secs(1);
/// How often seat maps that somebody looks at are brought up to date: what is shown is at most 250 ms old.
const SEAT_MAPS_EVERY: Duration = Duration::from_millis(100);
/// How often what is over long since is deleted, a few batches each time.
const PRUNING_EVERY: Duration = Duration::from_secs(10);
/// How often the clock is asked whether it wants a reading of its reference; one that suspects a step always does.
const CLOCK_EVERY: Duration = Duration::from_secs(2);
/// How often the marker of a SQLite file is compared, and a log that has begun anew is looked for.
const FILE_EVERY: Duration = Duration::from_secs(1);
/// How often the keys of an outside identity provider are read again.
const KEY_SET_EVERY: Duration = Duration::from_secs(2);
/// How often the node registers, and is compared with the others.
const NODES_EVERY: Duration = Duration::from_secs(5);
/// How long after a pass that failed it is run again at most: what is done rarely must not wait for its pace.
const AGAIN_WITHIN: Duration = Duration::from_secs(1);
/// How long after its first panic a pass is run again; after each further one in a row, twice as long.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// How long after a panic a pass is run again at most.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// How long the passes that run may take to finish when the server stops, all together.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// The use cases that nobody asks for.
#[allow(missing_docs, reason = "each field is the use case of its type")]
pub struct Work {
    pub admission: Admission,
    pub expiry: Expiry,
    pub lines: Lines,
    pub abandonment: Abandonment,
    pub seat_maps: SeatMaps,
    pub pruning: Pruning,
}

/// Something that is done over and over.
pub struct Pass {
    /// What it is called where it is told of.
    pub name: &'static str,
    /// How long after a pass the next one begins, at most.
    pub pace: Duration,
    /// Whether it writes what the time decides: ticks, expiries, evictions.
    pub judges_time: bool,
    /// Whether the node can serve without it: its lateness is a warning of readiness.
    pub is_advisory: bool,
    /// Does it once. A pass that fails is run again.
    pub run: Box<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>,
}

impl Pass {
    fn new<F: Future<Output = Result<()>> + Send + 'static>(
        name: &'static str,
        pace: Duration,
        run: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        let run = Box::new(move || run().boxed());
        Self { name, pace, judges_time: false, is_advisory: false, run }
    }

    /// A pass that the node can serve without.
    fn advisory(self) -> Self {
        Self { is_advisory: true, ..self }
    }

    /// A pass that writes what the time decides.
    fn by_time(self) -> Self {
        Self { judges_time: true, ..self }
    }

    /// The pass, which is skipped while it would judge by a clock that is not settled: other nodes may have another time.
    fn while_settled(self, clock: &Arc<SystemClock>) -> Self {
        if !self.judges_time {
            return self;
        }
        let (clock, run) = (clock.clone(), self.run);
        let run = move || if clock.is_settled() { run() } else { ready(Ok(())).boxed() };
        Self { run: Box::new(run), ..self }
    }
}

impl Work {
    /// What is to be done of it, and how often.
    #[must_use]
    pub fn passes(self) -> Vec<Pass> {
        let Self { admission, expiry, lines, abandonment, seat_maps, pruning } = self;
        let (abandonment, pruning) = (Arc::new(abandonment), Arc::new(pruning));
        vec![
            Pass::new("lines", LINES_EVERY, move || refresh(lines.clone())),
            Pass::new("admission", ADMISSION_EVERY, move || admit(admission.clone())).by_time(),
            Pass::new("abandonment", ABANDONMENT_EVERY, move || give_up(abandonment.clone())).by_time(),
            Pass::new("expiry", EXPIRY_EVERY, move || expire(expiry.clone())).by_time(),
            Pass::new("seat maps", SEAT_MAPS_EVERY, move || show(seat_maps.clone())),
            Pass::new("pruning", PRUNING_EVERY, move || prune(pruning.clone())).by_time(),
        ]
    }
}

/// The tasks that run by themselves.
pub struct Scheduler {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    nodes: Option<NodeComparison>,
}

/// What the scheduler runs on some nodes only.
#[derive(Default)]
pub struct Watched {
    /// The file with the keys of an outside identity provider.
    pub key_set: Option<Arc<KeySetFile>>,
    /// The other nodes.
    pub nodes: Option<NodeComparison>,
    /// The right to serve a SQLite file, as long as it is held.
    pub lock: Weak<ServeLock>,
}

impl Scheduler {
    /// Starts them, and registers each with `heartbeats`.
    #[must_use]
    pub fn start(
        work: Work,
        clock: Arc<SystemClock>,
        backend: Backend,
        watched: Watched,
        heartbeats: &Heartbeats,
    ) -> Self {
        let Watched { key_set, nodes, lock } = watched;
        let settled = clock.clone();
        let file = watch_file(lock.clone(), backend.clone());
        let discipline = Pass::new("clock", CLOCK_EVERY, move || correct(clock.clone(), backend.clone()));
        let key_set =
            key_set.map(|file| Pass::new("key set", KEY_SET_EVERY, move || read_again(file.clone())));
        let comparison = nodes.clone().map(comparison);
        let log = mark_log(lock);
        let passes = work.passes().into_iter().map(|pass| pass.while_settled(&settled));
        let passes = passes.chain([discipline, file, log]).chain(key_set).chain(comparison);
        Self { nodes, ..Self::supervising(passes, heartbeats) }
    }

    /// Starts a supervised task for each pass.
    fn supervising(passes: impl IntoIterator<Item = Pass>, heartbeats: &Heartbeats) -> Self {
        let (stop, stopped) = watch::channel(false);
        let start = |pass: Pass| {
            let heartbeat = if pass.is_advisory {
                heartbeats.register_advisory(pass.name, pass.pace)
            } else {
                heartbeats.register(pass.name, pass.pace)
            };
            tokio::spawn(supervise(pass, heartbeat, stopped.clone()))
        };
        Self { stop, tasks: passes.into_iter().map(start).collect(), nodes: None }
    }

    /// Lets the passes that run finish, within one bound for all of them.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let deadline = Instant::now() + STOP_WITHIN;
        for mut task in self.tasks {
            if timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
            }
        }
        if let Some(nodes) = self.nodes
            && let Ok(Err(error)) = timeout(STOP_WITHIN, nodes.leave()).await
        {
            tracing::debug!(%error, "the node could not be removed from the registry");
        }
    }
}

/// Runs a pass at once and then at its pace, one at a time, until told to stop. Survives its failures and its panics.
async fn supervise(pass: Pass, heartbeat: Heartbeat, mut stopped: watch::Receiver<bool>) {
    let (mut next, mut panics) = (Instant::now(), 0_u32);
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            () = sleep_until(next) => {}
        }
        let begun = Instant::now();
        let pause = match AssertUnwindSafe(async { (pass.run)().await }).catch_unwind().await {
            Ok(Ok(())) => {
                panics = 0;
                heartbeat.beat();
                pass.pace
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "background pass failed: {}; running it again",
                    pass.name
                );
                pass.pace.min(AGAIN_WITHIN)
            }
            Err(_) => {
                let pause = FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(panics)).min(MAX_BACKOFF);
                panics = panics.saturating_add(1);
                tracing::error!(panics, "background pass panicked: {}; running it again", pass.name);
                pause
            }
        };
        next = begun + pause;
    }
}

async fn admit(admission: Admission) -> Result<()> {
    let admitted = admission.run().await?;
    if admitted.people > 0 {
        tracing::info!(people = admitted.people, "admitted");
    }
    Ok(())
}

async fn refresh(lines: Lines) -> Result<()> {
    Ok(lines.refresh().await?)
}

async fn give_up(abandonment: Arc<Abandonment>) -> Result<()> {
    let places = abandonment.run().await?;
    if places > 0 {
        tracing::info!(places, "abandoned places given up");
    }
    Ok(())
}

async fn expire(expiry: Expiry) -> Result<()> {
    let expired = expiry.run().await?;
    if expired.tokens + expired.holds > 0 {
        tracing::info!(tokens = expired.tokens, holds = expired.holds, "expired");
    }
    Ok(())
}

async fn prune(pruning: Arc<Pruning>) -> Result<()> {
    let pruned = pruning.run().await?;
    if pruned.tokens + pruned.answers > 0 {
        tracing::info!(tokens = pruned.tokens, answers = pruned.answers, "pruned");
    }
    Ok(())
}

async fn show(seat_maps: SeatMaps) -> Result<()> {
    Ok(seat_maps.refresh().await?)
}

async fn correct(clock: Arc<SystemClock>, backend: Backend) -> Result<()> {
    if !clock.wants_reading() {
        return Ok(());
    }
    let reading = backend.read_clock().await.context("the reference clock could not be read")?;
    match clock.observe(reading) {
        Verdict::Steady | Verdict::Unconfirmed => {}
        Verdict::Suspected(step) => tracing::warn!(
            step_seconds = seconds(step),
            paused = !clock.is_settled(),
            "the reference clock has stepped; the step is not believed before it lasts (ADR 0017)"
        ),
        Verdict::Dismissed => {
            tracing::info!("the step of the reference clock is over; nothing was changed");
        }
        Verdict::Adopted(step) => {
            tracing::warn!(
                step_seconds = seconds(step),
                "the time of the reference clock is confirmed and adopted"
            );
        }
    }
    Ok(())
}

/// Microseconds as whole seconds, for the log.
const fn seconds(micros: i64) -> i64 {
    micros / 1_000_000
}

/// Advisory: no decision depends on the registry of nodes (ADR 0019).
fn comparison(nodes: NodeComparison) -> Pass {
    Pass::new("nodes", NODES_EVERY, move || compare(nodes.clone())).advisory()
}

async fn compare(nodes: NodeComparison) -> Result<()> {
    Ok(nodes.run().await?)
}

/// Not advisory: without it a file that is overwritten is served on (ADR 0020).
fn watch_file(lock: Weak<ServeLock>, backend: Backend) -> Pass {
    Pass::new("database file", FILE_EVERY, move || compare_marker(lock.upgrade(), backend.clone()))
}

/// Compares the marker of a SQLite file that is served. Commits and reads are refused before that is recorded.
async fn compare_marker(lock: Option<Arc<ServeLock>>, backend: Backend) -> Result<()> {
    let Some(lock) = lock else { return Ok(()) };
    let compared = tokio::task::spawn_blocking(move || {
        if lock.has_own_marker() {
            return Ok(());
        }
        backend.distrust_file();
        lock.record_overwritten()?;
        bail!(
            "it was overwritten while it is served: stop the server, and run `frontrow restore` with a backup"
        )
    });
    compared.await.map_err(anyhow::Error::from).flatten().context("the database file cannot be served")
}

/// Advisory: a log without a marker of its own is one protection less at the next start, and nothing else.
fn mark_log(lock: Weak<ServeLock>) -> Pass {
    Pass::new("log marker", FILE_EVERY, move || follow_log(lock.upgrade())).advisory()
}

/// Marks a log of SQLite that has begun anew, as long as the file is served.
async fn follow_log(lock: Option<Arc<ServeLock>>) -> Result<()> {
    let Some(lock) = lock else { return Ok(()) };
    let followed = tokio::task::spawn_blocking(move || lock.follow_log()).await;
    followed.map_err(anyhow::Error::from).flatten().context("the log of the database could not be marked")
}

/// What keeps the keys from being read is logged where it is found, and changes nothing.
async fn read_again(key_set: Arc<KeySetFile>) -> Result<()> {
    tokio::task::spawn_blocking(move || key_set.refresh()).await.context("reading the keys failed")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use frontrow_app::PassAge;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// A pass that does what `run` says at its how manieth run.
    fn pass(name: &'static str, runs: &Arc<AtomicU32>, run: fn(u32) -> Result<()>) -> Pass {
        let runs = runs.clone();
        Pass::new(name, Duration::from_millis(10), move || {
            let count = runs.fetch_add(1, Ordering::SeqCst);
            async move { run(count) }
        })
    }

    async fn reaches(runs: &AtomicU32, count: u32) {
        let reached = async {
            while runs.load(Ordering::SeqCst) < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, reached).await.expect("the pass goes on");
    }

    fn age(heartbeats: &Heartbeats, name: &str) -> Duration {
        let ages = heartbeats.ages();
        ages.iter().find(|pass: &&PassAge| pass.name == name).map(|pass| pass.age).expect("registered")
    }

    #[tokio::test]
    async fn a_pass_that_panics_or_fails_is_run_again() {
        let (heartbeats, runs) = (Heartbeats::default(), Arc::<AtomicU32>::default());
        let twice = pass("twice", &runs, |count| match count {
            0 => panic!("on purpose"),
            1 => anyhow::bail!("on purpose"),
            _ => Ok(()),
        });
        let scheduler = Scheduler::supervising([twice], &heartbeats);
        reaches(&runs, 4).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(age(&heartbeats, "twice") < LONG);
        timeout(LONG, scheduler.stop()).await.expect("it stops");
    }

    #[tokio::test]
    async fn a_pass_that_never_succeeds_grows_old_and_others_do_not() {
        let (heartbeats, [bad, worse, good]) =
            (Heartbeats::default(), std::array::from_fn(|_| Arc::default()));
        let passes = [
            pass("bad", &bad, |_| panic!("on purpose")),
            pass("worse", &worse, |_| anyhow::bail!("on purpose")),
            pass("good", &good, |_| Ok(())),
        ];
        let scheduler = Scheduler::supervising(passes, &heartbeats);
        let started = Instant::now();
        reaches(&bad, 3).await;
        reaches(&worse, 3).await;
        reaches(&good, good.load(Ordering::SeqCst) + 2).await;
        let whole = started.elapsed();
        let [bad, worse, good] = ["bad", "worse", "good"].map(|name| age(&heartbeats, name));
        assert!(bad >= whole && worse >= whole && good < whole, "{bad:?} {worse:?} {good:?} of {whole:?}");
        timeout(LONG, scheduler.stop()).await.expect("it stops");
    }

    #[tokio::test]
    async fn passes_that_the_node_can_serve_without_are_registered_as_advisory() {
        let heartbeats = Heartbeats::default();
        let runs = Arc::<AtomicU32>::default();
        let passes = [mark_log(Weak::new()), pass("needed", &runs, |_| Ok(()))];
        let scheduler = Scheduler::supervising(passes, &heartbeats);
        let advisory: Vec<_> = heartbeats.ages().iter().map(|pass| (pass.name, pass.is_advisory)).collect();
        assert_eq!(advisory, [("log marker", true), ("needed", false)]);
        scheduler.stop().await;
    }

    #[tokio::test]
    async fn a_panic_before_the_first_await_is_caught_as_well() {
        let (heartbeats, runs) = (Heartbeats::default(), Arc::<AtomicU32>::default());
        let counted = runs.clone();
        let run = move || -> std::future::Ready<Result<()>> {
            assert!(counted.fetch_add(1, Ordering::SeqCst) > 0, "on purpose");
            std::future::ready(Ok(()))
        };
        let scheduler =
            Scheduler::supervising([Pass::new("early", Duration::from_millis(10), run)], &heartbeats);
        reaches(&runs, 2).await;
        scheduler.stop().await;
    }
}
