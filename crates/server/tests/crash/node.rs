//! The `frontrow` binary as a process that is killed, and started again on the same port.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use frontrow::cli::DatabaseUrl;
use frontrow_testkit::app::SECRET;
use reqwest::Client;
use tempfile::TempDir;
use tokio::time::sleep;

/// How long a node may take until it answers, on a machine that does much else.
const STARTS_WITHIN: Duration = Duration::from_secs(120);

/// A node that can be killed.
pub(crate) struct Node {
    database: String,
    folder: TempDir,
    port: u16,
    client: Client,
    child: Option<Child>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Node {
    pub(crate) fn new(database: &DatabaseUrl) -> Self {
        let database = match database {
            DatabaseUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
            DatabaseUrl::Postgres(url) => url.clone(),
        };
        Self {
            database,
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
            client: Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap(),
            child: None,
            log: Arc::default(),
        }
    }

    pub(crate) fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn command(&self, command: &str) -> Command {
        let mut line = Command::new(env!("CARGO_BIN_EXE_frontrow"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FRONTROW_")) {
            line.env_remove(name);
        }
        line.current_dir(self.folder.path()).arg(command).stdin(Stdio::null());
        // Nothing lapses while it is away.
        line.args(["--hold-seconds", "86400", "--bind", &format!("127.0.0.1:{}", self.port)]);
        // A control is on a database that may lose.
        line.env("FRONTROW_ALLOW_LOSSY_COMMITS", "true");
        line.env("FRONTROW_SECRET", SECRET).env("FRONTROW_DATABASE_URL", &self.database);
        line
    }

    /// Starts it, and does not wait.
    pub(crate) fn spawn(&mut self) {
        let mut serve = self.command("serve");
        let mut child =
            serve.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = self.log.clone();
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| log.lock().unwrap().push(line)));
        self.child = Some(child);
    }

    /// Starts it, and waits until it is ready to work. Says how long that took.
    pub(crate) async fn start(&mut self) -> Duration {
        let begun = Instant::now();
        self.spawn();
        self.becomes_ready().await;
        begun.elapsed()
    }

    /// Waits until it is ready to work. Nobody starts it: it must still run.
    pub(crate) async fn becomes_ready(&mut self) {
        let begun = Instant::now();
        while !self.is_ready().await {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "the node has ended: {ended:?}\n{}", self.last_words());
            assert!(begun.elapsed() < STARTS_WITHIN, "the node is not ready\n{}", self.last_words());
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn is_ready(&self) -> bool {
        let answer = self.client.get(format!("{}/readyz", self.base())).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    /// SIGKILL: it ends where it is.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it can be waited for");
        }
    }

    /// SIGSTOP: it stands still where it is, and keeps its connections. Or SIGCONT, and it goes on.
    pub(crate) fn stand_still(&self, still: bool) {
        let signal = if still { "-STOP" } else { "-CONT" };
        let sent = Command::new("kill").args([signal, &self.process_id()]).output().unwrap();
        assert!(sent.status.success(), "{sent:?}");
    }

    /// The id of its process.
    pub(crate) fn process_id(&self) -> String {
        self.child.as_ref().expect("it runs").id().to_string()
    }

    /// Another command on its database, to its end, whether or not the node runs.
    pub(crate) fn run(&self, command: &str) -> Output {
        self.command(command).output().expect("the binary starts")
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = self.log.lock().unwrap();
        log[log.len().saturating_sub(20)..].join("\n")
    }

    /// What it should never say.
    pub(crate) fn panics(&self) -> Vec<String> {
        self.log.lock().unwrap().iter().filter(|line| line.contains("panicked")).cloned().collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port nobody listens on, below those that systems give to outgoing connections: else one of these could take it
/// while the node is dead.
fn free_port() -> u16 {
    let first = rand::random_range(10_000..20_000);
    let ports = (first..20_000).chain(10_000..first);
    ports.into_iter().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}
