//! Queue tokens, and the lines they stand in.

use diesel::sql_types::{Array, BigInt, Nullable, Text};
use frontrow_domain::Version;

use super::statement::Statement;
use super::{column, some_rows};
use crate::postgres::commit::plan::Plan;
use crate::sql::rows::{QueueTokenRow, QueueTokenStateRow};
use crate::sql::types::{DbId, Id, Instant};

/// Stores tokens that changed, then new ones, then the lines that both have moved.
pub(super) fn write<'u>(plan: &Plan<'u>, statements: &mut Vec<Statement<'u>>) {
    statements.extend(update(plan));
    statements.extend(insert(plan));
    statements.extend(move_lines(plan));
}

const UPDATE: &str = "\
    UPDATE queue_tokens SET status = new.status, activated_at = new.activated_at, expires_at = new.expires_at, \
        paused_at = new.paused_at, departure = coalesce(new.departure, queue_tokens.departure), version = new.version \
    FROM unnest($1, $2, $3, $4, $5, $6, $7) \
        AS new (id, activated_at, expires_at, paused_at, departure, version, status) \
    WHERE queue_tokens.token_id = new.id AND queue_tokens.version = new.version - 1 \
        AND queue_tokens.token_id = ANY($1)";

fn update<'u>(plan: &Plan<'u>) -> Option<Statement<'u>> {
    let rows = column(&plan.tokens, |change| {
        QueueTokenStateRow::new(&change.token.value.state, change.token.version.next())
    });
    let statement = some_rows("queue_tokens", UPDATE, &rows)?
        .bind::<Array<Id>, _>(column(&plan.tokens, |change| DbId(change.token.value.id.get())))
        .bind::<Array<Nullable<Instant>>, _>(column(&rows, |row| row.activated_at))
        .bind::<Array<Nullable<Instant>>, _>(column(&rows, |row| row.expires_at))
        .bind::<Array<Nullable<Instant>>, _>(column(&rows, |row| row.paused_at))
        .bind::<Array<Nullable<BigInt>>, _>(column(&plan.tokens, |change| change.departure))
        .bind::<Array<BigInt>, _>(column(&rows, |row| row.version));
    Some(statement.bind::<Array<Text>, _>(rows.into_iter().map(|row| row.status).collect::<Vec<_>>()))
}

const INSERT: &str = "\
    INSERT INTO queue_tokens \
        (token_id, room_id, user_id, ticket, entered_at, activated_at, expires_at, version, status) \
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9) AS new (token_id) ORDER BY token_id";

fn insert<'u>(plan: &Plan<'u>) -> Option<Statement<'u>> {
    let rows = column(&plan.newcomers, |token| QueueTokenRow::new(token, Version::FIRST));
    let statement = some_rows("queue_tokens", INSERT, &rows)?
        .bind::<Array<Id>, _>(column(&rows, |row| row.token_id))
        .bind::<Array<Id>, _>(column(&rows, |row| row.room_id))
        .bind::<Array<Id>, _>(column(&rows, |row| row.user_id))
        .bind::<Array<BigInt>, _>(column(&rows, |row| row.ticket))
        .bind::<Array<Instant>, _>(column(&rows, |row| row.entered_at))
        .bind::<Array<Nullable<Instant>>, _>(column(&rows, |row| row.state.activated_at))
        .bind::<Array<Nullable<Instant>>, _>(column(&rows, |row| row.state.expires_at))
        .bind::<Array<BigInt>, _>(column(&rows, |row| row.state.version));
    Some(statement.bind::<Array<Text>, _>(rows.into_iter().map(|row| row.state.status).collect::<Vec<_>>()))
}

const MOVE: &str = "\
    UPDATE lines SET last_ticket = moved.last_ticket, waiting = moved.waiting, \
        admitted_through = moved.admitted_through, departures = moved.departures \
    FROM unnest($1, $2, $3, $4, $5) AS moved (room_id, last_ticket, waiting, admitted_through, departures) \
    WHERE lines.room_id = moved.room_id AND lines.room_id = ANY($1)";

fn move_lines<'u>(plan: &Plan<'u>) -> Option<Statement<'u>> {
    let lines: Vec<_> = plan.lines.iter().collect();
    Some(
        some_rows("lines", MOVE, &lines)?
            .bind::<Array<Id>, _>(column(&lines, |(room_id, _)| DbId(room_id.get())))
            .bind::<Array<BigInt>, _>(column(&lines, |(_, line)| line.last_ticket))
            .bind::<Array<BigInt>, _>(column(&lines, |(_, line)| line.waiting))
            .bind::<Array<BigInt>, _>(column(&lines, |(_, line)| line.admitted_through))
            .bind::<Array<BigInt>, _>(column(&lines, |(_, line)| line.departures)),
    )
}
