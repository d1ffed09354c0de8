//! Concerts and their dates.

use frontrow_testkit::app::{Buyer, Sale, TestApp, id, sent};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    NOBODY, add_date, admin_post, asked, dates_path, in_seconds, is_about, pages, past, refused, sale_on,
    time,
};

async fn dates(app: &TestApp, buyer: &Buyer, sale: &Sale, query: &str) -> Vec<Value> {
    let body = sent(buyer.own(app.get(&format!("{}{query}", dates_path(sale)))), 200).await;
    assert_eq!(body["concertId"], json!(sale.concert_id));
    body["performanceDates"].as_array().unwrap().clone()
}

async fn ids(app: &TestApp, buyer: &Buyer, sale: &Sale, query: &str) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> =
        dates(app, buyer, sale, query).await.iter().map(|date| id(date, "performanceDateId")).collect();
    ids.sort();
    ids
}

fn sorted(mut ids: Vec<Uuid>) -> Vec<Uuid> {
    ids.sort();
    ids
}

pub(crate) async fn concerts_are_public(app: &TestApp) {
    assert_eq!(asked(app.get("/concerts"), 200).await.json(), json!({"items": []}));
    let made =
        sent(admin_post(app, "/admin/concerts", &json!({"title": "가을 밤", "venue": "Hall \"1\""})), 201)
            .await;
    let listed = asked(app.get("/concerts"), 200).await.json();
    let expected = json!({"concertId": made["concertId"], "title": "가을 밤", "venue": "Hall \"1\"",
        "roomId": made["roomId"], "soldOut": false});
    assert_eq!(listed["items"], json!([expected]));
}

pub(crate) async fn concerts_come_in_pages(app: &TestApp) {
    let mut made = Vec::new();
    for number in 0..5 {
        let concert = json!({"title": format!("{number}"), "venue": "V"});
        made.push(sent(admin_post(app, "/admin/concerts", &concert), 201).await["concertId"].to_string());
    }
    made.sort();
    for limit in [1, 2, 5, 100] {
        let listed = pages(|query| app.get(&format!("/concerts?limit={limit}{query}"))).await;
        let mut ids: Vec<String> = listed.iter().map(|concert| concert["concertId"].to_string()).collect();
        ids.sort();
        assert_eq!(ids, made, "each once, by {limit}");
    }
    let first = asked(app.get("/concerts?limit=2"), 200).await.json();
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    assert!(first["nextCursor"].is_string());
    assert!(asked(app.get("/concerts?limit=5"), 200).await.json().get("nextCursor").is_none());
}

pub(crate) async fn a_page_has_20_unless_told(app: &TestApp) {
    for number in 0..21 {
        let concert = json!({"title": format!("{number}"), "venue": "V"});
        sent(admin_post(app, "/admin/concerts", &concert), 201).await;
    }
    let first = asked(app.get("/concerts"), 200).await.json();
    assert_eq!(first["items"].as_array().unwrap().len(), 20);
    let cursor = first["nextCursor"].as_str().unwrap();
    let rest = asked(app.get(&format!("/concerts?cursor={cursor}")), 200).await.json();
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    assert!(rest.get("nextCursor").is_none());
}

pub(crate) async fn a_bad_page_is_refused(app: &TestApp) {
    let buyer = app.guest().await;
    let account = format!("/accounts/{}/entries", buyer.user_id);
    for query in
        ["limit=0", "limit=101", "limit=-1", "limit=x", "limit=1.5", "limit=", "cursor=%21%21", "cursor=x"]
    {
        refused(app.get(&format!("/concerts?{query}")), 400, "MALFORMED_REQUEST").await;
        refused(buyer.own(app.get(&format!("/reservations?{query}"))), 400, "MALFORMED_REQUEST").await;
        refused(buyer.own(app.get(&format!("{account}?{query}"))), 400, "MALFORMED_REQUEST").await;
        let rooms = crate::support::admin(app, Method::GET, &format!("/admin/rooms?{query}"));
        refused(rooms, 400, "MALFORMED_REQUEST").await;
    }
    for query in ["limit=1", "limit=100"] {
        asked(app.get(&format!("/concerts?{query}")), 200).await;
        asked(buyer.own(app.get(&format!("{account}?{query}"))), 200).await;
    }
}

pub(crate) async fn dates_tell_times_and_seats(app: &TestApp) {
    let sale = app.sale(json!({}), 2, 3).await;
    let buyer = app.active(&sale).await;
    let (starts_at, on_sale_at) = ("2099-01-02T03:04:05Z", "2098-12-31T23:59:59Z");
    let sections = json!([
        {"section": "A", "grade": "R", "price": 1, "rows": 2, "seatsPerRow": 5},
        {"section": "B", "grade": "S", "price": 2, "rows": 1, "seatsPerRow": 7},
    ]);
    let date = json!({"startsAt": starts_at, "onSaleAt": on_sale_at, "sections": sections});
    let later = add_date(app, sale.concert_id, &date).await;
    let listed = dates(app, &buyer, &sale, "").await;
    assert_eq!(listed.len(), 2);
    let by_id = |wanted| listed.iter().find(|date| date["performanceDateId"] == json!(wanted)).unwrap();
    let first = by_id(sale.date_id);
    is_about(time(first, "startsAt"), 86_400);
    assert!(first["onSaleAt"].is_null());
    assert_eq!([&first["totalSeats"], &first["availableSeats"]], [6, 6]);
    let second = by_id(later);
    assert_eq!([&second["startsAt"], &second["onSaleAt"]], [starts_at, on_sale_at]);
    assert_eq!([&second["totalSeats"], &second["availableSeats"]], [17, 17]);
}

pub(crate) async fn dates_are_those_to_come_with_a_seat_left(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 2).await;
    let buyer = app.active(&sale).await;
    let sold_out = sale_on(app, &sale, 86_400, None, 1).await;
    let not_yet = sale_on(app, &sale, 86_400, Some(3_600), 1).await;
    let starting = sale_on(app, &sale, 2, None, 1).await;
    let seats = app.seats(&buyer, &sold_out).await;
    let held = app.hold(&buyer, &sold_out, &seats).await;
    let all = sorted(vec![sale.date_id, sold_out.date_id, not_yet.date_id, starting.date_id]);
    let listed = dates(app, &buyer, &sale, "?status=all").await;
    let starts_at = listed.iter().find(|date| date["performanceDateId"] == json!(starting.date_id)).unwrap();
    past(time(starts_at, "startsAt")).await;

    assert_eq!(ids(app, &buyer, &sale, "").await, sorted(vec![sale.date_id, not_yet.date_id]));
    assert_eq!(ids(app, &buyer, &sale, "?status=all").await, all);
    asked(buyer.own(app.delete(&format!("/reservations/{held}"))), 204).await;
    let expected = sorted(vec![sale.date_id, sold_out.date_id, not_yet.date_id]);
    crate::support::becomes("the seat is back", expected, async || ids(app, &buyer, &sale, "").await).await;
}

pub(crate) async fn dates_count_the_seats_that_are_left(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 5).await;
    let (buyer, onlooker) = (app.active(&sale).await, app.active(&sale).await);
    let seats = app.seats(&buyer, &sale).await;
    app.charge(&buyer, 1_000).await;
    let paid = app.hold(&buyer, &sale, &seats[..2]).await;
    app.hold(&onlooker, &sale, &seats[2..3]).await;
    sent(app.pay(&buyer, paid), 200).await;
    let left = async || {
        let date = dates(app, &onlooker, &sale, "").await[0].clone();
        [date["totalSeats"].as_i64().unwrap(), date["availableSeats"].as_i64().unwrap()]
    };
    crate::support::becomes("held and sold seats do not count", [5, 2], left).await;
}

pub(crate) async fn unknown_concerts_and_dates_are_not_found(app: &TestApp) {
    let (sale, other) = (app.sale(Value::Null, 1, 1).await, app.sale(Value::Null, 1, 1).await);
    let buyer = app.active(&sale).await;
    let get = |path: String| buyer.own(app.get(&path));
    let dates = |concert: &str| format!("/concerts/{concert}/performanceDates");
    let concert = sale.concert_id.to_string();
    refused(get(dates(NOBODY)), 404, "CONCERT_NOT_FOUND").await;
    refused(get(format!("{}/{}/seats", dates(NOBODY), sale.date_id)), 404, "CONCERT_NOT_FOUND").await;
    refused(get(format!("{}/{NOBODY}/seats", dates(&concert))), 404, "PERFORMANCE_DATE_NOT_FOUND").await;
    let of_another = format!("{}/{}/seats", dates(&concert), other.date_id);
    refused(get(of_another), 404, "PERFORMANCE_DATE_NOT_FOUND").await;
    refused(get(dates("no-uuid")), 400, "MALFORMED_REQUEST").await;
    refused(get(format!("{}/no-uuid/seats", dates(&concert))), 400, "MALFORMED_REQUEST").await;
    refused(get(format!("{}?status=some", dates(&concert))), 400, "MALFORMED_REQUEST").await;
    refused(get(format!("{}?status=some", sale.seats_path())), 400, "MALFORMED_REQUEST").await;
}

pub(crate) async fn a_date_is_made_of_sections(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let buyer = app.active(&sale).await;
    let sections = json!([
        {"section": "A", "grade": "VIP", "price": 150_000, "rows": 2, "seatsPerRow": 3},
        {"section": "B", "grade": "S", "price": 9_000, "rows": 1, "seatsPerRow": 2},
    ]);
    let date = json!({"startsAt": in_seconds(9_000), "sections": sections});
    let path = format!("/admin/concerts/{}/performanceDates", sale.concert_id);
    let made = sent(admin_post(app, &path, &date), 201).await;
    assert_eq!(made["totalSeats"], 8);
    let sale = Sale { date_id: id(&made, "performanceDateId"), ..sale };
    let body = sent(buyer.own(app.get(&sale.seats_path())), 200).await;
    let mut places: Vec<String> = body["seats"]
        .as_array()
        .unwrap()
        .iter()
        .map(|seat| {
            let field = |name: &str| seat[name].clone();
            json!([
                field("section"),
                field("row"),
                field("number"),
                field("grade"),
                field("price"),
                field("status")
            ])
            .to_string()
        })
        .collect();
    places.sort();
    let vip = |row: u32, number: u32| json!(["A", row, number, "VIP", 150_000, "AVAILABLE"]).to_string();
    let s = |number: u32| json!(["B", 1, number, "S", 9_000, "AVAILABLE"]).to_string();
    assert_eq!(places, [vip(1, 1), vip(1, 2), vip(1, 3), vip(2, 1), vip(2, 2), vip(2, 3), s(1), s(2)]);
}
