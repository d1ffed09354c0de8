//! The bench of frontrow: `just bench`. docs/PERFORMANCE.md says what is measured and how to read it.
//!
//! It starts everything it needs, measures its subjects in turn, round by round, and prints one table. It is no part of
//! the product: nothing depends on it.

mod bars;
mod bench;
mod database;
mod http;
mod load;
mod node;
mod report;
mod seed;
mod stats;
mod usage;

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use actix_files::NamedFile;
use actix_web::{App, HttpServer, web};
use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use frontrow_domain::ports::Clock;
use frontrow_infra::identity::SystemClock;
use serde_json::{Value, json};

use crate::bars::{Bar, Stores};
use crate::bench::Bench;
use crate::report::Report;

/// Measures frontrow against itself and its databases, in ratios
#[derive(Debug, Parser)]
#[command(name = "frontrow-bench", about)]
struct Cli {
    #[command(subcommand)]
    task: Option<Task>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Serves one file: what the seat map is compared with
    #[command(hide = true)]
    ServeFile {
        /// The file
        path: PathBuf,
        /// Where to listen
        address: String,
    },
}

#[derive(Debug, Clone, Args)]
struct Options {
    /// Only these bars, such as `P1,P4`
    #[arg(long, value_enum, value_delimiter = ',', ignore_case = true)]
    only: Vec<Bar>,
    /// How often everything is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each subject is measured a round, in seconds
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Where the figures go
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Where SQLite files go for the time of the run: on the disk that is to be measured
    #[arg(long, default_value = "target")]
    directory: PathBuf,
    /// The program to measure [default: beside this one]
    #[arg(long)]
    frontrow: Option<PathBuf>,
}

impl Options {
    /// What is not measured at the beginning of a run.
    fn warm_up(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    fn bars(&self) -> Vec<Bar> {
        let mut bars = if self.only.is_empty() { Bar::value_variants().to_vec() } else { self.only.clone() };
        if self.only.is_empty() {
            bars.retain(|bar| !matches!(bar, Bar::Storm | Bar::Audit));
        }
        bars.sort();
        bars.dedup();
        // P5 has the figures of P8 with it.
        if bars.contains(&Bar::P5) {
            bars.retain(|bar| *bar != Bar::P8);
        }
        bars
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.task {
        Some(Task::ServeFile { path, address }) => serve_file(path, &address),
        None => run(cli.options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    let (bars, rounds, json) = (options.bars(), options.rounds, options.json.clone());
    let about = about(&options)?;
    let bench = Bench::new(options)?;
    let (mut stores, mut report) = (Stores::default(), Report::default());
    let mut errors = BTreeMap::new();
    for round in 1..=rounds {
        for bar in &bars {
            if errors.contains_key(bar) {
                continue;
            }
            progress(&format!("round {round} of {rounds}: {bar:?}"))?;
            if let Err(error) = bar.measure(&bench, &mut stores, &mut report) {
                errors.insert(*bar, format!("{bar:?}: {error:#}"));
            }
        }
    }
    progress("audit")?;
    let audited = stores.audit(&bench);
    progress("")?;
    fs::write(&json, report.json(about)?).with_context(|| format!("cannot write {}", json.display()))?;
    writeln!(std::io::stdout(), "{}", report.table())?;
    audited?;
    ensure!(errors.is_empty(), "subjects erred\n{}", errors.into_values().collect::<Vec<_>>().join("\n"));
    Ok(())
}

/// One line on a terminal that is written over; a line each in a log.
fn progress(text: &str) -> Result<()> {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        write!(stderr, "\r\x1b[K{text}")?;
    } else if !text.is_empty() {
        writeln!(stderr, "{text}")?;
    }
    Ok(stderr.flush()?)
}

/// What a figure depends on besides the program.
fn about(options: &Options) -> Result<Value> {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let cores = std::thread::available_parallelism()?.get();
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let file_system = |directory: &Path| said("stat", &["-f", "-c", "%T", &directory.display().to_string()]);
    Ok(json!({
        "date": SystemClock::default().now().to_string(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "cpu": cpu.trim_start_matches([' ', '\t', ':']),
        "cores": cores,
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "postgres": said("psql", &["--version"]),
        "fileSystemOfSqlite": file_system(&options.directory),
        "fileSystemOfPostgres": file_system(&std::env::temp_dir()),
        "commit": said("git", &["describe", "--always", "--dirty"]),
    }))
}

#[actix_web::main]
async fn serve_file(path: PathBuf, address: &str) -> Result<()> {
    let path = web::Data::new(path);
    let server = HttpServer::new(move || {
        let show = |path: web::Data<PathBuf>| async move { NamedFile::open_async(path.get_ref()).await };
        App::new().app_data(path.clone()).route("/", web::get().to(show))
    });
    Ok(server.bind(address)?.run().await?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn bars_are_chosen_once_and_in_order() {
        Cli::command().debug_assert();
        let bars = |arguments: &[&str]| Cli::try_parse_from(arguments).unwrap().options.bars();
        assert_eq!(bars(&["bench", "--only", "p4,P1,P4"]), [Bar::P1, Bar::P4]);
        assert_eq!(bars(&["bench"]).len(), 9, "P8 comes with P5");
        assert_eq!(bars(&["bench", "--only", "P8"]), [Bar::P8]);
        assert_eq!(bars(&["bench", "--only", "storm"]), [Bar::Storm]);
    }
}
