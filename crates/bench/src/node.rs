//! A server under load: the release binary as a process of its own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::http::{Answer, request};

/// How long a server may take to answer for the first time.
const START_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// A running server. Dropping it stops it.
pub(crate) struct Node {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// From the start of the process to its first 200.
    pub(crate) started_in: Duration,
}

impl Node {
    /// Starts `command`, to which `bind` gives the address to listen on, and waits for the first 200 of `path`.
    ///
    /// # Errors
    /// With the server's log, when it ends or does not answer.
    pub(crate) fn start(
        mut command: Command,
        bind: impl FnOnce(&mut Command, SocketAddr),
        path: &str,
        log: &Path,
    ) -> Result<Self> {
        let address = free_address()?;
        bind(&mut command, address);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(log)?);
        let begin = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot run {:?}", command.get_program()))?;
        let mut node = Self { child, address, started_in: Duration::ZERO };
        while !answers(address, path)? {
            if node.child.try_wait()?.is_some() || begin.elapsed() > START_WITHIN {
                bail!("the server did not start:\n{}", fs::read_to_string(log)?);
            }
            thread::sleep(Duration::from_millis(1));
        }
        node.started_in = begin.elapsed();
        Ok(node)
    }

    /// The id of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops the server as an operator does, and waits until it is gone.
    fn stop(&mut self) -> Result<()> {
        let mut kill = Command::new("kill");
        kill.arg("-TERM").arg(self.child.id().to_string()).status()?;
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begin.elapsed() > STOP_WITHIN {
                self.child.kill()?;
                self.child.wait()?;
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.stop().is_err() {
            let _ = self.child.kill();
        }
    }
}

/// A file's worth of bytes, fetched once.
///
/// # Errors
/// Anything but a 200.
pub(crate) fn fetch(address: SocketAddr, request: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request)?;
    let (mut answer, mut all, mut buffer) = (Answer::default(), Vec::new(), vec![0; 64 * 1_024]);
    loop {
        let read = stream.read(&mut buffer)?;
        let bytes = buffer.get(..read).filter(|bytes| !bytes.is_empty()).context("the server hung up")?;
        all.extend_from_slice(bytes);
        if answer.feed(bytes)? {
            break;
        }
    }
    if answer.status() != 200 {
        bail!("an answer that was not expected: {}", answer.shown());
    }
    let body = all.len() - usize::try_from(answer.body_bytes())?;
    Ok(all.split_off(body))
}

/// Whether the server answers 200; false while nobody listens.
fn answers(address: SocketAddr, path: &str) -> Result<bool> {
    let Ok(mut stream) = TcpStream::connect(address) else { return Ok(false) };
    stream.set_read_timeout(Some(START_WITHIN))?;
    stream.write_all(&request("GET", path, &[], None))?;
    let mut start = [0; 12];
    Ok(stream.read_exact(&mut start).is_ok() && start.ends_with(b" 200"))
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Where the log of a server goes.
pub(crate) fn log_in(directory: &Path) -> PathBuf {
    directory.join("server.log")
}
