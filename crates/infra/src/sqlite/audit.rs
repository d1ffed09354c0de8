//! The audit of a file, in one read transaction beside whoever serves it.

use std::path::Path;

use diesel::prelude::{Connection, QueryableByName, RunQueryDsl};
use diesel::result::Error as DieselError;
use diesel::sql_types::BigInt;
use diesel::sqlite::SqliteConnection;

use super::{OpenError, connection};
use crate::audit::{Finding, INVARIANTS, count_query};

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

pub(super) fn audit(path: &Path) -> Result<Vec<Finding>, OpenError> {
    connection::require_file(path)?;
    let mut connection = connection::connect_reader(path)?;
    connection::require_schema(&mut connection)?;
    let findings = connection.transaction(|connection| {
        let find = |invariant: &crate::audit::Invariant| {
            let checked = count(connection, invariant.checked)?;
            let breaches = count(connection, invariant.breaches)?;
            Ok(Finding { promise: invariant.promise, checked, breaches })
        };
        INVARIANTS.iter().map(find).collect::<Result<_, DieselError>>()
    })?;
    Ok(findings)
}

fn count(connection: &mut SqliteConnection, query: &str) -> Result<i64, DieselError> {
    Ok(diesel::sql_query(count_query(query)).get_result::<Count>(connection)?.count)
}
