use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Ports, ask};

fn document() -> Value {
    serde_json::from_str(&frontrow_api::openapi_json()).unwrap()
}

fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, methods): (&String, &'static str)| format!("{methods} {path}");
    let mut operations = Vec::new();
    for (path, methods) in paths {
        for method in ["get", "post", "put", "patch", "delete"] {
            if let Some(operation) = methods.get(method) {
                operations.push((of_path((path, method)), operation));
            }
        }
    }
    operations
}

#[actix_web::test]
async fn the_document_is_served() {
    let answer = ask(&Ports::new().state(), "GET", "/openapi.json", &[], "").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.json(), document());
    assert!(answer.json()["openapi"].as_str().unwrap().starts_with("3.1"));
}

#[test]
fn every_route_is_described() {
    let document = document();
    let described: BTreeSet<String> = operations(&document).into_iter().map(|(name, _)| name).collect();
    let expected = [
        "post /sessions",
        "post /sessions/renew",
        "post /queue",
        "get /queue",
        "delete /queue",
        "get /concerts",
        "get /concerts/{concertId}/performanceDates",
        "get /concerts/{concertId}/performanceDates/{performanceDateId}/seats",
        "post /reservations",
        "get /reservations",
        "get /reservations/{reservationId}",
        "delete /reservations/{reservationId}",
        "get /accounts/{userId}",
        "post /accounts/{userId}/charge",
        "get /accounts/{userId}/entries",
        "post /pay",
        "post /admin/concerts",
        "post /admin/concerts/{concertId}/performanceDates",
        "get /admin/rooms",
        "patch /admin/rooms/{roomId}",
        "post /admin/rooms/{roomId}/admit",
        "get /admin/performanceDates/{performanceDateId}/sales",
        "get /admin/audit-log",
        "get /healthz",
        "get /readyz",
        "get /openapi.json",
    ];
    assert_eq!(described, expected.into_iter().map(str::to_owned).collect());
}

#[test]
fn every_refusal_is_described_as_a_problem() {
    let document = document();
    for (name, operation) in operations(&document) {
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.contains_key("413"), "{name}");
        for (status, response) in responses {
            let content = response.get("content");
            if status.starts_with('2') || status == "304" {
                let json = content.is_some_and(|content| content.get("application/json").is_some());
                assert_eq!(json, !["204", "304"].contains(&status.as_str()), "{name} {status}");
                continue;
            }
            let problem = &content.unwrap()["application/problem+json"]["schema"]["allOf"];
            assert_eq!(problem[0]["$ref"], "#/components/schemas/Problem", "{name} {status}");
            let codes = problem[1]["properties"]["code"]["enum"].as_array().unwrap();
            assert!(!codes.is_empty());
        }
        let headers: BTreeSet<&str> = parameters(operation, "header");
        let gated = responses.contains_key("301");
        assert_eq!(
            gated || name.ends_with("t /queue") && name.starts_with("get") || name == "delete /queue",
            headers.contains("Wait-Token"),
            "{name}"
        );
        if gated {
            let security = &operation["security"][0];
            assert!(security["bearer"].is_array() && security["waitToken"].is_array(), "{name}");
        }
    }
}

#[test]
fn keyed_routes_name_the_key() {
    let document = document();
    let keyed: BTreeSet<String> = operations(&document)
        .into_iter()
        .filter(|(_, operation)| parameters(operation, "header").contains("Idempotency-Key"))
        .map(|(name, _)| name)
        .collect();
    let expected = ["post /reservations", "post /accounts/{userId}/charge", "post /pay"];
    assert_eq!(keyed, expected.into_iter().map(str::to_owned).collect());
}

#[test]
fn only_entering_the_queue_has_an_optional_body() {
    let document = document();
    for (name, operation) in operations(&document) {
        let Some(body) = operation.get("requestBody") else { continue };
        assert_eq!(body["required"], name != "post /queue", "{name}");
        let schema = &body["content"]["application/json"]["schema"];
        assert!(schema["$ref"].is_string(), "{name} {schema}");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &Value, document: &Value, found: &mut usize) {
        match value {
            Value::Object(members) => {
                if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                    *found += 1;
                }
                members.values().for_each(|value| walk(value, document, found));
            }
            Value::Array(items) => items.iter().for_each(|value| walk(value, document, found)),
            _ => {}
        }
    }
    let (document, mut found) = (document(), 0);
    walk(&document, &document, &mut found);
    assert!(found > 50, "{found}");
}

fn parameters<'a>(operation: &'a Value, place: &str) -> BTreeSet<&'a str> {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    parameters.filter(|p| p["in"] == place).map(|p| p["name"].as_str().unwrap()).collect()
}
