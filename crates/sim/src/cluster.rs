//! The nodes of a run, each put together as the server does it; the way to them; and what happens to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use frontrow::app::{self, Identity, Rules};
use frontrow::scheduler::Pass;
use frontrow_app::{HoldRules, UseCases};
use frontrow_domain::account::WalletCharging;
use frontrow_infra::identity::{AccessKeys, Secret, VerifiedTokens, WaitTokens};
use frontrow_infra::{Memory, Storage};
use tokio::sync::oneshot;

use crate::faults::Fault;
use crate::monitor::Monitor;
use crate::mutation::Mutation;
use crate::ports::{DrawnIds, NodeClock, NodePorts};
use crate::stage::Stage;
use crate::world::{About, Attempt, NodeRun, Owner, World};

/// How far a clock may be wrong, in microseconds.
pub(crate) const MOST_SKEW_MICROS: i64 = 2_000_000;
/// The most steps that the future of a request takes before it is dropped, when it is.
const STEPS: u64 = 40;

/// The nodes. One for a run.
pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) monitor: Arc<Monitor>,
    memory: Storage,
    rules: HoldRules,
    secret: Secret,
    mutation: Option<Mutation>,
    past_deadline: Duration,
    nodes: Mutex<BTreeMap<usize, Node>>,
}

#[derive(Clone)]
struct Node {
    run: NodeRun,
    /// None while it is down.
    use_cases: Option<UseCases>,
}

/// What came back of a request.
pub(crate) struct Heard<T> {
    pub(crate) attempt: Attempt,
    /// The node that it was sent to, if that was up.
    pub(crate) run: Option<NodeRun>,
    /// None when the connection broke.
    pub(crate) answer: Option<T>,
}

impl Cluster {
    pub(crate) fn new(
        world: World,
        memory: Arc<Memory>,
        rules: HoldRules,
        past_deadline: Duration,
        mutation: Option<Mutation>,
        secret: Secret,
    ) -> Self {
        let max_seats = usize::try_from(rules.max_seats_per_user).unwrap_or(usize::MAX);
        let monitor = Arc::new(Monitor::new(world.clone(), memory.clone(), max_seats));
        let (memory, nodes) = (Storage::new(memory), Mutex::default());
        Self { world, monitor, memory, rules, secret, mutation, past_deadline, nodes }
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<usize, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a node for the first time or after a crash: it knows nothing but what is stored.
    pub(crate) fn start(&self, node: usize) -> UseCases {
        let start = self.nodes().get(&node).map_or(0, |down| down.run.start + 1);
        let (world, run) = (self.world.clone(), NodeRun { node, start });
        let mut ahead_micros = 0;
        if world.strikes(Fault::ClockSkew) {
            world.count(Fault::ClockSkew);
            let spread = world.below(2 * MOST_SKEW_MICROS.unsigned_abs() + 1);
            ahead_micros = i64::try_from(spread).unwrap_or(0) - MOST_SKEW_MICROS;
        }
        world.note(format_args!("{run} starts, its clock {ahead_micros} microseconds ahead"));
        let clock = NodeClock { world: world.clone(), ahead_micros };
        let ports = NodePorts {
            run,
            clock: clock.clone(),
            storage: self.memory.clone(),
            monitor: self.monitor.clone(),
            mutation: self.mutation,
            past_deadline: self.past_deadline,
        };
        let identity = Identity {
            access_tokens: Arc::new(VerifiedTokens::new(AccessKeys::own(&self.secret))),
            wait_tokens: Arc::new(WaitTokens::new(&self.secret)),
            clock: Arc::new(clock.clone()),
            ids: Arc::new(DrawnIds(clock)),
        };
        // Longer than any run: what has been is compared with what is.
        let keep_tokens_for = u32::MAX;
        let rules = Rules { holds: self.rules, charging: WalletCharging::default(), keep_tokens_for };
        let app::Node { use_cases, work } = app::Node::new(ports.storage(), &identity, rules);
        for pass in work.passes() {
            world.spawn(About::of(Owner::Node(run)), over_and_over(world.clone(), pass));
        }
        self.nodes().insert(node, Node { run, use_cases: Some(use_cases.clone()) });
        use_cases
    }

    /// Ends a node at once, wherever it is. False when it is down.
    pub(crate) fn crash(&self, node: usize) -> bool {
        let mut nodes = self.nodes();
        let Some(up) = nodes.get_mut(&node).filter(|node| node.use_cases.is_some()) else { return false };
        up.use_cases = None;
        let run = up.run;
        drop(nodes);
        self.world.note(format_args!("{run} crashes"));
        self.world.crash(run);
        true
    }

    pub(crate) fn size(&self) -> usize {
        self.nodes().len()
    }

    /// Any node, up or down.
    pub(crate) fn any(&self) -> usize {
        let nodes: Vec<usize> = self.nodes().keys().copied().collect();
        self.world.pick(&nodes).copied().unwrap_or(0)
    }

    /// Sends a request to a node, and waits for its answer, or for the end of the connection.
    pub(crate) async fn send<T, F>(
        &self,
        node: usize,
        request: u64,
        handler: impl FnOnce(UseCases) -> F,
    ) -> Heard<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let world = &self.world;
        let attempt = Attempt { request, arrival: world.number() };
        world.sleep(world.millis(0, 10)).await;
        let up = self.nodes().get(&node).cloned();
        let Some((run, use_cases)) = up.and_then(|node| Some((node.run, node.use_cases?))) else {
            return Heard { attempt, run: None, answer: None };
        };
        let steps_left = world.strikes(Fault::DroppedRequest).then(|| world.below(STEPS));
        let about = About { owner: Owner::Node(run), attempt: Some(attempt), steps_left };
        let (tell, told) = oneshot::channel();
        let answer = handler(use_cases);
        world.spawn(about, async move {
            // Whoever asked may have gone away.
            let _ = tell.send(answer.await);
        });
        Heard { attempt, run: Some(run), answer: told.await.ok() }
    }
}

/// As the server's scheduler does it: at once, and then at this pace, one at a time.
async fn over_and_over(world: World, pass: Pass) {
    loop {
        let began = world.elapsed();
        // One that fails is run again at its pace.
        let _ = (pass.run)().await;
        world.sleep_until(began.saturating_add(pass.pace)).await;
        // However long a pass took, others have their turn.
        world.pause().await;
    }
}

/// Crashes, restarts and outages, until the storm is over; then all nodes are up and storage is there.
pub(crate) async fn havoc(cluster: Arc<Cluster>, stage: Arc<Stage>) {
    let (world, until) = (cluster.world.clone(), stage.calm_from);
    loop {
        world.sleep(stage.scenario.rest(&world)).await;
        if world.elapsed() >= until {
            return;
        }
        if world.strikes(Fault::Outage) {
            world.count(Fault::Outage);
            let end = world.elapsed().saturating_add(world.millis(500, 8_000)).min(until);
            let everywhere = world.chance(0.5);
            let one = cluster.any();
            world
                .note(format_args!("storage is away until {end:?}, everywhere: {everywhere}, or from {one}"));
            for node in 0..cluster.size() {
                if everywhere || node == one {
                    cluster.monitor.set_away(node, end);
                }
            }
        }
        let node = cluster.any();
        if world.strikes(Fault::Crash) && cluster.crash(node) {
            world.count(Fault::Crash);
            let (world, cluster) = (world.clone(), cluster.clone());
            let down = world.millis(100, 5_000);
            world.clone().spawn(About::of(Owner::Outside), async move {
                world.sleep(down).await;
                world.count(Fault::Restart);
                cluster.start(node);
            });
        }
    }
}
