//! The routes, one module a resource.

pub(crate) mod accounts;
pub(crate) mod admin;
pub(crate) mod concerts;
pub(crate) mod health;
pub(crate) mod payment;
pub(crate) mod queue;
pub(crate) mod reservations;
pub(crate) mod sessions;

use actix_web::web::{Data, ServiceConfig};

use crate::{ApiState, access};

/// The state, as handlers take it.
type State = Data<ApiState>;

/// Registers every route, and the answer to every other path. The app has a `Data<ApiState>`; routes that come on top
/// must be registered before. Paths are tried in this order, so what a crowd calls comes first.
pub fn configure(config: &mut ServiceConfig) {
    config
        .configure(queue::configure)
        .configure(health::configure)
        .configure(concerts::configure)
        .configure(reservations::configure)
        .configure(payment::configure)
        .configure(accounts::configure)
        .configure(sessions::configure)
        .configure(admin::configure)
        .default_service(access::unknown_path());
}
