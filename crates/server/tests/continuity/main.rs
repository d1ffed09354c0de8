//! What should go on as if nothing had happened: clocks that step under nodes, and data that goes back under them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod clocks;
mod restores;
mod shimmed;

use std::time::{Duration, Instant};

/// The longest a test waits for what is to happen, on a machine that does much else.
const IN_TIME: Duration = Duration::from_secs(90);

/// Waits until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + IN_TIME;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
