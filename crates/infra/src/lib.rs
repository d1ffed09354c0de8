//! Adapters for the ports of the domain.

pub mod audit;
pub mod identity;
mod sql;
mod storage;

pub use storage::Storage;
