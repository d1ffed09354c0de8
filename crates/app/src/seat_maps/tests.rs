use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use frontrow_domain::ports::{Committer, SeatNews, SeatsOfDate};
use frontrow_domain::seat::{Seat, SeatState};
use frontrow_domain::{Change, SeatId, UnitOfWork, Versioned};
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::*;
use crate::AnnouncingCommitter;
use crate::incarnation::KnownIncarnation;
use crate::testing::incarnation_of;
use crate::testing::{
    DATE, HELD, OTHER_DATE, World, held_by, now, refusal, seat, seat_id, sold_to, stored, version, world,
};
use frontrow_domain::Incarnation;
use frontrow_domain::unit_of_work::Committed;

type StoredSeats = BTreeMap<SeatId, Versioned<Seat>>;

/// The feeds of two dates with three seats each, and how often they were read.
struct Feeds {
    stored: Mutex<BTreeMap<PerformanceDateId, (FeedVersion, StoredSeats)>>,
    /// Which seats were changed by each version that is not forgotten.
    changes: Mutex<BTreeMap<(PerformanceDateId, FeedVersion), SeatId>>,
    is_away: Mutex<bool>,
    /// Reads wait for a permit of this, and loads for one of the other too.
    open: Semaphore,
    open_for_loads: Semaphore,
    reads: Mutex<Vec<&'static str>>,
    waiting: AtomicUsize,
}

impl Feeds {
    fn new() -> Arc<Self> {
        let seats = |date| {
            let seat = move |n: u32| {
                let id = SeatId::new(uuid::Uuid::from_u128(0x500 + u128::from(n)));
                Seat { id, performance_date_id: date, ..seat(n, SeatState::Available) }
            };
            let seats = (1..=3).map(move |n| (seat_id(n.into()), stored(seat(n), 1)));
            (date, (FeedVersion::FIRST, seats.collect()))
        };
        Arc::new(Self {
            stored: Mutex::new([DATE, OTHER_DATE].map(seats).into()),
            changes: Mutex::default(),
            is_away: Mutex::new(false),
            open: Semaphore::new(Semaphore::MAX_PERMITS),
            open_for_loads: Semaphore::new(Semaphore::MAX_PERMITS),
            reads: Mutex::default(),
            waiting: AtomicUsize::new(0),
        })
    }

    /// A seat is changed, by whatever node.
    fn write(&self, n: u32, state: SeatState) {
        let mut stored = lock(&self.stored);
        let (feed, seats) = stored.get_mut(&DATE).unwrap();
        *feed = feed.next();
        let row = seats.get_mut(&seat_id(n.into())).unwrap();
        (row.value.state, row.version) = (state, row.version.next());
        lock(&self.changes).insert((DATE, *feed), row.value.id);
    }

    async fn read(&self, what: &'static str) -> Result<(), StorageError> {
        lock(&self.reads).push(what);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _permit = self.open.acquire().await.unwrap();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        if *lock(&self.is_away) { Err(StorageError::Unavailable("away".into())) } else { Ok(()) }
    }

    fn take_reads(&self) -> Vec<&'static str> {
        std::mem::take(&mut lock(&self.reads))
    }

    fn close(&self) {
        self.open.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn go_away(&self, is_away: bool) {
        *lock(&self.is_away) = is_away;
    }
}

#[async_trait]
impl SeatFeeds for Feeds {
    async fn versions(
        &self,
        ids: Vec<PerformanceDateId>,
    ) -> Result<Vec<(PerformanceDateId, FeedVersion)>, StorageError> {
        self.read("versions").await?;
        let stored = lock(&self.stored);
        Ok(ids.into_iter().filter_map(|id| stored.get(&id).map(|(feed, _)| (id, *feed))).collect())
    }

    async fn news(
        &self,
        id: PerformanceDateId,
        since: FeedVersion,
    ) -> Result<Option<SeatNews>, StorageError> {
        self.read("news").await?;
        let stored = lock(&self.stored);
        let (version, seats) = &stored[&id];
        let changes = lock(&self.changes);
        let mut updates = BTreeMap::new();
        let mut told = since;
        while told < *version {
            told = told.next();
            let Some(seat) = changes.get(&(id, told)) else { return Ok(None) };
            updates.insert(*seat, SeatUpdate::of(&seats[seat]));
        }
        Ok(Some(SeatNews { updates: updates.into_values().collect(), version: *version }))
    }

    async fn load(&self, id: PerformanceDateId) -> Result<Option<SeatsOfDate>, StorageError> {
        let found = lock(&self.stored).get(&id).cloned();
        self.read("load").await?;
        let _permit = self.open_for_loads.acquire().await.unwrap();
        if self.open_for_loads.available_permits() == 0 {
            return Err(StorageError::Unavailable("away again".into()));
        }
        Ok(found.map(|(version, seats)| SeatsOfDate { seats: seats.into_values().collect(), version }))
    }
}

fn maps(world: &World, feeds: &Arc<Feeds>) -> SeatMaps {
    SeatMaps::new(feeds.clone(), world.clock(), KnownIncarnation::default())
}

fn pass_time(world: &World, millis: u64) {
    let mut facts = world.facts();
    facts.now = facts.now.plus(Duration::from_millis(millis));
}

/// The statuses of the three seats of [`DATE`] as somebody sees them who asks now.
async fn seen(world: &World, maps: &SeatMaps) -> Vec<SeatStatus> {
    let map = maps.find(DATE).await.unwrap();
    let now = world.facts().now;
    map.shown(now).unwrap().statuses
}

use SeatStatus::{Available as A, Reserved as R, Unavailable as U};

#[tokio::test]
async fn a_map_is_loaded_once_for_all_who_ask() {
    let (world, feeds) = (world(), Feeds::new());
    let maps = maps(&world, &feeds);
    feeds.close();
    let asked = tokio::spawn({
        let maps = maps.clone();
        async move { join_all((0..1_000).map(|_| maps.find(DATE))).await }
    });
    while feeds.waiting.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    feeds.open.add_permits(1);
    for answer in asked.await.unwrap() {
        assert!(answer.is_ok());
    }
    assert_eq!(feeds.take_reads(), ["load"]);
}

#[tokio::test]
async fn a_fresh_map_costs_nothing_and_a_stale_one_one_look() {
    let (world, feeds) = (world(), Feeds::new());
    let maps = maps(&world, &feeds);
    assert_eq!(seen(&world, &maps).await, [A, A, A]);
    assert_eq!(feeds.take_reads(), ["load"]);
    feeds.write(2, held_by(HELD, 2_000));
    pass_time(&world, 150);
    assert_eq!(seen(&world, &maps).await, [A, A, A]);
    assert_eq!(feeds.take_reads(), Vec::<&str>::new());
    pass_time(&world, 1);
    assert_eq!(seen(&world, &maps).await, [A, R, A]);
    assert_eq!(feeds.take_reads(), ["versions", "news"]);
    pass_time(&world, 151);
    assert_eq!(seen(&world, &maps).await, [A, R, A]);
    assert_eq!(feeds.take_reads(), ["versions"]);
}

#[tokio::test]
async fn maps_are_refreshed_together_while_they_are_asked_for() {
    let (world, feeds) = (world(), Feeds::new());
    let maps = maps(&world, &feeds);
    maps.refresh().await.unwrap();
    assert_eq!(feeds.take_reads(), Vec::<&str>::new(), "there is none");
    maps.find(DATE).await.unwrap();
    maps.find(OTHER_DATE).await.unwrap();
    feeds.take_reads();
    feeds.write(1, sold_to(HELD));
    pass_time(&world, 100);
    maps.refresh().await.unwrap();
    assert_eq!(feeds.take_reads(), ["versions", "news"]);
    assert_eq!(seen(&world, &maps).await, [U, A, A]);
    assert_eq!(feeds.take_reads(), Vec::<&str>::new());
    pass_time(&world, 10_001);
    maps.refresh().await.unwrap();
    assert_eq!(feeds.take_reads(), Vec::<&str>::new(), "nobody asks");
    pass_time(&world, 600_000);
    maps.refresh().await.unwrap();
    seen(&world, &maps).await;
    assert_eq!(feeds.take_reads(), ["load"], "it was forgotten");
}

#[tokio::test]
async fn what_the_feed_has_forgotten_is_loaded() {
    let (world, feeds) = (world(), Feeds::new());
    let maps = maps(&world, &feeds);
    let map = maps.find(DATE).await.unwrap();
    feeds.write(3, sold_to(HELD));
    lock(&feeds.changes).clear();
    pass_time(&world, 200);
    feeds.take_reads();
    assert_eq!(seen(&world, &maps).await, [A, A, U]);
    assert_eq!(feeds.take_reads(), ["versions", "news", "load"]);
    let now = world.facts().now;
    let changed = map.changed_since(FeedVersion::FIRST, now).unwrap();
    assert_eq!((changed.seats, changed.version), (vec![(2, U)], FeedVersion::new(2)));
    assert!(map.changed_since(FeedVersion::new(3), now).is_none());
}

/// A map whose feed has forgotten what it lacks, and which cannot be loaded for now.
async fn map_that_cannot_be_loaded(world: &World, feeds: &Arc<Feeds>) -> SeatMaps {
    let maps = maps(world, feeds);
    maps.find(DATE).await.unwrap();
    feeds.write(3, sold_to(HELD));
    lock(&feeds.changes).clear();
    feeds.open_for_loads.forget_permits(Semaphore::MAX_PERMITS);
    pass_time(world, 200);
    maps
}

#[tokio::test]
async fn what_is_being_loaded_anew_is_not_fresh_yet() {
    let (world, feeds) = (world(), Feeds::new());
    let maps = map_that_cannot_be_loaded(&world, &feeds).await;
    let ask = || {
        let (world, maps) = (world.clone(), maps.clone());
        tokio::spawn(async move { seen(&world, &maps).await })
    };
    let first = ask();
    while lock(&feeds.reads).last() != Some(&"load") || lock(&feeds.reads).len() < 4 {
        tokio::task::yield_now().await;
    }
    let second = ask();
    tokio::task::yield_now().await;
    feeds.open_for_loads.add_permits(10);
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (vec![A, A, U], vec![A, A, U]));
}

#[tokio::test]
async fn a_load_that_failed_makes_a_map_no_younger() {
    let (world, feeds) = (world(), Feeds::new());
    let maps = map_that_cannot_be_loaded(&world, &feeds).await;
    // The only permit: it fails.
    feeds.open_for_loads.add_permits(1);
    assert_eq!(seen(&world, &maps).await, [A, A, A], "it will do, for half a minute");
    pass_time(&world, 29_900);
    assert!(refusal(maps.find(DATE).await.map(|_| ())).starts_with("Unavailable"), "since it was read");
}

#[tokio::test]
async fn a_feed_that_falls_back_is_another_feed() {
    let (world, feeds) = (world(), Feeds::new());
    let maps = maps(&world, &feeds);
    feeds.write(1, sold_to(HELD));
    seen(&world, &maps).await;
    let map = maps.find(DATE).await.unwrap();
    let revision = map.revision(now());
    *lock(&feeds.stored) = std::mem::take(&mut *lock(&Feeds::new().stored));
    pass_time(&world, 200);
    assert_eq!(seen(&world, &maps).await, [A, A, A]);
    assert!(
        map.revision(now()) > revision,
        "pictures of the other are not mistaken for pictures of this one"
    );
}

/// What somebody commits who holds a seat.
fn hold(n: u32) -> UnitOfWork {
    let held = Versioned::new(seat(n, held_by(HELD, 2_000)), version(1));
    UnitOfWork { seats: vec![Change::Update(held)], ..Default::default() }
}

#[tokio::test]
async fn what_this_node_commits_shows_at_once() {
    let (world, feeds) = (world(), Feeds::new());
    let maps = maps(&world, &feeds);
    let committer = AnnouncingCommitter::new(world.committer(), maps.clone());
    seen(&world, &maps).await;
    feeds.take_reads();
    world.will_commit();
    committer.commit(hold(1)).await.unwrap();
    assert_eq!(seen(&world, &maps).await, [R, A, A]);
    world.will_conflict(frontrow_domain::unit_of_work::AggregateRef::Seat(seat_id(2)), |_| {});
    committer.commit(hold(2)).await.unwrap_err();
    assert_eq!(seen(&world, &maps).await, [R, A, A], "what was refused is not shown");
    assert_eq!(feeds.take_reads(), Vec::<&str>::new());
}

#[tokio::test]
async fn what_this_node_commits_during_a_load_shows_too() {
    let (world, feeds) = (world(), Feeds::new());
    let maps = maps(&world, &feeds);
    let committer = AnnouncingCommitter::new(world.committer(), maps.clone());
    feeds.close();
    let asked = tokio::spawn({
        let (world, maps) = (world.clone(), maps.clone());
        async move { seen(&world, &maps).await }
    });
    while feeds.waiting.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    world.will_commit();
    committer.commit(hold(1)).await.unwrap();
    feeds.write(1, held_by(HELD, 2_000));
    feeds.open.add_permits(10);
    assert_eq!(asked.await.unwrap(), [R, A, A], "the load was of before");
    assert_eq!(feeds.take_reads(), ["load", "versions", "news"]);
}

#[tokio::test]
async fn a_hold_lapses_without_a_read() {
    let (world, feeds) = (world(), Feeds::new());
    let maps = maps(&world, &feeds);
    feeds.write(1, held_by(HELD, 1_000));
    feeds.write(2, held_by(HELD, 1_001));
    let map = maps.find(DATE).await.unwrap();
    assert_eq!(map.shown(now()).unwrap().statuses, [A, R, A]);
    let revision = map.revision(now().plus_seconds(0));
    assert_ne!(map.revision(now().plus_seconds(1)), revision);
    assert_eq!(map.shown(now().plus_seconds(1)).unwrap().statuses, [A, A, A]);
    assert_eq!(feeds.take_reads(), ["load"]);
}

#[tokio::test]
async fn maps_get_over_half_a_minute_without_a_database() {
    let (world, feeds) = (world(), Feeds::new());
    let maps = maps(&world, &feeds);
    seen(&world, &maps).await;
    feeds.write(1, sold_to(HELD));
    feeds.go_away(true);
    pass_time(&world, 200);
    feeds.take_reads();
    assert_eq!(seen(&world, &maps).await, [A, A, A]);
    assert_eq!(feeds.take_reads(), ["versions"]);
    pass_time(&world, 999);
    assert_eq!(seen(&world, &maps).await, [A, A, A]);
    assert_eq!(feeds.take_reads(), Vec::<&str>::new(), "nobody waits for it so soon again");
    maps.find(OTHER_DATE).await.err().expect("a map that is not there");
    pass_time(&world, 30_000);
    let refused = maps.find(DATE).await.err().expect("it is too old");
    assert!(matches!(refused, Failure::Unavailable(_)), "{refused:?}");
    feeds.go_away(false);
    assert_eq!(seen(&world, &maps).await, [U, A, A]);
    maps.find(OTHER_DATE).await.unwrap();
}

#[tokio::test]
async fn nobody_waits_long_for_a_database_that_is_silent() {
    let (world, feeds) = (world(), Feeds::new());
    let maps = maps(&world, &feeds);
    seen(&world, &maps).await;
    feeds.close();
    pass_time(&world, 200);
    let first = maps.find(DATE);
    tokio::pin!(first);
    assert!((&mut first).now_or_never().is_none(), "it waits");
    pass_time(&world, 151);
    assert_eq!(seen(&world, &maps).await, [A, A, A]);
    feeds.open.add_permits(10);
    assert!(first.await.is_ok());
}

#[tokio::test]
async fn a_refresh_that_was_left_alone_goes_on() {
    let (world, feeds) = (world(), Feeds::new());
    let maps = maps(&world, &feeds);
    seen(&world, &maps).await;
    feeds.write(1, sold_to(HELD));
    feeds.close();
    pass_time(&world, 200);
    assert!(maps.find(DATE).now_or_never().is_none(), "it goes away while it waits");
    feeds.open.add_permits(10);
    maps.refresh().await.unwrap();
    assert_eq!(seen(&world, &maps).await, [U, A, A]);
    assert_eq!(feeds.take_reads(), ["load", "versions", "news"]);
}

/// Maps, and the incarnation that they follow, which is the first.
fn maps_of(world: &World, feeds: &Arc<Feeds>) -> (SeatMaps, KnownIncarnation) {
    let incarnation = KnownIncarnation::default();
    incarnation.adopt(incarnation_of(1));
    (SeatMaps::new(feeds.clone(), world.clock(), incarnation.clone()), incarnation)
}

#[tokio::test]
async fn another_incarnation_drops_every_map() {
    let (world, feeds) = (world(), Feeds::new());
    let (maps, incarnation) = maps_of(&world, &feeds);
    world.will_commit();
    let committer = AnnouncingCommitter::new(world.committer(), maps.clone());
    seen(&world, &maps).await;
    committer.commit(hold(1)).await.unwrap();
    assert_eq!(seen(&world, &maps).await, [R, A, A], "the control: the hold that the data lost is shown");
    incarnation.adopt(incarnation_of(2));
    assert_eq!(seen(&world, &maps).await, [A, A, A]);
}

#[tokio::test]
async fn a_commit_of_an_earlier_incarnation_is_not_shown() {
    let (world, feeds) = (world(), Feeds::new());
    let (maps, incarnation) = maps_of(&world, &feeds);
    let committer = AnnouncingCommitter::new(world.committer(), maps.clone());
    seen(&world, &maps).await;
    world.on_commit(move |_| {
        incarnation.adopt(incarnation_of(2));
        Ok(Committed::default())
    });
    committer.commit(hold(1)).await.unwrap();
    assert_eq!(seen(&world, &maps).await, [A, A, A]);
    // The map of the new incarnation is there already when the commit returns.
    let held = Versioned::new(seat(1, held_by(HELD, 2_000)), version(2));
    for (of, shown) in [(1, [A, A, A]), (2, [R, A, A])] {
        maps.anticipate(DATE, &[SeatUpdate::of(&held)], Some(incarnation_of(of)));
        assert_eq!(seen(&world, &maps).await, shown, "2 is the control");
    }
}

#[tokio::test]
async fn a_feed_that_has_gone_back_is_reported() {
    let (world, feeds) = (world(), Feeds::new());
    let (maps, incarnation) = maps_of(&world, &feeds);
    seen(&world, &maps).await;
    pass_time(&world, 200);
    seen(&world, &maps).await;
    assert!(!incarnation.is_reported_gone_back(), "the control");
    lock(&feeds.stored).clear();
    pass_time(&world, 200);
    maps.refresh().await.unwrap();
    assert!(incarnation.is_reported_gone_back());
}

#[tokio::test]
async fn a_version_of_an_earlier_incarnation_is_unknown() {
    let (world, feeds) = (world(), Feeds::new());
    let (maps, incarnation) = maps_of(&world, &feeds);
    let started = |n, started_at| Incarnation { started_at, ..incarnation_of(n) };
    let this_year = Timestamp::parse("2026-11-29T12:00:00Z").unwrap();
    incarnation.adopt(started(2, this_year));
    let before = maps.find(DATE).await.unwrap();
    assert!(before.changed_since(before.version(), now()).is_some(), "the control");
    incarnation.adopt(started(3, this_year.plus_seconds(1)));
    let after = maps.find(DATE).await.unwrap();
    assert!(after.version() > before.version());
    assert!(after.changed_since(before.version(), now()).is_none(), "all is to be told");
    assert!(after.changed_since(after.version(), now()).is_some());
    assert!(after.version().get() < 1 << 53, "exact in a double");
}
