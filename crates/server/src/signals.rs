//! Signals that stop the process in order: SIGTERM, SIGINT, and SIGHUP of a terminal that ends.

use std::fs;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The bit of SIGHUP, which is signal 1, in a mask of signals.
const HANGUP_BIT: u64 = 1;

/// The signals, listened for from the moment it is made: one that arrives before it is waited for is not missed.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl StopSignals {
    /// Listens for SIGTERM and SIGINT, and for SIGHUP unless the process was started to ignore it, as `nohup` does.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> Result<Self> {
        // Asked first: to listen for a signal ends that it is ignored.
        let keeps_running =
            fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status));
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: if keeps_running { None } else { Some(listen(SignalKind::hangup())?) },
        })
    }

    /// Waits for one of them.
    pub async fn received(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

/// Whether a process with this `/proc/PID/status` ignores SIGHUP.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & HANGUP_BIT != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_hangup_is_read_from_the_mask() {
        let status = |mask: &str| format!("Name:\tfrontrow\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        assert!(ignores_hangup(&status("0000000000000001")));
        assert!(ignores_hangup(&status("0000000000001003")));
        assert!(!ignores_hangup(&status("0000000000001000")));
        assert!(!ignores_hangup("") && !ignores_hangup(&status("x")));
    }
}
