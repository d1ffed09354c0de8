//! Statements that are prepared once a connection.

use diesel::QueryResult;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};

/// A query whose statement is kept prepared, although diesel cannot tell that this is safe.
///
/// diesel prepares UPDATE, `sql_query`, SQL literals and most INSERTs again for each execution: one more round trip,
/// and one more parse. Under this wrapper they are prepared once a connection and found again by their text.
///
/// The rule: wrap only a query whose SQL text is the same in every execution. A text that is put together from
/// input, or that grows with the number of rows, would fill the cache of every connection without end. Many rows
/// therefore come in as arrays (`unnest($1, ..)`, `= ANY($1)`), never as a list of placeholders.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cached<Q>(pub(super) Q);

impl<Q: QueryFragment<Pg>> QueryFragment<Pg> for Cached<Q> {
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.0.walk_ast(pass)
    }

    fn is_safe_to_cache_prepared(&self, _backend: &Pg) -> QueryResult<bool> {
        Ok(true)
    }
}

impl<Q: QueryId> QueryId for Cached<Q> {
    type QueryId = Q::QueryId;

    const HAS_STATIC_QUERY_ID: bool = Q::HAS_STATIC_QUERY_ID;
}

impl<Q: Query> Query for Cached<Q> {
    type SqlType = Q::SqlType;
}
