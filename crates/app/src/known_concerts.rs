//! Concerts and dates never change once made, so that each is read once in an incarnation of the data (ADR 0018).

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::ports::{Concerts, StorageError};
use frontrow_domain::{ConcertId, PerformanceDateId, Timestamp};

use crate::incarnation::{Generation, KnownIncarnation};

/// The most that is remembered of each kind; then all is forgotten and learnt anew.
const MOST: usize = 10_000;

/// Remembers concerts and dates that were found. What is not found may be made later, and is looked for each time.
pub struct KnownConcerts {
    concerts: Arc<dyn Concerts>,
    incarnation: KnownIncarnation,
    found: Known<ConcertId, Concert>,
    found_dates: Known<PerformanceDateId, (PerformanceDate, Concert)>,
}

impl KnownConcerts {
    /// Remembers what these find.
    #[must_use]
    pub fn new(concerts: Arc<dyn Concerts>, incarnation: KnownIncarnation) -> Self {
        Self { concerts, incarnation, found: Known::default(), found_dates: Known::default() }
    }
}

#[async_trait]
impl Concerts for KnownConcerts {
    async fn find(&self, id: ConcertId) -> Result<Option<Concert>, StorageError> {
        let generation = self.incarnation.generation();
        if let Some(known) = self.found.get(&id, generation) {
            return Ok(Some(known));
        }
        Ok(self.found.learn(id, self.concerts.find(id).await?, generation))
    }

    async fn find_date(
        &self,
        id: PerformanceDateId,
    ) -> Result<Option<(PerformanceDate, Concert)>, StorageError> {
        let generation = self.incarnation.generation();
        if let Some(known) = self.found_dates.get(&id, generation) {
            return Ok(Some(known));
        }
        Ok(self.found_dates.learn(id, self.concerts.find_date(id).await?, generation))
    }

    async fn sales_starts(&self, id: ConcertId) -> Result<Vec<Option<Timestamp>>, StorageError> {
        self.concerts.sales_starts(id).await
    }
}

/// What was found, with the generation that it was read in.
struct Known<K, V>(Mutex<(Generation, HashMap<K, V>)>);

impl<K, V> Default for Known<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Known<K, V> {
    fn get(&self, key: &K, generation: Generation) -> Option<V> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.1.get(key).filter(|_| known.0 == generation).cloned()
    }

    /// A read that began in an earlier generation than what is known fills nothing.
    fn learn(&self, key: K, found: Option<V>, generation: Generation) -> Option<V> {
        let value = found?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 > generation {
            return Some(value);
        }
        if known.0 < generation || known.1.len() >= MOST {
            *known = (generation, HashMap::new());
        }
        known.1.insert(key, value.clone());
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CONCERT, DATE, Load, OTHER_DATE, ROOM, concert, date, incarnation_of, world};

    #[tokio::test]
    async fn what_was_found_is_not_looked_for_again() {
        let world = world();
        let known = KnownConcerts::new(world.concerts(), KnownIncarnation::default());
        for _ in 0..2 {
            assert_eq!(known.find(CONCERT).await.unwrap(), Some(concert(CONCERT, ROOM)));
            assert_eq!(known.find_date(DATE).await.unwrap(), Some((date(DATE), concert(CONCERT, ROOM))));
        }
        assert_eq!(world.take_loads(), [Load::Concert, Load::Date]);
    }

    #[tokio::test]
    async fn another_incarnation_is_looked_for_again() {
        let (world, incarnation) = (world(), KnownIncarnation::default());
        let known = KnownConcerts::new(world.concerts(), incarnation.clone());
        incarnation.adopt(incarnation_of(1));
        assert!(known.find(CONCERT).await.unwrap().is_some());
        world.facts().concerts.clear();
        assert!(known.find(CONCERT).await.unwrap().is_some(), "the control: it is remembered");
        incarnation.adopt(incarnation_of(2));
        assert_eq!(known.find(CONCERT).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_read_of_an_earlier_incarnation_fills_nothing() {
        let (world, incarnation) = (world(), KnownIncarnation::default());
        let known = KnownConcerts::new(world.concerts(), incarnation.clone());
        incarnation.adopt(incarnation_of(1));
        world.before(Load::Concert, move |_| {
            incarnation.adopt(incarnation_of(2));
        });
        assert!(known.find(CONCERT).await.unwrap().is_some(), "it was there when it was asked for");
        world.facts().concerts.clear();
        assert_eq!(known.find(CONCERT).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_was_not_found_may_be_there_the_next_time() {
        let world = world();
        let known = KnownConcerts::new(world.concerts(), KnownIncarnation::default());
        assert_eq!(known.find_date(OTHER_DATE).await.unwrap(), None);
        world.facts().dates.insert(OTHER_DATE, date(OTHER_DATE));
        assert!(known.find_date(OTHER_DATE).await.unwrap().is_some());
    }
}
