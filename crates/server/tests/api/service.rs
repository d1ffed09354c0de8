//! What keeps the service running: health, and the description of the API.

use frontrow_testkit::app::TestApp;
use serde_json::Value;

use crate::support::{asked, refused};

pub(crate) async fn it_is_alive_and_ready(app: &TestApp) {
    asked(app.get("/healthz"), 200).await;
    asked(app.get("/readyz"), 200).await;
}

pub(crate) async fn the_description_is_complete(app: &TestApp) {
    let answer = asked(app.get("/openapi.json"), 200).await;
    assert!(answer.header("Content-Type").unwrap().starts_with("application/json"));
    let document = answer.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let (concert, date) = ("/concerts/{concertId}/performanceDates", "/{performanceDateId}/seats");
    let seats = format!("{concert}{date}");
    for (path, methods) in [
        ("/sessions", "post"),
        ("/sessions/renew", "post"),
        ("/queue", "post get delete"),
        ("/concerts", "get"),
        (concert, "get"),
        (&seats, "get"),
        ("/reservations", "post get"),
        ("/reservations/{}", "get delete"),
        ("/accounts/{}/charge", "post"),
        ("/accounts/{}", "get"),
        ("/accounts/{}/entries", "get"),
        ("/pay", "post"),
        ("/admin/concerts", "post"),
        ("/admin/concerts/{}/performanceDates", "post"),
        ("/admin/rooms", "get"),
        ("/admin/rooms/{}", "patch"),
        ("/admin/rooms/{}/admit", "post"),
        ("/admin/performanceDates/{}/sales", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
    ] {
        let found =
            document["paths"].as_object().unwrap().iter().find(|(name, _)| nameless(name) == nameless(path));
        let (_, operations) = found.unwrap_or_else(|| panic!("{path} is not described"));
        for method in methods.split(' ') {
            let responses = operations[method]["responses"].as_object();
            let responses = responses.unwrap_or_else(|| panic!("{method} {path} is not described"));
            assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path}: no success");
        }
    }
    references_are_there(&document, &document);
    refused(app.get("/openapi.yaml"), 404, "NOT_FOUND").await;
}

/// A path without the names of its parameters.
fn nameless(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect::<Vec<_>>().join("/")
}

/// Checks that every `$ref` of a document leads somewhere.
fn references_are_there(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "$ref" {
                    let pointer = value.as_str().unwrap().trim_start_matches('#');
                    assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
                }
                references_are_there(document, value);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references_are_there(document, item)),
        _ => {}
    }
}
