//! The order of checks: of several faults in one request, the earlier check speaks.

use frontrow_testkit::app::{Buyer, Sale, TestApp};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{NOBODY, TOO_LARGE, admin, ask, asked, refused, sale_on};

fn raw(request: RequestBuilder, body: impl Into<String>) -> RequestBuilder {
    request.header("Content-Type", "application/json").body(body.into())
}

fn hold(date: Uuid, seats: &[Uuid]) -> String {
    json!({"performanceDateId": date, "seatIds": seats}).to_string()
}

pub(crate) async fn of_a_hold(app: &TestApp) {
    let (sale, elsewhere) = (app.sale(json!({}), 1, 9).await, app.sale(json!({}), 1, 1).await);
    let not_on_sale: Sale = sale_on(app, &sale, 9_000, Some(3_600), 1).await;
    let other_date = sale_on(app, &sale, 9_000, None, 1).await;
    let elsewhere_closed = sale_on(app, &elsewhere, 9_000, Some(3_600), 1).await;
    let unknown: Uuid = NOBODY.parse().unwrap();
    let (buyer, other, waiting) =
        (app.active(&sale).await, app.active(&sale).await, app.waiting(&sale).await);
    let seats = app.seats(&buyer, &sale).await;
    let of_other_date = app.seats(&buyer, &other_date).await[0];
    app.hold(&buyer, &sale, &seats[..3]).await;
    app.hold(&other, &sale, &seats[3..6]).await;

    let post = |buyer: &Buyer, body: String| raw(buyer.own(app.request(Method::POST, "/reservations")), body);
    let no_token = Buyer { wait_token: None, ..buyer.clone() };
    let huge = "x".repeat(TOO_LARGE);
    let five = &seats[..5];

    // Who is calling, before everything.
    let nobody = raw(app.request(Method::POST, "/reservations"), "{");
    refused(nobody, 401, "UNAUTHENTICATED").await;
    // The size, before the Wait-Token and the body.
    ask(post(&no_token, huge)).await.any_problem(413);
    // The Wait-Token itself, before the body and what it names.
    for (buyer, code) in [(&no_token, "WAIT_TOKEN_MISSING"), (&waiting, "WAIT_TOKEN_NOT_ACTIVE")] {
        for body in ["{".to_owned(), hold(unknown, &[]), hold(unknown, five), hold(sale.date_id, &seats[..1])]
        {
            ask(post(buyer, body)).await.sent_to_the_queue(code);
        }
    }
    for (what, date, seat_ids, status, code) in [
        ("invalid before unknown", unknown, [].as_slice(), 422, "INVALID_REQUEST"),
        ("too many before unknown", unknown, five, 422, "INVALID_REQUEST"),
        ("too many before another room", elsewhere.date_id, five, 422, "INVALID_REQUEST"),
        ("too many before not on sale", not_on_sale.date_id, five, 422, "INVALID_REQUEST"),
        ("date before seat", unknown, &[unknown], 404, "PERFORMANCE_DATE_NOT_FOUND"),
        ("not on sale before unknown seat", not_on_sale.date_id, &[unknown], 409, "NOT_ON_SALE"),
        ("not on sale before another date's", not_on_sale.date_id, &[of_other_date], 409, "NOT_ON_SALE"),
        ("unknown before another date's", sale.date_id, &[of_other_date, unknown], 404, "SEAT_NOT_FOUND"),
        ("unknown before limit", sale.date_id, &[unknown, seats[6]], 404, "SEAT_NOT_FOUND"),
        ("unknown before taken", sale.date_id, &[seats[3], unknown], 404, "SEAT_NOT_FOUND"),
        ("another date's before limit", sale.date_id, &[of_other_date, seats[6]], 422, "INVALID_REQUEST"),
        ("another date's before taken", sale.date_id, &[seats[3], of_other_date], 422, "INVALID_REQUEST"),
        ("limit before taken", sale.date_id, &[seats[3], seats[4]], 409, "SEAT_LIMIT_EXCEEDED"),
        ("taken", sale.date_id, &[seats[3]], 409, "SEAT_NOT_AVAILABLE"),
    ] {
        let answer = ask(post(&buyer, hold(date, seat_ids))).await;
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{what}");
    }
    refused(post(&buyer, "{".into()), 400, "MALFORMED_REQUEST").await;
    // Another room, before the sale's start and the seats.
    for body in [hold(elsewhere_closed.date_id, &[unknown]), hold(elsewhere.date_id, &[unknown])] {
        ask(post(&buyer, body)).await.sent_to_the_queue("WAIT_TOKEN_INVALID");
    }
}

pub(crate) async fn of_gated_reads(app: &TestApp) {
    let (sale, elsewhere) = (app.sale(json!({}), 1, 1).await, app.sale(json!({}), 1, 1).await);
    let (buyer, waiting) = (app.active(&sale).await, app.waiting(&sale).await);
    let no_token = Buyer { wait_token: None, ..buyer.clone() };
    let dates = |concert: &dyn std::fmt::Display| format!("/concerts/{concert}/performanceDates");
    let unknown_date = format!("{}/{NOBODY}/seats", dates(&sale.concert_id));
    let paths = [
        dates(&"no-uuid"),
        format!("{}?status=some", dates(&sale.concert_id)),
        dates(&NOBODY),
        unknown_date.clone(),
        format!("{}/no-uuid/seats", dates(&sale.concert_id)),
    ];
    for path in &paths {
        refused(app.get(path), 401, "UNAUTHENTICATED").await;
        ask(no_token.own(app.get(path))).await.sent_to_the_queue("WAIT_TOKEN_MISSING");
        ask(waiting.own(app.get(path))).await.sent_to_the_queue("WAIT_TOKEN_NOT_ACTIVE");
    }
    refused(buyer.own(app.get(&paths[0])), 400, "MALFORMED_REQUEST").await;
    refused(buyer.own(app.get(&paths[2])), 404, "CONCERT_NOT_FOUND").await;
    refused(buyer.own(app.get(&format!("{}?status=some", dates(&NOBODY)))), 400, "MALFORMED_REQUEST").await;
    // Unknown, before the token of another room.
    let elsewhere_unknown = format!("{}/{NOBODY}/seats", dates(&elsewhere.concert_id));
    refused(buyer.own(app.get(&elsewhere_unknown)), 404, "PERFORMANCE_DATE_NOT_FOUND").await;
    ask(buyer.own(app.get(&elsewhere.seats_path()))).await.sent_to_the_queue("WAIT_TOKEN_INVALID");
}

pub(crate) async fn of_a_payment(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 2).await;
    let (buyer, other) = (app.active(&sale).await, app.active(&sale).await);
    let seats = app.seats(&buyer, &sale).await;
    let (cancelled, theirs) =
        (app.hold(&buyer, &sale, &seats[..1]).await, app.hold(&other, &sale, &seats[1..]).await);
    asked(buyer.own(app.delete(&format!("/reservations/{cancelled}"))), 204).await;
    let pay = |request: RequestBuilder, user: &dyn std::fmt::Display, reservation: &dyn std::fmt::Display| {
        raw(request, format!("{{\"userId\": \"{user}\", \"reservationId\": \"{reservation}\"}}"))
    };
    let post = || app.request(Method::POST, "/pay");
    let (me, them) = (buyer.user_id, other.user_id);
    refused(pay(post(), &"x", &"x"), 401, "UNAUTHENTICATED").await;
    refused(pay(post(), &them, &theirs), 401, "UNAUTHENTICATED").await;
    ask(raw(buyer.own(post()), "x".repeat(TOO_LARGE))).await.any_problem(413);
    refused(pay(buyer.own(post()), &them, &"x"), 400, "MALFORMED_REQUEST").await;
    refused(pay(buyer.own(post()), &them, &NOBODY), 403, "NOT_YOUR_RESOURCE").await;
    refused(pay(buyer.own(post()), &them, &cancelled), 403, "NOT_YOUR_RESOURCE").await;
    refused(pay(buyer.own(post()), &me, &theirs), 404, "RESERVATION_NOT_FOUND").await;
    refused(pay(buyer.own(post()), &me, &cancelled), 409, "RESERVATION_CANCELLED").await;
}

pub(crate) async fn of_a_charge(app: &TestApp) {
    let (me, other) = (app.guest().await, app.guest().await);
    let post = |user: &dyn std::fmt::Display, body: &str| {
        raw(app.request(Method::POST, &format!("/accounts/{user}/charge")), body)
    };
    for (user, body) in [("no-uuid".to_owned(), "{"), (other.user_id.to_string(), "{\"amount\": 0}")] {
        refused(post(&user, body), 401, "UNAUTHENTICATED").await;
    }
    let huge = "x".repeat(TOO_LARGE);
    ask(me.own(post(&other.user_id, &huge))).await.any_problem(413);
    for body in ["{", "{\"amount\": \"5\"}", "{\"amount\": 1.5}", "{}"] {
        refused(me.own(post(&other.user_id, body)), 400, "MALFORMED_REQUEST").await;
    }
    refused(me.own(post(&"no-uuid", "{\"amount\": 0}")), 400, "MALFORMED_REQUEST").await;
    for amount in ["0", "10000001", "99999999999999999999"] {
        let body = format!("{{\"amount\": {amount}}}");
        refused(me.own(post(&other.user_id, &body)), 403, "NOT_YOUR_RESOURCE").await;
        refused(me.own(post(&me.user_id, &body)), 422, "INVALID_AMOUNT").await;
    }
    // A replay comes before all that is in the body; who is calling and the size come before it.
    let keyed = |request: RequestBuilder| request.header("Idempotency-Key", "key");
    asked(keyed(me.own(post(&me.user_id, "{\"amount\": 5}"))), 200).await;
    refused(keyed(post(&me.user_id, "{\"amount\": 5}")), 401, "UNAUTHENTICATED").await;
    ask(keyed(me.own(post(&me.user_id, &huge)))).await.any_problem(413);
    refused(keyed(me.own(post(&me.user_id, "{\"amount\": 0}"))), 422, "IDEMPOTENCY_KEY_REUSED").await;
    refused(keyed(me.own(post(&other.user_id, "{\"amount\": 5}"))), 422, "IDEMPOTENCY_KEY_REUSED").await;
}

pub(crate) async fn of_operators_calls(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let user = app.guest().await;
    let room = format!("/admin/rooms/{}", sale.room_id);
    let dates = format!("/admin/concerts/{}/performanceDates", sale.concert_id);
    let section =
        |rows: i64| json!({"section": "A", "grade": "R", "price": 1, "rows": rows, "seatsPerRow": 1});
    let date = |rows| json!({"startsAt": "2099-01-01T00:00:00Z", "sections": [section(rows)]}).to_string();
    let cases: Vec<(Method, String, &str, String, Option<String>)> = vec![
        // The method, the path; a body that is malformed, one that is invalid, and a path of nothing.
        (
            Method::POST,
            "/admin/concerts".into(),
            "{\"title\": 5}",
            json!({"title": "T", "venue": "V", "room": {"admitBatch": 0}}).to_string(),
            None,
        ),
        (
            Method::POST,
            dates,
            "{\"startsAt\": 5}",
            date(0),
            Some(format!("/admin/concerts/{NOBODY}/performanceDates")),
        ),
        (
            Method::PATCH,
            room.clone(),
            "{\"admitBatch\": \"x\"}",
            "{\"admitBatch\": 0}".into(),
            Some(format!("/admin/rooms/{NOBODY}")),
        ),
        (
            Method::POST,
            format!("{room}/admit"),
            "{\"count\": \"x\"}",
            "{\"count\": -1}".into(),
            Some(format!("/admin/rooms/{NOBODY}/admit")),
        ),
    ];
    for (method, path, malformed, invalid, unknown) in cases {
        let request = |path: &str, body: &str| raw(app.request(method.clone(), path), body);
        let operator = |path: &str, body: &str| raw(admin(app, method.clone(), path), body);
        refused(request(&path, malformed), 401, "UNAUTHENTICATED").await;
        refused(user.own(request(&path, malformed)), 400, "MALFORMED_REQUEST").await;
        refused(operator(&path, malformed), 400, "MALFORMED_REQUEST").await;
        refused(user.own(request(&path, &invalid)), 403, "FORBIDDEN").await;
        refused(operator(&path, &invalid), 422, "INVALID_REQUEST").await;
        if let Some(unknown) = unknown {
            refused(user.own(request(&unknown, &invalid)), 403, "FORBIDDEN").await;
            refused(operator(&unknown, &invalid), 422, "INVALID_REQUEST").await;
            refused(operator(&unknown, malformed), 400, "MALFORMED_REQUEST").await;
            let no_uuid = unknown.replace(NOBODY, "no-uuid");
            refused(request(&no_uuid, &invalid), 401, "UNAUTHENTICATED").await;
            refused(operator(&no_uuid, &invalid), 400, "MALFORMED_REQUEST").await;
        }
    }
    let nothing: Value = ask(admin(app, Method::GET, "/concerts")).await.json();
    assert_eq!(nothing["items"].as_array().unwrap().len(), 1, "nothing was made");
    let unknown = format!("/admin/concerts/{NOBODY}/performanceDates");
    refused(raw(admin(app, Method::POST, &unknown), date(1)), 404, "CONCERT_NOT_FOUND").await;
    let sales = format!("/admin/performanceDates/{NOBODY}/sales");
    refused(admin(app, Method::GET, &sales), 404, "PERFORMANCE_DATE_NOT_FOUND").await;
    let sales = "/admin/performanceDates/no-uuid/sales";
    refused(admin(app, Method::GET, sales), 400, "MALFORMED_REQUEST").await;
}
