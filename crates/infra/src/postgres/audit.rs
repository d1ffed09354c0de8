//! The audit of a database, in one read-only transaction beside the nodes that serve it.

use diesel::{QueryResult, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use frontrow_domain::unit_of_work::Source;

use super::PostgresOptions;
use super::connection::establish_patient;
use super::error::ConnectError;
use super::migrate::first_missing;
use super::target::Target;
use crate::audit::{Broken, Dialect, Finding, Invariant, Number, column_query, invariants};

/// Whole tables are joined: that takes memory, or else disk. Two processes do it, so that the others of the server stay for
/// those who buy.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
    SET LOCAL work_mem = '128MB'; SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 1";

/// Checks every invariant in one snapshot of a database, which may be in use. A standby serves as well.
///
/// # Errors
/// [`ConnectError`] when it cannot be reached or read, or its schema is not up to date.
pub async fn audit(url: &str) -> Result<Vec<Finding>, ConnectError> {
    let target = Target::new(url, &PostgresOptions::default())?;
    let unreachable = |source: Source| ConnectError::Unreachable { server: target.server(), source };
    let mut connection = establish_patient(&target, target.role()).await?;
    if let Some(missing) = first_missing(&mut connection).await.map_err(unreachable)? {
        return Err(ConnectError::SchemaBehind { missing });
    }
    findings(&mut connection).await.map_err(|error| unreachable(Box::new(error)))
}

async fn findings(connection: &mut AsyncPgConnection) -> QueryResult<Vec<Finding>> {
    connection.batch_execute(SNAPSHOT).await?;
    let mut findings = Vec::new();
    for invariant in invariants() {
        findings.push(find(connection, invariant).await?);
    }
    connection.batch_execute("COMMIT").await?;
    Ok(findings)
}

async fn find(connection: &mut AsyncPgConnection, invariant: &Invariant) -> QueryResult<Finding> {
    tracing::debug!(invariant = invariant.name, "checking");
    let checked = count(connection, invariant.checked).await?;
    let breaches = count(connection, &invariant.count(&DIALECT)).await?;
    let examples = if breaches > 0 { ids(connection, invariant).await? } else { Vec::new() };
    let Invariant { name, promise, .. } = *invariant;
    Ok(Finding { name, promise, checked, breaches, examples })
}

async fn count(connection: &mut AsyncPgConnection, query: &str) -> QueryResult<i64> {
    Ok(sql_query(column_query(query)).get_result::<Number>(connection).await?.value)
}

async fn ids(connection: &mut AsyncPgConnection, invariant: &Invariant) -> QueryResult<Vec<uuid::Uuid>> {
    let query = sql_query(column_query(&invariant.examples(&DIALECT)));
    Ok(query.load::<Broken>(connection).await?.into_iter().map(|broken| broken.value.0).collect())
}

/// Ids are compared as texts: PostgreSQL has no cast to `uuid` that forgives, and a regular expression for each of a
/// million answers takes minutes.
const DIALECT: Dialect = Dialect {
    id_in_answer: |begin| {
        let found = format!("nullif(position('{begin}'::bytea IN answer_body), 0)");
        format!("encode(substring(answer_body FROM {found} + {} FOR 36), 'escape')", begin.len())
    },
    has_id: |column, text| format!("{column}::text = {text}"),
};
