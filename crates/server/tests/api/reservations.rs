//! Holding seats: all or none, within limits, and giving them back.

use frontrow_testkit::app::{Buyer, Sale, TestApp, id, sent};
use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    NOBODY, add_date, ask, asked, enter, in_seconds, is_about, pages, past, place, refused, reservation,
    sale_on, sales, seat_status, seat_statuses, time,
};

fn unknown() -> Uuid {
    NOBODY.parse().unwrap()
}

pub(crate) async fn a_hold_says_what_is_held(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let buyer = app.active(&sale).await;
    let sections = json!([
        {"section": "A", "grade": "R", "price": 700, "rows": 1, "seatsPerRow": 2},
        {"section": "B", "grade": "S", "price": 30, "rows": 1, "seatsPerRow": 1},
    ]);
    let date = json!({"startsAt": in_seconds(9_000), "sections": sections});
    let sale = Sale { date_id: add_date(app, sale.concert_id, &date).await, ..sale };
    let listed = sent(buyer.own(app.get(&sale.seats_path())), 200).await;
    let listed = listed["seats"].as_array().unwrap();
    let seat_ids: Vec<Uuid> = [2, 0].map(|at: usize| id(&listed[at], "seatId")).to_vec();

    let made = asked(app.reserve(&buyer, &sale, &seat_ids), 201).await.json();
    assert_eq!(id(&made, "reservationId").get_version_num(), 7);
    assert_eq!(made["userId"], json!(buyer.user_id));
    assert_eq!(made["performanceDateId"], json!(sale.date_id));
    assert_eq!((&made["totalAmount"], &made["status"]), (&json!(730), &json!("RESERVED")));
    is_about(time(&made, "holdExpiresAt"), 300);
    let mut seats = made["seats"].as_array().unwrap().clone();
    assert_eq!(seats.len(), 2);
    seats.sort_by_key(|seat| seat["section"].to_string());
    for (seat, at) in seats.iter().zip([0, 2]) {
        for field in ["seatId", "section", "row", "number", "grade", "price"] {
            assert_eq!(seat[field], listed[at][field], "{field}");
        }
    }
    let seen = reservation(app, &buyer, id(&made, "reservationId")).await;
    for field in ["reservationId", "userId", "performanceDateId", "totalAmount", "status", "holdExpiresAt"] {
        assert_eq!(seen[field], made[field], "{field}");
    }
    let mut same_seats = seen["seats"].as_array().unwrap().clone();
    same_seats.sort_by_key(|seat| seat["section"].to_string());
    assert_eq!(same_seats, seats);
    let own = pages(|query| buyer.own(app.get(&format!("/reservations?limit=1{query}")))).await;
    assert_eq!(own, [seen]);
    assert_eq!(sales(app, sale.date_id).await, [1, 2, 0, 0]);
}

pub(crate) async fn all_seats_or_none(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 4).await;
    let (first, second) = (app.active(&sale).await, app.active(&sale).await);
    let seats = app.seats(&first, &sale).await;
    app.hold(&first, &sale, &seats[1..3]).await;
    let problem = refused(app.reserve(&second, &sale, &seats), 409, "SEAT_NOT_AVAILABLE").await;
    let mut lost: Vec<String> = serde_json::from_value(problem["seatIds"].clone()).unwrap();
    lost.sort();
    let mut expected = vec![seats[1].to_string(), seats[2].to_string()];
    expected.sort();
    assert_eq!(lost, expected, "the ones that were lost, and only those");
    assert_eq!(sales(app, sale.date_id).await, [2, 2, 0, 0]);
    assert_eq!(sent(second.own(app.get("/reservations")), 200).await, json!({"items": []}));
    app.hold(&second, &sale, &[seats[0], seats[3]]).await;
}

pub(crate) async fn a_seat_goes_to_one_of_many(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let buyers = join_all((0..8).map(|_| app.waiting(&sale))).await;
    app.admit(sale.room_id, 100).await;
    let seats = app.seats(&buyers[0], &sale).await;
    let answers = join_all(buyers.iter().map(|buyer| ask(app.reserve(buyer, &sale, &seats)))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        let problem = answer.problem(409, "SEAT_NOT_AVAILABLE");
        assert_eq!(problem["seatIds"], json!(seats));
    }
    assert_eq!(sales(app, sale.date_id).await, [0, 1, 0, 0]);
}

pub(crate) async fn an_own_hold_is_a_taken_seat_and_keeps_its_deadline(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let buyer = app.active(&sale).await;
    let seats = app.seats(&buyer, &sale).await;
    let held = app.hold(&buyer, &sale, &seats).await;
    let deadline = reservation(app, &buyer, held).await["holdExpiresAt"].clone();
    refused(app.reserve(&buyer, &sale, &seats), 409, "SEAT_NOT_AVAILABLE").await;
    assert_eq!(reservation(app, &buyer, held).await["holdExpiresAt"], deadline);
}

pub(crate) async fn impossible_holds_are_refused(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 6).await;
    let other = sale_on(app, &sale, 9_000, None, 1).await;
    let buyer = app.active(&sale).await;
    let (seats, elsewhere) = (app.seats(&buyer, &sale).await, app.seats(&buyer, &other).await);
    let nowhere = Sale { date_id: unknown(), ..sale };
    for (sale, seat_ids, status, code) in [
        (&sale, vec![], 422, "INVALID_REQUEST"),
        (&sale, vec![seats[0], seats[0]], 422, "INVALID_REQUEST"),
        (&sale, vec![seats[0], seats[1], seats[0]], 422, "INVALID_REQUEST"),
        (&sale, seats[..5].to_vec(), 422, "INVALID_REQUEST"),
        (&sale, elsewhere.clone(), 422, "INVALID_REQUEST"),
        (&sale, vec![seats[0], elsewhere[0]], 422, "INVALID_REQUEST"),
        (&sale, vec![unknown()], 404, "SEAT_NOT_FOUND"),
        (&sale, vec![seats[0], unknown()], 404, "SEAT_NOT_FOUND"),
        (&nowhere, vec![seats[0]], 404, "PERFORMANCE_DATE_NOT_FOUND"),
    ] {
        refused(app.reserve(&buyer, sale, &seat_ids), status, code).await;
    }
    assert_eq!(sales(app, sale.date_id).await, [6, 0, 0, 0]);
    assert_eq!(sales(app, other.date_id).await, [1, 0, 0, 0]);
    assert_eq!(sent(buyer.own(app.get("/reservations")), 200).await, json!({"items": []}));
    app.hold(&buyer, &sale, &seats[..4]).await;
}

pub(crate) async fn malformed_holds_are_refused(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let buyer = app.active(&sale).await;
    let (date, seat) = (sale.date_id, app.seats(&buyer, &sale).await[0]);
    for body in [
        String::new(),
        "{".into(),
        "null".into(),
        "[]".into(),
        "{}".into(),
        json!({"performanceDateId": date}).to_string(),
        json!({"seatIds": [seat]}).to_string(),
        json!({"performanceDateId": date, "seatIds": seat}).to_string(),
        json!({"performanceDateId": date, "seatIds": [1]}).to_string(),
        json!({"performanceDateId": date, "seatIds": ["x"]}).to_string(),
        json!({"performanceDateId": date, "seatIds": null}).to_string(),
        json!({"performanceDateId": "x", "seatIds": [seat]}).to_string(),
        json!({"performanceDateId": 1, "seatIds": [seat]}).to_string(),
        format!("{} trailing", json!({"performanceDateId": date, "seatIds": [seat]})),
    ] {
        let request = buyer.own(app.post("/reservations", &Value::Null)).body(body);
        refused(request, 400, "MALFORMED_REQUEST").await;
    }
    let request = buyer.own(app.post("/reservations", &Value::Null));
    let not_utf8 = b"{\"performanceDateId\": \"\xff\xfe\"}".to_vec();
    refused(request.body(not_utf8), 400, "MALFORMED_REQUEST").await;
    // Unknown fields are ignored.
    let body = json!({"performanceDateId": date, "seatIds": [seat], "coupon": "FREE", "totalAmount": 0});
    let made = asked(buyer.own(app.post("/reservations", &body)), 201).await.json();
    assert_eq!(made["totalAmount"], 100);
}

pub(crate) async fn a_users_seats_on_a_date_are_limited(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 9).await;
    let other = sale_on(app, &sale, 9_000, None, 4).await;
    let mut buyer = app.active(&sale).await;
    let seats = app.seats(&buyer, &sale).await;
    app.charge(&buyer, 1_000).await;
    let bought = app.hold(&buyer, &sale, &seats[..2]).await;
    sent(app.pay(&buyer, bought), 200).await;
    let back = asked(enter(app, &buyer, &sale), 201).await;
    buyer.wait_token = Some(back.wait_token());
    app.admit(sale.room_id, 1).await;
    let held = app.hold(&buyer, &sale, &seats[2..3]).await;
    // Two bought and one held: one more is the limit.
    refused(app.reserve(&buyer, &sale, &seats[3..5]), 409, "SEAT_LIMIT_EXCEEDED").await;
    app.hold(&buyer, &sale, &seats[3..4]).await;
    refused(app.reserve(&buyer, &sale, &seats[4..5]), 409, "SEAT_LIMIT_EXCEEDED").await;
    // Another date counts by itself, another user, too.
    let elsewhere = app.seats(&buyer, &other).await;
    app.hold(&buyer, &other, &elsewhere).await;
    let somebody = app.active(&sale).await;
    app.hold(&somebody, &sale, &seats[5..9]).await;
    // What was given back no longer counts.
    asked(buyer.own(app.delete(&format!("/reservations/{held}"))), 204).await;
    app.hold(&buyer, &sale, &seats[4..5]).await;
    assert_eq!(sales(app, sale.date_id).await, [1, 6, 2, 200]);
}

pub(crate) async fn parallel_holds_keep_to_the_limit(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 8).await;
    let buyer = app.active(&sale).await;
    let seats = app.seats(&buyer, &sale).await;
    let answers = join_all(seats.iter().map(|seat| ask(app.reserve(&buyer, &sale, &[*seat])))).await;
    let held = answers.iter().filter(|answer| answer.status == 201).count();
    assert!((1..=4).contains(&held), "{held} held");
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        let code = answer.any_problem(409)["code"].clone();
        assert!(code == "SEAT_LIMIT_EXCEEDED" || code == "CONFLICT", "{code}");
    }
    assert_eq!(sales(app, sale.date_id).await[1], i64::try_from(held).unwrap());
}

pub(crate) async fn a_date_is_held_only_while_on_sale(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let buyer = app.active(&sale).await;
    let later = sale_on(app, &sale, 9_000, Some(3_600), 1).await;
    let soon = sale_on(app, &sale, 9_000, Some(2), 1).await;
    let starting = sale_on(app, &sale, 2, None, 1).await;
    let dates = sent(buyer.own(app.get(&crate::support::dates_path(&sale))), 200).await;
    let date = |wanted: Uuid| {
        let mut dates = dates["performanceDates"].as_array().unwrap().iter();
        dates.find(|date| date["performanceDateId"] == json!(wanted)).unwrap().clone()
    };
    let (on_sale_at, starts_at) =
        (date(soon.date_id)["onSaleAt"].clone(), date(starting.date_id)["startsAt"].clone());
    let parsed = |text: Value| frontrow_domain::Timestamp::parse(text.as_str().unwrap()).unwrap();
    let (on_sale_at, starts_at) = (parsed(on_sale_at), parsed(starts_at));
    for sale in [&later, &soon] {
        let seats = app.seats(&buyer, sale).await;
        refused(app.reserve(&buyer, sale, &seats), 409, "NOT_ON_SALE").await;
    }
    let seats = app.seats(&buyer, &starting).await;
    past(starts_at.max(on_sale_at)).await;
    refused(app.reserve(&buyer, &starting, &seats), 409, "NOT_ON_SALE").await;
    let seats = app.seats(&buyer, &soon).await;
    app.hold(&buyer, &soon, &seats).await;
}

pub(crate) async fn a_hold_can_be_given_back(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 2).await;
    let (buyer, other) = (app.active(&sale).await, app.active(&sale).await);
    let seats = app.seats(&buyer, &sale).await;
    let held = app.hold(&buyer, &sale, &seats).await;
    let path = format!("/reservations/{held}");
    refused(other.own(app.delete(&path)), 404, "RESERVATION_NOT_FOUND").await;
    refused(other.own(app.get(&path)), 404, "RESERVATION_NOT_FOUND").await;
    assert_eq!(reservation(app, &buyer, held).await["status"], "RESERVED");
    for _ in 0..2 {
        assert!(asked(buyer.own(app.delete(&path)), 204).await.body.is_empty());
        assert_eq!(reservation(app, &buyer, held).await["status"], "CANCELLED");
        assert_eq!(sales(app, sale.date_id).await, [2, 0, 0, 0]);
    }
    // At once free for others, and what was cancelled stays so.
    let taken = app.hold(&other, &sale, &seats).await;
    asked(buyer.own(app.delete(&path)), 204).await;
    assert_eq!(reservation(app, &other, taken).await["status"], "RESERVED");
    assert_eq!(sales(app, sale.date_id).await, [0, 2, 0, 0]);
    for unknown in [NOBODY.to_owned(), Uuid::nil().to_string()] {
        let path = format!("/reservations/{unknown}");
        refused(buyer.own(app.delete(&path)), 404, "RESERVATION_NOT_FOUND").await;
        refused(buyer.own(app.get(&path)), 404, "RESERVATION_NOT_FOUND").await;
    }
    refused(buyer.own(app.delete("/reservations/no-uuid")), 400, "MALFORMED_REQUEST").await;
    refused(buyer.own(app.get("/reservations/no-uuid")), 400, "MALFORMED_REQUEST").await;
}

pub(crate) async fn what_is_paid_is_not_given_back(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let (buyer, onlooker) = (app.active(&sale).await, app.active(&sale).await);
    let seats = app.seats(&buyer, &sale).await;
    app.charge(&buyer, 100).await;
    let paid = app.hold(&buyer, &sale, &seats).await;
    sent(app.pay(&buyer, paid), 200).await;
    refused(buyer.own(app.delete(&format!("/reservations/{paid}"))), 409, "ALREADY_PAID").await;
    assert_eq!(reservation(app, &buyer, paid).await["status"], "DONE");
    assert_eq!(seat_status(app, &onlooker, &sale, seats[0]).await, "UNAVAILABLE");
}

pub(crate) async fn own_reservations_come_in_pages(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 9).await;
    let (buyer, other) = (app.active(&sale).await, app.active(&sale).await);
    let seats = app.seats(&buyer, &sale).await;
    app.hold(&other, &sale, &seats[8..]).await;
    let mut made = Vec::new();
    for seat in &seats[..5] {
        let held = app.hold(&buyer, &sale, &[*seat]).await;
        asked(buyer.own(app.delete(&format!("/reservations/{held}"))), 204).await;
        made.push(held);
    }
    made.sort();
    for limit in [1, 2, 5, 100] {
        let own = pages(|query| buyer.own(app.get(&format!("/reservations?limit={limit}{query}")))).await;
        let mut ids: Vec<Uuid> = own.iter().map(|reservation| id(reservation, "reservationId")).collect();
        ids.sort();
        assert_eq!(ids, made, "each once, by {limit}");
        assert!(own.iter().all(|reservation| reservation["status"] == "CANCELLED"));
    }
}

pub(crate) async fn a_hold_outlives_its_token(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let (buyer, onlooker) = (app.active(&sale).await, app.active(&sale).await);
    let seats = app.seats(&buyer, &sale).await;
    app.charge(&buyer, 100).await;
    let held = app.hold(&buyer, &sale, &seats).await;
    asked(buyer.own(app.delete("/queue")), 204).await;
    assert_eq!(place(app, &buyer).await["status"], "EXPIRED");
    assert_eq!(reservation(app, &buyer, held).await["status"], "RESERVED");
    assert_eq!(seat_statuses(app, &onlooker, &sale).await, [(seats[0], "RESERVED".to_owned())]);
    let bare = Buyer { wait_token: None, ..buyer };
    sent(app.pay(&bare, held), 200).await;
}

/// Until then they were in the answer of the payment alone, which is kept for a day.
pub(crate) async fn a_paid_reservation_shows_its_tickets(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 4).await;
    let buyer = app.active(&sale).await;
    let seats = app.seats(&buyer, &sale).await;
    let (paid, held) =
        (app.hold(&buyer, &sale, &seats[..2]).await, app.hold(&buyer, &sale, &seats[2..3]).await);
    for id in [paid, held] {
        let before = reservation(app, &buyer, id).await;
        assert!(before.get("paymentId").is_none() && before.get("tickets").is_none(), "{before}");
    }
    app.charge(&buyer, 1_000).await;
    let receipt = sent(app.pay(&buyer, paid), 200).await;
    let found = reservation(app, &buyer, paid).await;
    assert_eq!((&found["status"], &found["paymentId"]), (&json!("DONE"), &receipt["paymentId"]));
    let by_seat = |tickets: &Value| {
        let mut tickets = tickets.as_array().unwrap().clone();
        tickets.sort_by_key(|ticket| ticket["seatId"].to_string());
        tickets
    };
    assert_eq!(by_seat(&found["tickets"]), by_seat(&receipt["tickets"]));
    assert_eq!(found["tickets"].as_array().unwrap().len(), 2);
    let list = sent(buyer.own(app.get("/reservations")), 200).await;
    let listed = list["items"].as_array().unwrap();
    assert_eq!(listed.iter().find(|item| item["reservationId"] == json!(paid)), Some(&found));
    let unpaid = listed.iter().find(|item| item["reservationId"] == json!(held)).unwrap();
    assert!(unpaid.get("paymentId").is_none() && unpaid.get("tickets").is_none(), "{unpaid}");
    let stranger = app.guest().await;
    refused(stranger.own(app.get(&format!("/reservations/{paid}"))), 404, "RESERVATION_NOT_FOUND").await;
}
