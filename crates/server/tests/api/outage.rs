//! The storage goes away and comes back.

use std::time::Duration;

use frontrow::cli::DatabaseUrl;
use frontrow_testkit::app::{Database, TestApp, settings};
use frontrow_testkit::postgres::{Cluster, Template};
use serde_json::json;

use crate::support::{ask, asked, balance, becomes};

/// PostgreSQL alone: a file does not go away.
#[tokio::test(flavor = "multi_thread")]
async fn without_storage_it_says_so_and_recovers() {
    let Some(cluster) = Cluster::start_private().await else { return };
    let template = Template::new("migrated", |url| async move {
        let url = DatabaseUrl::Postgres(url);
        frontrow::app::prepare(&url, frontrow_domain::queue::RoomPolicy::default()).await.map(|_| ())
    });
    let database = Database::Postgres(cluster.database(&template).await);
    let app = TestApp::start(settings(&database)).await;
    let buyer = app.guest().await;
    app.charge(&buyer, 5).await;
    asked(app.get("/readyz"), 200).await;

    cluster.stop_immediate().await;
    ask(app.get("/readyz")).await.any_problem(503);
    asked(app.get("/healthz"), 200).await;
    let charge = || {
        let request = app.post(&format!("/accounts/{}/charge", buyer.user_id), &json!({"amount": 7}));
        buyer.own(request).timeout(Duration::from_secs(30))
    };
    let account = buyer.own(app.get(&format!("/accounts/{}", buyer.user_id)));
    for request in
        [charge(), account, buyer.own(app.get("/reservations")), buyer.own(app.post("/queue", &json!({})))]
    {
        let answer = ask(request).await;
        answer.problem(503, "UNAVAILABLE");
        assert!(answer.retry_after() >= 1);
    }

    cluster.start().await;
    becomes("ready again", 200, async || ask(app.get("/readyz")).await.status).await;
    becomes("the charge", 200, async || ask(charge()).await.status).await;
    assert_eq!(balance(&app, &buyer).await, 12);
    app.stop().await;
}
