use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use frontrow_domain::concert::Concert;
use frontrow_domain::ports::{DateFilter, DateSummary, StorageError};
use futures_util::future::join3;
use tokio::sync::Semaphore;

use super::*;
use crate::testing::{CONCERT, OTHER_CONCERT, World, incarnation_of, open_offer, sold_out, world};

/// Offers that are read with a permit each: of [`CONCERT`] that it is sold out, of others that a seat is left.
struct Gated {
    asked: Mutex<Vec<Vec<ConcertId>>>,
    permits: Semaphore,
    is_away: AtomicBool,
    panics: AtomicBool,
}

#[async_trait]
impl ConcertQueries for Gated {
    async fn offers(
        &self,
        ids: Vec<ConcertId>,
        _: Timestamp,
    ) -> Result<Vec<(ConcertId, Offer)>, StorageError> {
        self.asked.lock().unwrap().push(ids.clone());
        self.permits.acquire().await.unwrap().forget();
        assert!(!self.panics.load(Ordering::SeqCst), "on purpose");
        if self.is_away.load(Ordering::SeqCst) {
            return Err(StorageError::Unavailable("away".into()));
        }
        let offer = |id| if id == CONCERT { sold_out() } else { open_offer() };
        Ok(ids.into_iter().map(|id| (id, offer(id))).collect())
    }

    async fn list_concerts(&self, _: Option<ConcertId>, _: u32) -> Result<Vec<Concert>, StorageError> {
        panic!("only offers are read")
    }

    async fn list_dates(
        &self,
        _: ConcertId,
        _: DateFilter,
        _: Timestamp,
    ) -> Result<Vec<DateSummary>, StorageError> {
        panic!("only offers are read")
    }
}

struct Reads {
    world: World,
    gated: Arc<Gated>,
    offers: Offers,
    incarnation: KnownIncarnation,
}

impl Reads {
    fn new(permits: usize) -> Self {
        let world = world();
        let gated = Arc::new(Gated {
            asked: Mutex::default(),
            permits: Semaphore::new(permits),
            is_away: AtomicBool::new(false),
            panics: AtomicBool::new(false),
        });
        let incarnation = KnownIncarnation::default();
        let offers = Offers::new(gated.clone(), world.clock(), incarnation.clone());
        Self { world, gated, offers, incarnation }
    }

    fn pass_time(&self, millis: u64) {
        let mut facts = self.world.facts();
        facts.now = facts.now.plus(Duration::from_millis(millis));
    }

    fn take_asked(&self) -> Vec<Vec<ConcertId>> {
        std::mem::take(&mut self.gated.asked.lock().unwrap())
    }
}

#[tokio::test]
async fn data_that_went_back_is_read_again_at_once() {
    let reads = Reads::new(9);
    reads.incarnation.adopt(incarnation_of(1));
    reads.offers.of(&[CONCERT]).await.unwrap();
    reads.offers.of(&[CONCERT]).await.unwrap();
    assert_eq!(reads.take_asked().len(), 1, "control: it is fresh");
    reads.incarnation.adopt(incarnation_of(2));
    reads.offers.of(&[CONCERT]).await.unwrap();
    assert_eq!(reads.take_asked().len(), 1);
}

#[tokio::test]
async fn a_panic_in_a_read_fails_that_read_alone() {
    let reads = Reads::new(9);
    reads.gated.panics.store(true, Ordering::SeqCst);
    reads.offers.of(&[CONCERT]).await.unwrap_err();
    reads.gated.panics.store(false, Ordering::SeqCst);
    reads.pass_time(2_000);
    reads.offers.of(&[CONCERT]).await.unwrap();
}

#[tokio::test]
async fn an_offer_is_read_at_most_twice_a_second() {
    let reads = Reads::new(9);
    for _ in 0..3 {
        assert_eq!(reads.offers.of(&[OTHER_CONCERT, CONCERT]).await.unwrap(), [open_offer(), sold_out()]);
        assert!(reads.offers.is_sold_out(CONCERT).await);
        assert!(!reads.offers.is_sold_out(OTHER_CONCERT).await);
        reads.pass_time(200);
    }
    assert_eq!(reads.take_asked(), [[CONCERT, OTHER_CONCERT]]);
    assert!(reads.offers.is_sold_out(CONCERT).await);
    assert_eq!(reads.take_asked(), [[CONCERT]], "600 ms later");
}

#[tokio::test]
async fn callers_share_the_read_that_has_not_been_sent() {
    let reads = Reads::new(0);
    let mut first = Box::pin(reads.offers.of(&[CONCERT]));
    assert!((&mut first).now_or_never().is_none(), "the first read is sent");
    let mut second = Box::pin(reads.offers.of(&[OTHER_CONCERT]));
    let mut third = Box::pin(reads.offers.is_sold_out(CONCERT));
    assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
    assert_eq!(reads.gated.asked.lock().unwrap().len(), 1, "one at a time");
    reads.gated.permits.add_permits(9);
    let (first, second, third) = join3(first, second, third).await;
    assert_eq!((first.unwrap(), second.unwrap(), third), (vec![sold_out()], vec![open_offer()], true));
    assert_eq!(reads.take_asked(), [vec![CONCERT], vec![CONCERT, OTHER_CONCERT]]);
}

#[tokio::test]
async fn old_offers_are_shown_in_an_outage_and_refuse_no_newcomer() {
    let reads = Reads::new(9);
    assert!(reads.offers.is_sold_out(CONCERT).await);
    reads.gated.is_away.store(true, Ordering::SeqCst);
    reads.pass_time(500);
    assert!(!reads.offers.is_sold_out(CONCERT).await, "the read failed");
    assert_eq!(reads.offers.of(&[CONCERT]).await.unwrap(), [sold_out()]);
    assert!(reads.offers.of(&[OTHER_CONCERT]).await.is_err(), "never read");
    assert!(!reads.offers.is_sold_out(CONCERT).await);
    assert_eq!(reads.take_asked().len(), 2, "one failure is enough for a second");
    reads.pass_time(29_501);
    assert!(reads.offers.of(&[CONCERT]).await.is_err(), "too old");
    reads.gated.is_away.store(false, Ordering::SeqCst);
    reads.pass_time(1_000);
    assert!(reads.offers.is_sold_out(CONCERT).await);
}

#[tokio::test]
async fn a_silent_database_holds_up_the_first_newcomers_only() {
    let reads = Reads::new(0);
    let mut first = Box::pin(reads.offers.is_sold_out(CONCERT));
    assert!((&mut first).now_or_never().is_none());
    reads.pass_time(151);
    assert_eq!(reads.offers.is_sold_out(CONCERT).now_or_never(), Some(false));
    assert!(reads.offers.of(&[CONCERT]).now_or_never().unwrap().is_err());
    drop(first);
    reads.gated.permits.add_permits(1);
    assert_eq!(reads.offers.is_sold_out(CONCERT).now_or_never(), Some(false), "it goes on when polled");
    assert_eq!(reads.offers.is_sold_out(CONCERT).now_or_never(), Some(true), "and its answer counts");
    assert_eq!(reads.take_asked().len(), 1);
}

#[tokio::test]
async fn a_clock_that_is_set_back_makes_no_offer_young() {
    let reads = Reads::new(9);
    reads.pass_time(10_000);
    assert!(reads.offers.is_sold_out(CONCERT).await);
    reads.world.facts().now = crate::testing::now();
    assert!(reads.offers.is_sold_out(CONCERT).await);
    assert_eq!(reads.take_asked().len(), 2);
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    let reads = Reads::new(9);
    let ids: Vec<ConcertId> = (0..6_000).map(|n| ConcertId::new(uuid::Uuid::from_u128(n))).collect();
    reads.offers.of(&ids).await.unwrap();
    assert_eq!(reads.offers.0.view().known.len(), 6_000);
    let more: Vec<ConcertId> = (6_000..12_000).map(|n| ConcertId::new(uuid::Uuid::from_u128(n))).collect();
    assert_eq!(reads.offers.of(&more).await.unwrap().len(), 6_000);
    assert_eq!(reads.offers.0.view().known.len(), 6_000);
}
