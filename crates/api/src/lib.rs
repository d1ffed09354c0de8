//! The REST interface of frontrow on actix-web.
//!
//! Architecture invariant: no rule of the business is decided here. A route reads a request, calls one use case, and
//! writes the answer; [`configure`] is the list of them. How a refusal looks is said in one table, `problem`; in which
//! order requests are checked, in one place, `access`.

mod access;
mod body;
mod caller;
mod client;
mod cors;
mod dto;
mod etag;
mod gate;
mod idempotency;
mod json;
mod links;
mod openapi;
mod overload;
mod paging;
mod plain_path;
mod problem;
mod query;
mod rate;
mod routes;
mod seats;
#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, web};
use frontrow_app::UseCases;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, pending};

pub use client::{InvalidNetwork, TrustedProxies, subscriber};
pub use cors::{InvalidOrigin, Origins, configure_for, security_headers};
pub use openapi::{openapi, openapi_json};
pub use overload::OverloadLimits;
pub use plain_path::require_plain_path;
pub use rate::{InvalidRate, Rate, RateRules};
pub use routes::configure;

/// A future that resolves once the server begins to stop. Cloning shares it.
pub type Stopping = Shared<BoxFuture<'static, ()>>;

/// What every route shares.
#[derive(Clone)]
pub struct ApiState {
    /// What the routes call.
    pub use_cases: UseCases,
    albums: seats::Albums,
    unread_answers: seats::UnreadAnswers,
    rate_limits: Arc<rate::RateLimits>,
    body_within: Duration,
    stopping: Stopping,
    overload: overload::Overload,
}

impl ApiState {
    /// How long a body may take to arrive, unless something else is said.
    pub const BODY_WITHIN: Duration = Duration::from_secs(30);

    /// Routes that call these, as often as anybody likes, and as many at once as `overload` allows.
    #[must_use]
    pub fn new(use_cases: UseCases, overload: OverloadLimits) -> Self {
        Self::limited(use_cases, RateRules::default(), overload, Self::BODY_WITHIN)
    }

    /// Routes that call these within limits. A body must arrive within `body_within`.
    #[must_use]
    pub fn limited(
        use_cases: UseCases,
        rules: RateRules,
        overload: OverloadLimits,
        body_within: Duration,
    ) -> Self {
        let rate_limits = Arc::new(rate::RateLimits::new(rules));
        let overload = overload::Overload::new(overload);
        let (albums, stopping) = (seats::Albums::default(), pending().boxed().shared());
        let unread_answers = seats::UnreadAnswers::default();
        Self { use_cases, albums, unread_answers, rate_limits, body_within, stopping, overload }
    }

    /// The same routes on a server that stops at some time: bodies that are still arriving then get a few seconds more.
    #[must_use]
    pub fn until(self, stopping: Stopping) -> Self {
        Self { stopping, ..self }
    }
}

/// The state, where no extractor can be asked for it.
fn state(req: &HttpRequest) -> Result<&ApiState, problem::Problem> {
    let state = req.app_data::<web::Data<ApiState>>();
    state.map(|state| &***state).ok_or_else(|| problem::Problem::internal("the routes have no state"))
}
