//! A database URL, taken apart.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::PostgresOptions;
use super::error::{ConnectError, with_causes};
use super::hosts::Place;
use super::tls::{self, Trust};

const DEFAULT_PORT: u16 = 5432;
/// A dead peer is noticed after about a minute of silence, or after unacknowledged data for this long.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// Where to connect to, and how.
pub(super) struct Target {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
    /// The longest that one connection may take to make, over all hosts.
    pub(super) patience: Duration,
    /// The longest that one host may take.
    pub(super) each: Duration,
    /// The server of the last connection.
    last_reached: Mutex<Option<Place>>,
}

impl Target {
    /// Reads `postgres://user:password@host:port,host:port/database?option=value&..`.
    pub(super) fn new(url: &str, options: &PostgresOptions) -> Result<Self, ConnectError> {
        let (url, ssl) = SslOptions::take_from(url)?;
        let mut config = Config::from_str(&url).map_err(|error| invalid(&error))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(ConnectError::InvalidUrl("it names no host".to_owned()));
        }
        check_counts(&config)?;
        let (ssl_mode, trust) = ssl.meaning()?;
        config.ssl_mode(ssl_mode);
        let each = config.get_connect_timeout().copied().unwrap_or(options.connect_timeout);
        let patience = set_timeouts(&mut config, options.connect_timeout);
        let tls = MakeRustlsConnect::new(tls::client_config(trust)?);
        Ok(Self { config, tls, patience, each, last_reached: Mutex::default() })
    }

    /// The kind of server that the URL asks for.
    pub(super) fn role(&self) -> TargetSessionAttrs {
        self.config.get_target_session_attrs()
    }

    /// Hosts and ports, for messages.
    pub(super) fn server(&self) -> String {
        (0..self.host_count()).map(|host| self.host_name(host)).collect::<Vec<_>>().join(",")
    }

    pub(super) fn host_count(&self) -> usize {
        self.config.get_hosts().len().max(self.config.get_hostaddrs().len())
    }

    /// The host and port of this number, for messages.
    pub(super) fn host_name(&self, host: usize) -> String {
        let port = self.port(host);
        match (self.config.get_hosts().get(host), self.config.get_hostaddrs().get(host)) {
            (Some(Host::Tcp(name)), _) => format!("{name}:{port}"),
            #[cfg(unix)]
            (Some(Host::Unix(path)), _) => format!("{}:{port}", path.display()),
            (None, Some(address)) => SocketAddr::new(*address, port).to_string(),
            (None, None) => String::new(),
        }
    }

    pub(super) fn port(&self, host: usize) -> u16 {
        let ports = self.config.get_ports();
        ports.get(host).or_else(|| ports.first()).copied().unwrap_or(DEFAULT_PORT)
    }

    /// The server of the last connection: the next one is likely to be there.
    pub(super) fn last_reached(&self) -> Option<Place> {
        *self.last_reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_reached(&self, place: Place) {
        *self.last_reached.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }
}

/// Hosts, addresses and ports belong together by their order.
fn check_counts(config: &Config) -> Result<(), ConnectError> {
    let (hosts, addresses, ports) =
        (config.get_hosts().len(), config.get_hostaddrs().len(), config.get_ports().len());
    let differ = |one: usize, other: usize| one > 0 && other > 0 && one != other;
    if differ(hosts, addresses) || (ports > 1 && ports != hosts.max(addresses)) {
        return Err(ConnectError::InvalidUrl("its hosts, addresses and ports differ in number".to_owned()));
    }
    Ok(())
}

/// What tokio-postgres says of a URL, without what could be a piece of a password that was not percent-encoded.
fn invalid(error: &tokio_postgres::Error) -> ConnectError {
    let message = with_causes(error);
    let unknown = message.contains("unknown option");
    ConnectError::InvalidUrl(if unknown { "it has an unknown option".to_owned() } else { message })
}

/// Fills in the timeouts that the URL leaves open, and returns how long all hosts together may take.
fn set_timeouts(config: &mut Config, total: Duration) -> Duration {
    let hosts = u32::try_from(config.get_hosts().len().max(1)).unwrap_or(u32::MAX);
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(UNACKNOWLEDGED);
    }
    if config.get_keepalives_idle() == Config::new().get_keepalives_idle() {
        config.keepalives_idle(KEEPALIVE_IDLE);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(KEEPALIVE_INTERVAL).keepalives_retries(KEEPALIVE_RETRIES);
    }
    match config.get_connect_timeout().copied() {
        Some(each) => total.max(each.saturating_mul(hosts)),
        None => {
            config.connect_timeout(total / hosts.saturating_add(1));
            total
        }
    }
}

/// The options of libpq that tokio-postgres does not know, or not with all their values.
#[derive(Debug, Default, PartialEq, Eq)]
struct SslOptions {
    mode: Option<String>,
    root_cert: Option<String>,
}

impl SslOptions {
    /// Takes `sslmode` and `sslrootcert` out of a URL. The rest of it stays as it is, letter for letter.
    fn take_from(url: &str) -> Result<(String, Self), ConnectError> {
        let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
        if !is_url {
            return Err(ConnectError::InvalidUrl("it does not start with postgres://".to_owned()));
        }
        let mut taken = Self::default();
        let Some((base, query)) = split_query(url) else { return Ok((url.to_owned(), taken)) };
        let mut kept = Vec::new();
        for option in query.split('&') {
            match option.split_once('=') {
                Some(("sslmode", value)) => taken.mode = Some(decoded(value)?),
                Some(("sslrootcert", value)) => taken.root_cert = Some(decoded(value)?),
                _ => kept.push(option),
            }
        }
        let rest = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
        Ok((rest, taken))
    }

    /// As libpq has it: `require` encrypts without looking at the certificate, unless there is a root certificate to
    /// look at it with. `allow` is taken for `prefer`.
    fn meaning(self) -> Result<(SslMode, Trust), ConnectError> {
        let roots = match self.root_cert.as_deref() {
            None | Some("" | "system") => None,
            Some(path) => Some(PathBuf::from(path)),
        };
        match self.mode.as_deref() {
            Some("disable") => Ok((SslMode::Disable, Trust::Anyone)),
            None | Some("allow" | "prefer") => Ok((SslMode::Prefer, Trust::Anyone)),
            Some("require") if roots.is_none() => Ok((SslMode::Require, Trust::Anyone)),
            Some("require" | "verify-ca") => Ok((SslMode::Require, Trust::Chain(roots))),
            Some("verify-full") => Ok((SslMode::Require, Trust::ChainAndName(roots))),
            Some(_) => Err(ConnectError::InvalidUrl("its sslmode is none of PostgreSQL's".to_owned())),
        }
    }
}

/// The query of a URL begins after the credentials, in which a `?` need not be encoded.
fn split_query(url: &str) -> Option<(&str, &str)> {
    let credentials_end = url.find('@').unwrap_or(0);
    let (credentials, rest) = url.split_at(credentials_end);
    match rest.split_once('?') {
        Some((path, query)) => {
            url.split_at_checked(credentials.len() + path.len()).map(|(base, _)| (base, query))
        }
        None => url.split_once('?'),
    }
}

fn decoded(value: &str) -> Result<String, ConnectError> {
    let text = percent_decode_str(value).decode_utf8();
    text.map(Into::into).map_err(|_| ConnectError::InvalidUrl("an option of it is not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    proptest! {
        #[test]
        fn any_url_is_a_target_or_refused_without_its_password(
            rest in prop_oneof![".*", "[a-z0-9.:,/@?&=%_-]{0,40}"],
            (before, behind) in ("[a-z@?/:&=%]{0,3}", "[a-z@?/:&=%]{0,3}"),
            option in "[?&](sslmode|sslrootcert|options|connect_timeout|port|host)=[a-z0-9%/-]{0,12}",
        ) {
            // Some put a password in as it is, whatever it means in a URL.
            let unencoded = format!("postgres://u:{before}hunter2{behind}@h/d{option}");
            let encoded = format!("postgres://u:hunter2@{rest}{option}");
            for url in [&rest, &format!("postgres://{rest}"), &unencoded, &encoded] {
                if let Err(error) = Target::new(url, &PostgresOptions::default()) {
                    prop_assert!(!format!("{error} {error:?}").contains("hunter2"), "{}", error);
                }
            }
        }

        #[test]
        fn hosts_ports_and_options_are_read_as_they_are_written(
            hosts in prop::collection::vec(("[a-z][a-z0-9.-]{0,9}", 1..=u16::MAX), 1..4),
            (user, database) in ("[a-z]{1,9}", "[a-z]{1,9}"),
            others in prop::collection::vec("application_name=[a-z0-9]{0,8}|connect_timeout=[1-9]", 0..4),
            (mode, at) in ("disable|prefer|require", any::<Index>()),
        ) {
            let hosts: Vec<String> = hosts.into_iter().map(|(host, port)| format!("{host}:{port}")).collect();
            let hosts = hosts.join(",");
            let mut all = others.clone();
            all.insert(at.index(others.len() + 1), format!("sslmode={mode}"));
            let url = |query: &str| format!("postgres://{user}:p%40@{hosts}/{database}{query}");
            let (rest, taken) = SslOptions::take_from(&url(&format!("?{}", all.join("&")))).unwrap();
            let left = if others.is_empty() { String::new() } else { format!("?{}", others.join("&")) };
            prop_assert_eq!((rest, taken), (url(&left), options(Some(&mode), None)));
            let target = Target::new(&url(&format!("?{}", all.join("&"))), &PostgresOptions::default()).unwrap();
            prop_assert_eq!(target.server(), hosts);
            prop_assert_eq!(target.config.get_user(), Some(user.as_str()));
            prop_assert_eq!(target.config.get_password(), Some(b"p@".as_slice()));
            prop_assert_eq!(target.config.get_dbname(), Some(database.as_str()));
        }
    }

    fn options(mode: Option<&str>, root_cert: Option<&str>) -> SslOptions {
        SslOptions { mode: mode.map(Into::into), root_cert: root_cert.map(Into::into) }
    }

    #[test]
    fn the_ssl_options_are_taken_out_and_the_rest_is_left() {
        for (url, rest, taken) in [
            ("postgres://h/d", "postgres://h/d", options(None, None)),
            ("postgres://h/d?sslmode=disable", "postgres://h/d", options(Some("disable"), None)),
            (
                "postgresql://u:p%40@a:1,b:2/d?connect_timeout=2&sslmode=verify-full&sslrootcert=%2Fa%20b&options=-c%20x%3D1",
                "postgresql://u:p%40@a:1,b:2/d?connect_timeout=2&options=-c%20x%3D1",
                options(Some("verify-full"), Some("/a b")),
            ),
            ("postgres://u:a?b@h/d?sslmode=require", "postgres://u:a?b@h/d", options(Some("require"), None)),
            ("postgres://u:a?b=c@h/d", "postgres://u:a?b=c@h/d", options(None, None)),
            ("postgres://h/d?sslrootcert=/a@b", "postgres://h/d", options(None, Some("/a@b"))),
        ] {
            assert_eq!(SslOptions::take_from(url).unwrap(), (rest.to_owned(), taken), "{url}");
        }
    }

    #[test]
    fn sslmode_means_what_libpq_says() {
        let root = || Some(PathBuf::from("/r"));
        for (mode, root_cert, expected) in [
            (None, None, (SslMode::Prefer, Trust::Anyone)),
            (Some("disable"), Some("/r"), (SslMode::Disable, Trust::Anyone)),
            (Some("prefer"), Some("/r"), (SslMode::Prefer, Trust::Anyone)),
            (Some("require"), None, (SslMode::Require, Trust::Anyone)),
            (Some("require"), Some("/r"), (SslMode::Require, Trust::Chain(root()))),
            (Some("verify-ca"), Some("system"), (SslMode::Require, Trust::Chain(None))),
            (Some("verify-ca"), Some("/r"), (SslMode::Require, Trust::Chain(root()))),
            (Some("verify-full"), None, (SslMode::Require, Trust::ChainAndName(None))),
            (Some("verify-full"), Some("/r"), (SslMode::Require, Trust::ChainAndName(root()))),
        ] {
            assert_eq!(options(mode, root_cert).meaning().unwrap(), expected, "{mode:?} {root_cert:?}");
        }
        assert!(matches!(options(Some("verify"), None).meaning(), Err(ConnectError::InvalidUrl(_))));
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_its_password() {
        for url in [
            "mysql://u:hunter2@h/d",
            "postgres://u:hunter2@/d",
            "postgres://u:hunter2@h/d?sslmode=sometimes",
            "postgres://u:hunter2@h:99999/d",
            "postgres://u:x@y?hunter2=z@h/d",
            "postgres://u:hunter2@h/d?target_session_attrs=fast",
        ] {
            let error = Target::new(url, &PostgresOptions::default()).err().unwrap();
            assert!(matches!(error, ConnectError::InvalidUrl(_)), "{url}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{url}");
        }
    }

    #[test]
    fn several_hosts_and_their_timeouts() {
        let options = PostgresOptions::default();
        let target = |url| Target::new(url, &options).unwrap();
        let two = target("postgres://u:p@a:1,b:2/d?connect_timeout=4&target_session_attrs=read-write");
        assert_eq!(two.server(), "a:1,b:2");
        assert_eq!(two.config.get_connect_timeout(), Some(&Duration::from_secs(4)));
        assert_eq!(two.patience, Duration::from_secs(8));
        let one = target("postgres://u:p@a/d");
        assert_eq!(one.server(), "a:5432");
        assert_eq!(one.patience, options.connect_timeout);
        assert!(one.config.get_connect_timeout().unwrap() < &one.patience);
    }
}
