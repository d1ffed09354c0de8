//! Adapters for the ports of the domain.

mod sql;
pub mod sqlite;
mod storage;

pub use sqlite::Sqlite;
pub use storage::Storage;
