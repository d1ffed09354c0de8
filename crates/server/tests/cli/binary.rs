//! Runs the binary: to its end, or as a server until it is told to stop.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The longest a command may take.
const IN_TIME: Duration = Duration::from_secs(180);

/// What a command has said.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn command(folder: &Path, args: &str, env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_frontrow"));
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("FRONTROW_") || name == "RUST_BACKTRACE")
    {
        command.env_remove(name);
    }
    // The PostgreSQL of tests is fast, not durable.
    command.env("FRONTROW_ALLOW_LOSSY_COMMITS", "true");
    command.current_dir(folder).args(args.split_whitespace()).envs(env.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end, in a folder, with arguments separated by blanks.
pub(crate) fn run(folder: &Path, args: &str, env: &[(&str, &str)]) -> Output {
    let mut child = Killed(command(folder, args, env).spawn().expect("the binary starts"));
    let (stdout, stderr) = (read(child.0.stdout.take().unwrap()), read(child.0.stderr.take().unwrap()));
    let code = child.wait(args);
    Output { code, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn read(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).expect("it speaks UTF-8");
        text
    })
}

/// Starts a process that runs on, on a port of its own, with standard error as it is given.
pub(crate) fn start(mut command: Command, stderr: impl Into<Stdio>) -> (Killed, String) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    command.args(["--bind", &free.to_string()]).stdout(Stdio::null()).stderr(stderr);
    (Killed(command.spawn().expect("the binary starts")), free.to_string())
}

/// A process that does not outlive its test.
pub(crate) struct Killed(Child);

impl Killed {
    /// Sends a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.0.try_wait().expect("it can be waited for").is_none()
    }

    /// Waits for its end, and gives its exit code.
    pub(crate) fn wait(&mut self, what: &str) -> Option<i32> {
        let deadline = Instant::now() + IN_TIME;
        loop {
            if let Some(status) = self.0.try_wait().expect("it can be waited for") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "`frontrow {what}` does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that runs, on a port of its own choice.
pub(crate) struct Serving {
    /// `host:port`.
    pub(crate) address: String,
    child: Killed,
    lines: Receiver<String>,
    log: String,
}

impl Serving {
    /// Starts it and waits until it listens.
    pub(crate) fn start(folder: &Path, args: &str, env: &[(&str, &str)]) -> Self {
        let mut child = Killed(command(folder, &format!("{args} --bind 127.0.0.1:0"), env).spawn().unwrap());
        let stderr = BufReader::new(child.0.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stderr.lines() {
                let _ = sender.send(line.expect("it speaks UTF-8"));
            }
        });
        let mut log = String::new();
        let address = loop {
            let line = lines.recv_timeout(IN_TIME).unwrap_or_else(|_| panic!("it does not listen: {log}"));
            log.push_str(&line);
            log.push('\n');
            if let Some((_, address)) = line.split_once("listening on http://") {
                break address.trim_end_matches(|c: char| !c.is_ascii_digit()).to_owned();
            }
        };
        let address =
            address.split(|c: char| c != '.' && c != ':' && !c.is_ascii_digit()).next().unwrap().to_owned();
        Self { address, child, lines, log }
    }

    /// Kills it (SIGKILL), as a crash does, and gives what it logged.
    pub(crate) fn kill(mut self) -> String {
        self.child.0.kill().expect("it can be killed");
        self.child.wait("serve");
        for line in self.lines.iter() {
            self.log.push_str(&line);
            self.log.push('\n');
        }
        std::mem::take(&mut self.log)
    }

    /// Tells it to stop, as an operator does, and gives its exit code and log.
    pub(crate) fn stop(self) -> (Option<i32>, String) {
        self.stop_by("-TERM")
    }

    /// Sends it a signal that stops it, and gives its exit code and log.
    pub(crate) fn stop_by(mut self, signal: &str) -> (Option<i32>, String) {
        self.child.signal(signal);
        let code = self.child.wait("serve");
        for line in self.lines.iter() {
            self.log.push_str(&line);
            self.log.push('\n');
        }
        (code, std::mem::take(&mut self.log))
    }
}
