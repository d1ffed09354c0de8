//! Audits while a crowd buys, gives back and leaves: each is clean, and keeps nobody waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::sql_types::BigInt;
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection};
use frontrow::cli::DatabaseUrl;
use frontrow_testkit::app::{Database, Sale, TestApp, sent, settings};
use serde_json::{Value, json};
use tempfile::tempdir;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::audit::{document, finding};
use crate::binary::run;

/// How many buy at the same time.
const BUYERS: u32 = 4;
/// How many audits are made while they do, at least.
const AUDITS: usize = 10;
/// However slow the machine is.
const IN_TIME: Duration = Duration::from_secs(120);

/// People who buy until they are told to stop.
struct Crowd {
    paid: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    buyers: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn start(app: &Arc<TestApp>, sale: Sale, seats: &[Uuid]) -> Self {
        let (paid, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let buyers = seats.chunks(seats.len() / usize::try_from(BUYERS).unwrap()).map(|seats| {
            let (app, paid, stop, seats) = (app.clone(), paid.clone(), stop.clone(), seats.to_vec());
            tokio::spawn(async move {
                for (round, seat) in seats.into_iter().enumerate() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    if takes_a_turn(&app, &sale, seat, round).await {
                        paid.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        });
        let buyers = buyers.collect();
        Self { paid, stop, buyers }
    }

    fn paid(&self) -> u64 {
        self.paid.load(Ordering::SeqCst)
    }

    /// Waits until more was paid than could have been under way when this was called.
    async fn goes_on(&self) {
        let enough = self.paid() + u64::from(2 * BUYERS);
        let deadline = Instant::now() + IN_TIME;
        while self.paid() < enough {
            assert!(Instant::now() < deadline, "nobody buys any more");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for buyer in self.buyers {
            buyer.await.unwrap();
        }
    }
}

/// A new guest comes in, and cancels, or leaves, or pays; whether it paid.
async fn takes_a_turn(app: &TestApp, sale: &Sale, seat: Uuid, round: usize) -> bool {
    let buyer = app.active(sale).await;
    let reservation_id = app.hold(&buyer, sale, &[seat]).await;
    match round % 4 {
        0 => {
            sent(buyer.own(app.delete(&format!("/reservations/{reservation_id}"))), 204).await;
        }
        1 => {
            sent(buyer.own(app.delete("/queue")), 204).await;
        }
        _ => {
            app.charge(&buyer, 100).await;
            sent(app.pay(&buyer, reservation_id).header("Idempotency-Key", "pay"), 200).await;
            return true;
        }
    }
    false
}

/// A connection beside the server.
enum Look {
    Sqlite(SqliteConnection),
    Postgres(Client),
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

impl Look {
    async fn begin(database: &Database, begin: &str) -> Self {
        match database {
            Database::Sqlite(_) => {
                let DatabaseUrl::Sqlite(path) = database.url() else { panic!("it is a file") };
                let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
                connection.batch_execute(&format!("PRAGMA busy_timeout = 5000; {begin}")).unwrap();
                Self::Sqlite(connection)
            }
            Database::Postgres(database) => {
                let client = database.connect().await.unwrap();
                client.batch_execute(begin).await.unwrap();
                Self::Postgres(client)
            }
        }
    }

    async fn count(&mut self, of: &str) -> i64 {
        let query = format!("SELECT count(*) AS number FROM {of}");
        match self {
            Self::Sqlite(connection) => {
                diesel::sql_query(query).get_result::<Count>(connection).unwrap().number
            }
            Self::Postgres(client) => client.query_one(&query, &[]).await.unwrap().get(0),
        }
    }
}

/// Counts the same payments in two tables, and lets the crowd buy in between.
async fn counted_twice(database: &Database, begin: &str, crowd: &Crowd) -> (i64, i64) {
    let mut look = Look::begin(database, begin).await;
    let first = look.count("entries WHERE kind = 'PAYMENT'").await;
    crowd.goes_on().await;
    (first, look.count("payments").await)
}

async fn is_clean_while_a_crowd_buys(database: &Database, snapshot: &str, no_snapshot: &str) {
    let app = Arc::new(TestApp::start(settings(database)).await);
    let sale = app.sale(json!({}), 40, 100).await;
    let first = app.active(&sale).await;
    let seats = app.seats(&first, &sale).await;
    let crowd = Crowd::start(&app, sale, &seats);
    crowd.goes_on().await;

    let (url, before) = (crate::url(database), crowd.paid());
    let mut audits = Vec::new();
    while audits.len() < AUDITS || crowd.paid() < before + 20 {
        let (url, paid) = (url.clone(), crowd.paid());
        let output = tokio::task::spawn_blocking(move || {
            let folder = tempdir().unwrap();
            run(folder.path(), "audit --json", &[("FRONTROW_DATABASE_URL", &url)])
        });
        let audit = document(&output.await.unwrap());
        assert_eq!(audit["clean"], json!(true), "{audit:#}");
        assert_is_of_one_time(&audit, paid);
        audits.push(audit);
    }

    let (entries, payments) = counted_twice(database, snapshot, &crowd).await;
    assert_eq!(entries, payments, "a snapshot shows one time, and the crowd could buy beside it");
    let (entries, payments) = counted_twice(database, no_snapshot, &crowd).await;
    assert!(entries < payments, "control: without one the second look is a later one");

    crowd.end().await;
    Arc::into_inner(app).expect("nobody buys any more").stop().await;
}

/// What was paid is counted in three tables, by three statements.
#[track_caller]
fn assert_is_of_one_time(audit: &Value, paid: u64) {
    let checked = ["payment-agrees", "entry-has-payment", "paid-once"]
        .map(|name| finding(audit, name)["checked"].as_u64().unwrap());
    assert!(checked.iter().all(|count| *count == checked[0]), "{checked:?}");
    assert!(checked[0] >= paid, "{paid} were told that they had paid before it began, it saw {}", checked[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_is_clean_while_a_crowd_buys_on_sqlite() {
    is_clean_while_a_crowd_buys(&Database::sqlite(), "BEGIN", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_is_clean_while_a_crowd_buys_on_postgresql() {
    let Some(database) = Database::postgres().await else { return };
    let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    is_clean_while_a_crowd_buys(&database, snapshot, "BEGIN").await;
}
