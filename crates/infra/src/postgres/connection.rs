//! Connections: how one is made, and the pool that keeps them.

use std::sync::Arc;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{Manager, Metrics, Object, RecycleError, RecycleResult};
use diesel::ConnectionError;
use diesel::ConnectionResult;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use frontrow_domain::ports::StorageError;

use super::PostgresOptions;
use super::error::{ConnectError, unavailable, with_causes};
use super::session::{Session, Silence};
use super::target::Target;

/// A pooled connection that was used within this time is taken as it is, an older one is asked first.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

pub(super) type Connection = Object<Sessions>;
pub(super) type Pool = deadpool::managed::Pool<Sessions>;

/// A pool of connections, none of them made yet.
///
/// A connection comes back only between transactions ([`super::transaction::Transaction`] sees to that), and nothing
/// here changes the settings of a session, so that recycling has nothing to undo: it drops what is of no use.
pub(super) fn pool(target: Target, options: &PostgresOptions) -> Result<Pool, ConnectError> {
    let (patience, settings, server) = (target.patience, session_settings(options), target.server());
    let silence = Arc::new(Silence::of_at_most(options.answer_timeout));
    Pool::builder(Sessions { target, settings, silence })
        .runtime(Runtime::Tokio1)
        .max_size(options.pool_size)
        .wait_timeout(Some(options.acquire_timeout))
        .create_timeout(Some(patience))
        .build()
        .map_err(|error| ConnectError::Unreachable { server, source: Box::new(error) })
}

/// A connection of the pool, waited for no longer than the options say.
pub(super) async fn acquire(pool: &Pool) -> Result<Connection, StorageError> {
    pool.get().await.map_err(unavailable)
}

/// Makes the connections of a pool, and tells which are still of use.
pub(super) struct Sessions {
    target: Target,
    settings: String,
    silence: Arc<Silence>,
}

impl Manager for Sessions {
    type Type = Session;
    type Error = ConnectionError;

    async fn create(&self) -> ConnectionResult<Session> {
        let connection = establish(&self.target, &self.settings).await?;
        Ok(Session::new(connection, self.silence.clone()))
    }

    async fn recycle(&self, session: &mut Session, metrics: &Metrics) -> RecycleResult<ConnectionError> {
        if session.is_broken() || !self.silence.spares(metrics.created) {
            return Err(RecycleError::message("the connection is closed, or was silent"));
        }
        if metrics.last_used() < TRUSTED_FOR {
            return Ok(());
        }
        let question = diesel::select(diesel::dsl::sql::<diesel::sql_types::Integer>("1"));
        question.execute(session).await.map(|_| ()).map_err(|error| RecycleError::message(error.to_string()))
    }
}

/// Makes one connection.
pub(super) async fn establish(target: &Target, settings: &str) -> ConnectionResult<AsyncPgConnection> {
    let connected = target.config.connect(target.tls.clone()).await;
    let (client, driver) = connected.map_err(|error| ConnectionError::BadConnection(with_causes(&error)))?;
    let mut connection = AsyncPgConnection::try_from_client_and_connection(client, driver).await?;
    let set = connection.batch_execute(settings).await;
    set.map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(connection)
}

/// What every session is set to. diesel-async itself sets the time zone to UTC.
///
/// Statements are planned once a connection, also against tables that are still small or never analysed, and kept while
/// those grow. All that is done often has its index, so scans of whole tables are for what has none. One plan serves any
/// number of keys: planning anew for each execution, which the server prefers for short arrays, costs more than a batch
/// of few units saves by it. A scan that cannot be avoided looks dear to a planner that was told to avoid it, and would
/// be compiled, which takes longer than any query here: so nothing is.
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
