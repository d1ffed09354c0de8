//! The real use cases against the model: random histories of several users, an operator and the scheduler, step by step and
//! several at once, on every adapter. Every answer and everything that can be seen in the end has to be the model's.
//!
//! | environment variable | effect |
//! |---|---|
//! | `FRONTROW_MODEL_CASES` | how many histories an adapter gets |
//! | `FRONTROW_MODEL_SEED` | where the random numbers begin; always the same if it is not set |
//!
//! A history on memory goes the same way each time. On the databases, operations that run at once meet as they do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it has seen"
)]

mod controls;
mod ground;
mod history;
mod mutants;
mod names;
mod pausing;
mod perform;
mod regressions;
mod run;
mod subject;

use ground::{Adapter, Ground};
use run::{Setting, cases, seed};

/// What must have been answered somewhere in a run, or the run says little.
const SEEN: [&str; 43] = [
    "AccountConflict",
    "Admitted",
    "AlreadyPaid",
    "Balance",
    "Caller",
    "Cancelled",
    "Charged",
    "ConcertNotFound",
    "Dates",
    "Entered",
    "Entries",
    "Held",
    "IdempotencyKeyReused",
    "InsufficientBalance",
    "InvalidAmount",
    "InvalidPolicy",
    "InvalidRequest",
    "Left",
    "NotOnSale",
    "Paid",
    "PerformanceDateNotFound",
    "Place",
    "Replayed",
    "Reservation",
    "ReservationCancelled",
    "ReservationExpired",
    "ReservationNotFound",
    "Room",
    "RoomClosed",
    "RoomFull",
    "RoomNotFound",
    "SalePaused",
    "Sales",
    "SeatLimitExceeded",
    "SeatNotAvailable",
    "SeatNotFound",
    "Seats",
    "SessionOpened",
    "SessionRenewed",
    "Unauthenticated",
    "WaitTokenExpired",
    "WaitTokenInvalid",
    "WaitTokenNotActive",
];

fn explore(adapter: Adapter, ordinarily: u32, steps: usize) {
    let Some(ground) = Ground::open(adapter) else { return };
    let setting = Setting::new(&ground, None);
    let (cases, seed) = (cases(ordinarily), seed());
    if let Err(failed) = setting.run(cases, steps, seed) {
        panic!("{adapter:?}, seed {seed}: {}", failed.as_regression());
    }
    let tally = setting.tally();
    println!("{adapter:?}, seed {seed}, {cases} histories: {tally:?}");
    let unseen: Vec<_> = SEEN.iter().filter(|kind| !tally.contains_key(**kind)).collect();
    assert!(adapter != Adapter::Memory || unseen.is_empty(), "never answered: {unseen:?}");
}

#[test]
fn memory_does_what_the_model_does() {
    explore(Adapter::Memory, 256, 60);
}

#[test]
fn sqlite_does_what_the_model_does() {
    explore(Adapter::Sqlite, 24, 50);
}

#[test]
fn postgres_does_what_the_model_does() {
    explore(Adapter::Postgres, 16, 50);
}
