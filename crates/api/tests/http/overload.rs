//! Where no request more may be under way.

use std::time::Duration;

use actix_web::web;
use frontrow_api::{ApiState, OverloadLimits};
use frontrow_domain::queue::QueueTokenState;

use crate::harness::{Answered, BEARER, CONCERT, DATE, JSON, Ports, USER, WAIT_TOKEN, ask};

const NOBODY: OverloadLimits = OverloadLimits { target: Duration::ZERO, fewest: 0, burst: 0, most: 0 };

/// What each request that takes a place is told, which names nobody and whose body is broken.
async fn told(state: &web::Data<ApiState>) -> Vec<(String, Answered)> {
    let (account, charge) = (format!("/accounts/{USER}"), format!("/accounts/{USER}/charge"));
    let (dates, reservation) =
        (format!("/concerts/{CONCERT}/performanceDates"), format!("/reservations/{DATE}"));
    let seats = format!("{dates}/{DATE}/seats");
    let mut told = Vec::new();
    for (method, path) in [
        ("POST", "/pay"),
        ("POST", charge.as_str()),
        ("POST", "/reservations"),
        ("DELETE", reservation.as_str()),
        ("POST", "/queue"),
        ("DELETE", "/queue"),
        ("GET", "/reservations"),
        ("GET", reservation.as_str()),
        ("GET", account.as_str()),
        ("GET", dates.as_str()),
        ("GET", seats.as_str()),
        ("GET", "/concerts?limit=0"),
    ] {
        told.push((format!("{method} {path}"), ask(state, method, path, &[], "{").await));
    }
    told
}

#[actix_web::test]
async fn one_too_many_is_refused_before_anything_is_looked_at() {
    // No port may be called: these have no expectations.
    for (asked, answer) in told(&Ports::new().state_within(NOBODY)).await {
        let said = (answer.status, answer.code(), answer.header("retry-after").to_owned());
        assert_eq!(said, (503, "UNAVAILABLE".to_owned(), "1".to_owned()), "{asked}");
    }
}

/// The control: with places enough, the same requests hear what is wrong with them.
#[actix_web::test]
async fn who_has_a_place_is_looked_at() {
    for (asked, answer) in told(&Ports::new().state()).await {
        assert!([400, 401].contains(&answer.status), "{asked}: {}", answer.status);
    }
}

/// Storage takes two seconds for an answer, and sixty requests that it never sees none: it is late all the same.
#[actix_web::test]
async fn who_sends_nonsense_does_not_make_storage_look_fast() {
    let one = OverloadLimits { target: Duration::from_millis(50), most: 1, ..NOBODY };
    let mut ports = Ports::new();
    ports.accounts.expect_find().returning(|_| Ok(None));
    ports.reservations.expect_find().returning(|_| {
        std::thread::sleep(Duration::from_secs(2));
        Ok(None)
    });
    let state = ports.state_within(one);
    let unpaid = format!(r#"{{"userId": "{USER}", "reservationId": "{DATE}"}}"#);
    for _ in 0..30 {
        assert_eq!(ask(&state, "POST", "/pay", &[], unpaid.clone()).await.status, 401);
        assert_eq!(ask(&state, "POST", "/pay", &[BEARER, JSON], "{").await.status, 400);
    }
    assert_eq!(ask(&state, "POST", "/pay", &[BEARER, JSON], unpaid.clone()).await.status, 404);
    assert_eq!(
        ask(&state, "POST", "/pay", &[BEARER, JSON], unpaid).await.status,
        503,
        "there is no place left"
    );
}

#[actix_web::test]
async fn what_takes_nothing_from_storage_is_answered_in_any_case() {
    let state = Ports::with_token(QueueTokenState::Wait).state_within(NOBODY);
    assert_eq!(ask(&state, "GET", "/queue", &[BEARER, WAIT_TOKEN], "").await.status, 200);
    assert_eq!(ask(&state, "GET", "/healthz", &[], "").await.status, 200);
}
