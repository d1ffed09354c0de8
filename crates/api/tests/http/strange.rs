//! Anything at all, in each place where a route reads something: it is refused for what it is, and nothing is asked of
//! storage, or a mock would say so.

use actix_web::App;
use actix_web::http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use actix_web::middleware::from_fn;
use actix_web::rt::System;
use actix_web::test::{TestRequest, call_service, init_service};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use uuid::Uuid;

use crate::harness::{ADMIN, Answered, JSON, Ports, WAIT_TOKEN, active, answered, ask, request};

/// Where something is read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Bearer,
    WaitToken,
    IdempotencyKey,
    Path(String),
    Query(String),
    Body,
}

/// A place of a route.
#[derive(Debug, Clone)]
struct Spot {
    method: String,
    path: String,
    place: Place,
}

/// Every place of every route, as the document has them.
fn spots() -> Vec<Spot> {
    let document: Value = serde_json::from_str(&frontrow_api::openapi_json()).unwrap();
    let mut spots = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let spot = |place| Spot { method: method.to_uppercase(), path: path.clone(), place };
            let bearer = operation["security"].as_array().map(|_| spot(Place::Bearer));
            let body = operation.get("requestBody").map(|_| spot(Place::Body));
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let parameters = parameters.filter_map(|parameter| {
                let name = parameter["name"].as_str().unwrap();
                match (parameter["in"].as_str().unwrap(), name) {
                    ("path", _) => Some(spot(Place::Path(name.to_owned()))),
                    ("query", _) => Some(spot(Place::Query(name.to_owned()))),
                    (_, "Wait-Token") => Some(spot(Place::WaitToken)),
                    (_, "Idempotency-Key") => Some(spot(Place::IdempotencyKey)),
                    // Whatever stands in it, the answer is only less fitting.
                    _ => None,
                }
            });
            spots.extend(bearer.into_iter().chain(body).chain(parameters));
        }
    }
    spots
}

/// What may stand in a header, and in anything else as well.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof!["[\t -~\u{80}-\u{10ffff}]{1,300}", "[!-~]{1,40}", "[0-9a-f-]{36}"]
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Whether a text may well be what is read there.
fn may_be_good(place: &Place, text: &str) -> bool {
    match place {
        Place::Path(_) => Uuid::try_parse(text).is_ok(),
        Place::Query(_) => text == "all" || text.bytes().all(|byte| byte.is_ascii_digit()),
        Place::IdempotencyKey => text.len() <= 255 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
        Place::WaitToken => text.trim().is_empty(),
        Place::Body => serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object()),
        Place::Bearer => false,
    }
}

/// A request with this text in this place. Nothing else is amiss, but that only the body is tried with one.
fn request_with(text: &str, spot: &Spot) -> TestRequest {
    let Spot { method, path, place } = spot;
    let mut segments: Vec<String> = path.split('/').map(str::to_owned).collect();
    for segment in segments.iter_mut().filter(|segment| segment.starts_with('{')) {
        let is_here = matches!(place, Place::Path(name) if *segment == format!("{{{name}}}"));
        *segment = if is_here { percent_encoded(text) } else { Uuid::from_u128(7).to_string() };
    }
    let mut target = segments.join("/");
    if let Place::Query(name) = place {
        target = format!("{target}?{name}={}", percent_encoded(text));
    }
    let (mut headers, mut body) = (vec![JSON], "");
    let bearer = if *place == Place::Bearer { ("Authorization", text) } else { ADMIN };
    let wait_token = if *place == Place::WaitToken { ("Wait-Token", text) } else { WAIT_TOKEN };
    headers.extend([bearer, wait_token]);
    match place {
        Place::IdempotencyKey => headers.push(("Idempotency-Key", text)),
        Place::Body => body = text,
        _ => {}
    }
    request(method, &target, &headers, body.to_owned())
}

fn assert_refused(spot: &Spot, answer: &Answered) {
    match spot.place {
        Place::Bearer => answer.assert_problem(401, "UNAUTHENTICATED"),
        // The gate sends them to the queue, where they hear the same.
        Place::WaitToken if spot.path == "/queue" => answer.assert_problem(401, "WAIT_TOKEN_INVALID"),
        Place::WaitToken => answer.assert_problem(301, "WAIT_TOKEN_INVALID"),
        _ => answer.assert_problem(400, "MALFORMED_REQUEST"),
    }
    let named = match &spot.place {
        Place::Path(name) | Place::Query(name) => name,
        Place::IdempotencyKey => "Idempotency-Key",
        Place::Bearer | Place::WaitToken | Place::Body => return,
    };
    // It is this that is refused, not the body that is not there.
    let detail = answer.json()["detail"].to_string();
    assert!(detail.starts_with(&format!("\"{named}: ")), "{detail}");
}

#[test]
fn what_is_no_good_is_refused_for_what_it_is_wherever_it_stands() {
    let system = System::new();
    let app = App::new().app_data(Ports::with_token(active()).state());
    let app = system.block_on(init_service(app.configure(frontrow_api::configure)));
    let spots = spots();
    assert!(spots.len() > 50, "{}", spots.len());
    let cases = (prop::sample::select(spots), texts())
        .prop_filter("may be good", |(spot, text)| !may_be_good(&spot.place, text));
    let run = TestRunner::new(ProptestConfig::with_cases(2_048)).run(&cases, |(spot, text)| {
        let request = request_with(&text, &spot).to_request();
        assert_refused(&spot, &system.block_on(async { answered(call_service(&app, request).await).await }));
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn no_page_but_those_of_the_configured_origins_may_call() {
    const PAGE: &str = "https://tickets.example";
    let (system, origins) = (System::new(), PAGE.parse().unwrap());
    let app = App::new().configure(|config| frontrow_api::configure_for(Some(&origins), config));
    let app = system.block_on(init_service(app));
    let allowed = |origin: &str| {
        let request = request("GET", "/healthz", &[("Origin", origin)], "").to_request();
        let answer = system.block_on(async { answered(call_service(&app, request).await).await });
        answer.headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)
    };
    assert!(allowed(PAGE));
    let near = "(https?|null)(://)?(tickets|TICKETS)?\\.example[a-z.:/@,]{0,9}";
    let run = TestRunner::default().run(&prop_oneof![texts(), near], |origin| {
        prop_assert_eq!(allowed(&origin), origin == PAGE);
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}

/// The routes alone take an encoded path: what refuses it is the middleware, before anything is asked of storage.
#[actix_web::test]
async fn an_encoded_path_is_refused_by_the_middleware_alone() {
    for (path, behind, bare) in [("/%68ealthz", 400, 200), ("/healthz", 200, 200), ("/%2Fhealthz", 400, 404)]
    {
        let state = Ports::with_token(active()).state();
        let guarded = App::new().app_data(state.clone()).configure(frontrow_api::configure);
        let guarded = init_service(guarded.wrap(from_fn(frontrow_api::require_plain_path))).await;
        let answer = answered(call_service(&guarded, request("GET", path, &[], "").to_request()).await).await;
        assert_eq!(answer.status, behind, "{path}");
        if behind == 400 {
            answer.assert_problem(400, "MALFORMED_REQUEST");
        }
        assert_eq!(ask(&state, "GET", path, &[], "").await.status, bare, "{path}");
    }
}
