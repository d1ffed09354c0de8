//! Charging, and the history of an account.

use frontrow_testkit::app::{Database, TestApp, id, sent, settings};
use futures_util::future::join_all;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::support::{ask, asked, balance, entries, is_about, pages, refused, time};

fn charge_raw(app: &TestApp, buyer: &frontrow_testkit::app::Buyer, body: &str) -> RequestBuilder {
    buyer.own(app.post(&format!("/accounts/{}/charge", buyer.user_id), &Value::Null)).body(body.to_owned())
}

pub(crate) async fn an_account_starts_empty(app: &TestApp) {
    let buyer = app.guest().await;
    let account = asked(buyer.own(app.get(&format!("/accounts/{}", buyer.user_id))), 200).await.json();
    assert_eq!(account, json!({"userId": buyer.user_id, "balance": 0}));
    assert_eq!(entries(app, &buyer).await, Vec::<Value>::new());
}

pub(crate) async fn a_charge_is_added_and_remembered(app: &TestApp) {
    let buyer = app.guest().await;
    let mut receipts = Vec::new();
    for (amount, balance) in [(1, 1), (10_000_000, 10_000_001), (50, 10_000_051)] {
        let receipt = app.charge(&buyer, amount).await;
        assert_eq!([&receipt["chargedAmount"], &receipt["balance"]], [amount, balance]);
        is_about(time(&receipt, "chargedAt"), 0);
        assert_eq!(id(&receipt, "entryId").get_version_num(), 7);
        receipts.push(receipt);
    }
    assert_eq!(balance(app, &buyer).await, 10_000_051);
    let history = entries(app, &buyer).await;
    assert_eq!(history.len(), 3);
    for (entry, receipt) in history.iter().zip(receipts.iter().rev()) {
        assert_eq!(entry["entryId"], receipt["entryId"], "newest first");
        assert_eq!(entry["kind"], "CHARGE");
        assert_eq!(
            [&entry["amount"], &entry["balanceAfter"]],
            [&receipt["chargedAmount"], &receipt["balance"]]
        );
        assert_eq!(entry["at"], receipt["chargedAt"]);
        assert!(entry["reservationId"].is_null());
    }
}

pub(crate) async fn the_history_comes_in_pages(app: &TestApp) {
    let buyer = app.guest().await;
    for amount in 1..=7 {
        app.charge(&buyer, amount).await;
    }
    let path = format!("/accounts/{}/entries", buyer.user_id);
    for limit in [1, 2, 3, 7, 100] {
        let listed = pages(|query| buyer.own(app.get(&format!("{path}?limit={limit}{query}")))).await;
        let amounts: Vec<i64> = listed.iter().map(|entry| entry["amount"].as_i64().unwrap()).collect();
        assert_eq!(amounts, [7, 6, 5, 4, 3, 2, 1], "by {limit}");
    }
    // What comes in between two pages does not shift the second.
    let first = asked(buyer.own(app.get(&format!("{path}?limit=3"))), 200).await.json();
    app.charge(&buyer, 8).await;
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = asked(buyer.own(app.get(&format!("{path}?limit=3&cursor={cursor}"))), 200).await.json();
    let amounts: Vec<&Value> =
        second["items"].as_array().unwrap().iter().map(|entry| &entry["amount"]).collect();
    assert_eq!(amounts, [4, 3, 2]);
}

pub(crate) async fn impossible_amounts_are_refused(app: &TestApp) {
    let buyer = app.guest().await;
    app.charge(&buyer, 5).await;
    for amount in [
        "0",
        "-1",
        "-9223372036854775808",
        "10000001",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616",
        "99999999999999999999999999999999999999999999",
    ] {
        refused(charge_raw(app, &buyer, &format!("{{\"amount\": {amount}}}")), 422, "INVALID_AMOUNT").await;
    }
    for body in [
        "",
        "{",
        "{}",
        "[5]",
        "5",
        "{\"amount\": null}",
        "{\"amount\": \"5\"}",
        "{\"amount\": 1.5}",
        "{\"amount\": -0.5}",
        "{\"amount\": true}",
        "{\"amount\": [5]}",
        "{\"amount\": 5",
        "{\"amount\": 0x10}",
        "{\"amount\": 5}}",
    ] {
        refused(charge_raw(app, &buyer, body), 400, "MALFORMED_REQUEST").await;
    }
    let malformed_id = app.post("/accounts/no-uuid/charge", &json!({"amount": 5}));
    refused(buyer.own(malformed_id), 400, "MALFORMED_REQUEST").await;
    refused(buyer.own(app.get("/accounts/no-uuid")), 400, "MALFORMED_REQUEST").await;
    refused(buyer.own(app.get("/accounts/no-uuid/entries")), 400, "MALFORMED_REQUEST").await;
    assert_eq!(balance(app, &buyer).await, 5);
    assert_eq!(entries(app, &buyer).await.len(), 1);
}

pub(crate) async fn charges_that_meet_are_refused_never_lost_or_doubled(app: &TestApp) {
    for first in [false, true] {
        let buyer = app.guest().await;
        let start = if first { 0 } else { 1 };
        if !first {
            app.charge(&buyer, 1).await;
        }
        let path = format!("/accounts/{}/charge", buyer.user_id);
        let body = json!({"amount": 10});
        let answers = join_all((0..12).map(|_| ask(buyer.own(app.post(&path, &body))))).await;
        let mut won = 0;
        for answer in &answers {
            if answer.status == 200 {
                won += 1;
            } else {
                answer.problem(409, "ACCOUNT_CONFLICT");
            }
        }
        assert!(won >= 1);
        assert_eq!(balance(app, &buyer).await, start + 10 * won);
        let mut balances: Vec<i64> = answers
            .iter()
            .filter(|answer| answer.status == 200)
            .map(|answer| answer.json()["balance"].as_i64().unwrap())
            .collect();
        balances.sort_unstable();
        assert_eq!(balances, (1..=won).map(|n| start + 10 * n).collect::<Vec<_>>(), "each saw its own");
        let history = entries(app, &buyer).await;
        assert_eq!(i64::try_from(history.len()).unwrap(), won + start);
    }
}

pub(crate) async fn a_balance_never_overflows(database: &Database) {
    let app = TestApp::start(settings(database)).await;
    let buyer = app.guest().await;
    app.charge(&buyer, 1).await;
    let almost = i64::MAX - 100;
    database.execute(&format!("UPDATE accounts SET balance = {almost}")).await;
    app.stop().await;
    let app = TestApp::start(settings(database)).await;
    assert_eq!(balance(&app, &buyer).await, almost);
    refused(charge_raw(&app, &buyer, "{\"amount\": 101}"), 422, "INVALID_AMOUNT").await;
    assert_eq!(balance(&app, &buyer).await, almost);
    let receipt = sent(charge_raw(&app, &buyer, "{\"amount\": 100}"), 200).await;
    assert_eq!(receipt["balance"].as_i64(), Some(i64::MAX));
    refused(charge_raw(&app, &buyer, "{\"amount\": 1}"), 422, "INVALID_AMOUNT").await;
    app.stop().await;
}
