//! What the tests of frontrow share.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: what cannot be set up must fail the test at once, and loudly"
)]

pub mod app;
pub mod forge;
pub mod postgres;
pub mod wire;

/// Whether what is missing here fails the tests that need it: this environment variable is set, to anything but `0`.
#[must_use]
pub fn is_required(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| !value.is_empty() && value != "0")
}
