//! What rooms do by themselves and by operators: ticks, caps, modes, changes.

use std::collections::BTreeMap;

use frontrow_testkit::app::{TestApp, sent};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    NOBODY, admin, admin_post, ask, asked, becomes, enter, eventually, is_about, micros, now, pages, past,
    patch_room, place, place_status, refused, room, time,
};

const FIELDS: [&str; 6] =
    ["admitBatch", "admitIntervalSeconds", "activeTtlSeconds", "maxActive", "maxWaiting", "mode"];

fn policy(room: &Value) -> Value {
    FIELDS
        .iter()
        .map(|field| ((*field).to_owned(), room[*field].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

pub(crate) async fn a_room_is_made_with_the_defaults_of_the_contract(app: &TestApp) {
    let defaults = json!({"admitBatch": 10, "admitIntervalSeconds": 600, "activeTtlSeconds": 600,
        "maxActive": null, "maxWaiting": null, "mode": "AUTO"});
    let (global, own) = (app.sale(Value::Null, 1, 1).await, app.sale(json!({}), 1, 1).await);
    for sale in [global, own] {
        let room = room(app, sale.room_id).await;
        assert_eq!(policy(&room), defaults);
        assert_eq!([&room["waiting"], &room["active"]], [0, 0]);
    }
    let all = json!({"admitBatch": 3, "admitIntervalSeconds": 44, "activeTtlSeconds": 55, "maxActive": 6,
        "maxWaiting": 7, "mode": "HOLD"});
    let sale = app.sale(all.clone(), 1, 1).await;
    let made = room(app, sale.room_id).await;
    assert_eq!(policy(&made), all);
    is_about(time(&made, "nextTickAt"), 44);
}

pub(crate) async fn rooms_are_counted_and_listed_in_pages(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    for _ in 0..3 {
        app.waiting(&sale).await;
    }
    assert_eq!(app.admit(sale.room_id, 2).await, 2);
    let counted = room(app, sale.room_id).await;
    assert_eq!([&counted["waiting"], &counted["active"]], [1, 2]);
    for _ in 0..4 {
        app.sale(json!({}), 1, 1).await;
    }
    let mut seen = Vec::new();
    for limit in [1, 4, 100] {
        let listed =
            pages(|query| admin(app, Method::GET, &format!("/admin/rooms?limit={limit}{query}"))).await;
        let mut ids: Vec<String> = listed.iter().map(|room| room["roomId"].to_string()).collect();
        ids.sort();
        assert_eq!(ids.len(), 6, "the global one and five");
        seen.push(ids);
    }
    assert!(seen.iter().all(|ids| *ids == seen[0]));
}

pub(crate) async fn a_tick_admits_a_batch_in_order_and_banks_nothing(app: &TestApp) {
    let sale = app.sale(json!({"admitBatch": 2, "admitIntervalSeconds": 1}), 1, 1).await;
    let created = room(app, sale.room_id).await;
    let first_tick = time(&created, "nextTickAt");
    // Ticks pass with nobody there, on a grid.
    let later = eventually("two empty ticks", async || {
        let next = time(&room(app, sale.room_id).await, "nextTickAt");
        (micros(first_tick, next) >= 2_000_000).then_some(next)
    })
    .await;
    assert_eq!(micros(first_tick, later) % 1_000_000, 0);

    let mut buyers = Vec::new();
    for _ in 0..5 {
        buyers.push(app.waiting(&sale).await);
    }
    eventually("everybody is admitted", async || {
        let places = join_all(buyers.iter().map(|buyer| place(app, buyer))).await;
        places.iter().all(|place| place["status"] == "ACTIVE").then_some(())
    })
    .await;
    let mut batches: BTreeMap<_, usize> = BTreeMap::new();
    let mut last = first_tick;
    for buyer in &buyers {
        let activated_at = time(&place(app, buyer).await, "activatedAt");
        assert!(activated_at >= last, "first come, first served");
        last = activated_at;
        *batches.entry(activated_at).or_default() += 1;
    }
    assert!(batches.values().all(|count| *count <= 2), "{batches:?}");
}

pub(crate) async fn never_more_than_max_active(app: &TestApp) {
    let sale = app.sale(json!({"maxActive": 2}), 1, 1).await;
    let mut buyers = Vec::new();
    for _ in 0..4 {
        buyers.push(app.waiting(&sale).await);
    }
    assert_eq!(app.admit(sale.room_id, 10).await, 2);
    assert_eq!(app.admit(sale.room_id, 10).await, 0);
    assert_eq!([&room(app, sale.room_id).await["active"], &room(app, sale.room_id).await["waiting"]], [2, 2]);
    asked(buyers[0].own(app.delete("/queue")), 204).await;
    assert_eq!(place_status(app, &buyers[2]).await, "WAIT", "a freed place fills at the next tick");
    // The next tick: at once, since the last one is far away.
    sent(patch_room(app, sale.room_id, &json!({"admitIntervalSeconds": 1})), 200).await;
    becomes("the freed place is filled", "ACTIVE".to_owned(), async || place_status(app, &buyers[2]).await)
        .await;
    let next = time(&room(app, sale.room_id).await, "nextTickAt");
    becomes("one more tick", true, async || time(&room(app, sale.room_id).await, "nextTickAt") > next).await;
    assert_eq!(place_status(app, &buyers[3]).await, "WAIT");
}

pub(crate) async fn an_open_room_keeps_to_max_active(app: &TestApp) {
    let sale = app.sale(json!({"maxActive": 1, "mode": "OPEN"}), 1, 1).await;
    let buyers = [app.waiting(&sale).await, app.waiting(&sale).await, app.waiting(&sale).await];
    let mut statuses = Vec::new();
    for buyer in &buyers {
        statuses.push(place_status(app, buyer).await);
    }
    assert_eq!(statuses, ["ACTIVE", "WAIT", "WAIT"]);
    asked(buyers[0].own(app.delete("/queue")), 204).await;
    becomes("the next is let in", "ACTIVE".to_owned(), async || place_status(app, &buyers[1]).await).await;
    assert_eq!(place_status(app, &buyers[2]).await, "WAIT");
}

pub(crate) async fn operators_admit_in_every_mode(app: &TestApp) {
    for mode in ["AUTO", "HOLD", "CLOSED"] {
        let sale = app.sale(json!({}), 1, 1).await;
        let buyers = [app.waiting(&sale).await, app.waiting(&sale).await, app.waiting(&sale).await];
        sent(patch_room(app, sale.room_id, &json!({"mode": mode})), 200).await;
        assert_eq!(app.admit(sale.room_id, 2).await, 2, "{mode}");
        let mut statuses = Vec::new();
        for buyer in &buyers {
            statuses.push(place_status(app, buyer).await);
        }
        assert_eq!(statuses, ["ACTIVE", "ACTIVE", "WAIT"], "{mode}");
        assert_eq!(app.admit(sale.room_id, 2).await, 1, "{mode}: no more than there are");
        asked(buyers[2].own(app.get(&sale.seats_path())), 200).await;
    }
}

pub(crate) async fn operators_admit_a_count_of_a_room(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    app.waiting(&sale).await;
    let path = format!("/admin/rooms/{}/admit", sale.room_id);
    for (body, status, code) in [
        (json!({}), 400, "MALFORMED_REQUEST"),
        (json!({"count": "1"}), 400, "MALFORMED_REQUEST"),
        (json!({"count": 1.5}), 400, "MALFORMED_REQUEST"),
        (json!({"count": -1}), 422, "INVALID_REQUEST"),
    ] {
        refused(admin_post(app, &path, &body), status, code).await;
    }
    ask(admin_post(app, &format!("/admin/rooms/{NOBODY}/admit"), &json!({"count": 1})))
        .await
        .any_problem(404);
    assert_eq!(room(app, sale.room_id).await["waiting"], 1);
}

pub(crate) async fn a_change_names_what_it_changes(app: &TestApp) {
    let sale = app.sale(json!({"maxActive": 5, "maxWaiting": 6}), 1, 1).await;
    let mut expected = policy(&room(app, sale.room_id).await);
    for change in [
        json!({"admitBatch": 3}),
        json!({"admitIntervalSeconds": 700}),
        json!({"activeTtlSeconds": 800}),
        json!({"maxActive": 1}),
        json!({"maxWaiting": 2}),
        json!({"maxActive": null}),
        json!({"maxWaiting": null}),
        json!({"mode": "HOLD"}),
        json!({"mode": "CLOSED", "admitBatch": 4, "unknown": true}),
        json!({}),
    ] {
        for (field, value) in change.as_object().unwrap().iter().filter(|(field, _)| *field != "unknown") {
            expected[field] = value.clone();
        }
        let answer = sent(patch_room(app, sale.room_id, &change), 200).await;
        assert_eq!(policy(&answer), expected, "after {change}");
        assert_eq!(answer["roomId"], json!(sale.room_id));
        becomes("the room", expected.clone(), async || policy(&room(app, sale.room_id).await)).await;
    }
    ask(patch_room(app, NOBODY.parse().unwrap(), &json!({"admitBatch": 3}))).await.any_problem(404);
}

pub(crate) async fn an_impossible_change_changes_nothing(app: &TestApp) {
    let sale = app.sale(json!({"maxActive": 5}), 1, 1).await;
    let before = room(app, sale.room_id).await;
    for (change, status, code) in [
        (json!({"admitBatch": 0}), 422, "INVALID_REQUEST"),
        (json!({"admitBatch": -1}), 422, "INVALID_REQUEST"),
        (json!({"admitIntervalSeconds": 0}), 422, "INVALID_REQUEST"),
        (json!({"activeTtlSeconds": 0}), 422, "INVALID_REQUEST"),
        (json!({"activeTtlSeconds": -600}), 422, "INVALID_REQUEST"),
        (json!({"maxActive": -1}), 422, "INVALID_REQUEST"),
        (json!({"maxWaiting": -1}), 422, "INVALID_REQUEST"),
        (json!({"mode": "HOLD", "admitBatch": 0}), 422, "INVALID_REQUEST"),
        (json!({"admitBatch": "10"}), 400, "MALFORMED_REQUEST"),
        (json!({"admitBatch": 1.5}), 400, "MALFORMED_REQUEST"),
        (json!({"maxActive": "none"}), 400, "MALFORMED_REQUEST"),
        (json!({"mode": "SIDEWAYS"}), 400, "MALFORMED_REQUEST"),
        (json!({"mode": "auto"}), 400, "MALFORMED_REQUEST"),
        (json!([]), 400, "MALFORMED_REQUEST"),
    ] {
        refused(patch_room(app, sale.room_id, &change), status, code).await;
        // The same when a concert is made with such a room.
        let concert = json!({"title": "T", "venue": "V", "room": change});
        refused(admin_post(app, "/admin/concerts", &concert), status, code).await;
    }
    assert_eq!(room(app, sale.room_id).await, before);
    assert_eq!(sent(app.get("/concerts"), 200).await["items"].as_array().unwrap().len(), 1);
}

pub(crate) async fn a_changed_interval_moves_the_next_tick(app: &TestApp) {
    let sale = app.sale(json!({"admitIntervalSeconds": 600}), 1, 1).await;
    let next = async || time(&room(app, sale.room_id).await, "nextTickAt");
    let created_plus_600 = next().await;
    for interval in [1_200, 300, 600] {
        let change = json!({"admitIntervalSeconds": interval});
        let answer = sent(patch_room(app, sale.room_id, &change), 200).await;
        assert_eq!(micros(created_plus_600, time(&answer, "nextTickAt")), (interval - 600) * 1_000_000);
    }
    sent(patch_room(app, sale.room_id, &json!({"admitBatch": 9, "admitIntervalSeconds": 600})), 200).await;
    assert_eq!(next().await, created_plus_600, "the same interval moves nothing");
    // A tick that would be past already is due now.
    let waiter = app.waiting(&sale).await;
    past(now().plus_seconds(2)).await;
    sent(patch_room(app, sale.room_id, &json!({"admitIntervalSeconds": 1})), 200).await;
    becomes("the waiter is admitted", "ACTIVE".to_owned(), async || place_status(app, &waiter).await).await;
}

pub(crate) async fn a_changed_mode_holds_within_a_second(app: &TestApp) {
    let sale = app.sale(json!({"mode": "CLOSED"}), 1, 1).await;
    let newcomer = app.guest().await;
    refused(enter(app, &newcomer, &sale), 503, "ROOM_CLOSED").await;
    sent(patch_room(app, sale.room_id, &json!({"mode": "AUTO"})), 200).await;
    becomes("the room lets in", true, async || {
        matches!(ask(enter(app, &newcomer, &sale)).await.status, 200 | 201)
    })
    .await;
}
