//! What is looked up once the rows are locked: it is what the last who held the locks has left.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Text};
use diesel_async::RunQueryDsl;
use frontrow_domain::idempotency::IdempotencyRecord;
use frontrow_domain::queue::{QueueToken, Room, RoomPolicy};
use frontrow_domain::unit_of_work::{Command, Join, UnitOfWork};
use frontrow_domain::{RoomId, Timestamp, UserId, Versioned};
use futures_util::TryFutureExt;
use futures_util::future::try_join3;

use super::failure::Failure;
use crate::postgres::cached::Cached;
use crate::postgres::repositories::live_tokens;
use crate::postgres::session::Session;
use crate::sql::rows::{QueueTokenRow, RoomRow};
use crate::sql::schema::rooms;
use crate::sql::types::{DbId, DbTime, Id, Instant};

/// What a batch needs to know besides the versions of what it writes.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Until when each idempotency key of the batch counts, if it is taken.
    keys: HashMap<(UserId, String), Timestamp>,
    policies: HashMap<RoomId, RoomPolicy>,
    live: HashMap<(RoomId, UserId), Versioned<QueueToken>>,
    active: HashMap<RoomId, u64>,
}

impl Found {
    /// Whether the key of this record has an answer that still counts when this one is made.
    pub(super) fn is_taken(&self, record: &IdempotencyRecord) -> bool {
        let key = (record.request.user_id, record.request.key.as_str().to_owned());
        self.keys.get(&key).is_some_and(|expires_at| *expires_at > record.created_at)
    }

    /// The policy at the door of a room that somebody joins.
    pub(super) fn policy(&self, room_id: RoomId) -> Option<&RoomPolicy> {
        self.policies.get(&room_id)
    }

    /// The token of a joiner that is stored as WAIT or ACTIVE.
    pub(super) fn live(&self, join: &Join) -> Option<Versioned<QueueToken>> {
        self.live.get(&(join.room_id, join.user_id)).copied()
    }

    /// How many are ACTIVE; 0 where [`RoomPolicy::entrance`] does not look at it.
    pub(super) fn active(&self, room_id: RoomId) -> u64 {
        self.active.get(&room_id).copied().unwrap_or(0)
    }
}

/// Looks up what the units need, in one flight; and in a second one how many are ACTIVE, where that matters.
pub(super) async fn find(connection: &Session, units: &[&UnitOfWork]) -> Result<Found, Failure> {
    let joins: Vec<Join> = units.iter().filter_map(|work| join_of(work)).collect();
    let lookups = try_join3(keys(connection, units), policies(connection, &joins), live(connection, &joins));
    let (keys, policies, live) = lookups.await?;
    let active = active(connection, &joins, &policies).await?;
    Ok(Found { keys, policies, live, active })
}

/// The Join of a unit, if that is its command.
pub(super) const fn join_of(work: &UnitOfWork) -> Option<Join> {
    match work.command {
        Some(Command::Join(join)) => Some(join),
        _ => None,
    }
}

/// LATERAL with a LIMIT: each is looked up by its index, whatever the planner thinks of the size of the table.
const KEYS: &str = "\
    SELECT taken.user_id, taken.idempotency_key, taken.expires_at FROM unnest($1, $2) AS wanted (user_id, key) \
    CROSS JOIN LATERAL (SELECT * FROM idempotency_records \
        WHERE user_id = wanted.user_id AND idempotency_key = wanted.key LIMIT 1) AS taken";

#[derive(QueryableByName)]
struct TakenKey {
    #[diesel(sql_type = Id)]
    user_id: DbId,
    #[diesel(sql_type = Text)]
    idempotency_key: String,
    #[diesel(sql_type = Instant)]
    expires_at: DbTime,
}

async fn keys(
    mut connection: &Session,
    units: &[&UnitOfWork],
) -> Result<HashMap<(UserId, String), Timestamp>, Failure> {
    let requests = units.iter().filter_map(|work| work.idempotency.as_ref()).map(|record| &record.request);
    let (users, keys): (Vec<_>, Vec<_>) =
        requests.map(|request| (DbId(request.user_id.get()), request.key.as_str())).unzip();
    if users.is_empty() {
        return Ok(HashMap::new());
    }
    let query = sql_query(KEYS).bind::<Array<Id>, _>(users).bind::<Array<Text>, _>(keys);
    let taken: Vec<TakenKey> = Cached(query).load(&mut connection).await?;
    let entry = |row: TakenKey| ((UserId::new(row.user_id.0), row.idempotency_key), row.expires_at.0);
    Ok(taken.into_iter().map(entry).collect())
}

async fn policies(mut connection: &Session, joins: &[Join]) -> Result<HashMap<RoomId, RoomPolicy>, Failure> {
    if joins.is_empty() {
        return Ok(HashMap::new());
    }
    let mut ids: Vec<DbId> = joins.iter().map(|join| DbId(join.room_id.get())).collect();
    ids.sort_unstable();
    ids.dedup();
    let query = rooms::table.filter(rooms::room_id.eq_any(ids)).select(RoomRow::as_select());
    let rows: Vec<RoomRow> = Cached(query).load(&mut connection).await?;
    let policy = |row: RoomRow| {
        let room = Versioned::<Room>::try_from(row).map_err(Failure::unavailable)?.value;
        Ok((room.id, room.policy))
    };
    rows.into_iter().map(policy).collect()
}

async fn live(
    connection: &Session,
    joins: &[Join],
) -> Result<HashMap<(RoomId, UserId), Versioned<QueueToken>>, Failure> {
    if joins.is_empty() {
        return Ok(HashMap::new());
    }
    let (rooms, users): (Vec<DbId>, Vec<DbId>) =
        joins.iter().map(|join| (DbId(join.room_id.get()), DbId(join.user_id.get()))).unzip();
    let rows = live_tokens(connection, rooms, users).await?;
    let token = |row: QueueTokenRow| {
        let token = Versioned::<QueueToken>::try_from(row).map_err(Failure::unavailable)?;
        Ok(((token.value.room_id, token.value.user_id), token))
    };
    rows.into_iter().map(token).collect()
}

const ACTIVE: &str = "\
    SELECT wanted.room_id, (SELECT count(*) FROM queue_tokens WHERE room_id = wanted.room_id \
        AND status = 'ACTIVE' AND (expires_at > wanted.now OR paused_at IS NOT NULL)) AS active FROM unnest($1, $2) AS wanted (room_id, now)";

#[derive(QueryableByName)]
struct ActiveIn {
    #[diesel(sql_type = Id)]
    room_id: DbId,
    #[diesel(sql_type = BigInt)]
    active: i64,
}

/// Counted at the earliest time of the joins of a room: never too few.
async fn active(
    mut connection: &Session,
    joins: &[Join],
    policies: &HashMap<RoomId, RoomPolicy>,
) -> Result<HashMap<RoomId, u64>, Failure> {
    let mut earliest: HashMap<RoomId, Timestamp> = HashMap::new();
    for join in joins {
        if policies.get(&join.room_id).is_some_and(RoomPolicy::entrance_needs_active) {
            let now = earliest.entry(join.room_id).or_insert(join.now);
            *now = join.now.min(*now);
        }
    }
    if earliest.is_empty() {
        return Ok(HashMap::new());
    }
    let (rooms, times): (Vec<_>, Vec<_>) =
        earliest.into_iter().map(|(room_id, now)| (DbId(room_id.get()), DbTime(now))).unzip();
    let query = sql_query(ACTIVE).bind::<Array<Id>, _>(rooms).bind::<Array<Instant>, _>(times);
    let counted = Cached(query).load::<ActiveIn>(&mut connection).map_err(Failure::from).await?;
    let entry = |row: ActiveIn| (RoomId::new(row.room_id.0), u64::try_from(row.active).unwrap_or(0));
    Ok(counted.into_iter().map(entry).collect())
}
