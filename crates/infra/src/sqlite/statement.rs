//! Statements that are prepared once per connection.

use diesel::QueryResult;
use diesel::prelude::RunQueryDsl;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sqlite::{Sqlite as Backend, SqliteConnection};

/// A statement whose text is one of a few constants, so that the connection keeps it prepared. By itself diesel keeps
/// neither updates, nor upserts, nor anything with a literal in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cached<Q>(pub(super) Q);

impl<Q: QueryFragment<Backend>> QueryFragment<Backend> for Cached<Q> {
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, Backend>) -> QueryResult<()> {
        self.0.walk_ast(pass)
    }

    fn is_safe_to_cache_prepared(&self, _backend: &Backend) -> QueryResult<bool> {
        Ok(true)
    }
}

/// The text is the key.
impl<Q> QueryId for Cached<Q> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q: Query> Query for Cached<Q> {
    type SqlType = Q::SqlType;
}

impl<Q> RunQueryDsl<SqliteConnection> for Cached<Q> {}

/// Runs a constant text without parameters.
pub(super) fn run(connection: &mut SqliteConnection, text: &'static str) -> QueryResult<()> {
    Cached(diesel::sql_query(text)).execute(connection).map(|_| ())
}
