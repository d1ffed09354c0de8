//! What only the PostgreSQL adapter promises: its connections, its migrations, and its manners under trouble.
//! What it shares with the other adapters is in the contract.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod batches;
mod concurrency;
mod connecting;
mod counters;
#[path = "../contract/fixture.rs"]
#[allow(dead_code, reason = "the contract uses the rest")]
mod fixture;
mod health;
mod line_cost;
mod lost;
mod migrations;
mod nodes;
mod outage;
mod overload;
mod pruning;
mod silence;

use std::sync::{Arc, LazyLock};

use frontrow_infra::Storage;
use frontrow_infra::postgres::{Postgres, PostgresOptions, migrate};
use frontrow_testkit::postgres::{Template, TestDatabase, database};

use crate::fixture::Fixture;

/// A migrated database, copied for each test.
static MIGRATED: LazyLock<Template> =
    LazyLock::new(|| Template::new("postgres", |url| async move { Ok(migrate(&url).await?) }));

/// A database with nothing in it.
static EMPTY: LazyLock<Template> = LazyLock::new(|| Template::new("empty", |_url| async { Ok(()) }));

/// A migrated database with an adapter on it.
struct Opened {
    database: TestDatabase,
    postgres: Postgres,
}

impl Opened {
    /// `None` where there is no PostgreSQL.
    async fn new(options: PostgresOptions) -> Option<Self> {
        let database = database(&MIGRATED).await?;
        let postgres = Postgres::connect(database.url(), options).await.unwrap();
        Some(Self { database, postgres })
    }

    fn fixture(&self) -> Fixture {
        Fixture::new(Storage::new(Arc::new(self.postgres.clone())), ())
    }

    /// A figure about the sessions of the adapter: `what` of those that the condition holds for.
    async fn sessions(&self, condition: &str) -> i64 {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name = 'frontrow' AND {condition}"
        );
        self.database.query_i64(&sql).await.unwrap()
    }
}
