//! PostgreSQL is killed, away, slow, or cut off. The node goes on running, and comes back by itself.

use std::process::Command;
use std::time::{Duration, Instant};

use frontrow::cli::DatabaseUrl;
use frontrow_testkit::app::Database;
use frontrow_testkit::postgres::{Cluster, PrivateCluster};
use frontrow_testkit::wire::{Cut, Wire};
use rand::RngExt;
use tokio::time::sleep;

use crate::trial::{COMES_BACK_WITHIN, Trial, kills};

/// How long it is away at a stretch: two seconds for each kill that was asked for, so that a long run has minutes.
fn away() -> Duration {
    Duration::from_secs(2) * kills()
}

/// For longer than anybody is kept waiting.
const STANDSTILL: Duration = Duration::from_secs(40);

/// A trial on a server of its own.
pub(crate) async fn trial(name: &'static str) -> Option<(PrivateCluster, Trial)> {
    let cluster = Cluster::start_private().await?;
    let database = Database::on(&cluster).await;
    let url = database.url();
    Some((cluster, Trial::open(name, database, &url).await))
}

/// A trial whose node reaches its server by a wire.
async fn wired(name: &'static str) -> Option<(PrivateCluster, Wire, Trial)> {
    let cluster = Cluster::start_private().await?;
    let database = Database::on(&cluster).await;
    let DatabaseUrl::Postgres(url) = database.url() else { unreachable!("it is on PostgreSQL") };
    let (wire, url) = Wire::to_database(&url);
    let trial = Trial::open(name, database, &DatabaseUrl::Postgres(url)).await;
    Some((cluster, wire, trial))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashes_loses_nothing() {
    let Some((cluster, mut trial)) = trial("PostgreSQL stopped immediate").await else { return };
    trial.crowd(Duration::ZERO).await;
    for _ in 0..kills() {
        trial.a_moment(800).await;
        cluster.stop_immediate().await;
        trial.a_moment(500).await;
        cluster.start().await;
        trial.assert_audit();
        trial.goes_on().await;
    }
    assert!(trial.heard("unavailable (503)") > 0, "nobody noticed");
    trial.close().await;
}

/// The process of a backend that works for the node. A server that has not noticed the last kill yet, or still recovers from
/// it, is asked again.
async fn backend_at_work(database: &Database) -> i64 {
    const AT_WORK: &str = "SELECT coalesce(max(pid), 0)::bigint FROM pg_stat_activity \
        WHERE application_name = 'frontrow' AND state <> 'idle'";
    let Database::Postgres(database) = database else { unreachable!("it is on PostgreSQL") };
    let begun = Instant::now();
    loop {
        match database.query_i64(AT_WORK).await {
            Ok(backend @ 1..) => return backend,
            asked => assert!(begun.elapsed() < COMES_BACK_WITHIN, "nobody is at work: {asked:?}"),
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// The kernel kills one backend, for want of memory for example: PostgreSQL throws out everybody and recovers.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backend_loses_nothing() {
    let Some((_cluster, mut trial)) = trial("PostgreSQL backend killed").await else { return };
    trial.crowd(Duration::ZERO).await;
    for _ in 0..kills() {
        trial.a_moment(500).await;
        let backend = backend_at_work(&trial.database).await;
        let killed = Command::new("kill").args(["-KILL", &backend.to_string()]).output().unwrap();
        if !killed.status.success() {
            continue; // It has ended meanwhile.
        }
        trial.goes_on().await;
    }
    trial.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_for_long_is_waited_for() {
    let Some((cluster, mut trial)) = trial("PostgreSQL away").await else { return };
    trial.crowd(away()).await;
    cluster.stop_immediate().await;
    sleep(away()).await;
    cluster.start().await;
    trial.goes_on().await;
    assert!(trial.heard("unavailable (503)") > 0, "nobody noticed");
    trial.close().await;
}

/// Connections are cut at any moment, and right before and after the server has heard a COMMIT.
#[tokio::test(flavor = "multi_thread")]
async fn a_wire_that_is_cut_loses_nothing() {
    let Some((_cluster, wire, mut trial)) = wired("PostgreSQL cut off").await else { return };
    trial.crowd(Duration::ZERO).await;
    for round in 0..kills() * 3 {
        trial.a_moment(300).await;
        match round % 3 {
            0 => wire.cut_at_commit(Cut::Answer),
            1 => wire.cut_at_commit(Cut::Commit),
            _ if trial.chance.random() => wire.cut(),
            _ => {
                wire.part();
                trial.a_moment(1_000).await;
                wire.join();
            }
        }
        trial.goes_on().await;
    }
    assert!(wire.cuts() >= 2, "no COMMIT was lost");
    trial.close().await;
}

/// The server does a COMMIT, and nobody reaches it any more: whoever asked is told that the outcome is unknown, and a
/// repeat with the same key finds it out.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_cannot_be_resolved_is_unknown() {
    let Some((_cluster, wire, mut trial)) = wired("PostgreSQL away since a COMMIT").await else { return };
    trial.crowd(Duration::from_secs(10)).await;
    for _ in 0..kills().div_ceil(4) {
        let unknown = trial.heard("unknown (503)");
        wire.cut_at_commit(Cut::AnswerAndAll);
        // For longer than the adapter tries to find out.
        while wire.is_armed() {
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_secs(8)).await;
        wire.join();
        trial.goes_on().await;
        assert!(trial.heard("unknown (503)") > unknown, "nobody was told");
    }
    trial.close().await;
}

/// A server that stands still, whose connections stay open, keeps nobody waiting for ever: a stalled disk for example, or a
/// machine that is gone. Who asked for something that may have been done is told so. The old connections never carry
/// anything again; the node finds new ones as soon as somebody answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_keeps_nobody() {
    let Some((_cluster, wire, mut trial)) = wired("PostgreSQL standing still").await else { return };
    trial.crowd(STANDSTILL).await;
    // At a COMMIT, of which nobody can say any more what has become of it.
    wire.cut_at_commit(Cut::StrandedAnswer);
    while wire.is_armed() {
        sleep(Duration::from_millis(5)).await;
    }
    wire.freeze();
    sleep(STANDSTILL).await;
    assert!(trial.heard("unknown (503)") > 0, "whoever wrote was not told");
    assert!(trial.heard("unavailable (503)") > 0, "whoever read was not told");
    wire.thaw();
    trial.goes_on().await;
    trial.close().await;
}

/// A server that answers late is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_is_slow_and_loses_nothing() {
    let Some((_cluster, wire, mut trial)) = wired("PostgreSQL slow").await else { return };
    trial.crowd(Duration::from_secs(10)).await;
    for _ in 0..kills().div_ceil(2) {
        wire.delay(Duration::from_millis(200));
        sleep(Duration::from_secs(2)).await;
        wire.delay(Duration::ZERO);
        wire.freeze();
        sleep(Duration::from_secs(3)).await;
        wire.thaw();
        trial.goes_on().await;
    }
    trial.close().await;
}
