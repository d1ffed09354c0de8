//! STORM: ten times as many requests as can be served, by people who join, hold and pay, and the time after.
//!
//! Each database is measured twice. As it is, what limits the server is the processors that it shares with the generator,
//! and the two cannot exchange ten times as many requests. Writing few at a time, it is limited by its storage, and has
//! processors left to refuse with.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Stores;
use crate::bench::{Bench, MANY, Store};
use crate::http::{Answer, request};
use crate::load::{Load, Outcome, Pace, Requests, Source};
use crate::node::Node;
use crate::report::{Aim, Report};
use crate::seed::{Crowd, Kind, Venue, id};
use crate::stats::figure;
use crate::usage::resident_bytes;

const BAR: &str = "STORM";
/// More requests a second than are served; so many are prepared for times at capacity.
const MOST_A_SECOND: f64 = 30_000.0;
/// More requests a second than one thread sends and this machine answers.
const MOST_IN_A_STORM: f64 = 60_000.0;
/// How many clients are served at capacity: as many as may be under way in any storm.
const CLIENTS: usize = 2 * MANY;
/// How many connections the storm comes by.
const STORM_CONNECTIONS: usize = 12 * MANY;
/// The right answers: paid, held or joined, and refused for the moment.
const EXPECTED: [u16; 3] = [200, 201, 503];
/// Within this time all is as before.
const RECOVERED_WITHIN: Duration = Duration::from_secs(5);
/// How long is looked at, to see whether it is, after as long in which clients come.
const LOOK: Duration = Duration::from_millis(500);
/// By how many clients: so few that none is refused, whatever he wants, however tight the limit is.
const LOOKERS: usize = CLIENTS * 5 / 8;
/// What is full speed: the generator shares the machine.
const FULL_SPEED: f64 = 0.9;

pub(super) fn ten_times_capacity(bench: &Bench, stores: &mut Stores, report: &mut Report) -> Result<()> {
    let by_four = ["--group-commit-limit", "4"];
    measure(bench, stores.postgres(bench)?, "PostgreSQL", &[], report)?;
    measure(bench, stores.postgres(bench)?, "PostgreSQL four by four", &by_four, report)?;
    let by_one = ["--group-commit-limit", "1"];
    measure(bench, stores.sqlite(bench)?, "SQLite", &[], report)?;
    measure(bench, stores.sqlite(bench)?, "SQLite one by one", &by_one, report)
}

fn measure(
    bench: &Bench,
    store: &mut Store,
    name: &str,
    options: &[&str],
    report: &mut Report,
) -> Result<()> {
    let mut crowds = Crowds::new(bench, store)?;
    let node = bench.serve_until(store, options, "/readyz")?;
    let base = bench.load(&node, store, CLIENTS, &EXPECTED)?;

    let mut mix = crowds.next(bench, bench.enough_for(MOST_A_SECOND))?;
    let closed = base.run(&mut mix)?;
    let capacity = accepted(&closed);
    report.outcome(BAR, &format!("capacity, {name}"), "a second", capacity, &closed);
    let times_capacity =
        |times| Load { pace: Pace::Storm(capacity * times), connections: STORM_CONNECTIONS, ..base };

    let mut mix = crowds.next(bench, bench.enough_for(capacity.min(MOST_A_SECOND)))?;
    let calm = times_capacity(1.0).run(&mut mix)?;
    report.outcome(BAR, &format!("accepted at capacity, {name}"), "a second", accepted(&calm), &calm);
    let before = megabytes(&node)?;

    let mut mix = crowds.next(bench, bench.enough_for((capacity * 10.0).min(MOST_IN_A_STORM)))?;
    let storm = times_capacity(10.0);
    let (outcome, during) = watching_memory(&node, || storm.run(&mut mix))?;
    let calmed_at = Instant::now();

    let row = |what: &str| format!("{what} in the storm, {name}");
    report.outcome(BAR, &row("accepted"), "a second", accepted(&outcome), &outcome);
    let sent = figure(outcome.answers) / outcome.elapsed.as_secs_f64();
    report.value(BAR, &row("sent, in times of capacity"), "ratio", sent / capacity);
    // At capacity a line stands and falls as requests happen to come; clients who wait for their answers make none.
    for (at_capacity, outcome_then) in [("p99 at capacity", &calm), ("p99 of 512 clients", &closed)] {
        report.ratio(
            BAR,
            &row(&format!("p99 of accepted / {at_capacity}")),
            outcome.milliseconds(99.0) / outcome_then.milliseconds(99.0),
            Aim::AtMost(2.0),
        );
    }
    for percentile in [50.0, 99.0] {
        let late = figure(outcome.refusals.value_at_percentile(percentile)) / 1_000.0;
        let aim = Aim::AtMost(10.0);
        report.aimed(BAR, &row(&format!("p{percentile} of refusals")), "ms", late, aim);
    }
    for (kind, count) in [("paid", mix.paid), ("held", mix.held), ("joined", mix.joined)] {
        report.value(BAR, &row(kind), "requests", figure(count));
    }
    ensure!(!outcome.refusals.is_empty(), "nobody was refused: this was no storm");
    ensure!(mix.paid >= mix.held, "{} paid and {} held: who pays goes first", mix.paid, mix.held);

    let seconds = recovery(bench, &mut crowds, &base, capacity, calmed_at)?;
    report.aimed(
        BAR,
        &format!("full speed after, {name}"),
        "s",
        seconds,
        Aim::AtMost(RECOVERED_WITHIN.as_secs_f64()),
    );
    let after = megabytes(&node)?;
    for (when, value) in [("before", before), ("at most during", during), ("after", after)] {
        report.value(BAR, &format!("resident {when}, {name}"), "MB", value);
    }
    report.ratio(BAR, &format!("resident after / before, {name}"), after / before, Aim::AtMost(1.5));
    Ok(())
}

/// Requests a second that were done.
fn accepted(outcome: &Outcome) -> f64 {
    figure(outcome.latency.len()) / outcome.elapsed.as_secs_f64()
}

fn megabytes(node: &Node) -> Result<f64> {
    Ok(figure(resident_bytes(node.pid())?) / 1e6)
}

/// Runs a load, and says how much memory the server had at most meanwhile.
fn watching_memory(node: &Node, run: impl FnOnce() -> Result<Outcome>) -> Result<(Outcome, f64)> {
    let (is_over, pid) = (AtomicBool::new(false), node.pid());
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(resident_bytes(pid).unwrap_or(0));
                thread::sleep(Duration::from_millis(50));
            }
            most
        });
        let outcome = run();
        is_over.store(true, Ordering::Relaxed);
        let most = watcher.join().ok().context("the watcher of memory panicked")?;
        Ok((outcome?, figure(most) / 1e6))
    })
}

/// How many seconds after the storm it is as fast as before; more than allowed when it is not within that time.
fn recovery(
    bench: &Bench,
    crowds: &mut Crowds,
    base: &Load<'_>,
    capacity: f64,
    calmed_at: Instant,
) -> Result<f64> {
    let look = Load { warm_up: LOOK, duration: LOOK, connections: LOOKERS, ..*base };
    while calmed_at.elapsed() < RECOVERED_WITHIN * 2 {
        let begun = calmed_at.elapsed().as_secs_f64();
        let mut mix = crowds.next(bench, MOST_OF_A_LOOK)?;
        if accepted(&look.run(&mut mix)?) >= capacity * FULL_SPEED {
            return Ok(begun);
        }
    }
    Ok(calmed_at.elapsed().as_secs_f64())
}

/// Requests for one look.
const MOST_OF_A_LOOK: u64 = 30_000;
/// How many looks there are at most.
const LOOKS: u64 = 10;

/// People of three kinds, as many of each. Nobody comes twice.
struct Crowds {
    payers: Range<u64>,
    holders: Range<u64>,
    venue_of_holders: Venue,
    newcomers: Range<u64>,
    line: u64,
}

impl Crowds {
    /// All that a run needs, written while no server runs.
    fn new(bench: &Bench, store: &mut Store) -> Result<Self> {
        let most =
            2 * bench.enough_for(MOST_A_SECOND) + bench.enough_for(MOST_IN_A_STORM) + LOOKS * MOST_OF_A_LOOK;
        let of_each = most / 3 + 3;
        let payers = bench.fill(store, of_each, of_each, Crowd::Holding)?;
        let holders = bench.fill(store, of_each, of_each, Crowd::Active)?;
        let line = bench.fill(store, 0, 0, Crowd::Waiting)?.number;
        let newcomers = Bench::newcomers(store, of_each);
        let (payers, venue_of_holders) = (payers.buyers(), holders);
        Ok(Self { payers, holders: venue_of_holders.buyers(), venue_of_holders, newcomers, line })
    }

    /// So many requests, by payers, holders and newcomers in turn.
    fn next(&mut self, bench: &Bench, requests: u64) -> Result<Mix> {
        let of_each = requests / 3;
        let payments = bench.payments_of(taken(&mut self.payers, of_each))?;
        let holds = bench.holds_of(&self.venue_of_holders, taken(&mut self.holders, of_each))?;
        let body = format!("{{\"concertId\":\"{}\"}}", id(Kind::Concert, self.line));
        let join = |person| {
            let bearer = bench.mint.bearer(person)?;
            Ok(request("POST", "/queue", &[("Authorization", &bearer)], Some(&body)))
        };
        let joins: Vec<_> = taken(&mut self.newcomers, of_each).map(join).collect::<Result<_>>()?;
        let in_turn =
            payments.into_iter().zip(holds).zip(joins).flat_map(|((pay, hold), join)| [pay, hold, join]);
        Ok(Mix { requests: Requests::once(in_turn), paid: 0, held: 0, joined: 0 })
    }
}

fn taken(people: &mut Range<u64>, count: u64) -> Range<u64> {
    let first = people.start;
    people.start = people.end.min(first + count);
    first..people.start
}

/// Requests of all three kinds, which sees what becomes of them.
struct Mix {
    requests: Requests,
    paid: u64,
    held: u64,
    joined: u64,
}

impl Source for Mix {
    fn next(&mut self, into: &mut Vec<u8>) -> bool {
        self.requests.next(into)
    }

    /// A payment is 200; a hold and a place in a line are 201, the place with its token.
    fn answered(&mut self, answer: &Answer) {
        match (answer.status(), answer.header("wait-token")) {
            (200, _) => self.paid += 1,
            (201, None) => self.held += 1,
            (201, Some(_)) => self.joined += 1,
            _ => {}
        }
    }
}
