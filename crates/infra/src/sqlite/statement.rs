//! Statements that are prepared once per connection.
//!
//! diesel keeps a prepared statement only if nothing in it says that its text may vary, and updates, upserts, literals and
//! `sql_query` all say so. The texts here are constants, hence the two ways around it.

use std::marker::PhantomData;

use diesel::QueryResult;
use diesel::prelude::RunQueryDsl;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text, Untyped};
use diesel::sqlite::{Sqlite as Backend, SqliteConnection};

use crate::sql::types::{DbId, DbTime, Id, Instant};

/// A statement made with diesel's query builder whose text is one of a few constants.
///
/// It must be loaded, so an update returns a column: when it is executed instead, diesel asks the statement within and
/// prepares it every time. And an update must be loaded to the end, not to its first row: SQLite looks at foreign keys
/// after the last one, and undoes what it had done.
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

/// As [`Cached`], found again by `K`, a type that no other statement has, instead of by a text that would be put together
/// for each execution. For the statements that are run most.
#[derive(Debug, Clone, Copy)]
pub(super) struct CachedAs<K, Q> {
    query: Q,
    key: PhantomData<K>,
}

impl<K, Q> CachedAs<K, Q> {
    /// The text of `query` depends on nothing but `K`.
    pub(super) const fn new(query: Q) -> Self {
        Self { query, key: PhantomData }
    }
}

impl<K, Q: QueryFragment<Backend>> QueryFragment<Backend> for CachedAs<K, Q> {
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, Backend>) -> QueryResult<()> {
        self.query.walk_ast(pass)
    }

    fn is_safe_to_cache_prepared(&self, _backend: &Backend) -> QueryResult<bool> {
        Ok(true)
    }
}

impl<K: 'static, Q> QueryId for CachedAs<K, Q> {
    type QueryId = CachedAs<K, ()>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<K, Q: Query> Query for CachedAs<K, Q> {
    type SqlType = Q::SqlType;
}

impl<K, Q> RunQueryDsl<SqliteConnection> for CachedAs<K, Q> {}

/// A constant text and its parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sql<P>(pub(super) &'static str, pub(super) P);

impl<P: Parameters> QueryFragment<Backend> for Sql<P> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Backend>) -> QueryResult<()> {
        pass.push_sql(self.0);
        self.1.bind(&mut pass)
    }
}

/// The text is the key.
impl<P> QueryId for Sql<P> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<P> Query for Sql<P> {
    type SqlType = Untyped;
}

impl<P> RunQueryDsl<SqliteConnection> for Sql<P> {}

/// Values for the parameters of a text, in their order.
pub(super) trait Parameters {
    /// Binds them.
    fn bind<'b>(&'b self, pass: &mut AstPass<'_, 'b, Backend>) -> QueryResult<()>;
}

macro_rules! parameter {
    ($($value:ty: $sql_type:ty),+) => {$(
        impl Parameters for $value {
            fn bind<'b>(&'b self, pass: &mut AstPass<'_, 'b, Backend>) -> QueryResult<()> {
                pass.push_bind_param_value_only::<$sql_type, _>(self)
            }
        }
    )+};
}

parameter!(DbId: Id, DbTime: Instant, i64: BigInt, bool: Bool, String: Text, Vec<u8>: Binary);
parameter!(Option<DbId>: Nullable<Id>, Option<DbTime>: Nullable<Instant>);

macro_rules! parameters {
    ($($name:ident $index:tt),*) => {
        impl<$($name: Parameters),*> Parameters for ($($name,)*) {
            fn bind<'b>(&'b self, _pass: &mut AstPass<'_, 'b, Backend>) -> QueryResult<()> {
                $(self.$index.bind(_pass)?;)*
                Ok(())
            }
        }
    };
}

parameters!();
parameters!(A 0);
parameters!(A 0, B 1);
parameters!(A 0, B 1, C 2);
parameters!(A 0, B 1, C 2, D 3);
parameters!(A 0, B 1, C 2, D 3, E 4);
parameters!(A 0, B 1, C 2, D 3, E 4, F 5);
parameters!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);

/// Runs a constant text without parameters.
pub(super) fn run(connection: &mut SqliteConnection, text: &'static str) -> QueryResult<()> {
    Sql(text, ()).execute(connection).map(|_| ())
}
