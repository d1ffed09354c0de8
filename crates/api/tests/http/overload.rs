//! Where no request more may be under way.

use std::time::Duration;

use frontrow_api::OverloadLimits;
use frontrow_domain::queue::QueueTokenState;

use crate::harness::{BEARER, CONCERT, DATE, Ports, USER, WAIT_TOKEN, ask};

#[actix_web::test]
async fn one_too_many_is_refused_before_anything_is_looked_at() {
    let nobody = OverloadLimits { target: Duration::ZERO, fewest: 0, burst: 0, most: 0 };
    // No port may be called: these have no expectations.
    let state = Ports::new().state_within(nobody);
    let (account, charge) = (format!("/accounts/{USER}"), format!("/accounts/{USER}/charge"));
    let (dates, reservation) =
        (format!("/concerts/{CONCERT}/performanceDates"), format!("/reservations/{DATE}"));
    let seats = format!("{dates}/{DATE}/seats");
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
    ] {
        let answer = ask(&state, method, path, &[], "{").await;
        let said = (answer.status, answer.code(), answer.header("retry-after").to_owned());
        assert_eq!(said, (503, "UNAVAILABLE".to_owned(), "1".to_owned()), "{method} {path}");
    }
}

#[actix_web::test]
async fn what_takes_nothing_from_storage_is_answered_in_any_case() {
    let nobody = OverloadLimits { target: Duration::ZERO, fewest: 0, burst: 0, most: 0 };
    let state = Ports::with_token(QueueTokenState::Wait).state_within(nobody);
    assert_eq!(ask(&state, "GET", "/queue", &[BEARER, WAIT_TOKEN], "").await.status, 200);
    assert_eq!(ask(&state, "GET", "/healthz", &[], "").await.status, 200);
}
