//! P4, P5, P6 and P8: the waiting line.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::Stores;
use crate::bench::{Bench, MANY, Store};
use crate::http::request;
use crate::load::{Outcome, Requests};
use crate::report::{Aim, Report};
use crate::seed::{Crowd, Dialect, Kind, Venue, id};
use crate::stats::figure;
use crate::usage::{Shares, Watch, resident_bytes};

/// Connections of those who poll.
const POLLERS: usize = 64;
const FEW: u64 = 1_000;
const MILLION: u64 = 1_000_000;
/// So many of a million poll in turn when a cache of tokens is not to help: more than it holds.
const POLLING: u64 = 100_000;
/// Rows of one multi-row insert: as many as one group commit takes.
const ROWS_AN_INSERT: u64 = 256;
const MOST_JOINS_A_SECOND: f64 = 25_000.0;
/// Rows for psql: so many that its start does not count.
const INSERTED_A_SECOND: f64 = 15_000.0;

pub(super) fn polls(bench: &Bench, stores: &mut Stores, report: &mut Report) -> Result<()> {
    let store = stores.postgres(bench)?;
    let venue = bench.fill(store, FEW, 0, Crowd::Waiting)?;
    let node = bench.serve(store, &[])?;
    let load = bench.load(&node, store, POLLERS, &[200])?;
    let polls = load.run(&mut bench.polls(&venue, FEW)?)?;
    let polls = report.run("P4", "GET /queue while WAIT", &polls);
    let empty = Bench::empty_handler(&load)?;
    let empty = report.run("P4", "empty handler", &empty);
    report.ratio("P4", "GET /queue / empty handler", polls / empty, Aim::AtLeast(0.8));
    Ok(())
}

pub(super) fn polls_of_a_million(bench: &Bench, stores: &mut Stores, report: &mut Report) -> Result<()> {
    let store = stores.postgres(bench)?;
    let venue = bench.fill(store, FEW, 0, Crowd::Waiting)?;
    let (few, _) = polled(bench, store, &venue, FEW)?;
    let few = report.run("P5", "GET /queue, 1,000 waiting, all poll", &few);
    let (store, venue) = stores.million(bench)?;
    let (many, _) = polled(bench, store, venue, FEW)?;
    let many = report.run("P5", "GET /queue, 1,000,000 waiting, 1,000 poll", &many);
    report.ratio("P5", "1,000,000 / 1,000 waiting", many / few, Aim::AtLeast(0.95));
    let (crowd, bytes) = polled(bench, store, venue, POLLING)?;
    report.run("P5", "GET /queue, 1,000,000 waiting, 100,000 poll", &crowd);
    in_memory(report, bytes);
    Ok(())
}

pub(super) fn memory(bench: &Bench, stores: &mut Stores, report: &mut Report) -> Result<()> {
    let (store, venue) = stores.million(bench)?;
    let (_, bytes) = polled(bench, store, venue, POLLING)?;
    in_memory(report, bytes);
    Ok(())
}

fn in_memory(report: &mut Report, bytes: u64) {
    let megabytes = figure(bytes) / 1e6;
    report.aimed("P8", "resident, 1,000,000 waiting and polled", "MB", megabytes, Aim::AtMost(100.0));
}

/// `pollers` of a line poll a server of its own. Says how much memory that has in the end, too.
fn polled(bench: &Bench, store: &Store, venue: &Venue, pollers: u64) -> Result<(Outcome, u64)> {
    let node = bench.serve(store, &[])?;
    let mut polls = bench.polls(venue, pollers)?;
    let outcome = bench.load(&node, store, POLLERS, &[200])?.run(&mut polls)?;
    Ok((outcome, resident_bytes(node.pid())?))
}

impl Stores {
    fn million(&mut self, bench: &Bench) -> Result<(&Store, &Venue)> {
        if self.million.is_none() {
            let mut store = bench.on_postgres()?;
            let venue = bench.fill(&mut store, MILLION, 0, Crowd::Waiting)?;
            self.million = Some((store, venue));
        }
        self.million.as_ref().map(|(store, venue)| (store, venue)).context("it was just made")
    }
}

pub(super) fn newcomers(bench: &Bench, stores: &mut Stores, report: &mut Report) -> Result<()> {
    let store = stores.postgres(bench)?;
    let venue = bench.fill(store, 0, 0, Crowd::Waiting)?;
    let people = Bench::newcomers(store, bench.enough_for(MOST_JOINS_A_SECOND));
    let body = format!("{{\"concertId\":\"{}\"}}", id(Kind::Concert, venue.number));
    let joins = people.map(|person| {
        let bearer = bench.mint.bearer(person)?;
        Ok(request("POST", "/queue", &[("Authorization", &bearer)], Some(&body)))
    });
    let mut joins = Requests::once(joins.collect::<Result<Vec<_>>>()?);
    let node = bench.serve(store, &[])?;
    let ours = bench.load(&node, store, MANY, &[201])?.run(&mut joins)?;
    drop(node);
    let rate = report.run("P6", "POST /queue, 256 clients", &ours);
    report.aim("P6", "POST /queue, 256 clients", Aim::AtLeast(10_000.0));
    let (theirs, shares) = multi_row_inserts(bench, stores, bench.enough_for(INSERTED_A_SECOND))?;
    report.foreign("P6", "psql, rows a second, 256 an insert", theirs, shares);
    report.ratio("P6", "POST /queue / psql", rate / theirs, Aim::AtLeast(0.5));
    Ok(())
}

/// Rows a second that psql inserts, each statement a transaction of its own.
fn multi_row_inserts(bench: &Bench, stores: &mut Stores, rows: u64) -> Result<(f64, Shares)> {
    let store = stores.baseline(bench)?;
    let venue = bench.fill(store, 0, 0, Crowd::Waiting)?;
    let people = Bench::newcomers(store, rows);
    let script = bench.directory().join("joins.sql");
    write_inserts(&script, &venue, people)?;
    let watch = Watch { server: None, postmaster: Some(bench.postgres()?.postmaster()?) };
    let mut psql = Command::new("psql");
    psql.args(["-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&script).arg(store.url()).stdin(Stdio::null());
    let before = watch.sample()?;
    let begin = Instant::now();
    let output = psql.output().context("cannot run psql")?;
    let elapsed = begin.elapsed().as_secs_f64();
    let shares = watch.since(&before)?;
    ensure!(output.status.success(), "psql failed: {}", String::from_utf8_lossy(&output.stderr));
    let room = Dialect::Postgres.id(Kind::Room, &venue.number.to_string());
    let counted = format!(
        "UPDATE lines SET waiting = {rows}, last_ticket = {rows} WHERE room_id = {room} AND {rows} =
            (SELECT count(*) FROM queue_tokens WHERE room_id = {room} AND status = 'WAIT')"
    );
    store.database.fill(&bench.runtime, &[counted])?;
    fs::remove_file(&script)?;
    Ok((figure(rows) / elapsed, shares))
}

fn write_inserts(script: &std::path::Path, venue: &Venue, people: std::ops::Range<u64>) -> Result<()> {
    let mut file = BufWriter::new(File::create(script)?);
    let (room, first, end) = (id(Kind::Room, venue.number), people.start, people.end);
    let mut begin = first;
    while begin < end {
        let until = (begin + ROWS_AN_INSERT).min(end);
        writeln!(
            file,
            "INSERT INTO queue_tokens (token_id, room_id, user_id, ticket, entered_at, status, version) VALUES"
        )?;
        for person in begin..until {
            let (token, user) = (id(Kind::Token, person), id(Kind::User, person));
            let (ticket, mark) = (person - first + 1, if person + 1 == until { ';' } else { ',' });
            writeln!(
                file,
                "('{token}', '{room}', '{user}', {ticket}, '2026-11-22 20:00:00+00', 'WAIT', 1){mark}"
            )?;
        }
        begin = until;
    }
    Ok(file.flush()?)
}
