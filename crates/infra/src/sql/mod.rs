//! What the two SQL adapters share: column types, the schema, and the rows with their mapping to aggregates.
//! Statements are not shared: each adapter writes its own (ADR 0002).

pub(crate) mod rows;
pub(crate) mod schema;
pub(crate) mod types;
