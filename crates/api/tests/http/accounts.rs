use frontrow_domain::account::{Account, Entry, EntryKind};
use frontrow_domain::reservation::{HoldTerms, Reservation, ReservationStatus, ReservedSeat};
use frontrow_domain::seat::SeatState;
use frontrow_domain::unit_of_work::{AggregateRef, CommitError, Committed};
use frontrow_domain::{EntryId, ReservationId};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{
    BEARER, DATE, JSON, OTHER_ROOM, OTHER_USER, Ports, SEAT, TOKEN, USER, ask, money, now, seat, stored,
};

const RESERVATION: ReservationId = ReservationId::new(Uuid::from_u128(0x50));

fn charge() -> String {
    format!("/accounts/{USER}/charge")
}

#[actix_web::test]
async fn a_charge_is_answered() {
    let mut ports = Ports::new();
    ports.accounts.expect_find().returning(|_| Ok(None));
    ports.committer.expect_commit().returning(|_| Ok(Committed::default()));
    let answer = ask(&ports.state(), "POST", &charge(), &[BEARER, JSON], "{\"amount\":700}").await;
    let expected = json!({
        "chargedAmount": 700, "chargedAt": "2026-11-22T12:00:00Z", "balance": 700,
        "entryId": Uuid::from_u128(0x1000).to_string(),
    });
    assert_eq!((answer.status, answer.json()), (200, expected));
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[actix_web::test]
async fn charges_are_checked_in_order() {
    let mut ports = Ports::new();
    ports.accounts.expect_find().returning(|_| Ok(None));
    let state = ports.state();
    let bad_path = "/accounts/x/charge";
    ask(&state, "POST", bad_path, &[], "x").await.assert_problem(401, "UNAUTHENTICATED");
    ask(&state, "POST", bad_path, &[BEARER], "{\"amount\":0}").await.assert_problem(400, "MALFORMED_REQUEST");
    let others = format!("/accounts/{OTHER_USER}/charge");
    for malformed in
        ["", "x", "{}", "{\"amount\":null}", "{\"amount\":\"5\"}", "{\"amount\":1.0}", "{\"amount\":1e3}"]
    {
        ask(&state, "POST", &others, &[BEARER], malformed).await.assert_problem(400, "MALFORMED_REQUEST");
    }
    let twice = [BEARER, ("Idempotency-Key", "a"), ("Idempotency-Key", "a")];
    ask(&state, "POST", &others, &twice, "{\"amount\":5}").await.assert_problem(400, "MALFORMED_REQUEST");
    for invalid in
        ["0", "-1", "10000001", "9223372036854775807", "9223372036854775808", "-99999999999999999999"]
    {
        let body = format!("{{\"amount\":{invalid}}}");
        let answer = ask(&state, "POST", &others, &[BEARER], body.clone()).await;
        answer.assert_problem(403, "NOT_YOUR_RESOURCE");
        ask(&state, "POST", &charge(), &[BEARER], body).await.assert_problem(422, "INVALID_AMOUNT");
    }
}

#[actix_web::test]
async fn charges_that_meet_are_refused_and_not_retried() {
    let mut ports = Ports::new();
    ports.accounts.expect_find().returning(|_| Ok(None));
    let conflict = |_| Err(CommitError::Conflict(AggregateRef::Account(USER)));
    ports.committer.expect_commit().times(1).returning(conflict);
    let answer = ask(&ports.state(), "POST", &charge(), &[BEARER], "{\"amount\":5}").await;
    answer.assert_problem(409, "ACCOUNT_CONFLICT");
}

#[actix_web::test]
async fn balance_and_history_are_ones_own() {
    let mut ports = Ports::new();
    ports.accounts.expect_find().returning(|_| Ok(None));
    ports.account_queries.expect_list_entries().returning(|_, before, limit| {
        let kind =
            |n| if n == 1 { EntryKind::Charge } else { EntryKind::Payment { reservation_id: RESERVATION } };
        let entry = |number: i64| Entry {
            id: EntryId::new(Uuid::from_u128(9)),
            user_id: USER,
            number,
            kind: kind(number),
            amount: money(5),
            balance_after: money(number),
            at: now(),
        };
        let numbers = (1..=2).rev().filter(|n| before.is_none_or(|before| *n < before));
        Ok(numbers.take(usize::try_from(limit).unwrap()).map(entry).collect())
    });
    let state = ports.state();
    let own = format!("/accounts/{USER}");
    let balance = ask(&state, "GET", &own, &[BEARER], "").await.json();
    assert_eq!(balance, json!({"userId": USER.to_string(), "balance": 0}));
    let first = ask(&state, "GET", &format!("{own}/entries?limit=1"), &[BEARER], "").await.json();
    let payment = json!({
        "entryId": Uuid::from_u128(9).to_string(), "kind": "PAYMENT", "amount": 5, "balanceAfter": 2,
        "at": "2026-11-22T12:00:00Z", "reservationId": RESERVATION.to_string(),
    });
    assert_eq!(first["items"], json!([payment]));
    let next = format!("{own}/entries?cursor={}", first["nextCursor"].as_str().unwrap());
    let second = ask(&state, "GET", &next, &[BEARER], "").await.json();
    assert_eq!(second["items"][0]["kind"], "CHARGE");
    assert!(second["items"][0].get("reservationId").is_none() && second.get("nextCursor").is_none());
    for path in ["", "/entries"] {
        let others = format!("/accounts/{OTHER_USER}{path}");
        ask(&state, "GET", &others, &[BEARER], "").await.assert_problem(403, "NOT_YOUR_RESOURCE");
        let bad = format!("/accounts/x{path}");
        ask(&state, "GET", &bad, &[BEARER], "").await.assert_problem(400, "MALFORMED_REQUEST");
    }
}

fn reservation(status: ReservationStatus) -> Reservation {
    let terms = HoldTerms {
        user_id: USER,
        performance_date_id: DATE,
        room_id: OTHER_ROOM,
        token_id: TOKEN,
        reserved_at: now(),
        hold_expires_at: now().plus_seconds(300),
    };
    let seats = vec![ReservedSeat { seat_id: SEAT, price: money(100) }];
    Reservation { status, ..Reservation::hold(RESERVATION, terms, seats).unwrap() }
}

/// A stored reservation, and an account with this much in it.
fn payable(status: ReservationStatus, balance: i64) -> Ports {
    let mut ports = Ports::new();
    ports.reservations.expect_find().returning(move |_| Ok(Some(stored(reservation(status)))));
    let account = Account { balance: money(balance), ..Account::empty(USER) };
    ports.accounts.expect_find().returning(move |_| Ok(Some(stored(account))));
    ports.seats.expect_find_many().returning(|_| {
        let state = SeatState::Reserved { reservation_id: RESERVATION, hold_expires_at: now() };
        let mut held = seat();
        held.state = state;
        Ok(vec![stored(held)])
    });
    ports.tokens.expect_find_live().returning(|_, _| Ok(None));
    ports
}

fn payment(user: impl std::fmt::Display) -> String {
    format!("{{\"userId\":\"{user}\",\"reservationId\":\"{RESERVATION}\"}}")
}

#[actix_web::test]
async fn a_payment_is_answered() {
    let mut ports = payable(ReservationStatus::Reserved, 150);
    ports.committer.expect_commit().returning(|_| Ok(Committed::default()));
    let answer = ask(&ports.state(), "POST", "/pay", &[BEARER, JSON], payment(USER)).await;
    let body = answer.json();
    assert_eq!((answer.status, &body["amount"], &body["balance"]), (200, &100.into(), &50.into()), "{body}");
    assert_eq!(body["reservationId"], RESERVATION.to_string());
    assert_eq!(body["paidAt"], "2026-11-22T12:00:00Z");
    assert_eq!(body["tickets"][0]["seatId"], SEAT.to_string());
    assert!(body["paymentId"].is_string() && body["tickets"][0]["ticketId"].is_string());
}

#[actix_web::test]
async fn payments_are_checked_in_order() {
    let state = Ports::new().state();
    ask(&state, "POST", "/pay", &[], "x").await.assert_problem(401, "UNAUTHENTICATED");
    for malformed in ["", "{}", &format!("{{\"userId\":\"{OTHER_USER}\"}}"), &payment("x")] {
        let answer = ask(&state, "POST", "/pay", &[BEARER], malformed.to_owned()).await;
        answer.assert_problem(400, "MALFORMED_REQUEST");
    }
    let others = ask(&state, "POST", "/pay", &[BEARER], payment(OTHER_USER)).await;
    others.assert_problem(403, "NOT_YOUR_RESOURCE");
    for (status, code) in [
        (ReservationStatus::Expired, "RESERVATION_EXPIRED"),
        (ReservationStatus::Cancelled, "RESERVATION_CANCELLED"),
        (ReservationStatus::Done, "ALREADY_PAID"),
    ] {
        let state = payable(status, 0).state();
        ask(&state, "POST", "/pay", &[BEARER], payment(USER)).await.assert_problem(409, code);
    }
    let state = payable(ReservationStatus::Reserved, 99).state();
    let poor = ask(&state, "POST", "/pay", &[BEARER], payment(USER)).await;
    poor.assert_problem(409, "INSUFFICIENT_BALANCE");
    assert_eq!((&poor.json()["required"], &poor.json()["balance"]), (&100.into(), &99.into()));
}
