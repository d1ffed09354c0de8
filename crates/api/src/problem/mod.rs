//! Everything that is refused leaves as RFC 9457 `application/problem+json`. The table of [`Code`]s is the only place that
//! knows their names, statuses and titles; `mapping` says which refusal has which code.

mod mapping;

pub(crate) use self::mapping::causes;

use std::borrow::Cow;
use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    self, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use serde_json::{Map, Value};

/// The media type of a problem.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

macro_rules! codes {
    ($($code:ident = $name:literal, $status:ident, $title:literal;)+) => {
        /// The stable name of a kind of refusal.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Code {
            $($code),+
        }

        impl Code {
            /// Every code.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$code),+];

            const fn row(self) -> (&'static str, StatusCode, &'static str) {
                match self {
                    $(Self::$code => ($name, StatusCode::$status, $title)),+
                }
            }
        }
    };
}

codes! {
    MalformedRequest = "MALFORMED_REQUEST", BAD_REQUEST, "The request cannot be read";
    Unauthenticated = "UNAUTHENTICATED", UNAUTHORIZED, "A valid access token is required";
    Forbidden = "FORBIDDEN", FORBIDDEN, "The role of the caller does not allow this";
    NotYourResource = "NOT_YOUR_RESOURCE", FORBIDDEN, "This belongs to somebody else";
    WaitTokenMissing = "WAIT_TOKEN_MISSING", MOVED_PERMANENTLY, "A Wait-Token is required";
    WaitTokenInvalid = "WAIT_TOKEN_INVALID", MOVED_PERMANENTLY, "The Wait-Token is not valid here";
    WaitTokenNotActive = "WAIT_TOKEN_NOT_ACTIVE", MOVED_PERMANENTLY, "The Wait-Token still waits";
    WaitTokenExpired = "WAIT_TOKEN_EXPIRED", MOVED_PERMANENTLY, "The Wait-Token has expired";
    NotFound = "NOT_FOUND", NOT_FOUND, "There is nothing here";
    ConcertNotFound = "CONCERT_NOT_FOUND", NOT_FOUND, "There is no such concert";
    PerformanceDateNotFound = "PERFORMANCE_DATE_NOT_FOUND", NOT_FOUND, "There is no such performance date";
    SeatNotFound = "SEAT_NOT_FOUND", NOT_FOUND, "There is no such seat";
    ReservationNotFound = "RESERVATION_NOT_FOUND", NOT_FOUND, "There is no such reservation";
    MethodNotAllowed = "METHOD_NOT_ALLOWED", METHOD_NOT_ALLOWED, "The method is not allowed here";
    RequestTimeout = "REQUEST_TIMEOUT", REQUEST_TIMEOUT, "The request came too slowly";
    SalePaused = "SALE_PAUSED", CONFLICT, "The sale is paused";
    SoldOut = "SOLD_OUT", CONFLICT, "The concert is sold out";
    NotOnSale = "NOT_ON_SALE", CONFLICT, "The date is not on sale";
    SeatLimitExceeded = "SEAT_LIMIT_EXCEEDED", CONFLICT, "Too many seats for one person";
    SeatNotAvailable = "SEAT_NOT_AVAILABLE", CONFLICT, "A seat is taken";
    ReservationExpired = "RESERVATION_EXPIRED", CONFLICT, "The reservation has expired";
    ReservationCancelled = "RESERVATION_CANCELLED", CONFLICT, "The reservation was cancelled";
    AlreadyPaid = "ALREADY_PAID", CONFLICT, "The reservation is paid already";
    InsufficientBalance = "INSUFFICIENT_BALANCE", CONFLICT, "The balance is too low";
    AccountConflict = "ACCOUNT_CONFLICT", CONFLICT, "The account has just changed";
    Conflict = "CONFLICT", CONFLICT, "Others were faster";
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", PAYLOAD_TOO_LARGE, "The body is too large";
    UriTooLong = "URI_TOO_LONG", URI_TOO_LONG, "The URL is too long";
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", UNSUPPORTED_MEDIA_TYPE, "The body must be JSON";
    InvalidRequest = "INVALID_REQUEST", UNPROCESSABLE_ENTITY, "The request is not valid";
    InvalidAmount = "INVALID_AMOUNT", UNPROCESSABLE_ENTITY, "The amount is not valid";
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED", UNPROCESSABLE_ENTITY, "The idempotency key was used before";
    RateLimited = "RATE_LIMITED", TOO_MANY_REQUESTS, "Too many requests";
    RoomClosed = "ROOM_CLOSED", SERVICE_UNAVAILABLE, "The waiting room is closed";
    RoomFull = "ROOM_FULL", SERVICE_UNAVAILABLE, "The waiting room is full";
    Unavailable = "UNAVAILABLE", SERVICE_UNAVAILABLE, "Try again later";
    Internal = "INTERNAL", INTERNAL_SERVER_ERROR, "Something went wrong on our side";
}

impl Code {
    /// The name that clients see.
    pub(crate) const fn name(self) -> &'static str {
        self.row().0
    }

    /// The status it is sent with, unless a route says otherwise.
    pub(crate) const fn status(self) -> StatusCode {
        self.row().1
    }

    /// A short sentence that is the same for every occurrence.
    pub(crate) const fn title(self) -> &'static str {
        self.row().2
    }
}

/// A refusal on its way out. Never made from anything secret.
#[derive(Debug)]
pub(crate) struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    code: Code,
    status: StatusCode,
    detail: Cow<'static, str>,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

impl Problem {
    /// The most characters of a detail: some of them quote the request.
    const MAX_DETAIL_CHARS: usize = 300;

    /// A problem of this kind, with what happened this time.
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let mut detail = detail.into();
        if detail.chars().nth(Self::MAX_DETAIL_CHARS).is_some() {
            detail = Cow::Owned(detail.chars().take(Self::MAX_DETAIL_CHARS).collect());
        }
        let (status, members, headers) = (code.status(), Map::new(), Vec::new());
        Self(Box::new(Parts { code, status, detail, members, headers }))
    }

    /// What cannot be read: 400.
    pub(crate) fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::MalformedRequest, detail)
    }

    /// What can be read but is not valid: 422, naming the field.
    pub(crate) fn invalid(field: &str, rule: impl fmt::Display) -> Self {
        Self::new(Code::InvalidRequest, format!("{field}: {rule}")).with("field", field)
    }

    /// Our own mistake: 500. What it was goes to the log alone.
    pub(crate) fn internal(what: impl fmt::Display) -> Self {
        tracing::error!(error = %what, "internal error");
        Self::new(Code::Internal, "The error has been logged.")
    }

    /// The problem with one member more.
    pub(crate) fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(member.to_owned(), value.into());
        self
    }

    /// The problem with another status than its code has.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// The problem with one header more.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// The problem with the time after which to try again.
    pub(crate) fn with_retry_after(self, seconds: u64) -> Self {
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// The answer. No cache may keep a refusal: a 301 would be kept for ever.
    pub(crate) fn response(&self) -> HttpResponse<BoxBody> {
        let Parts { code, status, detail, members, headers } = &*self.0;
        let body = Body {
            r#type: format!("urn:frontrow:problem:{}", code.name()),
            title: code.title(),
            status: status.as_u16(),
            detail,
            code: code.name(),
            members,
        };
        // Plain strings, numbers and maps with string keys: this cannot fail.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = HttpResponse::build(*status);
        response.insert_header((CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON)));
        response.insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")));
        if *status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        for (name, value) in headers {
            response.insert_header((name.clone(), value.clone()));
        }
        response.body(body)
    }

    /// What sends somebody to the waiting room.
    fn redirected(self) -> Self {
        self.with_header(header::LOCATION, HeaderValue::from_static("/queue"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code.name(), self.0.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.status
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        self.response()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_is_named_once() {
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for name in names {
            assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{name}");
        }
    }

    /// The contract's codes by status, written down a second time on purpose.
    #[test]
    fn the_statuses_are_those_of_the_contract() {
        let by_status = |status: u16| -> BTreeSet<&str> {
            let codes = Code::ALL.iter().filter(|code| code.status().as_u16() == status);
            codes.map(|code| code.name()).collect()
        };
        let contract: [(u16, &[&str]); 15] = [
            (
                301,
                &["WAIT_TOKEN_MISSING", "WAIT_TOKEN_INVALID", "WAIT_TOKEN_NOT_ACTIVE", "WAIT_TOKEN_EXPIRED"],
            ),
            (400, &["MALFORMED_REQUEST"]),
            (401, &["UNAUTHENTICATED"]),
            (403, &["FORBIDDEN", "NOT_YOUR_RESOURCE"]),
            (
                404,
                &[
                    "NOT_FOUND",
                    "CONCERT_NOT_FOUND",
                    "PERFORMANCE_DATE_NOT_FOUND",
                    "SEAT_NOT_FOUND",
                    "RESERVATION_NOT_FOUND",
                ],
            ),
            (405, &["METHOD_NOT_ALLOWED"]),
            (
                409,
                &[
                    "SALE_PAUSED",
                    "SOLD_OUT",
                    "NOT_ON_SALE",
                    "SEAT_LIMIT_EXCEEDED",
                    "SEAT_NOT_AVAILABLE",
                    "RESERVATION_EXPIRED",
                    "RESERVATION_CANCELLED",
                    "ALREADY_PAID",
                    "INSUFFICIENT_BALANCE",
                    "ACCOUNT_CONFLICT",
                    "CONFLICT",
                ],
            ),
            (413, &["PAYLOAD_TOO_LARGE"]),
            // Not in the contract, which names no answer to a client that is too slow or talks without end.
            (408, &["REQUEST_TIMEOUT"]),
            (414, &["URI_TOO_LONG"]),
            (415, &["UNSUPPORTED_MEDIA_TYPE"]),
            (422, &["INVALID_REQUEST", "INVALID_AMOUNT", "IDEMPOTENCY_KEY_REUSED"]),
            (429, &["RATE_LIMITED"]),
            (500, &["INTERNAL"]),
            (503, &["ROOM_CLOSED", "ROOM_FULL", "UNAVAILABLE"]),
        ];
        for (status, codes) in contract {
            assert_eq!(by_status(status), codes.iter().copied().collect(), "{status}");
        }
        let listed: usize = contract.iter().map(|(_, codes)| codes.len()).sum();
        assert_eq!(listed, Code::ALL.len(), "no code has another status");
    }

    #[test]
    fn a_long_detail_is_cut_between_characters() {
        let problem = Problem::malformed("가".repeat(1_000));
        assert_eq!(problem.0.detail.chars().count(), Problem::MAX_DETAIL_CHARS);
        assert_eq!(Problem::malformed("short").0.detail, "short");
    }
}
