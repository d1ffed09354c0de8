//! The audit of a database, in one read-only transaction beside the nodes that serve it.

use diesel::sql_types::BigInt;
use diesel::{QueryResult, QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use frontrow_domain::unit_of_work::Source;

use super::PostgresOptions;
use super::connection::{PATIENT_SESSION, establish};
use super::error::ConnectError;
use super::migrate::first_missing;
use super::target::Target;
use crate::audit::{Finding, INVARIANTS, count_query};

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Checks every invariant in one snapshot of a database, which may be in use.
///
/// # Errors
/// [`ConnectError`] when it cannot be reached or read, or its schema is not up to date.
pub async fn audit(url: &str) -> Result<Vec<Finding>, ConnectError> {
    let target = Target::new(url, &PostgresOptions::default())?;
    let unreachable = |source: Source| ConnectError::Unreachable { server: target.server(), source };
    let connected = tokio::time::timeout(target.patience, establish(&target, PATIENT_SESSION)).await;
    let connected = connected.map_err(|late| unreachable(Box::new(late)))?;
    let mut connection = connected.map_err(|error| unreachable(Box::new(error)))?;
    if let Some(missing) = first_missing(&mut connection).await.map_err(unreachable)? {
        return Err(ConnectError::SchemaBehind { missing });
    }
    findings(&mut connection).await.map_err(|error| unreachable(Box::new(error)))
}

async fn findings(connection: &mut AsyncPgConnection) -> QueryResult<Vec<Finding>> {
    connection.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut findings = Vec::with_capacity(INVARIANTS.len());
    for invariant in &INVARIANTS {
        let checked = count(connection, invariant.checked).await?;
        let breaches = count(connection, invariant.breaches).await?;
        findings.push(Finding { promise: invariant.promise, checked, breaches });
    }
    connection.batch_execute("COMMIT").await?;
    Ok(findings)
}

async fn count(connection: &mut AsyncPgConnection, query: &str) -> QueryResult<i64> {
    Ok(sql_query(count_query(query)).get_result::<Count>(connection).await?.count)
}
