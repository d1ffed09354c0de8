//! How often somebody may call, where that is configured.

use std::net::{IpAddr, Ipv4Addr};

use frontrow::app::Settings;
use frontrow::http::ClientRules;
use frontrow_api::RateRules;
use frontrow_testkit::app::{Database, TestApp, settings};
use futures_util::future::join_all;
use reqwest::{Client, Method};
use serde_json::json;

use crate::support::{Answer, ask, asked};

/// Few enough that a slow machine earns nothing new during a test.
const FEW: &str = "5/m";

fn limited(database: &Database, rates: RateRules) -> Settings {
    Settings { clients: ClientRules { rates, ..ClientRules::default() }, ..settings(database) }
}

#[track_caller]
fn is_limited(answer: &Answer) {
    answer.problem(429, "RATE_LIMITED");
    let wait = answer.retry_after();
    assert!((1..=60).contains(&wait), "Retry-After: {wait}");
}

async fn statuses(answers: impl IntoIterator<Item = impl Future<Output = Answer>>) -> (usize, usize) {
    let answers = join_all(answers).await;
    let limited: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    limited.iter().for_each(|answer| is_limited(answer));
    (answers.len() - limited.len(), limited.len())
}

/// The control: nothing is limited unless it is said.
pub(crate) async fn nobody_is_limited_by_default(app: &TestApp) {
    let me = app.guest().await;
    let own = format!("/accounts/{}", me.user_id);
    let calls = (0..100).map(|_| ask(me.own(app.get(&own))));
    assert_eq!(statuses(calls).await, (100, 0));
    let sessions = (0..50).map(|_| ask(app.request(Method::POST, "/sessions")));
    assert_eq!(statuses(sessions).await, (50, 0));
}

pub(crate) async fn a_caller_has_its_rate(database: &Database) {
    let rates = RateRules { per_caller: Some(FEW.parse().unwrap()), ..RateRules::default() };
    let app = TestApp::start(limited(database, rates)).await;
    let (me, other) = (app.guest().await, app.guest().await);
    let own = format!("/accounts/{}", me.user_id);
    assert_eq!(statuses((0..20).map(|_| ask(me.own(app.get(&own))))).await, (5, 15));
    // Whatever it calls next, a charge among them: nothing is done.
    is_limited(&ask(me.own(app.post(&format!("{own}/charge"), &json!({"amount": 5})))).await);
    is_limited(&ask(me.own(app.post("/queue", &json!({})))).await);
    // The rate is the user's, and not that of one token or connection.
    asked(other.own(app.get(&format!("/accounts/{}", other.user_id))), 200).await;
    // No limit without a caller: 401 comes first, and public calls have none.
    asked(app.get(&own), 401).await;
    for _ in 0..10 {
        asked(app.get("/concerts"), 200).await;
        asked(app.get("/readyz"), 200).await;
    }
    app.stop().await;
}

pub(crate) async fn an_address_has_its_rate_before_anything_else(database: &Database) {
    let rates = RateRules { per_address: Some(FEW.parse().unwrap()), ..RateRules::default() };
    let app = TestApp::start(limited(database, rates)).await;
    let sessions = (0..12).map(|_| ask(app.request(Method::POST, "/sessions")));
    assert_eq!(statuses(sessions).await, (5, 7), "a guest session is limited by address alone");
    // Before it is known who calls, and whether there is such a path.
    is_limited(&ask(app.get("/reservations").bearer_auth("forged")).await);
    is_limited(&ask(app.get("/nothing")).await);
    is_limited(&ask(app.request(Method::PUT, "/queue")).await);
    is_limited(&ask(app.post("/pay", &json!({}))).await);
    is_limited(&ask(app.get("/openapi.json")).await);
    // A body that nobody reads any more does not keep the answer from coming.
    is_limited(&ask(app.request(Method::POST, "/pay").body(vec![b'x'; 200_000])).await);
    // Machines that look after it are not limited.
    for path in ["/healthz", "/readyz"] {
        asked(app.get(path), 200).await;
    }
    // Nobody becomes another address by saying so.
    for name in ["X-Forwarded-For", "Forwarded"] {
        is_limited(&ask(app.get("/concerts").header(name, "for=198.51.100.7")).await);
        is_limited(&ask(app.get("/concerts").header(name, "198.51.100.7")).await);
    }
    // Another address is another client.
    let elsewhere = Client::builder().no_proxy().local_address(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)));
    let elsewhere = elsewhere.build().unwrap();
    assert_eq!(elsewhere.get(app.url("/concerts")).send().await.unwrap().status(), 200);
    // Paths that are refused before they are routed count as well.
    let encoded = (0..12).map(|_| elsewhere.get(app.url("/%63oncerts")).send());
    let encoded: Vec<_> =
        join_all(encoded).await.into_iter().map(|answer| answer.unwrap().status()).collect();
    assert_eq!(encoded.iter().filter(|status| **status == 400).count(), 4);
    assert_eq!(encoded.iter().filter(|status| **status == 429).count(), 8);
    app.stop().await;
}

pub(crate) async fn a_trusted_proxy_names_its_client(database: &Database) {
    let rates = RateRules {
        per_address: Some(FEW.parse().unwrap()),
        trusted_proxies: "127.0.0.0/8".parse().unwrap(),
        ..RateRules::default()
    };
    let app = TestApp::start(limited(database, rates)).await;
    let from = |list: &str| ask(app.get("/concerts").header("X-Forwarded-For", list));
    assert_eq!(statuses((0..8).map(|_| from("198.51.100.1"))).await, (5, 3));
    // What stands to the left of it, the client may have written.
    assert_eq!(statuses((0..8).map(|n| from(&format!("203.0.113.{n}, 198.51.100.1")))).await, (0, 8));
    assert_eq!(statuses((0..8).map(|_| from("198.51.100.2"))).await, (5, 3), "another client");
    let subscriber = (0..8).map(|n| from(&format!("2001:db8:1:2::{n}")));
    assert_eq!(statuses(subscriber).await, (5, 3), "one /64 is one client");
    app.stop().await;
}
