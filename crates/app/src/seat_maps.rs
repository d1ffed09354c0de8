//! Seat maps in memory, one for each date that is asked for (ADR 0008). They are for showing: no decision is taken by them.
//!
//! A map is loaded by the first who asks for its date and then follows the date's feed. What is shown was true at most
//! [`FRESH`] ago; a map that nobody has refreshed since is refreshed before it is shown. What this node commits is shown at
//! once. While the database is away maps are shown for half a minute more. Another incarnation of the data (ADR 0018) drops
//! all maps; the versions that clients know are those of the feed and of the incarnation, so that no version of an
//! earlier one is taken for one of now.
//!
//! Reads: none for a map that is fresh. A refresh is 1 read for all maps that were asked for lately and 1 for each date that
//! has changed. A map that is not there is 1 read, however many ask for it at once.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use frontrow_domain::ports::{Clock, SeatFeeds, StorageError};
use frontrow_domain::seat::{FeedVersion, SeatImage, SeatLayout, SeatStatus, SeatUpdate};
use frontrow_domain::{Incarnation, PerformanceDateId, Timestamp};
use futures_util::future::try_join_all;

use crate::Failure;
use crate::flight::{Flight, Unread, caught, share};
use crate::incarnation::KnownIncarnation;
use crate::outage::{Outlook, will_do};

/// How old what a map knows may be when it is shown. Whoever draws pictures of it has the rest of the promised 250 ms.
const FRESH: Duration = Duration::from_millis(150);
/// For how long after it was asked for a map is refreshed by itself.
const REFRESHED_FOR: Duration = Duration::from_secs(10);
/// For how long after it was asked for a map is kept.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// The most seats of all maps together: a seat takes about 100 bytes. The map that was asked for last stays in any case.
const MOST_SEATS: usize = 1_000_000;
/// How often a map is brought up to date for one who asks, before what there is must do.
const ATTEMPTS: u32 = 3;

/// The versions of one incarnation begin at its first second times this, and stay exact in a double for 60 years.
const VERSIONS_A_SECOND: i64 = 1 << 22;
/// 2020-01-01T00:00:00Z, in seconds since 1970.
const FIRST_SECOND: i64 = 1_577_836_800;

/// The seat maps of this node. Cloning shares them.
#[derive(Clone)]
pub struct SeatMaps {
    incarnation: KnownIncarnation,
    feeds: Arc<dyn SeatFeeds>,
    clock: Arc<dyn Clock>,
    shelf: Arc<Mutex<Shelf>>,
}

#[derive(Default)]
struct Shelf {
    /// The incarnation of the data that the maps show.
    incarnation: Option<Incarnation>,
    maps: BTreeMap<PerformanceDateId, Arc<SeatMap>>,
    /// The last refresh; under way unless it is done.
    refresh: Option<Flight<()>>,
    outlook: Outlook,
}

/// The seat map of one date.
pub struct SeatMap {
    id: PerformanceDateId,
    /// What a version of the feed is more by for clients.
    versions_from: i64,
    state: Mutex<State>,
}

struct State {
    image: Option<SeatImage>,
    /// When all that the image shows was known to be true; absent when it is known to lack something.
    as_of: Option<Timestamp>,
    asked_at: Timestamp,
    load: Option<Flight<()>>,
    /// What is added to the revisions of the image, so that those of the map grow when it gets another image.
    revisions_before: u64,
}

/// What a map shows at one time.
#[derive(Debug, Clone)]
pub struct SeatsShown {
    /// Where the seats are.
    pub layout: Arc<SeatLayout>,
    /// The status of each, by position.
    pub statuses: Vec<SeatStatus>,
    /// The version of the feed up to which everything is known. What is known already may be more.
    pub version: FeedVersion,
    /// See [`SeatMap::revision`].
    pub revision: u64,
}

/// What may be shown otherwise than at a version.
#[derive(Debug, Clone)]
pub struct SeatsChanged {
    /// Where the seats are.
    pub layout: Arc<SeatLayout>,
    /// The positions and statuses of the seats concerned, by position.
    pub seats: Vec<(usize, SeatStatus)>,
    /// The version since which these are all changes.
    pub since: FeedVersion,
    /// The version to ask with next.
    pub version: FeedVersion,
    /// See [`SeatMap::revision`].
    pub revision: u64,
}

/// What can be done with a map at a moment.
enum Condition {
    /// It is to be loaded.
    Absent,
    /// It can be shown only after a refresh.
    Stale,
    Fresh,
}

impl SeatMaps {
    /// Maps that read these feeds.
    #[must_use]
    pub fn new(feeds: Arc<dyn SeatFeeds>, clock: Arc<dyn Clock>, incarnation: KnownIncarnation) -> Self {
        Self { incarnation, feeds, clock, shelf: Arc::default() }
    }

    /// The incarnation that the maps follow.
    pub(crate) fn incarnation(&self) -> KnownIncarnation {
        self.incarnation.clone()
    }

    /// The maps of the present incarnation. A load or a refresh that began earlier goes on with the maps that it has,
    /// which are not among these.
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        let mut shelf = lock(&self.shelf);
        let incarnation = self.incarnation.current();
        if shelf.incarnation != incarnation {
            *shelf = Shelf { incarnation, ..Shelf::default() };
        }
        shelf
    }

    /// The map of a date that there is, up to date.
    ///
    /// # Errors
    /// [`Failure`] when the database is away, and has been so for long, or has never told of this date.
    pub async fn find(&self, id: PerformanceDateId) -> Result<Arc<SeatMap>, Failure> {
        let map = self.take_from_shelf(id);
        for _ in 0..ATTEMPTS {
            let now = self.clock.now();
            let brought = match map.condition(now) {
                Condition::Fresh => return Ok(map),
                Condition::Absent => self.load(&map).await,
                Condition::Stale if self.shelf().outlook.is_away(now) && map.will_do(now) => {
                    return Ok(map);
                }
                Condition::Stale => self.refresh_all().await,
            };
            match brought {
                Ok(()) => {}
                Err(_) if map.will_do(self.clock.now()) => return Ok(map),
                Err(unread) => return Err(unread.into()),
            }
        }
        // It is brought up to date all the time; the database is slow.
        if map.will_do(self.clock.now()) { Ok(map) } else { Err(self.gave_up(id)) }
    }

    fn gave_up(&self, id: PerformanceDateId) -> Failure {
        Failure::Unavailable(format!("the seat map of {id} could not be brought up to date").into())
    }

    /// Brings the maps that were asked for lately up to date, and forgets those that nobody asks for. To be called ten times
    /// a second.
    ///
    /// # Errors
    /// [`Failure`] when the database is away.
    pub async fn refresh(&self) -> Result<(), Failure> {
        let now = self.clock.now();
        let any_asked_for = {
            let mut shelf = self.shelf();
            shelf.maps.retain(|_, map| !map.unasked_for(KEPT_FOR, now));
            shelf.maps.values().any(|map| !map.unasked_for(REFRESHED_FOR, now))
        };
        if any_asked_for { Ok(self.refresh_all().await?) } else { Ok(()) }
    }

    /// Brings the maps that were asked for lately up to date, by a look at the database that is not over yet. None while it
    /// is away.
    pub(crate) async fn look_again(&self) -> Result<(), Failure> {
        if self.shelf().outlook.is_away(self.clock.now()) {
            return Ok(());
        }
        // The look that is under way may have been sent too early.
        self.refresh_all().await?;
        Ok(self.refresh_all().await?)
    }

    /// Shows at once what this node has just committed, by a commit that began in this incarnation.
    pub(crate) fn anticipate(
        &self,
        id: PerformanceDateId,
        updates: &[SeatUpdate],
        incarnation: Option<Incarnation>,
    ) {
        let shelf = self.shelf();
        let map = shelf.maps.get(&id).filter(|_| shelf.incarnation == incarnation).cloned();
        drop(shelf);
        if let Some(map) = map {
            map.anticipate(updates);
        }
    }

    /// The map of a date, perhaps still empty.
    fn take_from_shelf(&self, id: PerformanceDateId) -> Arc<SeatMap> {
        let asked_at = self.clock.now();
        let mut shelf = self.shelf();
        let versions_from = shelf.incarnation.map_or(0, versions_from);
        let map = shelf.maps.entry(id).or_insert_with(|| {
            let state = State { image: None, as_of: None, asked_at, load: None, revisions_before: 0 };
            Arc::new(SeatMap { id, versions_from, state: Mutex::new(state) })
        });
        lock(&map.state).asked_at = asked_at;
        map.clone()
    }

    /// Loads a map that is empty, or joins whoever does.
    async fn load(&self, map: &Arc<SeatMap>) -> Result<(), Unread> {
        let flight = {
            let mut state = lock(&map.state);
            match &state.load {
                Some(loading) if loading.peek().is_none() => loading.clone(),
                _ => {
                    let (map, feeds, clock) = (map.clone(), self.feeds.clone(), self.clock.clone());
                    let flight = share(async move { Ok(map.load(&*feeds, &*clock).await?) });
                    state.load = Some(flight.clone());
                    flight
                }
            }
        };
        flight.await?;
        self.make_room(map.id);
        Ok(())
    }

    /// Forgets the maps that were not asked for longest, until the others fit.
    fn make_room(&self, for_id: PerformanceDateId) {
        let mut shelf = self.shelf();
        let mut others: Vec<_> = shelf.maps.values().map(|map| map.rank()).collect();
        others.sort_unstable();
        let mut seats: usize = others.iter().map(|(_, _, seats)| seats).sum();
        for (_, id, of_map) in others.into_iter().filter(|(_, id, _)| *id != for_id) {
            if seats <= MOST_SEATS {
                break;
            }
            shelf.maps.remove(&id);
            seats = seats.saturating_sub(of_map);
        }
    }

    /// Brings the maps that were asked for lately up to date, or joins whoever does. Goes on when nobody waits any more and
    /// somebody comes again.
    async fn refresh_all(&self) -> Result<(), Unread> {
        let flight = {
            let mut shelf = self.shelf();
            match &shelf.refresh {
                Some(refresh) if refresh.peek().is_none() => refresh.clone(),
                _ => {
                    let flight = self.launch(&mut shelf);
                    shelf.refresh = Some(flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    fn launch(&self, shelf: &mut Shelf) -> Flight<()> {
        let now = self.clock.now();
        let asked_for =
            shelf.maps.values().filter(|map| !map.unasked_for(REFRESHED_FOR, now) && map.is_loaded());
        let maps: Vec<Arc<SeatMap>> = asked_for.cloned().collect();
        shelf.outlook.begin(now);
        let (feeds, clock, shelf) = (self.feeds.clone(), self.clock.clone(), Arc::downgrade(&self.shelf));
        let (incarnation, generation) = (self.incarnation.clone(), self.incarnation.generation());
        let flight = async move {
            let refreshed = caught(refresh(&maps, &*feeds, &*clock)).await;
            if refreshed.as_ref().is_ok_and(|have_gone_back| *have_gone_back) {
                incarnation.report_gone_back(generation);
            }
            if let Some(shelf) = shelf.upgrade() {
                lock(&shelf).outlook.end(refreshed.is_ok(), clock.now());
            }
            Ok(refreshed.map(|_| ())?)
        };
        share(flight)
    }
}

/// Whether any feed has gone back.
async fn refresh(
    maps: &[Arc<SeatMap>],
    feeds: &dyn SeatFeeds,
    clock: &dyn Clock,
) -> Result<bool, StorageError> {
    if maps.is_empty() {
        return Ok(false);
    }
    let as_of = clock.now();
    let versions = feeds.versions(maps.iter().map(|map| map.id).collect()).await?;
    let versions: HashMap<PerformanceDateId, FeedVersion> = versions.into_iter().collect();
    let (mut behind, mut have_gone_back) = (Vec::new(), false);
    for map in maps {
        match map.compare(versions.get(&map.id).copied(), as_of) {
            Some(Ordering::Less) => behind.push(map),
            Some(Ordering::Greater) => have_gone_back = true,
            Some(Ordering::Equal) | None => {}
        }
    }
    try_join_all(behind.into_iter().map(|map| map.catch_up(feeds, clock))).await?;
    Ok(have_gone_back)
}

/// What the versions of an incarnation begin at.
fn versions_from(incarnation: Incarnation) -> i64 {
    let second = incarnation.started_at.unix_micros().div_euclid(1_000_000);
    second.saturating_sub(FIRST_SECOND).max(0).saturating_mul(VERSIONS_A_SECOND)
}

impl SeatMap {
    /// Grows with every change of what the map shows; as it is at `now`. Cheap.
    #[must_use]
    pub fn revision(&self, now: Timestamp) -> u64 {
        self.look(now, |_, revision| revision).unwrap_or(0)
    }

    /// All that the map shows at `now`.
    #[must_use]
    pub fn shown(&self, now: Timestamp) -> Option<SeatsShown> {
        self.look(now, |image, revision| SeatsShown {
            layout: image.layout().clone(),
            statuses: image.shown().to_vec(),
            version: self.shown_version(image.version()),
            revision,
        })
    }

    /// The version up to which the map knows everything.
    #[must_use]
    pub fn version(&self) -> FeedVersion {
        self.shown_version(self.feed_version())
    }

    fn feed_version(&self) -> FeedVersion {
        lock(&self.state).image.as_ref().map_or(FeedVersion::FIRST, SeatImage::version)
    }

    /// A version of the feed as clients know it.
    fn shown_version(&self, version: FeedVersion) -> FeedVersion {
        FeedVersion::new(version.get().saturating_add(self.versions_from))
    }

    /// What may be shown otherwise at `now` than to whoever knows all up to `since`; `None` when that is not known.
    #[must_use]
    pub fn changed_since(&self, since: FeedVersion, now: Timestamp) -> Option<SeatsChanged> {
        self.changed(now, |image| {
            let known = self.feed_since(since)?;
            Some((known, image.changed_since(known)?))
        })
    }

    /// As [`SeatMap::changed_since`], with earlier changes, so that callers that lack about as much get the same.
    #[must_use]
    pub fn changed_since_or_earlier(&self, since: FeedVersion, now: Timestamp) -> Option<SeatsChanged> {
        self.changed(now, |image| image.changed_since_or_earlier(self.feed_since(since)?))
    }

    /// The version of the feed that clients know by this one; `None` when it is of another incarnation.
    fn feed_since(&self, since: FeedVersion) -> Option<FeedVersion> {
        since.get().checked_sub(self.versions_from).filter(|since| *since >= 0).map(FeedVersion::new)
    }

    fn changed(
        &self,
        now: Timestamp,
        find: impl FnOnce(&SeatImage) -> Option<(FeedVersion, Vec<usize>)>,
    ) -> Option<SeatsChanged> {
        self.look(now, |image, revision| {
            let (since, positions) = find(image)?;
            let seat = |at: usize| image.shown().get(at).map(|status| (at, *status));
            let seats = positions.into_iter().filter_map(seat).collect();
            let (layout, since) = (image.layout().clone(), self.shown_version(since));
            let version = self.shown_version(image.version());
            Some(SeatsChanged { layout, seats, since, version, revision })
        })?
    }

    /// Looks at the image, and at the revision of the map.
    fn look<T>(&self, now: Timestamp, look: impl FnOnce(&SeatImage, u64) -> T) -> Option<T> {
        let mut state = lock(&self.state);
        let before = state.revisions_before;
        let image = state.image.as_mut()?;
        image.advance(now);
        Some(look(image, before.saturating_add(image.revision())))
    }

    fn condition(&self, now: Timestamp) -> Condition {
        let state = lock(&self.state);
        match (&state.image, state.as_of) {
            (None, _) => Condition::Absent,
            // A clock that was set back makes nothing fresh.
            (Some(_), Some(as_of)) if now.since(as_of) <= FRESH && as_of.since(now) <= FRESH => {
                Condition::Fresh
            }
            (Some(_), _) => Condition::Stale,
        }
    }

    fn will_do(&self, now: Timestamp) -> bool {
        let state = lock(&self.state);
        state.image.is_some() && state.as_of.is_some_and(|as_of| will_do(as_of, now))
    }

    fn unasked_for(&self, time: Duration, now: Timestamp) -> bool {
        now.since(lock(&self.state).asked_at) > time
    }

    /// When it was asked for, which it is, and how many seats it has.
    fn rank(&self) -> (Timestamp, PerformanceDateId, usize) {
        let state = lock(&self.state);
        let seats = state.image.as_ref().map_or(0, |image| image.layout().len());
        (state.asked_at, self.id, seats)
    }

    fn is_loaded(&self) -> bool {
        lock(&self.state).image.is_some()
    }

    fn anticipate(&self, updates: &[SeatUpdate]) {
        let mut state = lock(&self.state);
        match &mut state.image {
            Some(image) => updates.iter().for_each(|update| image.anticipate(update)),
            // It is being loaded, perhaps as it was before.
            None => state.as_of = None,
        }
    }

    /// How the version that the map knows everything up to compares with `version`, as of a time; it takes note where they are
    /// equal. A map whose feed is gone or has gone back, as after a restore, is emptied. `None` for one that is empty.
    fn compare(&self, version: Option<FeedVersion>, as_of: Timestamp) -> Option<Ordering> {
        let mut state = lock(&self.state);
        let image = state.image.as_ref()?;
        let (known, revision) = (image.version(), image.revision());
        if version.is_none_or(|version| version < known) {
            state.image = None;
            state.revisions_before = state.revisions_before.saturating_add(revision).saturating_add(1);
            return Some(Ordering::Greater);
        }
        if version == Some(known) {
            state.as_of = Some(as_of);
            return Some(Ordering::Equal);
        }
        Some(Ordering::Less)
    }

    /// Takes over what the feed has to tell, or everything when it cannot tell what the map lacks.
    async fn catch_up(&self, feeds: &dyn SeatFeeds, clock: &dyn Clock) -> Result<(), StorageError> {
        let as_of = clock.now();
        if let Some(news) = feeds.news(self.id, self.feed_version()).await? {
            let mut state = lock(&self.state);
            let Some(image) = state.image.as_mut() else { return Ok(()) };
            if image.follow(&news.updates, news.version).is_ok() {
                state.as_of = Some(as_of);
                return Ok(());
            }
        }
        self.load(feeds, clock).await
    }

    /// An image that is there already is as old as it was, until it has been loaded.
    fn begins_to_load(&self, as_of: Timestamp) {
        let mut state = lock(&self.state);
        if state.image.is_none() {
            state.as_of = Some(as_of);
        }
    }

    async fn load(&self, feeds: &dyn SeatFeeds, clock: &dyn Clock) -> Result<(), StorageError> {
        let as_of = clock.now();
        self.begins_to_load(as_of);
        let loaded = feeds.load(self.id).await?;
        let loaded =
            loaded.ok_or_else(|| StorageError::Corrupt(format!("the date {} has no feed", self.id)))?;
        // Many seats take a while to be put in order, so not under the lock; nobody else loads meanwhile.
        let fresh = (!self.is_loaded()).then(|| SeatImage::new(&loaded.seats, loaded.version));
        let mut state = lock(&self.state);
        match (&mut state.image, fresh) {
            (Some(image), _) => {
                image.reload(&loaded.seats, loaded.version);
                state.as_of = Some(as_of);
            }
            (empty @ None, fresh) => *empty = fresh,
        }
        Ok(())
    }
}

/// Nothing that is done under these locks can panic half way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
