//! The server says nothing any more, and closes nothing: its machine is gone, or stands still.

use std::sync::Arc;
use std::time::{Duration, Instant};

use frontrow_domain::UserId;
use frontrow_domain::ports::{StorageError, StorageHealth};
use frontrow_domain::unit_of_work::CommitError;
use frontrow_infra::Storage;
use frontrow_infra::postgres::{Postgres, PostgresOptions};
use frontrow_testkit::postgres::{TestDatabase, database};
use frontrow_testkit::wire::{Cut, Wire};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::fixture::{Fixture, at, money};
use crate::{MIGRATED, options};

const NEVER: Duration = Duration::from_secs(3_600);

/// Everything that is bounded by default, sooner.
fn soon() -> PostgresOptions {
    PostgresOptions {
        answer_timeout: Duration::from_secs(2),
        idle_in_transaction_timeout: Duration::from_secs(1),
        ..options()
    }
}

/// An adapter at the end of a wire.
struct Wired {
    database: TestDatabase,
    wire: Wire,
    postgres: Postgres,
    fixture: Arc<Fixture>,
}

async fn wired(options: PostgresOptions) -> Option<Wired> {
    let database = database(&MIGRATED).await?;
    let (wire, url) = Wire::to_database(database.url());
    let postgres = Postgres::connect(&url, options).await.unwrap();
    let fixture = Arc::new(Fixture::new(Storage::new(Arc::new(postgres.clone())), ()));
    Some(Wired { database, wire, postgres, fixture })
}

impl Wired {
    async fn charge(&self, user: UserId) -> Result<(), CommitError> {
        let work = self.fixture.charge_work(user, None, 5, at(1));
        self.fixture.commit(work).await.map(|_| ())
    }

    /// Opens so many connections by asking all at once, for an answer that takes its time.
    async fn open(&self, connections: u32) {
        self.wire.delay(Duration::from_millis(50));
        for asked in join_all((0..connections).map(|_| self.postgres.writability())).await {
            asked.unwrap();
        }
        self.wire.delay(Duration::ZERO);
    }
}

/// COMMIT was heard or not, and the old connections never say which. A new one does, and the unit is done once.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_into_silence_is_found_out_and_done_once() {
    let Some(wired) = wired(soon()).await else { return };
    for (n, cut) in (1..).zip([Cut::StrandedAnswer, Cut::StrandedCommit, Cut::StrandedAnswer]) {
        let user = wired.fixture.id(UserId::new);
        wired.wire.cut_at_commit(cut);
        wired.charge(user).await.unwrap();
        assert_eq!(wired.wire.cuts(), n, "the wire was cut");
        assert_eq!(wired.fixture.account(user).await.value.balance, money(5));
        let entries = wired.database.query_i64("SELECT count(*) FROM entries").await.unwrap();
        assert_eq!(usize::try_from(entries).unwrap(), n, "{cut:?}");
    }
}

/// The control: a server that lets the transaction stay open cannot say what will become of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_into_silence_is_unknown_while_its_transaction_is_open() {
    let options = PostgresOptions { idle_in_transaction_timeout: NEVER, ..soon() };
    let Some(wired) = wired(options).await else { return };
    wired.wire.cut_at_commit(Cut::StrandedCommit);
    let outcome = wired.charge(wired.fixture.id(UserId::new)).await;
    assert!(matches!(outcome, Err(CommitError::OutcomeUnknown(_))), "{outcome:?}");
}

/// The control: where a server may be silent for ever, its connections are waited for.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_bound_silence_is_waited_for() {
    let Some(wired) = wired(PostgresOptions { answer_timeout: NEVER, ..soon() }).await else { return };
    wired.wire.cut_at_commit(Cut::StrandedAnswer);
    let charge = wired.charge(wired.fixture.id(UserId::new));
    assert!(timeout(soon().answer_timeout * 3, charge).await.is_err());
}

/// Every connection is dead, and only one call has to wait for finding it out.
#[tokio::test(flavor = "multi_thread")]
async fn one_silence_is_enough_for_all_connections() {
    const CONNECTIONS: u32 = 8;
    let Some(wired) = wired(soon()).await else { return };
    wired.open(CONNECTIONS).await;
    wired.wire.strand();
    let begun = Instant::now();
    let first = wired.postgres.writability().await;
    assert!(matches!(first, Ok(_) | Err(StorageError::Unavailable(_))), "{first:?}");
    wired.postgres.writability().await.unwrap();
    let took = begun.elapsed();
    assert!(took < soon().answer_timeout * (CONNECTIONS - 1), "each was waited for: {took:?}");
    wired.charge(wired.fixture.id(UserId::new)).await.unwrap();
}

/// Nothing gets through at all, not even new connections: everybody hears so, and nothing stays behind in the queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_leaves_nobody_in_the_queue() {
    const UNITS: usize = 200;
    let options = PostgresOptions { connect_timeout: Duration::from_secs(1), ..soon() };
    let Some(wired) = wired(options).await else { return };
    wired.charge(wired.fixture.id(UserId::new)).await.unwrap();
    wired.wire.freeze();
    let charges = (0..UNITS).map(|_| wired.charge(wired.fixture.id(UserId::new)));
    let heard = timeout(Duration::from_secs(120), join_all(charges)).await.expect("nobody waits for ever");
    let refused = heard.iter().filter(|outcome| matches!(outcome, Err(CommitError::Unavailable(_)))).count();
    assert_eq!(refused, UNITS, "no COMMIT was sent");
    assert_eq!(wired.postgres.stats().queued_units, 0);
    wired.wire.thaw();
    let patience = Instant::now() + Duration::from_secs(30);
    while wired.charge(wired.fixture.id(UserId::new)).await.is_err() {
        assert!(Instant::now() < patience, "the adapter does not recover");
    }
    let entries = wired.database.query_i64("SELECT count(*) FROM entries").await.unwrap();
    assert_eq!(entries, 2, "what was refused is not there");
}

/// A payment on a connection that is open, and on which nothing is prepared, by a slow wire; and how long it took.
async fn slow_payment(answer_timeout: Duration) -> Option<(Result<(), CommitError>, Duration)> {
    let wired = wired(PostgresOptions { answer_timeout, pool_size: 1, ..options() }).await?;
    let near = Postgres::connect(wired.database.url(), options()).await.unwrap();
    let near = Fixture::new(Storage::new(Arc::new(near)), ());
    let sale = near.sale(1).await;
    let held = near.hold(&sale, &sale.seat_ids(), at(1)).await.value;
    near.charge(held.user_id, 1_000, at(2)).await;
    let work = near.pay_work(held.id, at(3)).await;
    wired.wire.delay(Duration::from_millis(200));
    let begun = Instant::now();
    let outcome = wired.fixture.commit(work).await.map(|_| ());
    Some((outcome, begun.elapsed()))
}

/// What is waited for is the next answer, not all of them: preparing what a payment writes, which is sent at once, takes
/// longer than a server may be silent.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_is_waited_for_answer_by_answer() {
    let longest = Duration::from_secs(2);
    let Some((outcome, took)) = slow_payment(longest).await else { return };
    outcome.unwrap();
    assert!(took > longest, "{took:?} proves nothing");
    // The control: slower than it may be.
    let Some((outcome, _)) = slow_payment(Duration::from_millis(100)).await else { return };
    assert!(matches!(outcome, Err(CommitError::Unavailable(_))), "{outcome:?}");
}

/// A node stops within a transaction, with the lock of a line. Says what another one hears that needs it.
async fn joined_beside_a_stopped_node(
    idle: Duration,
    lock_timeout: Duration,
) -> Option<Result<(), CommitError>> {
    let stopped = wired(PostgresOptions { idle_in_transaction_timeout: idle, ..soon() }).await?;
    let options = PostgresOptions { lock_timeout, ..options() };
    let other = Postgres::connect(stopped.database.url(), options).await.unwrap();
    let other = Fixture::new(Storage::new(Arc::new(other)), ());
    let room = stopped.fixture.default_room().await;
    stopped.wire.cut_at_commit(Cut::StrandedCommit);
    let work = stopped.fixture.join_work(room.id, stopped.fixture.id(UserId::new), at(1));
    let fixture = stopped.fixture.clone();
    let stuck = tokio::spawn(async move { fixture.commit(work).await });
    while stopped.wire.is_armed() {
        assert!(!stuck.is_finished(), "it never came to its COMMIT");
        sleep(Duration::from_millis(5)).await;
    }
    let user = stopped.fixture.id(UserId::new);
    let joined = other.commit(stopped.fixture.join_work(room.id, user, at(1))).await;
    stuck.abort();
    Some(joined.map(|_| ()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_locks_of_a_node_that_stops_are_let_go() {
    let (soon, later) = (Duration::from_secs(1), Duration::from_secs(7));
    let Some(joined) = joined_beside_a_stopped_node(soon, later).await else { return };
    joined.unwrap();
    // The control: a server that lets them stay.
    let Some(joined) = joined_beside_a_stopped_node(NEVER, soon).await else { return };
    assert!(matches!(joined, Err(CommitError::Unavailable(_))), "{joined:?}");
}
