//! The published description of the interface, under a snapshot: a change of it is seen in review.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails where something is missing")]

use serde_json::Value;

const SNAPSHOT: &str = include_str!("../../../docs/openapi.json");

#[test]
fn the_document_is_the_one_in_docs() {
    let now: Value = serde_json::from_str(&frontrow_api::openapi_json()).unwrap();
    let snapshot: Value = serde_json::from_str(SNAPSHOT).unwrap();
    assert!(now == snapshot, "the interface has changed: look at the difference that `just openapi` makes");
}

#[test]
fn it_is_complete() {
    let document: Value = serde_json::from_str(SNAPSHOT).unwrap();
    assert_eq!(document["openapi"].as_str().unwrap().get(..3), Some("3.1"));
    for (path, methods) in [
        ("/sessions", ["post"].as_slice()),
        ("/queue", &["post", "get", "delete"]),
        ("/concerts", &["get"]),
        ("/concerts/{concertId}/performanceDates", &["get"]),
        ("/concerts/{concertId}/performanceDates/{performanceDateId}/seats", &["get"]),
        ("/reservations", &["post", "get"]),
        ("/reservations/{reservationId}", &["get", "delete"]),
        ("/accounts/{userId}/charge", &["post"]),
        ("/accounts/{userId}", &["get"]),
        ("/accounts/{userId}/entries", &["get"]),
        ("/pay", &["post"]),
        ("/admin/concerts", &["post"]),
        ("/admin/concerts/{concertId}/performanceDates", &["post"]),
        ("/admin/rooms", &["get"]),
        ("/admin/rooms/{roomId}", &["patch"]),
        ("/admin/rooms/{roomId}/admit", &["post"]),
        ("/admin/performanceDates/{performanceDateId}/sales", &["get"]),
        ("/admin/audit-log", &["get"]),
        ("/healthz", &["get"]),
        ("/readyz", &["get"]),
        ("/openapi.json", &["get"]),
    ] {
        for method in methods {
            let operation = &document["paths"][path][method];
            let responses = operation["responses"].as_object();
            assert!(responses.is_some_and(|answers| !answers.is_empty()), "{method} {path} says no answer");
        }
    }
}
