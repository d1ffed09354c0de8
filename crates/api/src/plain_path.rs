//! Refusal of percent-encoding in paths (ADR 0025).
//!
//! The router decodes a path before it matches, so `/%61dmin/rooms` is `/admin/rooms` to it, but not to a proxy whose rule
//! compares the path as it was sent. Paths of this API are letters, digits and hyphens, so none needs percent-encoding. What
//! else may be written differently (case, double slashes, dot segments, parameters) the router compares letter for letter.

use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;

use crate::access;
use crate::problem::Problem;

/// Middleware that refuses a path with percent-encoding before it is routed: 400. The refusal counts against the rate of the
/// address, as every other one: 429.
///
/// # Errors
/// Those of the service behind it.
pub async fn require_plain_path(
    req: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    // The URI is as it was sent.
    if !req.uri().path().contains('%') {
        return next.call(req).await;
    }
    let refusal = Problem::malformed("A path of this API has no percent-encoding.");
    let problem = access::admit(req.request()).err().unwrap_or(refusal);
    Ok(req.into_response(problem.response()))
}
