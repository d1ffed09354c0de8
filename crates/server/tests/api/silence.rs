//! A database that takes what it is sent and never answers (ADR 0022).

use std::time::{Duration, Instant};

use frontrow::app::{STORAGE_SILENCE, Settings};
use frontrow::cli::DatabaseUrl;
use frontrow_testkit::app::{Buyer, Database, Sale, TestApp, settings};
use frontrow_testkit::wire::Wire;
use reqwest::RequestBuilder;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::support::{ask, asked, becomes, dates_path, place_status};

/// Longer than what is known is shown without a look at the database.
const PHASE: Duration = Duration::from_secs(34);
/// How long what is known is shown.
const SHOWN_FOR: Duration = Duration::from_secs(30);
/// The longest that an answer takes; by far less than the database is waited for, and generous to a slow machine.
const SOON: Duration = Duration::from_secs(3);

/// A server at the end of a wire, with an ACTIVE buyer and one in line.
struct Wired {
    _database: Database,
    wire: Wire,
    app: TestApp,
    sale: Sale,
    buyer: Buyer,
    waiting: Buyer,
}

async fn wired(storage_silence: Duration) -> Option<Wired> {
    let database = Database::postgres().await?;
    let DatabaseUrl::Postgres(url) = database.url() else { return None };
    let (wire, url) = Wire::to_database(&url);
    let database_url = DatabaseUrl::Postgres(url);
    let app =
        TestApp::start(Settings { database: database_url, storage_silence, ..settings(&database) }).await;
    let sale = app.sale(json!({"mode": "HOLD"}), 1, 3).await;
    let (buyer, waiting) = (app.active(&sale).await, app.waiting(&sale).await);
    app.charge(&buyer, 1_000).await;
    Some(Wired { _database: database, wire, app, sale, buyer, waiting })
}

impl Wired {
    /// What is answered by what is known, as long as that is young enough.
    fn known(&self) -> Vec<RequestBuilder> {
        let (app, sale) = (&self.app, &self.sale);
        vec![
            self.waiting.own(app.get("/queue")),
            self.buyer.own(app.get("/queue")),
            self.buyer.own(app.get(&sale.seats_path())),
            self.buyer.own(app.get(&dates_path(sale))),
            app.get("/concerts"),
        ]
    }

    /// What needs the database: reads of what is never kept, and writes.
    fn exact(&self, newcomer: &Buyer) -> Vec<RequestBuilder> {
        let (app, sale, buyer) = (&self.app, &self.sale, &self.buyer);
        let charge = app.post(&format!("/accounts/{}/charge", buyer.user_id), &json!({"amount": 7}));
        vec![
            buyer.own(app.get(&format!("/accounts/{}", buyer.user_id))),
            buyer.own(app.get("/reservations")),
            newcomer.own(app.post("/queue", &json!({"concertId": sale.concert_id}))),
            buyer.own(charge),
            app.get("/readyz"),
        ]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_database_is_waited_for_about_a_second() {
    let Some(wired) = wired(STORAGE_SILENCE).await else { return };
    let newcomer = wired.app.guest().await;
    for request in wired.known() {
        asked(request, 200).await;
    }
    wired.wire.freeze();
    let begun = Instant::now();
    let (mut shown, mut refused) = (0, 0);
    while begun.elapsed() < PHASE {
        for request in wired.known() {
            let asked_at = Instant::now();
            let answer = ask(request).await;
            let since = begun.elapsed();
            assert!(asked_at.elapsed() < SOON, "{answer:?} took {:?}, {since:?} on", asked_at.elapsed());
            if answer.status == 503 {
                assert!(since + SOON > SHOWN_FOR, "{answer:?} after {since:?}");
                answer.problem(503, "UNAVAILABLE");
                refused += 1;
            } else {
                assert!(since < SHOWN_FOR + SOON, "{answer:?} after {since:?}");
                answer.is(200);
                shown += 1;
            }
        }
        // What had come to the database when it fell silent may be waited for longer.
        if begun.elapsed() > STORAGE_SILENCE * 3 {
            for request in wired.exact(&newcomer) {
                let asked_at = Instant::now();
                let answer = ask(request).await;
                assert!(asked_at.elapsed() < SOON, "{answer:?} took {:?}", asked_at.elapsed());
                answer.any_problem(503);
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
    assert!(shown > 20 && refused > 5, "{shown} shown, {refused} refused");
    wired.wire.thaw();
    let healed = Instant::now();
    becomes("ready again", 200, async || ask(wired.app.get("/readyz")).await.status).await;
    becomes("the place", "WAIT".to_owned(), async || {
        let answer = ask(wired.waiting.own(wired.app.get("/queue"))).await;
        answer.json()["status"].as_str().unwrap_or_default().to_owned()
    })
    .await;
    for request in wired.known() {
        asked(request, 200).await;
    }
    for request in wired.exact(&newcomer) {
        assert!(ask(request).await.status < 300);
    }
    assert!(healed.elapsed() < SOON * 2, "{:?}", healed.elapsed());
    assert_eq!(place_status(&wired.app, &wired.buyer).await, "ACTIVE");
    wired.app.stop().await;
}

/// The control: where the breaker is not to open, the same reads are waited for.
#[tokio::test(flavor = "multi_thread")]
async fn control_without_a_breaker_reads_wait_for_the_database() {
    let Some(wired) = wired(Duration::from_secs(600)).await else { return };
    wired.wire.freeze();
    sleep(Duration::from_millis(500)).await;
    let account = wired.buyer.own(wired.app.get(&format!("/accounts/{}", wired.buyer.user_id)));
    assert!(timeout(SOON * 2, ask(account)).await.is_err(), "it was answered");
    wired.wire.thaw();
    becomes("ready again", 200, async || ask(wired.app.get("/readyz")).await.status).await;
    wired.app.stop().await;
}
