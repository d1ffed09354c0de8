//! The writes of a batch: each table by one statement, what others refer to before what refers to it, all sent in one
//! flight.
//!
//! Updates look at the version again, and inserts step back before a row that has come in since the check: whatever
//! was not written fails the attempt.

mod accounts;
mod catalogue;
mod idempotency;
mod queue_tokens;
mod reservations;
pub(super) mod seat_feeds;
mod seats;
pub(super) mod statement;

use frontrow_domain::unit_of_work::{CommandOutcome, UnitOfWork};
use frontrow_domain::{Change, Version};

use self::seat_feeds::Feeds;
use self::statement::Statement;
use super::failure::Failure;
use super::lock::Locked;
use super::plan::Plan;
use crate::postgres::session::Session;

/// Writes rooms, concerts, dates and what operators did one by one: only units that come alone have them. The unit's command
/// came to `outcome`.
pub(super) async fn write_catalogue(
    connection: &mut Session,
    work: &UnitOfWork,
    outcome: Option<CommandOutcome>,
) -> Result<(), Failure> {
    catalogue::write_rooms(connection, &work.rooms).await?;
    catalogue::insert_concerts(connection, &work.concerts).await?;
    catalogue::insert_dates(connection, &work.performance_dates).await?;
    catalogue::insert_audit_log(connection, &work.audit_log, outcome).await
}

/// Whether a unit writes what [`write_catalogue`] writes.
pub(super) const fn has_catalogue(work: &UnitOfWork) -> bool {
    !work.rooms.is_empty()
        || !work.concerts.is_empty()
        || !work.performance_dates.is_empty()
        || !work.audit_log.is_empty()
}

/// All that a batch writes besides, in the order in which every batch writes.
pub(super) fn statements<'u>(plan: &Plan<'u>, locked: &Locked) -> Vec<Statement<'u>> {
    let units = &plan.units;
    let mut statements = Vec::new();
    statements.extend(idempotency::take_keys(units));
    queue_tokens::write(plan, &mut statements);
    accounts::write(units, &mut statements);
    reservations::write(units, &mut statements);
    seats::write(units, &mut statements);
    statements.extend(reservations::insert_seats(units));
    statements.extend(accounts::insert_entries(units));
    accounts::insert_payments(units, &mut statements);
    let mut feeds = Feeds::of(units, locked);
    statements.extend(feeds.open(units));
    statements.extend(feeds.bump());
    statements
}

/// A statement for these rows; none without rows.
fn some_rows<'q, R>(table: &'static str, text: &'static str, rows: &[R]) -> Option<Statement<'q>> {
    (!rows.is_empty()).then(|| Statement::new(table, text, rows.len()))
}

/// One column of many rows, for `unnest`.
fn column<'r, R, T>(rows: &'r [R], value: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// Inserts and updates apart, as rows with the version that they will have.
fn split<'c, T: 'c, N, U>(
    changes: impl Iterator<Item = &'c Change<T>>,
    insert: impl Fn(&T, Version) -> N,
    update: impl Fn(&T, Version) -> U,
) -> (Vec<N>, Vec<U>) {
    let (mut inserts, mut updates) = (Vec::new(), Vec::new());
    for change in changes {
        match change {
            Change::Insert(value) => inserts.push(insert(value, Version::FIRST)),
            Change::Update(loaded) => updates.push(update(&loaded.value, loaded.version.next())),
        }
    }
    (inserts, updates)
}
