//! Loading aggregates for decisions: each kind by one statement for all who ask at the same time.

use async_trait::async_trait;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text};
use diesel_async::RunQueryDsl;
use frontrow_domain::account::Account;
use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::idempotency::{IdempotencyKey, IdempotencyRecord};
use frontrow_domain::ports::{
    Accounts, Concerts, IdempotencyRecords, QueueTokens, Reservations, Rooms, Seats, StorageError,
};
use frontrow_domain::queue::{CLOCK_SLACK, QueueToken, Room, RoomWithWaiters};
use frontrow_domain::reservation::{Holdings, Reservation};
use frontrow_domain::seat::Seat;
use frontrow_domain::{
    ConcertId, PerformanceDateId, QueueTokenId, ReservationId, RoomId, SeatId, Timestamp, UserId, Versioned,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::Postgres;
use super::cached::Cached;
use super::connection::Pool;
use super::error::read_error;
use super::loader::Loader;
use super::session::Session;
use crate::sql::rows::{
    AccountRow, ConcertRow, IdempotencyRow, PerformanceDateRow, QueueTokenRow, ReservationRow,
    ReservationSeatRow, RoomRow, SeatRow,
};
use crate::sql::schema::{
    accounts, concerts, lines, performance_dates, queue_tokens, reservation_seats, reservations, rooms, seats,
};
use crate::sql::types::{DbId, DbTime, Id, Instant};

/// A reservation with its seats, ordered by id.
type ReservedRows = (ReservationRow, Vec<ReservationSeatRow>);

/// Whose seats of which date, and when.
type HoldingsKey = (DbId, DbId, DbTime);

/// The reads by key, a kind each.
pub(super) struct Loaders {
    tokens: Loader<DbId, QueueTokenRow>,
    live_tokens: Loader<(DbId, DbId), QueueTokenRow>,
    rooms: Loader<DbId, RoomRow>,
    concerts: Loader<DbId, ConcertRow>,
    dates: Loader<DbId, (PerformanceDateRow, ConcertRow)>,
    seats: Loader<DbId, SeatRow>,
    reservations: Loader<DbId, ReservedRows>,
    holdings: Loader<HoldingsKey, Holdings>,
    accounts: Loader<DbId, AccountRow>,
    answers: Loader<(DbId, String), IdempotencyRow>,
}

impl Loaders {
    /// Starts them on the current runtime.
    pub(super) fn start(pool: &Pool) -> Self {
        Self {
            tokens: Loader::start(pool.clone(), fetch_tokens),
            live_tokens: Loader::start(pool.clone(), fetch_live_tokens),
            rooms: Loader::start(pool.clone(), fetch_rooms),
            concerts: Loader::start(pool.clone(), fetch_concerts),
            dates: Loader::start(pool.clone(), fetch_dates),
            seats: Loader::start(pool.clone(), fetch_seats),
            reservations: Loader::start(pool.clone(), fetch_reservations),
            holdings: Loader::start(pool.clone(), fetch_holdings),
            accounts: Loader::start(pool.clone(), fetch_accounts),
            answers: Loader::start(pool.clone(), fetch_answers),
        }
    }
}

/// What a [`super::loader::Fetch`] gives.
type Fetched<'c, K, V> = BoxFuture<'c, QueryResult<Vec<(K, V)>>>;

fn keyed<K, V>(rows: Vec<V>, key: impl Fn(&V) -> K) -> Vec<(K, V)> {
    rows.into_iter().map(|row| (key(&row), row)).collect()
}

fn fetch_tokens(connection: &mut Session, ids: Vec<DbId>) -> Fetched<'_, DbId, QueueTokenRow> {
    let query =
        queue_tokens::table.filter(queue_tokens::token_id.eq_any(ids)).select(QueueTokenRow::as_select());
    async move { Ok(keyed(Cached(query).load(connection).await?, |row: &QueueTokenRow| row.token_id)) }
        .boxed()
}

/// The tokens stored as WAIT or ACTIVE. The states are in the text, so that the partial index serves; LATERAL with a LIMIT,
/// so that each is looked up by it, whatever the planner thinks of the size of the table.
const LIVE: &str = "\
    SELECT live.* FROM unnest($1, $2) AS wanted (room_id, user_id) \
    CROSS JOIN LATERAL (SELECT * FROM queue_tokens \
        WHERE room_id = wanted.room_id AND user_id = wanted.user_id AND status IN ('WAIT', 'ACTIVE') LIMIT 1) AS live";

/// The live tokens of these users in these rooms.
pub(super) async fn live_tokens(
    mut connection: &Session,
    rooms: Vec<DbId>,
    users: Vec<DbId>,
) -> QueryResult<Vec<QueueTokenRow>> {
    let query = sql_query(LIVE).bind::<Array<Id>, _>(rooms).bind::<Array<Id>, _>(users);
    Cached(query).load(&mut connection).await
}

fn fetch_live_tokens(
    connection: &mut Session,
    keys: Vec<(DbId, DbId)>,
) -> Fetched<'_, (DbId, DbId), QueueTokenRow> {
    async move {
        let (rooms, users) = keys.into_iter().unzip();
        Ok(keyed(live_tokens(connection, rooms, users).await?, |row| (row.room_id, row.user_id)))
    }
    .boxed()
}

fn fetch_rooms(connection: &mut Session, ids: Vec<DbId>) -> Fetched<'_, DbId, RoomRow> {
    let query = rooms::table.filter(rooms::room_id.eq_any(ids)).select(RoomRow::as_select());
    async move { Ok(keyed(Cached(query).load(connection).await?, |row: &RoomRow| row.room_id)) }.boxed()
}

fn fetch_concerts(connection: &mut Session, ids: Vec<DbId>) -> Fetched<'_, DbId, ConcertRow> {
    let query = concerts::table.filter(concerts::concert_id.eq_any(ids)).select(ConcertRow::as_select());
    async move { Ok(keyed(Cached(query).load(connection).await?, |row: &ConcertRow| row.concert_id)) }.boxed()
}

fn fetch_dates(
    connection: &mut Session,
    ids: Vec<DbId>,
) -> Fetched<'_, DbId, (PerformanceDateRow, ConcertRow)> {
    let query = performance_dates::table
        .inner_join(concerts::table)
        .filter(performance_dates::performance_date_id.eq_any(ids))
        .select((PerformanceDateRow::as_select(), ConcertRow::as_select()));
    async move {
        let rows: Vec<(PerformanceDateRow, ConcertRow)> = Cached(query).load(connection).await?;
        Ok(keyed(rows, |(date, _)| date.performance_date_id))
    }
    .boxed()
}

fn fetch_seats(connection: &mut Session, ids: Vec<DbId>) -> Fetched<'_, DbId, SeatRow> {
    let query = seats::table.filter(seats::seat_id.eq_any(ids)).select(SeatRow::as_select());
    async move { Ok(keyed(Cached(query).load(connection).await?, |row: &SeatRow| row.seat_id)) }.boxed()
}

fn fetch_reservations(connection: &mut Session, ids: Vec<DbId>) -> Fetched<'_, DbId, ReservedRows> {
    let query = reservations::table
        .inner_join(reservation_seats::table)
        .filter(reservations::reservation_id.eq_any(ids))
        .order((reservations::reservation_id, reservation_seats::seat_id))
        .select((ReservationRow::as_select(), ReservationSeatRow::as_select()));
    async move {
        let rows: Vec<(ReservationRow, ReservationSeatRow)> = Cached(query).load(connection).await?;
        let mut found: Vec<(DbId, ReservedRows)> = Vec::new();
        for (reservation, seat) in rows {
            match found.last_mut() {
                Some((id, (_, seats))) if *id == reservation.reservation_id => seats.push(seat),
                _ => found.push((reservation.reservation_id, (reservation, vec![seat]))),
            }
        }
        Ok(found)
    }
    .boxed()
}

const HOLDINGS: &str = "\
    SELECT wanted.*, found.* FROM unnest($1, $2, $3) AS wanted (user_id, date_id, now) \
    CROSS JOIN LATERAL ( \
        SELECT count(*) FILTER (WHERE status = 'DONE' OR hold_expires_at > wanted.now) AS live_seats, \
            array_agg(DISTINCT reservation_id) \
                FILTER (WHERE status = 'RESERVED' AND hold_expires_at <= wanted.now) AS lapsed \
        FROM reservations JOIN reservation_seats USING (reservation_id) \
        WHERE reservations.user_id = wanted.user_id AND performance_date_id = wanted.date_id \
            AND status IN ('RESERVED', 'DONE')) AS found";

#[derive(QueryableByName)]
struct HoldingsRow {
    #[diesel(sql_type = Id)]
    user_id: DbId,
    #[diesel(sql_type = Id)]
    date_id: DbId,
    #[diesel(sql_type = Instant)]
    now: DbTime,
    #[diesel(sql_type = BigInt)]
    live_seats: i64,
    #[diesel(sql_type = Nullable<Array<Id>>)]
    lapsed: Option<Vec<DbId>>,
}

impl From<HoldingsRow> for Holdings {
    fn from(row: HoldingsRow) -> Self {
        let lapsed = row.lapsed.unwrap_or_default().into_iter().map(|id| ReservationId::new(id.0));
        Self { live_seats: u32::try_from(row.live_seats).unwrap_or(u32::MAX), lapsed: lapsed.collect() }
    }
}

fn fetch_holdings(connection: &mut Session, keys: Vec<HoldingsKey>) -> Fetched<'_, HoldingsKey, Holdings> {
    let query = sql_query(HOLDINGS)
        .bind::<Array<Id>, _>(keys.iter().map(|(user_id, _, _)| *user_id).collect::<Vec<_>>())
        .bind::<Array<Id>, _>(keys.iter().map(|(_, date_id, _)| *date_id).collect::<Vec<_>>())
        .bind::<Array<Instant>, _>(keys.iter().map(|(_, _, now)| *now).collect::<Vec<_>>());
    async move {
        let rows: Vec<HoldingsRow> = Cached(query).load(connection).await?;
        Ok(rows.into_iter().map(|row| ((row.user_id, row.date_id, row.now), row.into())).collect())
    }
    .boxed()
}

fn fetch_accounts(connection: &mut Session, ids: Vec<DbId>) -> Fetched<'_, DbId, AccountRow> {
    let query = accounts::table.filter(accounts::user_id.eq_any(ids)).select(AccountRow::as_select());
    async move { Ok(keyed(Cached(query).load(connection).await?, |row: &AccountRow| row.user_id)) }.boxed()
}

/// LATERAL as in [`LIVE`].
const ANSWERS: &str = "\
    SELECT found.* FROM unnest($1, $2) AS wanted (user_id, key) \
    CROSS JOIN LATERAL (SELECT * FROM idempotency_records \
        WHERE user_id = wanted.user_id AND idempotency_key = wanted.key LIMIT 1) AS found";

fn fetch_answers(
    connection: &mut Session,
    keys: Vec<(DbId, String)>,
) -> Fetched<'_, (DbId, String), IdempotencyRow> {
    async move {
        let (users, keys): (Vec<DbId>, Vec<String>) = keys.into_iter().unzip();
        let query = sql_query(ANSWERS).bind::<Array<Id>, _>(users).bind::<Array<Text>, _>(keys);
        let key = |row: &IdempotencyRow| (row.user_id, row.idempotency_key.clone());
        Ok(keyed(Cached(query).load(connection).await?, key))
    }
    .boxed()
}

#[async_trait]
impl QueueTokens for Postgres {
    async fn find(&self, id: QueueTokenId) -> Result<Option<Versioned<QueueToken>>, StorageError> {
        let row = self.loaders.tokens.one(DbId(id.get())).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn find_live(
        &self,
        room_id: RoomId,
        user_id: UserId,
    ) -> Result<Option<Versioned<QueueToken>>, StorageError> {
        let row = self.loaders.live_tokens.one((DbId(room_id.get()), DbId(user_id.get()))).await?;
        row.map(TryInto::try_into).transpose()
    }
}

#[async_trait]
impl Rooms for Postgres {
    async fn find(&self, id: RoomId) -> Result<Option<Versioned<Room>>, StorageError> {
        let row = self.loaders.rooms.one(DbId(id.get())).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn find_with_waiters(&self, id: RoomId) -> Result<Option<RoomWithWaiters>, StorageError> {
        let query = rooms::table
            .inner_join(lines::table)
            .filter(rooms::room_id.eq(DbId(id.get())))
            .select((RoomRow::as_select(), sql::<Nullable<Instant>>(WAITING_SINCE)));
        let mut connection = self.connection().await?;
        let row = Cached(query).get_result::<(RoomRow, Option<DbTime>)>(&mut connection).await;
        drop(connection);
        let row = row.optional().map_err(read_error)?;
        row.map(|(room, since)| room.with_waiters(since)).transpose()
    }

    async fn due(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, RoomId)>,
        limit: u32,
    ) -> Result<Vec<RoomWithWaiters>, StorageError> {
        let (after, after_id) = after.unwrap_or((Timestamp::MIN, RoomId::new(Uuid::nil())));
        let is_due = sql::<Bool>("rooms.room_id IN (SELECT due.room_id FROM (SELECT ")
            .bind::<Instant, _>(DbTime(now))
            .sql(" AS now, ")
            .bind::<Instant, _>(DbTime(now.plus(CLOCK_SLACK)))
            .sql(DUE);
        let is_after = sql::<Bool>("(rooms.next_tick_at, rooms.room_id) > (")
            .bind::<Instant, _>(DbTime(after))
            .sql(", ")
            .bind::<Id, _>(DbId(after_id.get()))
            .sql(")");
        let query = rooms::table
            .inner_join(lines::table)
            .filter(is_due)
            .filter(is_after)
            .order((rooms::next_tick_at, rooms::room_id))
            .limit(i64::from(limit))
            .select((RoomRow::as_select(), sql::<Nullable<Instant>>(WAITING_SINCE)));
        let mut connection = self.connection().await?;
        let rows = Cached(query).load::<(RoomRow, Option<DbTime>)>(&mut connection).await;
        drop(connection);
        rows.map_err(read_error)?.into_iter().map(|(room, since)| room.with_waiters(since)).collect()
    }
}

/// When the first waiter of the line of a room entered.
const WAITING_SINCE: &str = "\
    (SELECT entered_at FROM queue_tokens WHERE queue_tokens.room_id = rooms.room_id AND status = 'WAIT' \
        AND ticket > lines.admitted_through ORDER BY ticket LIMIT 1)";

/// The rooms with work, see [`Rooms::due`]: from the lines with waiters, whatever there is of others. A point of the grid of
/// ticks lies between the entry of the first waiter and now if the time since that point is not longer than the time
/// since the entry.
const DUE: &str = " AS latest) AS t CROSS JOIN lines AS line JOIN rooms AS due ON due.room_id = line.room_id \
    WHERE line.is_waiting AND (due.mode = 'OPEN' OR due.mode = 'AUTO' AND ( \
        due.next_tick_at <= t.now AND coalesce(due.opens_at, due.sales_open_at, t.now) <= t.now \
            AND mod(extract(epoch FROM t.now - due.next_tick_at), due.admit_interval_seconds) \
                <= extract(epoch FROM t.now - ( \
                    SELECT entered_at FROM queue_tokens WHERE queue_tokens.room_id = line.room_id \
                        AND status = 'WAIT' AND ticket > line.admitted_through ORDER BY ticket LIMIT 1)) \
        OR due.next_tick_at > CASE WHEN coalesce(due.opens_at, due.sales_open_at) > t.now \
            THEN coalesce(due.opens_at, due.sales_open_at) \
            ELSE t.latest + due.admit_interval_seconds * INTERVAL '1 second' END)))";

#[async_trait]
impl Concerts for Postgres {
    async fn find(&self, id: ConcertId) -> Result<Option<Concert>, StorageError> {
        let row = self.loaders.concerts.one(DbId(id.get())).await?;
        row.map(TryInto::try_into).transpose()
    }

    async fn find_date(
        &self,
        id: PerformanceDateId,
    ) -> Result<Option<(PerformanceDate, Concert)>, StorageError> {
        let Some((date, concert)) = self.loaders.dates.one(DbId(id.get())).await? else { return Ok(None) };
        Ok(Some((date.into(), concert.try_into()?)))
    }

    async fn sales_starts(&self, id: ConcertId) -> Result<Vec<Option<Timestamp>>, StorageError> {
        let query = performance_dates::table
            .filter(performance_dates::concert_id.eq(DbId(id.get())))
            .select(performance_dates::on_sale_at);
        let mut connection = self.connection().await?;
        let starts = Cached(query).load::<Option<DbTime>>(&mut connection).await;
        drop(connection);
        Ok(starts.map_err(read_error)?.into_iter().map(|start| start.map(|time| time.0)).collect())
    }
}

#[async_trait]
impl Seats for Postgres {
    async fn find_many(&self, mut ids: Vec<SeatId>) -> Result<Vec<Versioned<Seat>>, StorageError> {
        ids.sort_unstable();
        ids.dedup();
        let ids = ids.into_iter().map(|id| DbId(id.get())).collect();
        self.loaders.seats.many(ids).await?.into_iter().map(TryInto::try_into).collect()
    }
}

#[async_trait]
impl Reservations for Postgres {
    async fn find(&self, id: ReservationId) -> Result<Option<Versioned<Reservation>>, StorageError> {
        let found = self.loaders.reservations.one(DbId(id.get())).await?;
        found.map(|(reservation, seats)| reservation.with_seats(seats)).transpose()
    }

    async fn holdings(
        &self,
        user_id: UserId,
        performance_date_id: PerformanceDateId,
        now: Timestamp,
    ) -> Result<Holdings, StorageError> {
        let key = (DbId(user_id.get()), DbId(performance_date_id.get()), DbTime(now));
        Ok(self.loaders.holdings.one(key).await?.unwrap_or_default())
    }
}

#[async_trait]
impl Accounts for Postgres {
    async fn find(&self, user_id: UserId) -> Result<Option<Versioned<Account>>, StorageError> {
        let row = self.loaders.accounts.one(DbId(user_id.get())).await?;
        row.map(TryInto::try_into).transpose()
    }
}

#[async_trait]
impl IdempotencyRecords for Postgres {
    async fn find(
        &self,
        user_id: UserId,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StorageError> {
        let key = (DbId(user_id.get()), key.as_str().to_owned());
        self.loaders.answers.one(key).await?.map(TryInto::try_into).transpose()
    }
}
