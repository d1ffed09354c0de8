//! Connections: how one is made, and the pool that keeps them.

use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{Metrics, PoolError};
use diesel::ConnectionError;
use diesel::ConnectionResult;
use diesel_async::pooled_connection::deadpool::{Hook, HookError, Object, Pool};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError as SetupError, RecyclingMethod,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use frontrow_domain::ports::StorageError;

use super::PostgresOptions;
use super::error::{ConnectError, unavailable, with_causes};
use super::target::Target;

/// A pooled connection that was used within this time is taken as it is, an older one is asked first.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

pub(super) type Connection = Object<AsyncPgConnection>;

/// A pool of connections, none of them made yet.
///
/// A connection comes back only between transactions ([`super::transaction::Transaction`] sees to that), and nothing
/// here changes the settings of a session, so that recycling has nothing to undo: it drops what is closed.
pub(super) fn pool(
    target: Target,
    options: &PostgresOptions,
) -> Result<Pool<AsyncPgConnection>, ConnectError> {
    let (patience, settings, server) = (target.patience, session_settings(options), target.server());
    let mut config = ManagerConfig::default();
    config.recycling_method = RecyclingMethod::Fast;
    config.custom_setup = Box::new(move |_url| {
        let (target, settings) = (target.clone(), settings.clone());
        Box::pin(async move { establish(&target, &settings).await })
    });
    // The manager wants a URL, for which `custom_setup` has no use: so it never learns the password.
    Pool::builder(AsyncDieselConnectionManager::new_with_config("", config))
        .runtime(Runtime::Tokio1)
        .max_size(options.pool_size)
        .wait_timeout(Some(options.acquire_timeout))
        .create_timeout(Some(patience))
        .recycle_timeout(Some(patience))
        .pre_recycle(Hook::async_fn(|connection, metrics| Box::pin(ask(connection, metrics))))
        .build()
        .map_err(|error| ConnectError::Unreachable { server, source: Box::new(error) })
}

/// A connection of the pool, waited for no longer than the options say.
pub(super) async fn acquire(pool: &Pool<AsyncPgConnection>) -> Result<Connection, StorageError> {
    pool.get().await.map_err(|error: PoolError<SetupError>| unavailable(error))
}

async fn ask(connection: &mut AsyncPgConnection, metrics: &Metrics) -> Result<(), HookError> {
    if metrics.last_used() < TRUSTED_FOR {
        return Ok(());
    }
    let answer =
        diesel::select(diesel::dsl::sql::<diesel::sql_types::Integer>("1")).execute(connection).await;
    answer.map(|_| ()).map_err(|error| HookError::Backend(SetupError::QueryError(error)))
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
