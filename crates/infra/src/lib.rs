//! Adapters for the ports of the domain.

mod storage;

pub use storage::Storage;
