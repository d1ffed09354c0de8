//! The bars of the bench, one or a few a module. A bar runs once a round and adds its figures to the report.

mod audit;
mod latency;
mod line;
mod payments;
mod seats;
mod start;
mod storm;

use anyhow::Result;
use clap::ValueEnum;

use crate::bench::{Bench, Store};
use crate::report::Report;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum Bar {
    /// Payments a second on PostgreSQL
    P1,
    /// Payments a second on SQLite, with and without group commit
    P2,
    /// Holds a second on one date
    P3,
    /// Polls of a waiting line
    P4,
    /// Polls of a line of a million
    P5,
    /// Newcomers a second
    P6,
    /// The seat map
    P7,
    /// Memory with a million waiting
    P8,
    /// Start
    P9,
    /// Latency at half the peak rate
    P10,
    /// Ten times what can be served; only when it is asked for
    Storm,
    /// An audit of a million reservations; only when it is asked for
    Audit,
}

/// The databases of a run. Each is made when a bar needs it.
#[derive(Default)]
pub(crate) struct Stores {
    /// What frontrow serves on PostgreSQL.
    postgres: Option<Store>,
    /// The same schema on the same PostgreSQL, for pgbench and psql.
    baseline: Option<Store>,
    /// A million wait here, and nothing else happens.
    million: Option<(Store, crate::seed::Venue)>,
    /// What frontrow serves from a file.
    sqlite: Option<Store>,
    /// A million reservations each, which nobody adds to: audited by their own bar alone.
    histories: Vec<Store>,
}

impl Stores {
    fn postgres(&mut self, bench: &Bench) -> Result<&mut Store> {
        if self.postgres.is_none() {
            self.postgres = Some(bench.on_postgres()?);
        }
        present(self.postgres.as_mut())
    }

    fn baseline(&mut self, bench: &Bench) -> Result<&mut Store> {
        if self.baseline.is_none() {
            self.baseline = Some(bench.on_postgres()?);
        }
        present(self.baseline.as_mut())
    }

    fn sqlite(&mut self, bench: &Bench) -> Result<&mut Store> {
        if self.sqlite.is_none() {
            self.sqlite = Some(bench.on_sqlite("bench.db")?);
        }
        present(self.sqlite.as_mut())
    }

    /// Audits every database that was used.
    ///
    /// # Errors
    /// The findings, when an invariant is broken.
    pub(crate) fn audit(&self, bench: &Bench) -> Result<()> {
        let million = self.million.as_ref().map(|(store, _)| store);
        let stores = [self.postgres.as_ref(), self.baseline.as_ref(), million, self.sqlite.as_ref()];
        stores.into_iter().flatten().try_for_each(|store| store.database.audit(bench.program()))
    }
}

fn present(store: Option<&mut Store>) -> Result<&mut Store> {
    anyhow::Context::context(store, "it was just made")
}

impl Bar {
    /// Measures one round.
    ///
    /// # Errors
    /// Whatever went wrong with a subject.
    pub(crate) fn measure(self, bench: &Bench, stores: &mut Stores, report: &mut Report) -> Result<()> {
        match self {
            Self::P1 => payments::on_postgres(bench, stores, report),
            Self::P2 => payments::on_sqlite(bench, stores, report),
            Self::P3 => seats::holds(bench, stores, report),
            Self::P4 => line::polls(bench, stores, report),
            Self::P5 => line::polls_of_a_million(bench, stores, report),
            Self::P6 => line::newcomers(bench, stores, report),
            Self::P7 => seats::map(bench, stores, report),
            Self::P8 => line::memory(bench, stores, report),
            Self::P9 => start::first_answer(bench, stores, report),
            Self::P10 => latency::at_half_the_peak(bench, stores, report),
            Self::Storm => storm::ten_times_capacity(bench, stores, report),
            Self::Audit => audit::of_a_million(bench, stores, report),
        }
    }
}
