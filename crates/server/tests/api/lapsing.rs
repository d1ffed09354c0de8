//! Holds that lapse: shown so at once, by the clock, whether or not a sweep has been by.

use frontrow_testkit::app::{Database, Sale, TestApp, id, sent, settings};
use serde_json::json;
use uuid::Uuid;

use crate::support::{
    asked, becomes, dates_path, pages, past, refused, reservation, sales, seat_status, time,
};

async fn short_holds(database: &Database) -> TestApp {
    let mut settings = settings(database);
    settings.hold_rules.hold_seconds = 1;
    TestApp::start(settings).await
}

pub(crate) async fn a_lapsed_hold_reads_as_lapsed_at_once(database: &Database) {
    let app = short_holds(database).await;
    let sale = app.sale(json!({}), 1, 2).await;
    let buyer = app.active(&sale).await;
    let seats = app.seats(&buyer, &sale).await;
    let held = app.hold(&buyer, &sale, &seats).await;
    assert_eq!(seat_status(&app, &buyer, &sale, seats[0]).await, "RESERVED");
    let all = format!("{}?status=all", sale.seats_path());
    let known = asked(buyer.own(app.get(&all)), 200).await.header("ETag").unwrap().to_owned();
    past(time(&reservation(&app, &buyer, held).await, "holdExpiresAt")).await;

    assert_eq!(reservation(&app, &buyer, held).await["status"], "EXPIRED");
    assert_eq!(app.seats(&buyer, &sale).await, seats);
    let now = asked(buyer.own(app.get(&all)).header("If-None-Match", known), 200).await.json();
    assert!(now["seats"].as_array().unwrap().iter().all(|seat| seat["status"] == "AVAILABLE"));
    let dates = sent(buyer.own(app.get(&dates_path(&sale))), 200).await;
    assert_eq!(dates["performanceDates"][0]["availableSeats"], 2);
    let own = pages(|query| buyer.own(app.get(&format!("/reservations?limit=1{query}")))).await;
    assert_eq!(own[0]["status"], "EXPIRED");
    becomes("the sales", [2, 0, 0, 0], async || sales(&app, sale.date_id).await).await;
    app.stop().await;
}

pub(crate) async fn a_lapsed_hold_gives_way_at_once(database: &Database) {
    let app = short_holds(database).await;
    let sale = app.sale(json!({}), 1, 4).await;
    let (first, second) = (app.active(&sale).await, app.active(&sale).await);
    let seats = app.seats(&first, &sale).await;
    let held = app.hold(&first, &sale, &seats).await;
    refused(app.reserve(&second, &sale, &seats[..2]), 409, "SEAT_NOT_AVAILABLE").await;
    past(time(&reservation(&app, &first, held).await, "holdExpiresAt")).await;
    let taken = app.hold(&second, &sale, &seats[..2]).await;
    // A user's own lapsed seats no longer count, either.
    app.hold(&first, &sale, &seats[2..]).await;
    assert_eq!(reservation(&app, &first, held).await["status"], "EXPIRED");
    app.charge(&second, 200).await;
    sent(app.pay(&second, taken), 200).await;
    assert_eq!(reservation(&app, &second, taken).await["status"], "DONE");
    app.stop().await;
}

pub(crate) async fn a_lapsed_hold_cannot_be_given_back(database: &Database) {
    let app = short_holds(database).await;
    let sale = app.sale(json!({}), 1, 1).await;
    let buyer = app.active(&sale).await;
    let seats = app.seats(&buyer, &sale).await;
    let held = app.hold(&buyer, &sale, &seats).await;
    past(time(&reservation(&app, &buyer, held).await, "holdExpiresAt")).await;
    for _ in 0..2 {
        refused(buyer.own(app.delete(&format!("/reservations/{held}"))), 409, "RESERVATION_EXPIRED").await;
    }
    assert_eq!(reservation(&app, &buyer, held).await["status"], "EXPIRED");
    app.hold(&buyer, &sale, &seats).await;
    app.stop().await;
}

pub(crate) async fn a_cancelled_hold_does_not_lapse(database: &Database) {
    let app = short_holds(database).await;
    let sale = app.sale(json!({}), 1, 1).await;
    let buyer = app.active(&sale).await;
    let seats = app.seats(&buyer, &sale).await;
    let held = app.hold(&buyer, &sale, &seats).await;
    let deadline = time(&reservation(&app, &buyer, held).await, "holdExpiresAt");
    asked(buyer.own(app.delete(&format!("/reservations/{held}"))), 204).await;
    past(deadline).await;
    assert_eq!(reservation(&app, &buyer, held).await["status"], "CANCELLED");
    asked(buyer.own(app.delete(&format!("/reservations/{held}"))), 204).await;
    app.stop().await;
}

pub(crate) async fn what_is_paid_does_not_lapse(database: &Database) {
    let app = short_holds(database).await;
    let sale = app.sale(json!({}), 1, 1).await;
    let (buyer, onlooker) = (app.active(&sale).await, app.active(&sale).await);
    let seats = app.seats(&buyer, &sale).await;
    app.charge(&buyer, 100).await;
    let made = sent(app.reserve(&buyer, &sale, &seats), 201).await;
    let held = id(&made, "reservationId");
    sent(app.pay(&buyer, held), 200).await;
    // Long enough for several sweeps.
    past(time(&made, "holdExpiresAt").plus_seconds(3)).await;
    assert_eq!(reservation(&app, &buyer, held).await["status"], "DONE");
    assert_eq!(seat_status(&app, &onlooker, &sale, seats[0]).await, "UNAVAILABLE");
    assert_eq!(sales(&app, sale.date_id).await, [0, 0, 1, 100]);
    app.stop().await;
}

pub(crate) async fn the_limits_of_holds_are_configured(database: &Database) {
    let mut settings = settings(database);
    settings.hold_rules.hold_seconds = 60;
    settings.hold_rules.max_seats_per_user = 2;
    let app = TestApp::start(settings).await;
    let sale: Sale = app.sale(json!({}), 1, 4).await;
    let buyer = app.active(&sale).await;
    let seats: Vec<Uuid> = app.seats(&buyer, &sale).await;
    refused(app.reserve(&buyer, &sale, &seats[..3]), 422, "INVALID_REQUEST").await;
    let made = sent(app.reserve(&buyer, &sale, &seats[..2]), 201).await;
    crate::support::is_about(time(&made, "holdExpiresAt"), 60);
    refused(app.reserve(&buyer, &sale, &seats[2..3]), 409, "SEAT_LIMIT_EXCEEDED").await;
    app.stop().await;
}
