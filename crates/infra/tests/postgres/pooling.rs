//! A PgBouncer between the node and its server.

use std::time::Duration;

use frontrow_domain::UserId;
use frontrow_infra::Storage;
use frontrow_infra::postgres::{ConnectError, MigrateError, Postgres, audit, migrate};
use frontrow_testkit::postgres::{PoolMode, Pooler, database};

use crate::fixture::{Fixture, at, money};
use crate::{EMPTY, options};

fn is_refused<T: std::fmt::Debug>(connected: &Result<T, ConnectError>) -> bool {
    matches!(connected, Err(ConnectError::TransactionPooling { .. }))
}

/// Sessions are handed out the newest first, or in turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_shares_sessions_is_refused() {
    let Some(database) = database(&EMPTY).await else { return };
    for (mode, settings) in [
        (PoolMode::Transaction, ""),
        (PoolMode::Statement, ""),
        (PoolMode::Transaction, "server_round_robin = 1\nmin_pool_size = 4"),
    ] {
        let Some(pooler) = Pooler::start(&database, mode, settings) else { return };
        for _ in 0..4 {
            let migrated = migrate(pooler.url()).await;
            let Err(MigrateError::Connect(error)) = migrated else { panic!("{mode:?}: {migrated:?}") };
            assert!(is_refused(&Err::<(), _>(error)));
            assert!(is_refused(&Postgres::connect(pooler.url(), options()).await), "{mode:?} {settings}");
            assert!(is_refused(&audit(pooler.url()).await), "{mode:?} {settings}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // Nothing was set in the sessions of others, and nothing is locked.
        let (client, connection) =
            tokio_postgres::connect(pooler.url(), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let left = client.simple_query("SHOW enable_seqscan").await.unwrap();
        let is_on = left.iter().any(|answer| {
            matches!(answer, tokio_postgres::SimpleQueryMessage::Row(row) if row.get(0) == Some("on"))
        });
        assert!(is_on, "{left:?}");
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        assert_eq!(database.query_i64(locks).await.unwrap(), 0);
    }
}

/// The control: a pooler whose clients keep their sessions.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_session_mode_serves() {
    let Some(database) = database(&EMPTY).await else { return };
    let Some(pooler) = Pooler::start(&database, PoolMode::Session, "") else { return };
    migrate(pooler.url()).await.unwrap();
    migrate(pooler.url()).await.unwrap();
    let postgres = Postgres::connect(pooler.url(), options()).await.unwrap();
    let fixture = Fixture::new(Storage::new(std::sync::Arc::new(postgres)), ());
    let user = fixture.id(UserId::new);
    let works = (0..20).map(|_| fixture.charge_work(fixture.id(UserId::new), None, 5, at(1))).collect();
    for outcome in fixture.race(works).await {
        outcome.unwrap();
    }
    fixture.charge(user, 5, at(1)).await;
    assert_eq!(fixture.account(user).await.value.balance, money(5));
    assert!(audit(pooler.url()).await.unwrap().iter().all(|finding| finding.breaches == 0));
}
