//! A PgBouncer in front of a test's database.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::database::TestDatabase;
use super::keeper::{ServerUser, free_port, hand_over};
use crate::is_required;

const START_PATIENCE: Duration = Duration::from_secs(30);
/// Debian's place, which is in no user's `PATH`.
const DEBIAN: &str = "/usr/sbin/pgbouncer";

/// What a client of the pooler keeps for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// A session of the server, until it disconnects.
    Session,
    /// A session until the end of its transaction.
    Transaction,
    /// A session until the end of its statement.
    Statement,
}

/// A running PgBouncer. It ends when the value is dropped.
#[derive(Debug)]
pub struct Pooler {
    url: String,
    child: Child,
    _folder: TempDir,
}

impl Pooler {
    /// Starts one in front of a database. `None`, said once on standard error, where there is none.
    ///
    /// # Panics
    /// If there is none although `FRONTROW_REQUIRE_POSTGRES` is set, or if it does not start.
    #[must_use]
    pub fn start(database: &TestDatabase, mode: PoolMode, settings: &str) -> Option<Self> {
        let program = found_or_skipped(is_required("FRONTROW_REQUIRE_POSTGRES"))?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let owner = ServerUser::needed(folder.path()).expect("a user for servers");
        let port = free_port().expect("a free port");
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, configuration(database.url(), port, mode, settings)).expect("a file");
        for path in [folder.path(), &file] {
            hand_over(path, owner.as_ref()).expect("another owner");
        }
        let mut command = Command::new(program);
        command.arg("-q").arg(&file).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(user) = &owner {
            command.gid(user.gid).uid(user.uid);
        }
        let child = command.spawn().expect("PgBouncer starts");
        let name = database.name();
        let pooler =
            Self { url: format!("postgres://frontrow@127.0.0.1:{port}/{name}"), child, _folder: folder };
        let deadline = Instant::now() + START_PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "PgBouncer does not listen");
            thread::sleep(Duration::from_millis(10));
        }
        Some(pooler)
    }

    /// The URL of the database by way of the pooler.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(url: &str, port: u16, mode: PoolMode, settings: &str) -> String {
    let (user, server) = url.split_once("://").and_then(|(_, rest)| rest.split_once('@')).expect("a user");
    let (user, password) = user.split_once(':').expect("a password");
    let (host, _) = server.split_once('/').expect("a database");
    let (host, server_port) = host.split_once(':').expect("a port");
    let mode = match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    };
    format!(
        "[databases]\n\
         * = host={host} port={server_port} user={user} password={password}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = any\n\
         pool_mode = {mode}\n\
         default_pool_size = 40\n\
         max_client_conn = 200\n\
         {settings}\n"
    )
}

fn found_or_skipped(required: bool) -> Option<PathBuf> {
    static SAID: Once = Once::new();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::split_paths(&path).map(|folder| folder.join("pgbouncer"));
    let found = named.chain([PathBuf::from(DEBIAN)]).find(|program| Path::is_file(program));
    if found.is_none() {
        assert!(
            !required,
            "FRONTROW_REQUIRE_POSTGRES is set, but there is no pgbouncer (looked in PATH, {DEBIAN})"
        );
        // Not `eprintln!`, which the test harness captures and shows for failed tests only.
        SAID.call_once(|| {
            let _ = writeln!(std::io::stderr(), "PgBouncer tests skipped: there is no pgbouncer");
        });
    }
    found
}
