//! Where races are run: a database, one or two nodes in front of it, and clients that start together.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use frontrow::app::prepare;
use frontrow::audit::{is_clean, table};
use frontrow::backend::{self, Backend};
use frontrow_app::HoldRules;
use frontrow_domain::Timestamp;
use frontrow_domain::ports::{Clock, IdGenerator, Role};
use frontrow_domain::queue::RoomPolicy;
use frontrow_infra::Storage;
use frontrow_infra::identity::{SystemClock, UuidV7};
use frontrow_testkit::app::{Buyer, Database, Sale, TestApp, admin_token, id, sent, settings, token};
use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// What a race is run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// One node on a SQLite file.
    Sqlite,
    /// Two nodes on one PostgreSQL, which take requests in turns.
    Postgres,
}

/// A database and the nodes in front of it.
pub(crate) struct Arena {
    pub(crate) nodes: Vec<TestApp>,
    pub(crate) database: Database,
    pub(crate) ground: Ground,
    hold_seconds: u32,
    group_commit_limit: Option<u16>,
    turn: AtomicUsize,
}

/// Setting up.
impl Arena {
    /// `None`, said aloud, where there is no PostgreSQL and one is needed.
    pub(crate) async fn open(ground: Ground, hold_seconds: u32) -> Option<Self> {
        Self::start(ground, hold_seconds, "", None).await
    }

    /// As [`Arena::open`], with this SQL run on the migrated database before the nodes start: it switches protections of the
    /// database off. A batch judges its units in memory as well, where SQL cannot reach, so here each has a transaction
    /// of its own.
    pub(crate) async fn open_after(ground: Ground, hold_seconds: u32, sql: &str) -> Option<Self> {
        Self::start(ground, hold_seconds, sql, Some(1)).await
    }

    async fn start(
        ground: Ground,
        hold_seconds: u32,
        sql: &str,
        group_commit_limit: Option<u16>,
    ) -> Option<Self> {
        let database = match ground {
            Ground::Sqlite => Database::sqlite(),
            Ground::Postgres => Database::postgres().await?,
        };
        prepare(&database.url(), RoomPolicy::default()).await.unwrap();
        database.execute(sql).await;
        let turn = AtomicUsize::new(0);
        let mut arena = Self { nodes: Vec::new(), database, ground, hold_seconds, group_commit_limit, turn };
        arena.start_nodes().await;
        Some(arena)
    }

    async fn start_nodes(&mut self) {
        let nodes = if self.ground == Ground::Postgres { 2 } else { 1 };
        for _ in 0..nodes {
            let mut settings = settings(&self.database);
            settings.database_options.group_commit_limit = self.group_commit_limit;
            settings.hold_rules = HoldRules { hold_seconds: self.hold_seconds, max_seats_per_user: 4 };
            self.nodes.push(TestApp::start(settings).await);
        }
    }

    /// Stops every node in order, and starts as many anew on the same database.
    pub(crate) async fn restart(&mut self) {
        join_all(self.nodes.drain(..).map(TestApp::stop)).await;
        self.start_nodes().await;
    }

    /// A moment as SQL for this database.
    pub(crate) fn literal(&self, moment: Timestamp) -> String {
        match self.ground {
            Ground::Sqlite => moment.unix_micros().to_string(),
            Ground::Postgres => format!("'{moment}'"),
        }
    }

    /// An id as SQL for this database.
    pub(crate) fn key(&self, id: Uuid) -> String {
        match self.ground {
            Ground::Sqlite => format!("x'{}'", id.simple()),
            Ground::Postgres => format!("'{id}'"),
        }
    }

    /// The end of every race: no promise is broken, and the nodes stop in order.
    pub(crate) async fn close(self) {
        let findings = backend::audit(&self.database.url()).await.unwrap();
        assert!(is_clean(&findings), "after the race:\n{}", table(&findings));
        join_all(self.nodes.into_iter().map(TestApp::stop)).await;
    }

    /// The promises that the database breaks now.
    pub(crate) async fn broken_promises(&self) -> Vec<&'static str> {
        let findings = backend::audit(&self.database.url()).await.unwrap();
        findings.into_iter().filter(|finding| finding.breaches > 0).map(|finding| finding.promise).collect()
    }

    /// The node whose turn it is.
    pub(crate) fn node(&self) -> &TestApp {
        &self.nodes[self.turn.fetch_add(1, Ordering::Relaxed) % self.nodes.len()]
    }
}

/// The cast.
impl Arena {
    /// A date with a waiting room of its own that admits nobody by itself for now, and a row of seats at 100 each.
    pub(crate) async fn sale(&self, seats: u32) -> (Sale, Vec<Uuid>) {
        self.sale_behind(json!({}), seats).await
    }

    /// A date behind a room with this policy, and its seats.
    pub(crate) async fn sale_behind(&self, room: Value, seats: u32) -> (Sale, Vec<Uuid>) {
        let sale = self.node().sale(room, 1, seats).await;
        let looker = self.crowd(&sale, 1).await.remove(0);
        let seats = self.node().seats(&looker, &sale).await;
        sent(looker.own(self.node().delete("/queue")), 204).await;
        (sale, seats)
    }

    /// People with a place in the line of a sale.
    pub(crate) async fn waiting(&self, sale: &Sale, size: usize) -> Vec<Buyer> {
        let mut buyers = strangers(size);
        let joining = buyers.iter().map(|buyer| self.enter(buyer, sale)).collect();
        for (buyer, answer) in buyers.iter_mut().zip(race(joining).await) {
            assert_eq!(answer.status, 201, "{answer:?}");
            buyer.wait_token = Some(answer.header("wait-token"));
        }
        buyers
    }

    /// People who have been admitted to a sale.
    pub(crate) async fn crowd(&self, sale: &Sale, size: usize) -> Vec<Buyer> {
        let buyers = self.waiting(sale, size).await;
        self.node().admit(sale.room_id, 100_000).await;
        buyers
    }

    /// Everyone charges this much.
    pub(crate) async fn fund(&self, buyers: &[Buyer], amount: i64) {
        let charges = buyers.iter().map(|buyer| self.charge(buyer, amount)).collect();
        assert_eq!(tally(&race(charges).await), counts([("200", buyers.len())]));
    }

    /// Each holds a seat, the nth the nth. Gives the reservations.
    pub(crate) async fn hold_each(&self, buyers: &[Buyer], sale: &Sale, seats: &[Uuid]) -> Vec<Uuid> {
        let pairs = buyers.iter().zip(seats);
        let answers = race(pairs.map(|(buyer, seat)| self.reserve(buyer, sale, &[*seat])).collect()).await;
        assert_eq!(tally(&answers), counts([("201", buyers.len())]));
        answers.iter().map(|answer| id(&answer.json(), "reservationId")).collect()
    }
}

/// Requests, each to the node whose turn it is.
impl Arena {
    pub(crate) fn enter(&self, buyer: &Buyer, sale: &Sale) -> RequestBuilder {
        buyer.own(self.node().post("/queue", &json!({"concertId": sale.concert_id})))
    }

    pub(crate) fn leave(&self, buyer: &Buyer) -> RequestBuilder {
        buyer.own(self.node().delete("/queue"))
    }

    pub(crate) fn reserve(&self, buyer: &Buyer, sale: &Sale, seats: &[Uuid]) -> RequestBuilder {
        self.node().reserve(buyer, sale, seats)
    }

    pub(crate) fn cancel(&self, buyer: &Buyer, reservation: Uuid) -> RequestBuilder {
        buyer.own(self.node().delete(&format!("/reservations/{reservation}")))
    }

    pub(crate) fn pay(&self, buyer: &Buyer, reservation: Uuid) -> RequestBuilder {
        self.node().pay(buyer, reservation)
    }

    pub(crate) fn charge(&self, buyer: &Buyer, amount: i64) -> RequestBuilder {
        let path = format!("/accounts/{}/charge", buyer.user_id);
        buyer.own(self.node().post(&path, &json!({"amount": amount})))
    }

    pub(crate) fn admit(&self, sale: &Sale, count: u32) -> RequestBuilder {
        let path = format!("/admin/rooms/{}/admit", sale.room_id);
        self.node().post(&path, &json!({"count": count})).bearer_auth(admin_token())
    }
}

/// What is there now.
impl Arena {
    /// Seats of a sale: available, reserved, sold; and the money they brought.
    pub(crate) async fn sales(&self, sale: &Sale) -> [i64; 4] {
        let path = format!("/admin/performanceDates/{}/sales", sale.date_id);
        let sales = sent(self.node().get(&path).bearer_auth(admin_token()), 200).await;
        ["available", "reserved", "unavailable", "amountSold"].map(|field| sales[field].as_i64().unwrap())
    }

    pub(crate) async fn status(&self, buyer: &Buyer, reservation: Uuid) -> String {
        let path = format!("/reservations/{reservation}");
        let shown = sent(buyer.own(self.node().get(&path)), 200).await;
        shown["status"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn balance(&self, buyer: &Buyer) -> i64 {
        let path = format!("/accounts/{}", buyer.user_id);
        sent(buyer.own(self.node().get(&path)), 200).await["balance"].as_i64().unwrap()
    }

    /// The kinds of a buyer's entries, newest first; up to 100.
    pub(crate) async fn entries(&self, buyer: &Buyer) -> Vec<String> {
        let path = format!("/accounts/{}/entries?limit=100", buyer.user_id);
        let page = sent(buyer.own(self.node().get(&path)), 200).await;
        let items = page["items"].as_array().unwrap().iter();
        items.map(|entry| entry["kind"].as_str().unwrap().to_owned()).collect()
    }

    /// A buyer's place in line.
    pub(crate) async fn place(&self, buyer: &Buyer) -> Value {
        sent(buyer.own(self.node().get("/queue")), 200).await
    }

    /// The room of a sale, as this node shows it to operators.
    pub(crate) async fn room(&self, node: &TestApp, sale: &Sale) -> Value {
        let page = sent(node.get("/admin/rooms?limit=100").bearer_auth(admin_token()), 200).await;
        let rooms = page["items"].as_array().unwrap().iter();
        let mut rooms = rooms.filter(|room| id(room, "roomId") == sale.room_id);
        rooms.next().expect("the room is listed").clone()
    }
}

/// Changes the policy of a sale's room by way of this node.
pub(crate) async fn patch_room(node: &TestApp, sale: &Sale, policy: &Value) {
    let path = format!("/admin/rooms/{}", sale.room_id);
    sent(node.request(Method::PATCH, &path).json(policy).bearer_auth(admin_token()), 200).await;
}

/// People whom the server has never seen.
pub(crate) fn strangers(size: usize) -> Vec<Buyer> {
    let stranger = |_| {
        let user_id = UuidV7::default().next_id();
        Buyer { user_id, access_token: token(user_id, Role::User), wait_token: None }
    };
    (0..size).map(stranger).collect()
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// Sends a request. `None` when the connection broke.
    pub(crate) async fn try_of(request: RequestBuilder) -> Option<Self> {
        let response = request.send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Some(Self { status, headers, body: response.text().await.ok()? })
    }

    pub(crate) async fn of(request: RequestBuilder) -> Self {
        Self::try_of(request).await.expect("an answer")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> String {
        self.headers[name].to_str().unwrap().to_owned()
    }

    pub(crate) fn is_replay(&self) -> bool {
        self.headers.contains_key("idempotency-replayed")
    }

    /// The status, and the code if it is a problem: `409 ALREADY_PAID`.
    pub(crate) fn kind(&self) -> String {
        match serde_json::from_str::<Value>(&self.body) {
            Ok(Value::Object(body)) if self.status >= 300 && body.contains_key("code") => {
                format!("{} {}", self.status, body["code"].as_str().unwrap())
            }
            _ => self.status.to_string(),
        }
    }
}

/// Sends all at the same moment, each from a task of its own. The answers are in the order of the requests.
pub(crate) async fn race(requests: Vec<RequestBuilder>) -> Vec<Answer> {
    race_from(requests.into_iter().map(|request| (Duration::ZERO, request)).collect()).await
}

/// As [`race`], each so long after the common start.
pub(crate) async fn race_from(requests: Vec<(Duration, RequestBuilder)>) -> Vec<Answer> {
    let start = Arc::new(Barrier::new(requests.len().max(1)));
    let racers = requests.into_iter().map(|(handicap, request)| {
        let start = start.clone();
        tokio::spawn(async move {
            start.wait().await;
            if !handicap.is_zero() {
                tokio::time::sleep(handicap).await;
            }
            Answer::of(request).await
        })
    });
    join_all(racers).await.into_iter().map(Result::unwrap).collect()
}

/// How many answers there are of each kind.
pub(crate) fn tally(answers: &[Answer]) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for answer in answers {
        *tally.entry(answer.kind()).or_default() += 1;
    }
    tally
}

/// An expected [`tally`]. Kinds that were not seen are left out of both.
pub(crate) fn counts<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    let seen = expected.into_iter().filter(|(_, count)| *count > 0);
    seen.map(|(kind, count)| (kind.to_owned(), count)).collect()
}

/// The number of answers of a kind.
pub(crate) fn count(answers: &[Answer], kind: &str) -> usize {
    answers.iter().filter(|answer| answer.kind() == kind).count()
}

/// Waits until a moment of the machine's clock.
pub(crate) async fn until(moment: Timestamp) {
    tokio::time::sleep(moment.since(SystemClock::uncorrected())).await;
}

/// Tasks that do the scheduler's work over and over, beside the nodes, as ever more nodes would.
pub(crate) struct Hammer {
    stop: Arc<AtomicBool>,
    hands: Vec<JoinHandle<()>>,
    backend: Backend,
}

impl Hammer {
    /// Starts this many hands.
    pub(crate) async fn start<F: Future<Output = ()> + Send + 'static>(
        arena: &Arena,
        hands: usize,
        blow: impl Fn(Storage, Arc<dyn Clock>) -> F + Clone + Send + 'static,
    ) -> Self {
        let backend =
            Backend::open(&arena.database.url(), settings(&arena.database).database_options).await.unwrap();
        let clock: Arc<dyn Clock> = Arc::new(backend.clock().await.unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let hand = || {
            let (storage, clock, stop, blow) = (backend.storage(), clock.clone(), stop.clone(), blow.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    blow(storage.clone(), clock.clone()).await;
                    // The writers of two SQLite connections take turns by polling: leave the nodes theirs.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        };
        let hands = (0..hands).map(|_| hand()).collect();
        Self { stop, hands, backend }
    }

    /// Stops, once every hand has finished its blow.
    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for hand in self.hands {
            hand.await.unwrap();
        }
        self.backend.close().await;
    }
}
