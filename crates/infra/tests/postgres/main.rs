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
mod connection_limits;
mod counters;
mod demands;
#[path = "../contract/fixture.rs"]
#[allow(dead_code, reason = "the contract uses the rest")]
mod fixture;
mod health;
mod hosts;
mod incarnation;
mod line_cost;
mod lost;
mod migrations;
mod nodes;
mod offer_cost;
mod outage;
mod overload;
mod pooling;
mod pruning;
mod silence;
mod slow_reads;
mod stuck_rows;

use std::error::Error;
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

/// The default options, on a server of tests: it is fast, not durable.
fn options() -> PostgresOptions {
    PostgresOptions { allow_lossy_commits: true, ..PostgresOptions::default() }
}

/// An error with its causes, as an operator reads it.
fn told(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// A role that may read and write the tables of a database, and nothing else.
struct PlainRole<'a> {
    database: &'a TestDatabase,
    name: String,
}

impl<'a> PlainRole<'a> {
    /// Makes it, with options of `CREATE ROLE`.
    async fn new(database: &'a TestDatabase, name: &str, options: &str) -> Self {
        let (name, db) = (format!("{name}_{}", database.name()), database.name());
        let grants = format!(
            "CREATE ROLE {name} LOGIN PASSWORD 'plain' {options}; \
             REVOKE ALL ON DATABASE {db} FROM PUBLIC; GRANT CONNECT ON DATABASE {db} TO {name}; \
             REVOKE CREATE ON SCHEMA public FROM PUBLIC; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}"
        );
        database.execute(&grants).await.unwrap();
        Self { database, name }
    }

    fn url(&self) -> String {
        let (_, server) = self.database.url().split_once('@').unwrap();
        format!("postgres://{}:plain@{server}", self.name)
    }

    async fn drop(self) {
        let Self { database, name } = self;
        database.execute(&format!("DROP OWNED BY {name}; DROP ROLE {name}")).await.unwrap();
    }
}

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
