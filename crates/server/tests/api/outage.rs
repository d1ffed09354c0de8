//! The storage goes away and comes back.

use std::time::Duration;

use std::sync::Arc;

use frontrow::backend::Backend;
use frontrow::cli::DatabaseUrl;
use frontrow_app::SeatMaps;
use frontrow_domain::PerformanceDateId;
use frontrow_domain::seat::SeatStatus;
use frontrow_infra::identity::SystemClock;
use frontrow_testkit::app::{Buyer, Database, TestApp, settings};
use frontrow_testkit::postgres::{Cluster, PrivateCluster, Template};
use serde_json::json;

use crate::support::{ask, asked, balance, becomes, place, place_status};

async fn a_cluster() -> Option<(PrivateCluster, Database)> {
    let cluster = Cluster::start_private().await?;
    let template = Template::new("migrated", |url| async move {
        let url = DatabaseUrl::Postgres(url);
        frontrow::app::prepare(&url, frontrow_domain::queue::RoomPolicy::default()).await.map(|_| ())
    });
    let database = Database::Postgres(cluster.database(&template).await);
    Some((cluster, database))
}

/// PostgreSQL alone: a file does not go away.
#[tokio::test(flavor = "multi_thread")]
async fn without_storage_it_says_so_and_recovers() {
    let Some((cluster, database)) = a_cluster().await else { return };
    let app = TestApp::start(settings(&database)).await;
    let buyer = app.guest().await;
    app.charge(&buyer, 5).await;
    asked(app.get("/readyz"), 200).await;
    let sale = app.sale(json!({"mode": "HOLD"}), 1, 1).await;
    let (waiting, through) = (app.waiting(&sale).await, app.waiting(&sale).await);
    app.admit(sale.room_id, 1).await;
    let places = async || {
        let status = async |buyer: &Buyer| place_status(&app, buyer).await;
        (status(&waiting).await, status(&through).await)
    };
    assert_eq!(places().await, ("ACTIVE".to_owned(), "WAIT".to_owned()));

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

    // Whoever is in line or through it is told so from memory, while nobody enters or leaves.
    assert_eq!(places().await, ("ACTIVE".to_owned(), "WAIT".to_owned()));
    assert_eq!(place(&app, &through).await["position"], 1);
    let leave = through.own(app.delete("/queue")).timeout(Duration::from_secs(30));
    ask(leave).await.problem(503, "UNAVAILABLE");

    cluster.start().await;
    becomes("ready again", 200, async || ask(app.get("/readyz")).await.status).await;
    becomes("the charge", 200, async || ask(charge()).await.status).await;
    assert_eq!(balance(&app, &buyer).await, 12);
    becomes("a place given up", 204, async || ask(through.own(app.delete("/queue"))).await.status).await;
    assert_eq!(place_status(&app, &through).await, "EXPIRED");
    app.stop().await;
}

/// Seats are shown from memory, and nobody waits for a database that does not answer; holds are refused.
#[tokio::test(flavor = "multi_thread")]
async fn without_storage_seats_are_shown_and_not_held() {
    let Some((cluster, database)) = a_cluster().await else { return };
    let app = TestApp::start(settings(&database)).await;
    let sale = app.sale(json!({}), 1, 3).await;
    let buyer = app.active(&sale).await;
    let seats = app.seats(&buyer, &sale).await;
    let backend = Backend::open(&database.url(), None).await.unwrap();
    let clock = Arc::new(SystemClock::default());
    let maps = SeatMaps::new(backend.storage().seat_feeds, clock);
    let shown = async || {
        let map = maps.find(PerformanceDateId::new(sale.date_id)).await.unwrap();
        map.shown(SystemClock::uncorrected()).unwrap().statuses
    };
    app.hold(&buyer, &sale, &seats[..1]).await;
    let expected = [SeatStatus::Reserved, SeatStatus::Available, SeatStatus::Available];
    assert_eq!(shown().await, expected);

    cluster.stop_immediate().await;
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_secs(1) {
        assert_eq!(shown().await, expected);
    }
    let hold = ask(app.reserve(&buyer, &sale, &seats[1..2])).await;
    hold.problem(503, "UNAVAILABLE");
    assert!(hold.retry_after() >= 1);

    cluster.start().await;
    becomes("a hold", 201, async || ask(app.reserve(&buyer, &sale, &seats[1..2])).await.status).await;
    let held = [SeatStatus::Reserved, SeatStatus::Reserved, SeatStatus::Available].to_vec();
    becomes("what is shown", held, shown).await;
    app.stop().await;
}
