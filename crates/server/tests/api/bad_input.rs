//! What is no request of this API: unknown paths, methods, types, sizes.

use frontrow_domain::ports::Role;
use frontrow_testkit::app::{TestApp, token};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::slow_clients::ask_bare;
use crate::support::{NOBODY, TOO_LARGE, admin, ask, asked, balance, refused};

/// Every path, with the methods it has.
fn paths() -> Vec<(String, Vec<&'static str>)> {
    let seats = format!("/concerts/{NOBODY}/performanceDates/{NOBODY}/seats");
    vec![
        ("/sessions".into(), vec!["POST"]),
        ("/sessions/renew".into(), vec!["POST"]),
        ("/queue".into(), vec!["GET", "POST", "DELETE"]),
        ("/concerts".into(), vec!["GET"]),
        (format!("/concerts/{NOBODY}/performanceDates"), vec!["GET"]),
        (seats, vec!["GET"]),
        ("/reservations".into(), vec!["GET", "POST"]),
        (format!("/reservations/{NOBODY}"), vec!["GET", "DELETE"]),
        (format!("/accounts/{NOBODY}/charge"), vec!["POST"]),
        (format!("/accounts/{NOBODY}"), vec!["GET"]),
        (format!("/accounts/{NOBODY}/entries"), vec!["GET"]),
        ("/pay".into(), vec!["POST"]),
        ("/admin/concerts".into(), vec!["POST"]),
        (format!("/admin/concerts/{NOBODY}/performanceDates"), vec!["POST"]),
        ("/admin/rooms".into(), vec!["GET"]),
        (format!("/admin/rooms/{NOBODY}"), vec!["PATCH"]),
        (format!("/admin/rooms/{NOBODY}/admit"), vec!["POST"]),
        (format!("/admin/performanceDates/{NOBODY}/sales"), vec!["GET"]),
        ("/healthz".into(), vec!["GET"]),
        ("/readyz".into(), vec!["GET"]),
        ("/openapi.json".into(), vec!["GET"]),
    ]
}

pub(crate) async fn unknown_paths_are_not_found(app: &TestApp) {
    let buyer = app.guest().await;
    for path in ["/", "/nothing", "/queue/nothing", "/Queue", "/reservations/a/b", "/concerts/x/y/z"] {
        refused(buyer.own(app.get(path)), 404, "NOT_FOUND").await;
        refused(app.get(path), 404, "NOT_FOUND").await;
    }
    refused(buyer.own(app.post("/nothing", &json!({}))), 404, "NOT_FOUND").await;
}

/// Ways to write `/admin/rooms`, and paths below it, that a proxy's rule for the prefix `/admin` does not match.
const DISGUISED: [&str; 22] = [
    "/%61dmin/rooms",
    "/%61%64%6D%69%6E/rooms",
    "/%41dmin/rooms",
    "/%2561dmin/rooms",
    "/%2Fadmin/rooms",
    "/%2e/admin/rooms",
    "/queue/%2e%2e/admin/rooms",
    "/%5Cadmin/rooms",
    "/%00/admin/rooms",
    "/%/admin/rooms",
    "/%6/admin/rooms",
    "/%zz/admin/rooms",
    "/%ef%bd%81dmin/rooms",
    "/\u{ff41}dmin/rooms",
    "//admin/rooms",
    "/./admin/rooms",
    "/queue/../admin/rooms",
    "/;x=1/admin/rooms",
    "/;/admin/rooms",
    "/\\admin/rooms",
    "/Admin/rooms",
    "/ADMIN/rooms",
];

/// The path rule of a proxy, which compares the bytes as they were sent.
fn is_stopped_by_a_proxy(path: &str) -> bool {
    path.starts_with("/admin")
}

pub(crate) async fn no_disguised_path_gets_past_a_proxys_path_rule(app: &TestApp) {
    let operator = token(Uuid::from_u128(1), Role::Admin);
    let status = async |path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {operator}\r\n\r\n");
        let (_, said) = ask_bare(app, &head).await;
        said.strip_prefix("HTTP/1.1 ").and_then(|status| status.parse::<u16>().ok())
    };
    assert_eq!(status("/admin/rooms").await, Some(200), "the operator may");
    for path in DISGUISED {
        assert!(!is_stopped_by_a_proxy(path), "{path}");
        let expected: &[u16] = if path.contains('%') { &[400] } else { &[400, 404] };
        let status = status(path).await;
        assert!(status.is_some_and(|status| expected.contains(&status)), "{path}: {status:?}");
    }
    // Behind the prefix a proxy lets nothing through; here it is refused as well.
    for path in ["/admin/%72ooms", "/admin%2Frooms", "/admin/rooms%00", "/admin/rooms%3Fx=1"] {
        assert_eq!(status(path).await, Some(400), "{path}");
    }
    refused(app.get("/%71ueue"), 400, "MALFORMED_REQUEST").await;
    asked(app.get("/concerts?limit=%31"), 200).await;
}

pub(crate) async fn other_methods_are_refused_and_the_allowed_ones_named(app: &TestApp) {
    for (path, methods) in paths() {
        for method in [Method::PUT, Method::GET, Method::POST, Method::PATCH, Method::DELETE] {
            if methods.contains(&method.as_str()) {
                continue;
            }
            let answer = ask(admin(app, method.clone(), &path)).await;
            answer.problem(405, "METHOD_NOT_ALLOWED");
            let allow = answer.header("Allow").unwrap_or_else(|| panic!("{method} {path}: no Allow"));
            let allowed: Vec<&str> = allow.split(',').map(str::trim).collect();
            for method in &methods {
                assert!(allowed.contains(method), "{path} allows {allow}");
            }
            assert!(!allowed.contains(&method.as_str()), "{path} allows {allow}");
        }
    }
}

pub(crate) async fn bodies_are_json(app: &TestApp) {
    let buyer = app.guest().await;
    let charge = format!("/accounts/{}/charge", buyer.user_id);
    for path in ["/queue", "/pay", "/reservations", charge.as_str()] {
        let sale = app.sale(serde_json::Value::Null, 1, 1).await;
        let active = app.active(&sale).await;
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/xml"] {
            let request = app.request(Method::POST, path).bearer_auth(&buyer.access_token);
            let request =
                if path == "/reservations" { active.own(app.request(Method::POST, path)) } else { request };
            let request = request.header("Content-Type", content_type).body("{\"amount\": 5}");
            ask(request).await.any_problem(415);
        }
    }
    for path in ["/admin/concerts", "/admin/rooms/018f0000-0000-7000-8000-00000000dead/admit"] {
        let request = admin(app, Method::POST, path).header("Content-Type", "text/plain").body("{}");
        ask(request).await.any_problem(415);
    }
    let with_charset =
        app.request(Method::POST, &charge).header("Content-Type", "application/json; charset=utf-8");
    asked(buyer.own(with_charset.body("{\"amount\": 5}")), 200).await;
    assert_eq!(balance(app, &buyer).await, 5);
}

pub(crate) async fn bodies_are_small(app: &TestApp) {
    let buyer = app.guest().await;
    let charge = format!("/accounts/{}/charge", buyer.user_id);
    let padded = format!("{{\"amount\": 5, \"x\": \"{}\"}}", "x".repeat(TOO_LARGE));
    for path in [charge.as_str(), "/pay", "/queue"] {
        let request = buyer.own(app.request(Method::POST, path)).header("Content-Type", "application/json");
        ask(request.body(padded.clone())).await.any_problem(413);
        // Without a length that was announced.
        let chunk: Result<Vec<u8>, std::io::Error> = Ok(padded.clone().into_bytes());
        let stream = reqwest::Body::wrap_stream(futures_util::stream::iter([chunk]));
        let request = buyer.own(app.request(Method::POST, path)).header("Content-Type", "application/json");
        ask(request.body(stream)).await.any_problem(413);
    }
    assert_eq!(balance(app, &buyer).await, 0);
    asked(app.get("/healthz"), 200).await;
}

pub(crate) async fn nothing_makes_it_fail(app: &TestApp) {
    let buyer = app.guest().await;
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    for body in
        [deep.as_str(), "\u{0}", "\u{feff}{}", "{\"userId\": \"\\ud800\"}", "1e999", "{\"a\":1,\"a\":2}"]
    {
        for path in ["/pay", "/queue", "/reservations"] {
            let request = app.request(Method::POST, path).header("Content-Type", "application/json");
            let answer = ask(buyer.own(request.body(body.to_owned()))).await;
            assert!(answer.status < 500, "{path} answered {} to {body:.20}", answer.status);
        }
    }
    for path in
        ["/accounts/%00", "/accounts/%ff%fe", "/reservations/%2e%2e%2f", "/concerts?limit=%00&limit=2"]
    {
        let answer = ask(buyer.own(app.get(path))).await;
        assert!((400..500).contains(&answer.status), "{path} answered {}", answer.status);
        answer.any_problem(answer.status);
    }
}
