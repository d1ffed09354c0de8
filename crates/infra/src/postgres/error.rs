//! What goes wrong with PostgreSQL, as the ports and the composition root see it.

use std::error::Error;
use std::time::Duration;

use diesel::result::Error as DieselError;
use frontrow_domain::ports::StorageError;
use frontrow_domain::unit_of_work::Source;
use tokio_postgres::error::SqlState;

/// Why there is no connection to PostgreSQL. Never tells a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL cannot be understood.
    #[error("the database URL cannot be used: {0}")]
    InvalidUrl(String),
    /// The certificates to trust cannot be read.
    #[error("the certificates to trust for PostgreSQL cannot be read")]
    RootCertificates(#[source] Source),
    /// No host of the URL gave a usable connection in time.
    #[error("PostgreSQL at {server} cannot be used")]
    Unreachable {
        /// Hosts and ports, as in the URL.
        server: String,
        /// The failure of each attempt.
        #[source]
        source: Source,
    },
    /// The server, the database or the role has as many connections as it may.
    #[error("PostgreSQL at {server} grants no further connection")]
    TooManyConnections {
        /// Host and port.
        server: String,
        /// The server's own words.
        #[source]
        source: Source,
    },
    /// The server takes no writes.
    #[error("PostgreSQL at {server} is read-only: a standby, or default_transaction_read_only is on")]
    ReadOnly {
        /// Hosts and ports.
        server: String,
    },
    /// The server takes writes, and only readers were asked for (`target_session_attrs=read-only`).
    #[error("PostgreSQL at {server} is not read-only, which target_session_attrs asks for")]
    NotReadOnly {
        /// Hosts and ports.
        server: String,
    },
    /// The database stores texts in another encoding than UTF-8.
    #[error("the database has the encoding {encoding}: create it with ENCODING 'UTF8'")]
    Encoding {
        /// The name of its encoding.
        encoding: String,
    },
    /// A crash of the server may lose commits that it has acknowledged.
    #[error("PostgreSQL may lose acknowledged commits: {setting} (--allow-lossy-commits accepts that)")]
    LossyCommits {
        /// The setting and its value, as in `fsync = off`.
        setting: String,
    },
    /// A synchronous replica is required and not configured.
    #[error(
        "PostgreSQL has no synchronous replica: synchronous_standby_names is empty (--require-sync-replica)"
    )]
    NoSyncReplica,
    /// A connection pooler gives each transaction another session.
    #[error(
        "PostgreSQL at {server} is behind a connection pooler in transaction or statement mode: \
         use its session mode, or connect to the server itself"
    )]
    TransactionPooling {
        /// Host and port.
        server: String,
    },
    /// The database answers, but has not seen all migrations.
    #[error("the database schema is not up to date: migration {missing} is missing")]
    SchemaBehind {
        /// The first migration that is missing.
        missing: String,
    },
}

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Another process held the migration lock for too long.
    #[error("another process has been migrating the database for more than {waited:?}")]
    Locked {
        /// The length of the wait.
        waited: Duration,
    },
    /// A migration failed. Those before it are in, it is not.
    #[error("the database schema cannot be brought up to date")]
    Failed(#[source] Source),
}

impl ConnectError {
    /// The failure of a start-up or of a first statement on a host.
    pub(super) fn of(server: String, error: tokio_postgres::Error) -> Self {
        let is_refusal = error.as_db_error().is_some_and(|refusal| {
            // PgBouncer counts its clients itself, and has no code of its own for that.
            *refusal.code() == SqlState::TOO_MANY_CONNECTIONS || refusal.message().contains("max_client_conn")
        });
        let source: Source = Box::new(error);
        if is_refusal {
            Self::TooManyConnections { server, source }
        } else {
            Self::Unreachable { server, source }
        }
    }

    /// The failures of several hosts or addresses as one: what a host that answers demands goes before what does not
    /// answer.
    pub(super) fn of_all(server: String, mut errors: Vec<Self>) -> Self {
        if let [_] = errors.as_slice()
            && let Some(only) = errors.pop()
        {
            return only;
        }
        let is_passed_over = |error: &Self| {
            matches!(error, Self::Unreachable { .. } | Self::ReadOnly { .. } | Self::NotReadOnly { .. })
        };
        if let Some(telling) = errors.iter().position(|error| !is_passed_over(error)) {
            return errors.swap_remove(telling);
        }
        let texts: Vec<String> = errors.iter().map(|error| with_causes(error)).collect();
        Self::Unreachable { server, source: texts.join("; ").into() }
    }
}

/// A failed read, as the ports report it.
pub(super) fn read_error(error: DieselError) -> StorageError {
    match error {
        DieselError::DeserializationError(cause) => StorageError::Corrupt(cause.to_string()),
        error => unavailable(error),
    }
}

pub(super) fn unavailable(error: impl Into<Source>) -> StorageError {
    StorageError::Unavailable(error.into())
}

/// An error and its causes in one line, for interfaces that take a text only.
pub(super) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
