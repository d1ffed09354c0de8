//! What an answer leads to: OpenAPI links, from the fields of an answer to the requests that they are for.

use serde_json::{Value, json};
use utoipa::Modify;
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{OpenApi, RefOr};

/// Adds the links.
pub(crate) struct Links;

impl Modify for Links {
    fn modify(&self, document: &mut OpenApi) {
        let mut operations: Vec<&mut Operation> = document
            .paths
            .paths
            .values_mut()
            .flat_map(|path| [&mut path.get, &mut path.post, &mut path.patch, &mut path.delete])
            .flatten()
            .collect();
        for (from, to, parameters, body) in links() {
            let from =
                operations.iter_mut().find(|operation| operation.operation_id.as_deref() == Some(from));
            let Some(from) = from else { continue };
            let link = parameters
                .iter()
                .fold(LinkBuilder::new().operation_id(to), |link, (name, value)| {
                    link.parameter(*name, *value)
                })
                .request_body(body)
                .build();
            for (status, response) in &mut from.responses.responses {
                if let (true, RefOr::T(response)) = (status.starts_with('2'), response) {
                    response.links.insert(to.to_owned(), RefOr::T(link.clone()));
                }
            }
        }
    }
}

/// An operation, the one that its success leads to, and with which parameters and body.
type Link = (&'static str, &'static str, &'static [(&'static str, &'static str)], Option<Value>);

/// The way of a purchase, and what operators do with what they made.
fn links() -> Vec<Link> {
    const TICKET: (&str, &str) = ("Wait-Token", "$response.header.Wait-Token");
    const SAME_TICKET: (&str, &str) = ("Wait-Token", "$request.header.Wait-Token");
    const RESERVATION: (&str, &str) = ("reservationId", "$response.body#/reservationId");
    const CONCERT: (&str, &str) = ("concertId", "$response.body#/concertId");
    const ROOM: (&str, &str) = ("roomId", "$response.body#/roomId");
    const FIRST_DATE: (&str, &str) =
        ("performanceDateId", "$response.body#/performanceDates/0/performanceDateId");
    let first_seat = json!({
        "performanceDateId": "$request.path.performanceDateId",
        "seatIds": ["$response.body#/seats/0/seatId"],
    });
    let reservation =
        json!({ "userId": "$response.body#/userId", "reservationId": "$response.body#/reservationId" });
    vec![
        ("openSession", "enterQueue", &[], None),
        ("enterQueue", "lookUpQueue", &[TICKET], None),
        ("enterQueue", "leaveQueue", &[TICKET], None),
        ("enterQueue", "listPerformanceDates", &[("concertId", "$request.body#/concertId"), TICKET], None),
        ("listPerformanceDates", "listSeats", &[CONCERT, FIRST_DATE, SAME_TICKET], None),
        ("listSeats", "reserveSeats", &[SAME_TICKET], Some(first_seat)),
        ("reserveSeats", "findReservation", &[RESERVATION], None),
        ("reserveSeats", "cancelReservation", &[RESERVATION], None),
        ("reserveSeats", "chargeAccount", &[("userId", "$response.body#/userId")], None),
        ("reserveSeats", "payReservation", &[], Some(reservation)),
        ("createConcert", "createPerformanceDate", &[CONCERT], None),
        ("createConcert", "changeRoom", &[ROOM], None),
        ("createConcert", "admitWaiters", &[ROOM], None),
        (
            "createPerformanceDate",
            "findSales",
            &[("performanceDateId", "$response.body#/performanceDateId")],
            None,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn every_link_leads_to_an_operation_that_takes_what_it_brings() {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap().values();
        let operations: BTreeMap<&str, &Value> = paths
            .flat_map(|path| path.as_object().unwrap().values())
            .map(|operation| (operation["operationId"].as_str().unwrap(), operation))
            .collect();
        for (from, to, parameters, body) in links() {
            let responses = operations[from]["responses"].as_object().unwrap();
            assert!(responses.values().any(|response| !response["links"][to].is_null()), "{from} {to}");
            let taken = operations[to]["parameters"].as_array().into_iter().flatten();
            let taken: BTreeSet<&str> = taken.map(|parameter| parameter["name"].as_str().unwrap()).collect();
            for (name, _) in parameters {
                assert!(taken.contains(name), "{from} {to} {name}");
            }
            assert!(body.is_none() || operations[to]["requestBody"].is_object(), "{from} {to}");
        }
    }
}
