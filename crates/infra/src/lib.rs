//! Adapters for the ports of the domain.

pub mod postgres;
mod sql;
mod storage;

pub use storage::Storage;
