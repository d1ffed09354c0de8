//! HTTP on a socket: who may connect, for how long, and what every answer carries.

mod address_limit;
mod patient;
mod turns;

use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol};
use actix_service::{IntoServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::dev::{AppConfig, Server};
use actix_web::middleware::from_fn;
use actix_web::{App, Error, web};
use anyhow::{Context, Result};
use frontrow_api::{
    ApiState, Origins, OverloadLimits, RateRules, Stopping, configure_for, require_plain_path,
    security_headers,
};
use frontrow_app::UseCases;
use futures_util::FutureExt;
use tokio::net::{TcpSocket, TcpStream};

use self::address_limit::{AddressLimit, Admitted};
use self::patient::{Bounds, Patient};
use self::turns::Turns;

/// How long a request that is worked on may take to finish when the server stops, in seconds. Clients that are still sending,
/// or do not read their answer, are cut sooner: see [`Patient`] and [`ApiState::until`].
const STOP_WITHIN_SECONDS: u64 = 10;
/// How long an idle connection is kept: longer than the rarest poll, and than the 60 s after which usual proxies let go,
/// so that it is never we who close under a request.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a client that is still sending is listened to after it was answered, so that it hears the answer.
const DISCONNECT_WITHIN: Duration = Duration::from_secs(1);
/// The most workers there may be.
const MAX_WORKERS: usize = 512;
/// How many connections may wait to be accepted: the first second of a sale. The kernel may allow fewer (`somaxconn`).
const BACKLOG: u32 = 4_096;
/// The most connections a worker serves at once, unless a limit is given; further ones wait in the backlog. There is a
/// worker a core.
const CONNECTIONS_PER_WORKER: usize = 50_000;

/// The part of all connections that one address may have, unless a limit is given: four clients still get in.
const ADDRESSES: usize = 4;
/// How long the first byte of a connection may take. A trusted proxy may take longer: it opens connections in advance.
const FIRST_BYTE_WITHIN: Duration = Duration::from_secs(5);

/// What clients may do.
#[derive(Debug, Clone)]
pub struct ClientRules {
    /// How often they may call.
    pub rates: RateRules,
    /// Whose pages may call.
    pub origins: Option<Origins>,
    /// How many connections are served at once, by all workers together.
    pub max_connections: Option<usize>,
    /// Concurrent connections of one address; a quarter of all when absent. Trusted proxies have no limit.
    pub max_connections_per_address: Option<usize>,
    /// How long a head or a body may take to arrive, and how long a client may take nothing of an answer.
    pub timeout: Duration,
    /// How long a request that has arrived may be worked on before anything is answered: longer than storage may take.
    pub work_within: Duration,
    /// How many requests may be under way.
    pub overload: OverloadLimits,
}

/// Nothing is limited but time.
impl Default for ClientRules {
    fn default() -> Self {
        let (rates, timeout) = (RateRules::default(), ApiState::BODY_WITHIN);
        let overload = OverloadLimits::new(Self::OVERLOAD_TARGET);
        let work_within = Self::WORK_WITHIN;
        let (max_connections, max_connections_per_address) = (None, None);
        Self {
            rates,
            origins: None,
            max_connections,
            max_connections_per_address,
            timeout,
            work_within,
            overload,
        }
    }
}

impl ClientRules {
    /// How long a request may be worked on, unless something else is said.
    pub const WORK_WITHIN: Duration = Duration::from_secs(60);
    /// How long requests may take on average under overload, unless something else is said.
    pub const OVERLOAD_TARGET: Duration = Duration::from_millis(100);

    fn bounds(&self) -> Bounds {
        let answer_within = self.timeout.saturating_mul(2).saturating_add(self.work_within);
        Bounds { first_byte_within: Some(FIRST_BYTE_WITHIN), answer_within, take_within: self.timeout }
    }
}

/// Listens on the first address of `bind` that is free.
///
/// # Errors
/// When there is none.
pub(crate) fn listen(bind: &str) -> Result<TcpListener> {
    let addresses = bind.to_socket_addrs();
    let addresses = addresses.with_context(|| format!("--bind {bind} is no address"))?;
    let mut last = None;
    for address in addresses {
        match listen_on(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    let error = last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
    Err(error).with_context(|| format!("cannot listen on {bind}"))
}

/// As the standard library does it, but with a backlog for a crowd: its own takes 128.
fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Serves until it is told to stop. As actix-web's own `HttpServer` does it, but over connections that are [`Patient`].
///
/// # Errors
/// When the listener is not usable.
pub(crate) fn serve(listener: TcpListener, use_cases: UseCases, rules: ClientRules) -> Result<Server> {
    let bounds = rules.bounds();
    let (workers, connections) =
        share(rules.max_connections, available_parallelism().map_or(1, NonZeroUsize::get));
    let ClientRules { rates, origins, max_connections_per_address, timeout, overload, .. } = rules;
    let per_address = max_connections_per_address.unwrap_or_else(|| share_of_address(workers * connections));
    let address_limit = AddressLimit::new(per_address, rates.trusted_proxies.clone());
    let server = Server::build()
        .workers(workers)
        .max_concurrent_connections(connections)
        .shutdown_timeout(STOP_WITHIN_SECONDS)
        .disable_signals();
    let signal = server.graceful_shutdown_signal();
    let of_bodies = signal.clone();
    // Polled only by what is stuck: a poll takes a lock that all workers share.
    let stopping: Stopping = async move { of_bodies.notified().await }.boxed().shared();
    let state = ApiState::limited(use_cases, rates, overload, timeout).until(stopping.clone());
    let state = web::Data::new(state);
    let app = move || {
        App::new()
            .wrap(from_fn(require_plain_path))
            .wrap(security_headers())
            .app_data(state.clone())
            .configure(|config| configure_for(origins.as_ref(), config))
    };
    let server = server.listen("http", listener, move || {
        let (signal, of_connections) = (signal.clone(), stopping.clone());
        // Polled whenever a connection has something to do: each has a future of its own.
        let stop_signal = move || {
            let signal = signal.clone();
            async move { signal.notified().await }
        };
        let app = app().into_factory().map_err(|error: Error| error.error_response());
        let http = HttpService::build()
            .graceful_shutdown_signal(stop_signal)
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(timeout)
            .client_disconnect_timeout(DISCONNECT_WITHIN)
            .finish(map_config(app, |()| AppConfig::default()));
        let turns = Turns::default();
        let address_limit = address_limit.clone();
        let connected =
            move |stream| connected(stream, &address_limit, bounds, (turns.clone(), of_connections.clone()));
        fn_service(move |stream: TcpStream| ready(connected(stream).map_err(DispatchError::Io)))
            .and_then(http)
    })?;
    Ok(server.run())
}

/// The connection as the HTTP service takes it.
///
/// # Errors
/// When the peer has disconnected, or its address has as many connections as it may. The connection is closed without an
/// answer: nothing was asked yet.
fn connected(
    stream: TcpStream,
    limit: &AddressLimit,
    bounds: Bounds,
    (turns, stopping): (Turns, Stopping),
) -> io::Result<(Patient<TcpStream>, Protocol, Option<SocketAddr>)> {
    let peer = stream.peer_addr()?;
    let (bounds, slot) = match limit.admit(peer.ip()) {
        Some(Admitted::Client(slot)) => (bounds, Some(slot)),
        Some(Admitted::Proxy) => (Bounds { first_byte_within: None, ..bounds }, None),
        None => return Err(io::ErrorKind::QuotaExceeded.into()),
    };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection is gone already");
    }
    Ok((Patient::new(stream, bounds, (turns, stopping), slot), Protocol::Http1, Some(peer)))
}

/// How many connections one address may have, where that is not configured.
fn share_of_address(connections: usize) -> usize {
    connections.div_euclid(ADDRESSES).max(1)
}

/// How many workers there are, and how many connections each serves: never more than the limit together.
fn share(limit: Option<usize>, cores: usize) -> (usize, usize) {
    let cores = cores.min(MAX_WORKERS);
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

    #[test]
    fn one_address_never_has_all_of_two_connections_or_more() {
        assert_eq!([100_000, 1_000, 7, 2, 1].map(share_of_address), [25_000, 250, 1, 1, 1]);
    }
}
