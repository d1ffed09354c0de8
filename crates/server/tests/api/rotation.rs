//! Secrets are rotated, and nobody is logged out or loses a place (ADR 0009).

use frontrow::app::Settings;
use frontrow_domain::UserId;
use frontrow_domain::ports::{AccessClaims, AccessTokens, Role};
use frontrow_testkit::app::{Buyer, Database, SECRET, Sale, TestApp, all_nodes_know, own_tokens, settings};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::support::{ask, asked, becomes, enter, now, place, place_status, refused};

/// What has signed so far. Operators' tokens of the tests are of it.
const OLD: &str = SECRET;
const NEW: &str = "the secret that signs from now on and is long enough";

async fn start(database: &Database, current: &str, previous: &[&str]) -> TestApp {
    TestApp::start(Settings { tokens: own_tokens(current, previous), ..settings(database) }).await
}

/// An access token by a secret.
fn access_token(secret: &str, user_id: Uuid, role: Role) -> String {
    let claims = AccessClaims { user_id: UserId::new(user_id), role, expires_at: now().plus_seconds(3_600) };
    own_tokens(secret, &[]).own().issue(&claims).unwrap()
}

fn operator(secret: &str) -> String {
    access_token(secret, Uuid::from_u128(1), Role::Admin)
}

/// Enters again: the same place, under a Wait-Token that may be another text.
async fn again(app: &TestApp, buyer: &Buyer, sale: &Sale) -> Buyer {
    let before = place(app, buyer).await;
    let answer = asked(enter(app, buyer, sale), 200).await;
    assert_eq!(answer.json()["tokenId"], before["tokenId"]);
    assert_eq!(answer.json()["position"], before["position"]);
    Buyer { wait_token: Some(answer.wait_token()), ..buyer.clone() }
}

/// Checks that somebody who waits and somebody who is let in are known by both of their tokens.
async fn are_known(app: &TestApp, waiting: &Buyer, active: &Buyer, sale: &Sale) {
    assert_eq!(place(app, waiting).await["status"], "WAIT");
    ask(waiting.own(app.get(&sale.seats_path()))).await.sent_to_the_queue("WAIT_TOKEN_NOT_ACTIVE");
    assert_eq!(place(app, active).await["status"], "ACTIVE");
    asked(active.own(app.get(&sale.seats_path())), 200).await;
    asked(active.own(app.get("/reservations")), 200).await;
}

pub(crate) async fn a_rotation_logs_nobody_out(database: &Database) {
    let app = start(database, OLD, &[]).await;
    let sale = app.sale(json!({}), 1, 1).await;
    let active = app.active(&sale).await;
    let waiting = app.waiting(&sale).await;
    are_known(&app, &waiting, &active, &sale).await;
    app.stop().await;

    // Rotated: whoever holds tokens of the old secret goes on with them.
    let app = start(database, NEW, &[OLD]).await;
    are_known(&app, &waiting, &active, &sale).await;
    asked(app.request(Method::GET, "/admin/rooms").bearer_auth(operator(OLD)), 200).await;
    let seats = app.seats(&active, &sale).await;
    let reservation_id = app.hold(&active, &sale, &seats).await;

    // Entering again gives the same place under the new secret; from then on the same text, also after a restart.
    let renewed = (again(&app, &waiting, &sale).await, again(&app, &active, &sale).await);
    assert_ne!(renewed.0.wait_token, waiting.wait_token);
    are_known(&app, &renewed.0, &renewed.1, &sale).await;
    assert_eq!(again(&app, &renewed.0, &sale).await.wait_token, renewed.0.wait_token);
    app.stop().await;
    let app = start(database, NEW, &[OLD]).await;
    assert_eq!(again(&app, &waiting, &sale).await.wait_token, renewed.0.wait_token);
    are_known(&app, &waiting, &active, &sale).await;
    app.charge(&active, 100).await;
    asked(app.pay(&active, reservation_id), 200).await;
    app.stop().await;

    // The old secret is gone: its tokens are refused, those of the new one are good, and so is the place.
    let app = start(database, NEW, &[]).await;
    for request in [app.get("/queue"), app.get(&sale.seats_path()), app.get("/reservations")] {
        refused(waiting.own(request), 401, "UNAUTHENTICATED").await;
    }
    refused(app.get("/admin/rooms").bearer_auth(operator(OLD)), 401, "UNAUTHENTICATED").await;
    let back = access_token(NEW, waiting.user_id, Role::User);
    let back = Buyer { access_token: back, ..waiting };
    refused(back.own(app.get("/queue")), 401, "WAIT_TOKEN_INVALID").await;
    ask(back.own(app.get(&sale.seats_path()))).await.sent_to_the_queue("WAIT_TOKEN_INVALID");
    let back = Buyer { wait_token: renewed.0.wait_token, ..back };
    assert_eq!(again(&app, &back, &sale).await.wait_token, back.wait_token);
    app.stop().await;
}

/// Two nodes in the middle of a rotation: one signs with the new secret already, the other still with the old one.
/// PostgreSQL alone: one node serves a file.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_rotated_one_by_one_know_each_others_tokens() {
    let Some(database) = Database::postgres().await else { return };
    let (a, b) = (start(&database, NEW, &[OLD]).await, start(&database, OLD, &[NEW]).await);
    let sale = a.sale(json!({}), 1, 1).await;
    let actives = [a.active(&sale).await, b.active(&sale).await];
    let waitings = [a.waiting(&sale).await, b.waiting(&sale).await];
    all_nodes_know().await;
    for (waiting, active) in waitings.iter().zip(&actives) {
        for app in [&a, &b] {
            becomes("both nodes show it", ["WAIT", "ACTIVE"].map(ToOwned::to_owned), async || {
                [place_status(app, waiting).await, place_status(app, active).await]
            })
            .await;
            are_known(app, waiting, active, &sale).await;
            again(app, waiting, &sale).await;
        }
    }
    for secret in [OLD, NEW] {
        for app in [&a, &b] {
            asked(app.get("/admin/rooms").bearer_auth(operator(secret)), 200).await;
        }
    }
    b.stop().await;

    // The control: a node that skipped the first step refuses what its neighbour signs.
    let b = start(&database, OLD, &[]).await;
    refused(waitings[0].own(b.get("/queue")), 401, "UNAUTHENTICATED").await;
    let known =
        Buyer { access_token: access_token(OLD, waitings[0].user_id, Role::User), ..waitings[0].clone() };
    refused(known.own(b.get("/queue")), 401, "WAIT_TOKEN_INVALID").await;
    a.stop().await;
    b.stop().await;
}
