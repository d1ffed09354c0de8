//! Fewer connections than configured, and connections that end in the middle of a batch.

use std::sync::Arc;
use std::time::Duration;

use frontrow_domain::UserId;
use frontrow_domain::ports::StorageHealth;
use frontrow_domain::unit_of_work::CommitError;
use frontrow_infra::Storage;
use frontrow_infra::postgres::{Postgres, PostgresOptions};
use frontrow_testkit::postgres::database;
use futures_util::future::join_all;

use crate::fixture::{Fixture, at};
use crate::{MIGRATED, Opened, PlainRole, options, told};

const GRANTED: i64 = 10;
const CALLERS: usize = 120;

/// Reads and charges of many callers at once, and the most connections that there were.
async fn crowd(
    postgres: &Postgres,
    fixture: &Fixture,
    connections: impl AsyncFn() -> i64,
) -> (Vec<String>, i64) {
    let (mut refused, mut most) = (Vec::new(), 0);
    for _ in 0..3 {
        let reads = join_all((0..CALLERS).map(|_| postgres.writability()));
        let charges = join_all((0..CALLERS).map(|_| {
            let work = fixture.charge_work(fixture.id(UserId::new), None, 5, at(1));
            fixture.commit(work)
        }));
        let (reads, charges, now) = tokio::join!(reads, charges, connections());
        refused.extend(reads.iter().filter_map(|read| read.as_ref().err().map(|error| told(error))));
        refused.extend(charges.iter().filter_map(|charge| charge.as_ref().err().map(|error| told(error))));
        most = most.max(now).max(connections().await);
    }
    (refused, most)
}

/// Sixteen are configured, ten are granted: all are served by these, and no caller is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_works_with_the_connections_that_it_gets() {
    let Some(database) = database(&MIGRATED).await else { return };
    // The callers wait for their turn on a slow machine too.
    let options = PostgresOptions { acquire_timeout: Duration::from_secs(30), ..options() };
    let sessions = |role: String| {
        let database = &database;
        async move || {
            let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'");
            database.query_i64(&sql).await.unwrap()
        }
    };
    let limited = PlainRole::new(&database, "limited", &format!("CONNECTION LIMIT {GRANTED}")).await;
    let postgres = Postgres::connect(&limited.url(), options.clone()).await.unwrap();
    let fixture = Fixture::new(Storage::new(Arc::new(postgres.clone())), ());
    let (refused, most) = crowd(&postgres, &fixture, sessions(limited.name.clone())).await;
    assert_eq!(refused, Vec::<String>::new());
    assert_eq!(most, GRANTED, "all that are granted are used");
    // Later the server grants more, and they are used.
    database.execute(&format!("ALTER ROLE {} CONNECTION LIMIT -1", limited.name)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (refused, most) = crowd(&postgres, &fixture, sessions(limited.name.clone())).await;
    assert_eq!(refused, Vec::<String>::new());
    assert!(most > GRANTED, "the load asks for more than {GRANTED}, and the pool has grown to {most}");
    drop((postgres, fixture));

    // A server that grants none: said in its own words.
    database.execute(&format!("ALTER ROLE {} CONNECTION LIMIT 0", limited.name)).await.unwrap();
    let soon = PostgresOptions { acquire_timeout: Duration::from_millis(300), ..options };
    let error = Postgres::connect(&limited.url(), soon).await.unwrap_err();
    assert!(told(&error).contains("too many connections for role"), "{}", told(&error));
    limited.drop().await;
}

/// For a second the server grants no connection, and ends those that there were: callers wait for the next that it grants.
#[tokio::test(flavor = "multi_thread")]
async fn refused_connections_of_an_empty_pool_are_tried_again_at_once() {
    let Some(database) = database(&MIGRATED).await else { return };
    // Less than a refusal lasts in a pool that has connections.
    let options = PostgresOptions { acquire_timeout: Duration::from_secs(4), ..options() };
    let limited = PlainRole::new(&database, "refused", "").await;
    let postgres = Postgres::connect(&limited.url(), options).await.unwrap();
    let fixture = Fixture::new(Storage::new(Arc::new(postgres.clone())), ());
    let refuse = format!(
        "ALTER ROLE {name} CONNECTION LIMIT 0; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}'",
        name = limited.name
    );
    database.execute(&refuse).await.unwrap();
    // The connections are not trusted any more.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let reads = join_all((0..8).map(|_| fixture.storage.concert_queries.list_concerts(None, 1)));
    let charges = join_all((0..8).map(|_| {
        let work = fixture.charge_work(fixture.id(UserId::new), None, 5, at(1));
        fixture.commit(work)
    }));
    let grant = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let grant = format!("ALTER ROLE {} CONNECTION LIMIT -1", limited.name);
        database.execute(&grant).await.unwrap();
    };
    let (reads, charges, ()) = tokio::join!(reads, charges, grant);
    let refused: Vec<String> =
        reads.iter().filter_map(|read| read.as_ref().err().map(|error| told(error))).collect();
    assert_eq!(refused, Vec::<String>::new());
    for charge in charges {
        charge.unwrap();
    }
    drop((postgres, fixture));
    limited.drop().await;
}

/// Ends its own session, as an administrator would: the first time, or each time.
fn ending(times: &str) -> String {
    format!(
        "CREATE SEQUENCE ends; CREATE FUNCTION end_session() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF nextval('ends') <= {times} THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NULL; \
         END $$; CREATE TRIGGER end_session AFTER INSERT ON entries EXECUTE FUNCTION end_session()"
    )
}

const BATCH: usize = 128;

async fn charged_together(times: &str) -> Option<(Vec<Result<(), CommitError>>, u64)> {
    let opened = Opened::new(PostgresOptions { committers: 1, ..options() }).await?;
    opened.database.execute(&ending(times)).await.unwrap();
    let fixture = opened.fixture();
    let works = (0..BATCH).map(|_| fixture.charge_work(fixture.id(UserId::new), None, 5, at(1))).collect();
    let (outcomes, transactions) = opened.together(&fixture, works).await;
    Some((outcomes.into_iter().map(|outcome| outcome.map(|_| ())).collect(), transactions))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_session_is_ended_is_written_by_another() {
    let Some((outcomes, transactions)) = charged_together("1").await else { return };
    for outcome in outcomes {
        outcome.unwrap();
    }
    assert_eq!(transactions, 2, "no unit is to blame");
}

/// The control: where every session is ended, the batch is refused as a whole, and soon.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_sessions_are_all_ended_is_not_taken_apart() {
    let Some((outcomes, transactions)) = charged_together("1000000").await else { return };
    for outcome in &outcomes {
        assert!(matches!(outcome, Err(CommitError::Unavailable(_))), "{outcome:?}");
    }
    assert!(transactions <= 3, "{transactions}");
}
