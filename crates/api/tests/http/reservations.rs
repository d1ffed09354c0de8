use std::sync::{Arc, Mutex};

use frontrow_api::ApiState;
use frontrow_domain::account::Ticket;
use frontrow_domain::idempotency::IdempotencyRecord;
use frontrow_domain::ports::{PaymentView, ReservationView};
use frontrow_domain::queue::{DEFAULT_ROOM_ID, QueueTokenState};
use frontrow_domain::reservation::{Holdings, ReservationStatus};
use frontrow_domain::seat::SeatState;
use frontrow_domain::unit_of_work::Committed;
use frontrow_domain::{PaymentId, ReservationId, SeatId, TicketId};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{
    Answered, BEARER, DATE, JSON, OTHER_DATE, OTHER_ROOM, Ports, SEAT, USER, WAIT_TOKEN, active, ask,
    concert, date, money, now, place, seat, stored,
};

type State = actix_web::web::Data<ApiState>;

const KEY: (&str, &str) = ("Idempotency-Key", "k1");

fn body(seats: &[SeatId]) -> String {
    let seats: Vec<String> = seats.iter().map(|id| format!("\"{id}\"")).collect();
    format!("{{\"performanceDateId\":\"{DATE}\",\"seatIds\":[{}]}}", seats.join(","))
}

async fn post(state: &State, headers: &[(&str, &str)], body: &str) -> Answered {
    ask(state, "POST", "/reservations", headers, body.to_owned()).await
}

/// A store that holds, and remembers its idempotency record.
fn holding() -> (State, Arc<Mutex<Vec<IdempotencyRecord>>>) {
    let records: Arc<Mutex<Vec<IdempotencyRecord>>> = Arc::default();
    let (read, written) = (records.clone(), records.clone());
    let mut ports = Ports::with_token(active());
    ports.records.expect_find().returning(move |user_id, key| {
        let records = read.lock().unwrap();
        Ok(records.iter().find(|r| r.request.user_id == user_id && r.request.key == *key).cloned())
    });
    ports.committer.expect_commit().returning(move |work| {
        written.lock().unwrap().extend(work.idempotency);
        Ok(Committed::default())
    });
    ports.concerts.expect_find_date().returning(|_| Ok(Some((date(), concert(DEFAULT_ROOM_ID)))));
    ports.seats.expect_find_many().returning(|_| Ok(vec![stored(seat())]));
    ports.reservations.expect_holdings().returning(|_, _, _| Ok(Holdings::default()));
    (ports.state(), records)
}

#[actix_web::test]
async fn a_hold_is_answered_and_answered_again_byte_for_byte() {
    let (state, records) = holding();
    let first = post(&state, &[BEARER, WAIT_TOKEN, JSON, KEY], &body(&[SEAT])).await;
    assert_eq!(first.status, 201, "{}", first.json());
    let json = first.json();
    assert_eq!(json["userId"], USER.to_string());
    assert_eq!(json["performanceDateId"], DATE.to_string());
    assert_eq!(json["status"], "RESERVED");
    assert_eq!(json["totalAmount"], 100);
    assert_eq!(json["holdExpiresAt"], "2026-11-22T12:05:00Z");
    let seat = &json["seats"][0];
    assert_eq!((&seat["seatId"], &seat["section"]), (&SEAT.to_string().into(), &"A".into()));
    assert_eq!(
        (&seat["row"], &seat["number"], &seat["grade"], &seat["price"]),
        (&1.into(), &1.into(), &"R".into(), &100.into())
    );
    assert_eq!(first.header("idempotency-replayed"), "");
    assert_eq!(records.lock().unwrap()[0].answer.body, first.body, "what is stored is what was sent");

    // No Wait-Token any more: the earlier answer comes before the gate.
    let again = post(&state, &[BEARER, JSON, KEY], &body(&[SEAT])).await;
    assert_eq!((again.status, &again.body), (201, &first.body));
    assert_eq!(again.header("content-type"), first.header("content-type"));
    assert_eq!(again.header("idempotency-replayed"), "true");

    post(&state, &[BEARER, JSON, KEY], "not json").await.assert_problem(422, "IDEMPOTENCY_KEY_REUSED");
    let other = [("Authorization", "Bearer other"), KEY];
    post(&state, &other, &body(&[SEAT])).await.assert_problem(301, "WAIT_TOKEN_MISSING");
    assert_eq!(records.lock().unwrap().len(), 1);
}

/// One request with every fault; each step mends the one that was named.
#[actix_web::test]
async fn the_first_fault_in_the_order_of_the_contract_is_named() {
    let large = "x".repeat(65 * 1024);
    let bad_key = ("Idempotency-Key", "");
    let nothing_asked = Ports::new().state();
    post(&nothing_asked, &[bad_key], &large).await.assert_problem(401, "UNAUTHENTICATED");
    let forged = [("Authorization", "Bearer forged"), bad_key];
    post(&nothing_asked, &forged, &large).await.assert_problem(401, "UNAUTHENTICATED");
    post(&nothing_asked, &[BEARER, bad_key], &large).await.assert_problem(413, "PAYLOAD_TOO_LARGE");
    post(&nothing_asked, &[BEARER, bad_key], "x").await.assert_problem(301, "WAIT_TOKEN_MISSING");
    let forged = [BEARER, bad_key, ("Wait-Token", "forged")];
    post(&nothing_asked, &forged, "x").await.assert_problem(301, "WAIT_TOKEN_INVALID");
    let twice = [BEARER, WAIT_TOKEN, WAIT_TOKEN];
    post(&nothing_asked, &twice, "x").await.assert_problem(301, "WAIT_TOKEN_INVALID");
    let of_another = [("Authorization", "Bearer other"), WAIT_TOKEN];
    post(&nothing_asked, &of_another, "x").await.assert_problem(301, "WAIT_TOKEN_INVALID");
    let headers = [BEARER, WAIT_TOKEN, bad_key];
    let waiting = Ports::with_token(QueueTokenState::Wait).state();
    post(&waiting, &headers, "x").await.assert_problem(301, "WAIT_TOKEN_NOT_ACTIVE");
    let over = QueueTokenState::Expired { activated_at: None, expires_at: now() };
    post(&Ports::with_token(over).state(), &headers, "x").await.assert_problem(301, "WAIT_TOKEN_EXPIRED");

    let passed = Ports::with_token(active()).state();
    post(&passed, &headers, &body(&[])).await.assert_problem(400, "MALFORMED_REQUEST");
    let text = [BEARER, WAIT_TOKEN, ("Content-Type", "text/plain")];
    post(&passed, &text, "x").await.assert_problem(415, "UNSUPPORTED_MEDIA_TYPE");
    let headers = [BEARER, WAIT_TOKEN];
    for malformed in ["", "x", "[]", "{}", "null", "{\"performanceDateId\":\"x\",\"seatIds\":[]}"] {
        post(&passed, &headers, malformed).await.assert_problem(400, "MALFORMED_REQUEST");
    }
    let not_a_list = format!("{{\"performanceDateId\":\"{DATE}\",\"seatIds\":\"{SEAT}\"}}");
    post(&passed, &headers, &not_a_list).await.assert_problem(400, "MALFORMED_REQUEST");
    let five: Vec<SeatId> = (0..5_u128).map(|n| SeatId::new(Uuid::from_u128(n))).collect();
    for invalid in [vec![], vec![SEAT, SEAT], five] {
        post(&passed, &headers, &body(&invalid)).await.assert_problem(422, "INVALID_REQUEST");
    }
}

/// What stands in the way once the request itself is good, one thing less each time.
#[actix_web::test]
async fn the_first_obstacle_in_the_order_of_the_contract_is_named() {
    struct Case {
        date: bool,
        room: bool,
        on_sale: bool,
        seat: bool,
        of_date: bool,
        live: u32,
        code: (u16, &'static str),
    }
    let good = || Case {
        date: true,
        room: true,
        on_sale: true,
        seat: true,
        of_date: true,
        live: 0,
        code: (409, "SEAT_NOT_AVAILABLE"),
    };
    let cases = [
        Case {
            date: false,
            room: false,
            on_sale: false,
            seat: false,
            live: 4,
            code: (404, "PERFORMANCE_DATE_NOT_FOUND"),
            ..good()
        },
        Case {
            room: false,
            on_sale: false,
            seat: false,
            live: 4,
            code: (301, "WAIT_TOKEN_INVALID"),
            ..good()
        },
        Case { on_sale: false, seat: false, live: 4, code: (409, "NOT_ON_SALE"), ..good() },
        Case { seat: false, live: 4, code: (404, "SEAT_NOT_FOUND"), ..good() },
        Case { of_date: false, live: 4, code: (422, "INVALID_REQUEST"), ..good() },
        Case { live: 4, code: (409, "SEAT_LIMIT_EXCEEDED"), ..good() },
        good(),
    ];
    for Case { date: has_date, room, on_sale, seat: has_seat, of_date, live, code } in cases {
        let mut ports = Ports::with_token(active());
        let room_id = if room { DEFAULT_ROOM_ID } else { OTHER_ROOM };
        let mut date = date();
        if !on_sale {
            date.starts_at = now();
        }
        let found = has_date.then(|| (date, concert(room_id)));
        ports.concerts.expect_find_date().returning(move |_| Ok(found.clone()));
        let mut taken = seat();
        taken.state = SeatState::Unavailable { reservation_id: ReservationId::new(Uuid::nil()) };
        if !of_date {
            taken.performance_date_id = OTHER_DATE;
        }
        let seats: Vec<_> = has_seat.then(|| stored(taken)).into_iter().collect();
        ports.seats.expect_find_many().returning(move |_| Ok(seats.clone()));
        ports
            .reservations
            .expect_holdings()
            .returning(move |_, _, _| Ok(Holdings { live_seats: live, lapsed: Vec::new() }));
        let answer = post(&ports.state(), &[BEARER, WAIT_TOKEN], &body(&[SEAT])).await;
        answer.assert_problem(code.0, code.1);
        if answer.status == 409 && code.1 == "SEAT_NOT_AVAILABLE" || code.1 == "SEAT_NOT_FOUND" {
            assert_eq!(answer.json()["seatIds"], serde_json::json!([SEAT.to_string()]));
        }
    }
}

fn view(number: u128) -> ReservationView {
    ReservationView {
        id: ReservationId::new(Uuid::from_u128(number)),
        user_id: USER,
        performance_date_id: DATE,
        seats: vec![(SEAT, place(1))],
        total_amount: money(100),
        status: ReservationStatus::Done,
        hold_expires_at: now(),
        payment: Some(PaymentView {
            id: PaymentId::new(Uuid::from_u128(0x70)),
            tickets: vec![Ticket { id: TicketId::new(Uuid::from_u128(0x71)), seat_id: SEAT }],
        }),
    }
}

#[actix_web::test]
async fn only_a_paid_reservation_has_a_payment_and_tickets() {
    let mut ports = Ports::new();
    ports.reservation_queries.expect_find_own().returning(|_, id, _| {
        let paid = view(id.get().as_u128());
        let held = ReservationView { status: ReservationStatus::Reserved, payment: None, ..paid.clone() };
        Ok(Some(if id.get().as_u128() == 1 { paid } else { held }))
    });
    let state = ports.state();
    let find = async |number| {
        let target = format!("/reservations/{}", Uuid::from_u128(number));
        ask(&state, "GET", &target, &[BEARER], "").await.json()
    };
    let paid = find(1).await;
    assert_eq!(paid["paymentId"], Uuid::from_u128(0x70).to_string());
    let ticket = json!({"ticketId": Uuid::from_u128(0x71).to_string(), "seatId": SEAT.to_string()});
    assert_eq!(paid["tickets"], json!([ticket]));
    let held = find(2).await;
    assert!(held.get("paymentId").is_none() && held.get("tickets").is_none(), "{held}");
}

#[actix_web::test]
async fn own_reservations_are_listed_in_pages() {
    let mut ports = Ports::new();
    ports.reservation_queries.expect_list_own().returning(|user_id, before, limit, _| {
        assert_eq!(user_id, USER);
        let before = before.map_or(u128::MAX, |id| id.get().as_u128());
        Ok((1..=3).rev().filter(|n| *n < before).take(usize::try_from(limit).unwrap()).map(view).collect())
    });
    let state = ports.state();
    let first = ask(&state, "GET", "/reservations?limit=2&unknown=1", &[BEARER], "").await.json();
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    assert_eq!(first["items"][0]["status"], "DONE");
    let cursor = first["nextCursor"].as_str().unwrap();
    let next = format!("/reservations?limit=2&cursor={cursor}");
    let second = ask(&state, "GET", &next, &[BEARER], "").await.json();
    assert_eq!(second["items"][0]["reservationId"], view(1).id.to_string());
    assert!(second.get("nextCursor").is_none(), "{second}");
    for bad in ["limit=0", "limit=101", "limit=x", "cursor=x", "limit=1&limit=2"] {
        let answer = ask(&state, "GET", &format!("/reservations?{bad}"), &[BEARER], "").await;
        answer.assert_problem(400, "MALFORMED_REQUEST");
    }
    ask(&state, "GET", "/reservations?limit=0", &[], "").await.assert_problem(401, "UNAUTHENTICATED");
}

#[actix_web::test]
async fn a_reservation_that_is_not_ones_own_is_unknown() {
    let mut ports = Ports::new();
    ports.reservation_queries.expect_find_own().returning(|_, _, _| Ok(None));
    ports.reservations.expect_find().returning(|_| Ok(None));
    let state = ports.state();
    let target = format!("/reservations/{}", Uuid::from_u128(1));
    for method in ["GET", "DELETE"] {
        ask(&state, method, &target, &[BEARER], "").await.assert_problem(404, "RESERVATION_NOT_FOUND");
        let bad = ask(&state, method, "/reservations/x", &[BEARER], "").await;
        bad.assert_problem(400, "MALFORMED_REQUEST");
    }
}
