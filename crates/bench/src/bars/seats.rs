//! P3 and P7: holds, and the map of a date with 50,000 seats.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};

use super::Stores;
use crate::bench::{Bench, SEATS, Store};
use crate::http::{Answer, request};
use crate::load::{Load, Outcome, Pace, Requests, Source};
use crate::node::{Node, fetch, log_in};
use crate::report::{Aim, Report};
use crate::seed::{Crowd, Kind, Venue, id};
use crate::stats::figure;

/// A hold every millisecond.
const HOLDS_A_SECOND: f64 = 1_000.0;
const HOLDERS: usize = 32;
/// Connections that look at the map, each of which takes all of it whenever it has changed; and that only fetch all of it.
const LOOKERS: usize = 16;
const FETCHERS: usize = 8;
/// What is measured under holds: each part needs seats of its own.
const PARTS: u64 = 4;

pub(super) fn holds(bench: &Bench, stores: &mut Stores, report: &mut Report) -> Result<()> {
    hold(bench, stores.postgres(bench)?, report)?;
    hold(bench, stores.sqlite(bench)?, report)
}

fn hold(bench: &Bench, store: &mut Store, report: &mut Report) -> Result<()> {
    let outcome = bench.hold(store, Pace::Closed)?;
    let name = format!("hold, {}, 256 clients", store.database.name());
    report.run("P3", &name, &outcome);
    report.aim("P3", &name, Aim::AtLeast(7_600.0));
    Ok(())
}

/// A date under holds, and the server that shows it.
struct Scene<'a> {
    bench: &'a Bench,
    store: &'a Store,
    venue: Venue,
    node: &'a Node,
    parts: u64,
}

pub(super) fn map(bench: &Bench, stores: &mut Stores, report: &mut Report) -> Result<()> {
    let store = stores.postgres(bench)?;
    let venue = bench.fill(store, SEATS, SEATS, Crowd::Active)?;
    let node = bench.serve(store, &[])?;
    let mut scene = Scene { bench, store, venue, node: &node, parts: 0 };

    let load = bench.load(&node, store, LOOKERS, &[200, 304])?;
    let known = scene.under_holds(load, &mut Conditional::new(bench, &venue)?)?;
    let unchanged = known.statuses.get(&304).copied().unwrap_or(0);
    let unchanged = figure(unchanged) / known.elapsed.as_secs_f64();
    report.outcome("P7", "seats, 304 path, a hold every ms", "a second", unchanged, &known);
    let whole = figure(known.statuses.get(&200).copied().unwrap_or(0)) / known.elapsed.as_secs_f64();
    report.value("P7", "full answers among them", "a second", whole);
    let healthz = Requests::repeated([request("GET", "/healthz", &[], None)]);
    let empty = scene.under_holds(load, &mut { healthz })?;
    let empty = report.run("P7", "empty handler, a hold every ms", &empty);
    report.ratio("P7", "304 path / empty handler", unchanged / empty, Aim::AtLeast(0.7));

    let everything = seats_request(bench, &venue, "identity", None)?;
    let body = fetch(node.address, &everything)?;
    report.value("P7", "size of the map", "MB", figure(u64::try_from(body.len())?) / 1e6);
    let load = Load { connections: FETCHERS, expected: &[200], ..load };
    let full = scene.under_holds(load, &mut Requests::repeated([everything]))?;
    let full_bytes = full.bytes_a_second();
    report.outcome("P7", "full map, a hold every ms", "MB a second", full_bytes / 1e6, &full);
    let file = bench.directory().join("map.json");
    fs::write(&file, &body)?;
    let server = static_server(bench, &file)?;
    let watch = crate::usage::Watch { server: Some(server.pid()), ..load.watch };
    let load = Load { address: server.address, watch, ..load };
    let file = scene.under_holds(load, &mut Requests::repeated([request("GET", "/", &[], None)]))?;
    let file_bytes = file.bytes_a_second();
    report.outcome("P7", "static file of that size, a hold every ms", "MB a second", file_bytes / 1e6, &file);
    report.ratio("P7", "full map / static file", full_bytes / file_bytes, Aim::AtLeast(0.3));
    Ok(())
}

impl Scene<'_> {
    /// Runs a load while a seat of the date is held every millisecond.
    fn under_holds(&mut self, load: Load<'_>, source: &mut (dyn Source + Send)) -> Result<Outcome> {
        let share = SEATS / PARTS;
        let begin = self.venue.first + self.parts * share;
        self.parts += 1;
        let needed = self.bench.enough_for(HOLDS_A_SECOND);
        ensure!(needed <= share, "P7 has seats for {share} holds: choose fewer --seconds");
        let mut holds = self.bench.holds(&self.venue, begin..begin + share)?;
        let background = self.bench.load(self.node, self.store, HOLDERS, &[201])?;
        let background = Load { pace: Pace::Open(HOLDS_A_SECOND), ..background };
        thread::scope(|scope| {
            let holding = scope.spawn(|| background.run(&mut holds));
            let outcome = load.run(source);
            let held = holding.join().map_err(|_| anyhow!("the holds panicked"))?;
            held.context("a hold in the background failed")?;
            outcome
        })
    }
}

/// The file by a server that does nothing else.
fn static_server(bench: &Bench, file: &Path) -> Result<Node> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("serve-file").arg(file);
    let bind = |command: &mut Command, address: std::net::SocketAddr| {
        command.arg(address.to_string());
    };
    Node::start(command, bind, "/", &log_in(bench.directory()))
}

fn seats_request(bench: &Bench, venue: &Venue, encoding: &str, etag: Option<&str>) -> Result<Vec<u8>> {
    // The last of the people, who holds nothing.
    let looker = venue.first + venue.people - 1;
    let (concert, date) = (id(Kind::Concert, venue.number), id(Kind::Date, venue.number));
    let path = format!("/concerts/{concert}/performanceDates/{date}/seats?status=all");
    let (bearer, wait_token) = (bench.mint.bearer(looker)?, bench.mint.wait_token(venue, looker));
    let mut headers =
        vec![("Authorization", bearer.as_str()), ("Wait-Token", &wait_token), ("Accept-Encoding", encoding)];
    headers.extend(etag.map(|etag| ("If-None-Match", etag)));
    Ok(request("GET", &path, &headers, None))
}

/// Somebody who asks with the newest ETag that any of the connections has seen.
struct Conditional {
    before: Vec<u8>,
    etag: Vec<u8>,
    after: Vec<u8>,
}

impl Conditional {
    fn new(bench: &Bench, venue: &Venue) -> Result<Self> {
        const MARK: &[u8] = b"ETAG";
        let request = seats_request(bench, venue, "gzip", Some("ETAG"))?;
        let at = request.windows(MARK.len()).position(|bytes| bytes == MARK).context("the mark is there")?;
        let (before, rest) = request.split_at(at);
        let after = rest.strip_prefix(MARK).unwrap_or(rest);
        Ok(Self { before: before.to_vec(), etag: b"\"none\"".to_vec(), after: after.to_vec() })
    }
}

impl Source for Conditional {
    fn next(&mut self, into: &mut Vec<u8>) -> bool {
        for part in [&self.before, &self.etag, &self.after] {
            into.extend_from_slice(part);
        }
        true
    }

    fn answered(&mut self, answer: &Answer) {
        if answer.status() == 200
            && let Some(etag) = answer.header("etag")
        {
            self.etag.clear();
            self.etag.extend_from_slice(etag.as_bytes());
        }
    }
}
