//! What the tests of the API share: an answer to look at, requests that are made often, and waiting.

use std::fmt::Debug;
use std::time::Duration;

use frontrow_domain::Timestamp;
use frontrow_infra::identity::SystemClock;
use frontrow_testkit::app::{Buyer, Database, Sale, TestApp, admin_token, id, sent, settings};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// The longest a test waits for something that should come soon.
const SOON: Duration = Duration::from_secs(10);
/// An id of nothing.
pub(crate) const NOBODY: &str = "018f0000-0000-7000-8000-00000000dead";
/// The longest header value, body and list that tests send are far below this many bytes.
pub(crate) const TOO_LARGE: usize = 8 << 20;

/// Runs a case against a server with the default settings. No database means that there is none to run on.
pub(crate) async fn served(database: Option<Database>, case: impl AsyncFn(&TestApp)) {
    let Some(database) = database else { return };
    let app = TestApp::start(settings(&database)).await;
    case(&app).await;
    app.stop().await;
}

/// Runs a case that starts its own servers.
pub(crate) async fn unserved(database: Option<Database>, case: impl AsyncFn(&Database)) {
    if let Some(database) = database {
        case(&database).await;
    }
}

/// What the server said.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// The request, for messages.
    what: String,
}

/// Sends a request.
pub(crate) async fn ask(request: RequestBuilder) -> Answer {
    let (client, request) = request.build_split();
    let request = request.expect("a request");
    let what = format!("{} {}", request.method(), request.url().path());
    let response = client.execute(request).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await.expect("a body").to_vec();
    Answer { status, headers, body, what }
}

/// Sends a request that must be answered with this status.
pub(crate) async fn asked(request: RequestBuilder, status: u16) -> Answer {
    ask(request).await.is(status)
}

/// Sends a request that must be refused, and gives the problem.
pub(crate) async fn refused(request: RequestBuilder, status: u16, code: &str) -> Value {
    ask(request).await.problem(status, code)
}

impl Answer {
    /// Checks the status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} answered {}", self.what, self.text());
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", self.what, self.text()))
    }

    /// A header, which must not come twice.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        assert!(self.headers.get_all(name).iter().count() <= 1, "{}: {name} comes twice", self.what);
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    /// Checks that this is a whole problem of RFC 9457 with this status and code, and gives it.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        let problem = self.any_problem(status);
        assert_eq!(problem["code"], code, "{} answered {problem}", self.what);
        problem
    }

    /// The same where the contract names no code.
    #[track_caller]
    pub(crate) fn any_problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{} answered {}", self.what, self.text());
        let content_type = self.header("Content-Type").unwrap_or_default();
        assert_eq!(content_type.split(';').next(), Some("application/problem+json"), "{}", self.what);
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        for field in ["type", "title", "detail", "code"] {
            let text = problem[field].as_str().unwrap_or_else(|| panic!("no {field} in {problem}"));
            assert!(!text.is_empty(), "{field} is empty in {problem}");
        }
        problem
    }

    /// Checks that this is the gate's redirect, for this reason.
    #[track_caller]
    pub(crate) fn sent_to_the_queue(&self, code: &str) {
        self.problem(301, code);
        assert_eq!(self.header("Location"), Some("/queue"), "{}", self.what);
        assert_eq!(self.header("Cache-Control"), Some("no-store"), "{}", self.what);
    }

    /// The seconds of Retry-After.
    #[track_caller]
    pub(crate) fn retry_after(&self) -> u64 {
        let value = self.header("Retry-After").unwrap_or_else(|| panic!("{}: no Retry-After", self.what));
        value.parse().expect("whole seconds")
    }

    /// The Wait-Token.
    #[track_caller]
    pub(crate) fn wait_token(&self) -> String {
        self.header("Wait-Token").unwrap_or_else(|| panic!("{}: no Wait-Token", self.what)).to_owned()
    }
}

/// The machine's time.
pub(crate) fn now() -> Timestamp {
    SystemClock::uncorrected()
}

/// The time in so many seconds, as the contract writes times.
pub(crate) fn in_seconds(seconds: i64) -> String {
    let micros = now().unix_micros() + seconds * 1_000_000;
    Timestamp::from_unix_micros(micros).expect("a time").to_string()
}

/// A time of a body, which must be RFC 3339 in UTC.
#[track_caller]
pub(crate) fn time(body: &Value, field: &str) -> Timestamp {
    let text = body[field].as_str().unwrap_or_else(|| panic!("no {field} in {body}"));
    assert!(text.ends_with('Z'), "{field} is not in UTC: {text}");
    Timestamp::parse(text).unwrap_or_else(|error| panic!("{field}: {error}: {text}"))
}

/// Microseconds from one time to another, below zero when it was earlier.
pub(crate) fn micros(from: Timestamp, to: Timestamp) -> i64 {
    to.unix_micros() - from.unix_micros()
}

/// Checks that a time is this many seconds from now, give or take a slow machine.
#[track_caller]
pub(crate) fn is_about(time: Timestamp, seconds: i64) {
    let off = micros(now(), time) - seconds * 1_000_000;
    assert!(off.abs() < 20_000_000, "{time} is not {seconds} s from now");
}

/// Waits until a deadline has just passed, on the database's clock, too.
pub(crate) async fn past(deadline: Timestamp) {
    sleep(deadline.since(now()) + Duration::from_millis(30)).await;
}

/// Asks again and again until there is something, and gives it.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Looks until a value is the expected one.
pub(crate) async fn becomes<T: PartialEq + Debug>(what: &str, expected: T, look: impl AsyncFn() -> T) {
    let deadline = Instant::now() + SOON;
    loop {
        let found = look().await;
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{what} stays {found:?} and does not become {expected:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A request by an operator.
pub(crate) fn admin(app: &TestApp, method: Method, path: &str) -> RequestBuilder {
    app.request(method, path).bearer_auth(admin_token())
}

/// A POST by an operator.
pub(crate) fn admin_post(app: &TestApp, path: &str, body: &Value) -> RequestBuilder {
    admin(app, Method::POST, path).json(body)
}

/// A PATCH of a room by an operator.
pub(crate) fn patch_room(app: &TestApp, room_id: Uuid, body: &Value) -> RequestBuilder {
    admin(app, Method::PATCH, &format!("/admin/rooms/{room_id}")).json(body)
}

/// What operators see of a room.
pub(crate) async fn room(app: &TestApp, room_id: Uuid) -> Value {
    let rooms = sent(admin(app, Method::GET, "/admin/rooms?limit=100"), 200).await;
    let mut items = rooms["items"].as_array().expect("items").iter();
    items.find(|room| room["roomId"] == json!(room_id)).expect("the room is listed").clone()
}

/// What operators see of the sales of a date: available, reserved, unavailable, amountSold.
pub(crate) async fn sales(app: &TestApp, date_id: Uuid) -> [i64; 4] {
    let sales = sent(admin(app, Method::GET, &format!("/admin/performanceDates/{date_id}/sales")), 200).await;
    ["available", "reserved", "unavailable", "amountSold"].map(|field| sales[field].as_i64().expect(field))
}

/// One more date of a concert.
pub(crate) async fn add_date(app: &TestApp, concert_id: Uuid, date: &Value) -> Uuid {
    let path = format!("/admin/concerts/{concert_id}/performanceDates");
    id(&sent(admin_post(app, &path, date), 201).await, "performanceDateId")
}

/// The same sale on another date, which starts and goes on sale in so many seconds. One row at 100 each.
pub(crate) async fn sale_on(
    app: &TestApp,
    sale: &Sale,
    starts: i64,
    on_sale: Option<i64>,
    seats: u32,
) -> Sale {
    let section = json!({"section": "A", "grade": "R", "price": 100, "rows": 1, "seatsPerRow": seats});
    let mut date = json!({"startsAt": in_seconds(starts), "sections": [section]});
    if let Some(on_sale) = on_sale {
        date["onSaleAt"] = json!(in_seconds(on_sale));
    }
    Sale { date_id: add_date(app, sale.concert_id, &date).await, ..*sale }
}

/// The path of the dates of a concert.
pub(crate) fn dates_path(sale: &Sale) -> String {
    format!("/concerts/{}/performanceDates", sale.concert_id)
}

/// Every seat of a date with its status.
pub(crate) async fn seat_statuses(app: &TestApp, buyer: &Buyer, sale: &Sale) -> Vec<(Uuid, String)> {
    let body = sent(buyer.own(app.get(&format!("{}?status=all", sale.seats_path()))), 200).await;
    let seats = body["seats"].as_array().expect("seats").iter();
    seats.map(|seat| (id(seat, "seatId"), seat["status"].as_str().expect("a status").to_owned())).collect()
}

/// The status of one seat.
pub(crate) async fn seat_status(app: &TestApp, buyer: &Buyer, sale: &Sale, seat_id: Uuid) -> String {
    let seats = seat_statuses(app, buyer, sale).await;
    seats.into_iter().find(|(id, _)| *id == seat_id).expect("the seat is listed").1
}

/// A buyer's own reservation.
pub(crate) async fn reservation(app: &TestApp, buyer: &Buyer, reservation_id: Uuid) -> Value {
    sent(buyer.own(app.get(&format!("/reservations/{reservation_id}"))), 200).await
}

/// What a buyer's place in line looks like.
pub(crate) async fn place(app: &TestApp, buyer: &Buyer) -> Value {
    sent(buyer.own(app.get("/queue")), 200).await
}

/// The status of a buyer's place.
pub(crate) async fn place_status(app: &TestApp, buyer: &Buyer) -> String {
    place(app, buyer).await["status"].as_str().expect("a status").to_owned()
}

/// Sends a buyer into line (again). The buyer's Wait-Token stays as it was.
pub(crate) fn enter(app: &TestApp, buyer: &Buyer, sale: &Sale) -> RequestBuilder {
    buyer.own(app.post("/queue", &json!({"concertId": sale.concert_id})))
}

/// What an account has.
pub(crate) async fn balance(app: &TestApp, buyer: &Buyer) -> i64 {
    let account = sent(buyer.own(app.get(&format!("/accounts/{}", buyer.user_id))), 200).await;
    account["balance"].as_i64().expect("a balance")
}

/// The history of an account, newest first.
pub(crate) async fn entries(app: &TestApp, buyer: &Buyer) -> Vec<Value> {
    let path = format!("/accounts/{}/entries", buyer.user_id);
    pages(|query| buyer.own(app.get(&format!("{path}?limit=100{query}")))).await
}

/// Every item of a list, page by page to its end.
pub(crate) async fn pages(page: impl Fn(String) -> RequestBuilder) -> Vec<Value> {
    let mut items = Vec::new();
    let mut query = String::new();
    for _ in 0..50 {
        let body = sent(page(query), 200).await;
        items.extend(body["items"].as_array().expect("items").iter().cloned());
        let Some(cursor) = body.get("nextCursor").filter(|cursor| !cursor.is_null()) else { return items };
        query = format!("&cursor={}", cursor.as_str().expect("a cursor is text"));
    }
    panic!("the list has no end: {} items so far", items.len());
}

/// Everything that a payment could change: account, entries, reservations, place in line, seats and sales.
pub(crate) async fn everything(app: &TestApp, buyer: &Buyer, sale: &Sale, onlooker: &Buyer) -> Value {
    let place = match buyer.wait_token {
        Some(_) => place(app, buyer).await,
        None => Value::Null,
    };
    let token: Vec<&Value> =
        ["tokenId", "status", "activatedAt", "expiresAt"].iter().map(|field| &place[field]).collect();
    json!({
        "balance": balance(app, buyer).await,
        "entries": entries(app, buyer).await,
        "reservations": pages(|query| buyer.own(app.get(&format!("/reservations?limit=100{query}")))).await,
        "token": token,
        "seats": seat_statuses(app, onlooker, sale).await,
        "sales": sales(app, sale.date_id).await,
    })
}
