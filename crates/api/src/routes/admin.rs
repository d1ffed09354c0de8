//! What operators do.

use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use frontrow_app::NewDate;
use frontrow_domain::audit_log::{AuditEntry, Fact, Facts, OperatorAction};
use frontrow_domain::concert::{SeatPlan, Section};
use frontrow_domain::ports::{RoomOverview, Sales};
use frontrow_domain::queue::{RoomMode, RoomPolicy, RoomPolicyPatch};
use frontrow_domain::{AuditEntryId, ConcertId, Label, Money, PerformanceDateId, RoomId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::State;
use crate::access::{bearer, resource};
use crate::body::JsonBody;
use crate::caller::Known;
use crate::dto::{Items, fresh, name_of};
use crate::json::{Integer, Mode, Object, Time, present};
use crate::openapi::{BEARER, JSON, label as label_schema, names, problems};
use crate::paging::Page;
use crate::problem::{Code, Problem};
use crate::query::path_id;

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(resource("/admin/concerts", [(Method::POST, bearer(web::to(create_concert)))]))
        .service(resource(
            "/admin/concerts/{concertId}/performanceDates",
            [(Method::POST, bearer(web::to(create_date)))],
        ))
        .service(resource("/admin/rooms", [(Method::GET, bearer(web::to(list_rooms)))]))
        .service(resource("/admin/rooms/{roomId}", [(Method::PATCH, bearer(web::to(change_room)))]))
        .service(resource("/admin/rooms/{roomId}/admit", [(Method::POST, bearer(web::to(admit)))]))
        .service(resource(
            "/admin/performanceDates/{performanceDateId}/sales",
            [(Method::GET, bearer(web::to(sales)))],
        ))
        .service(resource("/admin/audit-log", [(Method::GET, bearer(web::to(list_audit_log)))]));
}

/// The fields of a room's policy that are given; the others stay as they are.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RoomPolicyBody {
    /// How many are admitted a tick.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = i64, required = false, minimum = 1, maximum = 100_000)]
    admit_batch: Option<Integer>,
    /// Time between ticks.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = i64, required = false, minimum = 1, maximum = 2_592_000)]
    admit_interval_seconds: Option<Integer>,
    /// How long an admitted token stays ACTIVE.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = i64, required = false, minimum = 1, maximum = 2_592_000)]
    active_ttl_seconds: Option<Integer>,
    /// The most that may be ACTIVE at once; null lifts the limit.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 10_000_000)]
    max_active: Option<Option<Integer>>,
    /// The most that may wait; null lifts the limit.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 10_000_000)]
    max_waiting: Option<Option<Integer>>,
    /// How long the holder of a place near the head may go without a poll before it is given up; null gives up none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>, minimum = 120, maximum = 2_592_000)]
    wait_grace_seconds: Option<Option<Integer>>,
    /// The time of the first tick; no tick admits before it. If null, the room of a concert opens at the earliest `onSaleAt` of its
    /// dates, while all of them lie ahead.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, format = DateTime, min_length = 20)]
    opens_at: Option<Option<Time>>,
    /// `PAUSED` stops the sale: no admission and no new hold, while holds stay payable. Another mode resumes it and adds the
    /// length of the pause to the `expiresAt` of ACTIVE tokens.
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = mode_names, required = false)]
    mode: Option<Mode>,
}

fn mode_names() -> utoipa::openapi::Object {
    names(&RoomMode::NAMES)
}

impl From<&RoomPolicyBody> for RoomPolicyPatch {
    fn from(body: &RoomPolicyBody) -> Self {
        let limit = |given: Option<Option<Integer>>| given.map(|n| n.map(Integer::or_out_of_range));
        Self {
            admit_batch: body.admit_batch.map(Integer::or_out_of_range),
            admit_interval_seconds: body.admit_interval_seconds.map(Integer::or_out_of_range),
            active_ttl_seconds: body.active_ttl_seconds.map(Integer::or_out_of_range),
            max_active: limit(body.max_active),
            max_waiting: limit(body.max_waiting),
            wait_grace_seconds: limit(body.wait_grace_seconds),
            opens_at: body.opens_at.map(|given| given.map(|Time(time)| time)),
            mode: body.mode.map(|Mode(mode)| mode),
        }
    }
}

fn label(field: &str, text: &str) -> Result<Label, Problem> {
    Label::new(text).map_err(|error| Problem::invalid(field, error))
}

/// A concert to be made.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewConcertBody {
    #[schema(schema_with = title)]
    title: String,
    #[schema(schema_with = venue)]
    venue: String,
    /// Gives the concert a waiting room of its own, with this policy over the defaults.
    #[schema(value_type = Option<RoomPolicyBody>)]
    room: Option<Object<RoomPolicyBody>>,
}

fn title() -> utoipa::openapi::Object {
    label_schema("First Night")
}

fn venue() -> utoipa::openapi::Object {
    label_schema("Olympic Hall")
}

/// A concert that was made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewConcertDto {
    concert_id: Uuid,
    room_id: Uuid,
}

problems! { CreateConcertProblems: BEARER, JSON, &[Code::Forbidden, Code::InvalidRequest] }

/// Makes a concert.
#[utoipa::path(
    post, path = "/admin/concerts", tag = "admin", operation_id = "createConcert",
    request_body = NewConcertBody,
    responses((status = 201, description = "The concert is there.", body = NewConcertDto), CreateConcertProblems),
    security(("bearer" = []))
)]
pub(crate) async fn create_concert(
    state: State,
    known: Known,
    body: JsonBody,
) -> Result<HttpResponse, Problem> {
    let body: NewConcertBody = body.parse()?;
    known.require_operator()?;
    let (title, venue) = (label("title", &body.title)?, label("venue", &body.venue)?);
    let policy = body.room.map(|Object(policy)| RoomPolicyPatch::from(&policy));
    let concert =
        state.use_cases.admin.create_concert(known.user_id(), title, venue, policy.as_ref()).await?;
    let dto = NewConcertDto { concert_id: concert.id.get(), room_id: concert.room_id.get() };
    Ok(fresh(StatusCode::CREATED, &dto))
}

/// A performance date to be made.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewDateBody {
    #[schema(value_type = String, format = DateTime)]
    starts_at: Time,
    /// When sales start, before `startsAt`; at once when absent.
    #[schema(value_type = Option<String>, format = DateTime, min_length = 20)]
    on_sale_at: Option<Time>,
    #[schema(value_type = Vec<SectionBody>, min_items = 1)]
    sections: Vec<Object<SectionBody>>,
}

/// A block of equal seats.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SectionBody {
    #[schema(schema_with = section)]
    section: String,
    #[schema(schema_with = grade)]
    grade: String,
    /// Of each seat, in minor units.
    #[schema(value_type = i64, minimum = 0, maximum = 9_223_372_036_854_775_807_i64, example = 99_000)]
    price: Integer,
    /// How many rows, numbered from 1.
    #[schema(value_type = i64, minimum = 1, maximum = 200_000, example = 10)]
    rows: Integer,
    /// How many seats a row, numbered from 1.
    #[schema(value_type = i64, minimum = 1, maximum = 200_000, example = 20)]
    seats_per_row: Integer,
}

fn section() -> utoipa::openapi::Object {
    label_schema("A")
}

fn grade() -> utoipa::openapi::Object {
    label_schema("VIP")
}

impl SectionBody {
    fn section(&self) -> Result<Section, Problem> {
        let price = self.price.get().and_then(|units| Money::new(units).ok());
        Ok(Section {
            section: label("section", &self.section)?,
            grade: label("grade", &self.grade)?,
            price: price.ok_or_else(|| Problem::invalid("price", "must be 0 or more, and fit 64 bits"))?,
            rows: seat_count("rows", self.rows)?,
            seats_per_row: seat_count("seatsPerRow", self.seats_per_row)?,
        })
    }
}

fn seat_count(field: &str, given: Integer) -> Result<u32, Problem> {
    let max = SeatPlan::MAX_SEATS;
    let count = given.get().and_then(|n| u32::try_from(n).ok());
    let count = count.filter(|n| (1..=max).contains(&u64::from(*n)));
    count.ok_or_else(|| Problem::invalid(field, format_args!("must be from 1 to {max}")))
}

/// A performance date that was made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewDateDto {
    performance_date_id: Uuid,
    total_seats: u64,
}

problems! {
    CreateDateProblems: BEARER, JSON,
    &[Code::Forbidden, Code::InvalidRequest, Code::ConcertNotFound, Code::Conflict]
}

/// Makes a performance date with all its seats.
#[utoipa::path(
    post, path = "/admin/concerts/{concertId}/performanceDates", tag = "admin",
    operation_id = "createPerformanceDate",
    params(("concertId" = Uuid, Path, description = "The concert.")),
    request_body = NewDateBody,
    responses((status = 201, description = "The date is there.", body = NewDateDto), CreateDateProblems),
    security(("bearer" = []))
)]
pub(crate) async fn create_date(
    state: State,
    known: Known,
    body: JsonBody,
    req: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let concert_id = path_id(&req, "concertId", ConcertId::new)?;
    let body: NewDateBody = body.parse()?;
    known.require_operator()?;
    let sections: Result<Vec<Section>, Problem> =
        body.sections.iter().map(|Object(section)| section.section()).collect();
    let new = NewDate {
        concert_id,
        starts_at: body.starts_at.0,
        on_sale_at: body.on_sale_at.map(|Time(time)| time),
        seats: SeatPlan::new(sections?)?,
    };
    let (id, total_seats) = state.use_cases.admin.create_date(known.user_id(), new).await?;
    Ok(fresh(StatusCode::CREATED, &NewDateDto { performance_date_id: id.get(), total_seats }))
}

/// A waiting room.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RoomDto {
    room_id: Uuid,
    admit_batch: u32,
    admit_interval_seconds: u32,
    active_ttl_seconds: u32,
    /// Null is no limit.
    #[schema(required)]
    max_active: Option<u32>,
    /// Null is no limit.
    #[schema(required)]
    max_waiting: Option<u32>,
    /// Null gives up no place.
    #[schema(required)]
    wait_grace_seconds: Option<u32>,
    /// The time of the first tick; no tick admits before it. Null if there is no such time.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    opens_at: Option<String>,
    /// Whether `opensAt` is not the operator's but the earliest `onSaleAt` of the concert's dates.
    opens_at_derived: bool,
    #[schema(schema_with = mode_names)]
    mode: &'static str,
    /// How many wait.
    waiting: u64,
    /// How many are ACTIVE.
    active: u64,
    /// The next point of the grid of ticks.
    #[schema(format = DateTime)]
    next_tick_at: String,
}

impl From<RoomOverview> for RoomDto {
    fn from(overview: RoomOverview) -> Self {
        let RoomOverview { room, waiting, active } = overview;
        let policy = room.policy;
        Self {
            room_id: room.id.get(),
            admit_batch: policy.admit_batch,
            admit_interval_seconds: policy.admit_interval_seconds,
            active_ttl_seconds: policy.active_ttl_seconds,
            max_active: policy.max_active,
            max_waiting: policy.max_waiting,
            wait_grace_seconds: policy.wait_grace_seconds,
            opens_at: room.opens_at().map(|time| time.to_string()),
            opens_at_derived: policy.opens_at.is_none() && room.sales_open_at.is_some(),
            mode: name_of(&RoomMode::NAMES, policy.mode),
            waiting,
            active,
            next_tick_at: room.next_tick_at.to_string(),
        }
    }
}

problems! { ListRoomsProblems: BEARER, &[Code::MalformedRequest, Code::Forbidden] }

/// The waiting rooms.
#[utoipa::path(
    get, path = "/admin/rooms", tag = "admin", operation_id = "listRooms",
    params(Page<RoomId>),
    responses((status = 200, description = "A page of rooms.", body = Items<RoomDto>), ListRoomsProblems),
    security(("bearer" = []))
)]
pub(crate) async fn list_rooms(
    state: State,
    known: Known,
    req: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let page = Page::<RoomId>::parse(req.query_string())?;
    known.require_operator()?;
    let rooms = state.use_cases.admin.list_rooms(page.after, page.fetch()).await?;
    let items = Items::new(page.cut(rooms, |overview| overview.room.id), RoomDto::from);
    Ok(fresh(StatusCode::OK, &items))
}

problems! {
    RoomProblems: BEARER, JSON,
    &[Code::Forbidden, Code::InvalidRequest, Code::NotFound, Code::Conflict]
}

/// Changes the policy of a waiting room.
#[utoipa::path(
    patch, path = "/admin/rooms/{roomId}", tag = "admin", operation_id = "changeRoom",
    params(("roomId" = Uuid, Path, description = "The room.")),
    request_body = RoomPolicyBody,
    responses((status = 200, description = "The room as it is now.", body = RoomDto), RoomProblems),
    security(("bearer" = []))
)]
pub(crate) async fn change_room(
    state: State,
    known: Known,
    body: JsonBody,
    req: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let room_id = path_id(&req, "roomId", RoomId::new)?;
    let body: RoomPolicyBody = body.parse()?;
    known.require_operator()?;
    let patch = RoomPolicyPatch::from(&body);
    // An invalid policy is invalid for every room, so that is said before the room is looked for.
    RoomPolicy::default().patched(&patch)?;
    let room = state.use_cases.admin.change_room(known.user_id(), room_id, &patch).await?;
    Ok(fresh(StatusCode::OK, &RoomDto::from(room)))
}

/// How many to admit.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AdmitBody {
    #[schema(value_type = i64, minimum = 1, maximum = 100_000, example = 10)]
    count: Integer,
}

/// How many were admitted.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AdmittedDto {
    admitted: u64,
}

problems! {
    AdmitProblems: BEARER, JSON,
    &[Code::Forbidden, Code::InvalidRequest, Code::NotFound, Code::SalePaused, Code::Conflict]
}

/// Admits waiters now, in any mode but `PAUSED`, also before `opensAt`, but never over `maxActive`.
#[utoipa::path(
    post, path = "/admin/rooms/{roomId}/admit", tag = "admin", operation_id = "admitWaiters",
    params(("roomId" = Uuid, Path, description = "The room.")),
    request_body = AdmitBody,
    responses((status = 200, description = "So many were admitted.", body = AdmittedDto), AdmitProblems),
    security(("bearer" = []))
)]
pub(crate) async fn admit(
    state: State,
    known: Known,
    body: JsonBody,
    req: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let room_id = path_id(&req, "roomId", RoomId::new)?;
    let AdmitBody { count } = body.parse()?;
    known.require_operator()?;
    let max = RoomPolicy::MAX_BATCH;
    let count = count.get().and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=max).contains(n));
    let count = count.ok_or_else(|| Problem::invalid("count", format_args!("must be from 1 to {max}")))?;
    let admitted = state.use_cases.admin.admit(known.user_id(), room_id, count).await?;
    Ok(fresh(StatusCode::OK, &AdmittedDto { admitted }))
}

/// How a date sells.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SalesDto {
    /// Free seats.
    available: u64,
    /// Held seats.
    reserved: u64,
    /// Sold seats.
    unavailable: u64,
    /// The prices of the sold seats, in minor units.
    amount_sold: i64,
}

impl From<Sales> for SalesDto {
    fn from(sales: Sales) -> Self {
        Self {
            available: sales.available,
            reserved: sales.reserved,
            unavailable: sales.unavailable,
            amount_sold: sales.amount_sold.minor_units(),
        }
    }
}

problems! {
    SalesProblems: BEARER, &[Code::MalformedRequest, Code::Forbidden, Code::PerformanceDateNotFound]
}

/// How a performance date sells.
#[utoipa::path(
    get, path = "/admin/performanceDates/{performanceDateId}/sales", tag = "admin", operation_id = "findSales",
    params(("performanceDateId" = Uuid, Path, description = "The performance date.")),
    responses((status = 200, description = "The sales.", body = SalesDto), SalesProblems),
    security(("bearer" = []))
)]
pub(crate) async fn sales(state: State, known: Known, req: HttpRequest) -> Result<HttpResponse, Problem> {
    let id = path_id(&req, "performanceDateId", PerformanceDateId::new)?;
    known.require_operator()?;
    let sales = state.use_cases.admin.sales(id).await?;
    Ok(fresh(StatusCode::OK, &SalesDto::from(sales)))
}

/// What an operator did.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditEntryDto {
    entry_id: Uuid,
    #[schema(format = DateTime)]
    at: String,
    /// The operator.
    user_id: Uuid,
    #[schema(schema_with = action_names)]
    action: &'static str,
    /// The concert that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    concert_id: Option<Uuid>,
    /// The performance date that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    performance_date_id: Option<Uuid>,
    /// The room that was changed, or whose waiters were admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    room_id: Option<Uuid>,
    /// What there was; null where something was made, or waiters admitted.
    #[schema(required, value_type = Option<Object>)]
    before: Option<Value>,
    /// What there was then. Of an admission, how many were asked for and how many were admitted.
    #[schema(value_type = Object)]
    after: Value,
}

fn action_names() -> utoipa::openapi::Object {
    let nothing = Uuid::nil();
    let actions = [
        OperatorAction::CreateConcert(ConcertId::new(nothing)),
        OperatorAction::CreatePerformanceDate(PerformanceDateId::new(nothing)),
        OperatorAction::ChangeRoom(RoomId::new(nothing)),
        OperatorAction::AdmitWaiters(RoomId::new(nothing)),
    ];
    names(&actions.map(|action| ((), action.name())))
}

impl From<AuditEntry> for AuditEntryDto {
    fn from(entry: AuditEntry) -> Self {
        let mut dto = Self {
            entry_id: entry.id.get(),
            at: entry.at.to_string(),
            user_id: entry.user_id.get(),
            action: entry.action.name(),
            concert_id: None,
            performance_date_id: None,
            room_id: None,
            before: entry.before.map(json_of),
            after: json_of(entry.after),
        };
        match entry.action {
            OperatorAction::CreateConcert(id) => dto.concert_id = Some(id.get()),
            OperatorAction::CreatePerformanceDate(id) => dto.performance_date_id = Some(id.get()),
            OperatorAction::ChangeRoom(id) | OperatorAction::AdmitWaiters(id) => dto.room_id = Some(id.get()),
        }
        dto
    }
}

fn json_of(Facts(facts): Facts) -> Value {
    let value = |fact| match fact {
        Fact::Absent => Value::Null,
        Fact::Number(number) => Value::from(number),
        Fact::Text(text) => Value::String(text),
        Fact::List(parts) => Value::Array(parts.into_iter().map(json_of).collect()),
    };
    Value::Object(facts.into_iter().map(|(name, fact)| (name, value(fact))).collect())
}

problems! { ListAuditLogProblems: BEARER, &[Code::MalformedRequest, Code::Forbidden] }

/// What operators did, newest first. Written with each action, and never changed.
#[utoipa::path(
    get, path = "/admin/audit-log", tag = "admin", operation_id = "listAuditLog",
    params(Page<AuditEntryId>),
    responses(
        (status = 200, description = "A page of entries.", body = Items<AuditEntryDto>),
        ListAuditLogProblems,
    ),
    security(("bearer" = []))
)]
pub(crate) async fn list_audit_log(
    state: State,
    known: Known,
    req: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let page = Page::<AuditEntryId>::parse(req.query_string())?;
    known.require_operator()?;
    let entries = state.use_cases.admin.list_audit_log(page.after, page.fetch()).await?;
    let items = Items::new(page.cut(entries, |entry| entry.id), AuditEntryDto::from);
    Ok(fresh(StatusCode::OK, &items))
}
