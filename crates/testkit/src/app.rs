//! The very server that ships, on a database of the test's own, and a client for it.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::sql_types::BigInt;
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection};
use frontrow::app::{Running, Settings, prepare, start};
use frontrow::backend::DatabaseOptions;
use frontrow::cli::DatabaseUrl;
use frontrow::http::ClientRules;
use frontrow::tokens::TokenSettings;
use frontrow_api::OverloadLimits;
use frontrow_app::HoldRules;
use frontrow_domain::UserId;
use frontrow_domain::account::WalletCharging;
use frontrow_domain::ports::{AccessClaims, AccessTokens, Clock, IdGenerator, Role};
use frontrow_domain::queue::RoomPolicy;
use frontrow_infra::identity::{AccessKeys, Expected, KeyRing, Secret, SystemClock, UuidV7};
use reqwest::{Client, Method, RequestBuilder, redirect};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::postgres::{Cluster, Template, TestDatabase, database};

/// The secret of every test server.
pub const SECRET: &str = "a secret for tests and for nothing else";

/// A migrated, empty database.
static MIGRATED: LazyLock<Template> = LazyLock::new(|| {
    Template::new("migrated", |url| async move {
        prepare(&DatabaseUrl::Postgres(url), RoomPolicy::default()).await.map(|_| ())
    })
});

/// A database of the test's own. Goes away with it.
pub enum Database {
    /// A file in a folder.
    Sqlite(TempDir),
    /// A database of the shared cluster.
    Postgres(TestDatabase),
}

impl Database {
    /// A new SQLite file, not migrated yet.
    ///
    /// # Panics
    /// When there is no temporary folder.
    #[must_use]
    pub fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().expect("a temporary folder"))
    }

    /// A new database on PostgreSQL; `None`, said aloud, where there is no PostgreSQL.
    pub async fn postgres() -> Option<Self> {
        database(&MIGRATED).await.map(Self::Postgres)
    }

    /// A new database on a server of the test's own.
    pub async fn on(cluster: &Cluster) -> Self {
        Self::Postgres(cluster.database(&MIGRATED).await)
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> DatabaseUrl {
        match self {
            Self::Sqlite(folder) => DatabaseUrl::Sqlite(folder.path().join("test.db")),
            Self::Postgres(database) => DatabaseUrl::Postgres(database.url().to_owned()),
        }
    }

    /// Changes it behind the server's back.
    ///
    /// # Panics
    /// When it refuses the statements.
    pub async fn execute(&self, sql: &str) {
        match self {
            Self::Sqlite(folder) => execute_sqlite(&folder.path().join("test.db"), sql),
            Self::Postgres(database) => database.execute(sql).await.expect("PostgreSQL takes the statements"),
        }
    }

    /// The one number that a query answers.
    ///
    /// # Panics
    /// When it refuses the query, or answers anything else.
    pub async fn query_i64(&self, query: &str) -> i64 {
        match self {
            Self::Sqlite(folder) => query_sqlite(&folder.path().join("test.db"), query),
            Self::Postgres(database) => database.query_i64(query).await.expect("PostgreSQL answers"),
        }
    }
}

/// The one number that a query of a SQLite file answers.
///
/// # Panics
/// When it cannot be opened, refuses the query, or answers anything else.
#[must_use]
pub fn query_sqlite(path: &Path, query: &str) -> i64 {
    #[derive(QueryableByName)]
    struct Answer {
        #[diesel(sql_type = BigInt)]
        number: i64,
    }
    let path = path.to_str().expect("a path in UTF-8");
    let mut connection = SqliteConnection::establish(path).expect("the file opens");
    let query = format!("WITH answer (number) AS ({query}) SELECT number FROM answer");
    connection.batch_execute("PRAGMA busy_timeout = 5000").expect("SQLite takes the setting");
    let answer: Answer = diesel::sql_query(query).get_result(&mut connection).expect("SQLite answers");
    answer.number
}

/// Runs statements on a SQLite file, which may be in use.
///
/// # Panics
/// When it cannot be opened or refuses them.
pub fn execute_sqlite(path: &Path, sql: &str) {
    let path = path.to_str().expect("a path in UTF-8");
    let mut connection = SqliteConnection::establish(path).expect("the file opens");
    let sql = format!("PRAGMA busy_timeout = 5000; {sql}");
    connection.batch_execute(&sql).expect("SQLite takes the statements");
}

/// A node that serves, and how to talk to it.
pub struct TestApp {
    /// The HTTP client. Follows no redirect.
    pub client: Client,
    base: String,
    /// `None` for a node in a process of its own.
    running: Option<Running>,
}

/// Settings for a test: the contract's defaults, a free port.
///
/// # Panics
/// Never.
#[must_use]
pub fn settings(database: &Database) -> Settings {
    Settings {
        bind: "127.0.0.1:0".to_owned(),
        database: database.url(),
        tokens: own_tokens(SECRET, &[]),
        wallet_charging: WalletCharging::default(),
        hold_rules: HoldRules { hold_seconds: 300, max_seats_per_user: 4 },
        global_policy: RoomPolicy::default(),
        // The shared server of tests is fast, not durable.
        database_options: DatabaseOptions { allow_lossy_commits: true, ..DatabaseOptions::default() },
        // Tests are not to fail on a slow machine: those of overload ask for less.
        clients: ClientRules {
            overload: OverloadLimits::new(Duration::from_secs(600)),
            ..ClientRules::default()
        },
        keep_tokens_for: 7 * 24 * 60 * 60,
        migrate: true,
        // As above: those of silence ask for less.
        storage_silence: Duration::from_secs(600),
    }
}

/// A server that signs with one secret, and believes what others signed before it.
///
/// # Panics
/// When a secret is too short.
#[must_use]
pub fn own_tokens(current: &str, previous: &[&str]) -> TokenSettings {
    let secret = |text: &str| Secret::new(text).expect("a secret that is long enough");
    let previous = previous.iter().map(|text| secret(text));
    let ring = KeyRing::new(secret(current), previous).expect("few secrets");
    TokenSettings { ring, provider: None, expected: Expected::default() }
}

impl TestApp {
    /// Starts a node.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(settings: Settings) -> Self {
        let running = start(settings).await.expect("the server starts");
        let address = running.address.to_string();
        Self { running: Some(running), ..Self::at(&address) }
    }

    /// A node that serves in another process, at `host:port`.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn at(address: &str) -> Self {
        let client = Client::builder().redirect(redirect::Policy::none()).no_proxy();
        let client = client.timeout(Duration::from_secs(60)).build().expect("a client");
        Self { client, base: format!("http://{address}"), running: None }
    }

    /// Stops the node.
    ///
    /// # Panics
    /// When it does not stop in order.
    pub async fn stop(self) {
        if let Some(running) = self.running {
            running.stop().await.expect("the server stops");
        }
    }

    /// The URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// A request to build further and send.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    /// A GET.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// A POST with a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.request(Method::POST, path).json(body)
    }

    /// A DELETE.
    pub fn delete(&self, path: &str) -> RequestBuilder {
        self.request(Method::DELETE, path)
    }

    /// Makes a concert with a room of its own (`room` null: the global room) and one date with a section "A" of
    /// `rows` x `seats_per_row` seats at 100 each.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn sale(&self, room: Value, rows: u32, seats_per_row: u32) -> Sale {
        let mut concert = json!({"title": "A Concert", "venue": "A Hall"});
        if !room.is_null() {
            concert["room"] = room;
        }
        let made = sent(self.post("/admin/concerts", &concert).bearer_auth(admin_token()), 201).await;
        let concert_id = id(&made, "concertId");
        let starts_at = SystemClock::uncorrected().plus_seconds(86_400).to_string();
        let section =
            json!({"section": "A", "grade": "R", "price": 100, "rows": rows, "seatsPerRow": seats_per_row});
        let date = json!({"startsAt": starts_at, "sections": [section]});
        let path = format!("/admin/concerts/{concert_id}/performanceDates");
        let date = sent(self.post(&path, &date).bearer_auth(admin_token()), 201).await;
        Sale { concert_id, room_id: id(&made, "roomId"), date_id: id(&date, "performanceDateId") }
    }

    /// A new guest without a place in line.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn guest(&self) -> Buyer {
        let session = sent(self.post("/sessions", &json!({})), 201).await;
        let access_token = session["accessToken"].as_str().expect("an access token").to_owned();
        Buyer { user_id: id(&session, "userId"), access_token, wait_token: None }
    }

    /// A new guest in the line of a sale.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn waiting(&self, sale: &Sale) -> Buyer {
        let mut buyer = self.guest().await;
        let body = json!({"concertId": sale.concert_id});
        let response = buyer.own(self.post("/queue", &body)).send().await.expect("an answer");
        assert_eq!(response.status(), 201);
        let wait_token = response.headers()["Wait-Token"].to_str().expect("a token").to_owned();
        buyer.wait_token = Some(wait_token);
        buyer
    }

    /// A new guest who is the last of the line and has been admitted with everyone before.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn active(&self, sale: &Sale) -> Buyer {
        let buyer = self.waiting(sale).await;
        self.admit(sale.room_id, 100_000).await;
        buyer
    }

    /// Admits people of a room now.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn admit(&self, room_id: Uuid, count: u32) -> u64 {
        let path = format!("/admin/rooms/{room_id}/admit");
        let body = json!({"count": count});
        let answer = sent(self.post(&path, &body).bearer_auth(admin_token()), 200).await;
        answer["admitted"].as_u64().expect("a count")
    }

    /// The ids of the AVAILABLE seats of a sale, in order, as an ACTIVE buyer sees them.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn seats(&self, buyer: &Buyer, sale: &Sale) -> Vec<Uuid> {
        let body = sent(buyer.own(self.get(&sale.seats_path())), 200).await;
        body["seats"].as_array().expect("seats").iter().map(|seat| id(seat, "seatId")).collect()
    }

    /// Adds money to a buyer's account.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn charge(&self, buyer: &Buyer, amount: i64) -> Value {
        let path = format!("/accounts/{}/charge", buyer.user_id);
        sent(buyer.own(self.post(&path, &json!({"amount": amount}))), 200).await
    }

    /// The request of a hold.
    pub fn reserve(&self, buyer: &Buyer, sale: &Sale, seat_ids: &[Uuid]) -> RequestBuilder {
        let body = json!({"performanceDateId": sale.date_id, "seatIds": seat_ids});
        buyer.own(self.post("/reservations", &body))
    }

    /// Holds seats and gives the reservation's id.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn hold(&self, buyer: &Buyer, sale: &Sale, seat_ids: &[Uuid]) -> Uuid {
        id(&sent(self.reserve(buyer, sale, seat_ids), 201).await, "reservationId")
    }

    /// The request of a payment.
    pub fn pay(&self, buyer: &Buyer, reservation_id: Uuid) -> RequestBuilder {
        buyer.own(self.post("/pay", &json!({"userId": buyer.user_id, "reservationId": reservation_id})))
    }
}

/// A date on sale.
#[derive(Debug, Clone, Copy)]
pub struct Sale {
    /// The concert.
    pub concert_id: Uuid,
    /// The room in front of it.
    pub room_id: Uuid,
    /// Its date.
    pub date_id: Uuid,
}

impl Sale {
    /// The path of its seats.
    #[must_use]
    pub fn seats_path(&self) -> String {
        format!("/concerts/{}/performanceDates/{}/seats", self.concert_id, self.date_id)
    }
}

/// Somebody who buys.
#[derive(Clone)]
pub struct Buyer {
    /// Who it is.
    pub user_id: Uuid,
    /// Its access token.
    pub access_token: String,
    /// Its Wait-Token, once it is in line.
    pub wait_token: Option<String>,
}

impl Buyer {
    /// Adds the buyer's tokens to a request.
    pub fn own(&self, request: RequestBuilder) -> RequestBuilder {
        let request = request.bearer_auth(&self.access_token);
        match &self.wait_token {
            Some(token) => request.header("Wait-Token", token),
            None => request,
        }
    }
}

/// An operator's access token.
///
/// # Panics
/// Never.
#[must_use]
pub fn admin_token() -> String {
    token(UuidV7::default().next_id(), Role::Admin)
}

/// An access token of a user.
///
/// # Panics
/// Never.
#[must_use]
pub fn token(user_id: Uuid, role: Role) -> String {
    let expires_at = SystemClock::default().now().plus_seconds(3_600);
    let claims = AccessClaims { user_id: UserId::new(user_id), role, expires_at };
    AccessKeys::own(&Secret::new(SECRET).expect("a long secret")).issue(&claims).expect("our own key signs")
}

/// Sends a request, checks the status, and reads the body; null where there is none.
///
/// # Panics
/// When there is no answer, or one of another status.
pub async fn sent(request: RequestBuilder, status: u16) -> Value {
    let response = request.send().await.expect("an answer");
    let (got, url) = (response.status(), response.url().clone());
    let body = response.text().await.expect("a body");
    assert_eq!(got, status, "{url} answered {body}");
    if body.is_empty() { Value::Null } else { serde_json::from_str(&body).expect("JSON") }
}

/// Waits until all nodes know what any of them has done: one may be a second behind the others (ADR 0007).
pub async fn all_nodes_know() {
    tokio::time::sleep(Duration::from_millis(1_100)).await;
}

/// An id of a body.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn id(body: &Value, field: &str) -> Uuid {
    let text = body[field].as_str().unwrap_or_else(|| panic!("no {field} in {body}"));
    Uuid::parse_str(text).expect("a UUID")
}
