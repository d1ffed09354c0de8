//! A deterministic simulation of frontrow (ADR 0012): the real use cases and the real passes of one to five nodes, put
//! together as the server does it, on the memory adapter, with virtual time and a seeded choice of who goes on. Faults are
//! injected around every port call. All invariants are checked after every unit that is written, and in the end everything
//! must come to rest.
//!
//! It is no part of the product: nothing depends on it.

mod buyer;
mod client;
mod cluster;
mod faults;
mod monitor;
mod mutation;
mod ports;
mod requests;
mod rules;
mod scenario;
mod stage;
mod trace;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use frontrow_infra::Memory;
use frontrow_infra::identity::Secret;

pub use crate::faults::{Counts, Fault};
pub use crate::monitor::Deeds;
pub use crate::mutation::Mutation;

use crate::cluster::Cluster;
use crate::scenario::Scenario;
use crate::world::{About, Owner, World};

/// The server's secret in every run. It protects nothing.
const SECRET: &str = "the secret of a simulation that is no secret";

/// How to run a seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Whether to print what happens.
    pub print: bool,
    /// A protection that is switched off.
    pub mutation: Option<Mutation>,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The first promise that was broken.
    pub violation: Option<String>,
    /// The faults that happened.
    pub faults: Counts,
    /// How many units of work were written.
    pub units: u64,
    /// How many of each kind changed something.
    pub deeds: Deeds,
    /// How long it took in virtual time.
    pub elapsed: Duration,
    /// A digest of every step: the same seed gives the same one.
    pub digest: u64,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, options: Options) -> Report {
    let world = World::new(seed, options.print);
    let ran = catch_unwind(AssertUnwindSafe(|| run_in(&world, options)));
    let (units, deeds) = ran.unwrap_or_else(|_| {
        world.violate("a task panicked");
        (0, Deeds::new())
    });
    Report {
        seed,
        violation: world.violation(),
        faults: world.counts(),
        units,
        deeds,
        elapsed: world.elapsed(),
        digest: world.digest(),
    }
}

fn run_in(world: &World, options: Options) -> (u64, Deeds) {
    let Ok(secret) = Secret::new(SECRET) else { return (0, Deeds::new()) };
    let scenario = Scenario::drawn(world);
    world.note(format_args!("{scenario}"));
    let longest = scenario.longest();
    let memory = Arc::new(Memory::new());
    let cluster = Cluster::new(
        world.clone(),
        memory,
        scenario.rules,
        scenario.past_deadline(),
        options.mutation,
        secret,
    );
    let cluster = Arc::new(cluster);
    world.spawn(About::of(Owner::Outside), stage::play(cluster.clone(), scenario));
    world.run(longest);
    (cluster.monitor.units(), cluster.monitor.deeds())
}
