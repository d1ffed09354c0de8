//! Readiness over HTTP: what it says of storage, of the background passes and of other nodes.

use std::time::{Duration, Instant};

use frontrow::app::Settings;
use frontrow_app::HoldRules;
use frontrow_domain::account::WalletCharging;
use frontrow_testkit::app::{Database, TestApp, own_tokens, settings};
use serde_json::{Value, json};

use crate::support::{ask, asked, becomes, eventually};

/// The checks of one kind.
fn checks<'a>(answer: &'a Value, kind: &str) -> Vec<&'a Value> {
    answer["checks"].as_array().unwrap().iter().filter(|check| check["kind"] == kind).collect()
}

pub(crate) async fn readiness_tells_the_age_of_every_pass(app: &TestApp) {
    let answer = asked(app.get("/readyz"), 200).await.json();
    assert_eq!(answer["status"], "ok");
    assert_eq!(checks(&answer, "storage"), [&json!({"kind": "storage", "name": "storage", "status": "ok"})]);
    let passes = checks(&answer, "pass");
    for name in ["lines", "admission", "abandonment", "expiry", "seat maps", "pruning", "clock"] {
        let pass = passes.iter().find(|pass| pass["name"] == name);
        let pass = pass.unwrap_or_else(|| panic!("no {name} in {answer}"));
        assert_eq!(pass["status"], "ok", "{pass}");
        assert!(pass["ageSeconds"].as_f64().unwrap() < pass["lateAfterSeconds"].as_f64().unwrap(), "{pass}");
    }
}

pub(crate) async fn a_database_without_a_table_is_not_ready(database: &Database) {
    let app = TestApp::start(settings(database)).await;
    asked(app.get("/readyz"), 200).await;
    let drop = match database {
        Database::Sqlite(_) => "DROP TABLE tickets",
        Database::Postgres(_) => "DROP TABLE tickets CASCADE",
    };
    database.execute(drop).await;
    // Another process has written to the file: a snapshot that is kept for a moment does not show it.
    let until = Instant::now() + Duration::from_secs(10);
    let mut answer = ask(app.get("/readyz")).await;
    while answer.status != 503 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer = ask(app.get("/readyz")).await;
    }
    let problem = answer.problem(503, "UNAVAILABLE");
    assert!(problem["detail"].as_str().unwrap().contains("table tickets is missing"), "{problem}");
    assert_eq!(checks(&problem, "storage")[0]["status"], "failed");
    assert_eq!(
        checks(&problem, "pass").len(),
        checks(&problem, "pass").iter().filter(|c| c["status"] == "ok").count()
    );
    app.stop().await;
}

/// SQLite alone: nothing of the kind can be done to a server.
#[tokio::test(flavor = "multi_thread")]
async fn a_served_file_that_is_moved_takes_and_shows_nothing_until_it_is_back() {
    let database = Database::sqlite();
    let Database::Sqlite(folder) = &database else { unreachable!() };
    let (here, away) = (folder.path().join("test.db"), folder.path().join("away.db"));
    let app = TestApp::start(settings(&database)).await;
    let buyer = app.guest().await;
    app.charge(&buyer, 5).await;
    let path = format!("/accounts/{}", buyer.user_id);
    let charge = || buyer.own(app.post(&format!("{path}/charge"), &json!({"amount": 7})));

    std::fs::rename(&here, &away).unwrap();
    ask(charge()).await.problem(503, "UNAVAILABLE");
    ask(buyer.own(app.get(&path))).await.problem(503, "UNAVAILABLE");
    let problem = ask(app.get("/readyz")).await.problem(503, "UNAVAILABLE");
    assert!(problem["detail"].as_str().unwrap().contains("moved"), "{problem}");

    std::fs::rename(&away, &here).unwrap();
    becomes("ready again", 200, async || ask(app.get("/readyz")).await.status).await;
    asked(charge(), 200).await;
    assert_eq!(asked(buyer.own(app.get(&path)), 200).await.json()["balance"], 12, "refused is not done");

    // Another file in its place, even one with the same content, is not the one that was opened.
    std::fs::copy(&here, &away).unwrap();
    std::fs::rename(&away, &here).unwrap();
    let noticed = async || ask(app.get("/readyz")).await.status;
    becomes("not ready", 503, noticed).await;
    ask(charge()).await.problem(503, "UNAVAILABLE");
    app.stop().await;
}

fn others(answer: &Value) -> Vec<String> {
    checks(answer, "node").iter().map(|node| node["detail"].as_str().unwrap().to_owned()).collect()
}

/// PostgreSQL alone: a file has one node.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_differ_are_listed_by_each_other_and_stay_ready() {
    let Some(database) = Database::postgres().await else { return };
    let first = TestApp::start(settings(&database)).await;
    let ready = async |node: &TestApp| others(&asked(node.get("/readyz"), 200).await.json());
    assert_eq!(ready(&first).await, [""; 0], "control");
    let second = TestApp::start(Settings {
        tokens: own_tokens("another secret for tests and nothing else", &[]),
        wallet_charging: WalletCharging::Cashier,
        hold_rules: HoldRules { hold_seconds: 60, max_seats_per_user: 4 },
        ..settings(&database)
    })
    .await;
    let expected = "differs from this node in secret, holdSeconds, walletCharging";
    for node in [&first, &second] {
        let found = eventually("the difference", async || {
            tokio::time::sleep(Duration::from_millis(100)).await;
            ready(node).await.pop()
        })
        .await;
        assert_eq!(found, expected);
    }
    second.stop().await;
    becomes("agreement", Vec::<String>::new(), async || ready(&first).await).await;
    first.stop().await;
}
