//! What runs by itself: this node's views of the lines and its seat maps, admission, abandoned places, expiry, pruning, and
//! on PostgreSQL the correction of the clock; and a look at the keys of an outside identity provider. Any number of nodes may
//! run it.

use std::sync::Arc;
use std::time::Duration;

use frontrow_app::{Abandonment, Admission, Expiry, Lines, Pruning, SeatMaps};
use frontrow_infra::identity::{KeySetFile, SystemClock};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::backend::Backend;

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
/// How often the clock is compared with the database's.
const CLOCK_EVERY: Duration = Duration::from_secs(10);
/// How often the keys of an outside identity provider are read again.
const KEY_SET_EVERY: Duration = Duration::from_secs(2);
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
    /// Does it once.
    pub run: Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
}

impl Pass {
    fn new<F: Future<Output = ()> + Send + 'static>(
        name: &'static str,
        pace: Duration,
        run: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self { name, pace, run: Box::new(move || run().boxed()) }
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
            Pass::new("admission", ADMISSION_EVERY, move || admit(admission.clone())),
            Pass::new("abandonment", ABANDONMENT_EVERY, move || give_up(abandonment.clone())),
            Pass::new("expiry", EXPIRY_EVERY, move || expire(expiry.clone())),
            Pass::new("seat maps", SEAT_MAPS_EVERY, move || show(seat_maps.clone())),
            Pass::new("pruning", PRUNING_EVERY, move || prune(pruning.clone())),
        ]
    }
}

/// The tasks that run by themselves.
pub struct Scheduler {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Scheduler {
    /// Starts them.
    #[must_use]
    pub fn start(
        work: Work,
        clock: Arc<SystemClock>,
        backend: Backend,
        key_set: Option<Arc<KeySetFile>>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let clock = Pass::new("clock", CLOCK_EVERY, move || correct(clock.clone(), backend.clone()));
        let key_set =
            key_set.map(|file| Pass::new("key set", KEY_SET_EVERY, move || read_again(file.clone())));
        let passes = work.passes().into_iter().chain([clock]).chain(key_set);
        let tasks = passes.map(|pass| tokio::spawn(every(pass, stopped.clone()))).collect();
        Self { stop, tasks }
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
    }
}

/// Runs a pass at once and then at its pace, one at a time, until told to stop.
async fn every(pass: Pass, mut stopped: watch::Receiver<bool>) {
    let mut ticks = interval(pass.pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            _ = ticks.tick() => (pass.run)().await,
        }
    }
}

async fn admit(admission: Admission) {
    match admission.run().await {
        Ok(admitted) if admitted.people > 0 => tracing::info!(people = admitted.people, "admitted"),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "rooms could not be read; trying again"),
    }
}

async fn refresh(lines: Lines) {
    if let Err(error) = lines.refresh().await {
        tracing::warn!(%error, "the lines could not be read; trying again");
    }
}

async fn give_up(abandonment: Arc<Abandonment>) {
    match abandonment.run().await {
        Ok(places) if places > 0 => tracing::info!(places, "abandoned places given up"),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "abandoned places could not be looked for; trying again"),
    }
}

async fn expire(expiry: Expiry) {
    match expiry.run().await {
        Ok(expired) if expired.tokens + expired.holds > 0 => {
            tracing::info!(tokens = expired.tokens, holds = expired.holds, "expired");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "expiry failed; trying again"),
    }
}

async fn prune(pruning: Arc<Pruning>) {
    match pruning.run().await {
        Ok(pruned) if pruned.tokens + pruned.answers > 0 => {
            tracing::info!(tokens = pruned.tokens, answers = pruned.answers, "pruned");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "pruning failed; trying again"),
    }
}

/// What keeps it from being done is warned of by those who want seats.
async fn show(seat_maps: SeatMaps) {
    if let Err(error) = seat_maps.refresh().await {
        tracing::debug!(%error, "seat maps could not be brought up to date; trying again");
    }
}

async fn correct(clock: Arc<SystemClock>, backend: Backend) {
    match backend.clock_offset_micros().await {
        Ok(Some(offset)) => clock.correct(offset),
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "the database's clock could not be read; trying again"),
    }
}

/// What keeps the keys from being read is logged where it is found, and changes nothing.
async fn read_again(key_set: Arc<KeySetFile>) {
    let _ = tokio::task::spawn_blocking(move || key_set.refresh()).await;
}
