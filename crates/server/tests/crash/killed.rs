//! The node itself is killed, at any moment: while it works, and while it starts.

use frontrow_testkit::app::Database;
use frontrow_testkit::postgres::Cluster;
use rand::RngExt;
use std::time::Duration;

use crate::trial::{Trial, kills};

async fn a_node_that_is_killed_keeps_its_word(name: &'static str, database: Database) {
    let url = database.url();
    let mut trial = Trial::open(name, database, &url).await;
    trial.crowd(Duration::ZERO).await;
    for kill in 0..kills() {
        trial.a_moment(800).await;
        trial.node.kill();
        if trial.chance.random_ratio(1, 3) {
            trial.node.spawn();
            trial.a_moment(300).await;
            trial.node.kill();
        }
        // As the crash left it; every other time the node is the first to look at it again.
        if kill % 2 == 0 {
            trial.assert_audit();
        }
        trial.node.start().await;
        trial.goes_on().await;
    }
    assert!(trial.heard("unknown (connection lost)") > 0, "it was never killed in the middle of a request");
    trial.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_keeps_its_word_on_sqlite() {
    a_node_that_is_killed_keeps_its_word("node killed, SQLite", Database::sqlite()).await;
}

/// On a server that loses nothing itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_keeps_its_word_on_postgres() {
    let Some(cluster) = Cluster::start_private().await else { return };
    a_node_that_is_killed_keeps_its_word("node killed, PostgreSQL", Database::on(&cluster).await).await;
}
