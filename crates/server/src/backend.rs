//! The database behind the ports: which one, and what only its owner needs of it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use frontrow_domain::ports::NodeRegistry;
use frontrow_infra::Storage;
use frontrow_infra::audit::Finding;
use frontrow_infra::clock::{Policy, Reading, SystemClock, read_machine};
use frontrow_infra::postgres::{self, Postgres, PostgresOptions};
use frontrow_infra::sqlite::{Sqlite, SqliteOptions};

use crate::cli::DatabaseUrl;

/// How long what is queued may take to be written when the server stops.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// How a database is used. Each option is that of the adapter where nothing is said.
#[derive(Debug, Clone, Copy, Default)]
pub struct DatabaseOptions {
    /// The most units of work in one transaction.
    pub group_commit_limit: Option<u16>,
    /// The most connections to PostgreSQL.
    pub connections: Option<u16>,
    /// Whether PostgreSQL may acknowledge commits that a crash loses.
    pub allow_lossy_commits: bool,
    /// Whether PostgreSQL must have a synchronous replica.
    pub require_sync_replica: bool,
}

impl DatabaseOptions {
    /// For a command that acknowledges no client's write: it works with a database that may lose commits.
    #[must_use]
    pub fn for_preparation() -> Self {
        Self { allow_lossy_commits: true, ..Self::default() }
    }

    fn postgres(self) -> PostgresOptions {
        let default = PostgresOptions::default();
        PostgresOptions {
            group_commit_limit: self.group_commit_limit.map_or(default.group_commit_limit, usize::from),
            pool_size: self.connections.map_or(default.pool_size, usize::from),
            allow_lossy_commits: self.allow_lossy_commits,
            require_sync_replica: self.require_sync_replica,
            ..default
        }
    }
}

/// An open database. Cloning shares it.
#[derive(Clone)]
pub enum Backend {
    /// The embedded default.
    Sqlite(Arc<Sqlite>),
    /// A server that several nodes share.
    Postgres(Arc<Postgres>),
}

impl Backend {
    /// Opens a database whose schema is up to date.
    ///
    /// # Errors
    /// When it cannot be reached or must not be used, or its schema is not up to date.
    pub async fn open(url: &DatabaseUrl, database_options: DatabaseOptions) -> Result<Self> {
        match url {
            DatabaseUrl::Sqlite(path) => {
                let mut options = SqliteOptions::default();
                if let Some(limit) = database_options.group_commit_limit {
                    options.group_commit_limit = limit.into();
                }
                let opened = Sqlite::open(path, options);
                Ok(Self::Sqlite(Arc::new(opened.with_context(|| format!("cannot open {url:?}"))?)))
            }
            DatabaseUrl::Postgres(url) => {
                let connected = Postgres::connect(url, database_options.postgres()).await;
                Ok(Self::Postgres(Arc::new(connected.context("cannot use the PostgreSQL database")?)))
            }
        }
    }

    /// The ports.
    #[must_use]
    pub fn storage(&self) -> Storage {
        match self {
            Self::Sqlite(adapter) => Storage::new(adapter.clone()),
            Self::Postgres(adapter) => Storage::new(adapter.clone()),
        }
    }

    /// The registry of the nodes, where there may be several.
    #[must_use]
    pub fn nodes(&self) -> Option<Arc<dyn NodeRegistry>> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(adapter) => Some(adapter.clone()),
        }
    }

    /// The clock that every process on this database follows: the database server's where several nodes share one, else
    /// the machine's.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn clock(&self) -> Result<SystemClock> {
        let policy = match self {
            Self::Sqlite(_) => Policy::MACHINE,
            Self::Postgres(_) => Policy::DATABASE,
        };
        Ok(SystemClock::following(policy, self.read_clock().await?))
    }

    /// A reading of the clock that [`Self::clock`] follows.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn read_clock(&self) -> Result<Reading> {
        match self {
            Self::Sqlite(_) => Ok(read_machine()),
            Self::Postgres(adapter) => Ok(adapter.read_clock().await?),
        }
    }

    /// Refuses commits and reads from now on, because another program wrote over the SQLite file.
    pub fn distrust_file(&self) {
        if let Self::Sqlite(adapter) = self {
            adapter.distrust_file();
        }
    }

    /// Finishes what is queued. Later work is refused.
    pub async fn close(self) {
        match self {
            Self::Sqlite(adapter) => {
                // Joins a thread, so not on a thread of the runtime.
                let _ = tokio::task::spawn_blocking(move || adapter.close(CLOSE_WITHIN)).await;
            }
            Self::Postgres(adapter) => {
                adapter.close(CLOSE_WITHIN).await;
            }
        }
    }
}

/// Brings the schema of a database up to date. Any number of processes may do so at once.
///
/// # Errors
/// When it cannot be reached or changed.
pub async fn migrate(url: &DatabaseUrl) -> Result<()> {
    match url.clone() {
        DatabaseUrl::Sqlite(path) => {
            let migrated = tokio::task::spawn_blocking(move || Sqlite::migrate(&path)).await?;
            migrated.map(|_| ()).with_context(|| format!("cannot migrate {url:?}"))
        }
        DatabaseUrl::Postgres(url) => {
            postgres::migrate(&url).await.context("cannot migrate the PostgreSQL database")
        }
    }
}

/// Checks every invariant of a database in one snapshot. It may be in use.
///
/// # Errors
/// When it cannot be reached, or has no schema.
pub async fn audit(url: &DatabaseUrl) -> Result<Vec<Finding>> {
    match url.clone() {
        DatabaseUrl::Sqlite(path) => {
            let audited = tokio::task::spawn_blocking(move || Sqlite::audit(&path)).await?;
            audited.with_context(|| format!("cannot audit {url:?}"))
        }
        DatabaseUrl::Postgres(url) => {
            postgres::audit(&url).await.context("cannot audit the PostgreSQL database")
        }
    }
}

/// Whether a database holds concerts. One that is missing, or without tables, holds none.
///
/// # Errors
/// When it cannot be reached or read.
pub async fn holds_concerts(url: &DatabaseUrl) -> Result<bool> {
    match url.clone() {
        DatabaseUrl::Sqlite(path) => {
            let found = tokio::task::spawn_blocking(move || Sqlite::holds_concerts(&path)).await?;
            found.with_context(|| format!("cannot read {url:?}"))
        }
        DatabaseUrl::Postgres(url) => {
            postgres::holds_concerts(&url).await.context("cannot read the PostgreSQL database")
        }
    }
}
