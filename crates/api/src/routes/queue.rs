//! The waiting room (seed: 유저 대기열 토큰 발급/조회 기능).

use std::collections::BTreeMap;

use actix_web::http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use frontrow_app::{LookUpError, QueuePlace};
use frontrow_domain::queue::{QueueTokenState, QueueTokenStatus};
use frontrow_domain::{ConcertId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Response};
use utoipa::{IntoResponses, ToSchema};
use uuid::Uuid;

use super::State;
use crate::access::{bearer, bearer_within, resource};
use crate::body::JsonBody;
use crate::caller::Known;
use crate::dto::{fresh, name_of, nothing};
use crate::gate::{WAIT_TOKEN, wait_token};
use crate::json::Id;
use crate::openapi::{BEARER, JSON, WaitTokenHeader, names, problem_response, problem_responses, problems};
use crate::overload::Class;
use crate::problem::{Code, Problem};

pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(resource(
        "/queue",
        [
            (Method::POST, bearer_within(Class::Join, web::to(enter))),
            (Method::GET, bearer(web::to(look_up))),
            (Method::DELETE, bearer_within(Class::Join, web::to(leave))),
        ],
    ));
}

/// Which line to enter.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EnterBody {
    /// The concert whose waiting room it is; the global room when absent.
    #[schema(value_type = Option<Uuid>, min_length = 36)]
    concert_id: Option<Id>,
}

/// A place in line.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueueDto {
    token_id: Uuid,
    room_id: Uuid,
    user_id: Uuid,
    #[schema(schema_with = status_names)]
    status: &'static str,
    /// 1 for the next to be admitted, 0 once not waiting.
    position: u64,
    /// Null while the room admits nobody.
    #[schema(required)]
    estimated_wait_seconds: Option<u64>,
    #[schema(format = DateTime)]
    entered_at: String,
    /// Absent before the admission.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    activated_at: Option<String>,
    /// For `ACTIVE`, the expiry deadline (exclusive). While the sale is paused, the deadline as it was when the pause began; the
    /// token does not expire meanwhile, and the pause is added when it ends. For `EXPIRED`, when the token ended. Absent while
    /// `WAIT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    expires_at: Option<String>,
    /// After how many seconds to ask again.
    poll_after_seconds: u64,
    /// Whether the sale is paused: no admission and no new hold, while holds stay payable.
    sale_paused: bool,
}

fn status_names() -> utoipa::openapi::Object {
    names(&QueueTokenStatus::NAMES)
}

impl From<&QueuePlace> for QueueDto {
    fn from(place: &QueuePlace) -> Self {
        let token = &place.token;
        let (activated_at, expires_at) = match token.state {
            QueueTokenState::Wait => (None, None),
            QueueTokenState::Active { activated_at, expires_at, .. } => {
                (Some(activated_at), Some(expires_at))
            }
            QueueTokenState::Expired { activated_at, expires_at } => (activated_at, Some(expires_at)),
        };
        let text = |time: Timestamp| time.to_string();
        Self {
            token_id: token.id.get(),
            room_id: token.room_id.get(),
            user_id: token.user_id.get(),
            status: name_of(&QueueTokenStatus::NAMES, place.status),
            position: place.position,
            estimated_wait_seconds: place.estimated_wait_seconds,
            entered_at: text(token.entered_at),
            activated_at: activated_at.map(text),
            expires_at: expires_at.map(text),
            poll_after_seconds: place.poll_after_seconds,
            sale_paused: place.sale_paused,
        }
    }
}

/// A place as an answer. Who waits is told when to ask again.
fn shown(status: StatusCode, place: &QueuePlace) -> HttpResponse {
    let mut response = fresh(status, &QueueDto::from(place));
    if place.status == QueueTokenStatus::Wait {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(place.poll_after_seconds));
    }
    response
}

problems! {
    EnterProblems: BEARER, JSON,
    &[Code::ConcertNotFound, Code::SoldOut, Code::RoomClosed, Code::RoomFull]
}

/// Enters the waiting room. A user with a live place there gets the same place and the same Wait-Token again.
///
/// The own room of a concert whose `soldOut` is true takes no newcomers: `SOLD_OUT`, until a seat is given back. The global
/// room, which serves other concerts too, does not refuse for that.
#[utoipa::path(
    post, path = "/queue", tag = "queue", operation_id = "enterQueue",
    request_body = EnterBody,
    responses(
        (status = 201, description = "A new place, at the tail.", body = QueueDto, headers(
            ("Wait-Token" = String, description = "The queue token."),
            ("Retry-After" = u64, description = "While WAIT: pollAfterSeconds."),
        )),
        (status = 200, description = "The place that the user has already.", body = QueueDto, headers(
            ("Wait-Token" = String, description = "The same token as before, byte for byte."),
            ("Retry-After" = u64, description = "While WAIT: pollAfterSeconds."),
        )),
        EnterProblems,
    ),
    security(("bearer" = []))
)]
pub(crate) async fn enter(state: State, known: Known, body: JsonBody) -> Result<HttpResponse, Problem> {
    let EnterBody { concert_id } = body.parse_optional()?;
    let concert_id = concert_id.map(|Id(id)| ConcertId::new(id));
    let entered = state.use_cases.queue.enter(known.user_id(), concert_id).await?;
    let status = if entered.is_new { StatusCode::CREATED } else { StatusCode::OK };
    let token = HeaderValue::from_str(&entered.wait_token);
    let token = token.map_err(|_| Problem::internal("a Wait-Token does not fit into a header"))?;
    let mut response = shown(status, &entered.place);
    response.headers_mut().insert(HeaderName::from_static(WAIT_TOKEN), token);
    Ok(response)
}

/// What looking a place up may refuse. Nobody is sent to where they are: a bad Wait-Token is 401 here.
pub(crate) struct LookUpProblems;

impl IntoResponses for LookUpProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = problem_responses(&[BEARER]);
        let codes = vec![Code::Unauthenticated, Code::WaitTokenMissing, Code::WaitTokenInvalid];
        responses.insert("401".to_owned(), problem_response(401, codes));
        responses
    }
}

/// Where the holder of a Wait-Token stands, even when it is EXPIRED.
#[utoipa::path(
    get, path = "/queue", tag = "queue", operation_id = "lookUpQueue",
    params(WaitTokenHeader),
    responses(
        (status = 200, description = "The place.", body = QueueDto, headers(
            ("Retry-After" = u64, description = "While WAIT: pollAfterSeconds."),
        )),
        LookUpProblems,
    ),
    security(("bearer" = [], "waitToken" = []))
)]
pub(crate) async fn look_up(state: State, known: Known, req: HttpRequest) -> Result<HttpResponse, Problem> {
    let token = wait_token(req.headers()).map_err(LookUpError::from)?;
    let place = state.use_cases.queue.look_up(known.user_id(), token).await?;
    Ok(shown(StatusCode::OK, &place))
}

/// Gives the place up. Doing so again changes nothing.
#[utoipa::path(
    delete, path = "/queue", tag = "queue", operation_id = "leaveQueue",
    params(WaitTokenHeader),
    responses((status = 204, description = "The place is given up."), LookUpProblems),
    security(("bearer" = [], "waitToken" = []))
)]
pub(crate) async fn leave(state: State, known: Known, req: HttpRequest) -> Result<HttpResponse, Problem> {
    let token = wait_token(req.headers()).map_err(LookUpError::from)?;
    state.use_cases.queue.leave(known.user_id(), token).await?;
    Ok(nothing())
}
