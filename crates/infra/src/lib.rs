//! Adapters for the ports of the domain.

mod memory;
pub mod postgres;
mod sql;
mod storage;

pub use memory::Memory;
pub use postgres::Postgres;
pub use storage::Storage;
