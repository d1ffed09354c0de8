//! The description of this interface: OpenAPI 3.1, made from the handlers and the table of problems.

use std::borrow::Cow;
use std::collections::BTreeMap;

use frontrow_domain::Label;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{
    AdditionalProperties, AllOfBuilder, ArrayBuilder, KnownFormat, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, Object, ObjectBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Schema,
};
use utoipa::{IntoParams, Modify, OpenApi, PartialSchema, ToSchema};

use crate::links::Links;
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
        description = "A ticket on-sale engine: a waiting room, seats, holds, accounts and payments. \
            Integers are written without a fraction or an exponent: 1.0 is refused. \
            Times are of the years 1 to 9999 in UTC. \
            A path with percent-encoding is refused (400 MALFORMED_REQUEST): no path of this API needs any. \
            What is no proper HTTP is answered before it comes to any path: 400 for broken framing, 408 for a first head that \
            is too slow, 431 for too many or too large headers, each with an empty body and without the headers of other \
            answers, and the connection ends.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(
        sessions::open,
        sessions::renew,
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
    modifiers(&Securities, &OptionalBody, &Links),
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
    #[param(rename = "Wait-Token", required = true, min_length = 1, pattern = "^[!-~]+$")]
    wait_token: String,
}

/// The idempotency key of a request.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "describes a header that is read by hand")]
pub(crate) struct IdempotencyKeyHeader {
    /// The client's name for this request: printable ASCII without blank ends, which no header keeps. For 24 hours the same
    /// request gets the same answer.
    #[param(
        rename = "Idempotency-Key",
        nullable = false,
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]([ -~]*[!-~])?$"
    )]
    idempotency_key: Option<String>,
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
    #[param(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    since: Option<i64>,
}

/// What the client has already, and what it understands.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "describes headers that are read by hand")]
pub(crate) struct SeatConditions {
    /// The ETag of the answer that the client has.
    #[param(rename = "If-None-Match", nullable = false)]
    if_none_match: Option<String>,
    /// `gzip` is understood.
    #[param(rename = "Accept-Encoding", nullable = false)]
    accept_encoding: Option<String>,
}

/// A list of ids.
pub(crate) fn ids(description: &str) -> ArrayBuilder {
    let id = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)));
    ArrayBuilder::new().items(id).description(Some(description))
}

/// What no label contains: control characters, line breaks, bidirectional controls.
const REFUSED: &str = r"\x00-\x1F\x7F-\x9F\u2028-\u202E\u2066-\u206F";
/// What shows nothing, as far as it is in the basic plane: patterns have no escape beyond it that all engines know.
const INVISIBLE: &str = r"\u00AD\u034F\u061C\u115F\u1160\u17B4\u17B5\u180B-\u180F\u200B-\u200F\u2060-\u2065\u2800\u3164\uFE00-\uFE0F\uFEFF\uFFA0\uFFF0-\uFFFB";

/// A name for people, as the domain's `Label` takes it.
pub(crate) fn label(example: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(
            "With at least one visible character; without control characters, line breaks and bidirectional controls. \
             Stored in NFC, in which the characters are counted.",
        ))
        .min_length(Some(1))
        .max_length(Some(Label::MAX_CHARS))
        .pattern(Some(format!("^[^{REFUSED}]*[^\\s{REFUSED}{INVISIBLE}][^{REFUSED}]*$")))
        .examples([example])
        .build()
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
        let seat_ids = ids("The seats that stood in the way.");
        let checks = ArrayBuilder::new().items(Ref::from_schema_name("CheckDto")).description(Some(
            "UNAVAILABLE of GET /readyz: every check, with the reasons of those that failed.",
        ));
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
            .property("checks", checks)
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

#[cfg(test)]
mod tests {
    use frontrow_domain::idempotency::IdempotencyKey;
    use regex::Regex;
    use serde_json::Value;

    use super::*;

    /// The pattern and the bounds of a text, as the document says them.
    fn described(pointer: &str) -> impl Fn(&str) -> bool + use<> {
        let document = serde_json::to_value(openapi()).unwrap();
        let schema = document.pointer(pointer).unwrap_or(&Value::Null).clone();
        let pattern = Regex::new(schema["pattern"].as_str().unwrap()).unwrap();
        let (min, max) = (schema["minLength"].as_u64().unwrap(), schema["maxLength"].as_u64().unwrap());
        move |text| {
            let length = u64::try_from(text.chars().count()).unwrap();
            (min..=max).contains(&length) && pattern.is_match(text)
        }
    }

    #[test]
    fn the_document_says_what_is_a_label() {
        let is_described = described("/components/schemas/NewConcertBody/properties/title");
        for letter in '\0'..='\u{ffff}' {
            for text in [format!("{letter}"), format!(" {letter}"), format!("a{letter}b")] {
                // Tabs and line ends around a label are cut off, too: that is more than the document promises.
                let is_label = text == text.trim_matches(char::is_control) && Label::new(&text).is_ok();
                assert_eq!(is_described(&text), is_label, "{text:?}");
            }
        }
        for length in [0, 1, Label::MAX_CHARS, Label::MAX_CHARS + 1] {
            let text = "가".repeat(length);
            assert_eq!(is_described(&text), Label::new(&text).is_ok(), "{length}");
        }
    }

    #[test]
    fn the_document_says_what_is_an_idempotency_key() {
        let is_described = described("/paths/~1pay/post/parameters/0/schema");
        for letter in '\0'..='\u{ff}' {
            for text in [format!("{letter}"), format!("a{letter}b")] {
                // A header loses its blank ends on the way.
                assert_eq!(
                    is_described(&text),
                    IdempotencyKey::new(text.trim_matches(' ')).is_ok(),
                    "{text:?}"
                );
            }
        }
        for length in [0, 1, 2, 255, 256] {
            let text = "k".repeat(length);
            assert_eq!(is_described(&text), IdempotencyKey::new(&text).is_ok(), "{length}");
        }
    }
}
