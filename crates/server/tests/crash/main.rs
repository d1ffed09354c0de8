//! Processes and machines that die: people buy over HTTP from the very binary that ships, while it, its database or the
//! wire between them is killed, cut, full or away.
//!
//! After each trial, and for every person: what was acknowledged is there, once, and nothing else is; whoever was told
//! that nothing was changed was told the truth; no answer was a 500, and a 503 said when to try again; `frontrow audit` is
//! clean; and the service came back by itself. `controls` shows that each of these would be noticed.
//!
//! | environment variable | effect |
//! |---|---|
//! | `FRONTROW_CRASH_KILLS` | how often each thing is killed; 4 where nothing is said, 100 by `just crash` |
//! | `FRONTROW_CRASH_SEED` | the seed of a run that is to be repeated: whom people are, what they want, and when it happens |
//! | `FRONTROW_REQUIRE_MOUNTS=1` | where nothing may be mounted, the tests on a disk of their own fail instead of being skipped |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod check;
mod controls;
mod crowd;
mod killed;
mod node;
mod postgres;
mod sqlite;
mod stopped;
mod told;
mod trial;
