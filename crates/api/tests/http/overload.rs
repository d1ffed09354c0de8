//! Where no request more may be under way.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

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

/// Answers from storage that is never fast enough shut the door; refusals that need no storage tell nothing of it.
#[actix_web::test]
async fn who_sends_nonsense_does_not_make_storage_look_fast() {
    let one = OverloadLimits { most: 1, ..NOBODY };
    let mut ports = Ports::new();
    ports.reservations.expect_find().returning(|_| Ok(None));
    ports.accounts.expect_find().returning(|_| Ok(None));
    ports.records.expect_find().returning(|_, _| Ok(None));
    let state = ports.state_within(one);
    let statuses_of = async |headers: &[(&str, &str)], body: &str| {
        let (begin, mut statuses) = (Instant::now(), BTreeSet::new());
        // Far longer than a window.
        while begin.elapsed() < Duration::from_millis(300) {
            statuses.insert(ask(&state, "POST", "/pay", headers, body.to_owned()).await.status);
        }
        statuses
    };
    let unpaid = format!(r#"{{"userId": "{USER}", "reservationId": "{DATE}"}}"#);
    assert_eq!(statuses_of(&[], &unpaid).await, BTreeSet::from([401]));
    assert_eq!(statuses_of(&[BEARER, JSON], "{").await, BTreeSet::from([400]));
    assert_eq!(statuses_of(&[BEARER, JSON], &unpaid).await, BTreeSet::from([404, 503]), "the control");
}

#[actix_web::test]
async fn what_takes_nothing_from_storage_is_answered_in_any_case() {
    let state = Ports::with_token(QueueTokenState::Wait).state_within(NOBODY);
    assert_eq!(ask(&state, "GET", "/queue", &[BEARER, WAIT_TOKEN], "").await.status, 200);
    assert_eq!(ask(&state, "GET", "/healthz", &[], "").await.status, 200);
}
