//! What this node commits shows on this node at once: nobody has to look whether his own hold was told by the feed yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use frontrow_domain::ports::Committer;
use frontrow_domain::seat::SeatUpdate;
use frontrow_domain::unit_of_work::{CommitError, Committed};
use frontrow_domain::{Change, PerformanceDateId, UnitOfWork};

use crate::SeatMaps;

/// Commits, and then shows the seats that were changed on the maps of this node. What a sweep changes is shown already: a
/// lapsed hold is free by the clock.
pub struct AnnouncingCommitter {
    committer: Arc<dyn Committer>,
    seat_maps: SeatMaps,
}

impl AnnouncingCommitter {
    /// Commits by this committer.
    #[must_use]
    pub fn new(committer: Arc<dyn Committer>, seat_maps: SeatMaps) -> Self {
        Self { committer, seat_maps }
    }
}

#[async_trait]
impl Committer for AnnouncingCommitter {
    async fn commit(&self, work: UnitOfWork) -> Result<Committed, CommitError> {
        let changed = changed_seats(&work);
        let incarnation = self.seat_maps.incarnation().current();
        let committed = self.committer.commit(work).await?;
        for (date, updates) in changed {
            self.seat_maps.anticipate(date, &updates, incarnation);
        }
        Ok(committed)
    }
}

/// The states that a unit of work leaves seats in. New seats are left to the feed.
fn changed_seats(work: &UnitOfWork) -> BTreeMap<PerformanceDateId, Vec<SeatUpdate>> {
    let mut changed: BTreeMap<PerformanceDateId, Vec<SeatUpdate>> = BTreeMap::new();
    for change in &work.seats {
        if let Change::Update(seat) = change {
            let update = SeatUpdate { version: seat.version.next(), ..SeatUpdate::of(seat) };
            changed.entry(seat.value.performance_date_id).or_default().push(update);
        }
    }
    changed
}
