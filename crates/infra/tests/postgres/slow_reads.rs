//! Slow reads that hold all connections of reads refuse no commit (ADR 0022).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use frontrow_domain::UserId;
use frontrow_domain::ports::{ConcertQueries, StorageError, StorageHealth, Writability};
use frontrow_domain::unit_of_work::CommitError;
use frontrow_infra::postgres::PostgresOptions;
use frontrow_infra::{Storage, with_circuit_breaker};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::fixture::{Fixture, at};
use crate::{Opened, options};

const SILENCE: Duration = Duration::from_secs(1);

/// A sign of life that is asked for as a read.
struct AsRead(Arc<dyn ConcertQueries>);

#[async_trait]
impl StorageHealth for AsRead {
    async fn writability(&self) -> Result<Writability, StorageError> {
        self.0.list_concerts(None, 1).await.map(|_| Writability::Writable)
    }
}

/// A node whose reads all wait for a table that another session has locked.
struct SlowReads {
    _opened: Opened,
    fixture: Fixture,
    reads: Vec<JoinHandle<()>>,
    _blocker: tokio_postgres::Client,
}

impl SlowReads {
    async fn new(health: impl FnOnce(&Storage) -> Arc<dyn StorageHealth>) -> Option<Self> {
        // The reads wait for longer than the test takes.
        let long = Duration::from_secs(60);
        let options = PostgresOptions {
            acquire_timeout: long,
            lock_timeout: long,
            statement_timeout: long,
            answer_timeout: long,
            ..options()
        };
        let pool_size = options.pool_size;
        let opened = Opened::new(options).await?;
        let storage = Storage::new(Arc::new(opened.postgres.clone()));
        let health = health(&storage);
        let storage = with_circuit_breaker(Storage { health, ..storage }, SILENCE);
        let blocker = opened.database.connect().await.unwrap();
        blocker.batch_execute("BEGIN; LOCK TABLE concerts IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let read = |_| {
            let queries = storage.concert_queries.clone();
            tokio::spawn(async move { drop(queries.list_concerts(None, 1).await) })
        };
        let reads = (0..pool_size * 2).map(read).collect();
        let fixture = Fixture::new(storage, ());
        Some(Self { _opened: opened, fixture, reads, _blocker: blocker })
    }

    async fn charge(&self) -> Result<(), CommitError> {
        let work = self.fixture.charge_work(self.fixture.id(UserId::new), None, 5, at(1));
        self.fixture.commit(work).await.map(|_| ())
    }
}

/// Without a commit that would be a sign of life, and then with many.
#[tokio::test(flavor = "multi_thread")]
async fn slow_reads_on_all_their_connections_refuse_no_charge() {
    let Some(slow) = SlowReads::new(|storage| storage.health.clone()).await else { return };
    sleep(SILENCE * 4).await;
    for _ in 0..30 {
        slow.charge().await.unwrap();
        sleep(SILENCE / 10).await;
    }
    assert!(slow.reads.iter().all(|read| !read.is_finished()), "they were to be slow");
}

/// The control: a sign of life that is asked for behind those reads.
#[tokio::test(flavor = "multi_thread")]
async fn control_a_sign_of_life_behind_slow_reads_refuses_charges() {
    let as_read =
        |storage: &Storage| -> Arc<dyn StorageHealth> { Arc::new(AsRead(storage.concert_queries.clone())) };
    let Some(slow) = SlowReads::new(as_read).await else { return };
    sleep(SILENCE * 4).await;
    let refused = slow.charge().await;
    assert!(matches!(refused, Err(CommitError::Unavailable(_))), "{refused:?}");
}
