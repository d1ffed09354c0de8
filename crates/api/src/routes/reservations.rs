//! Reservations (seed: 좌석 예약 요청 API).

use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use frontrow_app::{Held, Keyed, ReserveRequest};
use frontrow_domain::ports::ReservationView;
use frontrow_domain::reservation::ReservationStatus;
use frontrow_domain::{PerformanceDateId, ReservationId, SeatId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::Array;
use uuid::Uuid;

use super::State;
use crate::access::{bearer_within, gated_idempotent, resource};
use crate::body::JsonBody;
use crate::caller::Known;
use crate::dto::{Items, ReservedSeatDto, TicketDto, fresh, name_of, nothing};
use crate::gate::Passed;
use crate::idempotency::{Key, json_answer, respond};
use crate::json::Id;
use crate::openapi::{
    BEARER, GATE, IdempotencyKeyHeader, JSON, KEYED, WaitTokenHeader, ids, names, problems,
};
use crate::overload::Class;
use crate::paging::Page;
use crate::problem::{Code, Problem};
use crate::query::path_id;

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(resource(
            "/reservations",
            [
                (Method::POST, gated_idempotent(Class::Hold, web::to(reserve))),
                (Method::GET, bearer_within(Class::Look, web::to(list))),
            ],
        ))
        .service(resource(
            "/reservations/{reservationId}",
            [
                (Method::GET, bearer_within(Class::Look, web::to(find))),
                (Method::DELETE, bearer_within(Class::Hold, web::to(cancel))),
            ],
        ));
}

/// Which seats to hold.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReserveBody {
    /// The date all of the seats belong to.
    #[schema(value_type = Uuid)]
    performance_date_id: Id,
    #[schema(schema_with = seat_ids)]
    seat_ids: Vec<Id>,
}

fn seat_ids() -> Array {
    ids("No two the same. How many at most is configured.").min_items(Some(1)).unique_items(true).build()
}

/// A reservation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReservationDto<'a> {
    reservation_id: Uuid,
    user_id: Uuid,
    performance_date_id: Uuid,
    seats: Vec<ReservedSeatDto<'a>>,
    /// The sum of the prices, in minor units.
    total_amount: i64,
    #[schema(schema_with = status_names)]
    status: &'static str,
    /// From when on the hold is lapsed.
    #[schema(format = DateTime)]
    hold_expires_at: String,
    /// The payment of a `DONE` reservation. Absent in every other state.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    payment_id: Option<Uuid>,
    /// The tickets of a `DONE` reservation, one for each seat. Absent in every other state.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    tickets: Option<Vec<TicketDto>>,
}

fn status_names() -> utoipa::openapi::Object {
    names(&ReservationStatus::NAMES)
}

impl<'a> From<&'a Held> for ReservationDto<'a> {
    fn from(held: &'a Held) -> Self {
        let Held { reservation, seats } = held;
        Self {
            reservation_id: reservation.id.get(),
            user_id: reservation.user_id.get(),
            performance_date_id: reservation.performance_date_id.get(),
            seats: seats.iter().map(|seat| ReservedSeatDto::new(seat.id, &seat.place)).collect(),
            total_amount: reservation.total_amount.minor_units(),
            status: name_of(&ReservationStatus::NAMES, reservation.status),
            hold_expires_at: reservation.hold_expires_at.to_string(),
            payment_id: None,
            tickets: None,
        }
    }
}

impl<'a> From<&'a ReservationView> for ReservationDto<'a> {
    fn from(view: &'a ReservationView) -> Self {
        Self {
            reservation_id: view.id.get(),
            user_id: view.user_id.get(),
            performance_date_id: view.performance_date_id.get(),
            seats: view.seats.iter().map(|(id, place)| ReservedSeatDto::new(*id, place)).collect(),
            total_amount: view.total_amount.minor_units(),
            status: name_of(&ReservationStatus::NAMES, view.status),
            hold_expires_at: view.hold_expires_at.to_string(),
            payment_id: view.payment.as_ref().map(|payment| payment.id.get()),
            tickets: view
                .payment
                .as_ref()
                .map(|payment| payment.tickets.iter().map(TicketDto::from).collect()),
        }
    }
}

problems! {
    ReserveProblems: BEARER, GATE, KEYED, JSON,
    &[
        Code::InvalidRequest, Code::PerformanceDateNotFound, Code::SeatNotFound, Code::SalePaused, Code::NotOnSale,
        Code::SeatLimitExceeded, Code::SeatNotAvailable, Code::Conflict,
    ]
}

/// Holds seats, all or none, for the owner of the Wait-Token.
#[utoipa::path(
    post, path = "/reservations", tag = "reservations", operation_id = "reserveSeats",
    params(WaitTokenHeader, IdempotencyKeyHeader),
    request_body = ReserveBody,
    responses(
        (status = 201, description = "The seats are held.", body = ReservationDto<'_>, headers(
            ("Idempotency-Replayed" = String, description = "\"true\" on an earlier answer."),
        )),
        ReserveProblems,
    ),
    security(("bearer" = [], "waitToken" = []))
)]
pub(crate) async fn reserve(
    state: State,
    Passed(pass): Passed,
    key: Key,
    body: JsonBody,
) -> Result<HttpResponse, Problem> {
    let key = key.checked()?;
    let body: ReserveBody = body.parse()?;
    let wanted = ReserveRequest {
        performance_date_id: PerformanceDateId::new(body.performance_date_id.0),
        seat_ids: body.seat_ids.into_iter().map(|Id(id)| SeatId::new(id)).collect(),
    };
    let encode = |held: &Held| json_answer(StatusCode::CREATED, &ReservationDto::from(held));
    let keyed = Keyed { request: key, encode: &encode };
    Ok(respond(state.use_cases.reservations.reserve(pass, &wanted, keyed).await?))
}

problems! { ListProblems: BEARER, &[Code::MalformedRequest] }

/// The caller's reservations, newest first.
#[utoipa::path(
    get, path = "/reservations", tag = "reservations", operation_id = "listReservations",
    params(Page<ReservationId>),
    responses(
        (status = 200, description = "A page of reservations.", body = Items<ReservationDto<'_>>),
        ListProblems,
    ),
    security(("bearer" = []))
)]
pub(crate) async fn list(state: State, known: Known, req: HttpRequest) -> Result<HttpResponse, Problem> {
    let page = Page::<ReservationId>::parse(req.query_string())?;
    let views = state.use_cases.reservations.list(known.user_id(), page.after, page.fetch()).await?;
    let (views, next) = page.cut(views, |view| view.id);
    let items =
        Items::new((views.iter().collect(), next), |view: &ReservationView| ReservationDto::from(view));
    Ok(fresh(StatusCode::OK, &items))
}

problems! { FindProblems: BEARER, &[Code::MalformedRequest, Code::ReservationNotFound] }

/// One of the caller's reservations.
#[utoipa::path(
    get, path = "/reservations/{reservationId}", tag = "reservations", operation_id = "findReservation",
    params(("reservationId" = Uuid, Path, description = "The reservation.")),
    responses((status = 200, description = "The reservation.", body = ReservationDto<'_>), FindProblems),
    security(("bearer" = []))
)]
pub(crate) async fn find(state: State, known: Known, req: HttpRequest) -> Result<HttpResponse, Problem> {
    let id = path_id(&req, "reservationId", ReservationId::new)?;
    let view = state.use_cases.reservations.find(known.user_id(), id).await?;
    Ok(fresh(StatusCode::OK, &ReservationDto::from(&view)))
}

problems! {
    CancelProblems: BEARER,
    &[
        Code::MalformedRequest, Code::ReservationNotFound, Code::AlreadyPaid, Code::ReservationExpired,
        Code::Conflict,
    ]
}

/// Gives an unpaid hold back. Doing so again changes nothing.
#[utoipa::path(
    delete, path = "/reservations/{reservationId}", tag = "reservations", operation_id = "cancelReservation",
    params(("reservationId" = Uuid, Path, description = "The reservation.")),
    responses((status = 204, description = "The seats are free again."), CancelProblems),
    security(("bearer" = []))
)]
pub(crate) async fn cancel(state: State, known: Known, req: HttpRequest) -> Result<HttpResponse, Problem> {
    let id = path_id(&req, "reservationId", ReservationId::new)?;
    state.use_cases.reservations.cancel(known.user_id(), id).await?;
    Ok(nothing())
}
