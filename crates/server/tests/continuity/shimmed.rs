//! The `frontrow` binary as a process whose time of day can be stepped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use frontrow::cli::DatabaseUrl;
use frontrow_testkit::app::{Database, SECRET, TestApp};
use tempfile::TempDir;

/// How long a node may take until it listens, on a machine that does much else.
const STARTS_WITHIN: Duration = Duration::from_secs(120);

/// A preloaded library that moves the time of day of a process, and the file that says by how much.
pub(crate) struct Shim {
    folder: TempDir,
}

impl Shim {
    /// Compiles the shim; `None`, said aloud, where there is no C compiler.
    pub(crate) fn compile() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/continuity/shim.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O2", "-o"]).arg(folder.path().join("shim.so")).arg(source);
        match cc.status() {
            Ok(status) => assert!(status.success(), "the shim does not compile"),
            Err(error) => {
                eprintln!("SKIPPED: the shim that steps the clock needs a C compiler: {error}");
                return None;
            }
        }
        let shim = Self { folder };
        shim.step(0);
        Some(shim)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("seconds")
    }

    /// Moves the time of day by so many seconds from what it is.
    pub(crate) fn step(&self, seconds: i64) {
        let written = self.folder.path().join("written");
        std::fs::write(&written, seconds.to_string()).unwrap();
        std::fs::rename(written, self.file()).unwrap();
    }

    /// A program of the operating system, or the binary, under the shim.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FRONTROW_")) {
            command.env_remove(name);
        }
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("LD_PRELOAD", self.folder.path().join("shim.so")).env("CLOCK_SHIM_FILE", self.file());
        command
    }
}

/// A node under a shim.
pub(crate) struct Node {
    pub(crate) app: TestApp,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Node {
    pub(crate) fn start(shim: &Shim, database: &Database) -> Self {
        let url = match database.url() {
            DatabaseUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
            DatabaseUrl::Postgres(url) => url,
        };
        let mut serve = shim.command(env!("CARGO_BIN_EXE_frontrow"));
        serve.args(["serve", "--bind", "127.0.0.1:0"]);
        serve.env("FRONTROW_SECRET", SECRET).env("FRONTROW_DATABASE_URL", url);
        // The tests' own server writes without waiting for the disk.
        serve.env("FRONTROW_ALLOW_LOSSY_COMMITS", "true");
        let mut child =
            serve.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, addresses) = channel();
        let log = Arc::<Mutex<String>>::default();
        let written = log.clone();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("listening on http://") {
                    let end = address.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit());
                    let _ = sender.send(address[..end.unwrap_or(address.len())].to_owned());
                }
                *written.lock().unwrap() += &format!("{line}\n");
            }
        });
        let address = Self::address(&addresses, &log);
        Self { app: TestApp::at(&address), child, log }
    }

    fn address(addresses: &Receiver<String>, log: &Mutex<String>) -> String {
        let address = addresses.recv_timeout(STARTS_WITHIN);
        address.unwrap_or_else(|_| panic!("the node does not listen: {}", log.lock().unwrap()))
    }

    pub(crate) fn has_logged(&self, text: &str) -> bool {
        self.log.lock().unwrap().contains(text)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{}", self.log.lock().unwrap());
        }
    }
}
