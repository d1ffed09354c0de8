//! What became of a COMMIT whose answer was lost.
//!
//! A transaction is all or nothing, so one row that only it can have inserted tells of all. The number of the transaction
//! alone would not do: after a crash the server may give the number of one that was lost to another.

use std::time::Duration;

use diesel::sql_types::{BigInt, Bool, Nullable};
use diesel::{QueryableByName, sql_query};
use diesel_async::RunQueryDsl;
use frontrow_domain::Change;
use tokio::time::{sleep, timeout};

use super::plan::Plan;
use crate::postgres::cached::Cached;
use crate::postgres::connection::{self, Pool};
use crate::sql::types::{DbId, Id};

/// How long the database is asked.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait before it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// A row with an id of its own, of each kind that nobody ever deletes; and the number of the transaction.
#[derive(Debug, Default)]
pub(super) struct Witness {
    token: Option<DbId>,
    reservation: Option<DbId>,
    entry: Option<DbId>,
    audit_entry: Option<DbId>,
    transaction: i64,
}

/// Whether the transaction has ended.
const IS_OVER: &str = "SELECT pg_xact_status($1::TEXT::xid8) IS DISTINCT FROM 'in progress' AS answer";

/// Asked by a statement of its own, after that: a statement sees what was committed before it began, and the transaction may
/// end in the middle of one that asks both.
const IS_THERE: &str = "\
    SELECT EXISTS (SELECT FROM queue_tokens WHERE token_id = $1) \
        OR EXISTS (SELECT FROM reservations WHERE reservation_id = $2) \
        OR EXISTS (SELECT FROM entries WHERE entry_id = $3) \
        OR EXISTS (SELECT FROM audit_log WHERE entry_id = $4) AS answer";

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    answer: bool,
}

impl Witness {
    /// The witness of what a plan writes.
    pub(super) fn of(plan: &Plan<'_>, transaction: i64) -> Self {
        let mut reservations = plan.units.iter().flat_map(|work| &work.reservations);
        let reservation = reservations.find_map(|change| match change {
            Change::Insert(reservation) => Some(DbId(reservation.id.get())),
            Change::Update(_) => None,
        });
        let mut entries = plan.units.iter().flat_map(|work| &work.entries);
        Self {
            token: plan.newcomers.as_slice().first().map(|token| DbId(token.id.get())),
            reservation,
            entry: entries.next().map(|entry| DbId(entry.id.get())),
            audit_entry: plan
                .units
                .iter()
                .flat_map(|work| &work.audit_log)
                .next()
                .map(|entry| DbId(entry.id.get())),
            transaction,
        }
    }

    /// Whether it was committed, as soon as the database says so. `None` when it does not in time, or when nothing was
    /// written that tells.
    pub(super) async fn ask(&self, pool: &Pool) -> Option<bool> {
        self.token.or(self.reservation).or(self.entry).or(self.audit_entry)?;
        timeout(PATIENCE, self.ask_until_told(pool)).await.ok()
    }

    async fn ask_until_told(&self, pool: &Pool) -> bool {
        loop {
            if let Some(committed) = self.ask_once(pool).await {
                return committed;
            }
            sleep(PAUSE).await;
        }
    }

    async fn ask_once(&self, pool: &Pool) -> Option<bool> {
        let mut connection = connection::acquire(pool).await.ok()?;
        let is_over = sql_query(IS_OVER).bind::<BigInt, _>(self.transaction);
        let is_over: Answer = Cached(is_over).get_result(&mut connection).await.ok()?;
        if !is_over.answer {
            return None;
        }
        let is_there = sql_query(IS_THERE)
            .bind::<Nullable<Id>, _>(self.token)
            .bind::<Nullable<Id>, _>(self.reservation)
            .bind::<Nullable<Id>, _>(self.entry)
            .bind::<Nullable<Id>, _>(self.audit_entry);
        let is_there: Answer = Cached(is_there).get_result(&mut connection).await.ok()?;
        Some(is_there.answer)
    }
}
