//! People who join, charge, hold, cancel and pay over HTTP, whatever happens to the server, and remember what they were
//! told. Each request is sent until its outcome is known, with the same key every time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use frontrow_domain::ports::Role;
use frontrow_testkit::app::{Sale, token};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use reqwest::{Client, Method, RequestBuilder, redirect};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use crate::told::{Answer, Hold, Life, Notes};

/// How many people are at it at once.
const CLIENTS: u64 = 12;
/// How many seats one person wants at most.
const MOST_SEATS: usize = 3;

/// How to reach the server.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) client: Client,
    pub(crate) base: String,
}

impl Api {
    pub(crate) fn new(base: String) -> Self {
        let client = Client::builder().redirect(redirect::Policy::none()).no_proxy().build().unwrap();
        Self { client, base }
    }

    pub(crate) fn request(&self, method: Method, path: &str, life: &Life) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let request = request.bearer_auth(&life.access_token);
        match &life.wait_token {
            Some(token) => request.header("Wait-Token", token),
            None => request,
        }
    }
}

/// What they buy.
pub(crate) struct OnSale {
    pub(crate) sale: Sale,
    pub(crate) seats: Vec<Uuid>,
}

/// What all of them share.
pub(crate) struct Shared {
    pub(crate) api: Api,
    pub(crate) on_sale: OnSale,
    pub(crate) notes: Notes,
    /// How long the service may be away.
    pub(crate) patience: Duration,
    stop: AtomicBool,
}

/// The people, who go on until they are told to stop.
pub(crate) struct Crowd {
    pub(crate) shared: Arc<Shared>,
    clients: Vec<JoinHandle<Vec<Life>>>,
    reader: JoinHandle<Life>,
}

impl Crowd {
    pub(crate) fn start(api: Api, on_sale: OnSale, seed: u64, patience: Duration) -> Self {
        let stop = AtomicBool::new(false);
        let shared = Arc::new(Shared { api, on_sale, notes: Notes::default(), patience, stop });
        let client = |number| {
            let (shared, mut chance) = (shared.clone(), StdRng::seed_from_u64(seed ^ number << 32));
            tokio::spawn(async move {
                let mut lives = Vec::new();
                while !shared.stop.load(Ordering::Relaxed) {
                    lives.push(shared.live(&mut chance).await);
                }
                lives
            })
        };
        let clients = (1..=CLIENTS).map(client).collect();
        let reader = tokio::spawn({
            let shared = shared.clone();
            async move { shared.read().await }
        });
        Self { shared, clients, reader }
    }

    /// Waits until the service does new work, by itself. Says how long that took.
    pub(crate) async fn goes_on(&self) -> Duration {
        let begun = Instant::now();
        let acknowledged = || self.shared.notes.acknowledged.load(Ordering::Relaxed);
        // More than what may have been under way.
        let enough = acknowledged() + 3 * CLIENTS;
        while acknowledged() < enough {
            let breaches = self.shared.notes.breaches();
            assert!(begun.elapsed() < self.shared.patience, "the service does not go on: {breaches:?}");
            sleep(Duration::from_millis(5)).await;
        }
        begun.elapsed()
    }

    /// Lets everybody come to an end, and gives what they remember.
    pub(crate) async fn stop(self) -> (Arc<Shared>, Vec<Life>) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut lives = Vec::new();
        for client in self.clients {
            lives.extend(client.await.expect("a client ends"));
        }
        lives.push(self.reader.await.expect("the reader ends"));
        (self.shared, lives)
    }
}

impl Shared {
    /// One visit of a new person.
    async fn live(&self, chance: &mut StdRng) -> Life {
        let mut life = newcomer(chance.random());
        if self.visit(&mut life, chance).await.is_none() {
            life.unsettled = true;
        }
        life
    }

    /// `None` when it broke off.
    async fn visit(&self, life: &mut Life, chance: &mut StdRng) -> Option<()> {
        self.join(life).await?;
        for _ in 0..chance.random_range(1..=3) {
            self.charge(life, chance.random_range(300..1_000)).await?;
        }
        self.hold(life, chance).await?;
        if chance.random_ratio(1, 3) && self.cancel(life).await? {
            self.hold(life, chance).await?;
        }
        if chance.random_ratio(4, 5) {
            self.pay(life).await?;
        }
        Some(())
    }

    async fn join(&self, life: &mut Life) -> Option<()> {
        let body = json!({"concertId": self.on_sale.sale.concert_id});
        let join = || self.api.request(Method::POST, "/queue", life).json(&body);
        let answer = self.notes.settle("join", self.patience, join).await?;
        let answer = self.expect("join", answer, &["200", "201", "409 SOLD_OUT"])?;
        if answer.status == 409 {
            return None;
        }
        life.wait_token = answer.wait_token;
        Some(())
    }

    async fn charge(&self, life: &mut Life, amount: i64) -> Option<()> {
        let path = format!("/accounts/{}/charge", life.user_id);
        let answer = self.order("charge", life, &path, &json!({"amount": amount})).await?;
        let answer = self.expect("charge", answer, &["200"])?;
        life.charges.push((answer.id("entryId"), amount));
        Some(())
    }

    /// Holds seats that are free; in a crowd it takes some attempts.
    async fn hold(&self, life: &mut Life, chance: &mut StdRng) -> Option<()> {
        for _ in 0..5 {
            let wanted = chance.random_range(1..=MOST_SEATS);
            let seats: Vec<Uuid> = self.on_sale.seats.sample(chance, wanted).copied().collect();
            let body = json!({"performanceDateId": self.on_sale.sale.date_id, "seatIds": seats});
            let answer = self.order("hold", life, "/reservations", &body).await?;
            let answer = self.expect("hold", answer, &["201", "409 SEAT_NOT_AVAILABLE"])?;
            if answer.status == 201 {
                let amount = answer.body["totalAmount"].as_i64().expect("an amount");
                let id = answer.id("reservationId");
                life.holds.push(Hold { id, seats, amount, status: "RESERVED", tickets: 0 });
                break;
            }
        }
        Some(())
    }

    /// Whether there was something to cancel.
    async fn cancel(&self, life: &mut Life) -> Option<bool> {
        let Some(hold) = life.holds.last() else { return Some(false) };
        let path = format!("/reservations/{}", hold.id);
        let cancel = || self.api.request(Method::DELETE, &path, life);
        let answer = self.notes.settle("cancel", self.patience, cancel).await?;
        self.expect("cancel", answer, &["204"])?;
        life.holds.last_mut()?.status = "CANCELLED";
        Some(true)
    }

    async fn pay(&self, life: &mut Life) -> Option<()> {
        let Some(hold) = life.holds.last().filter(|hold| hold.status == "RESERVED") else { return Some(()) };
        let body = json!({"userId": life.user_id, "reservationId": hold.id});
        let answer = self.order("pay", life, "/pay", &body).await?;
        let answer = self.expect("pay", answer, &["200"])?;
        let tickets = answer.body["tickets"].as_array().map_or(0, Vec::len);
        let hold = life.holds.last_mut()?;
        (hold.status, hold.tickets) = ("DONE", tickets);
        Some(())
    }

    /// A POST with a key of its own.
    async fn order(&self, what: &str, life: &Life, path: &str, body: &Value) -> Option<Answer> {
        let key = Uuid::from_u128(rand::random()).to_string();
        let order = || self.api.request(Method::POST, path, life).json(body).header("Idempotency-Key", &key);
        self.notes.settle(what, self.patience, order).await
    }

    fn expect(&self, what: &str, answer: Answer, kinds: &[&str]) -> Option<Answer> {
        if kinds.contains(&answer.kind().as_str()) {
            return Some(answer);
        }
        self.notes.breach(format!("{what} answered {} {}", answer.kind(), answer.body));
        None
    }

    /// Looks on all the while: reads answer, or say in order that they cannot.
    async fn read(&self) -> Life {
        let mut life = newcomer(rand::random());
        if self.join(&mut life).await.is_none() {
            return Life { unsettled: true, ..life };
        }
        let seats = format!("{}?status=all", self.on_sale.sale.seats_path());
        let balance = format!("/accounts/{}", life.user_id);
        let paths = ["/queue", &seats, &balance, "/reservations", "/concerts"];
        while !self.stop.load(Ordering::Relaxed) {
            for path in paths {
                self.notes.send(&format!("GET {path}"), self.api.request(Method::GET, path, &life)).await;
                sleep(Duration::from_millis(20)).await;
            }
        }
        life
    }
}

/// Somebody whom nobody has told anything.
pub(crate) fn newcomer(user_id: u128) -> Life {
    let user_id = Uuid::from_u128(user_id);
    let access_token = token(user_id, Role::User);
    let (charges, holds) = (Vec::new(), Vec::new());
    Life { user_id, access_token, wait_token: None, charges, holds, unsettled: false }
}
