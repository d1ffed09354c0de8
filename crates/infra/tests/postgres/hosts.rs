//! Several hosts in the URL: silent ones, standbys, and a primary that moves.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use frontrow_domain::UserId;
use frontrow_domain::ports::StorageHealth;
use frontrow_infra::Storage;
use frontrow_infra::postgres::{ConnectError, Postgres, PostgresOptions, audit};
use frontrow_testkit::postgres::{Cluster, TestDatabase, database};
use futures_util::future::join_all;

use crate::fixture::{Fixture, at, money};
use crate::{MIGRATED, options, told};

/// Long enough for a slow machine, and much longer than a silent host may cost.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A host that accepts connections and never answers.
struct Mute(TcpListener);

impl Mute {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn host(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    /// How many connections have come since the last call.
    fn connections(&self) -> usize {
        let mut count = 0;
        loop {
            match self.0.accept() {
                Ok(_) => count += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// The URL of a database whose hosts are these instead.
fn on_hosts(database: &TestDatabase, hosts: &[&str]) -> String {
    let url = database.url();
    let (user, server) = url.split_once('@').unwrap();
    let (_, name) = server.split_once('/').unwrap();
    format!("{user}@{}/{name}", hosts.join(","))
}

fn host_of(url: &str) -> &str {
    url.split_once('@').unwrap().1.split_once('/').unwrap().0
}

async fn connect(url: &str) -> Result<Postgres, ConnectError> {
    Postgres::connect(url, PostgresOptions { connect_timeout: CONNECT_TIMEOUT, ..options() }).await
}

fn fixture(postgres: &Postgres) -> Fixture {
    Fixture::new(Storage::new(Arc::new(postgres.clone())), ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_host_delays_no_connection_wherever_it_is() {
    let Some(database) = database(&MIGRATED).await else { return };
    let (mute, other) = (Mute::new(), Mute::new());
    let (silent, silent_too, good) = (mute.host(), other.host(), host_of(database.url()).to_owned());
    for hosts in [
        vec![silent.as_str(), silent_too.as_str(), &good],
        vec![silent.as_str(), &good, silent_too.as_str()],
        vec![good.as_str(), silent.as_str(), silent_too.as_str()],
    ] {
        let begun = Instant::now();
        let postgres = connect(&on_hosts(&database, &hosts)).await.unwrap();
        let took = begun.elapsed();
        assert!(took < CONNECT_TIMEOUT / 3, "{hosts:?} took {took:?}");
        // Later connections begin with the host that was found.
        mute.connections();
        for asked in join_all((0..12).map(|_| postgres.writability())).await {
            asked.unwrap();
        }
        let met = mute.connections();
        assert!(met < 3, "{hosts:?}: the silent host met {met} connections");
    }
    // The control: a silent host alone takes all the time there is.
    let begun = Instant::now();
    let short = PostgresOptions { connect_timeout: Duration::from_secs(2), ..options() };
    let error = Postgres::connect(&on_hosts(&database, &[&silent]), short).await.unwrap_err();
    assert!(begun.elapsed() >= Duration::from_secs(2) && told(&error).contains("no answer"), "{error:?}");
}

#[tokio::test]
async fn an_error_names_the_failure_of_each_host() {
    let Some(database) = database(&MIGRATED).await else { return };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mute = Mute::new().host();
    let short = PostgresOptions { connect_timeout: Duration::from_secs(2), ..options() };
    let url = on_hosts(&database, &[&closed, &mute]);
    let error = Postgres::connect(&url, short).await.unwrap_err();
    let told = told(&error);
    assert!(told.contains(&closed) && told.contains(&mute) && told.contains("refused"), "{told}");
}

/// The number of the adapter's sessions on a server.
async fn sessions_on(url: &str) -> i64 {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'frontrow'";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn execute(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    for statement in sql.split(';') {
        client.batch_execute(statement).await.unwrap();
    }
}

/// A URL without `target_session_attrs` whose first host is a standby; then the standby is promoted, and the
/// old primary stays, and takes no writes.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_that_takes_writes_is_found_and_followed() {
    let Some(first) = Cluster::start_private().await else { return };
    let database = first.database(&MIGRATED).await;
    let second = first.standby().await;
    let primary = database.url().to_owned();
    let standby = second.url_of(database.name());

    let error = connect(&standby).await.unwrap_err();
    assert!(matches!(error, ConnectError::ReadOnly { .. }), "{error:?}");
    let read_only = format!("{primary}?target_session_attrs=read-only");
    assert!(matches!(connect(&read_only).await, Err(ConnectError::InvalidUrl(_))));
    // The control: an audit reads, and a standby serves.
    assert!(audit(&standby).await.unwrap().iter().all(|finding| finding.breaches == 0));
    let error = audit(&read_only).await.unwrap_err();
    assert!(matches!(error, ConnectError::NotReadOnly { .. }), "{error:?}");

    let postgres = connect(&on_hosts(&database, &[host_of(&standby), host_of(&primary)])).await.unwrap();
    let storage = fixture(&postgres);
    let user = storage.id(UserId::new);
    storage.charge(user, 5, at(1)).await;
    for asked in join_all((0..8).map(|_| postgres.writability())).await {
        asked.unwrap();
    }
    assert!(sessions_on(&primary).await > 0);
    assert_eq!(sessions_on(&standby).await, 0);

    // The standby has all of it before it is promoted.
    let caught_up = Instant::now() + Duration::from_secs(60);
    let entries = "SELECT count(*) FROM entries";
    loop {
        let (client, connection) = tokio_postgres::connect(&standby, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        if client.query_one(entries, &[]).await.unwrap().get::<_, i64>(0) == 1 {
            break;
        }
        assert!(Instant::now() < caught_up, "the standby does not follow");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The connections are in use all the time, so that none of them is checked before it is used.
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (postgres, stop) = (postgres.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let _ = postgres.writability().await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        })
        .collect();
    execute(&standby, "SELECT pg_promote()").await;
    execute(&primary, "ALTER SYSTEM SET default_transaction_read_only = on;SELECT pg_reload_conf()").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let recovered = Instant::now() + Duration::from_secs(60);
    let charge = || storage.charge_work(storage.id(UserId::new), None, 7, at(2));
    let mut refused = 0;
    while storage.commit(charge()).await.is_err() {
        refused += 1;
        assert!(Instant::now() < recovered, "the adapter stays with a server that takes no writes");
    }
    assert!(refused <= 3, "each of the old connections had to be found out: {refused}");
    assert_eq!(storage.account(user).await.value.balance, money(5));
    stop.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
    while sessions_on(&primary).await > 0 {
        assert!(Instant::now() < recovered, "connections to the old primary are kept");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    storage.commit(charge()).await.unwrap();
}
