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
