//! Accounts, their entries, and the payments made from them.

use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use frontrow_domain::account::{Account, Entry, Payment};
use frontrow_domain::unit_of_work::AggregateRef;
use frontrow_domain::{Change, UserId};

use super::{Failure, Written, column, require_all, split};
use crate::postgres::cached::Cached;
use crate::sql::rows::{AccountRow, EntryRow, PaymentRow, TicketRow, ticket_rows};
use crate::sql::types::{Id, Instant};

const INSERT: &str = "\
    INSERT INTO accounts (user_id, balance, entry_count, version) \
    SELECT * FROM unnest($1, $2, $3, $4) AS new (user_id, balance, entry_count, version) ORDER BY user_id \
    ON CONFLICT (user_id) DO NOTHING RETURNING user_id AS id";

const UPDATE: &str = "\
    UPDATE accounts SET balance = new.balance, entry_count = new.entry_count, version = new.version \
    FROM unnest($1, $2, $3, $4) AS new (id, balance, entry_count, version) \
    WHERE accounts.user_id = new.id AND accounts.version = new.version - 1 RETURNING accounts.user_id AS id";

/// Stores new and changed accounts.
pub(super) async fn write(
    connection: &mut AsyncPgConnection,
    changes: &[Change<Account>],
) -> Result<(), Failure> {
    let (inserts, updates) = split(changes, AccountRow::new, AccountRow::new);
    store(connection, INSERT, &inserts).await?;
    store(connection, UPDATE, &updates).await
}

async fn store(
    connection: &mut AsyncPgConnection,
    statement: &'static str,
    rows: &[AccountRow],
) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids = column(rows, |row| row.user_id);
    let query = sql_query(statement)
        .bind::<Array<Id>, _>(&ids)
        .bind::<Array<BigInt>, _>(column(rows, |row| row.balance))
        .bind::<Array<BigInt>, _>(column(rows, |row| row.entry_count))
        .bind::<Array<BigInt>, _>(column(rows, |row| row.version));
    let written: Vec<Written> = Cached(query).load(connection).await?;
    require_all(|id| AggregateRef::Account(UserId::new(id)), ids, written)
}

const INSERT_ENTRIES: &str = "\
    INSERT INTO entries (entry_id, user_id, number, kind, amount, balance_after, entered_at, reservation_id) \
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS new (entry_id) ORDER BY entry_id";

/// Stores new entries.
pub(super) async fn insert_entries(
    connection: &mut AsyncPgConnection,
    entries: &[Entry],
) -> Result<(), Failure> {
    if entries.is_empty() {
        return Ok(());
    }
    let rows: Vec<EntryRow> = entries.iter().map(Into::into).collect();
    let query = sql_query(INSERT_ENTRIES)
        .bind::<Array<Id>, _>(column(&rows, |row| row.entry_id))
        .bind::<Array<Id>, _>(column(&rows, |row| row.user_id))
        .bind::<Array<BigInt>, _>(column(&rows, |row| row.number))
        .bind::<Array<Text>, _>(column(&rows, |row| row.kind.as_str()))
        .bind::<Array<BigInt>, _>(column(&rows, |row| row.amount))
        .bind::<Array<BigInt>, _>(column(&rows, |row| row.balance_after))
        .bind::<Array<Instant>, _>(column(&rows, |row| row.entered_at))
        .bind::<Array<Nullable<Id>>, _>(column(&rows, |row| row.reservation_id));
    Cached(query).execute(connection).await?;
    Ok(())
}

const INSERT_PAYMENTS: &str = "\
    INSERT INTO payments (payment_id, reservation_id, user_id, entry_id, amount, paid_at) \
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6) AS new (payment_id) ORDER BY payment_id";

const INSERT_TICKETS: &str = "\
    INSERT INTO tickets (ticket_id, payment_id, seat_id) \
    SELECT * FROM unnest($1, $2, $3) AS new (ticket_id) ORDER BY ticket_id";

/// Stores new payments with their tickets.
pub(super) async fn insert_payments(
    connection: &mut AsyncPgConnection,
    payments: &[Payment],
) -> Result<(), Failure> {
    if payments.is_empty() {
        return Ok(());
    }
    let rows: Vec<PaymentRow> = payments.iter().map(Into::into).collect();
    let query = sql_query(INSERT_PAYMENTS)
        .bind::<Array<Id>, _>(column(&rows, |row| row.payment_id))
        .bind::<Array<Id>, _>(column(&rows, |row| row.reservation_id))
        .bind::<Array<Id>, _>(column(&rows, |row| row.user_id))
        .bind::<Array<Id>, _>(column(&rows, |row| row.entry_id))
        .bind::<Array<BigInt>, _>(column(&rows, |row| row.amount))
        .bind::<Array<Instant>, _>(column(&rows, |row| row.paid_at));
    Cached(query).execute(connection).await?;

    let rows: Vec<TicketRow> = payments.iter().flat_map(ticket_rows).collect();
    let query = sql_query(INSERT_TICKETS)
        .bind::<Array<Id>, _>(column(&rows, |row| row.ticket_id))
        .bind::<Array<Id>, _>(column(&rows, |row| row.payment_id))
        .bind::<Array<Id>, _>(column(&rows, |row| row.seat_id));
    Cached(query).execute(connection).await?;
    Ok(())
}
