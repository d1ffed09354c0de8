//! The gate in front of dates, seats and reservations (seed: TokenValidatorFilter).

use frontrow_testkit::app::{Buyer, Sale, TestApp};
use reqwest::RequestBuilder;
use serde_json::json;

use crate::support::{NOBODY, ask, asked, dates_path, past, place, refused, time};

/// Texts that look like this Wait-Token and are none.
pub(crate) fn forgeries(wait_token: &str) -> Vec<String> {
    let changed = |at: usize| {
        let mut bytes = wait_token.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    let length = wait_token.len();
    vec![
        "rubbish".into(),
        "a.b.c".into(),
        changed(length / 2),
        changed(length - length / 8 - 2),
        wait_token[..length - 4].into(),
        format!("{wait_token}{wait_token}"),
    ]
}

/// Every gated call, without a Wait-Token.
fn gated_calls(app: &TestApp, buyer: &Buyer, sale: &Sale) -> Vec<RequestBuilder> {
    let hold = json!({"performanceDateId": sale.date_id, "seatIds": [NOBODY]});
    [app.get(&dates_path(sale)), app.get(&sale.seats_path()), app.post("/reservations", &hold)]
        .into_iter()
        .map(|request| request.bearer_auth(&buyer.access_token))
        .collect()
}

async fn is_turned_away(app: &TestApp, buyer: &Buyer, sale: &Sale, code: &str) {
    for request in gated_calls(app, buyer, sale) {
        let request = match &buyer.wait_token {
            Some(token) => request.header("Wait-Token", token),
            None => request,
        };
        ask(request).await.sent_to_the_queue(code);
    }
}

pub(crate) async fn without_a_token_there_is_no_way_in(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    is_turned_away(app, &app.guest().await, &sale, "WAIT_TOKEN_MISSING").await;
}

pub(crate) async fn a_forged_token_is_no_token(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let buyer = app.active(&sale).await;
    for forged in forgeries(buyer.wait_token.as_ref().unwrap()) {
        let buyer = Buyer { wait_token: Some(forged), ..buyer.clone() };
        is_turned_away(app, &buyer, &sale, "WAIT_TOKEN_INVALID").await;
    }
}

pub(crate) async fn a_token_serves_its_owner_alone(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let owner = app.active(&sale).await;
    let thief = Buyer { wait_token: owner.wait_token.clone(), ..app.guest().await };
    is_turned_away(app, &thief, &sale, "WAIT_TOKEN_INVALID").await;
    asked(owner.own(app.get(&sale.seats_path())), 200).await;
}

pub(crate) async fn a_token_serves_its_room_alone(app: &TestApp) {
    let (own, other) = (app.sale(json!({}), 1, 1).await, app.sale(json!({}), 1, 1).await);
    let buyer = app.active(&own).await;
    is_turned_away(app, &buyer, &other, "WAIT_TOKEN_INVALID").await;
    asked(buyer.own(app.get(&own.seats_path())), 200).await;
    // The global room's token serves every concert that has no room of its own, and no other.
    let global = app.sale(serde_json::Value::Null, 1, 1).await;
    let shared = app.sale(serde_json::Value::Null, 1, 1).await;
    let buyer = app.active(&global).await;
    for sale in [&global, &shared] {
        asked(buyer.own(app.get(&sale.seats_path())), 200).await;
        asked(buyer.own(app.get(&dates_path(sale))), 200).await;
    }
    is_turned_away(app, &buyer, &own, "WAIT_TOKEN_INVALID").await;
}

pub(crate) async fn who_waits_waits(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let buyer = app.waiting(&sale).await;
    is_turned_away(app, &buyer, &sale, "WAIT_TOKEN_NOT_ACTIVE").await;
    app.admit(sale.room_id, 1).await;
    // Reads may lag by a second; here the node itself admitted.
    crate::support::becomes("the gate opens", 200, async || {
        ask(buyer.own(app.get(&sale.seats_path()))).await.status
    })
    .await;
    asked(buyer.own(app.get(&dates_path(&sale))), 200).await;
}

pub(crate) async fn an_expired_token_opens_nothing(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let buyer = app.active(&sale).await;
    asked(buyer.own(app.get(&sale.seats_path())), 200).await;
    asked(buyer.own(app.delete("/queue")), 204).await;
    is_turned_away(app, &buyer, &sale, "WAIT_TOKEN_EXPIRED").await;
}

pub(crate) async fn a_token_lapses_by_the_clock(app: &TestApp) {
    let sale = app.sale(json!({"activeTtlSeconds": 1}), 1, 1).await;
    let buyer = app.active(&sale).await;
    let expires_at = time(&place(app, &buyer).await, "expiresAt");
    past(expires_at).await;
    is_turned_away(app, &buyer, &sale, "WAIT_TOKEN_EXPIRED").await;
    let body = place(app, &buyer).await;
    assert_eq!((&body["status"], &body["position"]), (&json!("EXPIRED"), &json!(0)));
    let back = asked(crate::support::enter(app, &buyer, &sale), 201).await;
    assert_ne!(Some(back.wait_token()), buyer.wait_token);
    assert_eq!((&back.json()["status"], &back.json()["position"]), (&json!("WAIT"), &json!(1)));
}

pub(crate) async fn what_is_not_gated_needs_no_wait_token(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let buyer = app.active(&sale).await;
    let seats = app.seats(&buyer, &sale).await;
    app.charge(&buyer, 100).await;
    let reservation_id = app.hold(&buyer, &sale, &seats).await;
    let bare = Buyer { wait_token: None, ..buyer.clone() };
    asked(app.get("/concerts"), 200).await;
    asked(bare.own(app.get(&format!("/reservations/{reservation_id}"))), 200).await;
    asked(bare.own(app.get("/reservations")), 200).await;
    asked(bare.own(app.get(&format!("/accounts/{}", bare.user_id))), 200).await;
    asked(app.pay(&bare, reservation_id), 200).await;
    refused(bare.own(app.delete(&format!("/reservations/{reservation_id}"))), 409, "ALREADY_PAID").await;
}
