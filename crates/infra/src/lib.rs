//! Adapters for the ports of the domain.

pub mod audit;
mod circuit_breaker;
pub mod clock;
pub mod identity;
mod lanes;
mod memory;
pub mod postgres;
mod sql;
pub mod sqlite;
mod storage;

pub use circuit_breaker::with_circuit_breaker;
pub use memory::{Memory, State as MemoryState};
pub use postgres::Postgres;
pub use sqlite::Sqlite;
pub use storage::Storage;
