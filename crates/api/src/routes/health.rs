//! Liveness, readiness, and the description of this interface.

use std::sync::LazyLock;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::http::{Method, StatusCode};
use actix_web::rt::time::timeout;
use actix_web::web::{self, Bytes, ServiceConfig};
use frontrow_app::{NodeDifference, NodeHealth, PassAge, StorageFault};
use serde::Serialize;
use utoipa::ToSchema;

use super::State;
use crate::access::{public, resource, unlimited};
use crate::dto::fresh;
use crate::openapi::{PUBLIC, STORAGE, UNLIMITED, openapi_json, problems};
use crate::problem::{Code, Problem, causes};

/// The longest that storage may take to answer a check: shorter than what asks usually waits.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// After how many seconds to ask again.
const RETRY_SECONDS: u64 = 1;

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

/// Readiness of the node.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReadinessDto {
    /// Always `ok`; a node that is not ready answers with a problem, whose `checks` are the same.
    status: &'static str,
    checks: Vec<CheckDto>,
}

/// One check of readiness.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CheckDto {
    kind: CheckKind,
    /// The name of the pass, or the id of the node; `storage` for storage.
    name: String,
    status: CheckStatus,
    /// The reason; absent when the status is `ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
    /// Of a pass: seconds since it was last completed, or since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    age_seconds: Option<f64>,
    /// Of a pass: the age in seconds at which its check fails, or warns.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    late_after_seconds: Option<f64>,
}

/// What a check looks at: storage (it answers and can be written), a background pass, or another node on the same database.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum CheckKind {
    Storage,
    Pass,
    Node,
}

/// `failed` makes the node unready. `warning` does not: another node has a secret or a rule that differs, or a pass that the
/// node can serve without is late.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum CheckStatus {
    Ok,
    Failed,
    Warning,
}

impl CheckDto {
    fn new(kind: CheckKind, name: impl Into<String>) -> Self {
        let (status, detail) = (CheckStatus::Ok, None);
        Self { kind, name: name.into(), status, detail, age_seconds: None, late_after_seconds: None }
    }

    fn with(self, status: CheckStatus, detail: String) -> Self {
        Self { status, detail: Some(detail), ..self }
    }

    fn of_storage(storage: &Result<(), StorageFault>) -> Self {
        let check = Self::new(CheckKind::Storage, "storage");
        let reason = match storage {
            Ok(()) => return check,
            Err(StorageFault::Failure(_)) => "it does not answer".to_owned(),
            Err(StorageFault::Late) => format!("it has not answered within {READY_WITHIN:?}"),
            Err(StorageFault::NotWritable(reason)) => reason.to_string(),
        };
        check.with(CheckStatus::Failed, reason)
    }

    fn of_pass(pass: &PassAge) -> Self {
        let seconds = |time: Duration| (time.as_secs_f64() * 1e3).round() / 1e3;
        let check = Self {
            age_seconds: Some(seconds(pass.age)),
            late_after_seconds: Some(seconds(pass.bound)),
            ..Self::new(CheckKind::Pass, pass.name)
        };
        if pass.is_late() {
            let status = if pass.blocks() { CheckStatus::Failed } else { CheckStatus::Warning };
            check.with(status, format!("not completed for {} s", pass.age.as_secs()))
        } else {
            check
        }
    }

    fn of_node(node: &NodeDifference) -> Self {
        let detail = format!("differs from this node in {}", node.subjects.join(", "));
        Self::new(CheckKind::Node, node.node.to_string()).with(CheckStatus::Warning, detail)
    }

    fn all(health: &NodeHealth) -> Vec<Self> {
        let passes = health.passes.iter().map(Self::of_pass);
        let nodes = health.nodes.iter().map(Self::of_node);
        std::iter::once(Self::of_storage(&health.storage)).chain(passes).chain(nodes).collect()
    }
}

/// What failed, in one line.
fn reasons(checks: &[CheckDto]) -> String {
    let failed = checks.iter().filter(|check| check.status == CheckStatus::Failed);
    let reason =
        |check: &CheckDto| format!("{}: {}", check.name, check.detail.as_deref().unwrap_or_default());
    failed.map(reason).collect::<Vec<_>>().join("; ")
}

/// Check readiness.
///
/// Ready means that storage answers and can be written, and that every background pass that the node needs is on time. The
/// `detail` of the problem names what is not.
#[utoipa::path(
    get, path = "/readyz", tag = "health", operation_id = "isReady",
    responses((status = 200, description = "The node is ready.", body = ReadinessDto), ReadyProblems)
)]
pub(crate) async fn ready(state: State) -> Result<HttpResponse, Problem> {
    let readiness = &state.use_cases.readiness;
    let storage = timeout(READY_WITHIN, readiness.storage()).await.unwrap_or(Err(StorageFault::Late));
    let health = readiness.health(storage);
    let checks = CheckDto::all(&health);
    if health.is_ready() {
        return Ok(fresh(StatusCode::OK, &ReadinessDto { status: "ok", checks }));
    }
    let reasons = reasons(&checks);
    let error = match &health.storage {
        Err(StorageFault::Failure(failure)) => causes(failure),
        _ => String::new(),
    };
    tracing::warn!(error, reasons, "not ready");
    // Plain strings and numbers: this cannot fail.
    let checks = serde_json::to_value(checks).unwrap_or_default();
    Err(Problem::new(Code::Unavailable, reasons).with("checks", checks).with_retry_after(RETRY_SECONDS))
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
