//! The feeds of dates: one version more for every unit of work that changes seats of a date.

use std::collections::BTreeMap;

use async_trait::async_trait;
use frontrow_domain::ports::{SeatFeeds, SeatNews, SeatsOfDate, StorageError};
use frontrow_domain::seat::{FeedVersion, SeatUpdate};
use frontrow_domain::{PerformanceDateId, SeatId};

use super::{Memory, State};
use crate::sql::KEPT_SEAT_CHANGES;

#[async_trait]
impl SeatFeeds for Memory {
    async fn versions(
        &self,
        ids: Vec<PerformanceDateId>,
    ) -> Result<Vec<(PerformanceDateId, FeedVersion)>, StorageError> {
        let state = self.state();
        let asked = state.seat_feeds.iter().filter(|(id, _)| ids.contains(id));
        Ok(asked.map(|(id, version)| (*id, *version)).collect())
    }

    async fn news(
        &self,
        id: PerformanceDateId,
        since: FeedVersion,
    ) -> Result<Option<SeatNews>, StorageError> {
        let state = self.state();
        let Some(version) = state.seat_feeds.get(&id).copied() else { return Ok(None) };
        if since > version {
            return Ok(None);
        }
        let mut changed = BTreeMap::new();
        let mut told = since;
        while told < version {
            told = told.next();
            let Some(ids) = state.seat_changes.get(&(id, told)) else { return Ok(None) };
            changed.extend(ids.iter().filter_map(|id| state.seats.get(id)).map(|row| (row.value.id, row)));
        }
        let updates = changed.into_values().map(SeatUpdate::of).collect();
        Ok(Some(SeatNews { updates, version }))
    }

    async fn load(&self, id: PerformanceDateId) -> Result<Option<SeatsOfDate>, StorageError> {
        let state = self.state();
        let Some(version) = state.seat_feeds.get(&id).copied() else { return Ok(None) };
        let rows = state.seats.values().filter(|row| row.value.performance_date_id == id);
        Ok(Some(SeatsOfDate { seats: rows.cloned().collect(), version }))
    }
}

impl State {
    /// Looks at what is otherwise than it was before a unit of work.
    pub(super) fn move_feeds_on(&mut self, before: &Self) {
        let mut changed: BTreeMap<PerformanceDateId, Vec<SeatId>> = BTreeMap::new();
        for row in self.seats.values().filter(|row| before.seats.get(&row.value.id) != Some(row)) {
            changed.entry(row.value.performance_date_id).or_default().push(row.value.id);
        }
        for (id, seat_ids) in changed {
            // A new date starts with all its seats.
            if let Some(version) = self.seat_feeds.get_mut(&id) {
                *version = version.next();
                self.seat_changes.insert((id, *version), seat_ids);
                let oldest = FeedVersion::new(version.get().saturating_sub(KEPT_SEAT_CHANGES));
                self.seat_changes.remove(&(id, oldest));
            }
        }
        for id in self.performance_dates.keys() {
            self.seat_feeds.entry(*id).or_insert(FeedVersion::FIRST);
        }
    }
}
