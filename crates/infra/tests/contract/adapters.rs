//! How each adapter is opened: on empty storage of its own, so that tests can run side by side.

use std::sync::{Arc, LazyLock};

use frontrow_infra::postgres::{Postgres, PostgresOptions, migrate};
use frontrow_infra::sqlite::SqliteOptions;
use frontrow_infra::{Memory, Sqlite, Storage};
use frontrow_testkit::postgres::{Template, database};

use crate::fixture::Fixture;

pub(crate) async fn memory() -> Option<Fixture> {
    Some(Fixture::new(Storage::new(Arc::new(Memory::new())), ()))
}

pub(crate) async fn sqlite() -> Option<Fixture> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("contract.db");
    Sqlite::migrate(&path).unwrap();
    let sqlite = Arc::new(Sqlite::open(&path, SqliteOptions::default()).unwrap());
    let fixture = Fixture::new(Storage::new(sqlite.clone()), directory);
    Some(fixture.grouping(move || sqlite.stats().batches))
}

/// A migrated database, copied for each test.
static MIGRATED: LazyLock<Template> =
    LazyLock::new(|| Template::new("contract", |url| async move { Ok(migrate(&url).await?) }));

pub(crate) async fn postgres() -> Option<Fixture> {
    let database = database(&MIGRATED).await?;
    // The server of tests is fast, not durable.
    let options = PostgresOptions { allow_lossy_commits: true, ..PostgresOptions::default() };
    let postgres = Postgres::connect(database.url(), options).await.unwrap();
    let fixture = Fixture::new(Storage::new(Arc::new(postgres.clone())), database);
    Some(fixture.grouping(move || postgres.stats().transactions))
}
