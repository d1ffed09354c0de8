//! The writes of a unit of work: each table by one statement, what others refer to before what refers to it.
//!
//! Updates look at the version again, and inserts step back before a row that has come in since the check: whatever
//! was not written is a conflict.

mod accounts;
mod catalogue;
pub(super) mod queue_tokens;
mod reservations;
pub(super) mod seat_feeds;
mod seats;

use diesel::QueryableByName;
use diesel::prelude::*;
use diesel::query_dsl::methods::FilterDsl;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use frontrow_domain::idempotency::IdempotencyRecord;
use frontrow_domain::unit_of_work::{AggregateRef, CommitError, UnitOfWork};
use frontrow_domain::{Change, Version};
use uuid::Uuid;

use super::failure::Failure;
use super::lock::Locked;
use crate::postgres::cached::Cached;
use crate::sql::rows::IdempotencyRow;
use crate::sql::schema::idempotency_records;
use crate::sql::types::{DbId, Id};

/// Takes the idempotency key, waiting for a twin that is just committing. A key that has run out is free.
pub(super) async fn take_key(
    connection: &mut AsyncPgConnection,
    record: &IdempotencyRecord,
) -> Result<(), Failure> {
    let row = IdempotencyRow::from(record);
    let insert = diesel::insert_into(idempotency_records::table)
        .values(&row)
        .on_conflict((idempotency_records::user_id, idempotency_records::idempotency_key))
        .do_update()
        .set(&row)
        .filter(idempotency_records::expires_at.le(row.created_at));
    match Cached(insert).execute(connection).await? {
        0 => Err(Failure::Final(CommitError::DuplicateIdempotencyKey)),
        _ => Ok(()),
    }
}

/// Writes all of a unit but its idempotency key and its command.
pub(super) async fn write(
    connection: &mut AsyncPgConnection,
    work: &UnitOfWork,
    locked: &Locked,
) -> Result<(), Failure> {
    catalogue::write_rooms(connection, &work.rooms).await?;
    catalogue::insert_concerts(connection, &work.concerts).await?;
    catalogue::insert_dates(connection, &work.performance_dates).await?;
    queue_tokens::write(connection, &work.queue_tokens, locked).await?;
    accounts::write(connection, &work.accounts).await?;
    reservations::write(connection, &work.reservations).await?;
    seats::write(connection, &work.seats).await?;
    reservations::insert_seats(connection, &work.reservations).await?;
    accounts::insert_entries(connection, &work.entries).await?;
    accounts::insert_payments(connection, &work.payments).await?;
    let mut feeds = seat_feeds::Feeds::of(&work.seats, locked);
    feeds.open(connection, &work.performance_dates).await?;
    feeds.bump(connection).await
}

/// The key of a row that was written.
#[derive(QueryableByName)]
struct Written {
    #[diesel(sql_type = Id)]
    id: DbId,
}

/// A conflict over the first key, if any, that was to be written and was not.
fn require_all(
    aggregate: impl Fn(Uuid) -> AggregateRef,
    wanted: impl IntoIterator<Item = DbId>,
    written: Vec<Written>,
) -> Result<(), Failure> {
    let mut written: Vec<DbId> = written.into_iter().map(|row| row.id).collect();
    written.sort_unstable();
    let lost = wanted.into_iter().filter(|id| written.binary_search(id).is_err()).min();
    lost.map_or(Ok(()), |DbId(id)| Err(Failure::conflict(aggregate(id))))
}

/// One column of many rows, for `unnest`.
fn column<'r, R, T>(rows: &'r [R], value: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// Inserts and updates apart, as rows with the version that they will have.
fn split<T, N, U>(
    changes: &[Change<T>],
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
