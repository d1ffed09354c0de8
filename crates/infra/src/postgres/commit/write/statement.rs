//! Statements that are sent one after the other, without waiting for answers in between.

use diesel::pg::Pg;
use diesel::query_builder::{BoxedSqlQuery, SqlQuery};
use diesel::serialize::ToSql;
use diesel::sql_query;
use diesel::sql_types::HasSqlType;
use diesel_async::RunQueryDsl;
use futures_util::future::try_join_all;

use super::Failure;
use crate::postgres::cached::Cached;
use crate::postgres::session::Session;

/// A statement, and how many rows it writes if nobody is in its way.
pub(in crate::postgres::commit) struct Statement<'q> {
    table: &'static str,
    rows: usize,
    query: BoxedSqlQuery<'q, Pg, SqlQuery>,
}

impl<'q> Statement<'q> {
    /// `text` is a constant: it is kept prepared. `table` is for the log.
    pub(super) fn new(table: &'static str, text: &'static str, rows: usize) -> Self {
        Self { table, rows, query: sql_query(text).into_boxed() }
    }

    /// Binds the next parameter.
    pub(super) fn bind<ST, V>(self, value: V) -> Self
    where
        Pg: HasSqlType<ST>,
        V: ToSql<ST, Pg> + Send + 'q,
        ST: Send + 'q,
    {
        Self { query: self.query.bind::<ST, V>(value), ..self }
    }

    /// Fewer rows than expected: another node was faster with an insert, and has committed. The next attempt sees it.
    async fn run(self, mut connection: &Session) -> Result<(), Failure> {
        let Self { table, rows, query } = self;
        let written = Cached(query).execute(&mut connection).await?;
        if written == rows {
            Ok(())
        } else {
            Err(Failure::Again(format!("wrote {written} of {rows} rows of {table}").into()))
        }
    }
}

/// Runs all in this order. The first failure is the answer; the server skips what comes after it.
pub(in crate::postgres::commit) async fn run_all(
    connection: &Session,
    statements: Vec<Statement<'_>>,
) -> Result<(), Failure> {
    try_join_all(statements.into_iter().map(|statement| statement.run(connection))).await.map(|_| ())
}
