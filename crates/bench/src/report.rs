//! What the rounds gave: one table for people, one JSON document for programs.

use std::fmt;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::{Value, json};

use crate::load::Outcome;
use crate::stats::Spread;
use crate::usage::Shares;

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Aim {
    /// That much or more.
    AtLeast(f64),
    /// That much or less.
    AtMost(f64),
}

impl Aim {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(aim) => value >= aim,
            Self::AtMost(aim) => value <= aim,
        }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(aim) => write!(f, ">= {}", shown(*aim)),
            Self::AtMost(aim) => write!(f, "<= {}", shown(*aim)),
        }
    }
}

/// One figure, measured once a round.
#[derive(Debug)]
struct Row {
    bar: &'static str,
    name: String,
    unit: &'static str,
    aim: Option<Aim>,
    values: Vec<f64>,
    details: Vec<Detail>,
}

/// What is known of one run besides its figure.
#[derive(Debug, Clone, Copy, Serialize)]
struct Detail {
    /// Milliseconds.
    p50: Option<f64>,
    p99: Option<f64>,
    shares: Shares,
}

/// The figures of all rounds, in the order in which they first came.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a value to a row, which is made if there is none.
    fn add(
        &mut self,
        bar: &'static str,
        name: &str,
        unit: &'static str,
        value: f64,
        aim: Option<Aim>,
        detail: Option<Detail>,
    ) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.bar == bar && row.name == name) {
            row.values.push(value);
            row.details.extend(detail);
        } else {
            let (values, details) = (vec![value], detail.into_iter().collect());
            self.rows.push(Row { bar, name: name.to_owned(), unit, aim, values, details });
        }
    }

    /// A figure without an aim.
    pub(crate) fn value(&mut self, bar: &'static str, name: &str, unit: &'static str, value: f64) {
        self.add(bar, name, unit, value, None, None);
    }

    /// A figure with its aim.
    pub(crate) fn aimed(&mut self, bar: &'static str, name: &str, unit: &'static str, value: f64, aim: Aim) {
        self.add(bar, name, unit, value, Some(aim), None);
    }

    /// A ratio with its aim.
    pub(crate) fn ratio(&mut self, bar: &'static str, name: &str, value: f64, aim: Aim) {
        self.aimed(bar, name, "ratio", value, aim);
    }

    /// The rate of a run, with its latencies and shares. Returns the rate.
    pub(crate) fn run(&mut self, bar: &'static str, name: &str, outcome: &Outcome) -> f64 {
        let rate = outcome.rate();
        self.outcome(bar, name, "a second", rate, outcome);
        rate
    }

    /// A figure of a run, with its latencies and shares.
    pub(crate) fn outcome(
        &mut self,
        bar: &'static str,
        name: &str,
        unit: &'static str,
        value: f64,
        outcome: &Outcome,
    ) {
        let detail = Detail {
            p50: Some(outcome.milliseconds(50.0)),
            p99: Some(outcome.milliseconds(99.0)),
            shares: outcome.shares,
        };
        self.add(bar, name, unit, value, None, Some(detail));
    }

    /// Says what a figure should be that is there already.
    pub(crate) fn aim(&mut self, bar: &str, name: &str, aim: Aim) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.bar == bar && row.name == name) {
            row.aim = Some(aim);
        }
    }

    /// The rate of somebody else's client.
    pub(crate) fn foreign(&mut self, bar: &'static str, name: &str, rate: f64, shares: Shares) {
        let detail = Detail { p50: None, p99: None, shares };
        self.add(bar, name, "a second", rate, None, Some(detail));
    }

    /// The median of a figure so far.
    pub(crate) fn median(&self, bar: &str, name: &str) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.bar == bar && row.name == name)?;
        Spread::of(&row.values).map(|spread| spread.median)
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header([
            "bar",
            "what",
            "median",
            "min..max",
            "unit",
            "aim",
            "met",
            "p50/p99 ms",
            "cores: load",
            "server",
            "database",
            "others",
        ]);
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| row.bar.trim_start_matches('P').parse().unwrap_or(0_u32));
        for row in rows {
            table.add_row(row.cells());
        }
        for index in [2, 3, 7, 8, 9, 10, 11] {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }

    /// The document.
    ///
    /// # Errors
    /// None that is known: figures are plain numbers.
    pub(crate) fn json(&self, about: Value) -> Result<String> {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        Ok(serde_json::to_string_pretty(&json!({ "about": about, "figures": rows }))?)
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let spread = Spread::of(&self.values);
        let median = spread.map(|spread| spread.median);
        let met = self.aim.zip(median).map(|(aim, median)| if aim.is_met(median) { "yes" } else { "no" });
        let detail = |of: fn(&Detail) -> Option<f64>| {
            let values: Vec<f64> = self.details.iter().filter_map(of).collect();
            Spread::of(&values).map(|spread| spread.median)
        };
        let cores =
            |of: fn(&Detail) -> Option<f64>| detail(of).map_or(String::new(), |value| format!("{value:.2}"));
        let latency = detail(|detail| detail.p50).zip(detail(|detail| detail.p99));
        vec![
            self.bar.to_owned(),
            self.name.clone(),
            median.map(shown).unwrap_or_default(),
            spread.map(|spread| format!("{}..{}", shown(spread.min), shown(spread.max))).unwrap_or_default(),
            self.unit.to_owned(),
            self.aim.map(|aim| aim.to_string()).unwrap_or_default(),
            met.unwrap_or_default().to_owned(),
            latency.map(|(p50, p99)| format!("{p50:.1}/{p99:.1}")).unwrap_or_default(),
            cores(|detail| Some(detail.shares.load)),
            cores(|detail| Some(detail.shares.server)),
            cores(|detail| Some(detail.shares.database)),
            cores(|detail| Some(detail.shares.others)),
        ]
    }

    fn json(&self) -> Value {
        let spread = Spread::of(&self.values);
        json!({
            "bar": self.bar,
            "what": self.name,
            "unit": self.unit,
            "aim": self.aim,
            "median": spread.map(|spread| spread.median),
            "min": spread.map(|spread| spread.min),
            "max": spread.map(|spread| spread.max),
            "rounds": self.values,
            "runs": self.details,
        })
    }
}

/// Three digits that count, or the whole number.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_of_one_figure_are_one_row_and_judged_by_their_median() {
        let mut report = Report::default();
        for value in [4.0, 6.0, 5.5] {
            report.ratio("P1", "a / b", value, Aim::AtLeast(5.0));
            report.aimed("P9", "start", "s", value, Aim::AtMost(0.5));
        }
        assert_eq!(report.median("P1", "a / b"), Some(5.5));
        let table = report.table();
        let line = |bar: &str| table.lines().find(|line| line.contains(bar)).unwrap().to_owned();
        for part in ["5.50", "4.00..6.00", ">= 5.00", "yes"] {
            assert!(line("P1").contains(part), "{part}: {table}");
        }
        assert!(line("P9").contains(" no "), "{table}");
        let json: Value = serde_json::from_str(&report.json(json!({})).unwrap()).unwrap();
        assert_eq!(json["figures"][0]["rounds"], json!([4.0, 6.0, 5.5]));
        assert_eq!(json["figures"][0]["aim"], json!({"atLeast": 5.0}));
    }
}
