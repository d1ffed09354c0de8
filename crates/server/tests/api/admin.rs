//! What operators make and see.

use frontrow_testkit::app::{TestApp, id, sent};
use reqwest::Method;
use serde_json::json;

use crate::support::{admin, admin_post, asked, in_seconds, refused, room, sales};

pub(crate) async fn a_concert_with_a_room_gets_one_of_its_own(app: &TestApp) {
    let make = async |body| sent(admin_post(app, "/admin/concerts", &body), 201).await;
    let plain = make(json!({"title": "A", "venue": "V"})).await;
    let again = make(json!({"title": "A", "venue": "V", "unknown": 1})).await;
    let own = make(json!({"title": "B", "venue": "V", "room": {"admitBatch": 3, "mode": "HOLD"}})).await;
    let other = make(json!({"title": "C", "venue": "V", "room": {}})).await;
    assert_eq!(plain["roomId"], again["roomId"], "the global room");
    assert_ne!(plain["concertId"], again["concertId"]);
    let rooms = [&plain, &own, &other].map(|concert| concert["roomId"].to_string());
    assert!(rooms[0] != rooms[1] && rooms[1] != rooms[2] && rooms[0] != rooms[2]);
    let policy = room(app, id(&own, "roomId")).await;
    assert_eq!((&policy["admitBatch"], &policy["mode"]), (&json!(3), &json!("HOLD")));
    assert_eq!(policy["admitIntervalSeconds"], 600, "the default");
}

pub(crate) async fn bad_concerts_and_dates_are_not_made(app: &TestApp) {
    for body in [
        json!({}),
        json!({"title": "T"}),
        json!({"venue": "V"}),
        json!({"title": 5, "venue": "V"}),
        json!({"title": "T", "venue": null}),
        json!({"title": "T", "venue": "V", "room": 5}),
        json!([]),
    ] {
        refused(admin_post(app, "/admin/concerts", &body), 400, "MALFORMED_REQUEST").await;
    }
    assert_eq!(asked(app.get("/concerts"), 200).await.json(), json!({"items": []}));

    let sale = app.sale(json!({}), 1, 1).await;
    let path = format!("/admin/concerts/{}/performanceDates", sale.concert_id);
    let starts_at = in_seconds(9_000);
    let fine = json!({"section": "A", "grade": "R", "price": 1, "rows": 1, "seatsPerRow": 1});
    let section = |field: &str, value: serde_json::Value| {
        let mut section = fine.clone();
        section[field] = value;
        json!({"startsAt": starts_at, "sections": [section]})
    };
    for (body, status, code) in [
        (json!({"sections": [fine]}), 400, "MALFORMED_REQUEST"),
        (json!({"startsAt": starts_at}), 400, "MALFORMED_REQUEST"),
        (json!({"startsAt": 5, "sections": [fine]}), 400, "MALFORMED_REQUEST"),
        (json!({"startsAt": starts_at, "sections": fine}), 400, "MALFORMED_REQUEST"),
        (section("rows", json!("1")), 400, "MALFORMED_REQUEST"),
        (section("rows", json!(1.5)), 400, "MALFORMED_REQUEST"),
        (section("price", json!("1")), 400, "MALFORMED_REQUEST"),
        (section("price", json!(0.5)), 400, "MALFORMED_REQUEST"),
        (section("section", json!(1)), 400, "MALFORMED_REQUEST"),
        (section("rows", json!(0)), 422, "INVALID_REQUEST"),
        (section("rows", json!(-1)), 422, "INVALID_REQUEST"),
        (section("seatsPerRow", json!(0)), 422, "INVALID_REQUEST"),
        (section("price", json!(-1)), 422, "INVALID_REQUEST"),
    ] {
        refused(admin_post(app, &path, &body), status, code).await;
    }
    let buyer = app.active(&sale).await;
    let dates = format!("/concerts/{}/performanceDates?status=all", sale.concert_id);
    let dates = sent(buyer.own(app.get(&dates)), 200).await;
    assert_eq!(dates["performanceDates"].as_array().unwrap().len(), 1);
}

pub(crate) async fn deceptive_texts_are_refused(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let dates = format!("/admin/concerts/{}/performanceDates", sale.concert_id);
    let date = |section: &str, grade: &str| {
        let section = json!({"section": section, "grade": grade, "price": 1, "rows": 1, "seatsPerRow": 1});
        json!({"startsAt": in_seconds(9_000), "sections": [section]})
    };
    for (text, about) in [
        ("\u{3164}", "visible"),
        ("\u{200B}\u{FE0F} \u{E0041}", "visible"),
        ("Hall \u{202E}A", "bidirectional"),
        ("\u{2067}Hall\u{2069}", "bidirectional"),
        ("Hall\u{2028}A", "line breaks"),
        ("\u{0}", "control"),
        (" ", "characters"),
    ] {
        for (path, body, field) in [
            ("/admin/concerts", json!({"title": text, "venue": "V"}), "title"),
            ("/admin/concerts", json!({"title": "T", "venue": text}), "venue"),
            (&dates, date(text, "R"), "section"),
            (&dates, date("A", text), "grade"),
        ] {
            let problem = refused(admin_post(app, path, &body), 422, "INVALID_REQUEST").await;
            assert_eq!(problem["field"], field, "{problem}");
            assert!(problem["detail"].as_str().unwrap().contains(about), "{problem}");
        }
    }
    // Sections that differ by their form alone are one.
    let mut twice = date("Caf\u{e9}", "R");
    let mut other = twice["sections"][0].clone();
    other["section"] = json!("Cafe\u{301}");
    twice["sections"].as_array_mut().unwrap().push(other);
    let problem = refused(admin_post(app, &dates, &twice), 422, "INVALID_REQUEST").await;
    assert_eq!(problem["field"], "sections");
}

pub(crate) async fn texts_are_stored_in_nfc(app: &TestApp) {
    let title = "Cafe\u{301} \u{1100}\u{1161} \u{1F468}\u{200D}\u{1F469}";
    let made = admin_post(app, "/admin/concerts", &json!({"title": title, "venue": "می\u{200C}خواهم"}));
    sent(made, 201).await;
    let listed = asked(app.get("/concerts"), 200).await.json();
    assert_eq!(listed["items"][0]["title"], "Caf\u{e9} 가 \u{1F468}\u{200D}\u{1F469}");
    assert_eq!(listed["items"][0]["venue"], "می\u{200C}خواهم");
    let log = sent(admin(app, Method::GET, "/admin/audit-log"), 200).await;
    assert_eq!(log["items"][0]["after"]["title"], listed["items"][0]["title"]);
}

pub(crate) async fn sales_follow_every_step(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 4).await;
    let buyer = app.active(&sale).await;
    let seats = app.seats(&buyer, &sale).await;
    app.charge(&buyer, 1_000).await;
    assert_eq!(sales(app, sale.date_id).await, [4, 0, 0, 0]);
    let (first, second) =
        (app.hold(&buyer, &sale, &seats[..3]).await, app.hold(&buyer, &sale, &seats[3..]).await);
    assert_eq!(sales(app, sale.date_id).await, [0, 4, 0, 0]);
    sent(app.pay(&buyer, first), 200).await;
    assert_eq!(sales(app, sale.date_id).await, [0, 1, 3, 300]);
    asked(buyer.own(app.delete(&format!("/reservations/{second}"))), 204).await;
    assert_eq!(sales(app, sale.date_id).await, [1, 0, 3, 300]);
    let path = format!("/admin/performanceDates/{}/sales", sale.date_id);
    refused(buyer.own(app.request(Method::GET, &path)), 403, "FORBIDDEN").await;
    asked(admin(app, Method::GET, &path), 200).await;
}
