//! Adapters for the ports of the domain.

mod sql;
mod storage;

pub use storage::Storage;
