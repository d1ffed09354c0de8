//! Read model of what concerts have left to sell: for the public list, and for refusing to join a sold-out concert.
//!
//! One statement reads the offers that all callers ask for meanwhile (singleflight). An offer is used for half a second, so
//! that each concert is read at most twice a second and node, however many callers ask, and an answer is at most a second
//! old. The view decides no sale: it refuses newcomers who would wait for nothing, and shows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use frontrow_domain::ports::{Clock, ConcertQueries, Offer};
use frontrow_domain::{ConcertId, Timestamp};
use futures_util::FutureExt;

use crate::Failure;
use crate::flight::{Flight, caught, share};
use crate::incarnation::{Generation, KnownIncarnation};
use crate::outage::{Outlook, will_do};

/// How long an offer is used before it is read again.
const FRESH_FOR: Duration = Duration::from_millis(500);
/// The most offers that are kept; then those that were not read within the last half minute are dropped, or else all.
const MOST: usize = 10_000;

/// Offers of concerts, read for all callers at once. Cloning shares them.
#[derive(Clone)]
pub struct Offers(Arc<Shared>);

struct Shared {
    queries: Arc<dyn ConcertQueries>,
    clock: Arc<dyn Clock>,
    incarnation: KnownIncarnation,
    view: Mutex<View>,
}

type Read = Flight<Arc<BTreeMap<ConcertId, Offer>>>;

/// An offer with the time at which its read began.
type Known = (Offer, Timestamp);

#[derive(Default)]
struct View {
    known: HashMap<ConcertId, Known>,
    /// The generation of the data that the offers were read in.
    generation: Generation,
    outlook: Outlook,
    /// The concerts of the read that has not been sent.
    wanted: BTreeSet<ConcertId>,
    /// The read that has not been sent, or else the last one that was sent.
    newest: Option<Read>,
    is_sent: bool,
}

/// What is known of concerts without reading.
enum Lookup {
    Fresh(Vec<Offer>),
    /// The database does not answer. The offers are there if they are recent enough to be shown.
    Unavailable(Option<Vec<Offer>>),
    /// To be awaited.
    Read(Read),
}

impl Offers {
    /// Reads by these ports.
    #[must_use]
    pub fn new(
        queries: Arc<dyn ConcertQueries>,
        clock: Arc<dyn Clock>,
        incarnation: KnownIncarnation,
    ) -> Self {
        Self(Arc::new(Shared { queries, clock, incarnation, view: Mutex::default() }))
    }

    /// The offers of these concerts, in this order. While the database is unavailable, offers of the last half minute do.
    ///
    /// # Errors
    /// [`Failure`] alone.
    pub async fn of(&self, ids: &[ConcertId]) -> Result<Vec<Offer>, Failure> {
        let read = match self.look_up(ids) {
            Lookup::Fresh(offers) | Lookup::Unavailable(Some(offers)) => return Ok(offers),
            Lookup::Unavailable(None) => return Err(Failure::Unavailable("no offer is known".into())),
            Lookup::Read(read) => read,
        };
        match read.await {
            Ok(found) => Ok(ids.iter().map(|id| found.get(id).copied().unwrap_or_default()).collect()),
            Err(unread) => {
                let now = self.0.clock.now();
                self.0.view().all(ids, |as_of| will_do(as_of, now)).ok_or_else(|| unread.into())
            }
        }
    }

    /// Whether a concert is sold out, by a view that is at most a second old. False when that cannot be learnt: the commit of
    /// the join says what is wrong with the database.
    pub(crate) async fn is_sold_out(&self, id: ConcertId) -> bool {
        let offer = match self.look_up(&[id]) {
            Lookup::Fresh(offers) => offers.first().copied(),
            Lookup::Unavailable(_) => None,
            Lookup::Read(read) => read.await.ok().and_then(|found| found.get(&id).copied()),
        };
        offer.is_some_and(|offer| offer.is_sold_out())
    }

    fn look_up(&self, ids: &[ConcertId]) -> Lookup {
        let mut view = self.0.view();
        let now = self.0.clock.now();
        // A clock that was set back makes an offer old, not young.
        let is_fresh = |as_of| as_of <= now && now.since(as_of) < FRESH_FOR;
        if let Some(fresh) = view.all(ids, is_fresh) {
            return Lookup::Fresh(fresh);
        }
        if view.outlook.is_away(now) {
            let usable = view.all(ids, |as_of| will_do(as_of, now));
            let newest = view.newest.clone();
            drop(view);
            // A read that every caller has turned away from goes on when a caller polls it.
            newest.and_then(FutureExt::now_or_never);
            return Lookup::Unavailable(usable);
        }
        view.wanted.extend(ids);
        match &view.newest {
            Some(unsent) if !view.is_sent => Lookup::Read(unsent.clone()),
            _ => {
                let read = self.launch(view.newest.take());
                view.newest = Some(read.clone());
                view.is_sent = false;
                Lookup::Read(read)
            }
        }
    }

    /// The next read, which begins when the one before has ended.
    fn launch(&self, before: Option<Read>) -> Read {
        let shared = self.0.clone();
        let read = async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            let (now, generation) = (shared.clock.now(), shared.incarnation.generation());
            let ids: Vec<ConcertId> = {
                let mut view = shared.view();
                view.is_sent = true;
                view.outlook.begin(now);
                std::mem::take(&mut view.wanted).into_iter().collect()
            };
            let found = caught(shared.queries.offers(ids, now)).await;
            let mut view = shared.view();
            view.outlook.end(found.is_ok(), shared.clock.now());
            let found: BTreeMap<ConcertId, Offer> = found?.into_iter().collect();
            if view.generation == generation {
                view.learn(&found, now);
            }
            Ok(Arc::new(found))
        };
        share(read)
    }
}

impl Shared {
    /// Without what was known of data that has gone back since. Nothing that is done under this lock can panic half way.
    fn view(&self) -> MutexGuard<'_, View> {
        let generation = self.incarnation.generation();
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        if view.generation < generation {
            view.generation = generation;
            view.known.clear();
        }
        view
    }
}

impl View {
    /// The offers of these concerts, if each is known from a time that will do.
    fn all(&self, ids: &[ConcertId], will_do: impl Fn(Timestamp) -> bool) -> Option<Vec<Offer>> {
        let known = |id| self.known.get(id).filter(|(_, as_of)| will_do(*as_of)).map(|(offer, _)| *offer);
        ids.iter().map(known).collect()
    }

    fn learn(&mut self, found: &BTreeMap<ConcertId, Offer>, now: Timestamp) {
        if self.known.len().saturating_add(found.len()) > MOST {
            self.known.retain(|_, (_, as_of)| will_do(*as_of, now));
        }
        if self.known.len().saturating_add(found.len()) > MOST {
            self.known.clear();
        }
        self.known.extend(found.iter().map(|(id, offer)| (*id, (*offer, now))));
    }
}

#[cfg(test)]
mod tests;
