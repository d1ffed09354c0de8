//! Payment (seed: 결제 API).

use actix_web::HttpResponse;
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, ServiceConfig};
use frontrow_app::{Keyed, PayReceipt};
use frontrow_domain::{ReservationId, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::State;
use crate::access::{idempotent, resource};
use crate::body::JsonBody;
use crate::caller::Known;
use crate::dto::TicketDto;
use crate::idempotency::{Key, json_answer, respond};
use crate::json::Id;
use crate::openapi::{BEARER, IdempotencyKeyHeader, JSON, KEYED, problems};
use crate::overload::Class;
use crate::problem::{Code, Problem};

pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(resource("/pay", [(Method::POST, idempotent(Class::Pay, web::to(pay)))]));
}

/// What to pay.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PayBody {
    /// The caller.
    #[schema(value_type = Uuid)]
    user_id: Id,
    #[schema(value_type = Uuid)]
    reservation_id: Id,
}

/// A payment that was made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PaymentDto {
    payment_id: Uuid,
    reservation_id: Uuid,
    /// In minor units.
    amount: i64,
    /// What is left in the account.
    balance: i64,
    #[schema(format = DateTime)]
    paid_at: String,
    tickets: Vec<TicketDto>,
}

impl From<&PayReceipt> for PaymentDto {
    fn from(receipt: &PayReceipt) -> Self {
        let PayReceipt { payment, balance } = receipt;
        Self {
            payment_id: payment.id.get(),
            reservation_id: payment.reservation_id.get(),
            amount: payment.amount.minor_units(),
            balance: balance.minor_units(),
            paid_at: payment.paid_at.to_string(),
            tickets: payment.tickets.iter().map(TicketDto::from).collect(),
        }
    }
}

problems! {
    PayProblems: BEARER, KEYED, JSON,
    &[
        Code::NotYourResource, Code::ReservationNotFound, Code::ReservationExpired,
        Code::ReservationCancelled, Code::AlreadyPaid, Code::InsufficientBalance, Code::Conflict,
    ]
}

/// Pays a reservation: all of it happens in one transaction, or nothing.
#[utoipa::path(
    post, path = "/pay", tag = "payment", operation_id = "payReservation",
    params(IdempotencyKeyHeader),
    request_body = PayBody,
    responses(
        (status = 200, description = "It is paid.", body = PaymentDto, headers(
            ("Idempotency-Replayed" = String, description = "\"true\" on an earlier answer."),
        )),
        PayProblems,
    ),
    security(("bearer" = []))
)]
pub(crate) async fn pay(
    state: State,
    known: Known,
    key: Key,
    body: JsonBody,
) -> Result<HttpResponse, Problem> {
    let key = key.checked()?;
    let PayBody { user_id, reservation_id } = body.parse()?;
    let user_id = UserId::new(user_id.0);
    known.require_is(user_id)?;
    let encode = |receipt: &PayReceipt| json_answer(StatusCode::OK, &PaymentDto::from(receipt));
    let keyed = Keyed { request: key, encode: &encode };
    let reservation_id = ReservationId::new(reservation_id.0);
    Ok(respond(state.use_cases.payment.pay(user_id, reservation_id, keyed).await?))
}
