//! Connection pool: bounded, checked, and shared by commits and reads.
//!
//! # Sharing
//! A node has at most [`PostgresOptions::pool_size`] connections. Committers, the sideline and readiness take any of them,
//! reads (loaders, queries, the clock) all but as many as there are committers and connections of the sideline: so with all
//! connections granted, a commit never waits for a read. Reads have [`MIN_READS`] at least. Both wait in the order in which
//! they came.
//!
//! # Fewer than configured
//! The server, the database or the role may grant fewer connections. A refused connection is no failure of
//! its caller, which waits for the next one that comes back instead. The refusal takes one slot out of the
//! pool for [`REFUSAL_LASTS`], after which the pool may grow by it again: so the pool has as many slots as
//! there are connections, and attempts in vain are few. It takes a slot of reads out as well, the next that becomes
//! free, so that committers keep theirs; reads keep [`MIN_READS`].
//!
//! While the pool has no connection at all there is none to wait for: its slots stay, and each caller that has one tries
//! again every [`RETRY_AFTER`].
//!
//! # Round trips
//! A new connection has the start-up, one round trip for the settings and the check of the server, and one of
//! diesel's. A connection that was idle for [`TRUSTED_FOR`], or was last checked before [`CHECKED_EVERY`], is
//! checked by one statement before it is used.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, Object, PoolError, RecycleError, RecycleResult};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use frontrow_domain::ports::StorageError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, sleep_until, timeout, timeout_at};
use tokio_postgres::config::TargetSessionAttrs;

use super::PostgresOptions;
use super::cached::Cached;
use super::error::{ConnectError, unavailable};
use super::hosts::{Opening, Reached};
use super::pooling::refuse_shared_sessions;
use super::server_check::{Demands, STATE, ServerState};
use super::session::{Session, Silence};
use super::target::Target;

/// The name in the server's activity view and logs.
const APPLICATION_NAME: &str = "frontrow";

/// A pooled connection that was used within this time is taken as it is, an older one is checked first.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// A connection in use is checked so often: a server may become read-only, or lossy, under it.
const CHECKED_EVERY: Duration = Duration::from_secs(10);

/// How long a slot stays out of the pool after the server refused a connection.
const REFUSAL_LASTS: Duration = Duration::from_secs(5);

/// How long a caller waits after a refusal while the pool is empty.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// How many connections the sideline of the committers uses at most.
const SIDELINE: usize = 2;

/// The fewest slots of reads. Six connections, the fewest that can be configured, are two for reads, two for committers and
/// two for the sideline.
const MIN_READS: usize = 2;

/// How often a refusal is worth a warning.
const WARNED_EVERY: Duration = Duration::from_secs(60);

/// A pool of connections, for one of its two kinds of users. Cloning shares it.
///
/// A connection comes back only between transactions ([`super::transaction::Transaction`] sees to that), and nothing
/// here changes the settings of a session, so that recycling has nothing to undo: it drops what is of no use.
#[derive(Clone)]
pub(super) struct Pool {
    sessions: deadpool::managed::Pool<Sessions>,
    slots: Arc<Semaphore>,
    /// The slots that reads may take.
    read_slots: Arc<Semaphore>,
    /// How many of these may be taken out of the pool.
    spare_read_slots: Arc<Semaphore>,
    user: User,
    acquire_timeout: Duration,
    warned_at: Arc<Mutex<Option<Instant>>>,
}

/// The kind of a pool's users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum User {
    Read,
    Committer,
}

/// A connection of the pool. Dropped, it returns to the pool, or is closed if it is broken.
pub(super) struct Connection {
    // Returned before its slots are: the next holder of a slot finds it.
    session: Object<Sessions>,
    slots: Slots,
}

struct Slots {
    #[expect(dead_code, reason = "held")]
    any: OwnedSemaphorePermit,
    read: Option<OwnedSemaphorePermit>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum AcquireError {
    /// None came back in time.
    #[error("every connection to PostgreSQL was in use for {0:?}")]
    Timeout(Duration),
    /// A new one cannot be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The pool does not work.
    #[error("the pool of connections has failed: {0}")]
    Pool(String),
}

impl Pool {
    /// A pool for reads, with no connection made yet.
    pub(super) fn new(target: Target, options: &PostgresOptions) -> Result<Self, ConnectError> {
        let server = target.server();
        let sessions = Sessions {
            target,
            demands: demands(options),
            settings: session_settings(options),
            silence: Arc::new(Silence::of_at_most(options.answer_timeout)),
        };
        let sessions = deadpool::managed::Pool::builder(sessions).max_size(options.pool_size).build();
        let sessions =
            sessions.map_err(|error| ConnectError::Unreachable { server, source: Box::new(error) })?;
        let for_reads = options.pool_size.saturating_sub(options.committers + SIDELINE).max(MIN_READS);
        Ok(Self {
            sessions,
            slots: Arc::new(Semaphore::new(options.pool_size)),
            read_slots: Arc::new(Semaphore::new(for_reads)),
            spare_read_slots: Arc::new(Semaphore::new(for_reads - MIN_READS)),
            user: User::Read,
            acquire_timeout: options.acquire_timeout,
            warned_at: Arc::default(),
        })
    }

    /// The same pool for committers.
    pub(super) fn for_committers(&self) -> Self {
        Self { user: User::Committer, ..self.clone() }
    }

    /// A connection, waited for no longer than the options say.
    pub(super) async fn get(&self) -> Result<Connection, AcquireError> {
        let until = tokio::time::Instant::now() + self.acquire_timeout;
        let mut refusal = None;
        let mut kept = None;
        loop {
            let slots = match kept.take() {
                Some(slots) => slots,
                None => match timeout_at(until, self.take_slots()).await {
                    Ok(slots) => slots?,
                    Err(_) => {
                        let waited = AcquireError::Timeout(self.acquire_timeout);
                        return Err(refusal.map_or(waited, AcquireError::Connect));
                    }
                },
            };
            match self.sessions.get().await {
                Ok(session) => return Ok(Connection { session, slots }),
                Err(PoolError::Backend(error @ ConnectError::TooManyConnections { .. })) => {
                    let connections = self.sessions.status().size;
                    self.warn(connections, &error);
                    if connections > 0 {
                        self.take_out(slots);
                    } else if timeout_at(until, sleep(RETRY_AFTER)).await.is_ok() {
                        kept = Some(slots);
                    } else {
                        return Err(error.into());
                    }
                    refusal = Some(error);
                }
                Err(PoolError::Backend(error)) => return Err(error.into()),
                Err(error) => return Err(AcquireError::Pool(error.to_string())),
            }
        }
    }

    async fn take_slots(&self) -> Result<Slots, AcquireError> {
        let read = match self.user {
            User::Read => Some(take(&self.read_slots).await?),
            User::Committer => None,
        };
        Ok(Slots { any: take(&self.slots).await?, read })
    }

    /// Leaves a slot, and one of reads, out of the pool for a while.
    fn take_out(&self, mut slots: Slots) {
        let until = tokio::time::Instant::now() + REFUSAL_LASTS;
        let Ok(spare) = self.spare_read_slots.clone().try_acquire_owned() else {
            slots.read = None;
            tokio::spawn(async move {
                sleep_until(until).await;
                drop(slots);
            });
            return;
        };
        let read_slots = self.read_slots.clone();
        tokio::spawn(async move {
            if slots.read.is_none() {
                slots.read = timeout_at(until, read_slots.acquire_owned()).await.ok().and_then(Result::ok);
            }
            sleep_until(until).await;
            drop((slots, spare));
        });
    }

    fn warn(&self, connections: usize, refusal: &ConnectError) {
        let mut warned_at = self.warned_at.lock().unwrap_or_else(PoisonError::into_inner);
        if warned_at.is_none_or(|warned_at| warned_at.elapsed() > WARNED_EVERY) {
            *warned_at = Some(Instant::now());
            tracing::warn!(connections, %refusal, "fewer connections than configured: the node works with these");
        }
    }

    /// The figures of the pool.
    pub(super) fn status(&self) -> deadpool::Status {
        self.sessions.status()
    }
}

async fn take(slots: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, AcquireError> {
    slots.clone().acquire_owned().await.map_err(|closed| AcquireError::Pool(closed.to_string()))
}

/// A connection of the pool, waited for no longer than the options say.
pub(super) async fn acquire(pool: &Pool) -> Result<Connection, StorageError> {
    pool.get().await.map_err(unavailable)
}

impl Connection {
    /// Closes it. The server rolls back.
    pub(super) fn close(self) {
        let Self { session, slots } = self;
        drop(Object::take(session));
        drop(slots);
    }
}

impl Deref for Connection {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session.session
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session.session
    }
}

/// Factory of the connections of a pool; it checks those that are kept.
struct Sessions {
    target: Target,
    demands: Demands,
    settings: String,
    silence: Arc<Silence>,
}

/// A session, and what is known of its server.
struct Checked {
    session: Session,
    backend: i32,
    checked_at: Instant,
}

impl Manager for Sessions {
    type Type = Checked;
    type Error = ConnectError;

    async fn create(&self) -> Result<Checked, ConnectError> {
        let (connection, state) = establish(&self.target, &self.settings, &self.demands).await?;
        let session = Session::new(connection, self.silence.clone());
        Ok(Checked { session, backend: state.backend, checked_at: Instant::now() })
    }

    async fn recycle(&self, checked: &mut Checked, metrics: &Metrics) -> RecycleResult<ConnectError> {
        if checked.session.is_broken() || !self.silence.spares(metrics.created) {
            return Err(RecycleError::message("the connection is closed, or was silent"));
        }
        if metrics.last_used() < TRUSTED_FOR && checked.checked_at.elapsed() < CHECKED_EVERY {
            return Ok(());
        }
        let state: Result<ServerState, _> =
            Cached(diesel::sql_query(STATE)).get_result(&mut checked.session).await;
        let state = state.map_err(|error| RecycleError::message(error.to_string()))?;
        let server = self.target.server();
        let is_same = state.backend == checked.backend;
        let sound = state.check(&self.demands, &server);
        let sound =
            sound.and(if is_same { Ok(()) } else { Err(ConnectError::TransactionPooling { server }) });
        sound.inspect_err(|error| tracing::warn!("a connection is given up: {error}"))?;
        checked.checked_at = Instant::now();
        Ok(())
    }
}

/// Requirements of the connections of a node: it writes.
fn demands(options: &PostgresOptions) -> Demands {
    Demands {
        role: TargetSessionAttrs::ReadWrite,
        allow_lossy_commits: options.allow_lossy_commits,
        require_sync_replica: options.require_sync_replica,
    }
}

/// Fails if a node cannot work with this target at all.
pub(super) async fn check_target(target: &Target, options: &PostgresOptions) -> Result<(), ConnectError> {
    refuse_shared_sessions(target, &demands(options)).await
}

/// Makes the connection of a command, which may take its time, and fails if its server is not the one that is
/// asked for, or shares its sessions.
pub(super) async fn establish_patient(
    target: &Target,
    role: TargetSessionAttrs,
) -> Result<AsyncPgConnection, ConnectError> {
    let demands = Demands::without_durability(role);
    refuse_shared_sessions(target, &demands).await?;
    Ok(establish(target, PATIENT_SESSION, &demands).await?.0)
}

/// Makes one connection, within the time that its target allows.
pub(super) async fn establish(
    target: &Target,
    settings: &str,
    demands: &Demands,
) -> Result<(AsyncPgConnection, ServerState), ConnectError> {
    let statements = format!("{settings}; {STATE}");
    let opening = Opening { application_name: APPLICATION_NAME, statements: &statements, demands };
    let Reached { client, driver, place, state } = target.reach(opening).await?;
    let failed = |source| ConnectError::Unreachable { server: target.server_at(place), source };
    let connection = AsyncPgConnection::try_from_client_and_connection(client, driver);
    let connection = timeout(target.patience, connection).await.map_err(|late| failed(Box::new(late)))?;
    Ok((connection.map_err(|error| failed(Box::new(error)))?, state))
}

/// Settings of every session. diesel-async itself sets the time zone to UTC.
///
/// Statements are planned once a connection, also against tables that are still small or never analysed, and
/// kept while those grow. All that is done often has its index, so scans of whole tables are for what has
/// none. One plan serves any number of keys: planning anew for each execution, which the server prefers for
/// short arrays, costs more than a batch of few units saves by it. A scan that cannot be avoided looks dear
/// to a planner that was told to avoid it, and would be compiled, which takes longer than any query here: so
/// nothing is.
///
/// Only English messages tell a deadlock from other errors, because diesel drops the SQLSTATE. Setting their language
/// takes a right that a plain role may lack; then a deadlock is reported as unavailable instead of being retried.
fn session_settings(options: &PostgresOptions) -> String {
    let milliseconds = |timeout: Duration| timeout.as_millis().max(1);
    format!(
        "SET default_transaction_isolation = 'read committed'; \
         SET lock_timeout = {}; \
         SET statement_timeout = {}; \
         SET idle_in_transaction_session_timeout = {}; \
         SET enable_seqscan = off; \
         SET plan_cache_mode = force_generic_plan; \
         SET jit = off; \
         DO $$ BEGIN PERFORM set_config('lc_messages', 'C', false); \
         EXCEPTION WHEN insufficient_privilege THEN NULL; END $$",
        milliseconds(options.lock_timeout),
        milliseconds(options.statement_timeout),
        milliseconds(options.idle_in_transaction_timeout),
    )
}

/// Settings of a session that may take its time.
pub(super) const PATIENT_SESSION: &str =
    "SET lock_timeout = 0; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";
