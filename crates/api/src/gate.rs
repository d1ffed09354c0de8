//! The gate in front of everything that sells (seed: TokenValidatorFilter).
//!
//! A gated use case asks for a `GatePass`, a handler gets one only through [`Passed`], and only [`require_pass`] puts one
//! there: a gated route that forgets the gate refuses everybody instead of letting everybody in.

use actix_web::body::BoxBody;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::HeaderMap;
use actix_web::middleware::Next;
use actix_web::{Error, FromRequest, HttpMessage, HttpRequest};
use frontrow_app::{GateError, GatePass, LookUpError};

use crate::caller::Known;
use crate::problem::Problem;
use crate::state;

/// The header that carries a queue token.
pub(crate) const WAIT_TOKEN: &str = "wait-token";

/// A Wait-Token header that cannot be any token: not visible ASCII, or given twice.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

impl From<Unreadable> for GateError {
    fn from(_: Unreadable) -> Self {
        Self::Invalid
    }
}

impl From<Unreadable> for LookUpError {
    fn from(_: Unreadable) -> Self {
        Self::Invalid
    }
}

/// The Wait-Token of a request; an empty one is none.
///
/// # Errors
/// [`Unreadable`].
pub(crate) fn wait_token(headers: &HeaderMap) -> Result<Option<&str>, Unreadable> {
    let mut given = headers.get_all(WAIT_TOKEN);
    let Some(token) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(Unreadable);
    }
    let token = token.to_str().map_err(|_| Unreadable)?.trim();
    Ok(Some(token).filter(|token| !token.is_empty()))
}

/// Lets the holders of an ACTIVE Wait-Token through; the others are sent to the waiting room: 301.
pub(crate) async fn require_pass(
    req: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    match check(req.request()).await {
        Ok(pass) => {
            req.extensions_mut().insert(Passed(pass));
            next.call(req).await
        }
        Err(problem) => Ok(req.into_response(problem.response())),
    }
}

async fn check(req: &HttpRequest) -> Result<GatePass, Problem> {
    let known = req.extensions().get::<Known>().copied();
    let known = known.ok_or_else(|| Problem::internal("the gate does not know the caller"))?;
    let token = wait_token(req.headers()).map_err(GateError::from)?;
    let gate = &state(req)?.use_cases.gate;
    // Who only looks is judged by what this node knows; who writes, exactly.
    let pass = if req.method().is_safe() {
        gate.check_to_look(known.user_id(), token).await
    } else {
        gate.check(known.user_id(), token).await
    };
    Ok(pass?)
}

/// The pass of a request. Only routes behind [`require_pass`] have one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passed(pub GatePass);

impl FromRequest for Passed {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let passed = req.extensions().get().copied();
        std::future::ready(passed.ok_or_else(|| Problem::internal("a gated route has no gate")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{header_bytes, headers};

    #[test]
    fn empty_is_missing_and_strange_is_unreadable() {
        assert_eq!(wait_token(&HeaderMap::new()), Ok(None));
        assert_eq!(wait_token(&headers(WAIT_TOKEN, &[""])), Ok(None));
        assert_eq!(wait_token(&headers(WAIT_TOKEN, &["  "])), Ok(None));
        assert_eq!(wait_token(&headers(WAIT_TOKEN, &["abc"])), Ok(Some("abc")));
        assert_eq!(wait_token(&headers(WAIT_TOKEN, &["대기"])), Err(Unreadable));
        assert_eq!(wait_token(&headers(WAIT_TOKEN, &["abc", "abc"])), Err(Unreadable));
    }

    proptest! {
        #[test]
        fn any_header_is_one_token_without_its_blanks_or_unreadable(bytes in header_bytes()) {
            let expected = match str::from_utf8(bytes.trim_ascii()) {
                Ok("") => Ok(None),
                Ok(token) if token.is_ascii() => Ok(Some(token)),
                _ => Err(Unreadable),
            };
            let headers = headers(WAIT_TOKEN, &[&bytes]);
            prop_assert_eq!(wait_token(&headers), expected);
        }
    }
}
