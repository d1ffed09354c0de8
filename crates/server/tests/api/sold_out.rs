//! Concerts that are sold out: what the list says, and whom the line still takes.

use frontrow_testkit::app::{Buyer, Sale, TestApp, id, sent};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{add_date, admin_post, asked, becomes, enter, in_seconds, refused, time};

/// What the list says of a concert.
async fn listed(app: &TestApp, concert_id: Uuid) -> Value {
    let page = asked(app.get("/concerts?limit=100"), 200).await.json();
    let mut items = page["items"].as_array().unwrap().iter();
    items.find(|concert| concert["concertId"] == json!(concert_id)).expect("it is listed").clone()
}

/// Holds these seats and pays for them.
async fn buy(app: &TestApp, buyer: &Buyer, sale: &Sale, seats: &[Uuid]) -> Value {
    let reservation_id = app.hold(buyer, sale, seats).await;
    app.charge(buyer, 1_000).await;
    sent(app.pay(buyer, reservation_id), 200).await
}

/// The status of a newcomer who joins the line of a sale.
async fn join(app: &TestApp, sale: &Sale) -> u16 {
    crate::support::ask(enter(app, &app.guest().await, sale)).await.status
}

pub(crate) async fn a_sold_out_concert_takes_no_newcomers(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 2).await;
    let buyer = app.active(&sale).await;
    let waiting = app.waiting(&sale).await;
    let seats = app.seats(&buyer, &sale).await;
    let held = app.hold(&buyer, &sale, &seats).await;
    assert_eq!(join(app, &sale).await, 201, "held is not sold: a hold may end unpaid");
    assert_eq!(listed(app, sale.concert_id).await["soldOut"], false);
    app.charge(&buyer, 1_000).await;
    sent(app.pay(&buyer, held), 200).await;

    becomes("soldOut", json!(true), async || listed(app, sale.concert_id).await["soldOut"].clone()).await;
    let concert = listed(app, sale.concert_id).await;
    assert!(concert.get("fromPrice").is_none() && concert["nextDateAt"].is_string(), "{concert}");
    let newcomer = app.guest().await;
    let problem = refused(enter(app, &newcomer, &sale), 409, "SOLD_OUT").await;
    assert!(problem.get("retryAfter").is_none());
    // Who paid has no live place any more, and is a newcomer; who waits has one, the same as before.
    refused(enter(app, &buyer, &sale), 409, "SOLD_OUT").await;
    let again = asked(enter(app, &waiting, &sale), 200).await;
    assert_eq!(Some(again.wait_token()), waiting.wait_token);

    // Another date: the line takes newcomers again.
    let section = json!({"section": "A", "grade": "R", "price": 70, "rows": 1, "seatsPerRow": 1});
    let date = json!({"startsAt": in_seconds(200_000), "sections": [section]});
    add_date(app, sale.concert_id, &date).await;
    becomes("joining", 201, async || join(app, &sale).await).await;
    let concert = listed(app, sale.concert_id).await;
    assert_eq!((&concert["soldOut"], &concert["fromPrice"]), (&json!(false), &json!(70)));
}

pub(crate) async fn the_global_room_takes_people_for_sold_out_concerts(app: &TestApp) {
    let sale = app.sale(Value::Null, 1, 1).await;
    let buyer = app.active(&sale).await;
    let seats = app.seats(&buyer, &sale).await;
    buy(app, &buyer, &sale, &seats).await;
    becomes("soldOut", json!(true), async || listed(app, sale.concert_id).await["soldOut"].clone()).await;
    assert_eq!(join(app, &sale).await, 201);
}

pub(crate) async fn the_list_tells_the_next_date_and_the_lowest_price(app: &TestApp) {
    let made = admin_post(app, "/admin/concerts", &json!({"title": "T", "venue": "V", "room": {}}));
    let made = sent(made, 201).await;
    let (concert_id, room_id) = (id(&made, "concertId"), id(&made, "roomId"));
    let concert = listed(app, concert_id).await;
    assert_eq!(concert["soldOut"], false, "without dates nothing is sold out");
    assert!(concert.get("nextDateAt").is_none() && concert.get("fromPrice").is_none(), "{concert}");

    let sections = json!([
        {"section": "A", "grade": "R", "price": 500, "rows": 1, "seatsPerRow": 2},
        {"section": "B", "grade": "S", "price": 300, "rows": 1, "seatsPerRow": 1},
    ]);
    let starts_at = in_seconds(90_000);
    let date = json!({"startsAt": starts_at, "sections": sections});
    let date_id = add_date(app, concert_id, &date).await;
    let earlier = json!({"startsAt": in_seconds(80_000), "sections": [sections[0]]});
    add_date(app, concert_id, &earlier).await;
    let sale = Sale { concert_id, room_id, date_id };
    becomes("fromPrice", json!(300), async || listed(app, concert_id).await["fromPrice"].clone()).await;
    let next = listed(app, concert_id).await;
    assert_eq!(next["nextDateAt"], earlier["startsAt"]);
    crate::support::is_about(time(&next, "nextDateAt"), 80_000);

    let buyer = app.active(&sale).await;
    let body = sent(buyer.own(app.get(&sale.seats_path())), 200).await;
    let cheap = body["seats"].as_array().unwrap().iter().find(|seat| seat["price"] == 300).unwrap();
    buy(app, &buyer, &sale, &[id(cheap, "seatId")]).await;
    becomes("fromPrice", json!(500), async || listed(app, concert_id).await["fromPrice"].clone()).await;
}
