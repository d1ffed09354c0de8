//! Accounts (seed: 잔액 충전 / 잔액 조회).

use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use frontrow_app::{ChargeReceipt, Keyed};
use frontrow_domain::account::{Entry, EntryKind};
use frontrow_domain::{Money, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::State;
use crate::access::{bearer_within, idempotent, resource};
use crate::body::JsonBody;
use crate::caller::Known;
use crate::dto::{Items, fresh};
use crate::idempotency::{Key, json_answer, respond};
use crate::json::Integer;
use crate::openapi::{BEARER, IdempotencyKeyHeader, JSON, KEYED, problems};
use crate::overload::Class;
use crate::paging::{EntryNumber, Page};
use crate::problem::{Code, Problem};
use crate::query::path_id;

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(resource(
            "/accounts/{userId}",
            [(Method::GET, bearer_within(Class::Look, web::to(balance)))],
        ))
        .service(resource(
            "/accounts/{userId}/charge",
            [(Method::POST, idempotent(Class::Pay, web::to(charge)))],
        ))
        .service(resource(
            "/accounts/{userId}/entries",
            [(Method::GET, bearer_within(Class::Look, web::to(list_entries)))],
        ));
}

/// How much to charge.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChargeBody {
    /// In minor units.
    #[schema(value_type = i64, minimum = 1, maximum = 10_000_000, example = 50_000)]
    amount: Integer,
}

/// A charge that was made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChargeDto {
    charged_amount: i64,
    #[schema(format = DateTime)]
    charged_at: String,
    /// The balance after it.
    balance: i64,
    entry_id: Uuid,
}

impl From<&ChargeReceipt> for ChargeDto {
    fn from(receipt: &ChargeReceipt) -> Self {
        let Entry { id, amount, balance_after, at, .. } = receipt.entry;
        Self {
            charged_amount: amount.minor_units(),
            charged_at: at.to_string(),
            balance: balance_after.minor_units(),
            entry_id: id.get(),
        }
    }
}

problems! {
    ChargeProblems: BEARER, KEYED, JSON,
    &[Code::NotYourResource, Code::Forbidden, Code::InvalidAmount, Code::AccountConflict]
}

/// Adds money to an account: its owner does, or, where the server is configured so, a cashier (an access token with the
/// role "cashier") for anybody, and nobody else. Two charges that meet: one wins, the other is refused and not retried.
#[utoipa::path(
    post, path = "/accounts/{userId}/charge", tag = "accounts", operation_id = "chargeAccount",
    params(("userId" = Uuid, Path, description = "Whose account: the caller's, unless it is a cashier."), IdempotencyKeyHeader),
    request_body = ChargeBody,
    responses(
        (status = 200, description = "The money is there.", body = ChargeDto, headers(
            ("Idempotency-Replayed" = String, description = "\"true\" on an earlier answer."),
        )),
        ChargeProblems,
    ),
    security(("bearer" = []))
)]
pub(crate) async fn charge(
    state: State,
    known: Known,
    key: Key,
    body: JsonBody,
    req: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let user_id = path_id(&req, "userId", UserId::new)?;
    let key = key.checked()?;
    let ChargeBody { amount } = body.parse()?;
    let permit = state.use_cases.accounts.permit_charge(known.caller(), user_id)?;
    let amount = amount.get().and_then(|units| Money::new(units).ok());
    let amount = amount.ok_or_else(|| {
        Problem::new(Code::InvalidAmount, "The amount must be above zero and within the limit of one charge.")
    })?;
    let encode = |receipt: &ChargeReceipt| json_answer(StatusCode::OK, &ChargeDto::from(receipt));
    let keyed = Keyed { request: key, encode: &encode };
    Ok(respond(state.use_cases.accounts.charge(permit, amount, keyed).await?))
}

/// What is in an account.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BalanceDto {
    user_id: Uuid,
    /// In minor units; 0 before the first charge.
    balance: i64,
}

problems! { AccountProblems: BEARER, &[Code::MalformedRequest, Code::NotYourResource] }

/// The balance of the caller's account.
#[utoipa::path(
    get, path = "/accounts/{userId}", tag = "accounts", operation_id = "findAccount",
    params(("userId" = Uuid, Path, description = "The caller.")),
    responses((status = 200, description = "The balance.", body = BalanceDto), AccountProblems),
    security(("bearer" = []))
)]
pub(crate) async fn balance(state: State, known: Known, req: HttpRequest) -> Result<HttpResponse, Problem> {
    let user_id = path_id(&req, "userId", UserId::new)?;
    known.require_is(user_id)?;
    let balance = state.use_cases.accounts.balance(user_id).await?;
    let dto = BalanceDto { user_id: user_id.get(), balance: balance.minor_units() };
    Ok(fresh(StatusCode::OK, &dto))
}

/// A line of an account's history.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EntryDto {
    entry_id: Uuid,
    #[schema(schema_with = kind_names)]
    kind: &'static str,
    /// How much came in (CHARGE) or went out (PAYMENT).
    amount: i64,
    balance_after: i64,
    #[schema(format = DateTime)]
    at: String,
    /// What was paid; absent for a CHARGE.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reservation_id: Option<Uuid>,
}

fn kind_names() -> utoipa::openapi::Object {
    crate::openapi::names(&[((), "CHARGE"), ((), "PAYMENT")])
}

impl From<Entry> for EntryDto {
    fn from(entry: Entry) -> Self {
        let (kind, reservation_id) = match entry.kind {
            EntryKind::Charge => ("CHARGE", None),
            EntryKind::Payment { reservation_id } => ("PAYMENT", Some(reservation_id.get())),
        };
        Self {
            entry_id: entry.id.get(),
            kind,
            amount: entry.amount.minor_units(),
            balance_after: entry.balance_after.minor_units(),
            at: entry.at.to_string(),
            reservation_id,
        }
    }
}

/// The history of the caller's account, newest first.
#[utoipa::path(
    get, path = "/accounts/{userId}/entries", tag = "accounts", operation_id = "listEntries",
    params(("userId" = Uuid, Path, description = "The caller."), Page<EntryNumber>),
    responses((status = 200, description = "A page of entries.", body = Items<EntryDto>), AccountProblems),
    security(("bearer" = []))
)]
pub(crate) async fn list_entries(
    state: State,
    known: Known,
    req: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let user_id = path_id(&req, "userId", UserId::new)?;
    let page = Page::<EntryNumber>::parse(req.query_string())?;
    known.require_is(user_id)?;
    let before = page.after.map(|EntryNumber(number)| number);
    let entries = state.use_cases.accounts.list_entries(user_id, before, page.fetch()).await?;
    let items = Items::new(page.cut(entries, |entry| EntryNumber(entry.number)), EntryDto::from);
    Ok(fresh(StatusCode::OK, &items))
}
