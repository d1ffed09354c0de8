//! Guest sessions.

use actix_web::HttpResponse;
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, ServiceConfig};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::State;
use crate::access::{public, resource};
use crate::dto::fresh;
use crate::openapi::{PUBLIC, problems};
use crate::problem::{Code, Problem};

pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(resource("/sessions", [(Method::POST, public(web::to(open)))]));
}

/// A guest's session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionDto {
    user_id: Uuid,
    /// For `Authorization: Bearer <accessToken>`.
    access_token: String,
    /// From when on the token is no good.
    #[schema(format = DateTime)]
    expires_at: String,
}

problems! { OpenProblems: PUBLIC, &[Code::NotFound] }

/// Opens a guest session: a new user and an access token for it.
#[utoipa::path(
    post, path = "/sessions", tag = "sessions", operation_id = "openSession",
    responses((status = 201, description = "A new user.", body = SessionDto), OpenProblems)
)]
pub(crate) async fn open(state: State) -> Result<HttpResponse, Problem> {
    let session = state.use_cases.sessions.open()?;
    let dto = SessionDto {
        user_id: session.user_id.get(),
        access_token: session.access_token,
        expires_at: session.expires_at.to_string(),
    };
    Ok(fresh(StatusCode::CREATED, &dto))
}
