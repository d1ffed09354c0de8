//! Adapters for the ports of the domain.

pub mod audit;
pub mod clock;
pub mod identity;
mod lanes;
mod memory;
pub mod postgres;
mod sql;
pub mod sqlite;
mod storage;

pub use memory::{Memory, State as MemoryState};
pub use postgres::Postgres;
pub use sqlite::Sqlite;
pub use storage::Storage;
