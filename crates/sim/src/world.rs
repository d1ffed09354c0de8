//! The world of a run: virtual time, tasks, and the one source of chance. One thread, no real time: the same seed takes the
//! same steps.
//!
//! Chance picks which ready task goes on, one step at a time. Time stands still while anything is ready, and then jumps to
//! the next timer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use frontrow_domain::Timestamp;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::{Builder, Uuid};

use crate::faults::{Counts, Fault, Plan};
use crate::trace::Trace;

/// When every run begins: 2026-11-22T20:00:00Z, in microseconds since 1970.
const BEGINNING: i64 = 1_795_377_600_000_000;

/// Whose task it is. A crash takes all tasks of a node with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// Whoever is outside: buyers, operators, chance.
    Outside,
    /// A node, from one of its starts to the crash.
    Node(NodeRun),
}

/// A node from a start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeRun {
    /// Which node.
    pub(crate) node: usize,
    /// How often it was started before.
    pub(crate) start: u32,
}

impl fmt::Display for NodeRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}.{}", self.node, self.start)
    }
}

/// One arrival of a request at a node, and the request that it is an attempt of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attempt {
    /// What somebody wants once, however often it is sent.
    pub(crate) request: u64,
    /// Which arrival.
    pub(crate) arrival: u64,
}

/// What a task is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    pub(crate) owner: Owner,
    /// The request that is served, if any.
    pub(crate) attempt: Option<Attempt>,
    /// The future is dropped after so many steps.
    pub(crate) steps_left: Option<u64>,
}

impl About {
    pub(crate) const fn of(owner: Owner) -> Self {
        Self { owner, attempt: None, steps_left: None }
    }
}

/// Cloning shares it.
#[derive(Clone)]
pub(crate) struct World {
    core: Arc<Mutex<Core>>,
    ready: Ready,
}

struct Core {
    now: u64,
    chance: StdRng,
    last_number: u64,
    timers: BinaryHeap<Reverse<Timer>>,
    spawned: Vec<(About, BoxFuture<'static, ()>)>,
    crashed: Vec<NodeRun>,
    current: Option<About>,
    trace: Trace,
    plan: Plan,
    counts: Counts,
    violation: Option<String>,
    /// What everybody who is outside does.
    doing: BTreeMap<String, &'static str>,
    is_over: bool,
}

/// Which tasks can go on.
type Ready = Arc<Mutex<Vec<u64>>>;

struct Timer {
    at: u64,
    number: u64,
    waker: Waker,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

struct Alarm {
    task: u64,
    ready: Ready,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        let mut ready = lock(&self.ready);
        if !ready.contains(&self.task) {
            ready.push(self.task);
        }
    }
}

/// Nothing that is done under these locks can panic half way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(seed: u64, print: bool) -> Self {
        let core = Core {
            now: 0,
            chance: StdRng::seed_from_u64(seed),
            last_number: 0,
            timers: BinaryHeap::new(),
            spawned: Vec::new(),
            crashed: Vec::new(),
            current: None,
            trace: Trace::new(print),
            plan: Plan::calm(),
            counts: Counts::default(),
            violation: None,
            doing: BTreeMap::new(),
            is_over: false,
        };
        Self { core: Arc::new(Mutex::new(core)), ready: Ready::default() }
    }
}

/// Time.
impl World {
    /// How long the run has lasted.
    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_micros(lock(&self.core).now)
    }

    /// The time by a clock that is so many microseconds ahead.
    pub(crate) fn time(&self, ahead: i64) -> Timestamp {
        let now = i64::try_from(lock(&self.core).now).unwrap_or(i64::MAX);
        let micros = BEGINNING.saturating_add(now).saturating_add(ahead);
        Timestamp::from_unix_micros(micros).unwrap_or(Timestamp::MAX)
    }

    /// Ends at once, but only after others had their turn.
    pub(crate) async fn pause(&self) {
        let mut has_paused = false;
        poll_fn(|context| {
            if has_paused {
                return Poll::Ready(());
            }
            has_paused = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    pub(crate) async fn sleep(&self, time: Duration) {
        self.sleep_until(self.elapsed().saturating_add(time)).await;
    }

    pub(crate) async fn sleep_until(&self, elapsed: Duration) {
        let at = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        poll_fn(|context| {
            let mut core = lock(&self.core);
            if core.now >= at {
                return Poll::Ready(());
            }
            let number = core.next_number();
            core.timers.push(Reverse(Timer { at, number, waker: context.waker().clone() }));
            Poll::Pending
        })
        .await;
    }
}

/// Chance.
impl World {
    /// A number below `bound`; 0 where there is none.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { lock(&self.core).chance.random_range(0..bound) }
    }

    /// A number from `least` to `most`.
    pub(crate) fn between(&self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least).saturating_add(1))
    }

    pub(crate) fn chance(&self, probability: f64) -> bool {
        lock(&self.core).chance.random_bool(probability.clamp(0.0, 1.0))
    }

    pub(crate) fn pick<'a, T>(&self, items: &'a [T]) -> Option<&'a T> {
        let nth = self.below(u64::try_from(items.len()).unwrap_or(0));
        items.get(usize::try_from(nth).unwrap_or(0))
    }

    pub(crate) fn millis(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.between(least, most))
    }

    /// A UUID v7 of this time.
    pub(crate) fn id(&self, time: Timestamp) -> Uuid {
        let bytes: [u8; 10] = lock(&self.core).chance.random();
        let millis = u64::try_from(time.unix_micros() / 1_000).unwrap_or(0);
        Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
    }

    /// A number that was never given before.
    pub(crate) fn number(&self) -> u64 {
        lock(&self.core).next_number()
    }
}

/// Faults.
impl World {
    pub(crate) fn set_plan(&self, plan: Plan) {
        lock(&self.core).plan = plan;
    }

    /// Whether this fault is to happen here. Whoever makes it happen counts it.
    pub(crate) fn strikes(&self, fault: Fault) -> bool {
        let mut core = lock(&self.core);
        let probability = core.plan.probability(fault);
        probability > 0.0 && core.chance.random_bool(probability)
    }

    pub(crate) fn count(&self, fault: Fault) {
        lock(&self.core).counts.add(fault);
    }

    pub(crate) fn counts(&self) -> Counts {
        lock(&self.core).counts.clone()
    }

    /// A promise is broken: the run ends.
    pub(crate) fn violate(&self, what: impl fmt::Display) {
        let mut core = lock(&self.core);
        let now = core.now;
        core.trace.event(now, format_args!("VIOLATION: {what}"));
        core.violation.get_or_insert_with(|| what.to_string());
    }

    /// What somebody does now, for whoever wants to know who waits for ever; nothing when he is done.
    pub(crate) fn doing(&self, who: &str, what: Option<&'static str>) {
        let mut core = lock(&self.core);
        match what {
            Some(what) => drop(core.doing.insert(who.to_owned(), what)),
            None => drop(core.doing.remove(who)),
        }
    }

    /// Whether everybody is done.
    pub(crate) fn is_quiet(&self) -> bool {
        lock(&self.core).doing.is_empty()
    }

    pub(crate) fn violation(&self) -> Option<String> {
        lock(&self.core).violation.clone()
    }

    pub(crate) fn note(&self, event: fmt::Arguments<'_>) {
        let mut core = lock(&self.core);
        let now = core.now;
        core.trace.event(now, event);
    }

    /// A digest of all that has happened.
    pub(crate) fn digest(&self) -> u64 {
        lock(&self.core).trace.digest()
    }
}

/// Tasks.
impl World {
    pub(crate) fn spawn(&self, about: About, task: impl Future<Output = ()> + Send + 'static) {
        lock(&self.core).spawned.push((about, Box::pin(task)));
    }

    /// The task that takes a step.
    pub(crate) fn current(&self) -> Option<About> {
        lock(&self.core).current
    }

    /// Drops all tasks of a node, once the task that asks for it has taken its step.
    pub(crate) fn crash(&self, run: NodeRun) {
        lock(&self.core).crashed.push(run);
    }

    /// Ends the run.
    pub(crate) fn end(&self) {
        lock(&self.core).is_over = true;
    }

    /// Takes steps until the run ends, a promise is broken, or `longest` is over.
    pub(crate) fn run(&self, longest: Duration) {
        let mut tasks: BTreeMap<u64, (About, BoxFuture<'static, ()>, Waker)> = BTreeMap::new();
        loop {
            self.take_over(&mut tasks);
            let crashed = std::mem::take(&mut lock(&self.core).crashed);
            for run in crashed {
                tasks.retain(|_, (about, ..)| about.owner != Owner::Node(run));
            }
            if let Some(task) = self.next_ready() {
                self.step(task, &mut tasks);
            } else if !self.pass_time() {
                self.violate("nobody has anything left to do, and the run is not over");
            }
            if self.elapsed() > longest {
                let doing = lock(&self.core).doing.clone();
                self.violate(format_args!("somebody waits for ever: {doing:?}"));
            }
            let core = lock(&self.core);
            if core.is_over || core.violation.is_some() {
                break;
            }
        }
        // Nobody may be told of what goes with the tasks.
        tasks.clear();
        let spawned = std::mem::take(&mut lock(&self.core).spawned);
        drop(spawned);
        lock(&self.core).timers.clear();
    }

    fn take_over(&self, tasks: &mut BTreeMap<u64, (About, BoxFuture<'static, ()>, Waker)>) {
        let mut core = lock(&self.core);
        for (about, future) in std::mem::take(&mut core.spawned) {
            let task = core.next_number();
            let waker = Waker::from(Arc::new(Alarm { task, ready: self.ready.clone() }));
            waker.wake_by_ref();
            tasks.insert(task, (about, future, waker));
        }
    }

    fn next_ready(&self) -> Option<u64> {
        let mut ready = lock(&self.ready);
        if ready.is_empty() {
            return None;
        }
        let nth = lock(&self.core).chance.random_range(0..ready.len());
        Some(ready.swap_remove(nth))
    }

    fn step(&self, task: u64, tasks: &mut BTreeMap<u64, (About, BoxFuture<'static, ()>, Waker)>) {
        let Some((about, future, waker)) = tasks.get_mut(&task) else { return };
        if about.steps_left == Some(0) {
            self.count(Fault::DroppedRequest);
            self.note(format_args!("{:?}: a request is dropped", about.owner));
            tasks.remove(&task);
            return;
        }
        about.steps_left = about.steps_left.map(|left| left - 1);
        {
            let mut core = lock(&self.core);
            core.current = Some(*about);
            let now = core.now;
            core.trace.step(now, task);
        }
        let done = future.as_mut().poll(&mut Context::from_waker(waker)).is_ready();
        lock(&self.core).current = None;
        if done {
            tasks.remove(&task);
        }
    }

    /// Jumps to the next timer. False when there is none.
    fn pass_time(&self) -> bool {
        let mut core = lock(&self.core);
        let Some(Reverse(first)) = core.timers.pop() else { return false };
        core.now = core.now.max(first.at);
        let mut woken = vec![first.waker];
        while core.timers.peek().is_some_and(|Reverse(timer)| timer.at <= core.now) {
            woken.extend(core.timers.pop().map(|Reverse(timer)| timer.waker));
        }
        drop(core);
        woken.into_iter().for_each(Waker::wake);
        true
    }
}

impl Core {
    const fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of two tasks is first, by seed.
    fn first(seed: u64) -> u64 {
        let world = World::new(seed, false);
        let order = Arc::new(Mutex::new(Vec::new()));
        for task in [1, 2] {
            let (world, order) = (world.clone(), order.clone());
            world.clone().spawn(About::of(Owner::Outside), async move {
                world.pause().await;
                lock(&order).push(task);
                if lock(&order).len() == 2 {
                    world.end();
                }
            });
        }
        world.run(Duration::from_secs(1));
        lock(&order)[0]
    }

    #[test]
    fn chance_decides_who_is_first_and_a_seed_decides_chance() {
        let firsts: Vec<u64> = (0..20).map(first).collect();
        assert!(firsts.contains(&1) && firsts.contains(&2));
        assert_eq!(firsts, (0..20).map(first).collect::<Vec<u64>>());
    }

    #[test]
    fn time_jumps_and_a_crash_drops_the_tasks_of_a_node() {
        let world = World::new(0, false);
        let run = NodeRun { node: 1, start: 0 };
        let (alive, gone) = (world.clone(), world.clone());
        world.spawn(About::of(Owner::Node(run)), async move {
            gone.sleep(Duration::from_secs(3_600)).await;
            gone.violate("a crashed node went on");
        });
        world.spawn(About::of(Owner::Outside), async move {
            alive.crash(run);
            alive.sleep(Duration::from_secs(7_200)).await;
            alive.end();
        });
        world.run(Duration::from_secs(10_000));
        assert_eq!((world.violation(), world.elapsed()), (None, Duration::from_secs(7_200)));
    }

    #[test]
    fn whoever_waits_for_ever_is_found() {
        let world = World::new(0, false);
        world.spawn(About::of(Owner::Outside), std::future::pending());
        world.run(Duration::from_secs(1));
        assert!(
            world.violation().unwrap().contains("nothing") || world.violation().unwrap().contains("nobody")
        );
    }
}
