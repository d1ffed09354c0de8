//! Readiness: whether the database can be written, and why not.

use std::time::Duration;

use frontrow_domain::UserId;
use frontrow_domain::ports::{StorageHealth, Writability};
use frontrow_domain::unit_of_work::CommitError;
use frontrow_infra::Storage;
use frontrow_infra::postgres::Postgres;
use frontrow_testkit::postgres::{Cluster, TestDatabase};

use crate::fixture::{Fixture, at};
use crate::{MIGRATED, Opened, options};

const LONG: Duration = Duration::from_secs(60);

/// Why the database cannot be written; none where it can. An answer is waited for, since connections may have ended.
async fn refused(postgres: &Postgres) -> Option<String> {
    let answered = async {
        loop {
            match postgres.writability().await {
                Ok(Writability::Writable) => return None,
                Ok(Writability::NotWritable(reason)) => return Some(reason.into_owned()),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(LONG, answered).await.expect("an answer")
}

#[tokio::test]
async fn a_database_without_its_schema_is_not_ready() {
    let Some(opened) = Opened::new(options()).await else { return };
    assert_eq!(refused(&opened.postgres).await, None, "control");
    for (statement, reason) in [
        ("DROP TABLE tickets CASCADE", "table tickets is missing"),
        (
            "DELETE FROM __diesel_schema_migrations WHERE version LIKE '%2'",
            "migration 20261127000002 is missing",
        ),
        ("DROP TABLE __diesel_schema_migrations", "no schema"),
    ] {
        opened.database.execute(statement).await.unwrap();
        let said = refused(&opened.postgres).await.unwrap_or_default();
        assert!(said.contains(reason), "{statement}: {said}");
    }
}

#[tokio::test]
async fn a_role_that_may_only_read_is_not_ready() {
    let Some(opened) = Opened::new(options()).await else { return };
    let role = format!("reader_{}", opened.database.name());
    let grant = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'plain'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    );
    opened.database.execute(&grant).await.unwrap();
    let (_, server) = opened.database.url().split_once('@').unwrap();
    let url = format!("postgres://{role}:plain@{server}");
    let reader = Postgres::connect(&url, options()).await.unwrap();
    let said = refused(&reader).await;
    drop(reader);
    opened.database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
    assert!(said.unwrap_or_default().contains("may not write"));
}

async fn set_read_only(database: &TestDatabase, value: &str) {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND application_name = 'frontrow'";
    let set = format!("ALTER DATABASE {} SET default_transaction_read_only = {value}", database.name());
    // The session itself may be one that reads only.
    let statements = format!("BEGIN READ WRITE; {set}; COMMIT; {end}");
    database.execute(&statements).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_is_not_ready_until_a_commit_succeeds_again() {
    let Some(opened) = Opened::new(options()).await else { return };
    let fixture = opened.fixture();
    let charge = async || {
        let user = fixture.id(UserId::new);
        fixture.commit(fixture.charge_work(user, None, 5, at(1))).await
    };
    charge().await.unwrap();
    set_read_only(&opened.database, "on").await;
    assert!(refused(&opened.postgres).await.unwrap_or_default().contains("default_transaction_read_only"));
    let committed = charge().await;
    assert!(matches!(committed, Err(CommitError::Unavailable(_))), "{committed:?}");
    set_read_only(&opened.database, "off").await;
    let said = refused(&opened.postgres).await.unwrap_or_default();
    assert!(said.contains("the last commit was refused"), "sessions differ from each other: {said}");
    let healed = async {
        while charge().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LONG, healed).await.expect("commits succeed again");
    assert_eq!(refused(&opened.postgres).await, None);
}

/// A standby that follows nobody, and is not promoted.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_not_ready_until_it_is_promoted() {
    let Some(cluster) = Cluster::start_private().await else { return };
    let database = cluster.database(&MIGRATED).await;
    let postgres = Postgres::connect(database.url(), options()).await.unwrap();
    assert_eq!(refused(&postgres).await, None, "control");
    cluster.stop_immediate().await;
    let signal = cluster.directory().unwrap().join("data/standby.signal");
    std::fs::write(&signal, "").unwrap();
    cluster.start().await;
    assert!(refused(&postgres).await.unwrap_or_default().contains("standby"));
    database.execute("SELECT pg_promote()").await.unwrap();
    assert_eq!(refused(&postgres).await, None);
    let fixture = Fixture::new(Storage::new(std::sync::Arc::new(postgres)), ());
    fixture.write(fixture.charge_work(fixture.id(UserId::new), None, 5, at(1))).await;
}
