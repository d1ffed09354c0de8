//! P10: how late the slowest are at half the peak rate, in durable commits of the database.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use diesel::connection::SimpleConnection;
use diesel::sqlite::SqliteConnection;
use diesel::{Connection, RunQueryDsl};
use hdrhistogram::Histogram;

use super::Stores;
use crate::bench::{Bench, Store};
use crate::database::Database;
use crate::load::{Outcome, Pace};
use crate::report::{Aim, Report};
use crate::stats::figure;

/// More payments a second than any subject makes.
const MOST_A_SECOND: f64 = 12_000.0;
const AIM: Aim = Aim::AtMost(4.0);

pub(super) fn at_half_the_peak(bench: &Bench, stores: &mut Stores, report: &mut Report) -> Result<()> {
    measure(bench, stores.postgres(bench)?, report)?;
    measure(bench, stores.sqlite(bench)?, report)
}

fn measure(bench: &Bench, store: &mut Store, report: &mut Report) -> Result<()> {
    let name = store.database.name();
    let commit = commit_milliseconds(bench, store)?;
    report.value("P10", &format!("p50 of a durable commit, {name}"), "ms", commit);
    let hold = |store: &mut Store, pace| bench.hold(store, pace);
    let pay = |store: &mut Store, pace| {
        let rate = if let Pace::Open(rate) = pace { rate } else { MOST_A_SECOND };
        bench.pay(store, &[], pace, bench.enough_for(rate * 1.05))
    };
    let known = |bar, subject: &str, report: &Report| report.median(bar, subject);
    let bar = if matches!(store.database, Database::Postgres(_)) { "P1" } else { "P2" };
    let peak = known("P3", &format!("hold, {name}, 256 clients"), report);
    half(store, report, "hold", commit, peak, &hold)?;
    let peak = known(bar, &format!("pay, {name}, 256 clients"), report);
    half(store, report, "pay", commit, peak, &pay)
}

/// Half of the peak of this run, which is measured now where no other bar has done so.
fn half(
    store: &mut Store,
    report: &mut Report,
    what: &str,
    commit: f64,
    peak: Option<f64>,
    run: &dyn Fn(&mut Store, Pace) -> Result<Outcome>,
) -> Result<()> {
    let name = store.database.name();
    let peak = match peak {
        Some(peak) => peak,
        None => report.run("P10", &format!("peak of {what}, {name}"), &run(store, Pace::Closed)?),
    };
    let outcome = run(store, Pace::Open(peak / 2.0))?;
    report.run("P10", &format!("{what} at half the peak, {name}"), &outcome);
    let late = outcome.milliseconds(99.0);
    report.ratio("P10", &format!("p99 of {what} / commit, {name}"), late / commit, AIM);
    Ok(())
}

/// The median of single-row transactions by one client, one after the other.
fn commit_milliseconds(bench: &Bench, store: &Store) -> Result<f64> {
    let mut latency = Histogram::<u64>::new(3)?;
    let duration = bench.options.duration();
    match &store.database {
        Database::Postgres(_) => commit_on_postgres(&store.url(), duration, &mut latency)?,
        Database::Sqlite(_) => commit_on_sqlite(bench, duration, &mut latency)?,
    }
    Ok(figure(latency.value_at_quantile(0.5)) / 1_000.0)
}

fn commit_on_postgres(url: &str, duration: Duration, latency: &mut Histogram<u64>) -> Result<()> {
    // One thread for both ends of the connection: another one would add its wake-up to every commit.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
        let connection = tokio::spawn(connection);
        let table = "DROP TABLE IF EXISTS bench_commit; CREATE TABLE bench_commit (id INTEGER PRIMARY KEY, number BIGINT);
            INSERT INTO bench_commit VALUES (1, 0)";
        client.batch_execute(table).await?;
        let update = client.prepare("UPDATE bench_commit SET number = number + 1 WHERE id = 1").await?;
        let begin = Instant::now();
        while begin.elapsed() < duration {
            let sent = Instant::now();
            client.execute(&update, &[]).await?;
            latency.record(u64::try_from(sent.elapsed().as_micros())?)?;
        }
        client.batch_execute("DROP TABLE bench_commit").await?;
        drop(client);
        Ok(connection.await??)
    })
}

fn commit_on_sqlite(bench: &Bench, duration: Duration, latency: &mut Histogram<u64>) -> Result<()> {
    let path = bench.directory().join("commit.db");
    let mut connection = SqliteConnection::establish(path.to_str().context("a path in UTF-8")?)?;
    connection.batch_execute(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
        CREATE TABLE IF NOT EXISTS bench_commit (id INTEGER PRIMARY KEY, number INTEGER NOT NULL) STRICT;
        INSERT OR IGNORE INTO bench_commit VALUES (1, 0)",
    )?;
    let begin = Instant::now();
    while begin.elapsed() < duration {
        let sent = Instant::now();
        diesel::sql_query("UPDATE bench_commit SET number = number + 1 WHERE id = 1")
            .execute(&mut connection)?;
        latency.record(u64::try_from(sent.elapsed().as_micros())?)?;
    }
    Ok(())
}
