//! The checks themselves: what they are there to find is found.

use std::time::Duration;

use frontrow_testkit::app::Database;
use frontrow_testkit::postgres::Cluster;
use serde_json::Value;
use tokio::time::sleep;
use uuid::Uuid;

use crate::check::check;
use crate::told::{Answer, Told, Tries};
use crate::trial::{Trial, say};

fn answer(replayed: bool) -> Told {
    Told::Answer(Answer { status: 200, replayed, wait_token: None, body: Value::Null })
}

/// Whoever was told that nothing was changed, and then gets the answer of the first try, was told the untruth.
#[test]
fn an_effect_that_was_denied_is_noticed() {
    let noted = |tries: &[Told]| {
        let mut noted = Tries::default();
        tries.iter().try_for_each(|told| noted.note(told))
    };
    assert!(noted(&[Told::Unavailable, answer(true)]).is_err());
    assert!(noted(&[Told::NotSent, Told::Unavailable, answer(true)]).is_err());
    noted(&[Told::Unavailable, answer(false)]).unwrap();
    noted(&[Told::Unavailable, Told::Unknown, answer(true)]).unwrap();
    noted(&[Told::Unknown, Told::Unavailable, answer(false)]).unwrap();
}

/// An acknowledgement too many is a loss, an effect too many a surplus, half an effect both and a breach of the audit.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_doubled_or_half_is_found() {
    let database = Database::sqlite();
    let url = database.url();
    let mut trial = Trial::open("control", database, &url).await;
    trial.crowd(Duration::ZERO).await;
    trial.goes_on().await;
    let account = trial.account().await;
    assert!(account.differences.is_empty() && account.audit.is_none(), "{:#?}", account.differences);
    let lives = account.lives;
    let buyer = lives.iter().position(|life| life.of("DONE").next().is_some()).expect("somebody bought");

    // Acknowledged, and never written.
    let mut told = lives.clone();
    told[buyer].charges.push((Uuid::from_u128(7), 5));
    let found = check(&trial.api, &trial.database, &trial.sale, &told).await;
    assert!(found.lost.iter().any(|line| line.contains(&Uuid::from_u128(7).to_string())), "{found:#?}");

    // Written, and never acknowledged.
    let mut told = lives.clone();
    let forgotten = told[buyer].charges.pop().unwrap();
    let found = check(&trial.api, &trial.database, &trial.sale, &told).await;
    assert!(found.surplus.iter().any(|line| line.contains(&forgotten.0.to_string())), "{found:#?}");

    // Half of a payment.
    let ticket = "DELETE FROM tickets WHERE ticket_id = (SELECT min(ticket_id) FROM tickets)";
    trial.database.execute(ticket).await;
    let found = check(&trial.api, &trial.database, &trial.sale, &lives).await;
    assert!(!found.lost.is_empty(), "{found:#?}");
    assert_eq!(trial.node.run("audit").status.code(), Some(1), "the audit finds it too");
}

/// A database that acknowledges before it is durable loses something in a crash, and it is found.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_may_lose_is_found_out() {
    let Some(cluster) = Cluster::start_private().await else { return };
    let database = Database::on(&cluster).await;
    // Before the node's sessions begin: what is committed is written to the disk by the way, if nothing comes between.
    let name = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$";
    database.execute(name).await;
    database.execute("ALTER SYSTEM SET wal_writer_delay = '10s'").await;
    database.execute("ALTER SYSTEM SET wal_writer_flush_after = '1GB'").await;
    database.execute("SELECT pg_reload_conf()").await;
    let url = database.url();
    let mut trial = Trial::open("control: synchronous_commit = off", database, &url).await;
    trial.crowd(Duration::ZERO).await;
    sleep(Duration::from_secs(1)).await;
    cluster.stop_immediate().await;
    cluster.start().await;
    trial.node.becomes_ready().await;
    let account = trial.account().await;
    let lost = account.differences.lost.len();
    say(&format!("control: {lost} losses were found, {:?}", account.differences.lost.first()));
    assert!(lost > 0, "a database that loses was taken for one that does not");
}
