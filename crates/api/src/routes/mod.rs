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

/// Registers every route, and the answer to every other path. Routes that come on top must be registered before.
pub fn configure(state: Data<ApiState>) -> impl FnOnce(&mut ServiceConfig) {
    |config| {
        config.app_data(state);
        config.configure(sessions::configure);
        config.configure(queue::configure);
        config.configure(concerts::configure);
        config.configure(reservations::configure);
        config.configure(accounts::configure);
        config.configure(payment::configure);
        config.configure(admin::configure);
        config.configure(health::configure);
        config.default_service(access::unknown_path());
    }
}
