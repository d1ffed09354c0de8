//! The line: entering, looking, leaving, and what the answers say.

use frontrow_testkit::app::{Buyer, TestApp, id, sent};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    NOBODY, ask, asked, becomes, enter, is_about, micros, now, patch_room, place, place_status, refused,
    room, time,
};

/// Absent or null.
fn is_none(value: &Value) -> bool {
    value.is_null()
}

pub(crate) async fn a_newcomer_gets_a_token_and_a_place(app: &TestApp) {
    let buyer = app.guest().await;
    let answer = asked(app.request(Method::POST, "/queue").bearer_auth(&buyer.access_token), 201).await;
    let wait_token = answer.wait_token();
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    let body = answer.json();
    assert_eq!(body["userId"], json!(buyer.user_id));
    assert_eq!(id(&body, "tokenId").get_version_num(), 7);
    assert_eq!(body["status"], "WAIT");
    assert_eq!(body["position"], 1);
    is_about(time(&body, "enteredAt"), 0);
    assert!(is_none(&body["activatedAt"]) && is_none(&body["expiresAt"]), "{body}");
    assert_eq!(body["pollAfterSeconds"].as_u64().unwrap(), answer.retry_after());
    assert!(answer.retry_after() >= 1);
    assert!(!answer.text().contains(&wait_token), "tokens travel in headers only");
    assert!(!answer.text().contains(&buyer.access_token));
    // The global room has the defaults: 10 every 600 s.
    let global = room(app, id(&body, "roomId")).await;
    assert_eq!([&global["admitBatch"], &global["admitIntervalSeconds"]], [10, 600]);

    let buyer = Buyer { wait_token: Some(wait_token), ..buyer };
    let answer = asked(buyer.own(app.get("/queue")), 200).await;
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    let seen = answer.json();
    assert_eq!(seen["pollAfterSeconds"].as_u64().unwrap(), answer.retry_after());
    for field in ["tokenId", "roomId", "userId", "status", "position", "enteredAt"] {
        assert_eq!(seen[field], body[field], "{field}");
    }
}

pub(crate) async fn a_concert_leads_to_its_room(app: &TestApp) {
    let (own, global) = (app.sale(json!({}), 1, 1).await, app.sale(Value::Null, 1, 1).await);
    assert_ne!(own.room_id, global.room_id);
    let buyer = app.guest().await;
    let anywhere = asked(buyer.own(app.post("/queue", &json!({}))), 201).await;
    assert_eq!(id(&anywhere.json(), "roomId"), global.room_id);
    let same = asked(enter(app, &buyer, &global), 200).await;
    assert_eq!(same.wait_token(), anywhere.wait_token(), "one line for all that have none of their own");
    let other = asked(enter(app, &buyer, &own), 201).await;
    assert_eq!(id(&other.json(), "roomId"), own.room_id);
    assert_ne!(other.wait_token(), anywhere.wait_token());
    refused(buyer.own(app.post("/queue", &json!({"concertId": NOBODY}))), 404, "CONCERT_NOT_FOUND").await;
}

pub(crate) async fn entering_again_gives_the_same_token(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let buyer = app.waiting(&sale).await;
    let mut first = place(app, &buyer).await;
    for status in ["WAIT", "ACTIVE"] {
        let again = asked(enter(app, &buyer, &sale), 200).await;
        assert_eq!(Some(again.wait_token()), buyer.wait_token, "{status}");
        let body = again.json();
        assert_eq!(body["status"], status);
        assert_eq!([&body["tokenId"], &body["enteredAt"]], [&first["tokenId"], &first["enteredAt"]]);
        assert_eq!(again.header("Cache-Control"), Some("no-store"));
        assert_eq!(again.header("Retry-After").is_some(), status == "WAIT");
        assert_eq!(app.admit(sale.room_id, 1).await, u64::from(status == "WAIT"));
        first = place(app, &buyer).await;
    }
}

pub(crate) async fn one_user_entering_at_once_gets_one_token(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let buyer = app.guest().await;
    let answers = join_all((0..8).map(|_| ask(enter(app, &buyer, &sale)))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 7);
    assert!(answers.iter().all(|answer| answer.wait_token() == answers[0].wait_token()));
    assert_eq!(room(app, sale.room_id).await["waiting"], 1);
}

pub(crate) async fn positions_count_those_ahead(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let mut buyers = Vec::new();
    for position in 1..=4 {
        let buyer = app.guest().await;
        let answer = asked(enter(app, &buyer, &sale), 201).await;
        assert_eq!(answer.json()["position"], position);
        buyers.push(Buyer { wait_token: Some(answer.wait_token()), ..buyer });
    }
    asked(buyers[1].own(app.delete("/queue")), 204).await;
    let positions = async || {
        let places = join_all(buyers.iter().map(|buyer| place(app, buyer))).await;
        places.iter().map(|place| place["position"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    becomes("one left", vec![1, 0, 2, 3], positions).await;
    app.admit(sale.room_id, 1).await;
    becomes("one admitted", vec![0, 0, 1, 2], positions).await;
}

pub(crate) async fn the_wait_is_estimated_by_the_formula(app: &TestApp) {
    let policy = json!({"admitBatch": 2, "admitIntervalSeconds": 100});
    let sale = app.sale(policy, 1, 1).await;
    for position in 1..=7_i64 {
        let next_tick = time(&room(app, sale.room_id).await, "nextTickAt");
        let buyer = app.guest().await;
        let before = now();
        let answer = asked(enter(app, &buyer, &sale), 201).await;
        let after = now();
        let seconds = |from| u64::try_from(next_tick.since(from).as_micros().div_ceil(1_000_000)).unwrap();
        let (most, least) = (seconds(before), seconds(after));
        let later = u64::try_from((position - 1) / 2 * 100).unwrap();
        let estimate = answer.json()["estimatedWaitSeconds"].as_u64().unwrap();
        // The node's clock may be a hair off this one's.
        let range = least + later - 1..=most + later + 1;
        assert!(range.contains(&estimate), "position {position}: {estimate} is not in {range:?}");
        let buyer = Buyer { wait_token: Some(answer.wait_token()), ..buyer };
        let seen = place(app, &buyer).await["estimatedWaitSeconds"].as_u64().unwrap();
        assert!(seen <= estimate && seen + 20 > estimate, "{seen} after {estimate}");
    }
}

pub(crate) async fn an_admitted_place_looks_so(app: &TestApp) {
    let sale = app.sale(json!({"activeTtlSeconds": 77}), 1, 1).await;
    let buyer = app.active(&sale).await;
    let answer = asked(buyer.own(app.get("/queue")), 200).await;
    let body = answer.json();
    assert_eq!((&body["status"], &body["position"]), (&json!("ACTIVE"), &json!(0)));
    is_about(time(&body, "activatedAt"), 0);
    assert_eq!(micros(time(&body, "activatedAt"), time(&body, "expiresAt")), 77_000_000);
    assert!(time(&body, "enteredAt") <= time(&body, "activatedAt"));
    assert!(answer.header("Retry-After").is_none(), "nothing to wait for");
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
}

pub(crate) async fn a_place_can_be_given_up(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    for admitted in [false, true] {
        let buyer = app.waiting(&sale).await;
        if admitted {
            app.admit(sale.room_id, 10).await;
            asked(buyer.own(app.get(&sale.seats_path())), 200).await;
        }
        for _ in 0..2 {
            let gone = asked(buyer.own(app.delete("/queue")), 204).await;
            assert!(gone.body.is_empty());
        }
        let answer = asked(buyer.own(app.get("/queue")), 200).await;
        let body = answer.json();
        assert_eq!((&body["status"], &body["position"]), (&json!("EXPIRED"), &json!(0)));
        assert!(answer.header("Retry-After").is_none());
        // This node expired it itself, so it is refused at once.
        ask(buyer.own(app.get(&sale.seats_path()))).await.sent_to_the_queue("WAIT_TOKEN_EXPIRED");
    }
    assert_eq!([&room(app, sale.room_id).await["waiting"], &room(app, sale.room_id).await["active"]], [0, 0]);
}

pub(crate) async fn after_the_end_there_is_a_new_token_at_the_tail(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let (gone, other) = (app.waiting(&sale).await, app.waiting(&sale).await);
    asked(gone.own(app.delete("/queue")), 204).await;
    let back = asked(enter(app, &gone, &sale), 201).await;
    assert_ne!(Some(back.wait_token()), gone.wait_token);
    assert_eq!((&back.json()["status"], &back.json()["position"]), (&json!("WAIT"), &json!(2)));
    assert_ne!(back.json()["tokenId"], place(app, &gone).await["tokenId"]);
    assert_eq!(place_status(app, &gone).await, "EXPIRED", "the old token stays what it was");
    assert_eq!(place(app, &other).await["position"], 1);
    // Giving up the old one again does not touch the new one.
    asked(gone.own(app.delete("/queue")), 204).await;
    assert_eq!(asked(enter(app, &gone, &sale), 200).await.wait_token(), back.wait_token());
}

pub(crate) async fn looking_needs_the_own_token(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let (buyer, other) = (app.waiting(&sale).await, app.waiting(&sale).await);
    let look = || app.get("/queue").bearer_auth(&buyer.access_token);
    refused(look(), 401, "WAIT_TOKEN_MISSING").await;
    let own = buyer.wait_token.clone().unwrap();
    for forged in crate::gate::forgeries(&own) {
        refused(look().header("Wait-Token", forged), 401, "WAIT_TOKEN_INVALID").await;
    }
    refused(look().header("Wait-Token", other.wait_token.unwrap()), 401, "WAIT_TOKEN_INVALID").await;
    asked(look().header("Wait-Token", own), 200).await;
}

pub(crate) async fn on_hold_newcomers_wait_for_who_knows_how_long(app: &TestApp) {
    let sale = app.sale(json!({"admitIntervalSeconds": 1, "mode": "HOLD"}), 1, 1).await;
    let buyer = app.waiting(&sale).await;
    let first_tick = time(&room(app, sale.room_id).await, "nextTickAt");
    becomes("the tick is past", true, async || {
        time(&room(app, sale.room_id).await, "nextTickAt") > first_tick.plus_seconds(1)
    })
    .await;
    let answer = asked(buyer.own(app.get("/queue")), 200).await;
    let body = answer.json();
    assert_eq!((&body["status"], &body["position"]), (&json!("WAIT"), &json!(1)));
    assert_eq!(body.get("estimatedWaitSeconds"), Some(&Value::Null));
    assert_eq!(answer.retry_after(), body["pollAfterSeconds"].as_u64().unwrap());
}

pub(crate) async fn a_closed_room_refuses_newcomers_only(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let active = app.active(&sale).await;
    let waiting = app.waiting(&sale).await;
    sent(patch_room(app, sale.room_id, &json!({"mode": "CLOSED"})), 200).await;
    let newcomer = app.guest().await;
    becomes("the room is closed", 503, async || ask(enter(app, &app.guest().await, &sale)).await.status)
        .await;
    let answer = ask(enter(app, &newcomer, &sale)).await;
    answer.problem(503, "ROOM_CLOSED");
    assert!(answer.retry_after() >= 1);
    assert!(answer.header("Wait-Token").is_none());
    for buyer in [&active, &waiting] {
        assert_eq!(Some(asked(enter(app, buyer, &sale), 200).await.wait_token()), buyer.wait_token);
    }
    assert_eq!(place(app, &waiting).await.get("estimatedWaitSeconds"), Some(&Value::Null));
    let seats = app.seats(&active, &sale).await;
    app.hold(&active, &sale, &seats).await;
    // Who gave up the place is a newcomer again.
    asked(waiting.own(app.delete("/queue")), 204).await;
    refused(enter(app, &waiting, &sale), 503, "ROOM_CLOSED").await;
}

pub(crate) async fn an_open_room_lets_everyone_in(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let early = [app.waiting(&sale).await, app.waiting(&sale).await];
    sent(patch_room(app, sale.room_id, &json!({"mode": "OPEN"})), 200).await;
    for buyer in &early {
        becomes("the waiter is let in", "ACTIVE".to_owned(), async || place_status(app, buyer).await).await;
    }
    let late = app.guest().await;
    let body = asked(enter(app, &late, &sale), 201).await.json();
    assert_eq!((&body["status"], &body["position"]), (&json!("ACTIVE"), &json!(0)));
    assert_eq!(micros(time(&body, "activatedAt"), time(&body, "expiresAt")), 600_000_000);
    let [first, second] = [place(app, &early[0]).await, place(app, &early[1]).await];
    assert!(time(&first, "activatedAt") <= time(&second, "activatedAt"));
    assert!(time(&second, "activatedAt") <= time(&body, "activatedAt"));
}

pub(crate) async fn a_full_room_refuses_newcomers_only(app: &TestApp) {
    let sale = app.sale(json!({"maxWaiting": 2}), 1, 1).await;
    let [first, second] = [app.waiting(&sale).await, app.waiting(&sale).await];
    let newcomer = app.guest().await;
    let answer = ask(enter(app, &newcomer, &sale)).await;
    answer.problem(503, "ROOM_FULL");
    assert!(answer.retry_after() >= 1);
    assert!(answer.header("Wait-Token").is_none());
    assert_eq!(Some(asked(enter(app, &first, &sale), 200).await.wait_token()), first.wait_token);
    asked(second.own(app.delete("/queue")), 204).await;
    asked(enter(app, &newcomer, &sale), 201).await;
    refused(enter(app, &second, &sale), 503, "ROOM_FULL").await;
    assert_eq!(app.admit(sale.room_id, 1).await, 1);
    asked(enter(app, &second, &sale), 201).await;
}

pub(crate) async fn a_full_room_is_not_overfilled_by_a_crowd(app: &TestApp) {
    let sale = app.sale(json!({"maxWaiting": 3}), 1, 1).await;
    let crowd = join_all((0..8).map(|_| app.guest())).await;
    let answers = join_all(crowd.iter().map(|buyer| ask(enter(app, buyer, &sale)))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 3);
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        answer.problem(503, "ROOM_FULL");
    }
    assert_eq!(room(app, sale.room_id).await["waiting"], 3);
}

pub(crate) async fn a_body_is_optional_but_not_arbitrary(app: &TestApp) {
    let buyer = app.guest().await;
    let enter = || app.request(Method::POST, "/queue").bearer_auth(&buyer.access_token);
    for bad in ["{", "[]", "\"x\"", "{\"concertId\": 5}", "{\"concertId\": \"no-uuid\"}"] {
        let request = enter().header("Content-Type", "application/json").body(bad);
        refused(request, 400, "MALFORMED_REQUEST").await;
    }
    asked(enter().json(&json!({"concertId": null, "somethingElse": Uuid::nil()})), 201).await;
}
