//! Lines as several nodes show them: two on PostgreSQL, one on SQLite.

use frontrow_testkit::app::{Buyer, Database, Sale, TestApp, settings};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    admin, ask, asked, becomes, dates_path, enter, patch_room, place, place_status, refused, room,
};

async fn nodes(database: &Database) -> Vec<TestApp> {
    let count = if matches!(database, Database::Postgres(_)) { 2 } else { 1 };
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(TestApp::start(settings(database)).await);
    }
    nodes
}

async fn stop(nodes: Vec<TestApp>) {
    for node in nodes {
        node.stop().await;
    }
}

/// People in line, in order, all of whom every node has seen waiting.
async fn crowd(nodes: &[TestApp], sale: &Sale, size: usize) -> Vec<Buyer> {
    let mut crowd = Vec::new();
    for _ in 0..size {
        crowd.push(nodes[0].waiting(sale).await);
    }
    for node in nodes {
        for buyer in &crowd {
            assert_eq!(place_status(node, buyer).await, "WAIT");
        }
    }
    crowd
}

async fn positions(node: &TestApp, crowd: &[Buyer]) -> Vec<u64> {
    let mut positions = Vec::new();
    for buyer in crowd {
        positions.push(place(node, buyer).await["position"].as_u64().unwrap());
    }
    positions
}

async fn gate_status(node: &TestApp, buyer: &Buyer, sale: &Sale) -> u16 {
    ask(buyer.own(node.get(&dates_path(sale)))).await.status
}

pub(crate) async fn an_admission_shows_at_once_where_it_was_made_and_soon_elsewhere(database: &Database) {
    let nodes = nodes(database).await;
    let sale = nodes[0].sale(json!({"mode": "HOLD"}), 1, 1).await;
    let crowd = crowd(&nodes, &sale, 3).await;
    for node in &nodes {
        assert_eq!(gate_status(node, &crowd[0], &sale).await, 301);
        becomes("positions", vec![1, 2, 3], async || positions(node, &crowd).await).await;
    }
    assert_eq!(nodes[0].admit(sale.room_id, 2).await, 2);
    assert_eq!(positions(&nodes[0], &crowd).await, [0, 0, 1]);
    assert_eq!(place_status(&nodes[0], &crowd[1]).await, "ACTIVE");
    assert_eq!(gate_status(&nodes[0], &crowd[1], &sale).await, 200);
    assert_eq!(gate_status(&nodes[0], &crowd[2], &sale).await, 301);
    for node in &nodes {
        becomes("positions", vec![0, 0, 1], async || positions(node, &crowd).await).await;
        becomes("the gate", 200, async || gate_status(node, &crowd[1], &sale).await).await;
    }
    stop(nodes).await;
}

pub(crate) async fn a_place_given_up_shows_at_once_where_it_was_and_soon_elsewhere(database: &Database) {
    let nodes = nodes(database).await;
    let sale = nodes[0].sale(json!({"mode": "HOLD"}), 1, 1).await;
    let crowd = crowd(&nodes, &sale, 4).await;
    asked(crowd[1].own(nodes[0].delete("/queue")), 204).await;
    assert_eq!(positions(&nodes[0], &crowd).await, [1, 0, 2, 3]);
    assert_eq!(place_status(&nodes[0], &crowd[1]).await, "EXPIRED");
    for node in &nodes {
        becomes("positions", vec![1, 0, 2, 3], async || positions(node, &crowd).await).await;
        assert_eq!(place_status(node, &crowd[1]).await, "EXPIRED");
    }
    stop(nodes).await;
}

pub(crate) async fn modes_take_effect_on_every_node(database: &Database) {
    let nodes = nodes(database).await;
    let last = nodes.last().unwrap();
    let sale = nodes[0].sale(json!({"admitIntervalSeconds": 600}), 1, 1).await;
    let crowd = crowd(&nodes, &sale, 2).await;
    let estimate = async |node: &TestApp| place(node, &crowd[1]).await["estimatedWaitSeconds"].clone();
    for (mode, admits) in [("HOLD", false), ("AUTO", true), ("CLOSED", false)] {
        asked(patch_room(&nodes[0], sale.room_id, &json!({"mode": mode})), 200).await;
        assert_eq!(estimate(&nodes[0]).await != Value::Null, admits, "{mode}: at once where it was changed");
        becomes(mode, admits, async || estimate(last).await != Value::Null).await;
    }
    let stranger = last.guest().await;
    refused(enter(last, &stranger, &sale), 503, "ROOM_CLOSED").await;
    asked(patch_room(&nodes[0], sale.room_id, &json!({"mode": "OPEN"})), 200).await;
    for node in &nodes {
        for buyer in &crowd {
            becomes("the waiter", "ACTIVE".to_owned(), async || place_status(node, buyer).await).await;
        }
    }
    asked(enter(last, &stranger, &sale), 201).await;
    assert_eq!(room(&nodes[0], sale.room_id).await["active"], 3);
    stop(nodes).await;
}

/// Whoever enters is told a position that no poll of that node raises, even right after it.
pub(crate) async fn what_entering_says_holds_for_polls(database: &Database) {
    let nodes = nodes(database).await;
    let sale = nodes[0].sale(json!({"mode": "HOLD"}), 1, 1).await;
    for n in 1..=8_u64 {
        let node = &nodes[usize::try_from(n).unwrap() % nodes.len()];
        let mut buyer = node.guest().await;
        let answer = asked(enter(node, &buyer, &sale), 201).await;
        buyer.wait_token = Some(answer.wait_token());
        let told = answer.json()["position"].as_u64().unwrap();
        assert_eq!(told, n, "nobody has left, so it is exact");
        assert_eq!(place(node, &buyer).await["position"], told);
        assert_eq!(answer.retry_after(), answer.json()["pollAfterSeconds"].as_u64().unwrap());
    }
    stop(nodes).await;
}

pub(crate) async fn an_abandoned_place_is_given_up(database: &Database) {
    let nodes = nodes(database).await;
    let sale = nodes[0].sale(json!({"admitBatch": 2}), 1, 1).await;
    let crowd = crowd(&nodes, &sale, 3).await;
    for (body, status) in [(json!({"waitGraceSeconds": 119}), 422), (json!({"waitGraceSeconds": 120}), 200)] {
        ask(patch_room(&nodes[0], sale.room_id, &body)).await.is(status);
    }
    assert_eq!(room(&nodes[0], sale.room_id).await["waitGraceSeconds"], 120);
    let (ghost, poller) = (&crowd[0], &crowd[1]);
    // Its holder was here, and then for longer than the grace no more. Clocks that start again undo that, hence again.
    let id = place(&nodes[0], ghost).await["tokenId"].as_str().unwrap().replace('-', "");
    let long_ago = match database {
        Database::Sqlite(_) => format!(
            "UPDATE queue_tokens SET last_seen_at = last_seen_at - 200000000 \
             WHERE hex(token_id) = upper('{id}') AND last_seen_at IS NOT NULL"
        ),
        Database::Postgres(_) => format!(
            "UPDATE queue_tokens SET last_seen_at = last_seen_at - INTERVAL '200 seconds' WHERE token_id = '{id}'"
        ),
    };
    becomes("the ghost", "EXPIRED".to_owned(), async || {
        database.execute(&long_ago).await;
        // Not a poll of its own: what the room counts.
        let gone = room(&nodes[0], sale.room_id).await["waiting"] == 2;
        if gone { place_status(&nodes[0], ghost).await } else { "WAIT".to_owned() }
    })
    .await;
    for node in &nodes {
        becomes("positions", vec![0, 1, 2], async || positions(node, &crowd).await).await;
        assert_eq!(place_status(node, poller).await, "WAIT", "who polls stays");
    }
    asked(patch_room(&nodes[0], sale.room_id, &json!({"waitGraceSeconds": null})), 200).await;
    let rooms = asked(admin(&nodes[0], Method::GET, "/admin/rooms"), 200).await.json();
    assert!(rooms["items"].as_array().unwrap().iter().all(|room| room["waitGraceSeconds"].is_null()));
    stop(nodes).await;
}
