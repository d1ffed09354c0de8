//! The database behind the ports: which one, and what only its owner needs of it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use frontrow_infra::Storage;
use frontrow_infra::audit::Finding;
use frontrow_infra::identity::SystemClock;
use frontrow_infra::postgres::{self, Postgres, PostgresOptions};
use frontrow_infra::sqlite::{Sqlite, SqliteOptions};

use crate::cli::DatabaseUrl;

/// How long what is queued may take to be written when the server stops.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// An open database. Cloning shares it.
#[derive(Clone)]
pub enum Backend {
    /// The embedded default.
    Sqlite(Arc<Sqlite>),
    /// A server that several nodes share.
    Postgres(Arc<Postgres>),
}

impl Backend {
    /// Opens a database whose schema is up to date. One transaction takes at most `group_commit_limit` units of work,
    /// where that is said.
    ///
    /// # Errors
    /// When it cannot be reached, or its schema is not up to date.
    pub async fn open(url: &DatabaseUrl, group_commit_limit: Option<u16>) -> Result<Self> {
        match url {
            DatabaseUrl::Sqlite(path) => {
                let mut options = SqliteOptions::default();
                if let Some(limit) = group_commit_limit {
                    options.group_commit_limit = limit.into();
                }
                let opened = Sqlite::open(path, options);
                Ok(Self::Sqlite(Arc::new(opened.with_context(|| format!("cannot open {url:?}"))?)))
            }
            DatabaseUrl::Postgres(url) => {
                let mut options = PostgresOptions::default();
                if let Some(limit) = group_commit_limit {
                    options.group_commit_limit = limit.into();
                }
                let connected = Postgres::connect(url, options).await;
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

    /// The database's clock less the machine's, in microseconds; `None` where the machine's is the only one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn clock_offset_micros(&self) -> Result<Option<i64>> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres(adapter) => Ok(Some(adapter.clock_offset(&SystemClock::default()).await?)),
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
