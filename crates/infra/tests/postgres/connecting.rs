//! How connections are made: TLS, settings, several hosts, and errors.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use frontrow_domain::ports::{Clock, StorageHealth, Writability};
use frontrow_infra::clock::{Policy, SystemClock};
use frontrow_infra::postgres::{ConnectError, Postgres, PostgresOptions};
use frontrow_testkit::postgres::{Cluster, TestDatabase, database};

use crate::{EMPTY, MIGRATED, Opened, options, told};

/// The database's URL with other options.
fn with(database: &TestDatabase, options: &str) -> String {
    let url = database.url();
    format!("{url}{}{options}", if url.contains('?') { "&" } else { "?" })
}

async fn connect(url: &str) -> Result<Postgres, ConnectError> {
    Postgres::connect(url, options()).await
}

/// How many TLS sessions the adapter has.
async fn encrypted(database: &TestDatabase) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
               WHERE datname = current_database() AND application_name = 'frontrow' AND ssl";
    database.query_i64(sql).await.unwrap()
}

/// A database on the shared cluster, and the certificate to trust for it.
async fn with_certificate() -> Option<(TestDatabase, String)> {
    let cluster = Cluster::shared().await?;
    let root = cluster.root_cert_path()?.to_str().unwrap().to_owned();
    Some((cluster.database(&MIGRATED).await, root))
}

#[tokio::test]
async fn sslmode_disable_does_not_encrypt() {
    let Some((database, _)) = with_certificate().await else { return };
    let postgres = connect(&with(&database, "sslmode=disable")).await.unwrap();
    assert_eq!(encrypted(&database).await, 0);
    postgres.writability().await.unwrap();
}

#[tokio::test]
async fn sslmodes_that_encrypt() {
    let Some((database, root)) = with_certificate().await else { return };
    for options in [
        "sslmode=prefer".to_owned(),
        "sslmode=require".to_owned(),
        format!("sslmode=verify-ca&sslrootcert={root}"),
        format!("sslmode=verify-full&sslrootcert={}", root.replace('/', "%2F")),
    ] {
        let postgres = connect(&with(&database, &options)).await.unwrap();
        assert_eq!(encrypted(&database).await, 1, "{options}");
        drop(postgres);
        while encrypted(&database).await > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A certificate authority that has signed nothing here.
fn stranger(directory: &Path) -> String {
    let path = directory.join("stranger.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    std::fs::write(&path, authority.self_signed(&key).unwrap().pem()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_server_that_is_not_trusted_is_refused() {
    let Some((database, _)) = with_certificate().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let stranger = stranger(directory.path());
    for options in [
        format!("sslmode=verify-full&sslrootcert={stranger}"),
        format!("sslmode=verify-ca&sslrootcert={stranger}"),
        format!("sslmode=require&sslrootcert={stranger}"),
        "sslmode=verify-full".to_owned(),
    ] {
        let error = connect(&with(&database, &options)).await.unwrap_err();
        let refused = matches!(error, ConnectError::Unreachable { .. } | ConnectError::RootCertificates(_));
        assert!(refused && told(&error).contains("certificate"), "{options}: {}", told(&error));
    }
    let missing =
        connect(&with(&database, "sslmode=verify-full&sslrootcert=/no/such/file")).await.unwrap_err();
    assert!(matches!(missing, ConnectError::RootCertificates(_)), "{missing:?}");
}

/// The server's certificate names `localhost` and 127.0.0.1, and not the rest of the loopback network.
#[tokio::test]
async fn verify_full_looks_at_the_name_and_verify_ca_does_not() {
    let Some((database, root)) = with_certificate().await else { return };
    let elsewhere = with(&database, &format!("hostaddr=127.0.0.1&sslrootcert={root}")).replacen(
        "@127.0.0.1",
        "@another.example",
        1,
    );
    connect(&format!("{elsewhere}&sslmode=verify-ca")).await.unwrap();
    let error = connect(&format!("{elsewhere}&sslmode=verify-full")).await.unwrap_err();
    assert!(told(&error).contains("not valid for name"), "{}", told(&error));
}

#[tokio::test]
async fn an_unreachable_server_is_told_quickly_and_without_the_password() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // Takes connections and never says a word.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    for port in [closed, mute.local_addr().unwrap().port()] {
        let options = PostgresOptions { connect_timeout: Duration::from_secs(2), ..options() };
        let url = format!("postgres://frontrow:hunter2@127.0.0.1:{port}/frontrow");
        let started = Instant::now();
        let error = Postgres::connect(&url, options).await.unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
        let told = format!("{} {error:?}", told(&error));
        assert!(told.contains(&format!("127.0.0.1:{port}")) && !told.contains("hunter2"), "{told}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_without_it() {
    let Some(database) = database(&MIGRATED).await else { return };
    let url = database.url();
    let (user, server) = url.split_once('@').unwrap();
    let (user, _) = user.rsplit_once(':').unwrap();
    let error = connect(&format!("{user}:hunter2@{server}")).await.unwrap_err();
    let told = format!("{} {error:?}", told(&error));
    assert!(told.contains("password authentication failed") && !told.contains("hunter2"), "{told}");
}

#[tokio::test]
async fn a_schema_that_is_behind_is_refused() {
    let Some(database) = database(&EMPTY).await else { return };
    let error = connect(database.url()).await.unwrap_err();
    let ConnectError::SchemaBehind { missing } = error else { panic!("{error:?}") };
    assert!(missing.contains("purchase"), "{missing}");
}

#[tokio::test]
async fn the_first_host_that_takes_writes_is_used() {
    let Some(database) = database(&MIGRATED).await else { return };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = with(&database, "target_session_attrs=read-write&connect_timeout=2");
    let (user, server) = url.split_once('@').unwrap();
    let postgres = connect(&format!("{user}@127.0.0.1:{closed},{server}")).await.unwrap();
    postgres.writability().await.unwrap();
}

/// Looks at a session of the adapter from inside, by way of a trigger on one of its writes.
#[tokio::test]
async fn every_session_has_the_settings() {
    let Some(opened) = Opened::new(options()).await else { return };
    let spy = "CREATE TABLE seen (name TEXT, setting TEXT); \
        CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
            INSERT INTO seen SELECT name, setting FROM pg_settings; RETURN NULL; END $$; \
        CREATE TRIGGER spy AFTER INSERT ON rooms EXECUTE FUNCTION spy()";
    opened.database.execute(spy).await.unwrap();
    opened.fixture().default_room().await;
    let client = opened.database.connect().await.unwrap();
    for (name, expected) in [
        ("application_name", "frontrow"),
        ("lc_messages", "C"),
        ("TimeZone", "UTC"),
        // That of a committer's transactions.
        ("lock_timeout", "100"),
        ("statement_timeout", "8000"),
        ("idle_in_transaction_session_timeout", "8000"),
        ("default_transaction_isolation", "read committed"),
        ("transaction_isolation", "read committed"),
    ] {
        let row = client.query_one("SELECT setting FROM seen WHERE name = $1", &[&name]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), expected, "{name}");
    }
}

/// Only a superuser may choose the language of messages.
#[tokio::test]
async fn a_plain_role_is_enough() {
    let Some(database) = database(&MIGRATED).await else { return };
    let role = format!("plain_{}", database.name());
    let grant = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'plain'; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"
    );
    database.execute(&grant).await.unwrap();
    let (_, server) = database.url().split_once('@').unwrap();
    let postgres = connect(&format!("postgres://{role}:plain@{server}")).await;
    let pinged = match &postgres {
        Ok(postgres) => postgres.writability().await.map_err(|error| told(&error)),
        Err(error) => Err(told(error)),
    };
    drop(postgres);
    database.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
    assert_eq!(pinged.unwrap(), Writability::Writable);
}

#[tokio::test]
async fn a_reading_leads_to_the_clock_of_the_database() {
    let Some(opened) = Opened::new(options()).await else { return };
    let micros = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT";
    let before = opened.database.query_i64(micros).await.unwrap();
    let reading = opened.postgres.read_clock().await.unwrap();
    let now = SystemClock::following(Policy::DATABASE, reading).now().unix_micros();
    let after = opened.database.query_i64(micros).await.unwrap();
    // Half a round trip is taken off, which may be too much or too little.
    assert!((before - 1_000_000..=after + 1_000_000).contains(&now), "{before} {now} {after}");
}
