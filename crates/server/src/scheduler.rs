//! What runs by itself: this node's views of the lines and its seat maps, admission, abandoned places, expiry, pruning, and
//! on PostgreSQL the correction of the clock. Any number of nodes may run it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use frontrow_app::{Abandonment, Admission, Expiry, Lines, Pruning, SeatMaps};
use frontrow_infra::identity::SystemClock;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

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
/// How long a pass that runs may take to finish when the server stops.
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

/// The tasks that run by themselves.
pub struct Scheduler {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Scheduler {
    /// Starts them.
    #[must_use]
    pub fn start(work: Work, clock: Arc<SystemClock>, backend: Backend) -> Self {
        let Work { admission, expiry, lines, abandonment, seat_maps, pruning } = work;
        let (abandonment, pruning) = (Arc::new(abandonment), Arc::new(pruning));
        let (stop, stopped) = watch::channel(false);
        let lines = every(LINES_EVERY, stopped.clone(), move || refresh(lines.clone()));
        let abandonment = every(ABANDONMENT_EVERY, stopped.clone(), move || give_up(abandonment.clone()));
        let admission = every(ADMISSION_EVERY, stopped.clone(), move || admit(admission.clone()));
        let expiry = every(EXPIRY_EVERY, stopped.clone(), move || expire(expiry.clone()));
        let seat_maps = every(SEAT_MAPS_EVERY, stopped.clone(), move || show(seat_maps.clone()));
        let pruning = every(PRUNING_EVERY, stopped.clone(), move || prune(pruning.clone()));
        let clock = every(CLOCK_EVERY, stopped, move || correct(clock.clone(), backend.clone()));
        let tasks = vec![
            tokio::spawn(lines),
            tokio::spawn(admission),
            tokio::spawn(abandonment),
            tokio::spawn(expiry),
            tokio::spawn(seat_maps),
            tokio::spawn(pruning),
            tokio::spawn(clock),
        ];
        Self { stop, tasks }
    }

    /// Lets the passes that run finish, within a bound.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        for mut task in self.tasks {
            if timeout(STOP_WITHIN, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

/// Runs `pass` at once and then at this pace, one at a time, until told to stop.
async fn every<F: Future<Output = ()>>(
    pace: Duration,
    mut stopped: watch::Receiver<bool>,
    mut pass: impl FnMut() -> F,
) {
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            _ = ticks.tick() => pass().await,
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
