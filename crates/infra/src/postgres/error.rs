//! What goes wrong with PostgreSQL, as the ports and the composition root see it.

use std::error::Error;

use diesel::result::Error as DieselError;
use frontrow_domain::ports::StorageError;
use frontrow_domain::unit_of_work::Source;

/// Why there is no connection to PostgreSQL. Never tells a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL cannot be understood.
    #[error("the database URL cannot be used: {0}")]
    InvalidUrl(String),
    /// The certificates to trust cannot be read.
    #[error("the certificates to trust for PostgreSQL cannot be read")]
    RootCertificates(#[source] Source),
    /// No server let us in.
    #[error("PostgreSQL at {server} cannot be used")]
    Unreachable {
        /// Hosts and ports, as in the URL.
        server: String,
        /// What each attempt came to.
        #[source]
        source: Source,
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
    /// A migration failed. Those before it are in, it is not.
    #[error("the database schema cannot be brought up to date")]
    Failed(#[source] Source),
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
