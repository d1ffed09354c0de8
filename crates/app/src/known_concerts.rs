//! Concerts and dates never change once made, so that each is read once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::ports::{Concerts, StorageError};
use frontrow_domain::{ConcertId, PerformanceDateId, Timestamp};

/// The most that is remembered of each kind; then all is forgotten and learnt anew.
const MOST: usize = 10_000;

/// Remembers concerts and dates that were found. What is not found may be made later, and is looked for each time.
pub struct KnownConcerts {
    concerts: Arc<dyn Concerts>,
    found: Known<ConcertId, Concert>,
    found_dates: Known<PerformanceDateId, (PerformanceDate, Concert)>,
}

impl KnownConcerts {
    /// Remembers what these find.
    #[must_use]
    pub fn new(concerts: Arc<dyn Concerts>) -> Self {
        Self { concerts, found: Known::default(), found_dates: Known::default() }
    }
}

#[async_trait]
impl Concerts for KnownConcerts {
    async fn find(&self, id: ConcertId) -> Result<Option<Concert>, StorageError> {
        if let Some(known) = self.found.get(&id) {
            return Ok(Some(known));
        }
        Ok(self.found.learn(id, self.concerts.find(id).await?))
    }

    async fn find_date(
        &self,
        id: PerformanceDateId,
    ) -> Result<Option<(PerformanceDate, Concert)>, StorageError> {
        if let Some(known) = self.found_dates.get(&id) {
            return Ok(Some(known));
        }
        Ok(self.found_dates.learn(id, self.concerts.find_date(id).await?))
    }

    async fn sales_starts(&self, id: ConcertId) -> Result<Vec<Option<Timestamp>>, StorageError> {
        self.concerts.sales_starts(id).await
    }
}

struct Known<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Known<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Known<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn learn(&self, key: K, found: Option<V>) -> Option<V> {
        let value = found?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, value.clone());
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CONCERT, DATE, Load, OTHER_DATE, ROOM, concert, date, world};

    #[tokio::test]
    async fn what_was_found_is_not_looked_for_again() {
        let world = world();
        let known = KnownConcerts::new(world.concerts());
        for _ in 0..2 {
            assert_eq!(known.find(CONCERT).await.unwrap(), Some(concert(CONCERT, ROOM)));
            assert_eq!(known.find_date(DATE).await.unwrap(), Some((date(DATE), concert(CONCERT, ROOM))));
        }
        assert_eq!(world.take_loads(), [Load::Concert, Load::Date]);
    }

    #[tokio::test]
    async fn what_was_not_found_may_be_there_the_next_time() {
        let world = world();
        let known = KnownConcerts::new(world.concerts());
        assert_eq!(known.find_date(OTHER_DATE).await.unwrap(), None);
        world.facts().dates.insert(OTHER_DATE, date(OTHER_DATE));
        assert!(known.find_date(OTHER_DATE).await.unwrap().is_some());
    }
}
