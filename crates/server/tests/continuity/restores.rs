//! Data that goes back (ADR 0018): a dump that is restored under running nodes, and a copy of a file that is put back while
//! none runs.

use frontrow_testkit::app::{Buyer, Database, Sale, TestApp, admin_token, execute_sqlite, sent, settings};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::until;

/// A dump of all tables, in a schema of its own.
const DUMP: &str = "
    CREATE SCHEMA dump;
    DO $$ DECLARE name TEXT; BEGIN
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
            EXECUTE format('CREATE TABLE dump.%I AS TABLE public.%I', name, name);
        END LOOP;
    END $$";
/// What `pg_restore --clean` comes to: every row is replaced by the one that was dumped, but for those of one table.
fn restore(spared: &str) -> String {
    format!(
        "DO $$ DECLARE name TEXT; columns TEXT; BEGIN
            PERFORM set_config('session_replication_role', 'replica', true);
            FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> '{spared}' LOOP
                EXECUTE format('DELETE FROM public.%I', name);
                SELECT string_agg(quote_ident(attname), ', ') INTO columns FROM pg_attribute
                    WHERE attrelid = format('public.%I', name)::regclass AND attnum > 0 AND NOT attisdropped
                    AND attgenerated = '';
                EXECUTE format('INSERT INTO public.%I (%s) SELECT %s FROM dump.%I', name, columns, columns, name);
            END LOOP;
        END $$"
    )
}

async fn looked_up(app: &TestApp, buyer: &Buyer) -> (StatusCode, Value) {
    let response = buyer.own(app.get("/queue")).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn position(app: &TestApp, buyer: &Buyer) -> u64 {
    let (status, body) = looked_up(app, buyer).await;
    assert_eq!(status, 200, "{body}");
    body["position"].as_u64().unwrap()
}

async fn is_gone(app: &TestApp, buyer: &Buyer) -> bool {
    let (status, body) = looked_up(app, buyer).await;
    let is_gone = status == 401;
    if is_gone {
        assert_eq!(body["code"], "WAIT_TOKEN_INVALID", "{body}");
        assert!(body["detail"].as_str().unwrap().contains("enter the waiting room again"), "{body}");
    }
    is_gone
}

/// The status of joining the line of a sale.
async fn joins(app: &TestApp, buyer: &Buyer, sale: &Sale) -> StatusCode {
    let request = app.post("/queue", &json!({"concertId": sale.concert_id})).bearer_auth(&buyer.access_token);
    request.send().await.unwrap().status()
}

async fn goes_back(restore: &str) {
    let Some(database) = Database::postgres().await else { return };
    let nodes = [TestApp::start(settings(&database)).await, TestApp::start(settings(&database)).await];
    let [one, other] = &nodes;
    let sale = one.sale(json!({"admitIntervalSeconds": 3_600}), 1, 4).await;
    let (buyer, onlooker) = (one.active(&sale).await, one.active(&sale).await);
    let waiters = [one.waiting(&sale).await, one.waiting(&sale).await];
    let seats = one.seats(&buyer, &sale).await;
    database.execute(DUMP).await;

    // All of this is lost: a purchase, which ends the buyer's token; a place that is left, one that is taken; a concert.
    one.charge(&buyer, 1_000).await;
    let reservation = one.hold(&buyer, &sale, &seats[..3]).await;
    sent(one.pay(&buyer, reservation), 200).await;
    assert_eq!(waiters[0].own(one.delete("/queue")).send().await.unwrap().status(), 204);
    let lost = one.waiting(&sale).await;
    let concert = one.sale(json!({}), 1, 1).await;
    one.waiting(&concert).await;
    for app in &nodes {
        until("the nodes know it", async || {
            let paid = looked_up(app, &buyer).await.1["status"] == "EXPIRED";
            paid && position(app, &waiters[1]).await == 1 && app.seats(&onlooker, &sale).await.len() == 1
        })
        .await;
        assert_eq!(position(app, &lost).await, 2);
        assert_ne!(joins(app, &app.guest().await, &concert).await, 404);
    }

    database.execute(restore).await;
    for app in &nodes {
        until("the buyer is ACTIVE again", async || looked_up(app, &buyer).await.1["status"] == "ACTIVE")
            .await;
        until("positions go back", async || position(app, &waiters[1]).await == 2).await;
        until("the lost place is gone", async || is_gone(app, &lost).await).await;
        until("all seats are free", async || app.seats(&buyer, &sale).await.len() == 4).await;
        until("the concert is gone", async || joins(app, &app.guest().await, &concert).await == 404).await;
    }
    assert_eq!(joins(other, &lost, &sale).await, 201, "a place at the tail");
    assert_eq!(joins(other, &buyer, &sale).await, 200);
    let reservation = other.hold(&buyer, &sale, &seats[..1]).await;
    one.charge(&buyer, 1_000).await;
    sent(one.pay(&buyer, reservation), 200).await;
    for app in nodes {
        app.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_follow_a_dump_that_is_restored_under_them() {
    goes_back(&restore("")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_follow_data_that_goes_back_without_a_word() {
    // Without the row that says which incarnation it is, only what the nodes remember can tell.
    goes_back(&restore("incarnation")).await;
}

/// A file is backed up, used further, and the backup is served instead. `begins` says whether as a new incarnation.
async fn put_back(begins: bool) {
    let (database, restored) = (Database::sqlite(), Database::sqlite());
    let (Database::Sqlite(folder), Database::Sqlite(restored_folder)) = (&database, &restored) else {
        return;
    };
    let file = restored_folder.path().join("test.db");
    let app = TestApp::start(settings(&database)).await;
    let sale = app.sale(json!({"admitIntervalSeconds": 3_600}), 1, 4).await;
    let early = app.waiting(&sale).await;
    execute_sqlite(&folder.path().join("test.db"), &format!("VACUUM INTO '{}'", file.display()));
    let lost = app.waiting(&sale).await;
    assert_eq!(position(&app, &lost).await, 2);
    app.stop().await;

    if begins {
        let begin = "UPDATE incarnation SET incarnation_id = randomblob(16), started_at = \
                     CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000";
        execute_sqlite(&file, begin);
    } else {
        // The file is too young for a token that entered well after it was made.
        execute_sqlite(&file, "UPDATE incarnation SET started_at = started_at - 60000000");
    }
    let app = TestApp::start(settings(&restored)).await;
    assert_eq!(position(&app, &early).await, 1, "what the data knows keeps its place");
    let second = app.waiting(&sale).await;
    assert_eq!(position(&app, &second).await, 2);
    assert_eq!(is_gone(&app, &lost).await, begins, "else it reads the place of another");
    let rooms = sent(app.get("/admin/rooms").bearer_auth(admin_token()), 200).await;
    let room = rooms["items"].as_array().unwrap().iter().find(|room| room["waiting"] == 2);
    assert!(room.is_some(), "{rooms}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_a_restored_file_does_not_know_is_gone_at_once() {
    put_back(true).await;
}

/// The control: without a new incarnation the lost token reads the place of another.
#[tokio::test(flavor = "multi_thread")]
async fn within_one_incarnation_signed_tokens_are_believed() {
    put_back(false).await;
}
