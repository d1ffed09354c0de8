//! How the row of the incarnation tells that it does not belong where it is (ADR 0018).

use frontrow_domain::Incarnation;
use frontrow_domain::ports::QueueQueries;
use frontrow_infra::postgres::Postgres;
use frontrow_testkit::postgres::{Cluster, TestDatabase};

use crate::{MIGRATED, Opened, options};

async fn incarnation(postgres: &Postgres) -> Incarnation {
    postgres.lines().await.unwrap().incarnation
}

/// What the server says now of the place of the row.
const PLACE: &str = "SELECT count(*) FROM incarnation WHERE system_identifier = \
    (SELECT system_identifier FROM pg_control_system()) AND timeline = (SELECT timeline_id FROM pg_control_checkpoint())";

#[tokio::test]
async fn the_first_node_notes_where_the_data_lives() {
    let Some(opened) = Opened::new(options()).await else { return };
    assert_eq!(opened.database.query_i64(PLACE).await.unwrap(), 0);
    let first = incarnation(&opened.postgres).await;
    assert_eq!(opened.database.query_i64(PLACE).await.unwrap(), 1);
    for _ in 0..3 {
        assert_eq!(incarnation(&opened.postgres).await, first);
    }
    let restarted = Postgres::connect(opened.database.url(), options()).await.unwrap();
    assert_eq!(incarnation(&restarted).await, first, "another process begins none");
}

/// Whether a change of the row, as it is seen by two nodes, begins one incarnation.
async fn begins_one(database: &TestDatabase, nodes: &[Postgres; 2], change: &str) {
    let before = incarnation(&nodes[0]).await;
    assert_eq!(incarnation(&nodes[1]).await, before);
    database.execute(change).await.unwrap();
    let (one, other) = tokio::join!(incarnation(&nodes[0]), incarnation(&nodes[1]));
    assert_eq!(one, other, "{change}");
    assert_ne!(one.id, before.id, "{change}");
    assert!(one.started_at > before.started_at, "{change}");
    assert_eq!(incarnation(&nodes[0]).await, one, "{change}");
}

#[tokio::test]
async fn a_row_that_was_copied_or_is_of_another_server_ends_the_incarnation() {
    let Some(opened) = Opened::new(options()).await else { return };
    let second = Postgres::connect(opened.database.url(), options()).await.unwrap();
    let nodes = [opened.postgres.clone(), second];
    incarnation(&nodes[0]).await;
    let copied = "CREATE TABLE dump AS TABLE incarnation; DELETE FROM incarnation; \
                  INSERT INTO incarnation SELECT * FROM dump; DROP TABLE dump";
    begins_one(&opened.database, &nodes, copied).await;
    let written_here = "written_by = pg_current_xact_id()::text::bigint";
    for change in ["system_identifier = system_identifier - 1", "timeline = timeline + 1"] {
        let change = format!("UPDATE incarnation SET {change}, {written_here}");
        begins_one(&opened.database, &nodes, &change).await;
    }
    // The control: what changes nothing of the place begins none.
    let before = incarnation(&nodes[0]).await;
    let same = format!("UPDATE incarnation SET timeline = timeline, {written_here}");
    opened.database.execute(&same).await.unwrap();
    opened.database.execute("VACUUM (FULL, FREEZE) incarnation").await.unwrap();
    assert_eq!(incarnation(&nodes[0]).await, before);
}

#[tokio::test]
async fn a_standby_that_is_promoted_begins_an_incarnation() {
    let Some(cluster) = Cluster::start_private().await else { return };
    let database = cluster.database(&MIGRATED).await;
    let node = Postgres::connect(database.url(), options()).await.unwrap();
    let before = incarnation(&node).await;
    cluster.stop_immediate().await;
    cluster.start().await;
    let node = Postgres::connect(database.url(), options()).await.unwrap();
    assert_eq!(incarnation(&node).await, before, "the control: a server that was only restarted is the same");
    assert_eq!(incarnation(&node).await, before);

    cluster.stop_immediate().await;
    let signal = cluster.directory().unwrap().join("data/standby.signal");
    std::fs::write(signal, "").unwrap();
    cluster.start().await;
    assert!(Postgres::connect(database.url(), options()).await.is_err(), "no node works on a standby");
    database.execute("SELECT pg_promote(true, 60)").await.unwrap();
    let node = Postgres::connect(database.url(), options()).await.unwrap();
    let after = incarnation(&node).await;
    assert_ne!(after.id, before.id);
    assert_eq!(incarnation(&node).await, after);
}

/// A role without any right but those on the tables.
#[tokio::test]
async fn a_plain_role_may_ask_where_the_data_lives() {
    let Some(opened) = Opened::new(options()).await else { return };
    let asked = "DO $$ BEGIN \
        CREATE ROLE plain_asker NOLOGIN; SET LOCAL ROLE plain_asker; \
        PERFORM system_identifier FROM pg_control_system(); \
        PERFORM pg_walfile_name(pg_current_wal_lsn()); \
        RESET ROLE; DROP ROLE plain_asker; END $$";
    opened.database.execute(asked).await.unwrap();
}
