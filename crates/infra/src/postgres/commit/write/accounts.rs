//! Accounts, their entries, and the payments made from them.

use diesel::sql_types::{Array, BigInt, Nullable, Text};
use frontrow_domain::unit_of_work::UnitOfWork;

use super::statement::Statement;
use super::{column, some_rows, split};
use crate::sql::rows::{AccountRow, EntryRow, PaymentRow, TicketRow, ticket_rows};
use crate::sql::types::{Id, Instant};

const INSERT: &str = "\
    INSERT INTO accounts (user_id, balance, entry_count, version) \
    SELECT * FROM unnest($1, $2, $3, $4) AS new (user_id, balance, entry_count, version) ORDER BY user_id \
    ON CONFLICT (user_id) DO NOTHING";

const UPDATE: &str = "\
    UPDATE accounts SET balance = new.balance, entry_count = new.entry_count, version = new.version \
    FROM unnest($1, $2, $3, $4) AS new (id, balance, entry_count, version) \
    WHERE accounts.user_id = new.id AND accounts.version = new.version - 1 AND accounts.user_id = ANY($1)";

/// Stores new and changed accounts.
pub(super) fn write<'u>(units: &[&'u UnitOfWork], statements: &mut Vec<Statement<'u>>) {
    let changes = units.iter().flat_map(|work| &work.accounts);
    let (inserts, updates) = split(changes, AccountRow::new, AccountRow::new);
    statements.extend(store(INSERT, &inserts));
    statements.extend(store(UPDATE, &updates));
}

fn store<'u>(text: &'static str, rows: &[AccountRow]) -> Option<Statement<'u>> {
    let statement = some_rows("accounts", text, rows)?;
    Some(
        statement
            .bind::<Array<Id>, _>(column(rows, |row| row.user_id))
            .bind::<Array<BigInt>, _>(column(rows, |row| row.balance))
            .bind::<Array<BigInt>, _>(column(rows, |row| row.entry_count))
            .bind::<Array<BigInt>, _>(column(rows, |row| row.version)),
    )
}

const INSERT_ENTRIES: &str = "\
    INSERT INTO entries (entry_id, user_id, number, amount, balance_after, entered_at, reservation_id, kind) \
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS new (entry_id) ORDER BY entry_id";

/// Stores new entries.
pub(super) fn insert_entries<'u>(units: &[&'u UnitOfWork]) -> Option<Statement<'u>> {
    let rows: Vec<EntryRow> = units.iter().flat_map(|work| &work.entries).map(Into::into).collect();
    let statement = some_rows("entries", INSERT_ENTRIES, &rows)?;
    let statement = statement
        .bind::<Array<Id>, _>(column(&rows, |row| row.entry_id))
        .bind::<Array<Id>, _>(column(&rows, |row| row.user_id))
        .bind::<Array<BigInt>, _>(column(&rows, |row| row.number))
        .bind::<Array<BigInt>, _>(column(&rows, |row| row.amount))
        .bind::<Array<BigInt>, _>(column(&rows, |row| row.balance_after))
        .bind::<Array<Instant>, _>(column(&rows, |row| row.entered_at))
        .bind::<Array<Nullable<Id>>, _>(column(&rows, |row| row.reservation_id));
    Some(statement.bind::<Array<Text>, _>(rows.into_iter().map(|row| row.kind).collect::<Vec<_>>()))
}

const INSERT_PAYMENTS: &str = "\
    INSERT INTO payments (payment_id, reservation_id, user_id, entry_id, amount, paid_at) \
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6) AS new (payment_id) ORDER BY payment_id";

const INSERT_TICKETS: &str = "\
    INSERT INTO tickets (ticket_id, payment_id, seat_id) \
    SELECT * FROM unnest($1, $2, $3) AS new (ticket_id) ORDER BY ticket_id";

/// Stores new payments with their tickets.
pub(super) fn insert_payments<'u>(units: &[&'u UnitOfWork], statements: &mut Vec<Statement<'u>>) {
    let payments = || units.iter().flat_map(|work| &work.payments);
    let rows: Vec<PaymentRow> = payments().map(Into::into).collect();
    statements.extend(some_rows("payments", INSERT_PAYMENTS, &rows).map(|statement| {
        statement
            .bind::<Array<Id>, _>(column(&rows, |row| row.payment_id))
            .bind::<Array<Id>, _>(column(&rows, |row| row.reservation_id))
            .bind::<Array<Id>, _>(column(&rows, |row| row.user_id))
            .bind::<Array<Id>, _>(column(&rows, |row| row.entry_id))
            .bind::<Array<BigInt>, _>(column(&rows, |row| row.amount))
            .bind::<Array<Instant>, _>(column(&rows, |row| row.paid_at))
    }));
    let rows: Vec<TicketRow> = payments().flat_map(ticket_rows).collect();
    statements.extend(some_rows("tickets", INSERT_TICKETS, &rows).map(|statement| {
        statement
            .bind::<Array<Id>, _>(column(&rows, |row| row.ticket_id))
            .bind::<Array<Id>, _>(column(&rows, |row| row.payment_id))
            .bind::<Array<Id>, _>(column(&rows, |row| row.seat_id))
    }));
}
