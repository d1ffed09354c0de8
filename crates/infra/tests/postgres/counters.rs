//! What writes keep beside the aggregates: the counters of a line, and the change feed of a date.

use std::sync::Arc;

use frontrow_domain::queue::{RoomMode, RoomPolicy};
use frontrow_domain::unit_of_work::{Command, CommitError};
use frontrow_domain::{PerformanceDateId, RoomId, SeatId};
use frontrow_infra::Storage;
use frontrow_infra::postgres::Postgres;

use crate::fixture::{HOLD, TTL, at};
use crate::{Opened, options};

impl Opened {
    /// `last_ticket`, `waiting`, `admitted_through` and `departures` of a line.
    pub(crate) async fn line(&self, room: RoomId) -> [i64; 4] {
        let mut counters = [0; 4];
        for (counter, name) in
            counters.iter_mut().zip(["last_ticket", "waiting", "admitted_through", "departures"])
        {
            let sql = format!("SELECT {name} FROM lines WHERE room_id = '{room}'");
            *counter = self.database.query_i64(&sql).await.unwrap();
        }
        counters
    }

    pub(crate) async fn departure(&self, ticket: i64) -> i64 {
        let sql = format!("SELECT coalesce(departure, 0) FROM queue_tokens WHERE ticket = {ticket}");
        self.database.query_i64(&sql).await.unwrap()
    }

    /// Version, seats and AVAILABLE seats of a date.
    async fn feed(&self, date: PerformanceDateId) -> [i64; 3] {
        let mut feed = [0; 3];
        for (figure, name) in feed.iter_mut().zip(["version", "total_seats", "available_seats"]) {
            let sql = format!("SELECT {name} FROM seat_feeds WHERE performance_date_id = '{date}'");
            *figure = self.database.query_i64(&sql).await.unwrap();
        }
        feed
    }

    /// How many of these seats a version of the date changed; -1 if it changed others besides.
    async fn changed(&self, date: PerformanceDateId, version: i64, seats: &[SeatId]) -> i64 {
        let of = format!("seat_changes WHERE performance_date_id = '{date}' AND version = {version}");
        let known = seats.iter().map(|seat| format!("uuid_send('{seat}')")).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT coalesce(sum(CASE WHEN substr(seat_ids, n * 16 + 1, 16) IN ({known}) THEN 1 ELSE -99 END), 0) \
             FROM (SELECT * FROM {of}) AS found, generate_series(0, length(seat_ids) / 16 - 1) AS n"
        );
        self.database.query_i64(&sql).await.unwrap().max(-1)
    }

    /// Dates whose counts are not those of their seats.
    async fn miscounted_dates(&self) -> i64 {
        let sql = "SELECT count(*) FROM seat_feeds WHERE (total_seats, available_seats) <> (SELECT count(*), \
                   count(*) FILTER (WHERE status = 'AVAILABLE') FROM seats \
                   WHERE seats.performance_date_id = seat_feeds.performance_date_id)";
        self.database.query_i64(sql).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_the_line_unadmitted_gets_the_next_departure_number() {
    let Some(opened) = Opened::new(options()).await else { return };
    let fixture = opened.fixture();
    let room = fixture.default_room().await;
    let tokens = fixture.crowd(room.id, 5, at(1)).await;
    assert_eq!(opened.line(room.id).await, [5, 5, 0, 0]);
    fixture.leave(tokens[3].id, at(2)).await;
    fixture.leave(tokens[1].id, at(3)).await;
    assert_eq!(opened.line(room.id).await, [5, 3, 0, 2]);
    assert_eq!((opened.departure(4).await, opened.departure(2).await), (1, 2));

    assert_eq!(fixture.admit(room.id, 2, at(4)).await, 2);
    assert_eq!(opened.line(room.id).await, [5, 1, 3, 2]);
    // Admitted ones leave nothing behind.
    fixture.leave(tokens[0].id, at(5)).await;
    fixture.order(Command::ExpireTokens { now: at(i64::from(TTL) + 9), limit: 9 }).await;
    assert_eq!(opened.line(room.id).await, [5, 1, 3, 2]);
    assert_eq!(opened.departure(1).await, 0);
    assert_eq!(fixture.admit(room.id, 9, at(6)).await, 1);
    assert_eq!(fixture.admit(room.id, 9, at(6)).await, 0);
    assert_eq!(opened.line(room.id).await, [5, 0, 5, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_let_straight_through_is_the_last_admitted() {
    let Some(opened) = Opened::new(options()).await else { return };
    let fixture = opened.fixture();
    let open = RoomPolicy { mode: RoomMode::Open, max_active: Some(2), ..RoomPolicy::default() };
    let room = fixture.new_room(open).await;
    fixture.crowd(room.id, 3, at(1)).await;
    assert_eq!(opened.line(room.id).await, [3, 1, 2, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_seat_is_in_the_feed_of_its_date() {
    let Some(opened) = Opened::new(options()).await else { return };
    let fixture = opened.fixture();
    let sale = fixture.sale(4).await;
    let (date, seats) = (sale.date.id, sale.seat_ids());
    assert_eq!(opened.feed(date).await, [2, 4, 4]);
    assert_eq!(opened.changed(date, 2, &seats).await, 4);
    let held = fixture.hold(&sale, &seats[..2], at(1)).await;
    assert_eq!(opened.feed(date).await, [3, 4, 2]);
    assert_eq!(opened.changed(date, 3, &seats[..2]).await, 2);
    fixture.charge(held.value.user_id, 10_000, at(1)).await;
    fixture.pay(held.value.id, at(2)).await;
    assert_eq!(opened.feed(date).await, [4, 4, 2]);
    fixture.hold(&sale, &seats[2..], at(3)).await;
    let swept = at(3 + HOLD);
    assert_eq!(opened.feed(date).await, [5, 4, 0]);
    fixture.order(Command::ExpireHolds { now: swept, limit: 9 }).await;
    assert_eq!(opened.feed(date).await, [6, 4, 2]);
    assert_eq!(opened.changed(date, 6, &seats[2..]).await, 2);
    fixture.order(Command::ExpireHolds { now: swept, limit: 9 }).await;
    assert_eq!(opened.feed(date).await, [6, 4, 2], "nothing was swept");
    assert_eq!(opened.miscounted_dates().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_opens_with_the_seats_that_come_with_it_and_forgets_old_changes() {
    let Some(opened) = Opened::new(options()).await else { return };
    let fixture = opened.fixture();
    let sale = fixture.sale(1).await;
    let date = sale.date.id;
    let older = format!("UPDATE seat_feeds SET version = 4097 WHERE performance_date_id = '{date}'");
    opened.database.execute(&older).await.unwrap();
    fixture.hold(&sale, &sale.seat_ids(), at(1)).await;
    assert_eq!(opened.feed(date).await, [4098, 1, 0]);
    let kept = "SELECT count(*) FROM seat_changes";
    assert_eq!(opened.database.query_i64(kept).await.unwrap(), 1, "that of version 2 is forgotten");
}

const BUYERS: usize = 24;

/// Buyers on two nodes hold seats of two dates, and holds are swept: each change is one version of each date.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_feed_has_no_gap_however_many_write() {
    let Some(opened) = Opened::new(options()).await else { return };
    let first = opened.fixture();
    let sale = first.sale(24).await;
    let other = first.another_date(sale.room, sale.concert.clone(), 24).await;
    let sales = Arc::new([sale, other]);
    let first = Arc::new(first);
    let second = Postgres::connect(opened.database.url(), options()).await.unwrap();
    let second = Storage::new(Arc::new(second));
    let mut loaded = Vec::new();
    for buyer in 0..BUYERS {
        let wanted = sales[buyer % 2].seat_ids();
        loaded.push(first.seats(&wanted[buyer / 2..buyer / 2 + 2]).await);
    }
    let mut buyers = Vec::new();
    for (buyer, seats) in loaded.into_iter().enumerate() {
        let (first, second, sales) = (first.clone(), second.clone(), sales.clone());
        buyers.push(tokio::spawn(async move {
            let sale = &sales[buyer % 2];
            let token = first.admitted(sale.room.id, at(1)).await;
            let (_, work) = first.hold_work(token, seats, at(1));
            let node = if buyer % 4 < 2 { &first.storage } else { &second };
            match node.committer.commit(work).await {
                Ok(_) => true,
                Err(CommitError::Conflict(_)) => false,
                Err(error) => panic!("{error:?}"),
            }
        }));
    }
    let mut held = 0;
    for buyer in buyers {
        held += i64::from(buyer.await.unwrap());
    }
    assert!(held > 1);
    first.order(Command::ExpireHolds { now: at(1 + HOLD), limit: 3 }).await;
    assert_eq!(opened.miscounted_dates().await, 0);
    let gaps = "SELECT count(*) FROM seat_feeds WHERE version - 1 <> (SELECT count(*) FROM seat_changes \
                WHERE seat_changes.performance_date_id = seat_feeds.performance_date_id)";
    assert_eq!(opened.database.query_i64(gaps).await.unwrap(), 0);
}
