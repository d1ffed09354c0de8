//! Adapters for the ports of the domain.

mod memory;
mod storage;

pub use memory::Memory;
pub use storage::Storage;
