//! Who used the processors and the memory, as `/proc` tells.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::stats::figure;

/// `/proc` counts processor time in ticks of this many a second, on every Linux that there is.
const TICKS_A_SECOND: f64 = 100.0;

/// Whose processor time is told apart.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Watch {
    /// The server under load.
    pub(crate) server: Option<u32>,
    /// PostgreSQL's first process; its children count with it.
    pub(crate) postmaster: Option<u32>,
}

/// Processor time used so far, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    at: Instant,
    load: f64,
    server: f64,
    database: f64,
    machine: f64,
}

/// How many cores each one kept busy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Shares {
    /// The bench itself and the clients that it started.
    pub(crate) load: f64,
    /// The server.
    pub(crate) server: f64,
    /// PostgreSQL.
    pub(crate) database: f64,
    /// Whatever else runs on the machine: it spoils the figures.
    pub(crate) others: f64,
}

/// The fields of `/proc/PID/stat` that matter here.
struct Process {
    parent: u32,
    own_ticks: u64,
    /// Of children that have ended.
    reaped_ticks: u64,
}

impl Watch {
    /// What was used until now.
    ///
    /// # Errors
    /// A process that is gone, or a system without `/proc`.
    pub(crate) fn sample(self) -> Result<Sample> {
        let own = process(std::process::id())?;
        let server = self.server.map(process).transpose()?.map_or(0, |server| server.own_ticks);
        Ok(Sample {
            at: Instant::now(),
            load: seconds(own.own_ticks + own.reaped_ticks),
            server: seconds(server),
            database: self.postmaster.map(tree_seconds).transpose()?.unwrap_or(0.0),
            machine: machine_seconds()?,
        })
    }

    /// What each one used since `begin`, in cores.
    ///
    /// # Errors
    /// As [`Watch::sample`].
    pub(crate) fn since(self, begin: &Sample) -> Result<Shares> {
        let end = self.sample()?;
        let elapsed = end.at.duration_since(begin.at).as_secs_f64().max(f64::EPSILON);
        let (load, server) = (end.load - begin.load, end.server - begin.server);
        let database = end.database - begin.database;
        let others = (end.machine - begin.machine - load - server - database).max(0.0);
        let cores = |seconds: f64| seconds / elapsed;
        Ok(Shares {
            load: cores(load),
            server: cores(server),
            database: cores(database),
            others: cores(others),
        })
    }
}

/// The resident memory of a process, in bytes.
///
/// # Errors
/// A process that is gone.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1_024)
}

fn seconds(ticks: u64) -> f64 {
    figure(ticks) / TICKS_A_SECOND
}

fn process(pid: u32) -> Result<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    let stat = stat.with_context(|| format!("process {pid} is gone"))?;
    parse_stat(&stat).with_context(|| format!("/proc/{pid}/stat is not understood"))
}

/// The name in brackets may hold anything, so fields are counted after its end: the first is field 3.
fn parse_stat(stat: &str) -> Option<Process> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Process {
        parent: u32::try_from(field(4)?).ok()?,
        own_ticks: field(14)? + field(15)?,
        reaped_ticks: field(16)? + field(17)?,
    })
}

/// A process, its children, and those that have ended.
fn tree_seconds(root: u32) -> Result<f64> {
    let first = process(root)?;
    let mut ticks = first.own_ticks + first.reaped_ticks;
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has ended meanwhile is among the reaped ones next time.
        if let Ok(child) = process(pid)
            && child.parent == root
        {
            ticks += child.own_ticks;
        }
    }
    Ok(seconds(ticks))
}

/// What all processors did besides waiting: user, nice, system, interrupts.
fn machine_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|index| fields.get(*index)).sum();
    Ok(seconds(busy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 7 1 1 0 -1 4 100 0 0 0 11 22 33 44 20 0 1 0 5 6 7";
        let process = parse_stat(stat).unwrap();
        assert_eq!((process.parent, process.own_ticks, process.reaped_ticks), (7, 33, 77));
    }

    #[test]
    fn this_process_is_seen_to_work_and_to_have_memory() {
        let watch = Watch { server: Some(std::process::id()), postmaster: None };
        let begin = watch.sample().unwrap();
        let mut number = 1_u64;
        while watch.sample().unwrap().server <= begin.server {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
        assert!(watch.since(&begin).unwrap().server > 0.0);
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
    }
}
