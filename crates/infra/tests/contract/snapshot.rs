//! A full read: everything that the ports show of everything the fixture ever named.

use std::collections::BTreeMap;

use frontrow_domain::ports::DateFilter;
use frontrow_domain::{ConcertId, PerformanceDateId, QueueTokenId, ReservationId, RoomId, SeatId, UserId};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::fixture::{Fixture, at, key};

const ALL: u32 = u32::MAX;

/// All that could be read at one time. What was not there yet is left out, so that naming new ids changes nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot(BTreeMap<Uuid, Vec<String>>);

impl Snapshot {
    pub(crate) async fn of(fixture: &Fixture) -> Self {
        let rooms = fixture.storage.admin_queries.list_rooms(None, ALL, at(0)).await.unwrap();
        let concerts = fixture.storage.concert_queries.list_concerts(None, ALL).await.unwrap();
        let log = fixture.storage.admin_queries.list_audit_log(None, ALL).await.unwrap();
        let lists = vec![format!("{rooms:?}"), format!("{concerts:?}"), format!("{log:?}")];
        let mut all = BTreeMap::from([(Uuid::nil(), lists)]);
        let facts = join_all(fixture.all_ids().into_iter().map(|id| facts_of(fixture, id))).await;
        all.extend(facts.into_iter().filter(|(_, facts)| !facts.is_empty()));
        Self(all)
    }

    /// Nothing that can be read has changed since.
    pub(crate) async fn assert_same(&self, fixture: &Fixture) {
        assert_eq!(*self, Self::of(fixture).await);
    }
}

async fn facts_of(fixture: &Fixture, id: Uuid) -> (Uuid, Vec<String>) {
    let storage = &fixture.storage;
    let (user, date, now) = (UserId::new(id), PerformanceDateId::new(id), at(0));
    let facts = [
        format!("{:?}", storage.rooms.find(RoomId::new(id)).await.unwrap()),
        format!("{:?}", storage.queue_tokens.find(QueueTokenId::new(id)).await.unwrap()),
        format!("{:?}", storage.accounts.find(user).await.unwrap()),
        format!("{:?}", storage.reservations.find(ReservationId::new(id)).await.unwrap()),
        format!("{:?}", storage.seats.find_many(vec![SeatId::new(id)]).await.unwrap()),
        format!("{:?}", storage.concerts.find_date(date).await.unwrap()),
        format!("{:?}", storage.idempotency_records.find(user, &key()).await.unwrap()),
        format!("{:?}", line_of(fixture, RoomId::new(id)).await),
        format!("{:?}", dates_of(fixture, ConcertId::new(id)).await),
        format!("{:?}", storage.seat_feeds.load(date).await.unwrap()),
        format!("{:?}", storage.reservation_queries.list_own(user, None, ALL, now).await.unwrap()),
        format!("{:?}", storage.account_queries.list_entries(user, None, ALL).await.unwrap()),
        format!("{:?}", storage.admin_queries.sales(date, now).await.unwrap()),
    ];
    (id, facts.into_iter().filter(|fact| fact != "None" && fact != "[]").collect())
}

async fn line_of(fixture: &Fixture, id: RoomId) -> impl std::fmt::Debug {
    let mut lines = fixture.storage.queue_queries.lines_of(vec![id]).await.unwrap().lines;
    let departures = fixture.storage.queue_queries.departures(vec![(id, 0)], ALL).await.unwrap();
    lines.pop().map(|line| (line, departures))
}

async fn dates_of(fixture: &Fixture, id: ConcertId) -> impl std::fmt::Debug {
    fixture.storage.concert_queries.list_dates(id, DateFilter::All, at(0)).await.unwrap()
}
