//! The storage goes away and comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use frontrow::backend::Backend;
use frontrow::cli::DatabaseUrl;
use frontrow_app::{KnownIncarnation, SeatMaps};
use frontrow_domain::PerformanceDateId;
use frontrow_domain::seat::SeatStatus;
use frontrow_infra::identity::SystemClock;
use frontrow_testkit::app::{Buyer, Database, Sale, TestApp, settings};
use frontrow_testkit::postgres::{Cluster, PrivateCluster, Template};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use crate::support::{
    Answer, ask, asked, balance, becomes, dates_path, eventually, place, place_status, sale_on,
};

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
    let backend = Backend::open(&database.url(), settings(&database).database_options).await.unwrap();
    let clock = Arc::new(SystemClock::default());
    let maps = SeatMaps::new(backend.storage().seat_feeds, clock, KnownIncarnation::default());
    let shown = async || {
        let map = maps.find(PerformanceDateId::new(sale.date_id)).await.unwrap();
        map.shown(SystemClock::uncorrected()).unwrap().statuses
    };
    app.hold(&buyer, &sale, &seats[..1]).await;
    let expected = [SeatStatus::Reserved, SeatStatus::Available, SeatStatus::Available];
    assert_eq!(shown().await, expected);

    cluster.stop_immediate().await;
    let started = Instant::now();
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

/// What somebody who is through looks at: seats with and without a filter, what has changed of them, and dates.
struct Looks {
    paths: Vec<String>,
}

impl Looks {
    fn at(sale: &Sale, version: &str) -> Self {
        let seats = sale.seats_path();
        let dates = dates_path(sale);
        let paths = vec![
            seats.clone(),
            format!("{seats}?status=all"),
            format!("{seats}?since=0"),
            format!("{seats}?since={version}"),
            dates.clone(),
            format!("{dates}?status=all"),
        ];
        Self { paths }
    }

    /// The bodies, all of them 200.
    async fn bodies(&self, app: &TestApp, buyer: &Buyer) -> Vec<Value> {
        let mut bodies = Vec::new();
        for path in &self.paths {
            bodies.push(asked(buyer.own(app.get(path)), 200).await.json());
        }
        bodies
    }
}

/// What buyers and newcomers write.
fn writes(
    app: &TestApp,
    buyer: &Buyer,
    newcomer: &Buyer,
    sale: &Sale,
    held: Uuid,
    free: Uuid,
) -> Vec<RequestBuilder> {
    let charge = app.post(&format!("/accounts/{}/charge", buyer.user_id), &json!({"amount": 7}));
    let join = app.post("/queue", &json!({"concertId": sale.concert_id}));
    let requests =
        [app.reserve(buyer, sale, &[free]), app.pay(buyer, held), buyer.own(charge), newcomer.own(join)];
    requests.map(|request| request.timeout(Duration::from_secs(30))).into()
}

fn is_away(answer: &Answer) {
    answer.problem(503, "UNAVAILABLE");
    assert!(answer.retry_after() >= 1);
}

/// For some seconds a node shows over HTTP what it knew, to those whom it knew, and refuses what is to be written. What it
/// never looked at it cannot show, nor can a node that has only just come.
#[tokio::test(flavor = "multi_thread")]
async fn without_storage_a_node_shows_what_it_has_looked_at() {
    let Some((cluster, database)) = a_cluster().await else { return };
    let app = TestApp::start(settings(&database)).await;
    let other_node = TestApp::start(settings(&database)).await;
    let sale = app.sale(json!({"mode": "HOLD"}), 1, 4).await;
    let unseen = sale_on(&app, &sale, 86_400, None, 4).await;
    let (buyer, waiting, newcomer) = (app.active(&sale).await, app.waiting(&sale).await, app.guest().await);
    app.charge(&buyer, 1_000).await;
    let seats = app.seats(&buyer, &sale).await;
    let held = app.hold(&buyer, &sale, &seats[..1]).await;
    let shown = asked(buyer.own(app.get(&sale.seats_path())), 200).await;
    let etag = shown.header("ETag").unwrap().to_owned();
    let looks = Looks::at(&sale, shown.header("Seat-Map-Version").unwrap());
    // The feed tells of the hold a moment after the node knew of it.
    let settled = async || {
        let known = looks.bodies(&app, &buyer).await;
        sleep(Duration::from_millis(500)).await;
        (looks.bodies(&app, &buyer).await == known).then_some(known)
    };
    let known = eventually("what is shown settles", settled).await;
    assert_eq!(place_status(&app, &waiting).await, "WAIT");
    // The other node knows the line and the buyer, and no date.
    becomes("the place on the other node", "WAIT".to_owned(), async || {
        place_status(&other_node, &waiting).await
    })
    .await;
    assert_eq!(place_status(&other_node, &buyer).await, "ACTIVE");

    cluster.stop_immediate().await;
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed() < Duration::from_secs(3) || rounds < 3 {
        assert_eq!(looks.bodies(&app, &buyer).await, known);
        let again = buyer.own(app.get(&sale.seats_path())).header("If-None-Match", &etag);
        let again = asked(again, 304).await;
        assert_eq!(again.header("ETag"), Some(etag.as_str()));
        for node in [&app, &other_node] {
            assert_eq!(place(node, &waiting).await["position"], 1);
            assert_eq!(place_status(node, &buyer).await, "ACTIVE");
        }
        rounds += 1;
    }
    // Those without a Wait-Token are still kept out, and those who wait are.
    asked(newcomer.own(app.get(&sale.seats_path())), 301).await;
    asked(waiting.own(app.get(&sale.seats_path())), 301).await;
    for write in writes(&app, &buyer, &newcomer, &sale, held, seats[1]) {
        is_away(&ask(write).await);
    }
    for (node, path) in
        [(&app, unseen.seats_path()), (&other_node, sale.seats_path()), (&other_node, dates_path(&sale))]
    {
        is_away(&ask(buyer.own(node.get(&path)).timeout(Duration::from_secs(30))).await);
    }

    cluster.start().await;
    for node in [&app, &other_node] {
        becomes("ready again", 200, async || ask(node.get("/readyz")).await.status).await;
        becomes("seats", 200, async || ask(buyer.own(node.get(&sale.seats_path()))).await.status).await;
    }
    let expected = [201, 200, 200, 201];
    for (n, status) in expected.into_iter().enumerate() {
        becomes("a write", status, async || {
            let mut writes = writes(&app, &buyer, &newcomer, &sale, held, seats[1]);
            ask(writes.swap_remove(n)).await.status
        })
        .await;
    }
    // What was refused was not done: one charge of 1,000, one of 7, a payment of 100; one seat sold and one held.
    assert_eq!(balance(&app, &buyer).await, 907);
    let onlooker = app.active(&sale).await;
    for node in [&app, &other_node] {
        becomes("what is shown", 2, async || node.seats(&onlooker, &sale).await.len()).await;
    }
    other_node.stop().await;
    app.stop().await;
}
