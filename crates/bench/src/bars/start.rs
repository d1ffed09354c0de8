//! P9: from the start of the process to its first 200.

use anyhow::Result;

use super::Stores;
use crate::bench::{Bench, Store};
use crate::report::{Aim, Report};

/// Starts a round.
const STARTS: usize = 3;

pub(super) fn first_answer(bench: &Bench, stores: &mut Stores, report: &mut Report) -> Result<()> {
    start(bench, stores.postgres(bench)?, report)?;
    start(bench, stores.sqlite(bench)?, report)
}

fn start(bench: &Bench, store: &Store, report: &mut Report) -> Result<()> {
    for _ in 0..STARTS {
        let seconds = bench.serve_until(store, &[], "/healthz")?.started_in.as_secs_f64();
        let name = format!("start to first 200, {}", store.database.name());
        report.aimed("P9", &name, "s", seconds, Aim::AtMost(0.5));
    }
    Ok(())
}
