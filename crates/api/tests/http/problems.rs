use frontrow_domain::ports::{NoIssuer, StorageError, Writability};
use serde_json::json;

use crate::harness::{ADMIN, BEARER, JSON, Ports, USER, ask};

#[actix_web::test]
async fn unknown_paths_and_methods() {
    let state = Ports::new().state();
    for target in ["/", "/nothing", "/queue/", "/concerts//performanceDates", "/reservations/a/b"] {
        ask(&state, "GET", target, &[], "").await.assert_problem(404, "NOT_FOUND");
    }
    for (method, target, allow) in [
        ("PUT", "/queue", "POST, GET, DELETE, HEAD"),
        ("OPTIONS", "/pay", "POST"),
        ("GET", "/sessions", "POST"),
        ("POST", "/concerts", "GET, HEAD"),
        ("PATCH", "/reservations/x", "GET, DELETE, HEAD"),
        ("TRACE", "/healthz", "GET, HEAD"),
    ] {
        let answer = ask(&state, method, target, &[], "").await;
        answer.assert_problem(405, "METHOD_NOT_ALLOWED");
        assert_eq!(answer.header("allow"), allow, "{method} {target}");
    }
}

#[actix_web::test]
async fn large_bodies_are_refused_everywhere() {
    let state = Ports::new().state();
    let large = "x".repeat(64 * 1024 + 1);
    for (method, target) in [
        ("POST", "/sessions"),
        ("POST", "/queue"),
        ("POST", "/pay"),
        ("GET", "/concerts"),
        ("DELETE", "/queue"),
    ] {
        let answer = ask(&state, method, target, &[BEARER], large.clone()).await;
        answer.assert_problem(413, "PAYLOAD_TOO_LARGE");
    }
    let answer = ask(&state, "POST", "/pay", &[BEARER], "x".repeat(64 * 1024)).await;
    answer.assert_problem(400, "MALFORMED_REQUEST");
}

#[actix_web::test]
async fn only_json_is_taken() {
    let state = Ports::new().state();
    for media in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let answer = ask(&state, "POST", "/queue", &[BEARER, ("Content-Type", media)], "{}").await;
        answer.assert_problem(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    for headers in
        [vec![BEARER], vec![BEARER, JSON], vec![BEARER, ("Content-Type", "application/x+json; v=1")]]
    {
        let answer = ask(&state, "POST", "/pay", &headers, "{}").await;
        answer.assert_problem(400, "MALFORMED_REQUEST");
    }
}

#[actix_web::test]
async fn sessions_are_opened_unless_somebody_else_does() {
    let mut ports = Ports::new();
    ports.access.expect_issue().times(1).returning(|_| Ok("secret".to_owned()));
    ports.access.expect_issue().returning(|_| Err(NoIssuer));
    let state = ports.state();
    let answer = ask(&state, "POST", "/sessions", &[], "").await;
    assert_eq!((answer.status, answer.header("cache-control")), (201, "no-store"));
    let body = answer.json();
    assert_eq!(
        (&body["accessToken"], &body["expiresAt"]),
        (&"secret".into(), &"2026-11-23T12:00:00Z".into())
    );
    assert_ne!(body["userId"], USER.to_string());
    ask(&state, "POST", "/sessions", &[], "").await.assert_problem(404, "NOT_FOUND");
    ask(&state, "POST", "/sessions/renew", &[BEARER], "").await.assert_problem(404, "NOT_FOUND");
}

#[actix_web::test]
async fn a_session_is_renewed_for_its_own_user() {
    let mut ports = Ports::new();
    ports.access.expect_issue().returning(|_| Ok("renewed".to_owned()));
    let state = ports.state();
    let answer = ask(&state, "POST", "/sessions/renew", &[BEARER], "").await;
    assert_eq!((answer.status, answer.header("cache-control")), (201, "no-store"));
    let body = answer.json();
    assert_eq!((&body["userId"], &body["accessToken"]), (&USER.to_string().into(), &"renewed".into()));
    assert_eq!(body["expiresAt"], "2026-11-23T12:00:00Z");
    ask(&state, "POST", "/sessions/renew", &[], "").await.assert_problem(401, "UNAUTHENTICATED");
    ask(&state, "POST", "/sessions/renew", &[ADMIN], "").await.assert_problem(403, "FORBIDDEN");
}

#[actix_web::test]
async fn alive_is_not_ready() {
    let mut ports = Ports::new();
    ports.health.expect_writability().times(1).returning(|| Ok(Writability::Writable));
    ports.health.expect_writability().times(1).returning(|| Ok(Writability::refused("it is read-only")));
    ports.health.expect_writability().returning(|| Err(StorageError::Unavailable("gone".into())));
    let state = ports.state();
    let storage = json!({"kind": "storage", "name": "storage", "status": "ok"});
    let ready = json!({"status": "ok", "checks": [storage]});
    assert_eq!(ask(&state, "GET", "/readyz", &[], "").await.json(), ready);
    for reason in ["it is read-only", "it does not answer"] {
        let refused = ask(&state, "GET", "/readyz", &[], "").await;
        refused.assert_problem(503, "UNAVAILABLE");
        let problem = refused.json();
        assert_eq!(problem["detail"], format!("storage: {reason}"));
        let storage = json!({"kind": "storage", "name": "storage", "status": "failed", "detail": reason});
        assert_eq!(problem["checks"], json!([storage]));
    }
    let alive = ask(&state, "GET", "/healthz", &[], "").await;
    assert_eq!((alive.status, alive.json()), (200, json!({"status": "ok"})));
    assert_eq!(ask(&state, "HEAD", "/healthz", &[], "").await.status, 200);
}
