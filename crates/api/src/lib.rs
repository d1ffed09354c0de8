//! The REST interface of frontrow on actix-web.
//!
//! Architecture invariant: no rule of the business is decided here. A route reads a request, calls one use case, and
//! writes the answer; [`configure`] is the list of them. How a refusal looks is said in one table, `problem`; in which
//! order requests are checked, in one place, `access`.

mod access;
mod body;
mod caller;
mod dto;
mod etag;
mod gate;
mod idempotency;
mod json;
mod openapi;
mod overload;
mod paging;
mod problem;
mod query;
mod routes;
mod seats;

use actix_web::{HttpRequest, web};
use frontrow_app::UseCases;

pub use openapi::{openapi, openapi_json};
pub use overload::OverloadLimits;
pub use routes::configure;

/// What every route shares.
#[derive(Clone)]
pub struct ApiState {
    /// What the routes call.
    pub use_cases: UseCases,
    albums: seats::Albums,
    overload: overload::Overload,
}

impl ApiState {
    /// Routes that call these, as many at once as `limits` allow.
    #[must_use]
    pub fn new(use_cases: UseCases, limits: OverloadLimits) -> Self {
        let overload = overload::Overload::new(limits);
        Self { use_cases, albums: seats::Albums::default(), overload }
    }
}

/// The state, where no extractor can be asked for it.
fn state(req: &HttpRequest) -> Result<&ApiState, problem::Problem> {
    let state = req.app_data::<web::Data<ApiState>>();
    state.map(|state| &***state).ok_or_else(|| problem::Problem::internal("the routes have no state"))
}
