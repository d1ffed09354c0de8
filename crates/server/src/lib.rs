//! The `frontrow` binary as a library, so that tests run the very server that ships.

pub mod app;
pub mod audit;
pub mod backend;
mod beside;
pub mod cli;
pub mod demo;
pub mod file;
pub mod http;
pub mod load;
pub mod log;
pub mod scheduler;
pub mod secret;
pub mod signals;
pub mod tokens;
