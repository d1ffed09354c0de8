//! HTTP on a socket: who may connect, for how long, and what every answer carries.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_web::{App, HttpServer, web};
use anyhow::{Context, Result};
use frontrow_api::{ApiState, Origins, RateRules, configure_for, security_headers};
use frontrow_app::UseCases;
use socket2::SockRef;
use tokio::net::TcpSocket;

/// How long a request that runs may take to finish when the server stops, in seconds.
const STOP_WITHIN_SECONDS: u64 = 10;
/// How long an idle connection is kept: longer than the rarest poll, and than the 60 s after which usual proxies let go,
/// so that it is never we who close under a request.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How many connections may wait to be accepted: the first second of a sale. The kernel may allow fewer (`somaxconn`).
const BACKLOG: u32 = 4_096;
/// The most connections a worker serves at once, unless a limit is given; further ones wait in the backlog. There is a
/// worker a core.
const CONNECTIONS_PER_WORKER: usize = 50_000;

/// What clients may do.
#[derive(Debug, Clone)]
pub struct ClientRules {
    /// How often they may call.
    pub rates: RateRules,
    /// Whose pages may call.
    pub origins: Option<Origins>,
    /// How many connections are served at once, by all workers together.
    pub max_connections: Option<usize>,
    /// How long a head or a body may take to arrive, and how long a client may take nothing of an answer.
    pub timeout: Duration,
}

/// Nothing is limited but time.
impl Default for ClientRules {
    fn default() -> Self {
        let (rates, timeout) = (RateRules::default(), ApiState::BODY_WITHIN);
        Self { rates, origins: None, max_connections: None, timeout }
    }
}

/// Listens on the first address of `bind` that is free. A client that takes nothing of what is sent is cut after `patience`.
///
/// # Errors
/// When there is none.
pub(crate) fn listen(bind: &str, patience: Duration) -> Result<TcpListener> {
    let addresses = bind.to_socket_addrs();
    let addresses = addresses.with_context(|| format!("--bind {bind} is no address"))?;
    let mut last = None;
    for address in addresses {
        match listen_on(address, patience) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    let error = last.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into());
    Err(error).with_context(|| format!("cannot listen on {bind}"))
}

/// As the standard library does it, but with a backlog for a crowd: its own takes 128.
fn listen_on(address: SocketAddr, patience: Duration) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // What is accepted inherits it: actix waits for ever for a client to read.
    #[cfg(target_os = "linux")]
    SockRef::from(&socket).set_tcp_user_timeout(Some(patience))?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Serves until it is told to stop.
///
/// # Errors
/// When the listener is not usable.
pub(crate) fn serve(
    listener: TcpListener,
    use_cases: UseCases,
    rules: ClientRules,
) -> Result<actix_web::dev::Server> {
    let ClientRules { rates, origins, max_connections, timeout } = rules;
    let state = web::Data::new(ApiState::limited(use_cases, rates, timeout));
    let app = move || {
        App::new()
            .wrap(security_headers())
            .app_data(state.clone())
            .configure(|config| configure_for(origins.as_ref(), config))
    };
    let (workers, connections) = share(max_connections, available_parallelism().map_or(1, NonZeroUsize::get));
    let server = HttpServer::new(app)
        .workers(workers)
        .max_connections(connections)
        .keep_alive(KEEP_ALIVE)
        .tcp_nodelay(true)
        .client_request_timeout(timeout)
        .shutdown_timeout(STOP_WITHIN_SECONDS)
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}

/// How many workers there are, and how many connections each serves: never more than the limit together.
fn share(limit: Option<usize>, cores: usize) -> (usize, usize) {
    match limit {
        None => (cores, CONNECTIONS_PER_WORKER),
        Some(limit) => {
            let workers = cores.min(limit).max(1);
            (workers, limit / workers)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_limit() {
        assert_eq!(share(None, 4), (4, CONNECTIONS_PER_WORKER));
        assert_eq!(share(Some(1_000), 4), (4, 250));
        assert_eq!(share(Some(7), 4), (4, 1));
        assert_eq!(share(Some(2), 4), (2, 1));
        assert_eq!(share(Some(1), 1), (1, 1));
    }
}
