//! Connection attempts over the hosts of a URL, raced with a head start.
//!
//! An attempt is all that a host must answer until its connection is of use: TCP, TLS, start-up, the first
//! statements and the check of the server, under one deadline. The host that served last begins. When it
//! fails, or has not answered within [`HEAD_START`], all others are tried at once, and the first success
//! counts. So a host that accepts connections and never answers costs [`HEAD_START`], wherever it is in the
//! URL. The addresses of one host name are raced in the same way.

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};
use tokio_postgres::config::Host;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, Error, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::ConnectError;
use super::server_check::{Demands, ServerState};
use super::target::Target;

/// How long the first attempt runs alone.
const HEAD_START: Duration = Duration::from_secs(1);

/// The half of a connection that does its I/O.
pub(super) type Driver = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// The opening of a connection.
#[derive(Clone, Copy)]
pub(super) struct Opening<'a> {
    /// The name in the server's activity view.
    pub(super) application_name: &'a str,
    /// Statements of one round trip, of which the last one is [`super::server_check::STATE`].
    pub(super) statements: &'a str,
    pub(super) demands: &'a Demands,
}

/// A server among those of a URL: the number of its host, and its address if the host is a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    host: usize,
    address: Option<IpAddr>,
}

/// A connection that is open, checked, and not driven by a task yet.
pub(super) struct Reached {
    pub(super) client: Client,
    pub(super) driver: Driver,
    pub(super) place: Place,
    pub(super) state: ServerState,
}

impl Reached {
    /// Asks on the connection.
    pub(super) async fn ask(&mut self, statement: &str) -> Result<Option<ServerState>, Error> {
        let answers = drive(&mut self.driver, self.client.simple_query(statement)).await?;
        Ok(ServerState::read(&answers))
    }
}

impl Target {
    /// Opens a connection to the first host that answers and passes the check.
    pub(super) async fn reach(&self, opening: Opening<'_>) -> Result<Reached, ConnectError> {
        let last = self.last_reached();
        let mut hosts: Vec<usize> = (0..self.host_count()).collect();
        if let Some(last) = last {
            hosts.sort_by_key(|host| *host != last.host);
        }
        let attempts = hosts.into_iter().map(|host| self.reach_host(host, last, opening));
        let raced = timeout(self.patience, race(HEAD_START, attempts)).await;
        let raced = raced.map_err(|_| self.unanswered(self.server(), self.patience))?;
        let reached = raced.map_err(|errors| ConnectError::of_all(self.server(), errors))?;
        self.note_reached(reached.place);
        Ok(reached)
    }

    /// Opens another connection to the same server.
    pub(super) async fn reach_again(
        &self,
        place: Place,
        opening: Opening<'_>,
    ) -> Result<Reached, ConnectError> {
        let reached = timeout(self.each, self.reach_place(place, opening)).await;
        reached.unwrap_or_else(|_| Err(self.unanswered(self.host_name(place.host), self.each)))
    }

    async fn reach_host(
        &self,
        host: usize,
        last: Option<Place>,
        opening: Opening<'_>,
    ) -> Result<Reached, ConnectError> {
        let name = self.host_name(host);
        let reached = timeout(self.each, async {
            let mut places = self.places(host).await.map_err(|source| ConnectError::Unreachable {
                server: name.clone(),
                source: source.into(),
            })?;
            places.sort_by_key(|place| Some(*place) != last);
            let raced =
                race(HEAD_START, places.into_iter().map(|place| self.reach_place(place, opening))).await;
            raced.map_err(|errors| ConnectError::of_all(name.clone(), errors))
        });
        reached.await.unwrap_or_else(|_| Err(self.unanswered(name, self.each)))
    }

    /// The addresses of a host. A path, or a name with an address of its own in the URL, needs no look-up.
    async fn places(&self, host: usize) -> std::io::Result<Vec<Place>> {
        let name = match self.config.get_hosts().get(host) {
            Some(Host::Tcp(name)) if self.config.get_hostaddrs().is_empty() => name,
            _ => return Ok(vec![Place { host, address: None }]),
        };
        let found = lookup_host((name.as_str(), self.port(host))).await?;
        let mut places = Vec::new();
        for address in found {
            let place = Place { host, address: Some(address.ip()) };
            if !places.contains(&place) {
                places.push(place);
            }
        }
        Ok(places)
    }

    async fn reach_place(&self, place: Place, opening: Opening<'_>) -> Result<Reached, ConnectError> {
        let server = self.host_name(place.host);
        let failed = |error| ConnectError::of(server.clone(), error);
        let mut config = self.config_of(place);
        config.application_name(opening.application_name);
        let (client, mut driver) = config.connect(self.tls.clone()).await.map_err(failed)?;
        let answers = drive(&mut driver, client.simple_query(opening.statements)).await.map_err(failed)?;
        // A server in the middle of a failover may answer without a row: it is none to write to.
        let Some(state) = ServerState::read(&answers) else { return Err(ConnectError::ReadOnly { server }) };
        state.check(opening.demands, &server)?;
        Ok(Reached { client, driver, place, state })
    }

    /// The configuration of one server alone.
    fn config_of(&self, place: Place) -> Config {
        let mut config = without_hosts(&self.config);
        match self.config.get_hosts().get(place.host) {
            Some(Host::Tcp(name)) => drop(config.host(name)),
            #[cfg(unix)]
            Some(Host::Unix(path)) => drop(config.host_path(path)),
            None => {}
        }
        let address = place.address.or_else(|| self.config.get_hostaddrs().get(place.host).copied());
        if let Some(address) = address {
            config.hostaddr(address);
        }
        config.port(self.port(place.host));
        config
    }

    /// The host and port of a server, for messages.
    pub(super) fn server_at(&self, place: Place) -> String {
        self.host_name(place.host)
    }

    fn unanswered(&self, server: String, within: Duration) -> ConnectError {
        ConnectError::Unreachable { server, source: format!("no answer within {within:?}").into() }
    }
}

/// A configuration with all options but the hosts, their addresses and ports. The role is part of the check.
fn without_hosts(config: &Config) -> Config {
    let mut copy = Config::new();
    if let Some(user) = config.get_user() {
        copy.user(user);
    }
    if let Some(password) = config.get_password() {
        copy.password(password);
    }
    if let Some(database) = config.get_dbname() {
        copy.dbname(database);
    }
    if let Some(options) = config.get_options() {
        copy.options(options);
    }
    if let Some(name) = config.get_application_name() {
        copy.application_name(name);
    }
    if let Some(timeout) = config.get_connect_timeout() {
        copy.connect_timeout(*timeout);
    }
    if let Some(timeout) = config.get_tcp_user_timeout() {
        copy.tcp_user_timeout(*timeout);
    }
    copy.keepalives(config.get_keepalives()).keepalives_idle(config.get_keepalives_idle());
    if let Some(interval) = config.get_keepalives_interval() {
        copy.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        copy.keepalives_retries(retries);
    }
    copy.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .channel_binding(config.get_channel_binding());
    copy
}

/// Waits for an answer while the connection does its I/O.
async fn drive<T>(driver: &mut Driver, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let answer = pin!(answer);
    match select(answer, driver).await {
        Either::Left((answer, _)) => answer,
        Either::Right((Err(error), _)) => Err(error),
        // Closed: what was still to come has come.
        Either::Right((Ok(()), answer)) => answer.await,
    }
}

/// The first success of attempts, or the errors of all. The first one runs alone until it fails or its head
/// start is over, then all run.
async fn race<F, T, E>(head_start: Duration, attempts: impl IntoIterator<Item = F>) -> Result<T, Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut others = attempts.into_iter();
    let mut running: FuturesUnordered<F> = others.by_ref().take(1).collect();
    let mut head_start = pin!(sleep(head_start));
    let mut is_alone = true;
    let mut errors = Vec::new();
    loop {
        tokio::select! {
            Some(ended) = running.next() => match ended {
                Ok(reached) => return Ok(reached),
                Err(error) => errors.push(error),
            },
            () = head_start.as_mut(), if is_alone => {}
            else => return Err(errors),
        }
        if is_alone {
            running.extend(others.by_ref());
            is_alone = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;
    use std::time::Instant;

    use super::*;

    /// An option that the copy forgets would be ignored without a word.
    #[test]
    fn the_configuration_of_a_host_has_every_option() {
        let url = "postgres://u:p@h:1/d?options=-c%20x%3D1&application_name=a&sslmode=require&connect_timeout=7\
            &tcp_user_timeout=8&keepalives=0&keepalives_idle=9&keepalives_interval=10&keepalives_retries=11\
            &channel_binding=require&sslnegotiation=direct";
        let config = Config::from_str(url).unwrap();
        let mut copy = without_hosts(&config);
        copy.host("h").port(1);
        assert_eq!(copy, config);
        assert_eq!(without_hosts(&Config::new()), Config::new());
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Answer {
        Silence,
        Refusal,
        Success,
    }

    async fn attempt(name: usize, answer: Answer) -> Result<usize, usize> {
        match answer {
            Answer::Silence => std::future::pending().await,
            Answer::Refusal => Err(name),
            Answer::Success => Ok(name),
        }
    }

    #[tokio::test]
    async fn a_silent_host_costs_a_head_start_and_a_refusal_nothing() {
        use Answer::{Refusal, Silence, Success};
        let (never, soon) = (Duration::from_secs(3_600), Duration::from_millis(200));
        for (answers, head_start, expected) in [
            (vec![Success, Silence, Silence], never, Ok(0)),
            (vec![Refusal, Silence, Success], never, Ok(2)),
            (vec![Refusal, Refusal], never, Err(vec![0, 1])),
            (vec![Refusal], never, Err(vec![0])),
            (vec![Silence, Success], soon, Ok(1)),
            (vec![Silence, Silence, Refusal, Silence, Success], soon, Ok(4)),
        ] {
            let begun = Instant::now();
            let attempts = answers.iter().enumerate().map(|(name, answer)| attempt(name, *answer));
            let mut raced = race(head_start, attempts).await;
            if let Err(errors) = &mut raced {
                errors.sort_unstable();
            }
            assert_eq!(raced, expected, "{answers:?}");
            assert!(answers.first() != Some(&Silence) || begun.elapsed() >= soon, "{answers:?}");
        }
    }
}
