//! What has changed of the seats of a date.

use std::collections::BTreeMap;

use frontrow_testkit::app::{Buyer, Database, Sale, TestApp, id, sent, settings};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{becomes, past, reservation, seat_statuses, time};

/// A client that keeps a map by what has changed.
pub(crate) struct Follower<'a> {
    buyer: &'a Buyer,
    sale: &'a Sale,
    version: i64,
    seats: BTreeMap<Uuid, String>,
}

impl<'a> Follower<'a> {
    pub(crate) fn new(buyer: &'a Buyer, sale: &'a Sale) -> Self {
        Self { buyer, sale, version: 0, seats: BTreeMap::new() }
    }

    /// Asks what has changed; whether that was all.
    pub(crate) async fn ask(&mut self, app: &TestApp) -> bool {
        let path = format!("{}?since={}", self.sale.seats_path(), self.version);
        let body: Value = sent(self.buyer.own(app.get(&path)), 200).await;
        self.version = body["version"].as_i64().unwrap();
        let is_full = body["full"].as_bool().unwrap();
        if is_full {
            self.seats.clear();
        }
        for seat in body["seats"].as_array().unwrap() {
            self.seats.insert(id(seat, "seatId"), seat["status"].as_str().unwrap().to_owned());
        }
        is_full
    }

    /// Checks that the client knows what somebody sees who asks for all.
    async fn assert_knows_all(&self, app: &TestApp) {
        let all = seat_statuses(app, self.buyer, self.sale).await;
        assert_eq!(self.seats, all.into_iter().collect());
    }
}

pub(crate) async fn what_has_changed_makes_the_whole(database: &Database) {
    let mut settings = settings(database);
    settings.hold_rules.hold_seconds = 2;
    let app = TestApp::start(settings).await;
    let sale = app.sale(json!({}), 2, 40).await;
    let onlooker = app.active(&sale).await;
    let mut follower = Follower::new(&onlooker, &sale);
    assert!(follower.ask(&app).await, "since 0 is all");
    follower.assert_knows_all(&app).await;
    let seats = app.seats(&onlooker, &sale).await;

    let (payer, leaver, idler) = (app.active(&sale).await, app.active(&sale).await, app.active(&sale).await);
    app.charge(&payer, 1_000).await;
    let paid = app.hold(&payer, &sale, &seats[..3]).await;
    assert!(!follower.ask(&app).await);
    follower.assert_knows_all(&app).await;
    let left = app.hold(&leaver, &sale, &seats[3..5]).await;
    sent(app.pay(&payer, paid), 200).await;
    follower.ask(&app).await;
    follower.assert_knows_all(&app).await;
    sent(leaver.own(app.delete(&format!("/reservations/{left}"))), 204).await;
    let lapsing = app.hold(&idler, &sale, &seats[5..9]).await;
    follower.ask(&app).await;
    follower.assert_knows_all(&app).await;
    past(time(&reservation(&app, &idler, lapsing).await, "holdExpiresAt")).await;
    follower.ask(&app).await;
    follower.assert_knows_all(&app).await;
    assert_eq!(follower.seats[&seats[5]], "AVAILABLE");
    // The sweep changes what is stored, not what is seen.
    becomes("a version more", true, async || {
        let mut again = Follower { version: follower.version, seats: BTreeMap::new(), ..follower };
        again.ask(&app).await;
        again.version > follower.version
    })
    .await;
    assert!(!follower.ask(&app).await);
    follower.assert_knows_all(&app).await;
    app.stop().await;
}
