//! The routes over mocked ports: which answer a request gets, and which of several faults is named first.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "tests: a panic is how they fail"
)]

mod accounts;
mod admin;
mod concerts;
mod description;
mod harness;
mod overload;
mod problems;
mod queue;
mod reservations;
mod strange;
mod wire;
