//! `frontrow-sim`: replays one seed, runs a range of them, or ever new ones until stopped.

use std::io::Write;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use frontrow_sim::{Counts, Options, Report, run};

/// How often a soak says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Simulates frontrow: real use cases, virtual time, injected faults. Without a seed, ever new ones until stopped
#[derive(Debug, Parser)]
#[command(name = "frontrow-sim", about)]
struct Cli {
    /// Replay this seed
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run these seeds, such as `0..200`
    #[arg(long, value_parser = range)]
    seeds: Option<(u64, u64)>,
    /// Print what happens
    #[arg(long, requires = "seed")]
    trace: bool,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("a range is FROM..TO")?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text} is no seed"));
    Ok((number(from)?, number(to)?))
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let is_sound = match (cli.seed, cli.seeds) {
        (Some(seed), _) => {
            let report = run(seed, Options { print: cli.trace, ..Options::default() });
            say(&summary(&report));
            report.violation.is_none()
        }
        (None, Some((from, to))) => soak(from, to)?,
        (None, None) => soak(rand::random::<u32>().into(), u64::MAX)?,
    };
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn summary(report: &Report) -> String {
    let Report { seed, violation, faults, units, deeds, elapsed, digest } = report;
    let end = violation.as_deref().unwrap_or("all promises held");
    format!(
        "seed {seed}: {end}\n{units} units in {elapsed:?} of virtual time, digest {digest:016x}\n{deeds:?}\n{faults}"
    )
}

/// What all runs together came to.
#[derive(Default)]
struct Sum {
    seeds: u64,
    units: u64,
    faults: Counts,
}

/// Runs these seeds on all cores, until one fails.
fn soak(from: u64, to: u64) -> Result<bool> {
    let (next, failed) = (AtomicU64::new(from), AtomicBool::new(false));
    let (sum, began) = (Mutex::new((Sum::default(), Instant::now())), Instant::now());
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= to {
                break;
            }
            let report = run(seed, Options::default());
            if report.violation.is_some() {
                failed.store(true, Ordering::Relaxed);
                say(&format!("{}\nreplay: frontrow-sim --seed {seed} --trace", summary(&report)));
            }
            let mut held = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let (sum, told_at) = &mut *held;
            sum.seeds += 1;
            sum.units += report.units;
            sum.faults.merge(&report.faults);
            if told_at.elapsed() >= TELL_EVERY {
                *told_at = Instant::now();
                say(&told(sum, began));
            }
        }
    };
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            worker.join().ok().context("a worker panicked")?;
        }
        Ok(())
    })?;
    let held = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    say(&told(&held.0, began));
    Ok(!failed.load(Ordering::Relaxed))
}

fn told(sum: &Sum, began: Instant) -> String {
    let Sum { seeds, units, faults } = sum;
    format!("{seeds} seeds, {units} units in {:.0?}; injected: {faults}", began.elapsed())
}

fn say(text: &str) {
    // Whoever reads along may have seen enough.
    let _ = writeln!(std::io::stdout(), "{text}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn ranges_of_seeds_are_read() {
        Cli::command().debug_assert();
        assert_eq!(range("3..7"), Ok((3, 7)));
        assert!(range("3").is_err() && range("a..7").is_err());
    }
}
