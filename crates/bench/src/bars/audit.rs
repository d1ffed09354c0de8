//! AUDIT: how long an audit of a million reservations takes.

use std::time::Instant;

use anyhow::Result;

use super::Stores;
use crate::bench::{Bench, Store};
use crate::report::{Aim, Report};
use crate::seed::Crowd;

/// Dates, and reservations of each. There are three seats for each two reservations.
const DATES: u64 = 10;
const RESERVATIONS: u64 = 100_000;

pub(super) fn of_a_million(bench: &Bench, stores: &mut Stores, report: &mut Report) -> Result<()> {
    for store in stores.histories(bench)? {
        let begin = Instant::now();
        store.database.audit(bench.program())?;
        let name = format!("audit of 1,000,000 reservations, {}", store.database.name());
        report.aimed("AUDIT", &name, "s", begin.elapsed().as_secs_f64(), Aim::AtMost(60.0));
    }
    Ok(())
}

impl Stores {
    /// A million reservations on each database.
    fn histories(&mut self, bench: &Bench) -> Result<&[Store]> {
        if self.histories.is_empty() {
            for mut store in [bench.on_postgres()?, bench.on_sqlite("history.db")?] {
                for _ in 0..DATES {
                    bench.fill(&mut store, RESERVATIONS, RESERVATIONS * 3 / 2, Crowd::Gone)?;
                }
                self.histories.push(store);
            }
        }
        Ok(&self.histories)
    }
}
