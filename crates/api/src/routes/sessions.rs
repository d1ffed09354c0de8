//! Guest sessions.

use actix_web::HttpResponse;
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, ServiceConfig};
use frontrow_app::Session;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::State;
use crate::access::{bearer, public, resource};
use crate::caller::Known;
use crate::dto::fresh;
use crate::openapi::{BEARER, PUBLIC, problems};
use crate::problem::{Code, Problem};

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(resource("/sessions", [(Method::POST, public(web::to(open)))]))
        .service(resource("/sessions/renew", [(Method::POST, bearer(web::to(renew)))]));
}

/// A guest's session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionDto {
    user_id: Uuid,
    /// For `Authorization: Bearer <accessToken>`.
    access_token: String,
    /// The expiry of the token (exclusive).
    #[schema(format = DateTime)]
    expires_at: String,
}

impl From<Session> for SessionDto {
    fn from(session: Session) -> Self {
        Self {
            user_id: session.user_id.get(),
            access_token: session.access_token,
            expires_at: session.expires_at.to_string(),
        }
    }
}

problems! { OpenProblems: PUBLIC, &[Code::NotFound] }

/// Opens a guest session: a new user and an access token for it.
#[utoipa::path(
    post, path = "/sessions", tag = "sessions", operation_id = "openSession",
    responses((status = 201, description = "A new user.", body = SessionDto), OpenProblems)
)]
pub(crate) async fn open(state: State) -> Result<HttpResponse, Problem> {
    let session = state.use_cases.sessions.open()?;
    Ok(fresh(StatusCode::CREATED, &SessionDto::from(session)))
}

problems! { RenewProblems: BEARER, &[Code::NotFound, Code::Forbidden] }

/// Renews a session: a new access token for the same user, whose places in line stay.
///
/// The token of the request must be valid, and stays valid until it expires. A token with a role is not renewed (403). Where
/// an outside identity provider issues the access tokens, no token is renewed: a request with a valid one is answered 404, a
/// request without one 401, as everywhere.
#[utoipa::path(
    post, path = "/sessions/renew", tag = "sessions", operation_id = "renewSession",
    responses((status = 201, description = "The same user, with a new expiry.", body = SessionDto), RenewProblems),
    security(("bearer" = []))
)]
pub(crate) async fn renew(state: State, known: Known) -> Result<HttpResponse, Problem> {
    let session = state.use_cases.sessions.renew(known.caller())?;
    Ok(fresh(StatusCode::CREATED, &SessionDto::from(session)))
}
