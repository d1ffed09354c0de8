//! The database goes away, and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use frontrow_domain::ports::{StorageError, StorageHealth};
use frontrow_domain::unit_of_work::CommitError;
use frontrow_domain::{EntryId, UserId};
use frontrow_infra::Storage;
use frontrow_infra::postgres::{Postgres, PostgresOptions};
use frontrow_testkit::postgres::Cluster;

use crate::fixture::{Fixture, at};
use crate::{MIGRATED, Opened, options};

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_dies_and_returns() {
    let Some(cluster) = Cluster::start_private().await else { return };
    let database = cluster.database(&MIGRATED).await;
    let postgres = Postgres::connect(database.url(), options()).await.unwrap();
    let fixture = Arc::new(Fixture::new(Storage::new(Arc::new(postgres.clone())), ()));
    let room = fixture.default_room().await;

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (fixture, stop) = (fixture.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut joined, mut unknown, mut refused) = (0, 0, 0);
                while !stop.load(Ordering::SeqCst) {
                    let work = fixture.join_work(room.id, fixture.id(UserId::new), at(1));
                    match fixture.commit(work).await {
                        Ok(_) => joined += 1,
                        Err(CommitError::OutcomeUnknown(_)) => unknown += 1,
                        Err(CommitError::Unavailable(_)) => {
                            refused += 1;
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                        Err(error) => panic!("{error:?}"),
                    }
                }
                (joined, unknown, refused)
            })
        })
        .collect();

    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.stop_immediate().await;
    let down = postgres.writability().await;
    assert!(matches!(down, Err(StorageError::Unavailable(_))), "{down:?}");
    cluster.start().await;
    recovers(&postgres).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::SeqCst);

    let (mut joined, mut unknown, mut refused) = (0, 0, 0);
    for writer in writers {
        let (j, u, r) = writer.await.unwrap();
        (joined, unknown, refused) = (joined + j, unknown + u, refused + r);
    }
    assert!(joined > 0 && refused > 0, "{joined} joined, {unknown} unknown, {refused} refused");
    // What was acknowledged is there, what was refused is not, and only the unknown may be either.
    let waiting = fixture.in_room(room.id, at(1)).await.0;
    assert!((joined..=joined + unknown).contains(&waiting), "{joined} + {unknown} of {waiting}");
}

const CHARGERS: usize = 40;

/// What a charger was told of each entry.
#[derive(Default)]
struct Told {
    written: Vec<EntryId>,
    refused: Vec<EntryId>,
    unknown: usize,
}

/// The server is killed while batches are committed: every word that was given is true.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_killed_during_commits_keeps_every_word() {
    let Some(cluster) = Cluster::start_private().await else { return };
    let database = cluster.database(&MIGRATED).await;
    let postgres = Postgres::connect(database.url(), options()).await.unwrap();
    let fixture = Arc::new(Fixture::new(Storage::new(Arc::new(postgres.clone())), ()));
    let (stop, somebody_was_refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let chargers: Vec<_> = (0..CHARGERS)
        .map(|_| {
            let (fixture, stop, refusal) = (fixture.clone(), stop.clone(), somebody_was_refused.clone());
            tokio::spawn(async move {
                let mut told = Told::default();
                while !stop.load(Ordering::SeqCst) {
                    let work = fixture.charge_work(fixture.id(UserId::new), None, 5, at(1));
                    let entry = work.entries[0].id;
                    match fixture.commit(work).await {
                        Ok(_) => told.written.push(entry),
                        Err(CommitError::OutcomeUnknown(_)) => told.unknown += 1,
                        Err(CommitError::Unavailable(_)) => {
                            told.refused.push(entry);
                            refusal.store(true, Ordering::SeqCst);
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                        Err(error) => panic!("{error:?}"),
                    }
                }
                told
            })
        })
        .collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.stop_immediate().await;
        // All may be looking up what they have sent, which they give up in the end.
        while !somebody_was_refused.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cluster.start().await;
    }
    recovers(&postgres).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::SeqCst);

    let mut told = Told::default();
    for charger in chargers {
        let Told { written, refused, unknown } = charger.await.unwrap();
        told.written.extend(written);
        told.refused.extend(refused);
        told.unknown += unknown;
    }
    let units = postgres.stats();
    assert!(units.units > 2 * units.transactions, "there were batches: {units:?}");
    assert!(!told.written.is_empty() && !told.refused.is_empty());
    let stored = |entries: &[EntryId]| {
        let ids = entries.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
        format!("SELECT count(*) FROM entries WHERE entry_id IN ({ids})")
    };
    let written = database.query_i64(&stored(&told.written)).await.unwrap();
    assert_eq!(usize::try_from(written).unwrap(), told.written.len(), "what was acknowledged is there");
    let refused = database.query_i64(&stored(&told.refused)).await.unwrap();
    assert_eq!(refused, 0, "what was refused is not");
    let all = database.query_i64("SELECT count(*) FROM entries").await.unwrap();
    let unknown = usize::try_from(all - written).unwrap();
    assert!(unknown <= told.unknown, "{unknown} of {} unknown ones", told.unknown);
}

/// An administrator ends every session while they are idle: the next call does not even notice.
#[tokio::test(flavor = "multi_thread")]
async fn ended_sessions_are_replaced() {
    let Some(opened) = Opened::new(options()).await else { return };
    let fixture = opened.fixture();
    let room = fixture.default_room().await;
    for _ in 0..3 {
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE datname = current_database() AND application_name = 'frontrow'";
        assert!(opened.database.query_i64(end).await.unwrap() > 0);
        fixture.join(room.id, fixture.id(UserId::new), at(1)).await;
    }
    assert_eq!(fixture.in_room(room.id, at(1)).await.0, 3);
}

/// The server ends a session in the middle of a unit of work. Another session tries it again and meets the same lock: it is
/// refused, and nothing of it is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_ended_before_commit_is_unavailable() {
    let batch_lock_timeout = PostgresOptions::default().lock_timeout;
    let Some(opened) = Opened::new(PostgresOptions { batch_lock_timeout, ..options() }).await else { return };
    let fixture = Arc::new(opened.fixture());
    let room = fixture.default_room().await;
    let blocker = opened.database.connect().await.unwrap();
    blocker.batch_execute("BEGIN; SELECT FROM lines FOR UPDATE").await.unwrap();
    let work = fixture.join_work(room.id, fixture.id(UserId::new), at(1));
    let stuck = tokio::spawn({
        let fixture = fixture.clone();
        async move { fixture.commit(work).await }
    });
    while opened.sessions("wait_event_type = 'Lock'").await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE datname = current_database() AND wait_event_type = 'Lock'";
    assert_eq!(opened.database.query_i64(end).await.unwrap(), 1);
    let refused = stuck.await.unwrap();
    assert!(matches!(refused, Err(CommitError::Unavailable(_))), "{refused:?}");
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(fixture.in_room(room.id, at(1)).await.0, 0);
}

/// Waits until the adapter answers again.
async fn recovers(postgres: &Postgres) {
    let patience = Instant::now() + Duration::from_secs(20);
    while postgres.writability().await.is_err() {
        assert!(Instant::now() < patience, "the adapter does not recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
