//! A node stands still in the middle of a transaction, with its locks: its machine is frozen, or overwhelmed.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

use crate::crowd::{Api, newcomer};
use crate::node::Node;
use crate::postgres::trial;
use crate::trial::{Trial, kills};

/// How long it may take to meet it in such a moment, and what another node does meanwhile.
const PATIENCE: Duration = Duration::from_secs(90);

const LOCKED_LINES: &str = "\
    SELECT (SELECT count(*) FROM lines) - (SELECT count(*) FROM (SELECT FROM lines FOR UPDATE SKIP LOCKED) AS free)";

/// Stops the node while it has the lock of the line.
async fn stop_within_a_join(trial: &Trial) {
    let begun = Instant::now();
    loop {
        trial.node.stand_still(true);
        // What it has sent is done by now, and what others did with the line is over.
        sleep(Duration::from_millis(50)).await;
        if trial.database.query_i64(LOCKED_LINES).await > 0 {
            return;
        }
        trial.node.stand_still(false);
        sleep(Duration::from_millis(5)).await;
        assert!(begun.elapsed() < PATIENCE, "it was never met with a lock");
    }
}

/// Another node goes on once the server has let the locks go. Nobody has continued the first one by then; when it goes on,
/// it has lost nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stands_still_stops_no_other() {
    let Some((_cluster, mut trial)) = trial("node standing still").await else { return };
    let mut other = Node::new(&trial.database.url());
    other.start().await;
    let api = Api::new(other.base());
    trial.crowd(PATIENCE).await;
    for _ in 0..kills().div_ceil(4) {
        stop_within_a_join(&trial).await;
        let mut life = newcomer(rand::random());
        let body = json!({"concertId": trial.sale.concert_id});
        let join = || api.request(Method::POST, "/queue", &life).json(&body);
        let joined = trial.notes().settle("join", PATIENCE, join).await.expect("an answer");
        assert_eq!(joined.status, 201, "{}", joined.body);
        life.wait_token = joined.wait_token;
        trial.lookers.push(life);
        trial.node.stand_still(false);
        trial.goes_on().await;
    }
    trial.close().await;
}
