//! Rows that another session keeps locked, as far as this node knows (ADR 0022).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use diesel::sql_types::{Array, Integer};
use diesel::{QueryableByName, sql_query};
use diesel_async::RunQueryDsl;
use frontrow_domain::unit_of_work::AggregateRef;
use frontrow_domain::{PerformanceDateId, QueueTokenId, ReservationId, RoomId, SeatId, UserId};
use futures_util::TryFutureExt;
use futures_util::future::try_join;

use super::failure::Failure;
use super::lock::Row;
use crate::postgres::cached::Cached;
use crate::postgres::connection::{self, Pool};
use crate::postgres::session::Session;
use crate::postgres::transaction::Transaction;
use crate::sql::types::{DbId, Id};

/// How long a row that was locked is remembered after it is free: one that is locked over and over stays on the sideline,
/// which then is its committer.
const REMEMBERED_FOR: Duration = Duration::from_secs(1);

/// The registry of stuck rows.
#[derive(Debug, Default)]
pub(super) struct StuckRows(Mutex<HashMap<Row, StuckRow>>);

#[derive(Debug, Clone, Copy)]
struct StuckRow {
    /// Since when it was locked at every look, and no unit got through to it. `None` while it is free.
    locked_since: Option<Instant>,
    last_locked_at: Instant,
}

/// What is known of the rows of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// None of them was locked lately.
    Free,
    /// Some were locked lately, or are. The longest since this time.
    Stuck(Option<Instant>),
}

impl StuckRows {
    pub(super) fn is_empty(&self) -> bool {
        self.rows().is_empty()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Row> {
        self.rows().keys().copied().collect()
    }

    /// What is known of these rows.
    pub(super) fn known(&self, rows: &[Row]) -> Known {
        let known = self.rows();
        let mut found = rows.iter().filter_map(|row| known.get(row)).peekable();
        if found.peek().is_none() {
            return Known::Free;
        }
        Known::Stuck(found.filter_map(|row| row.locked_since).min())
    }

    /// Takes in a look at rows: which of them are locked. Forgets those that have been free for a while.
    pub(super) fn looked_at(&self, looked_at: &BTreeSet<Row>, locked: &HashSet<Row>, now: Instant) {
        let mut rows = self.rows();
        for row in looked_at {
            if locked.contains(row) {
                let entry = rows.entry(*row).or_insert(StuckRow { locked_since: None, last_locked_at: now });
                entry.locked_since.get_or_insert(now);
                entry.last_locked_at = now;
            } else if let Some(entry) = rows.get_mut(row) {
                entry.locked_since = None;
            }
        }
        rows.retain(|_, row| row.locked_since.is_some() || now < row.last_locked_at + REMEMBERED_FOR);
    }

    /// Takes in that units got through to these rows: if they are locked again, it is since now.
    pub(super) fn got_through(&self, to: &[Row], now: Instant) {
        let mut rows = self.rows();
        for row in to {
            if let Some(row) = rows.get_mut(row) {
                row.locked_since = row.locked_since.map(|_| now);
            }
        }
    }

    /// Nothing that could panic happens under this lock.
    fn rows(&self) -> MutexGuard<'_, HashMap<Row, StuckRow>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rows of a table that are there and cannot be locked now.
macro_rules! locked_rows {
    ($kind:literal, $table:literal, $key:literal, $keys:literal, $strength:literal) => {
        concat!(
            "SELECT ",
            $kind,
            " AS kind, ",
            $key,
            " AS id FROM ",
            $table,
            " WHERE ",
            $key,
            " = ANY (",
            $keys,
            ") AND ",
            $key,
            " <> ALL (ARRAY(SELECT ",
            $key,
            " FROM ",
            $table,
            " WHERE ",
            $key,
            " = ANY (",
            $keys,
            ") ORDER BY ",
            $key,
            " ",
            $strength,
            " SKIP LOCKED))"
        )
    };
}

/// Locks what can be locked now, by the strengths and in the order in which batches do, and waits for no row.
const LOCKED_NOW: &str = concat!(
    locked_rows!("0", "lines", "room_id", "$1", "FOR UPDATE"),
    " UNION ALL ",
    locked_rows!("1", "rooms", "room_id", "$2", "FOR NO KEY UPDATE"),
    " UNION ALL ",
    locked_rows!("2", "queue_tokens", "token_id", "$3", "FOR NO KEY UPDATE"),
    " UNION ALL ",
    locked_rows!("3", "accounts", "user_id", "$4", "FOR NO KEY UPDATE"),
    " UNION ALL ",
    locked_rows!("4", "reservations", "reservation_id", "$5", "FOR NO KEY UPDATE"),
    " UNION ALL ",
    locked_rows!("5", "seats", "seat_id", "$6", "FOR NO KEY UPDATE"),
    " UNION ALL ",
    locked_rows!("6", "seat_feeds", "performance_date_id", "$7", "FOR NO KEY UPDATE"),
);

#[derive(QueryableByName)]
struct LockedRow {
    #[diesel(sql_type = Integer)]
    kind: i32,
    #[diesel(sql_type = Id)]
    id: DbId,
}

impl LockedRow {
    fn row(self) -> Row {
        let Self { kind, id: DbId(id) } = self;
        match kind {
            0 => Row::Line(RoomId::new(id)),
            1 => Row::Aggregate(AggregateRef::Room(RoomId::new(id))),
            2 => Row::Aggregate(AggregateRef::QueueToken(QueueTokenId::new(id))),
            3 => Row::Aggregate(AggregateRef::Account(UserId::new(id))),
            4 => Row::Aggregate(AggregateRef::Reservation(ReservationId::new(id))),
            5 => Row::Aggregate(AggregateRef::Seat(SeatId::new(id))),
            _ => Row::Feed(PerformanceDateId::new(id)),
        }
    }
}

/// Which of these rows another session holds now. One statement, in a transaction that waits for a locked table no longer
/// than `lock_wait` and lets go of all that it has locked.
pub(super) async fn locked_now(
    pool: &Pool,
    rows: &BTreeSet<Row>,
    lock_wait: Duration,
) -> Result<HashSet<Row>, Failure> {
    if rows.is_empty() {
        return Ok(HashSet::new());
    }
    let connection = connection::acquire(pool).await.map_err(Failure::unavailable)?;
    let transaction = Transaction::new(connection);
    let begin = transaction.begin(lock_wait).map_err(Failure::lost);
    let looked = try_join(begin, look(transaction.shared()?, rows)).await;
    transaction.rollback().await;
    looked.map(|((), locked)| locked)
}

async fn look(mut connection: &Session, rows: &BTreeSet<Row>) -> Result<HashSet<Row>, Failure> {
    let ids = |wanted: i32| -> Vec<DbId> {
        let keys = rows.iter().map(key);
        keys.filter(|(kind, _)| *kind == wanted).map(|(_, id)| id).collect()
    };
    let query = sql_query(LOCKED_NOW)
        .bind::<Array<Id>, _>(ids(0))
        .bind::<Array<Id>, _>(ids(1))
        .bind::<Array<Id>, _>(ids(2))
        .bind::<Array<Id>, _>(ids(3))
        .bind::<Array<Id>, _>(ids(4))
        .bind::<Array<Id>, _>(ids(5))
        .bind::<Array<Id>, _>(ids(6));
    let locked: Vec<LockedRow> = Cached(query).load(&mut connection).await?;
    Ok(locked.into_iter().map(LockedRow::row).collect())
}

/// The table of a row, as [`LOCKED_NOW`] numbers them, and its key.
const fn key(row: &Row) -> (i32, DbId) {
    match row {
        Row::Line(id) => (0, DbId(id.get())),
        Row::Aggregate(AggregateRef::Room(id)) => (1, DbId(id.get())),
        Row::Aggregate(AggregateRef::QueueToken(id)) => (2, DbId(id.get())),
        Row::Aggregate(AggregateRef::Account(id)) => (3, DbId(id.get())),
        Row::Aggregate(AggregateRef::Reservation(id)) => (4, DbId(id.get())),
        Row::Aggregate(AggregateRef::Seat(id)) => (5, DbId(id.get())),
        Row::Feed(id) => (6, DbId(id.get())),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const LINE: Row = Row::Line(RoomId::new(Uuid::from_u128(1)));
    const OTHER: Row = Row::Line(RoomId::new(Uuid::from_u128(2)));

    fn look(stuck: &StuckRows, locked: &[Row], now: Instant) {
        stuck.looked_at(&BTreeSet::from([LINE, OTHER]), &locked.iter().copied().collect(), now);
    }

    #[test]
    fn row_is_stuck_since_the_first_look_at_which_it_was_locked() {
        let (stuck, now) = (StuckRows::default(), Instant::now());
        let later = now + Duration::from_secs(3);
        assert_eq!(stuck.known(&[LINE]), Known::Free);
        look(&stuck, &[LINE], now);
        look(&stuck, &[LINE], later);
        assert_eq!(stuck.known(&[OTHER, LINE]), Known::Stuck(Some(now)));
        assert_eq!(stuck.known(&[OTHER]), Known::Free);
        stuck.got_through(&[LINE], later);
        assert_eq!(stuck.known(&[LINE]), Known::Stuck(Some(later)));
    }

    #[test]
    fn free_row_is_remembered_for_a_while() {
        let (stuck, now) = (StuckRows::default(), Instant::now());
        look(&stuck, &[LINE], now);
        look(&stuck, &[], now + REMEMBERED_FOR / 2);
        assert_eq!(stuck.known(&[LINE]), Known::Stuck(None));
        look(&stuck, &[], now + REMEMBERED_FOR);
        assert_eq!(stuck.known(&[LINE]), Known::Free);
        assert!(stuck.is_empty());
    }
}
