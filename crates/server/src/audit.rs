//! The report of an audit: a table for people, a JSON document for programs.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use frontrow_domain::Timestamp;
use frontrow_infra::audit::Finding;
use serde::Serialize;
use uuid::Uuid;

use crate::cli::DatabaseUrl;

/// Whether every promise is kept.
#[must_use]
pub fn is_clean(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.breaches == 0)
}

/// A line for each promise: how many things were checked, and how many break it. Below, by their ids, some of those.
#[must_use]
pub fn table(findings: &[Finding]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["invariant", "checked", "breaches", ""]);
    for Finding { promise, checked, breaches, .. } in findings {
        table.add_row([
            Cell::new(promise),
            Cell::new(checked).set_alignment(CellAlignment::Right),
            Cell::new(breaches).set_alignment(CellAlignment::Right),
            Cell::new(if *breaches == 0 { "ok" } else { "BROKEN" }),
        ]);
    }
    let examples = findings.iter().filter(|finding| !finding.examples.is_empty()).map(|finding| {
        let ids: Vec<String> = finding.examples.iter().map(Uuid::to_string).collect();
        format!("\n{}: {}", finding.name, ids.join(", "))
    });
    table.to_string() + &examples.collect::<String>()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    clean: bool,
    audited_at: String,
    database: &'static str,
    invariants: &'a [Finding],
}

/// All of it as a JSON object. Of the database it tells the kind alone.
///
/// # Errors
/// None that is known: it is made of names, numbers and ids.
pub fn json(
    findings: &[Finding],
    database: &DatabaseUrl,
    audited_at: Timestamp,
) -> serde_json::Result<String> {
    let database = match database {
        DatabaseUrl::Sqlite(_) => "sqlite",
        DatabaseUrl::Postgres(_) => "postgresql",
    };
    let audited_at = audited_at.to_string();
    let document = Document { clean: is_clean(findings), audited_at, database, invariants: findings };
    serde_json::to_string_pretty(&document)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(name: &'static str, breaches: i64, examples: Vec<Uuid>) -> Finding {
        Finding { name, promise: "a promise", checked: 5, breaches, examples }
    }

    #[test]
    fn one_breach_spoils_it_and_is_named() {
        let kept = finding("kept", 0, Vec::new());
        let broken = finding("broken-once", 1, vec![Uuid::from_u128(7)]);
        assert!(is_clean(std::slice::from_ref(&kept)));
        assert!(!table(std::slice::from_ref(&kept)).contains("kept:"));
        let findings = [kept, broken];
        assert!(!is_clean(&findings));
        let table = table(&findings);
        let lines: Vec<&str> = table.lines().filter(|line| line.contains("BROKEN")).collect();
        assert!(matches!(lines.as_slice(), [line] if line.contains('5') && line.contains('1')), "{table}");
        assert!(table.ends_with("\nbroken-once: 00000000-0000-0000-0000-000000000007"), "{table}");
    }

    #[test]
    fn the_document_tells_all_of_it_but_where_the_database_is() {
        let findings = [finding("kept", 0, Vec::new()), finding("broken", 1, vec![Uuid::from_u128(7)])];
        let url = DatabaseUrl::Postgres("postgres://me:hunter2@h/db".to_owned());
        let at = Timestamp::parse("2026-11-27T09:00:00Z").unwrap();
        let document: serde_json::Value = serde_json::from_str(&json(&findings, &url, at).unwrap()).unwrap();
        let invariant = |name, breaches, examples: &[&str]| {
            serde_json::json!({
                "name": name, "promise": "a promise", "checked": 5, "breaches": breaches, "examples": examples,
            })
        };
        assert_eq!(
            document,
            serde_json::json!({
                "clean": false,
                "auditedAt": at.to_string(),
                "database": "postgresql",
                "invariants": [
                    invariant("kept", 0, &[]),
                    invariant("broken", 1, &["00000000-0000-0000-0000-000000000007"]),
                ],
            })
        );
    }
}
