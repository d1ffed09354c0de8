//! Storage in PostgreSQL, for any number of nodes.
//!
//! # Writing
//! A unit of work is one transaction (`commit/`): take the idempotency key, lock every row that is touched, check the
//! versions, do the command, write.
//!
//! ## Lock order
//! Every unit takes its locks in this order, so that no two can wait for each other in a circle:
//! 1. the idempotency key: its insert waits for a twin that is just committing;
//! 2. `lines`, for whatever changes how many wait or how a room admits: join, admit, a token that leaves WAIT, any
//!    write of a room. `FOR UPDATE`;
//! 3. `rooms`, `queue_tokens`, `accounts`, `reservations`, `seats`, each by key, guards among the rest.
//!    `FOR NO KEY UPDATE`, which leaves the share locks of foreign keys alone. 2 and 3 are one statement;
//! 4. what a command finds for itself (see below);
//! 5. inserts: tables in a fixed order, rows by key. Who inserts holds all his row locks already, so that an insert
//!    waits only for somebody who waits for nothing but inserts further on;
//! 6. `seat_feeds`, by date: hot rows, so that they are held the shortest. Nothing is locked after them.
//!
//! Commands, with the locks of step 4:
//! - Join locks the lapsed token of its user, while it holds the line. Whoever else holds that token waits for no
//!   line any more, and for no token.
//! - Admit locks the head of the line by token id, while it holds the line: whoever else moves a waiter out has to
//!   wait for the line first, and so holds none of these tokens. A guard on one of them may be in the way for a
//!   moment; it has its line locks, if any, behind it.
//! - ExpireTokens and ExpireHolds skip what is locked, so they never wait for tokens or reservations. The seats of the
//!   holds come after that, by key, as everywhere.
//!
//! A unit with a Join or an Admit changes no token, account, reservation or seat of its own, or it would be past step 3
//! when it comes to step 4. The database would find the circle, and the unit would be tried again.
//!
//! ## Statements
//! All but BEGIN and COMMIT are prepared once a connection (`Cached`). A test counts them.
//!
//! | unit | round trips besides BEGIN and COMMIT |
//! |---|---|
//! | join | lock; room with line, and live token (pipelined); insert token with line: 3. Already there: 2, no COMMIT |
//! | charge | idempotency key; lock; account; entry: 4 |
//! | reserve | key; lock; token; reservation; seats; seats of the reservation; feed: 7, and 1 over a lapsed hold |
//! | pay | key; lock; token; account; reservation; seats; entry; payment; tickets; feed: 10, and 1 for the line of a waiting token |
//! | poll (`standing`) | 1, without a transaction |
//!
//! Every other read is one statement without a transaction too, and gives its connection back at once.
//!
//! ## Failures
//! - Tried again, up to `MAX_ATTEMPTS` (5) times in all: a deadlock, a serialization failure, a BEGIN that met a
//!   dead connection, a lapsed token that changed under a Join.
//! - `Unavailable`: no connection within the time allowed, a lost connection before COMMIT was sent, lock and statement
//!   timeouts, attempts used up. Nothing was written.
//! - `OutcomeUnknown`: COMMIT was sent, and no success came back.
//! - A connection whose transaction may be open is closed, never pooled. A caller that goes away leaves its commit
//!   running on a task of its own.

mod audit;
mod cached;
mod commit;
mod connection;
mod error;
mod feeds;
mod migrate;
mod queries;
mod repositories;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod transaction;

use std::fmt;
use std::time::{Duration, Instant};

use diesel::QueryableByName;
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use frontrow_domain::ports::{Clock, StorageError};

use self::cached::Cached;
use self::connection::Connection;
use self::error::read_error;
use self::target::Target;
use crate::sql::types::{DbTime, Instant as DbInstant};

pub use self::audit::audit;
pub use self::error::{ConnectError, MigrateError};
pub use self::migrate::migrate;

/// How often the clocks are compared; the quickest answer counts.
const CLOCK_ROUNDS: usize = 5;

/// How connections are made, kept and bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    /// The most connections at once.
    pub pool_size: usize,
    /// The longest a call waits for a free connection of the pool.
    pub acquire_timeout: Duration,
    /// The longest that making a connection takes, over all hosts; `connect_timeout` in the URL (seconds a host) can
    /// make it longer.
    pub connect_timeout: Duration,
    /// The longest a statement waits for a lock.
    pub lock_timeout: Duration,
    /// The longest a statement runs.
    pub statement_timeout: Duration,
    /// How long the server lets a transaction sit idle before it ends it.
    pub idle_in_transaction_timeout: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            pool_size: 16,
            acquire_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            idle_in_transaction_timeout: Duration::from_secs(15),
        }
    }
}

/// A storage adapter on a PostgreSQL database. Cloning shares the pool.
#[derive(Clone)]
pub struct Postgres {
    pool: Pool<AsyncPgConnection>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("pool", &self.pool.status()).finish_non_exhaustive()
    }
}

#[derive(QueryableByName)]
struct ServerTime {
    #[diesel(sql_type = DbInstant)]
    server_time: DbTime,
}

impl Postgres {
    /// Connects to `postgres://user:password@host:port/database`, and sees that the schema is up to date.
    ///
    /// Understood options: those of tokio-postgres (`connect_timeout`, `target_session_attrs`, several hosts, ..),
    /// and `sslmode` with `sslrootcert` as libpq has them: `disable`, `prefer` (the default: encrypted where the server
    /// can), `require` (encrypted, to whoever answers), `verify-ca` and `verify-full` (against the PEM file
    /// `sslrootcert`, else against what the operating system trusts).
    ///
    /// # Errors
    /// [`ConnectError`], within [`PostgresOptions::connect_timeout`] when no server answers.
    pub async fn connect(url: &str, options: PostgresOptions) -> Result<Self, ConnectError> {
        let target = Target::new(url, &options)?;
        let server = target.server();
        let pool = connection::pool(target, &options)?;
        let unreachable = |source| ConnectError::Unreachable { server: server.clone(), source };
        let mut connection = pool.get().await.map_err(|error| unreachable(Box::new(error)))?;
        let missing = migrate::first_missing(&mut connection).await.map_err(unreachable)?;
        drop(connection);
        match missing {
            None => Ok(Self { pool }),
            Some(missing) => Err(ConnectError::SchemaBehind { missing }),
        }
    }

    /// What to add to `clock` to have the database's clock, in microseconds: the quickest of a few round trips, taken to
    /// have been answered half way. Nodes that correct their clocks by it judge deadlines alike.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when the database does not answer.
    pub async fn clock_offset(&self, clock: &dyn Clock) -> Result<i64, StorageError> {
        let mut connection = self.connection().await?;
        let mut quickest: Option<(Duration, i64)> = None;
        for _ in 0..CLOCK_ROUNDS {
            let (sent_at, started) = (clock.now(), Instant::now());
            let query = Cached(diesel::sql_query("SELECT clock_timestamp() AS server_time"));
            let answer = query.get_result::<ServerTime>(&mut connection).await.map_err(read_error)?;
            let took = started.elapsed();
            let half_way = i64::try_from(took.as_micros() / 2).unwrap_or(i64::MAX);
            let ours = sent_at.unix_micros().saturating_add(half_way);
            let offset = answer.server_time.0.unix_micros().saturating_sub(ours);
            if quickest.is_none_or(|(best, _)| took < best) {
                quickest = Some((took, offset));
            }
        }
        Ok(quickest.map_or(0, |(_, offset)| offset))
    }

    async fn connection(&self) -> Result<Connection, StorageError> {
        connection::acquire(&self.pool).await
    }
}
