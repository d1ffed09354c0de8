//! Adapters for the ports of the domain.

pub mod identity;
mod sql;
mod storage;

pub use storage::Storage;
