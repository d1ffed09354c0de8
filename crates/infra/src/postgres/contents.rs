//! A look at whether a database is in use for a sale.

use diesel::sql_query;
use diesel::sql_types::Bool;
use diesel_async::RunQueryDsl;
use frontrow_domain::unit_of_work::Source;
use tokio_postgres::config::TargetSessionAttrs;

use super::PostgresOptions;
use super::connection::establish_patient;
use super::error::ConnectError;
use super::target::Target;

#[derive(diesel::QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    answer: bool,
}

/// Whether there are concerts in a database. One without tables has none.
///
/// # Errors
/// [`ConnectError`] when it cannot be reached or read.
pub async fn holds_concerts(url: &str) -> Result<bool, ConnectError> {
    let target = Target::new(url, &PostgresOptions::default())?;
    let unreachable = |source: Source| ConnectError::Unreachable { server: target.server(), source };
    let mut connection = establish_patient(&target, TargetSessionAttrs::Any).await?;
    for query in ["to_regclass('concerts') IS NOT NULL", "EXISTS (SELECT 1 FROM concerts)"] {
        let query = sql_query(format!("SELECT {query} AS answer"));
        let answer = query.get_result::<Answer>(&mut connection).await;
        if !answer.map_err(|error| unreachable(Box::new(error)))?.answer {
            return Ok(false);
        }
    }
    Ok(true)
}
