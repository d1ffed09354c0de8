//! Clocks that step under the binary (ADR 0017): the time of day of one of two nodes, of the only node, and of the database.

use std::time::Duration;

use frontrow_domain::Timestamp;
use frontrow_infra::clock::SystemClock;
use frontrow_testkit::app::{Buyer, Database, Sale, TestApp, admin_token, all_nodes_know, sent};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::shimmed::{Node, Shim};
use crate::until;

const HOUR: i64 = 3_600;

/// A sale of one room for itself, and what people have in it.
struct Stage {
    sale: Sale,
    holder: Buyer,
    reservation: String,
}

/// A room that ticks every ten minutes, one buyer ACTIVE with a hold, and a date that is not on sale yet.
async fn stage(app: &TestApp) -> Stage {
    let sale = app.sale(json!({"admitIntervalSeconds": 600, "activeTtlSeconds": 600}), 1, 4).await;
    let holder = app.active(&sale).await;
    let seats = app.seats(&holder, &sale).await;
    let reservation = format!("/reservations/{}", app.hold(&holder, &sale, &seats[..1]).await);
    Stage { sale, holder, reservation }
}

/// A date of the stage's concert that goes on sale in half an hour, with one seat.
async fn sold_later(app: &TestApp, sale: &Sale) -> Sale {
    let now = SystemClock::uncorrected();
    let section = json!({"section": "B", "grade": "R", "price": 100, "rows": 1, "seatsPerRow": 1});
    let date = json!({"startsAt": now.plus_seconds(86_400).to_string(), "onSaleAt": now.plus_seconds(1_800).to_string(),
        "sections": [section]});
    let path = format!("/admin/concerts/{}/performanceDates", sale.concert_id);
    let made = sent(app.post(&path, &date).bearer_auth(admin_token()), 201).await;
    Sale { date_id: frontrow_testkit::app::id(&made, "performanceDateId"), ..*sale }
}

async fn queue_status(app: &TestApp, buyer: &Buyer) -> Value {
    sent(buyer.own(app.get("/queue")), 200).await["status"].take()
}

async fn next_tick(app: &TestApp, sale: &Sale) -> Timestamp {
    let rooms = sent(app.get("/admin/rooms?limit=100").bearer_auth(admin_token()), 200).await;
    let rooms = rooms["items"].as_array().unwrap().clone();
    let room = rooms.into_iter().find(|room| room["roomId"] == sale.room_id.to_string()).unwrap();
    Timestamp::parse(room["nextTickAt"].as_str().unwrap()).unwrap()
}

/// The control of every test here: the shim steps the time of day of other programs, and that of the binary.
#[test]
fn the_shim_steps_the_time_of_day() {
    let Some(shim) = Shim::compile() else { return };
    shim.step(HOUR);
    let now = SystemClock::uncorrected().unix_micros() / 1_000_000;
    let date = shim.command("date").arg("+%s").output().unwrap();
    let date: i64 = String::from_utf8(date.stdout).unwrap().trim().parse().unwrap();
    assert!((HOUR - 60..HOUR + 60).contains(&(date - now)), "{date} {now}");

    let mut audit = shim.command(env!("CARGO_BIN_EXE_frontrow"));
    let migrated = shim.command(env!("CARGO_BIN_EXE_frontrow")).arg("migrate").status().unwrap();
    assert!(migrated.success());
    let report = audit.args(["audit", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    let at = Timestamp::parse(report["auditedAt"].as_str().unwrap()).unwrap();
    let ahead = at.unix_micros() / 1_000_000 - now;
    assert!((HOUR - 60..HOUR + 60).contains(&ahead), "the time of day reaches the binary: {ahead}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_one_nodes_time_of_day_changes_nothing() {
    let Some(shim) = Shim::compile() else { return };
    let Some(database) = Database::postgres().await else { return };
    let steady = Shim::compile().unwrap();
    let (other, stepped) = (Node::start(&steady, &database), Node::start(&shim, &database));
    let Stage { sale, holder, reservation } = stage(&stepped.app).await;
    let later = sold_later(&stepped.app, &sale).await;
    let tick = next_tick(&stepped.app, &sale).await;
    for step in [HOUR, -HOUR] {
        shim.step(step);
        // Admitted through the node that is stepped, while it is.
        let admitted = stepped.app.active(&sale).await;
        // Longer than between two comparisons of the clocks, and many sweeps.
        sleep(Duration::from_secs(12)).await;
        for app in [&stepped.app, &other.app] {
            assert_eq!(queue_status(app, &holder).await, "ACTIVE", "{step}");
            assert_eq!(queue_status(app, &admitted).await, "ACTIVE", "{step}");
            let held = sent(holder.own(app.get(&reservation)), 200).await;
            assert_eq!(held["status"], "RESERVED", "{step}");
            let seats = app.seats(&admitted, &later).await;
            let early = sent(app.reserve(&admitted, &later, &seats), 409).await;
            assert_eq!(early["code"], "NOT_ON_SALE", "{step}");
        }
        assert_eq!(next_tick(&other.app, &sale).await, tick, "{step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_goes_on_when_the_day_changes_under_the_embedded_file() {
    let Some(shim) = Shim::compile() else { return };
    let database = Database::sqlite();
    let node = Node::start(&shim, &database);
    let Stage { holder, reservation, .. } = stage(&node.app).await;
    let room = json!({"admitBatch": 1, "admitIntervalSeconds": 1, "activeTtlSeconds": 600});
    let sale = node.app.sale(room, 1, 1).await;
    shim.step(24 * HOUR);
    sleep(Duration::from_secs(3)).await;
    let during = node.app.waiting(&sale).await;
    until("admitted on the wrong day", async || queue_status(&node.app, &during).await == "ACTIVE").await;
    shim.step(0);
    let after = node.app.waiting(&sale).await;
    until("admitted after it", async || queue_status(&node.app, &after).await == "ACTIVE").await;
    assert_eq!(queue_status(&node.app, &holder).await, "ACTIVE");
    assert_eq!(sent(holder.own(node.app.get(&reservation)), 200).await["status"], "RESERVED");
}

/// A clock of the database that can be stepped: found before the system's own.
const OWN_CLOCK: &str = "
    CREATE TABLE stepped (seconds BIGINT NOT NULL);
    INSERT INTO stepped VALUES (0);
    CREATE FUNCTION public.clock_timestamp() RETURNS TIMESTAMPTZ LANGUAGE sql VOLATILE AS
        'SELECT pg_catalog.clock_timestamp() + seconds * interval ''1 second'' FROM public.stepped';
    DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database()); END $$";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_swept_while_the_databases_clock_is_not_confirmed() {
    let Some(shim) = Shim::compile() else { return };
    let Some(database) = Database::postgres().await else { return };
    database.execute(OWN_CLOCK).await;
    let node = Node::start(&shim, &database);
    let Stage { holder, reservation, .. } = stage(&node.app).await;
    let room = json!({"admitBatch": 1, "admitIntervalSeconds": 1, "activeTtlSeconds": 600});
    let sale = node.app.sale(room, 1, 1).await;
    let before = node.app.waiting(&sale).await;
    until("admitted before", async || queue_status(&node.app, &before).await == "ACTIVE").await;

    database.execute("UPDATE stepped SET seconds = 3600").await;
    until("the step is noticed", async || node.has_logged("the reference clock has stepped")).await;
    let during = node.app.waiting(&sale).await;
    sleep(Duration::from_secs(4)).await;
    assert_eq!(queue_status(&node.app, &during).await, "WAIT", "the node pauses");
    assert_eq!(queue_status(&node.app, &holder).await, "ACTIVE");
    assert_eq!(sent(holder.own(node.app.get(&reservation)), 200).await["status"], "RESERVED");

    database.execute("UPDATE stepped SET seconds = 0").await;
    until("the step is over", async || node.has_logged("the step of the reference clock is over")).await;
    until("admitted after it", async || queue_status(&node.app, &during).await == "ACTIVE").await;
    all_nodes_know().await;
    assert_eq!(queue_status(&node.app, &holder).await, "ACTIVE");
    assert_eq!(sent(holder.own(node.app.get(&reservation)), 200).await["status"], "RESERVED");
}
