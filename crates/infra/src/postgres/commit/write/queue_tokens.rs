//! Queue tokens, and the lines they stand in.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use frontrow_domain::queue::{QueueToken, QueueTokenState};
use frontrow_domain::unit_of_work::AggregateRef;
use frontrow_domain::{QueueTokenId, RoomId, Version, Versioned};

use super::{Failure, Locked, Written, column, require_all};
use crate::postgres::cached::Cached;
use crate::postgres::commit::lock::{LineCounters, was_waiting};
use crate::sql::rows::{QueueTokenRow, QueueTokenStateRow};
use crate::sql::types::{DbId, Id, Instant};

const UPDATE: &str = "\
    UPDATE queue_tokens SET status = new.status, activated_at = new.activated_at, expires_at = new.expires_at, \
        departure = coalesce(new.departure, queue_tokens.departure), version = new.version \
    FROM unnest($1, $2, $3, $4, $5, $6) AS new (id, status, activated_at, expires_at, departure, version) \
    WHERE queue_tokens.token_id = new.id AND queue_tokens.version = new.version - 1 \
    RETURNING queue_tokens.token_id AS id";

/// Stores what changed of tokens, one version on, and moves the lines of those that wait no more. Whoever leaves a
/// line without being admitted gets the next departure number of the room, whose line is locked.
pub(super) async fn write(
    connection: &mut AsyncPgConnection,
    tokens: &[Versioned<QueueToken>],
    locked: &Locked,
) -> Result<(), Failure> {
    let mut moves = Moves::default();
    let departures: Vec<_> = tokens.iter().map(|token| moves.of(&token.value, locked)).collect();
    store(connection, tokens, &departures).await?;
    moves.write(connection).await
}

/// Stores what changed of a token that stands in no line, one version on.
pub(in crate::postgres::commit) async fn update(
    connection: &mut AsyncPgConnection,
    token: Versioned<QueueToken>,
) -> Result<(), Failure> {
    store(connection, &[token], &[None]).await
}

async fn store(
    connection: &mut AsyncPgConnection,
    tokens: &[Versioned<QueueToken>],
    departures: &[Option<i64>],
) -> Result<(), Failure> {
    if tokens.is_empty() {
        return Ok(());
    }
    let ids = column(tokens, |token| DbId(token.value.id.get()));
    let rows = column(tokens, |token| QueueTokenStateRow::new(&token.value.state, token.version.next()));
    let query = sql_query(UPDATE)
        .bind::<Array<Id>, _>(&ids)
        .bind::<Array<Text>, _>(column(&rows, |row| row.status.as_str()))
        .bind::<Array<Nullable<Instant>>, _>(column(&rows, |row| row.activated_at))
        .bind::<Array<Nullable<Instant>>, _>(column(&rows, |row| row.expires_at))
        .bind::<Array<Nullable<BigInt>>, _>(departures)
        .bind::<Array<BigInt>, _>(column(&rows, |row| row.version));
    let written: Vec<Written> = Cached(query).load(connection).await?;
    require_all(|id| AggregateRef::QueueToken(QueueTokenId::new(id)), ids, written)
}

const MOVE: &str = "\
    UPDATE lines SET waiting = moved.waiting, departures = moved.departures \
    FROM unnest($1, $2, $3) AS moved (room_id, waiting, departures) WHERE lines.room_id = moved.room_id";

/// The lines that tokens leave, as they will be.
#[derive(Default)]
struct Moves(BTreeMap<RoomId, LineCounters>);

impl Moves {
    /// Takes a token out of its line, if it was locked as one that waits and is written as one that does not. Gives its
    /// departure number, unless it is admitted.
    fn of(&mut self, token: &QueueToken, locked: &Locked) -> Option<i64> {
        if !locked.waits(token.id) || token.state == QueueTokenState::Wait {
            return None;
        }
        let counters = match self.0.entry(token.room_id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(locked.line(token.room_id)?),
        };
        counters.waiting -= 1;
        was_waiting(token).then(|| {
            counters.departures += 1;
            counters.departures
        })
    }

    async fn write(self, connection: &mut AsyncPgConnection) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let lines: Vec<_> = self.0.into_iter().collect();
        let query = sql_query(MOVE)
            .bind::<Array<Id>, _>(column(&lines, |(room_id, _)| DbId(room_id.get())))
            .bind::<Array<BigInt>, _>(column(&lines, |(_, line)| line.waiting))
            .bind::<Array<BigInt>, _>(column(&lines, |(_, line)| line.departures));
        Cached(query).execute(connection).await?;
        Ok(())
    }
}

const INSERT_LAST: &str = "\
    WITH line AS ( \
        UPDATE lines SET last_ticket = $4, waiting = waiting + $10, \
            admitted_through = CASE WHEN $10 = 0 THEN $4 ELSE admitted_through END \
        WHERE room_id = $2) \
    INSERT INTO queue_tokens \
        (token_id, room_id, user_id, ticket, entered_at, status, activated_at, expires_at, version) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// Stores a new token as the last of its line, which is locked. One that is ACTIVE at once was let in past nobody.
pub(in crate::postgres::commit) async fn insert_last(
    connection: &mut AsyncPgConnection,
    token: &QueueToken,
) -> Result<(), Failure> {
    let row = QueueTokenRow::new(token, Version::FIRST);
    let query = sql_query(INSERT_LAST)
        .bind::<Id, _>(row.token_id)
        .bind::<Id, _>(row.room_id)
        .bind::<Id, _>(row.user_id)
        .bind::<BigInt, _>(row.ticket)
        .bind::<Instant, _>(row.entered_at)
        .bind::<Text, _>(row.state.status)
        .bind::<Nullable<Instant>, _>(row.state.activated_at)
        .bind::<Nullable<Instant>, _>(row.state.expires_at)
        .bind::<BigInt, _>(row.state.version)
        .bind::<BigInt, _>(i64::from(token.state == QueueTokenState::Wait));
    Cached(query).execute(connection).await?;
    Ok(())
}
