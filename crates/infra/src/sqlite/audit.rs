//! The audit of a file, in one read transaction beside whoever serves it.

use std::path::Path;

use diesel::QueryResult;
use diesel::prelude::{Connection, RunQueryDsl};
use diesel::result::Error as DieselError;
use diesel::sql_query;
use diesel::sqlite::SqliteConnection;

use super::{OpenError, connection};
use crate::audit::{Broken, Dialect, Finding, Invariant, Number, column_query, invariants};

pub(super) fn audit(path: &Path) -> Result<Vec<Finding>, OpenError> {
    connection::require_file(path)?;
    connection::with_auditor(path, |connection| {
        connection::require_schema(connection)?;
        let findings = connection.transaction(|connection| {
            invariants().map(|invariant| find(connection, invariant)).collect::<QueryResult<_>>()
        })?;
        Ok(findings)
    })
}

fn find(connection: &mut SqliteConnection, invariant: &Invariant) -> QueryResult<Finding> {
    tracing::debug!(invariant = invariant.name, "checking");
    let checked = count(connection, invariant.checked)?;
    let broken = broken(connection, invariant);
    // Sums are of 64 bits here. One that has no room in them is not what is stored anywhere.
    let (breaches, examples) =
        if broken.as_ref().is_err_and(is_overflow) { (1, Vec::new()) } else { broken? };
    let Invariant { name, promise, .. } = *invariant;
    Ok(Finding { name, promise, checked, breaches, examples })
}

fn broken(connection: &mut SqliteConnection, invariant: &Invariant) -> QueryResult<(i64, Vec<uuid::Uuid>)> {
    let breaches = count(connection, &invariant.count(&DIALECT))?;
    let examples = if breaches > 0 { ids(connection, invariant)? } else { Vec::new() };
    Ok((breaches, examples))
}

fn is_overflow(error: &DieselError) -> bool {
    matches!(error, DieselError::DatabaseError(_, about) if about.message() == "integer overflow")
}

fn count(connection: &mut SqliteConnection, query: &str) -> QueryResult<i64> {
    Ok(sql_query(column_query(query)).get_result::<Number>(connection)?.value)
}

fn ids(connection: &mut SqliteConnection, invariant: &Invariant) -> QueryResult<Vec<uuid::Uuid>> {
    let query = sql_query(column_query(&invariant.examples(&DIALECT)));
    match query.load::<Broken>(connection) {
        Ok(broken) => Ok(broken.into_iter().map(|broken| broken.value.0).collect()),
        // An id that is none cannot be shown.
        Err(DieselError::DeserializationError(_)) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// `unhex` of what is no hex is `NULL`, which is no id.
const DIALECT: Dialect = Dialect {
    id_in_answer: |begin| {
        let found = format!("nullif(instr(answer_body, CAST('{begin}' AS BLOB)), 0)");
        format!("CAST(substr(answer_body, {found} + {}, 36) AS TEXT)", begin.len())
    },
    has_id: |column, text| format!("{column} = unhex(replace({text}, '-', ''))"),
};

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use diesel::prelude::QueryableByName;
    use diesel::sql_types::{Integer, Text};

    use super::*;

    #[derive(QueryableByName)]
    struct Step {
        #[diesel(sql_type = Integer)]
        id: i32,
        #[diesel(sql_type = Integer)]
        parent: i32,
        #[diesel(sql_type = Text)]
        detail: String,
    }

    /// What a query does once for each row of something else, although it takes as long as the table is.
    fn nested_scans(connection: &mut SqliteConnection, query: &str) -> Vec<String> {
        let steps: Vec<Step> = sql_query(format!("EXPLAIN QUERY PLAN {query}")).load(connection).unwrap();
        let details: BTreeMap<i32, &str> = steps.iter().map(|step| (step.id, step.detail.as_str())).collect();
        let mut outer = BTreeSet::new();
        let nested = steps.iter().filter(|step| step.detail.starts_with("SCAN ")).filter(|step| {
            // Steps of one parent are the loops of one join, the outermost first.
            let is_inner = !outer.insert(step.parent)
                || steps.iter().any(|before| {
                    before.parent == step.parent
                        && before.id < step.id
                        && before.detail.starts_with("SEARCH ")
                });
            let is_correlated = details.get(&step.parent).is_some_and(|parent| parent.contains("CORRELATED"));
            is_inner || is_correlated
        });
        nested.map(|step| step.detail.clone()).collect()
    }

    #[test]
    fn no_invariant_scans_a_table_for_each_row_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty.db");
        connection::migrate(&path).unwrap();
        let mut connection = connection::connect_reader(&path).unwrap();
        for invariant in invariants() {
            let query = column_query(&invariant.count(&DIALECT));
            let nested = nested_scans(&mut connection, &query);
            assert_eq!(nested, Vec::<String>::new(), "{}", invariant.name);
        }
        // Controls: a sub-query and a join whose inner side has no index to go by.
        for slow in [
            "SELECT count(*) FROM payments p WHERE EXISTS (SELECT 1 FROM entries e WHERE e.amount > p.amount)",
            "SELECT count(*) FROM payments p JOIN entries e ON e.amount > p.amount",
        ] {
            assert!(!nested_scans(&mut connection, slow).is_empty(), "{slow}");
        }
    }
}
