//! Logging to standard error, best effort: a broken, full or stalled output costs lines and nothing else (ADR 0016).
//!
//! Events pass a filter that limits repeated warnings (`repeats`), are formatted on the thread that logs, and wait in a
//! bounded queue for one writer thread (`sink`). A panic is an event as well: the standard hook would write to standard
//! error itself, and block on a stalled pipe.

mod repeats;
mod sink;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::thread;

use anyhow::{Context, Result, anyhow};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, registry};

use self::repeats::Repeats;
use self::sink::Sink;
use crate::cli::LogFormat;

/// The environment variable that filters the log.
const FILTER: &str = "FRONTROW_LOG";
/// The target of lines that the log writes about itself.
const TARGET: &str = "frontrow::log";

/// The log of the process.
pub struct Log {
    sink: Sink,
}

impl Log {
    /// Starts the log, filtered by `FRONTROW_LOG` or else by `default`.
    ///
    /// # Errors
    /// When `FRONTROW_LOG` is not a filter, or the system provides no thread.
    pub fn start(format: LogFormat, default: &str) -> Result<Self> {
        let filter = if std::env::var_os(FILTER).is_some() {
            let filter = EnvFilter::try_from_env(FILTER);
            filter.map_err(|error| anyhow!("{FILTER} is like info or warn,frontrow=debug: {error}"))?
        } else {
            EnvFilter::new(default)
        };
        let repeats = Repeats::default();
        let reported = repeats.clone();
        let sink = Sink::start(std::io::stderr(), report_loss, move || reported.report());
        let sink = sink.context("cannot start the log")?;
        let layer = fmt::layer().with_writer(sink.clone()).log_internal_errors(false);
        let filtered = registry().with(filter).with(repeats);
        match format {
            LogFormat::Text => filtered.with(layer).init(),
            LogFormat::Json => filtered.with(layer.json()).init(),
        }
        panic::set_hook(Box::new(log_panic));
        Ok(Self { sink })
    }

    /// Writes a line as it is, whatever the filter says.
    pub fn say(&self, line: &str) {
        self.sink.push(format!("{line}\n").into_bytes());
    }

    /// Writes what is queued, within a bound.
    pub fn end(self) {
        self.sink.flush();
    }
}

/// Reports lost lines once writing works again.
fn report_loss(lost: u64, in_all: u64) {
    tracing::warn!(target: TARGET, lost, in_all, "lines of the log were lost: the output failed or was too slow");
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let current = thread::current();
    let thread = current.name().unwrap_or("unnamed");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let message = info.payload_as_str().unwrap_or("not a text");
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(thread, location, backtrace, "panicked: {message}");
}
