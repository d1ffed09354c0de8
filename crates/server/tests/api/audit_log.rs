//! What operators did is on record: who, what, when, before and after.

use frontrow_domain::ports::Role;
use frontrow_testkit::app::{TestApp, id, sent, token};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    NOBODY, admin, admin_post, ask, asked, in_seconds, is_about, pages, patch_room, refused, time,
};

/// The whole log, newest first, in pages.
async fn log(app: &TestApp) -> Vec<Value> {
    pages(|query| admin(app, Method::GET, &format!("/admin/audit-log?limit=3{query}"))).await
}

pub(crate) async fn every_action_is_recorded(app: &TestApp) {
    assert_eq!(log(app).await, Vec::<Value>::new());
    let operator = Uuid::from_u128(0xface);
    let bearer = token(operator, Role::Admin);
    let act = async |method, path: &str, body: Value, status| {
        sent(app.request(method, path).bearer_auth(&bearer).json(&body), status).await
    };
    let concert = json!({"title": "First Night", "venue": "Hall", "room": {"admitBatch": 3}});
    let made = act(Method::POST, "/admin/concerts", concert, 201).await;
    let (concert_id, room_id) = (id(&made, "concertId"), id(&made, "roomId"));
    let section = json!({"section": "A", "grade": "R", "price": 100, "rows": 1, "seatsPerRow": 2});
    let date = json!({"startsAt": in_seconds(9_000), "sections": [section]});
    let dates = format!("/admin/concerts/{concert_id}/performanceDates");
    let date_id = id(&act(Method::POST, &dates, date.clone(), 201).await, "performanceDateId");
    let room = format!("/admin/rooms/{room_id}");
    act(Method::PATCH, &room, json!({"mode": "HOLD", "maxActive": 5}), 200).await;
    for _ in 0..3 {
        let buyer = app.guest().await;
        asked(buyer.own(app.post("/queue", &json!({"concertId": concert_id}))), 201).await;
    }
    act(Method::POST, &format!("{room}/admit"), json!({"count": 2}), 200).await;

    let log = log(app).await;
    let [admitted, changed, dated, created] = log.as_slice() else { panic!("{log:?}") };
    for entry in &log {
        assert_eq!(id(entry, "userId"), operator, "{entry}");
        is_about(time(entry, "at"), 0);
        assert!(!id(entry, "entryId").is_nil());
    }
    assert_eq!(created["action"], "CREATE_CONCERT");
    assert_eq!(id(created, "concertId"), concert_id);
    assert_eq!(created["before"], Value::Null);
    assert_eq!(
        created["after"],
        json!({"title": "First Night", "venue": "Hall", "roomId": room_id, "admitBatch": 3,
            "admitIntervalSeconds": 600, "activeTtlSeconds": 600, "maxActive": null, "maxWaiting": null,
            "waitGraceSeconds": null, "opensAt": null, "mode": "AUTO"})
    );
    assert_eq!(dated["action"], "CREATE_PERFORMANCE_DATE");
    assert_eq!(id(dated, "performanceDateId"), date_id);
    assert_eq!((&dated["before"], &dated["after"]["sections"]), (&Value::Null, &date["sections"]));
    assert_eq!(id(&dated["after"], "concertId"), concert_id);
    assert_eq!(changed["action"], "CHANGE_ROOM");
    assert_eq!(id(changed, "roomId"), room_id);
    assert_eq!((&changed["before"]["mode"], &changed["after"]["mode"]), (&json!("AUTO"), &json!("HOLD")));
    assert_eq!((&changed["before"]["maxActive"], &changed["after"]["maxActive"]), (&json!(null), &json!(5)));
    assert_eq!(changed["before"]["admitBatch"], changed["after"]["admitBatch"], "what stayed is there too");
    assert_eq!(admitted["action"], "ADMIT_WAITERS");
    assert_eq!(id(admitted, "roomId"), room_id);
    assert_eq!(admitted["after"], json!({"count": 2, "admitted": 2}));
}

pub(crate) async fn what_is_refused_is_not_recorded(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let before = log(app).await;
    assert_eq!(before.len(), 2, "a concert and its date");
    let (buyer, cashier) = (app.guest().await, token(Uuid::from_u128(5), Role::Cashier));
    let room = format!("/admin/rooms/{}", sale.room_id);
    refused(patch_room(app, sale.room_id, &json!({"admitBatch": 0})), 422, "INVALID_REQUEST").await;
    refused(patch_room(app, NOBODY.parse().unwrap(), &json!({"admitBatch": 1})), 404, "NOT_FOUND").await;
    refused(admin_post(app, "/admin/concerts", &json!({"title": ""})), 400, "MALFORMED_REQUEST").await;
    refused(admin_post(app, &format!("{room}/admit"), &json!({"count": 0})), 422, "INVALID_REQUEST").await;
    for bearer in [&buyer.access_token, &cashier] {
        let patch = app.request(Method::PATCH, &room).json(&json!({"admitBatch": 1})).bearer_auth(bearer);
        refused(patch, 403, "FORBIDDEN").await;
        refused(app.get("/admin/audit-log").bearer_auth(bearer), 403, "FORBIDDEN").await;
    }
    refused(app.get("/admin/audit-log"), 401, "UNAUTHENTICATED").await;
    // Nobody changes or deletes it.
    for method in [Method::DELETE, Method::POST, Method::PUT, Method::PATCH] {
        refused(admin(app, method, "/admin/audit-log"), 405, "METHOD_NOT_ALLOWED").await;
    }
    refused(admin(app, Method::GET, "/admin/audit-log?cursor=x"), 400, "MALFORMED_REQUEST").await;
    assert_eq!(log(app).await, before);
}

/// Were a change and its entry two transactions, or an entry made of what was read long before, the chain would break.
pub(crate) async fn changes_that_meet_make_a_chain(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let changes = (11..=18).map(|batch| {
        let body = json!({"admitBatch": batch});
        async move { ask(patch_room(app, sale.room_id, &body)).await }
    });
    let answers = join_all(changes).await;
    let done = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(done > 1, "{done} changes are no race");
    assert!(answers.iter().all(|answer| answer.status == 200 || answer.status == 409));

    let log = log(app).await;
    let changes: Vec<_> = log.iter().filter(|entry| entry["action"] == "CHANGE_ROOM").collect();
    assert_eq!(changes.len(), done, "one entry each, and none of those that were refused");
    let batch = |state: &Value| state["admitBatch"].as_i64().unwrap();
    let mut at = 10;
    for step in 0..done {
        let next = changes.iter().find(|entry| batch(&entry["before"]) == at);
        let next = next.unwrap_or_else(|| panic!("step {step}: nobody saw {at}: {changes:?}"));
        at = batch(&next["after"]);
    }
    let room = crate::support::room(app, sale.room_id).await;
    assert_eq!(batch(&room), at, "the last link is what there is");
}
