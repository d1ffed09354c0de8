//! Servers and databases that a node must not work with.

use std::time::{Duration, Instant};

use frontrow_domain::ports::{StorageError, StorageHealth};
use frontrow_infra::postgres::{ConnectError, MigrateError, Postgres, PostgresOptions, migrate};
use frontrow_testkit::postgres::{Cluster, TestDatabase, database};
use tokio::time::sleep;

use crate::{MIGRATED, PlainRole, options, told};

async fn connect(url: &str) -> Result<Postgres, ConnectError> {
    Postgres::connect(url, PostgresOptions::default()).await
}

async fn lossy(url: &str) -> String {
    match connect(url).await {
        Err(ConnectError::LossyCommits { setting }) => setting,
        other => panic!("{other:?}"),
    }
}

/// The server, a database and a role may each say it; what is in force in the session counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_may_lose_commits_is_refused_unless_allowed() {
    let Some(cluster) = Cluster::start_private().await else { return };
    let database = cluster.database(&MIGRATED).await;
    let (url, name) = (database.url(), database.name());
    // The control: by default PostgreSQL loses nothing.
    connect(url).await.unwrap().writability().await.unwrap();
    for value in ["off", "local"] {
        database.execute(&format!("ALTER DATABASE {name} SET synchronous_commit = {value}")).await.unwrap();
        assert_eq!(lossy(url).await, format!("synchronous_commit = {value}"));
        Postgres::connect(url, options()).await.unwrap().writability().await.unwrap();
    }
    database.execute(&format!("ALTER DATABASE {name} RESET synchronous_commit")).await.unwrap();
    let role = PlainRole::new(&database, "plain", "").await;
    connect(&role.url()).await.unwrap();
    database.execute(&format!("ALTER ROLE {} SET synchronous_commit = off", role.name)).await.unwrap();
    assert_eq!(lossy(&role.url()).await, "synchronous_commit = off");
    role.drop().await;
    assert_eq!(
        lossy(&format!("{url}?options=-c%20synchronous_commit%3Doff")).await,
        "synchronous_commit = off"
    );

    let replicated = PostgresOptions { require_sync_replica: true, ..PostgresOptions::default() };
    let error = Postgres::connect(url, replicated.clone()).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoSyncReplica), "{error:?}");

    // A running node finds out as well, once a connection is checked again.
    let postgres = connect(url).await.unwrap();
    postgres.writability().await.unwrap();
    set(&database, "synchronous_commit = off").await;
    let patience = Instant::now() + Duration::from_secs(60);
    let refused = loop {
        sleep(Duration::from_millis(1_100)).await;
        if let Err(refused) = postgres.writability().await {
            break refused;
        }
        assert!(Instant::now() < patience, "the node goes on");
    };
    let StorageError::Unavailable(cause) = &refused else { panic!("{refused:?}") };
    assert!(told(cause.as_ref()).contains("synchronous_commit = off"), "{refused:?}");
    set(&database, "synchronous_commit = on").await;
    while postgres.writability().await.is_err() {
        assert!(Instant::now() < patience, "the node does not go on");
        sleep(Duration::from_millis(50)).await;
    }

    set(&database, "synchronous_standby_names = 'nowhere'").await;
    Postgres::connect(url, replicated).await.unwrap().writability().await.unwrap();
    set(&database, "synchronous_standby_names = ''").await;
}

async fn set(database: &TestDatabase, setting: &str) {
    let client = database.connect().await.unwrap();
    client.batch_execute("SET synchronous_commit = local").await.unwrap();
    client.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

#[tokio::test]
async fn a_server_without_fsync_is_refused() {
    let Some(database) = database(&MIGRATED).await else { return };
    let fsync = "SELECT count(*) FROM pg_settings WHERE name = 'fsync' AND setting = 'off'";
    if database.query_i64(fsync).await.unwrap() == 1 {
        assert_eq!(lossy(database.url()).await, "fsync = off");
    }
    Postgres::connect(database.url(), options()).await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_not_in_utf8_is_refused() {
    let Some(database) = database(&MIGRATED).await else { return };
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("{}_{}", database.name(), encoding.to_lowercase());
        let create = format!(
            "CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
        );
        database.execute(&create).await.unwrap();
        let url = database.url().replace(database.name(), &name);
        let migrated = migrate(&url).await;
        let connected = Postgres::connect(&url, options()).await;
        database.execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
        let Err(MigrateError::Connect(ConnectError::Encoding { encoding: found })) = migrated else {
            panic!("{migrated:?}")
        };
        assert_eq!(found, encoding);
        assert!(matches!(connected, Err(ConnectError::Encoding { .. })), "{connected:?}");
    }
}
