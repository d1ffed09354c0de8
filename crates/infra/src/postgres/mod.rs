//! Storage in PostgreSQL, for any number of nodes.
//!
//! # Writing
//! Units of work of all callers go through one bounded queue. A few committers each take what is queued, at most so many,
//! and write it in one transaction (`commit/`, ADR 0006). There is no timer: a lone unit goes at once, and while one
//! batch is written the next one gathers by itself. A batch has three round trips, however many units it has:
//! 1. BEGIN, one statement that locks every row that is touched, and what is to be known besides (keys that are
//!    taken, rooms that are joined, live tokens of joiners), sent together: the server runs one after the other, each
//!    with a snapshot of its own, so that what is looked up is what the last holder of the locks has left;
//! 2. in memory, in the order of the queue, each unit is judged (`commit/plan.rs`); then the writes, one statement a table,
//!    sent together;
//! 3. COMMIT, alone: it is never sent before the outcome of every other statement is known.
//!
//! Two units never write one row in one batch: the second has loaded what the first has made old, and conflicts. Joins of
//! one room share the lock of its line, and are numbered in the order of the queue.
//!
//! A unit with another command than a Join, new seats, or a change of rooms, concerts or dates has a transaction of its own;
//! its command and the catalogue are round trips of their own.
//!
//! ## Lock order
//! Every transaction takes its locks in this order, so that no two can wait for each other in a circle:
//! 1. `lines`, for whatever changes how many wait or how a room admits: join, admit, a token that leaves WAIT, any
//!    write of a room. `FOR UPDATE`;
//! 2. `rooms`, `queue_tokens`, `accounts`, `reservations`, `seats`, each by key, guards among the rest, of all units
//!    together. `FOR NO KEY UPDATE`, which leaves the share locks of foreign keys alone. 1 and 2 are one statement;
//! 3. what a command finds for itself (see below);
//! 4. inserts: rooms, concerts, dates, idempotency keys, then tables in a fixed order, rows by primary key. Who inserts
//!    holds all his row locks already, so that an insert waits only for somebody who waits for nothing but inserts
//!    further on. Other unique columns are met by those only who hold the row that guards them (the line for tickets and
//!    live tokens, the account for the numbers of entries, the reservation for its payment, the seat for its place in a
//!    reservation and its ticket), so nobody waits for them. Updates write rows that are locked by then;
//! 5. `seat_feeds`, by date: hot rows, so that they are held the shortest. Nothing is locked after them.
//!
//! Commands, with the locks of step 3:
//! - Join of somebody whose token has lapsed but is stored as ACTIVE locks that token, while it holds the line. In a batch
//!   it would be past step 2, so it comes again alone. Whoever else holds that token waits for no line any more, and for
//!   no token.
//! - Admit locks the head of the line by token id, while it holds the line: whoever else moves a waiter out has to
//!   wait for the line first, and so holds none of these tokens. A guard on one of them may be in the way for a
//!   moment; it has its line locks, if any, behind it.
//! - GiveUpAbandoned locks the head of the line as Admit does. Fill, which has the line too, locks nothing more.
//! - NotePolls has no line and skips what is locked. ExpireTokens and ExpireHolds skip what is locked, seats included, so
//!   they wait for the feeds of dates alone.
//!
//! - PruneTokens and PruneAnswers skip what is locked too, and lock no line. What was deleted of a room is counted after
//!   that, in a row for which only they wait.
//!
//! - The look of the sideline (`commit/stuck.rs`) locks rows in the same order, skips what is locked, and rolls back.
//!
//! A unit with a Join or an Admit changes no token, account, reservation or seat of its own, or it would be past step 2
//! when it comes to step 3. The database would find the circle, and the unit would be tried again.
//!
//! ## Statements
//! All but BEGIN and COMMIT are prepared once a connection (`Cached`). A test counts them, for one unit and for many.
//! A batch of all kinds has the union of them.
//!
//! | unit, or any number of them | statements besides BEGIN and COMMIT | round trips in all |
//! |---|---|---|
//! | join | lock; rooms, live tokens; tokens, lines: 5 | 3. All there already: lock, rooms, live tokens and no COMMIT, 2 |
//! | charge | lock; keys; keys, accounts (new ones apart), entries: 5 | 3 |
//! | reserve | lock; keys; keys, tokens, reservations, seats, their places in reservations, feeds: 8, and 1 over a lapsed hold | 3 |
//! | pay | lock; keys; keys, tokens, accounts, reservations, seats, entries, payments, tickets, feeds: 11, and 1 for lines of waiting tokens | 3 |
//! | note polls | lock; the tokens: 2 | 3 |
//! | give up the abandoned | lock; the head of the line with its counters: 2 | 3 |
//! | prune tokens, prune answers | lock; the rows with their count: 2 | 3, and 2 when nothing is over |
//! | readiness (`health.rs`), registration of a node (`nodes.rs`) | 1; without a transaction | 1 |
//! | what a node's view of all lines is refreshed by | 1, and 1 more when somebody left a line; without a transaction | 1 or 2 |
//!
//! Joins of an OPEN room with a cap have one statement and one round trip more, to count who is ACTIVE.
//!
//! # Reading
//! Every read is one statement without a transaction, and gives its connection back at once. Aggregates are loaded by key
//! for many callers at once (`Loader`): each kind has a queue of its own, and whoever comes while a statement is under
//! way shares the next one, never one that has been sent, so that everybody reads what was committed before.
//!
//! ## Failures
//! - A unit that is refused (key taken, version moved on, room closed) leaves its batch before anything is written.
//! - Tried again, up to `MAX_CONNECTIONS` (3) times in all: a batch whose connection ended before COMMIT was sent, be it closed
//!   or ended by the server in the middle of a statement. Nothing was written, and no unit is to blame.
//! - Tried again, up to `MAX_ATTEMPTS` (5) times in all: a deadlock, a serialization failure, an insert that another node was faster with (it has committed, so that the next attempt sees it).
//! - Taken apart, halves first, until the one to blame is alone: a batch in which a constraint is broken, a statement
//!   failed, or attempts are used up. At most `MAX_FAILED` (32) failed statements, and no attempt after `GIVEN_UP_AFTER` (15 s);
//!   then the rest is `Unavailable`.
//! - Set aside: units on rows that another session keeps locked (`commit/sideline.rs`, ADR 0022). A committer waits for a lock
//!   for [`PostgresOptions::batch_lock_timeout`] (100 ms), asks in one statement which rows of the batch are locked now (2 round
//!   trips more, in that case only), and tries the units on the others once more. Those on locked rows wait on the sideline
//!   for up to [`PostgresOptions::lock_timeout`] (5 s; a command of the scheduler a tenth of it), as do later units on such rows, which enter no
//!   batch. A unit on a row that has been locked for so long already is refused at once.
//! - `Unavailable`: no connection within the time allowed, three connections in a row that ended before COMMIT was sent, a server
//!   that is read-only, a full queue. Nothing was written.
//! - A server that says nothing for [`PostgresOptions::answer_timeout`] is a lost connection (`session.rs`), and with it all
//!   connections that were made before. A server that has become read-only is one too.
//! - Which host is used, what it must be, and how few connections will do: `hosts.rs`, `server_check.rs`, `connection.rs` (ADR 0021).
//! - COMMIT sent, and its answer lost: another connection is asked for a row that only this transaction can have
//!   inserted, for up to five seconds (`commit/witness.rs`). Found: committed. Not found, and the transaction over: again.
//!   Else `OutcomeUnknown`, which the idempotency record resolves in the use case.
//! - A connection whose transaction may be open is closed, never pooled.
//! - A commit that the server refuses because it is read-only makes the node unready until one succeeds (`health.rs`).

mod audit;
mod batches;
mod cached;
mod commit;
mod connection;
mod contents;
mod error;
mod feeds;
mod health;
mod hosts;
mod lines;
mod loader;
mod migrate;
mod nodes;
mod pooling;
mod queries;
mod repositories;
mod server_check;
mod session;
mod shared;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod transaction;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use diesel::QueryableByName;
use diesel_async::RunQueryDsl;
use frontrow_domain::ports::StorageError;
use tokio_postgres::config::TargetSessionAttrs;

use self::cached::Cached;
use self::commit::{Committers, Writer};
use self::connection::{AcquireError, Connection, Pool};
use self::error::read_error;
use self::repositories::Loaders;
use self::target::Target;
use crate::clock::{ROUNDS, Reading, reading, uptime_micros};
use crate::sql::types::{DbTime, Instant};

pub use self::audit::audit;
pub use self::contents::holds_concerts;
pub use self::error::{ConnectError, MigrateError};
pub use self::migrate::migrate;

/// How connections are made, kept and bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    /// The most connections at once. Fewer serve as well, if the server grants no more; as many as there are committers,
    /// and two for their sideline, are kept free of reads, which have two at least.
    pub pool_size: usize,
    /// The longest a call waits for a free connection of the pool.
    pub acquire_timeout: Duration,
    /// The longest that making a connection takes, over all hosts; `connect_timeout` in the URL (seconds a host) can
    /// make it longer.
    pub connect_timeout: Duration,
    /// The longest the server may say nothing to who waits for an answer. Then it is not waited for on that connection any
    /// more, nor on those that were made before.
    ///
    /// Longer than a server takes that is slow and alive, which has `statement_timeout`; and so much shorter than HTTP
    /// callers wait (30 s) that the fate of a COMMIT can be found out on another connection while they do.
    pub answer_timeout: Duration,
    /// The longest a unit of work waits for rows that other sessions have locked.
    pub lock_timeout: Duration,
    /// The longest a committer waits for a lock, before it puts units on rows that are locked on a sideline, where they wait
    /// for the rest of `lock_timeout`: so long one stuck row holds up the units of others, once. As long as `lock_timeout`,
    /// there is no such protection; only tests say that.
    pub batch_lock_timeout: Duration,
    /// The longest a statement runs. Shorter than `answer_timeout`, so that a server that is alive says that it was too
    /// long.
    pub statement_timeout: Duration,
    /// How long the server lets a transaction sit idle before it ends it: so long the locks of a node stay that stands
    /// still, or is cut off. Shorter than `answer_timeout`, so that what was cut off from its COMMIT has come to its end when
    /// the node begins to ask for it.
    pub idle_in_transaction_timeout: Duration,
    /// How many batches of units are written at the same time.
    pub committers: usize,
    /// The most units of work in one transaction.
    pub group_commit_limit: usize,
    /// The most units of work that may be queued; more are refused as unavailable, the newest of the lowest priority.
    pub queue_limit: usize,
    /// Whether the server may acknowledge commits that a crash loses: `fsync` or `synchronous_commit` is `off`, or the
    /// latter `local`.
    pub allow_lossy_commits: bool,
    /// Whether the server must have `synchronous_standby_names`.
    pub require_sync_replica: bool,
    /// Whether units wait in lanes by their priority. Only tests say no, to see what the lanes are for.
    pub prioritise: bool,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            pool_size: 16,
            acquire_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(5),
            batch_lock_timeout: Duration::from_millis(100),
            statement_timeout: Duration::from_secs(8),
            idle_in_transaction_timeout: Duration::from_secs(8),
            committers: 2,
            group_commit_limit: 128,
            queue_limit: 8_192,
            allow_lossy_commits: false,
            require_sync_replica: false,
            prioritise: true,
        }
    }
}

/// What a [`Postgres`] has written since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PostgresStats {
    /// Transactions that were begun for batches of units, repeats included.
    pub transactions: u64,
    /// Units of work in them, refused ones and repeats included.
    pub units: u64,
    /// Units of work that are queued now, or wait for rows that other sessions have locked.
    pub queued_units: usize,
}

/// A storage adapter on a PostgreSQL database. Cloning shares the pool and the queue of commits.
///
/// Works on the tokio runtime that it was connected on. When the last clone is dropped, what is queued is still
/// written, as long as that runtime runs; [`Postgres::close`] waits for it.
#[derive(Clone)]
pub struct Postgres {
    pool: Pool,
    committers: Arc<Committers>,
    loaders: Arc<Loaders>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("pool", &self.pool.status()).finish_non_exhaustive()
    }
}

#[derive(QueryableByName)]
struct ServerTime {
    #[diesel(sql_type = Instant)]
    server_time: DbTime,
}

impl Postgres {
    /// Connects to `postgres://user:password@host:port/database`, and sees that the schema is up to date.
    ///
    /// Understood options: those of tokio-postgres (`connect_timeout` in seconds a host, several hosts, ..) but
    /// `load_balance_hosts`, since one server takes writes: that one is looked for, whatever `target_session_attrs` says;
    /// and `sslmode` with `sslrootcert` as libpq has them: `disable`, `prefer` (the default: encrypted where the server
    /// can), `require` (encrypted, to whoever answers), `verify-ca` and `verify-full` (against the PEM file
    /// `sslrootcert`, else against what the operating system trusts).
    ///
    /// # Errors
    /// [`ConnectError`], within [`PostgresOptions::connect_timeout`] when no server answers; at once for a server or
    /// database that a node must not work with.
    pub async fn connect(url: &str, options: PostgresOptions) -> Result<Self, ConnectError> {
        let target = Target::new(url, &options)?;
        if target.role() == TargetSessionAttrs::ReadOnly {
            return Err(ConnectError::InvalidUrl("target_session_attrs=read-only: a node writes".to_owned()));
        }
        let server = target.server();
        let unreachable = |source| ConnectError::Unreachable { server: server.clone(), source };
        connection::check_target(&target, &options).await?;
        let pool = Pool::new(target, &options)?;
        let mut connection = pool.get().await.map_err(|error| match error {
            AcquireError::Connect(error) => error,
            error => unreachable(Box::new(error)),
        })?;
        let missing = migrate::first_missing(&mut connection).await.map_err(unreachable)?;
        drop(connection);
        match missing {
            None => {
                let writer = Writer::new(pool.for_committers(), options.statement_timeout);
                let committers = Arc::new(Committers::start(writer, &options));
                let loaders = Arc::new(Loaders::start(&pool));
                Ok(Self { pool, committers, loaders })
            }
            Some(missing) => Err(ConnectError::SchemaBehind { missing }),
        }
    }

    /// A reading of the database's clock: the quickest of a few round trips, taken to be of half way. Nodes that follow it
    /// judge deadlines alike.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when the database does not answer.
    pub async fn read_clock(&self) -> Result<Reading, StorageError> {
        let mut connection = self.connection().await?;
        let mut quickest = Reading { offset: 0, error: i64::MAX };
        for _ in 0..ROUNDS {
            let asked_at = uptime_micros();
            let query = Cached(diesel::sql_query("SELECT clock_timestamp() AS server_time"));
            let answer = query.get_result::<ServerTime>(&mut connection).await.map_err(read_error)?;
            let reading = reading(asked_at, answer.server_time.0, uptime_micros());
            if reading.error < quickest.error {
                quickest = reading;
            }
        }
        Ok(quickest)
    }

    /// Takes no more units of work, and finishes what is queued, in at most `limit`; false when that was not enough.
    /// Commits that come later are unavailable. Reads go on.
    pub async fn close(&self, limit: Duration) -> bool {
        self.committers.close(limit).await
    }

    /// What has been written so far, for metrics.
    #[must_use]
    pub fn stats(&self) -> PostgresStats {
        let (transactions, units, queued_units) = self.committers.figures();
        PostgresStats { transactions, units, queued_units }
    }

    async fn connection(&self) -> Result<Connection, StorageError> {
        connection::acquire(&self.pool).await
    }
}
