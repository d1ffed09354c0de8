//! A session on the server, which must answer in time.
//!
//! A server whose process stands still, or to which nothing gets through, closes no connection: its machine, or one on the
//! way, goes on acknowledging what it is sent, so that TCP sees nothing wrong. Only its silence tells.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use diesel::QueryResult;
use diesel::pg::Pg;
use diesel::query_builder::{AsQuery, QueryFragment, QueryId};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::pooled_connection::PoolableConnection;
use diesel_async::{AsyncConnectionCore, AsyncPgConnection, SimpleAsyncConnection};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tokio::time::timeout_at;

/// How often giving up all connections is worth a warning.
const WARNED_EVERY: Duration = Duration::from_secs(1);

/// Response deadline of a server, and the time at which all older connections were given up: it was silent for longer, or
/// refused a write as read-only.
#[derive(Debug)]
pub(super) struct Silence {
    longest: Duration,
    noticed_at: Mutex<Option<Instant>>,
}

impl Silence {
    pub(super) const fn of_at_most(longest: Duration) -> Self {
        Self { longest, noticed_at: Mutex::new(None) }
    }

    /// Whether a connection that was made then is of use: where one hears nothing, those that are as old hear nothing
    /// either, and each of them would have to be waited for.
    pub(super) fn spares(&self, made_at: Instant) -> bool {
        lock(&self.noticed_at).is_none_or(|noticed_at| noticed_at < made_at)
    }

    /// Gives up all connections that were made before, because of what one of them has met.
    fn give_up_all(&self, cause: &str) {
        let before = lock(&self.noticed_at).replace(Instant::now());
        if before.is_none_or(|before| before.elapsed() > WARNED_EVERY) {
            tracing::warn!("{cause}: the connection is given up, and all that were made before");
        }
    }
}

/// A connection to the server. Every answer is waited for, from the question or from the answer before it on the same
/// connection, no longer than the server may be silent: so any number of answers may come one after the other.
pub(super) struct Session {
    connection: AsyncPgConnection,
    ear: Arc<Ear>,
}

/// Hears the server on one connection.
struct Ear {
    heard_at: Mutex<Instant>,
    silence: Arc<Silence>,
}

type Row = <AsyncPgConnection as AsyncConnectionCore>::Row<'static, 'static>;
type Rows = BoxStream<'static, QueryResult<Row>>;

impl Session {
    pub(super) fn new(connection: AsyncPgConnection, silence: Arc<Silence>) -> Self {
        Self { connection, ear: Arc::new(Ear { heard_at: Mutex::new(Instant::now()), silence }) }
    }

    /// Whether it is closed, or was left in the middle of a transaction.
    pub(super) fn is_broken(&mut self) -> bool {
        self.connection.is_broken()
    }

    /// Lets a test see what is asked.
    #[cfg(test)]
    pub(super) fn set_instrumentation(&mut self, instrumentation: impl diesel::connection::Instrumentation) {
        diesel_async::AsyncConnection::set_instrumentation(&mut self.connection, instrumentation);
    }
}

impl Ear {
    /// An answer that the server gives in time. When it does not, nobody knows what it has done, or will do.
    async fn hear<T>(&self, answer: impl Future<Output = QueryResult<T>>) -> QueryResult<T> {
        let mut answer = pin!(answer);
        let mut silent_since = Instant::now();
        loop {
            let until = silent_since + self.silence.longest;
            if let Ok(answer) = timeout_at(until.into(), answer.as_mut()).await {
                *lock(&self.heard_at) = Instant::now();
                if let Err(DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _)) = &answer {
                    self.silence.give_up_all("PostgreSQL takes no writes any more");
                }
                return answer;
            }
            let heard_at = *lock(&self.heard_at);
            if heard_at <= silent_since {
                break;
            }
            silent_since = heard_at;
        }
        let told = format!("PostgreSQL has said nothing for {:?}", self.silence.longest);
        self.silence.give_up_all(&told);
        Err(DieselError::DatabaseError(DatabaseErrorKind::ClosedConnection, Box::new(told)))
    }
}

/// Each row is an answer.
fn heard(rows: Rows, ear: Arc<Ear>) -> Rows {
    let next = |(mut rows, ear): (Rows, Arc<Ear>)| async move {
        let row = ear.hear(rows.try_next()).await?;
        Ok(row.map(|row| (row, (rows, ear))))
    };
    stream::try_unfold((rows, ear), next).boxed()
}

/// Nothing that could panic happens under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimpleAsyncConnection for &Session {
    async fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        let mut connection = &self.connection;
        self.ear.hear(connection.batch_execute(query)).await
    }
}

impl<'a> AsyncConnectionCore for &'a Session {
    type ExecuteFuture<'conn, 'query> = BoxFuture<'a, QueryResult<usize>>;
    type LoadFuture<'conn, 'query> = BoxFuture<'a, QueryResult<Rows>>;
    type Stream<'conn, 'query> = Rows;
    type Row<'conn, 'query> = Row;
    type Backend = Pg;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> Self::LoadFuture<'conn, 'query>
    where
        T: AsQuery + 'query,
        T::Query: QueryFragment<Pg> + QueryId + 'query,
    {
        let (mut connection, ear) = (&self.connection, &self.ear);
        let rows = AsyncConnectionCore::load(&mut connection, source);
        async move { Ok(heard(ear.hear(rows).await?, ear.clone())) }.boxed()
    }

    fn execute_returning_count<'conn, 'query, T>(
        &'conn mut self,
        source: T,
    ) -> Self::ExecuteFuture<'conn, 'query>
    where
        T: QueryFragment<Pg> + QueryId + 'query,
    {
        let (mut connection, ear) = (&self.connection, &self.ear);
        let count = AsyncConnectionCore::execute_returning_count(&mut connection, source);
        ear.hear(count).boxed()
    }
}

impl SimpleAsyncConnection for Session {
    async fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        (&*self).batch_execute(query).await
    }
}

impl AsyncConnectionCore for Session {
    type ExecuteFuture<'conn, 'query> = BoxFuture<'conn, QueryResult<usize>>;
    type LoadFuture<'conn, 'query> = BoxFuture<'conn, QueryResult<Rows>>;
    type Stream<'conn, 'query> = Rows;
    type Row<'conn, 'query> = Row;
    type Backend = Pg;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> Self::LoadFuture<'conn, 'query>
    where
        T: AsQuery + 'query,
        T::Query: QueryFragment<Pg> + QueryId + 'query,
    {
        let mut shared: &Self = self;
        AsyncConnectionCore::load(&mut shared, source)
    }

    fn execute_returning_count<'conn, 'query, T>(
        &'conn mut self,
        source: T,
    ) -> Self::ExecuteFuture<'conn, 'query>
    where
        T: QueryFragment<Pg> + QueryId + 'query,
    {
        let mut shared: &Self = self;
        AsyncConnectionCore::execute_returning_count(&mut shared, source)
    }
}
