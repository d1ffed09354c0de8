//! The feeds of dates: every change of a seat is told, once, with what it was changed to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use frontrow_domain::ports::{SeatNews, SeatsOfDate};
use frontrow_domain::seat::{FeedVersion, Seat, SeatImage, SeatStatus, SeatUpdate};
use frontrow_domain::unit_of_work::Command;
use frontrow_domain::{Change, PerformanceDateId, SeatId, UnitOfWork, Versioned};

use crate::fixture::{Fixture, HOLD, START, at};
use crate::holds::take_over;

async fn load(fixture: &Fixture, date: PerformanceDateId) -> SeatsOfDate {
    fixture.storage.seat_feeds.load(date).await.unwrap().unwrap()
}

async fn version(fixture: &Fixture, date: PerformanceDateId) -> FeedVersion {
    let versions = fixture.storage.seat_feeds.versions(vec![date]).await.unwrap();
    assert_eq!(versions.len(), 1);
    versions[0].1
}

async fn news(fixture: &Fixture, date: PerformanceDateId, since: FeedVersion) -> SeatNews {
    let mut news = fixture.storage.seat_feeds.news(date, since).await.unwrap().unwrap();
    news.updates.sort_by_key(|update| update.id);
    news
}

fn by_id(mut seats: Vec<Versioned<Seat>>) -> Vec<Versioned<Seat>> {
    seats.sort_by_key(|seat| seat.value.id);
    seats
}

pub(crate) async fn a_date_has_a_feed(fixture: &Fixture) {
    let (sale, unknown) = (fixture.sale(3).await, fixture.id(PerformanceDateId::new));
    let empty = fixture.new_date(sale.concert.id, at(START)).await.id;
    let feeds = &fixture.storage.seat_feeds;
    assert_eq!(feeds.load(unknown).await.unwrap(), None);
    assert_eq!(feeds.news(unknown, FeedVersion::FIRST).await.unwrap(), None);
    assert_eq!(load(fixture, empty).await, SeatsOfDate { seats: vec![], version: FeedVersion::FIRST });
    let loaded = load(fixture, sale.date.id).await;
    assert_eq!(by_id(loaded.seats), fixture.seats(&sale.seat_ids()).await);
    let versions = feeds.versions(vec![empty, unknown, sale.date.id, empty]).await.unwrap();
    assert_eq!(versions, [(sale.date.id, loaded.version), (empty, FeedVersion::FIRST)]);
    assert_eq!(feeds.versions(vec![]).await.unwrap(), []);
}

/// A date that is made with its seats starts at the first version, whatever their number.
pub(crate) async fn a_date_made_whole_is_of_the_first_version(fixture: &Fixture) {
    let sale = fixture.sale(1).await;
    let mut date = sale.date;
    date.id = fixture.id(PerformanceDateId::new);
    let mut seat = sale.seats[0].clone();
    (seat.id, seat.performance_date_id) = (fixture.id(SeatId::new), date.id);
    let seats = vec![Change::Insert(seat)];
    fixture.write(UnitOfWork { performance_dates: vec![date], seats, ..Default::default() }).await;
    let loaded = load(fixture, date.id).await;
    assert_eq!((loaded.seats.len(), loaded.version), (1, FeedVersion::FIRST));
}

/// What a unit of work changes is told, and nothing else.
async fn assert_told(fixture: &Fixture, date: PerformanceDateId, since: FeedVersion, changed: &[SeatId]) {
    let news = news(fixture, date, since).await;
    let now = fixture.seats(changed).await;
    assert_eq!(news.updates, now.iter().map(SeatUpdate::of).collect::<Vec<_>>());
    assert_eq!(news.version, version(fixture, date).await);
    assert!(news.version > since);
}

pub(crate) async fn every_change_of_a_seat_is_told(fixture: &Fixture) {
    let sale = fixture.sale(4).await;
    let (ids, date) = (sale.seat_ids(), sale.date.id);
    let now = async || version(fixture, date).await;
    let start = now().await;
    assert_eq!(news(fixture, date, start).await, SeatNews { updates: vec![], version: start });

    let paid = fixture.hold(&sale, &ids[..2], at(0)).await;
    assert_told(fixture, date, start, &ids[..2]).await;
    let held = now().await;
    fixture.pay(paid.value.id, at(1)).await;
    assert_told(fixture, date, held, &ids[..2]).await;
    let sold = now().await;
    let cancelled = fixture.hold(&sale, &ids[2..3], at(0)).await;
    let work = fixture.end_work(cancelled.value.id, at(1)).await;
    fixture.write(work).await;
    assert_told(fixture, date, sold, &ids[2..3]).await;
    assert_told(fixture, date, start, &ids[..3]).await;
}

pub(crate) async fn every_way_a_hold_lapses_is_told(fixture: &Fixture) {
    let sale = fixture.sale(3).await;
    let (ids, date) = (sale.seat_ids(), sale.date.id);
    let start = version(fixture, date).await;
    let lapsed = fixture.hold(&sale, &ids[..2], at(0)).await;
    let before = version(fixture, date).await;
    let (_, work) = take_over(fixture, &sale, &lapsed, at(HOLD)).await;
    fixture.write(work).await;
    assert_told(fixture, date, before, &ids).await;
    let before = version(fixture, date).await;
    fixture.order(Command::ExpireHolds { now: at(2 * HOLD), limit: 9 }).await;
    assert_told(fixture, date, before, &ids[1..]).await;
    assert_told(fixture, date, start, &ids).await;
}

pub(crate) async fn a_feed_tells_of_its_own_date_alone(fixture: &Fixture) {
    let sale = fixture.sale(2).await;
    let other = fixture.another_date(sale.room, sale.concert.clone(), 2).await;
    let before = version(fixture, sale.date.id).await;
    let others = version(fixture, other.date.id).await;
    fixture.hold(&other, &other.seat_ids(), at(0)).await;
    assert_eq!(version(fixture, sale.date.id).await, before);
    assert_told(fixture, other.date.id, others, &other.seat_ids()).await;
    fixture.order(Command::ExpireHolds { now: at(HOLD), limit: 9 }).await;
    assert_eq!(version(fixture, sale.date.id).await, before);
}

pub(crate) async fn what_is_refused_is_not_told(fixture: &Fixture) {
    let sale = fixture.sale(2).await;
    let token = fixture.admitted(sale.room.id, at(0)).await;
    let (_, work) = fixture.hold_work(token, fixture.seats(&sale.seat_ids()).await, at(0));
    fixture.hold(&sale, &sale.seat_ids()[1..], at(0)).await;
    let before = version(fixture, sale.date.id).await;
    fixture.commit(work).await.unwrap_err();
    assert_eq!(version(fixture, sale.date.id).await, before);
}

pub(crate) async fn a_feed_does_not_know_the_future(fixture: &Fixture) {
    let sale = fixture.sale(1).await;
    let next = version(fixture, sale.date.id).await.next();
    assert_eq!(fixture.storage.seat_feeds.news(sale.date.id, next).await.unwrap(), None);
}

/// Many write at once while an image follows: in the end it shows what is stored, without having been loaded again.
pub(crate) async fn a_follower_misses_nothing(fixture: &Fixture) {
    const BUYERS: usize = 40;
    let sale = fixture.sale(BUYERS.try_into().unwrap()).await;
    let date = sale.date.id;
    let mut works = Vec::new();
    for id in sale.seat_ids() {
        let token = fixture.admitted(sale.room.id, at(0)).await;
        works.push(fixture.hold_work(token, fixture.seats(&[id]).await, at(0)).1);
    }
    let start = load(fixture, date).await;
    let mut image = SeatImage::new(&start.seats, start.version);
    let (done, feeds) = (Arc::new(AtomicBool::new(false)), fixture.storage.seat_feeds.clone());
    let follower = tokio::spawn({
        let done = done.clone();
        async move {
            let mut heard = 0;
            loop {
                let is_last = done.load(Ordering::SeqCst);
                let news = feeds.news(date, image.version()).await.unwrap().unwrap();
                heard += news.updates.len();
                image.follow(&news.updates, news.version).unwrap();
                if is_last {
                    return (image, heard);
                }
            }
        }
    });
    for answer in fixture.race(works).await {
        answer.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let (image, heard) = follower.await.unwrap();
    assert_eq!((image.count(SeatStatus::Available), heard), (0, BUYERS), "each is told once");
    assert_eq!(image.version(), version(fixture, date).await);
}
