//! Who may charge a wallet is configuration.

use frontrow::app::Settings;
use frontrow_domain::account::WalletCharging;
use frontrow_domain::ports::Role;
use frontrow_testkit::app::{Buyer, Database, TestApp, admin_token, id, sent, settings, token};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{ask, asked, balance, entries, refused};

fn cashier(n: u128) -> String {
    token(Uuid::from_u128(0xca50 + n), Role::Cashier)
}

fn charge(app: &TestApp, of: &Buyer, bearer: &str, amount: i64) -> RequestBuilder {
    let path = format!("/accounts/{}/charge", of.user_id);
    app.post(&path, &json!({"amount": amount})).bearer_auth(bearer)
}

async fn with_cashiers(database: &Database) -> TestApp {
    let wallet_charging = WalletCharging::Cashier;
    TestApp::start(Settings { wallet_charging, ..settings(database) }).await
}

/// The default, and the control of the tests below.
pub(crate) async fn by_default_a_wallet_is_charged_by_its_owner(app: &TestApp) {
    let (me, other) = (app.guest().await, app.guest().await);
    asked(charge(app, &me, &me.access_token, 70), 200).await;
    for bearer in [other.access_token, cashier(0), admin_token()] {
        refused(charge(app, &me, &bearer, 70), 403, "NOT_YOUR_RESOURCE").await;
    }
    assert_eq!(balance(app, &me).await, 70);
    // A cashier is a buyer like any other here.
    let user_id = Uuid::from_u128(0xca50);
    let own = Buyer { user_id, access_token: cashier(0), wait_token: None };
    asked(charge(app, &own, &own.access_token, 5), 200).await;
    assert_eq!(balance(app, &own).await, 5);
}

pub(crate) async fn only_a_cashier_charges_where_it_is_configured(database: &Database) {
    let app = with_cashiers(database).await;
    let me = app.guest().await;
    for bearer in [me.access_token.clone(), app.guest().await.access_token, admin_token()] {
        refused(charge(&app, &me, &bearer, 70), 403, "FORBIDDEN").await;
    }
    // 400 comes before 403, and 403 before 422, as everywhere.
    refused(charge(&app, &me, &me.access_token, 0), 403, "FORBIDDEN").await;
    let path = format!("/accounts/{}/charge", me.user_id);
    refused(app.post(&path, &json!({})).bearer_auth(&me.access_token), 400, "MALFORMED_REQUEST").await;
    refused(charge(&app, &me, &cashier(0), 0), 422, "INVALID_AMOUNT").await;
    assert_eq!((balance(&app, &me).await, entries(&app, &me).await.len()), (0, 0));

    let receipt = sent(charge(&app, &me, &cashier(0), 70), 200).await;
    assert_eq!((&receipt["chargedAmount"], &receipt["balance"]), (&json!(70), &json!(70)));
    let history = entries(&app, &me).await;
    assert_eq!((history.len(), &history[0]["kind"]), (1, &json!("CHARGE")));
    assert_eq!(id(&history[0], "entryId"), id(&receipt, "entryId"), "in the history of its owner");
    app.stop().await;
}

pub(crate) async fn a_cashier_may_do_nothing_else_for_others(database: &Database) {
    let app = with_cashiers(database).await;
    let sale = app.sale(json!({}), 1, 1).await;
    let buyer = app.active(&sale).await;
    asked(charge(&app, &buyer, &cashier(0), 1_000), 200).await;
    let seats = app.seats(&buyer, &sale).await;
    let reservation_id = app.hold(&buyer, &sale, &seats).await;
    let account = format!("/accounts/{}", buyer.user_id);
    for path in [account.clone(), format!("{account}/entries")] {
        refused(app.get(&path).bearer_auth(cashier(0)), 403, "NOT_YOUR_RESOURCE").await;
    }
    let pay = json!({"userId": buyer.user_id, "reservationId": reservation_id});
    refused(app.post("/pay", &pay).bearer_auth(cashier(0)), 403, "NOT_YOUR_RESOURCE").await;
    let reservation = format!("/reservations/{reservation_id}");
    refused(app.get(&reservation).bearer_auth(cashier(0)), 404, "RESERVATION_NOT_FOUND").await;
    refused(app.delete(&reservation).bearer_auth(cashier(0)), 404, "RESERVATION_NOT_FOUND").await;
    for path in ["/admin/rooms", "/admin/audit-log"] {
        refused(app.get(path).bearer_auth(cashier(0)), 403, "FORBIDDEN").await;
    }
    asked(app.pay(&buyer, reservation_id), 200).await;
    app.stop().await;
}

pub(crate) async fn a_cashiers_key_is_its_own_and_of_one_wallet(database: &Database) {
    let app = with_cashiers(database).await;
    let (me, other) = (app.guest().await, app.guest().await);
    let keyed =
        |of: &Buyer, cashier: &str| charge(&app, of, cashier, 10).header("Idempotency-Key", "order-1");
    let first = asked(keyed(&me, &cashier(1)), 200).await;
    let again = asked(keyed(&me, &cashier(1)), 200).await;
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    assert_eq!(first.body, again.body, "byte for byte");
    assert_eq!(balance(&app, &me).await, 10, "charged once");
    // The path is part of what was asked for.
    refused(keyed(&other, &cashier(1)), 422, "IDEMPOTENCY_KEY_REUSED").await;
    // Keys of two cashiers never meet.
    let of_another = asked(keyed(&me, &cashier(2)), 200).await;
    assert_eq!(of_another.header("Idempotency-Replayed"), None);
    assert_eq!((balance(&app, &me).await, balance(&app, &other).await), (20, 0));

    // Sent several times at once, it is one charge.
    let retries = (0..6).map(|_| {
        let request = charge(&app, &other, &cashier(1), 10).header("Idempotency-Key", "order-2");
        async move { ask(request).await }
    });
    let answers: Vec<_> = futures_util::future::join_all(retries).await;
    let bodies: Vec<Value> = answers.iter().filter(|a| a.status == 200).map(|a| a.json()).collect();
    assert!(!bodies.is_empty() && bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    assert_eq!(balance(&app, &other).await, 10);
    app.stop().await;
}
