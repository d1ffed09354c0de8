//! Reads by key of all callers, many to a statement.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use diesel::QueryResult;
use frontrow_domain::ports::StorageError;
use frontrow_domain::unit_of_work::Priority;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::batches::{Batches, Bounds};
use super::connection::{self, Pool};
use super::error::{read_error, unavailable};
use super::session::Session;
use super::shared::Shared;

/// What there may be of each kind of read at once.
const BOUNDS: Bounds = Bounds { workers: 2, batch: 256, queue: 8_192 };

/// One statement that finds the rows of many keys. Absent ones are left out.
pub(super) type Fetch<K, V> = for<'c> fn(&'c mut Session, Vec<K>) -> BoxFuture<'c, QueryResult<Vec<(K, V)>>>;

type Found<V> = Result<Vec<V>, StorageError>;

/// Keys that a caller wants, and who waits for their rows.
struct Want<K, V> {
    keys: Vec<K>,
    reply: oneshot::Sender<Found<V>>,
}

/// Reads of one kind. A caller joins only a read that has not been sent yet, so that everybody reads what was committed
/// before the call. Callers who have gone away are left out, and disturb nobody.
pub(super) struct Loader<K, V> {
    wants: Batches<Want<K, V>>,
}

impl<K, V> Loader<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Starts it on the current runtime.
    pub(super) fn start(pool: Pool, fetch: Fetch<K, V>) -> Self {
        let work = move |wants| {
            let pool = pool.clone();
            async move { answer(&pool, fetch, wants).await }
        };
        Self { wants: Batches::start(BOUNDS, work) }
    }

    /// The row of a key.
    pub(super) async fn one(&self, key: K) -> Result<Option<V>, StorageError> {
        Ok(self.many(vec![key]).await?.pop())
    }

    /// The rows of these keys, in their order; those of absent ones are left out.
    pub(super) async fn many(&self, keys: Vec<K>) -> Found<V> {
        let (reply, answer) = oneshot::channel();
        // One lane: who is let in to load at all is decided in front of the use cases (ADR 0015).
        self.wants.push(Priority::Pay, Want { keys, reply }).map_err(unavailable)?;
        answer.await.unwrap_or_else(|lost| Err(unavailable(lost)))
    }
}

async fn answer<K, V>(pool: &Pool, fetch: Fetch<K, V>, mut wants: Vec<Want<K, V>>)
where
    K: Clone + Eq + Hash,
    V: Clone,
{
    wants.retain(|want| !want.reply.is_closed());
    if wants.is_empty() {
        return;
    }
    let mut rows: HashMap<K, Option<V>> = HashMap::new();
    rows.extend(wants.iter().flat_map(|want| &want.keys).map(|key| (key.clone(), None)));
    match fetch_all(pool, fetch, rows.keys().cloned().collect()).await {
        Ok(found) => {
            rows.extend(found.into_iter().map(|(key, row)| (key, Some(row))));
            for Want { keys, reply } in wants {
                let found = keys.iter().filter_map(|key| rows.get(key).cloned().flatten()).collect();
                let _ = reply.send(Ok(found));
            }
        }
        Err(error) => {
            let shared = Shared(Arc::new(error));
            for want in wants {
                let _ = want.reply.send(Err(match &*shared.0 {
                    StorageError::Corrupt(row) => StorageError::Corrupt(row.clone()),
                    StorageError::Unavailable(_) => unavailable(shared.clone()),
                }));
            }
        }
    }
}

async fn fetch_all<K, V>(pool: &Pool, fetch: Fetch<K, V>, keys: Vec<K>) -> Result<Vec<(K, V)>, StorageError> {
    let mut connection = connection::acquire(pool).await?;
    fetch(&mut connection, keys).await.map_err(read_error)
}
