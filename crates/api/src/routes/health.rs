//! Liveness, readiness, and the description of this interface.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Bytes, ServiceConfig};
use serde::Serialize;
use utoipa::ToSchema;

use super::State;
use crate::access::{public, resource, unlimited};
use crate::dto::fresh;
use crate::openapi::{PUBLIC, STORAGE, UNLIMITED, openapi_json, problems};
use crate::problem::Problem;

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(resource("/healthz", [(Method::GET, unlimited(web::to(alive)))]))
        .service(resource("/readyz", [(Method::GET, unlimited(web::to(ready)))]))
        .service(resource("/openapi.json", [(Method::GET, public(web::to(describe)))]));
}

/// How the server is.
#[derive(Serialize, ToSchema)]
pub(crate) struct HealthDto {
    /// Always `ok`.
    status: &'static str,
}

problems! { AliveProblems: UNLIMITED }

/// Whether the server is alive.
#[utoipa::path(
    get, path = "/healthz", tag = "health", operation_id = "isAlive",
    responses((status = 200, description = "It is.", body = HealthDto), AliveProblems)
)]
pub(crate) async fn alive() -> HttpResponse {
    fresh(StatusCode::OK, &HealthDto { status: "ok" })
}

problems! { ReadyProblems: UNLIMITED, STORAGE }

/// Whether storage answers.
#[utoipa::path(
    get, path = "/readyz", tag = "health", operation_id = "isReady",
    responses((status = 200, description = "It does.", body = HealthDto), ReadyProblems)
)]
pub(crate) async fn ready(state: State) -> Result<HttpResponse, Problem> {
    state.use_cases.readiness.ask().await?;
    Ok(fresh(StatusCode::OK, &HealthDto { status: "ok" }))
}

problems! { DescribeProblems: PUBLIC }

/// This description.
#[utoipa::path(
    get, path = "/openapi.json", tag = "health", operation_id = "describe",
    responses((status = 200, description = "An OpenAPI 3.1 document.", body = serde_json::Value), DescribeProblems)
)]
pub(crate) async fn describe() -> HttpResponse {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(openapi_json()));
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_TYPE, "application/json"));
    response.insert_header((CACHE_CONTROL, "no-cache"));
    response.body(DOCUMENT.clone())
}
