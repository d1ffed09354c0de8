//! What browsers are told.

use frontrow::app::Settings;
use frontrow::http::ClientRules;
use frontrow_testkit::app::{Database, TestApp, settings};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::support::{Answer, ask, asked};

const PAGE: &str = "https://tickets.example";

async fn open_to(database: &Database, origins: &str) -> TestApp {
    let origins = Some(origins.parse().unwrap());
    let clients = ClientRules { origins, ..ClientRules::default() };
    TestApp::start(Settings { clients, ..settings(database) }).await
}

fn preflight(app: &TestApp, origin: &str, method: &str, headers: &str) -> RequestBuilder {
    app.request(Method::OPTIONS, "/queue")
        .header("Origin", origin)
        .header("Access-Control-Request-Method", method)
        .header("Access-Control-Request-Headers", headers)
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.header("Access-Control-Allow-Origin")
}

fn list(answer: &Answer, name: &str) -> Vec<String> {
    let text = answer.header(name).unwrap_or_default().to_ascii_lowercase();
    text.split(',').map(|entry| entry.trim().to_owned()).filter(|entry| !entry.is_empty()).collect()
}

pub(crate) async fn no_page_of_another_origin_may_call_by_default(app: &TestApp) {
    let answer = ask(app.get("/concerts").header("Origin", PAGE)).await;
    assert_eq!((answer.status, allowed(&answer)), (200, None));
    let answer = ask(preflight(app, PAGE, "POST", "authorization")).await;
    assert_eq!((answer.status, allowed(&answer)), (405, None));
}

pub(crate) async fn pages_of_configured_origins_may_call(database: &Database) {
    let app = open_to(database, "https://tickets.example, http://localhost:5173").await;
    let wanted = "authorization, content-type, wait-token, idempotency-key, if-none-match";
    for method in ["GET", "POST", "PATCH", "DELETE"] {
        let answer = asked(preflight(&app, PAGE, method, wanted), 200).await;
        assert_eq!(allowed(&answer), Some(PAGE), "{method}");
        let headers = list(&answer, "Access-Control-Allow-Headers");
        assert!(wanted.split(", ").all(|name| headers.iter().any(|allowed| allowed == name)), "{headers:?}");
        assert_eq!(answer.header("Access-Control-Allow-Credentials"), None);
    }
    let buyer = app.guest().await;
    let entered = asked(buyer.own(app.post("/queue", &json!({}))).header("Origin", PAGE), 201).await;
    assert_eq!(allowed(&entered), Some(PAGE));
    assert!(list(&entered, "Vary").contains(&"origin".to_owned()));
    let exposed = list(&entered, "Access-Control-Expose-Headers");
    for name in ["wait-token", "retry-after", "etag", "seat-map-version", "idempotency-replayed"] {
        assert!(exposed.iter().any(|exposed| exposed == name), "{name} is not in {exposed:?}");
    }
    // A refusal is told to the page as well, or it would look like a broken network.
    for (path, status) in [("/reservations", 401), ("/nothing", 404)] {
        let answer = asked(app.get(path).header("Origin", PAGE), status).await;
        assert_eq!(allowed(&answer), Some(PAGE), "{path}");
        answer.any_problem(status);
    }
    for stranger in ["https://evil.example", "https://tickets.example.evil.example", "null"] {
        let answer = ask(app.get("/concerts").header("Origin", stranger)).await;
        assert_eq!(allowed(&answer), None, "{stranger}");
        assert_eq!(
            allowed(&ask(preflight(&app, stranger, "POST", "authorization")).await),
            None,
            "{stranger}"
        );
    }
    asked(app.get("/concerts"), 200).await;
    app.stop().await;

    let app = open_to(database, "*").await;
    let answer = asked(app.get("/concerts").header("Origin", "https://anybody.example"), 200).await;
    assert_eq!(allowed(&answer), Some("*"));
    assert_eq!(answer.header("Access-Control-Allow-Credentials"), None);
    app.stop().await;
}

pub(crate) async fn every_answer_is_what_it_says_and_in_no_frame(app: &TestApp) {
    let buyer = app.guest().await;
    for (request, status) in [
        (app.request(Method::POST, "/sessions"), 201),
        (app.get("/concerts"), 200),
        (app.get("/healthz"), 200),
        (app.get("/openapi.json"), 200),
        (app.get("/nothing"), 404),
        (app.request(Method::PUT, "/queue"), 405),
        (app.get("/reservations"), 401),
        (buyer.own(app.get("/concerts/x/performanceDates")), 301),
        (buyer.own(app.request(Method::POST, "/pay").body(vec![b'x'; 100_000])), 413),
    ] {
        let answer = asked(request, status).await;
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{status}");
        assert_eq!(answer.header("Referrer-Policy"), Some("no-referrer"), "{status}");
        let policy = answer.header("Content-Security-Policy").unwrap_or_default();
        assert!(policy.contains("frame-ancestors 'none'"), "{status}: {policy}");
    }
    let session = asked(app.request(Method::POST, "/sessions"), 201).await;
    assert_eq!(session.header("Cache-Control"), Some("no-store"), "an access token is in it");
    let place = asked(buyer.own(app.post("/queue", &json!({}))), 201).await;
    assert_eq!(place.header("Cache-Control"), Some("no-store"), "a Wait-Token is in it");
}
