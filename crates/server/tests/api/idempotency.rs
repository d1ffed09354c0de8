//! `Idempotency-Key`: the same request again gets the same answer, and has no second effect.

use frontrow_testkit::app::{Buyer, Sale, TestApp, sent};
use futures_util::future::join_all;
use reqwest::RequestBuilder;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use crate::support::{Answer, ask, asked, balance, enter, entries, refused, reservation, sales};

fn keyed(request: RequestBuilder, key: &str) -> RequestBuilder {
    request.header("Idempotency-Key", key)
}

fn charge(app: &TestApp, buyer: &Buyer, amount: i64) -> RequestBuilder {
    buyer.own(app.post(&format!("/accounts/{}/charge", buyer.user_id), &json!({"amount": amount})))
}

/// Checks that the second answer is the first one again.
#[track_caller]
pub(crate) fn is_replayed(second: &Answer, first: &Answer) {
    assert!(first.header("Idempotency-Replayed").is_none(), "the first is no replay");
    assert_eq!(second.header("Idempotency-Replayed"), Some("true"), "{}", second.text());
    assert_eq!(second.status, first.status);
    assert_eq!(second.body, first.body, "byte for byte");
    assert_eq!(second.header("Content-Type"), first.header("Content-Type"));
}

pub(crate) async fn a_charge_is_replayed(app: &TestApp) {
    let buyer = app.guest().await;
    let first = asked(keyed(charge(app, &buyer, 50), "once"), 200).await;
    app.charge(&buyer, 7).await;
    for _ in 0..3 {
        is_replayed(&asked(keyed(charge(app, &buyer, 50), "once"), 200).await, &first);
    }
    assert_eq!(balance(app, &buyer).await, 57);
    assert_eq!(entries(app, &buyer).await.len(), 2);
    // Another key is another charge.
    let other = asked(keyed(charge(app, &buyer, 50), "twice"), 200).await;
    assert!(other.header("Idempotency-Replayed").is_none());
    assert_eq!(balance(app, &buyer).await, 107);
}

pub(crate) async fn a_hold_and_its_payment_are_replayed(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 2).await;
    let buyer = app.active(&sale).await;
    let seats = app.seats(&buyer, &sale).await;
    app.charge(&buyer, 500).await;
    let held = asked(keyed(app.reserve(&buyer, &sale, &seats), "hold"), 201).await;
    is_replayed(&asked(keyed(app.reserve(&buyer, &sale, &seats), "hold"), 201).await, &held);
    assert_eq!(sales(app, sale.date_id).await, [0, 2, 0, 0]);
    let reservation_id = frontrow_testkit::app::id(&held.json(), "reservationId");
    let paid = asked(keyed(app.pay(&buyer, reservation_id), "pay"), 200).await;
    is_replayed(&asked(keyed(app.pay(&buyer, reservation_id), "pay"), 200).await, &paid);
    assert_eq!(balance(app, &buyer).await, 300);
    assert_eq!(entries(app, &buyer).await.len(), 2);
    // Without the key it is a payment of something that is paid.
    refused(app.pay(&buyer, reservation_id), 409, "ALREADY_PAID").await;

    // The token is EXPIRED by now: the hold's answer comes again all the same, as it was.
    is_replayed(&asked(keyed(app.reserve(&buyer, &sale, &seats), "hold"), 201).await, &held);
    for wait_token in [None, Some("rubbish".to_owned())] {
        let buyer = Buyer { wait_token, ..buyer.clone() };
        is_replayed(&asked(keyed(app.reserve(&buyer, &sale, &seats), "hold"), 201).await, &held);
        ask(keyed(app.reserve(&buyer, &sale, &seats), "no hold yet")).await.problem(
            301,
            if buyer.wait_token.is_none() { "WAIT_TOKEN_MISSING" } else { "WAIT_TOKEN_INVALID" },
        );
    }
    assert_eq!(reservation(app, &buyer, reservation_id).await["status"], "DONE");
}

pub(crate) async fn a_key_belongs_to_one_request(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 2).await;
    let buyer = app.active(&sale).await;
    let seats = app.seats(&buyer, &sale).await;
    let path = format!("/accounts/{}/charge", buyer.user_id);
    let raw = |body: &str| keyed(buyer.own(app.post(&path, &Value::Null)).body(body.to_owned()), "mine");
    asked(raw("{\"amount\":5}"), 200).await;
    let reuses = [
        raw("{\"amount\":6}"),
        raw("{\"amount\": 5}"),
        raw("{\"amount\":5} "),
        raw("{\"amount\":5,\"x\":1}"),
        keyed(app.reserve(&buyer, &sale, &seats), "mine"),
        keyed(app.pay(&buyer, sale.date_id), "mine"),
    ];
    for request in reuses {
        refused(request, 422, "IDEMPOTENCY_KEY_REUSED").await;
    }
    assert_eq!(asked(raw("{\"amount\":5}"), 200).await.header("Idempotency-Replayed"), Some("true"));
    assert_eq!(balance(app, &buyer).await, 5);
    assert_eq!(sales(app, sale.date_id).await, [2, 0, 0, 0]);
}

pub(crate) async fn a_key_belongs_to_one_path(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let buyer = app.active(&sale).await;
    let seats = app.seats(&buyer, &sale).await;
    let held = app.hold(&buyer, &sale, &seats).await;
    app.charge(&buyer, 1_000).await;
    // One body that each of the three calls understands.
    let body = json!({"amount": 5, "userId": buyer.user_id, "reservationId": held,
        "performanceDateId": sale.date_id, "seatIds": seats});
    let charge = format!("/accounts/{}/charge", buyer.user_id);
    asked(keyed(buyer.own(app.post(&charge, &body)), "mine"), 200).await;
    for path in ["/pay", "/reservations"] {
        refused(keyed(buyer.own(app.post(path, &body)), "mine"), 422, "IDEMPOTENCY_KEY_REUSED").await;
    }
    assert_eq!(balance(app, &buyer).await, 1_005);
}

pub(crate) async fn a_key_belongs_to_one_user(app: &TestApp) {
    let (first, second) = (app.guest().await, app.guest().await);
    for (buyer, amount) in [(&first, 5), (&second, 6)] {
        let answer = asked(keyed(charge(app, buyer, amount), "same"), 200).await;
        assert!(answer.header("Idempotency-Replayed").is_none());
        assert_eq!(answer.json()["balance"], amount);
    }
    assert_eq!((balance(app, &first).await, balance(app, &second).await), (5, 6));
    let bare = app.post(&format!("/accounts/{}/charge", first.user_id), &json!({"amount": 5}));
    refused(keyed(bare, "same"), 401, "UNAUTHENTICATED").await;
}

pub(crate) async fn a_refusal_leaves_the_key_free(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let (buyer, other) = (app.active(&sale).await, app.active(&sale).await);
    let seats = app.seats(&buyer, &sale).await;
    let taken = app.hold(&other, &sale, &seats).await;
    let hold = || keyed(app.reserve(&buyer, &sale, &seats), "hold");
    for _ in 0..2 {
        let answer = ask(hold()).await;
        answer.problem(409, "SEAT_NOT_AVAILABLE");
        assert!(answer.header("Idempotency-Replayed").is_none());
    }
    asked(other.own(app.delete(&format!("/reservations/{taken}"))), 204).await;
    let held = asked(hold(), 201).await;
    is_replayed(&asked(hold(), 201).await, &held);

    let reservation_id = frontrow_testkit::app::id(&held.json(), "reservationId");
    refused(keyed(app.pay(&buyer, reservation_id), "pay"), 409, "INSUFFICIENT_BALANCE").await;
    refused(keyed(charge(app, &buyer, 0), "pay"), 422, "INVALID_AMOUNT").await;
    app.charge(&buyer, 100).await;
    let paid = asked(keyed(app.pay(&buyer, reservation_id), "pay"), 200).await;
    is_replayed(&asked(keyed(app.pay(&buyer, reservation_id), "pay"), 200).await, &paid);
    refused(keyed(charge(app, &buyer, 1), "pay"), 422, "IDEMPOTENCY_KEY_REUSED").await;
}

pub(crate) async fn a_key_is_printable_and_short(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let buyer = app.active(&sale).await;
    let seats = app.seats(&buyer, &sale).await;
    app.charge(&buyer, 1_000).await;
    let held = app.hold(&buyer, &sale, &seats).await;
    let long = "k".repeat(256);
    for bad in [b"".as_slice(), long.as_bytes(), "ключ".as_bytes(), b"a\tb", b"\xff"] {
        for request in [charge(app, &buyer, 5), app.pay(&buyer, held), app.reserve(&buyer, &sale, &seats)] {
            let request = request.header("Idempotency-Key", HeaderValue::from_bytes(bad).unwrap());
            refused(request, 400, "MALFORMED_REQUEST").await;
        }
    }
    assert_eq!(balance(app, &buyer).await, 1_000);
    for good in ["k", "!#~[]{}\"'\\", &"k".repeat(255)] {
        let first = asked(keyed(charge(app, &buyer, 5), good), 200).await;
        is_replayed(&asked(keyed(charge(app, &buyer, 5), good), 200).await, &first);
    }
}

pub(crate) async fn twins_get_one_answer(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 4).await;
    for round in 0..3 {
        let buyer = app.active(&sale).await;
        let key = format!("round {round}");
        let answers = join_all((0..8).map(|_| ask(keyed(charge(app, &buyer, 100), &key)))).await;
        one_effect(&answers, 200);
        assert_eq!(balance(app, &buyer).await, 100);

        let seat = app.seats(&buyer, &sale).await[0];
        let holds =
            join_all((0..8).map(|_| ask(keyed(app.reserve(&buyer, &sale, &[seat]), &format!("{key} hold")))))
                .await;
        one_effect(&holds, 201);
        let held = frontrow_testkit::app::id(&holds[0].json(), "reservationId");
        let paid = join_all((0..8).map(|_| ask(keyed(app.pay(&buyer, held), &format!("{key} pay"))))).await;
        one_effect(&paid, 200);
        assert_eq!(balance(app, &buyer).await, 0);
    }
    assert_eq!(sales(app, sale.date_id).await, [1, 0, 3, 300]);
}

/// Checks that all twins got the same answer, and all but one as a replay.
#[track_caller]
fn one_effect(answers: &[Answer], status: u16) {
    for answer in answers {
        assert_eq!(answer.status, status, "a twin was answered {}", answer.text());
        assert_eq!(answer.body, answers[0].body);
    }
    let replayed = answers.iter().filter(|answer| answer.header("Idempotency-Replayed").is_some()).count();
    assert_eq!(replayed, answers.len() - 1);
}

/// What a restart must not forget: an answer of each kind, and a place in line. See `restart`.
pub(crate) struct Remembered {
    pub(crate) sale: Sale,
    pub(crate) buyer: Buyer,
    pub(crate) waiting: Buyer,
    seats: Vec<uuid::Uuid>,
    charged: Answer,
    held: Answer,
    paid: Option<Answer>,
}

impl Remembered {
    pub(crate) async fn make(app: &TestApp) -> Self {
        let sale = app.sale(json!({}), 1, 2).await;
        let buyer = app.active(&sale).await;
        let waiting = app.waiting(&sale).await;
        let seats = app.seats(&buyer, &sale).await;
        let charged = asked(keyed(charge(app, &buyer, 500), "charge"), 200).await;
        let held = asked(keyed(app.reserve(&buyer, &sale, &seats), "hold"), 201).await;
        Self { sale, buyer, waiting, seats, charged, held, paid: None }
    }

    pub(crate) async fn pay(&mut self, app: &TestApp) {
        let reservation_id = frontrow_testkit::app::id(&self.held.json(), "reservationId");
        self.paid = Some(asked(keyed(app.pay(&self.buyer, reservation_id), "pay"), 200).await);
    }

    pub(crate) async fn check(&self, app: &TestApp) {
        is_replayed(&asked(keyed(charge(app, &self.buyer, 500), "charge"), 200).await, &self.charged);
        let hold = app.reserve(&self.buyer, &self.sale, &self.seats);
        is_replayed(&asked(keyed(hold, "hold"), 201).await, &self.held);
        refused(keyed(charge(app, &self.buyer, 501), "charge"), 422, "IDEMPOTENCY_KEY_REUSED").await;
        let waiting = asked(enter(app, &self.waiting, &self.sale), 200).await;
        assert_eq!(Some(waiting.wait_token()), self.waiting.wait_token, "byte for byte");
        let mut left = 500;
        if let Some(paid) = &self.paid {
            let reservation_id = frontrow_testkit::app::id(&self.held.json(), "reservationId");
            is_replayed(&asked(keyed(app.pay(&self.buyer, reservation_id), "pay"), 200).await, paid);
            left -= 200;
        } else {
            let active = asked(enter(app, &self.buyer, &self.sale), 200).await;
            assert_eq!(Some(active.wait_token()), self.buyer.wait_token, "byte for byte");
            sent(self.buyer.own(app.get(&self.sale.seats_path())), 200).await;
        }
        assert_eq!(balance(app, &self.buyer).await, left);
    }
}
