//! The description of this interface: OpenAPI 3.1, made from the handlers and the table of problems.

use std::borrow::Cow;
use std::collections::BTreeMap;

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{
    AdditionalProperties, AllOfBuilder, KnownFormat, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, Object, ObjectBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Schema,
};
use utoipa::{IntoParams, Modify, OpenApi, PartialSchema, ToSchema};

use crate::problem::{Code, PROBLEM_JSON};
use crate::routes::{accounts, admin, concerts, health, payment, queue, reservations, sessions};

/// The document itself, for tools.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The document as JSON.
#[must_use]
pub fn openapi_json() -> String {
    // Maps with string keys: this cannot fail.
    openapi().to_pretty_json().unwrap_or_default()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "frontrow",
        description = "A ticket on-sale engine: a waiting room, seats, holds, accounts and payments.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(
        sessions::open,
        queue::enter,
        queue::look_up,
        queue::leave,
        concerts::list_concerts,
        concerts::list_dates,
        concerts::list_seats,
        reservations::reserve,
        reservations::list,
        reservations::find,
        reservations::cancel,
        accounts::balance,
        accounts::charge,
        accounts::list_entries,
        payment::pay,
        admin::create_concert,
        admin::create_date,
        admin::list_rooms,
        admin::change_room,
        admin::admit,
        admin::sales,
        admin::list_audit_log,
        health::alive,
        health::ready,
        health::describe,
    ),
    components(schemas(ProblemDto)),
    modifiers(&Securities, &OptionalBody),
    tags(
        (name = "sessions", description = "Who is calling."),
        (name = "queue", description = "The waiting room."),
        (name = "concerts", description = "Concerts, dates and seats. Dates and seats lie behind the gate."),
        (name = "reservations", description = "Seats held for a while."),
        (name = "accounts", description = "Money."),
        (name = "payment", description = "Buying what is held."),
        (name = "admin", description = "For operators."),
        (name = "health", description = "For machines."),
    ),
)]
struct Document;

struct Securities;

impl Modify for Securities {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some("An access token: of POST /sessions, or of the configured identity provider."))
            .build();
        let wait_token =
            ApiKeyValue::with_description("Wait-Token", "The queue token that POST /queue answers with.");
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("waitToken", SecurityScheme::ApiKey(ApiKey::Header(wait_token)));
    }
}

/// `POST /queue` takes a body or none; said here because an `Option` would be described as JSON null.
struct OptionalBody;

impl Modify for OptionalBody {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let enter = document.paths.paths.get_mut("/queue").and_then(|path| path.post.as_mut());
        if let Some(RefOr::T(body)) = enter.and_then(|operation| operation.request_body.as_mut()) {
            body.required = Some(Required::False);
        }
    }
}

/// The queue token of a request.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "describes a header that is read by hand")]
pub(crate) struct WaitTokenHeader {
    /// The queue token that POST /queue answered with.
    #[param(rename = "Wait-Token", required = true)]
    wait_token: String,
}

/// The idempotency key of a request.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "describes a header that is read by hand")]
pub(crate) struct IdempotencyKeyHeader {
    /// The client's name for this request: printable ASCII. For 24 hours the same request gets the same answer.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255, pattern = "^[ -~]+$")]
    idempotency_key: Option<String>,
}

/// Which page of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes parameters that are read by hand")]
pub(crate) struct CursorParams {
    /// How many items at most.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// The nextCursor of the page before.
    cursor: Option<String>,
}

/// What to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes a parameter that is read by hand")]
pub(crate) struct StatusParams {
    /// `all` lists everything.
    #[param(schema_with = all)]
    status: Option<String>,
}

fn all() -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["all"])).build()
}

/// What the client knows already.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes a parameter that is read by hand")]
pub(crate) struct SinceParams {
    /// Tells what has changed since this version: the `version` of an answer to `since`, or the `Seat-Map-Version` of another
    /// answer. 0 asks for all.
    #[param(minimum = 0)]
    since: Option<i64>,
}

/// What the client has already, and what it understands.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "describes headers that are read by hand")]
pub(crate) struct SeatConditions {
    /// The ETag of the answer that the client has.
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
    /// `gzip` is understood.
    #[param(rename = "Accept-Encoding")]
    accept_encoding: Option<String>,
}

/// A schema of texts that are these names.
pub(crate) fn names<T>(names: &[(T, &'static str)]) -> Object {
    let values: Vec<&str> = names.iter().map(|(_, name)| *name).collect();
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values)).build()
}

/// How every refusal looks.
struct ProblemDto;

impl ToSchema for ProblemDto {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Problem")
    }
}

impl PartialSchema for ProblemDto {
    fn schema() -> RefOr<Schema> {
        let text = |description: &str| {
            ObjectBuilder::new().schema_type(Type::String).description(Some(description.to_owned()))
        };
        let status = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
            .description(Some("The status of the answer."));
        let member = |description: &str, of: SchemaType| {
            ObjectBuilder::new().schema_type(of).description(Some(description.to_owned()))
        };
        let seat_ids = utoipa::openapi::ArrayBuilder::new()
            .items(
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid))),
            )
            .description(Some("The seats that stood in the way."));
        ObjectBuilder::new()
            .description(Some("A refusal (RFC 9457)."))
            .property("type", text("Names the kind of problem, as a URI."))
            .property("title", text("The kind of problem, in words."))
            .property("status", status)
            .property("detail", text("What happened this time."))
            .property("code", code_names(Code::ALL))
            .property("field", text("INVALID_REQUEST: the field that is not valid."))
            .property("seatIds", seat_ids)
            .property("required", member("INSUFFICIENT_BALANCE: what was to be paid.", Type::Integer.into()))
            .property("balance", member("INSUFFICIENT_BALANCE: what is there.", Type::Integer.into()))
            .property("outcome", text("UNAVAILABLE: `unknown` when the request may have taken effect."))
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .required("type")
            .required("title")
            .required("status")
            .required("detail")
            .required("code")
            .examples([serde_json::json!({
                "type": "urn:frontrow:problem:SEAT_NOT_AVAILABLE",
                "title": Code::SeatNotAvailable.title(),
                "status": 409,
                "detail": "a seat is taken",
                "code": "SEAT_NOT_AVAILABLE",
                "seatIds": ["0193a3c4-7d2e-7b51-9a40-6f1e0c9b8a77"],
            })])
            .into()
    }
}

fn code_names(codes: &[Code]) -> Object {
    let names: Vec<&str> = codes.iter().map(|code| code.name()).collect();
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build()
}

/// What a route for machines may refuse.
pub(crate) const UNLIMITED: &[Code] = &[Code::RequestTimeout, Code::PayloadTooLarge, Code::Internal];
/// What any other route may refuse.
pub(crate) const PUBLIC: &[Code] =
    &[Code::RateLimited, Code::RequestTimeout, Code::PayloadTooLarge, Code::UriTooLong, Code::Internal];
/// What a route that needs storage may refuse.
pub(crate) const STORAGE: &[Code] = &[Code::Unavailable];
/// What a route with an access token may refuse.
pub(crate) const BEARER: &[Code] = &[
    Code::RateLimited,
    Code::Unauthenticated,
    Code::RequestTimeout,
    Code::PayloadTooLarge,
    Code::UriTooLong,
    Code::Internal,
    Code::Unavailable,
];
/// What the gate may refuse.
pub(crate) const GATE: &[Code] =
    &[Code::WaitTokenMissing, Code::WaitTokenInvalid, Code::WaitTokenNotActive, Code::WaitTokenExpired];
/// What a route with a JSON body may refuse.
pub(crate) const JSON: &[Code] = &[Code::MalformedRequest, Code::UnsupportedMediaType];
/// What a route with an idempotency key may refuse.
pub(crate) const KEYED: &[Code] = &[Code::MalformedRequest, Code::IdempotencyKeyReused];

/// Names what a route may refuse, by code: `problems! { PayProblems: BEARER, KEYED, &[Code::Conflict] }`.
macro_rules! problems {
    ($name:ident: $($codes:expr),+ $(,)?) => {
        /// What the route may refuse.
        pub(crate) struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> std::collections::BTreeMap<
                String,
                utoipa::openapi::RefOr<utoipa::openapi::Response>,
            > {
                $crate::openapi::problem_responses(&[$($codes),+])
            }
        }
    };
}
pub(crate) use problems;

/// A response for every status that these codes have.
pub(crate) fn problem_responses(codes: &[&[Code]]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes.iter().copied().flatten() {
        by_status.entry(code.status().as_u16()).or_default().push(*code);
    }
    by_status
        .into_iter()
        .map(|(status, codes)| (status.to_string(), problem_response(status, codes)))
        .collect()
}

/// A response with a problem of one of these codes.
pub(crate) fn problem_response(status: u16, mut codes: Vec<Code>) -> RefOr<Response> {
    codes.sort_unstable();
    codes.dedup();
    let described: Vec<String> =
        codes.iter().map(|code| format!("`{}`: {}.", code.name(), code.title())).collect();
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name("Problem"))
        .item(ObjectBuilder::new().property("code", code_names(&codes)))
        .build();
    let response = ResponseBuilder::new()
        .description(described.join(" "))
        .content(PROBLEM_JSON, ContentBuilder::new().schema(Some(Schema::from(schema))).build());
    let header = |description: &str, of: Type| {
        let schema = ObjectBuilder::new().schema_type(of).build();
        HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
    };
    let response = match status {
        301 => response.header("Location", header("/queue", Type::String)),
        401 => response.header("WWW-Authenticate", header("Bearer", Type::String)),
        429 | 503 => {
            response.header("Retry-After", header("After how many seconds to try again.", Type::Integer))
        }
        _ => response,
    };
    response.build().into()
}
