//! The report of an audit.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use frontrow_infra::audit::Finding;

/// Whether every promise is kept.
#[must_use]
pub fn is_clean(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.breaches == 0)
}

/// A line for each promise: how many things were checked, and how many break it.
#[must_use]
pub fn table(findings: &[Finding]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["invariant", "checked", "breaches", ""]);
    for Finding { promise, checked, breaches } in findings {
        table.add_row([
            Cell::new(promise),
            Cell::new(checked).set_alignment(CellAlignment::Right),
            Cell::new(breaches).set_alignment(CellAlignment::Right),
            Cell::new(if *breaches == 0 { "ok" } else { "BROKEN" }),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_breach_spoils_it() {
        let kept = Finding { promise: "a", checked: 3, breaches: 0 };
        let broken = Finding { promise: "b", checked: 5, breaches: 2 };
        assert!(is_clean(std::slice::from_ref(&kept)));
        assert!(!is_clean(&[kept.clone(), broken.clone()]));
        let table = table(&[kept, broken]);
        let broken: Vec<&str> = table.lines().filter(|line| line.contains("BROKEN")).collect();
        assert!(matches!(broken.as_slice(), [line] if line.contains('5') && line.contains('2')), "{table}");
    }
}
