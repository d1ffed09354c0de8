//! The throw-away PostgreSQL itself.
//!
//! Some tests need processes that may be killed or watched: they start this test binary again and have it run
//! one test, which sees in its environment that it is the child.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking; a child process reports on its standard output"
)]

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use frontrow_testkit::postgres::{
    Cluster, Programs, Template, TestDatabase, database, found_or_skipped, search_list,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Set for a child process. Its value is a file to which each preparation of the template adds one byte.
const CHILD: &str = "FRONTROW_TESTKIT_CHILD";

async fn run(url: &str, sql: &str) -> anyhow::Result<()> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    client.batch_execute(sql).await?;
    drop(client);
    Ok(connection.await??)
}

/// One table with one row.
fn template(name: &str) -> Template {
    Template::new(name, |url| async move { run(&url, "CREATE TABLE item AS SELECT 1 AS id").await })
}

async fn count(database: &TestDatabase) -> i64 {
    database.query_i64("SELECT count(*) FROM item").await.unwrap()
}

/// Waits until the condition holds, at most 20 s.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test]
async fn a_copy_has_what_the_template_has_and_is_its_own() {
    let template = template("isolation");
    let Some(first) = database(&template).await else { return };
    let second = database(&template).await.unwrap();

    first.execute("INSERT INTO item VALUES (2), (3)").await.unwrap();

    assert_eq!((count(&first).await, count(&second).await), (3, 1));
    assert_eq!(count(&database(&template).await.unwrap()).await, 1, "the template itself is untouched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_prepared_once_however_many_ask_at_once() {
    let prepared = Arc::new(AtomicUsize::new(0));
    let counter = prepared.clone();
    let template = Arc::new(Template::new("once", move |url| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move { run(&url, "CREATE TABLE item AS SELECT 1 AS id").await }
    }));
    if database(&template).await.is_none() {
        return;
    }
    let asking: Vec<_> = (0..6)
        .map(|_| {
            let template = template.clone();
            tokio::spawn(async move { count(&database(&template).await.unwrap()).await })
        })
        .collect();
    for asked in asking {
        assert_eq!(asked.await.unwrap(), 1);
    }
    assert_eq!(prepared.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_left_open_by_the_preparation_does_not_stop_copies() {
    let template = Template::new("left_open", |url| async move {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute("CREATE TABLE item AS SELECT 1 AS id").await?;
        std::mem::forget(client);
        Ok(())
    });
    let Some(database) = database(&template).await else { return };
    assert_eq!(count(&database).await, 1);
}

#[tokio::test]
async fn a_failed_preparation_is_repeated_from_an_empty_database() {
    let tried = Arc::new(AtomicUsize::new(0));
    let counter = tried.clone();
    let template = Arc::new(Template::new("second_try", move |url| {
        let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            run(&url, "CREATE TABLE item AS SELECT 1 AS id").await?;
            anyhow::ensure!(!first, "interrupted");
            Ok(())
        }
    }));
    let Some(_cluster) = Cluster::shared().await else { return };
    let failing = template.clone();
    let failed = tokio::spawn(async move { database(&failing).await.is_some() }).await;
    assert!(failed.unwrap_err().is_panic());
    assert_eq!(count(&database(&template).await.unwrap()).await, 1);
    assert_eq!(tried.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn dropping_removes_the_database_even_in_use() {
    let template = template("dropping");
    let Some(watcher) = database(&template).await else { return };
    let dropped = database(&template).await.unwrap();
    let there = format!("SELECT count(*) FROM pg_database WHERE datname = '{}'", dropped.name());
    let in_use = dropped.connect().await.unwrap();
    assert_eq!(watcher.query_i64(&there).await.unwrap(), 1);

    drop(dropped);

    assert_eq!(watcher.query_i64(&there).await.unwrap(), 0);
    assert!(in_use.batch_execute("SELECT 1").await.is_err());
}

#[tokio::test]
async fn a_statement_that_the_database_refuses_is_an_error_and_no_panic() {
    let Some(database) = database(&template("refusal")).await else { return };
    assert!(database.execute("INSERT INTO item VALUES (1); no sql").await.is_err());
    assert!(database.query_i64("SELECT 1::bigint WHERE false").await.is_err());
    assert_eq!(count(&database).await, 1);
}

/// Connects with TLS, the server's name checked, and asks the server whether it sees TLS too.
async fn over_tls(url: &str, host: &str, roots: RootCertStore) -> anyhow::Result<bool> {
    let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let mut config: tokio_postgres::Config = url.replace("127.0.0.1", host).parse()?;
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await?;
    tokio::spawn(connection);
    let row = client.query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await?;
    Ok(row.try_get(0)?)
}

#[tokio::test]
async fn tls_is_offered_with_a_certificate_that_the_root_proves() {
    let Some(cluster) = Cluster::shared().await else { return };
    let Some(root) = cluster.root_cert_path() else { return };
    let database = cluster.database(&template("tls")).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();

    assert!(over_tls(database.url(), "127.0.0.1", roots.clone()).await.unwrap());
    assert!(over_tls(database.url(), "localhost", roots).await.unwrap());
    assert!(over_tls(database.url(), "127.0.0.1", RootCertStore::empty()).await.is_err());
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let Some(cluster) = Cluster::shared().await else { return };
    if cluster.root_cert_path().is_none() {
        return; // Not our server: it may trust anybody.
    }
    let database = cluster.database(&template("password")).await;
    run(database.url(), "SELECT 1").await.unwrap();
    let wrong = database.url().replacen("@127", "x@127", 1);
    assert!(run(&wrong, "SELECT 1").await.is_err());
}

#[tokio::test]
async fn a_private_cluster_keeps_what_was_committed_over_a_crash_and_goes_when_dropped() {
    let Some(cluster) = Cluster::start_private().await else { return };
    let directory = cluster.directory().unwrap().to_owned();
    let database = cluster.database(&template("private")).await;
    assert_eq!(
        database
            .query_i64("SELECT count(*) FROM pg_settings WHERE name = 'fsync' AND setting = 'on'")
            .await
            .unwrap(),
        1
    );
    database.execute("INSERT INTO item VALUES (2)").await.unwrap();

    cluster.stop_immediate().await;
    assert!(database.connect().await.is_err());
    cluster.start().await;
    assert_eq!(count(&database).await, 2);

    drop(database);
    drop(cluster);
    assert!(!directory.exists());
}

/// This binary again, running one test as a child in an environment without a given server.
fn child(test: &str, prepared: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, prepared)
        .env_remove("FRONTROW_TEST_POSTGRES_URL")
        .env_remove("FRONTROW_REQUIRE_POSTGRES")
        .stdin(Stdio::null());
    command
}

/// A child process that has a database and keeps it until it is killed.
struct DatabaseUser {
    process: Child,
    directory: PathBuf,
    url: String,
}

impl DatabaseUser {
    fn start(prepared: &Path) -> Self {
        let test = "the_cluster_is_shared_by_processes_and_goes_with_the_last_even_if_it_is_killed";
        let mut process = child(test, prepared).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        // The harness may have begun the line.
        let said = |line: String| line.split_once("USING ").map(|(_, said)| said.to_owned());
        let said = { lines }.find_map(said).expect("the child has a database");
        let (directory, url) = said.split_once(' ').unwrap();
        Self { process, directory: directory.into(), url: url.to_owned() }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    async fn connects(&self) -> bool {
        run(&self.url, "SELECT FROM item").await.is_ok()
    }
}

impl Drop for DatabaseUser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the child does: it gets a database, says so, and waits to be killed.
async fn use_a_database(prepared: PathBuf) {
    let template = Template::new("shared", move |url| {
        let before = fs::read(&prepared).unwrap_or_default();
        fs::write(&prepared, [before, vec![b'.']].concat()).unwrap();
        async move { run(&url, "CREATE TABLE item AS SELECT 1 AS id").await }
    });
    let database = database(&template).await.expect("the parent has found a PostgreSQL");
    let cluster = Cluster::shared().await.unwrap();
    println!("USING {} {}", cluster.directory().unwrap().display(), database.url());
    tokio::time::sleep(Duration::from_secs(120)).await;
}

#[tokio::test]
async fn the_cluster_is_shared_by_processes_and_goes_with_the_last_even_if_it_is_killed() {
    if let Some(prepared) = env::var_os(CHILD) {
        return use_a_database(prepared.into()).await;
    }
    if found_or_skipped(Programs::find(search_list()), false).is_none() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let prepared = scratch.path().join("prepared");
    let mut first = DatabaseUser::start(&prepared);
    let mut second = DatabaseUser::start(&prepared);
    assert_eq!(first.directory, second.directory);
    assert_ne!(first.url, second.url);
    assert_eq!(fs::read(&prepared).unwrap(), b".", "one template for both processes");

    first.kill();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(second.connects().await, "the second process still uses the cluster");

    let postmaster = fs::read_to_string(first.directory.join("data/postmaster.pid")).unwrap();
    let port: u16 = postmaster.lines().nth(3).unwrap().parse().unwrap();
    second.kill();
    eventually("the directory is removed", || !second.directory.exists());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "the server is stopped");
}

#[test]
fn programs_are_taken_from_the_first_directory_that_holds_them_all() {
    let scratch = tempfile::tempdir().unwrap();
    let make = |directory: &str, names: &[&str], mode: u32| {
        let directory = scratch.path().join(directory);
        fs::create_dir(&directory).unwrap();
        for name in names {
            fs::write(directory.join(name), "").unwrap();
            fs::set_permissions(directory.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        directory
    };
    let all = ["initdb", "postgres", "pg_ctl"];
    let unusable = [
        scratch.path().join("missing"),
        make("empty", &[], 0o755),
        make("client", &["psql", "pg_ctl"], 0o755),
        make("odd", &["postgres"], 0o755),
        make("not executable", &all, 0o644),
    ];
    let (usable, later) = (make("usable", &all, 0o755), make("later", &all, 0o755));

    assert_eq!(Programs::find(unusable.clone()), None);
    let list = unusable.into_iter().chain([usable.clone(), later.clone()]);
    assert_eq!(Programs::find(list), Programs::find([usable.clone()]));
    assert_ne!(Programs::find([usable]), Programs::find([later]));
}

#[test]
#[should_panic(expected = "FRONTROW_REQUIRE_POSTGRES is set")]
fn a_missing_postgresql_that_is_required_fails() {
    let _ = found_or_skipped(Programs::find([]), true);
}

#[test]
fn a_missing_postgresql_is_said_once_and_past_the_test_harness() {
    if env::var_os(CHILD).is_some() {
        assert_eq!(found_or_skipped(Programs::find([]), false), None);
        assert_eq!(found_or_skipped(Programs::find([]), false), None);
        return;
    }
    let mut command = Command::new(env::current_exe().unwrap());
    let output = command
        .args(["--exact", "a_missing_postgresql_is_said_once_and_past_the_test_harness"])
        .env(CHILD, "")
        .output()
        .unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.matches("PostgreSQL tests skipped: ").count(), 1, "{said}");
}
