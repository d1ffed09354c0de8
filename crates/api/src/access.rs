//! What a route asks of a request before its handler runs. A route declares its kind once, and the kind keeps the order of
//! the contract: 429 of the address, 414, 503 of one too many, 401, 429 of the caller, 413, idempotent replay, the Wait-Token.
//! What follows (400, 403, 422, ...) is the handler's.

use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::middleware::{Next, from_fn};
use actix_web::rt::time::timeout;
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse, Resource, Route, guard, web};
use frontrow_app::Failure;

use crate::overload::{Class, UnderWay};
use crate::problem::{Code, Problem};
use crate::{body, caller, gate, idempotency, state};

/// How long an answer may take. Storage that is away or stands still is given up sooner; but what several such waits come to,
/// one after the other and behind those of others, nobody has to sit out.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// What a kind of route asks.
#[derive(Debug, Clone, Copy)]
struct Asks {
    /// That an address does not call too often, and no URL is without end.
    moderation: bool,
    /// A place among those that are under way (ADR 0015).
    place: Option<Class>,
    /// An access token.
    bearer: bool,
}

impl Asks {
    const NOTHING: Self = Self { moderation: false, place: None, bearer: false };
    const MODERATION: Self = Self { moderation: true, ..Self::NOTHING };
    const BEARER: Self = Self { bearer: true, ..Self::MODERATION };

    fn of(self, route: Route) -> Route {
        route.wrap(from_fn(move |req, next| let_in(self, req, next)))
    }
}

/// For machines that look after the server: anybody may call, as often as it likes.
pub(crate) fn unlimited(route: Route) -> Route {
    Asks::NOTHING.of(route)
}

/// Anybody may call.
pub(crate) fn public(route: Route) -> Route {
    Asks::MODERATION.of(route)
}

/// Anybody may call, as long as there is a place for such a request.
pub(crate) fn public_within(class: Class, route: Route) -> Route {
    Asks { place: Some(class), ..Asks::MODERATION }.of(route)
}

/// Whoever has an access token may call.
pub(crate) fn bearer(route: Route) -> Route {
    Asks::BEARER.of(route)
}

/// As [`bearer`], as long as there is a place for such a request.
pub(crate) fn bearer_within(class: Class, route: Route) -> Route {
    Asks { place: Some(class), ..Asks::BEARER }.of(route)
}

/// As [`bearer_within`]; a request that was answered before is answered again.
pub(crate) fn idempotent(class: Class, route: Route) -> Route {
    bearer_within(class, route.wrap(from_fn(idempotency::replay)))
}

/// As [`bearer_within`]; only holders of an ACTIVE Wait-Token get in.
pub(crate) fn gated(class: Class, route: Route) -> Route {
    bearer_within(class, route.wrap(from_fn(gate::require_pass)))
}

/// Gated, but what was answered before is answered again first: a retry needs no place in the line.
pub(crate) fn gated_idempotent(class: Class, route: Route) -> Route {
    idempotent(class, route.wrap(from_fn(gate::require_pass)))
}

async fn let_in(
    asks: Asks,
    mut req: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let mut under_way = match receive(asks, &mut req).await {
        Ok(under_way) => under_way,
        Err(problem) => return Ok(req.into_response(problem.response())),
    };
    let answer = match check(asks, req.request()) {
        Ok(()) => answer_in_time(req, next).await?,
        Err(problem) => req.into_response(problem.response()),
    };
    if let Some(under_way) = &mut under_way {
        under_way.answered(answer.status());
    }
    Ok(answer)
}

/// 429 of the address, 414, and 503 of one too many. The body is received before that: a client that is slow to send takes
/// no place, and one that is still sending could not hear.
async fn receive(asks: Asks, req: &mut ServiceRequest) -> Result<Option<UnderWay>, Problem> {
    if asks.moderation {
        admit(req.request())?;
    }
    body::receive(req).await;
    asks.place.map(|class| state(req.request())?.overload.enter(class)).transpose()
}

/// The longest URL, in bytes. Those of this API have less than 300.
const MAX_URL_BYTES: usize = 8 * 1024;

/// Counts a request against the rate of its address (429), and refuses an endless URL (414), before anything is read or checked.
pub(crate) fn admit(req: &HttpRequest) -> Result<(), Problem> {
    state(req)?.rate_limits.admit_address(req)?;
    match req.uri().path_and_query() {
        Some(target) if target.as_str().len() > MAX_URL_BYTES => {
            let detail = format!("A URL has at most {MAX_URL_BYTES} bytes.");
            Err(Problem::new(Code::UriTooLong, detail))
        }
        _ => Ok(()),
    }
}

/// 401, 429 of the caller, 413. Who calls is there for the handler afterwards.
fn check(asks: Asks, req: &HttpRequest) -> Result<(), Problem> {
    if asks.bearer {
        let known = caller::authenticate(req)?;
        state(req)?.rate_limits.admit_caller(known.user_id())?;
        req.extensions_mut().insert(known);
    }
    body::require_received(req)
}

/// Dropping a handler leaves nothing behind (ADR 0001). What it had handed over to be written may be written all the same.
async fn answer_in_time(req: ServiceRequest, next: Next<BoxBody>) -> Result<ServiceResponse<BoxBody>, Error> {
    let request = req.request().clone();
    if let Ok(answer) = timeout(ANSWERED_WITHIN, next.call(req)).await {
        return answer;
    }
    let late = "there was no answer in time".into();
    let failure =
        if request.method().is_safe() { Failure::Unavailable(late) } else { Failure::OutcomeUnknown(late) };
    Ok(ServiceResponse::new(request, Problem::from(failure).response()))
}

/// For what is refused anyway: a client that is still sending cannot hear.
async fn only_receive(
    mut req: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if let Err(problem) = admit(req.request()) {
        return Ok(req.into_response(problem.response()));
    }
    body::receive(&mut req).await;
    next.call(req).await
}

/// A path with its methods. GET answers HEAD too; any other method is 405 and says which there are.
pub(crate) fn resource<const N: usize>(path: &str, routes: [(Method, Route); N]) -> Resource {
    let mut allowed: Vec<&str> = routes.iter().map(|(method, _)| method.as_str()).collect();
    if allowed.contains(&"GET") {
        allowed.push("HEAD");
    }
    let allow = allowed.join(", ");
    let not_allowed = web::to(move || {
        let response = method_not_allowed(&allow);
        async move { response }
    });
    let resource = web::resource(path).default_service(not_allowed.wrap(from_fn(only_receive)));
    routes.into_iter().fold(resource, |resource, (method, route)| {
        let route = if method == Method::GET {
            route.guard(guard::Any(guard::Get()).or(guard::Head()))
        } else {
            route.method(method)
        };
        resource.route(route)
    })
}

fn method_not_allowed(allow: &str) -> HttpResponse<BoxBody> {
    match HeaderValue::from_str(allow) {
        Ok(value) => Problem::new(Code::MethodNotAllowed, format!("Allowed here: {allow}."))
            .with_header(ALLOW, value)
            .response(),
        Err(_) => Problem::internal("the methods of a route make no header").response(),
    }
}

/// The answer to every path that is not ours.
pub(crate) fn unknown_path() -> Route {
    let not_found = || async { Problem::new(Code::NotFound, "No such path.").response() };
    web::to(not_found).wrap(from_fn(only_receive))
}
