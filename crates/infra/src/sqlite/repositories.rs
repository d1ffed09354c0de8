//! Loading aggregates: one statement each.

use async_trait::async_trait;
use diesel::dsl::sql;
use diesel::prelude::{
    BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, RunQueryDsl, SelectableHelper,
};
use diesel::sql_types::{Bool, Nullable};
use diesel::sqlite::SqliteConnection;
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
use uuid::Uuid;

use super::Sqlite;
use super::error::ReadError;
use super::statement::{Cached, CachedAs};
use crate::sql::rows::{
    AccountRow, ConcertRow, IdempotencyRow, PerformanceDateRow, QueueTokenRow, ReservationRow,
    ReservationSeatRow, RoomRow, SeatRow,
};
use crate::sql::schema::{
    accounts, concerts, idempotency_records, lines, performance_dates, queue_tokens, reservation_seats,
    reservations, rooms, seats,
};
use crate::sql::types::{DbId, DbTime, Id, Instant};

/// When the first waiter of the line of a room entered.
const WAITING_SINCE: &str = "\
    (SELECT entered_at FROM queue_tokens WHERE queue_tokens.room_id = rooms.room_id AND status = 'WAIT' \
        AND ticket > lines.admitted_through ORDER BY ticket LIMIT 1)";

/// The rooms with work, see [`Rooms::due`]: from the lines with waiters, whatever there is of others. A point of the grid of
/// ticks lies between the entry of the first waiter and now if the time since that point is not longer than the time
/// since the entry.
const DUE: &str = " AS latest) AS t \
    CROSS JOIN lines AS line INDEXED BY lines_waiting CROSS JOIN rooms AS due ON due.room_id = line.room_id \
    WHERE line.waiting > 0 AND (due.mode = 'OPEN' OR due.mode = 'AUTO' AND (\
        due.next_tick_at <= t.now AND coalesce(due.opens_at, due.sales_open_at, t.now) <= t.now \
            AND (t.now - due.next_tick_at) % (due.admit_interval_seconds * 1000000) <= t.now - (\
                SELECT entered_at FROM queue_tokens WHERE queue_tokens.room_id = line.room_id AND status = 'WAIT' \
                    AND ticket > line.admitted_through ORDER BY ticket LIMIT 1) \
        OR due.next_tick_at > CASE WHEN coalesce(due.opens_at, due.sales_open_at) > t.now \
            THEN coalesce(due.opens_at, due.sales_open_at) \
            ELSE t.latest + due.admit_interval_seconds * 1000000 END)))";

/// The keys of statements, see [`CachedAs`].
enum LiveToken {}
enum SomeSeats {}
enum HeldSeats {}

/// The token stored as WAIT or ACTIVE. The condition is a literal, or its partial index would not be used.
pub(super) fn find_live_token(
    connection: &mut SqliteConnection,
    room_id: RoomId,
    user_id: UserId,
) -> Result<Option<Versioned<QueueToken>>, ReadError> {
    let live = queue_tokens::table
        .filter(queue_tokens::room_id.eq(DbId(room_id.get())))
        .filter(queue_tokens::user_id.eq(DbId(user_id.get())))
        .filter(sql::<Bool>("status IN ('WAIT', 'ACTIVE')"))
        .select(QueueTokenRow::as_select());
    let row: Option<QueueTokenRow> = CachedAs::<LiveToken, _>::new(live).get_result(connection).optional()?;
    Ok(row.map(Versioned::try_from).transpose()?)
}

/// Ids as the JSON array that `json_each` takes: one parameter for any number of them.
pub(super) fn json_of(ids: impl IntoIterator<Item = Uuid>) -> String {
    let quoted: Vec<String> = ids.into_iter().map(|id| format!("\"{}\"", id.simple())).collect();
    format!("[{}]", quoted.join(","))
}

/// How many seats one read finds by their ids: as many as one person may hold by default. The text has a place for each, so
/// that it is always the same; an array of ids would be a table that SQLite makes for each read.
const SEATS_A_READ: usize = 4;

#[async_trait]
impl QueueTokens for Sqlite {
    async fn find(&self, id: QueueTokenId) -> Result<Option<Versioned<QueueToken>>, StorageError> {
        self.load(move |connection| {
            let row: Option<QueueTokenRow> = queue_tokens::table
                .find(DbId(id.get()))
                .select(QueueTokenRow::as_select())
                .get_result(connection)
                .optional()?;
            Ok(row.map(Versioned::try_from).transpose()?)
        })
        .await
    }

    async fn find_live(
        &self,
        room_id: RoomId,
        user_id: UserId,
    ) -> Result<Option<Versioned<QueueToken>>, StorageError> {
        self.load(move |connection| find_live_token(connection, room_id, user_id)).await
    }
}

#[async_trait]
impl Rooms for Sqlite {
    async fn find(&self, id: RoomId) -> Result<Option<Versioned<Room>>, StorageError> {
        self.load(move |connection| {
            let row: Option<RoomRow> = rooms::table
                .find(DbId(id.get()))
                .select(RoomRow::as_select())
                .get_result(connection)
                .optional()?;
            Ok(row.map(Versioned::try_from).transpose()?)
        })
        .await
    }

    async fn find_with_waiters(&self, id: RoomId) -> Result<Option<RoomWithWaiters>, StorageError> {
        self.read(move |connection| {
            let query = rooms::table
                .inner_join(lines::table)
                .filter(rooms::room_id.eq(DbId(id.get())))
                .select((RoomRow::as_select(), sql::<Nullable<Instant>>(WAITING_SINCE)));
            let row: Option<(RoomRow, Option<DbTime>)> = Cached(query).load(connection)?.pop();
            Ok(row.map(|(room, since)| room.with_waiters(since)).transpose()?)
        })
        .await
    }

    async fn due(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, RoomId)>,
        limit: u32,
    ) -> Result<Vec<RoomWithWaiters>, StorageError> {
        let (after, after_id) = after.unwrap_or((Timestamp::MIN, RoomId::new(Uuid::nil())));
        self.read(move |connection| {
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
            let rows: Vec<(RoomRow, Option<DbTime>)> = Cached(query).load(connection)?;
            Ok(rows.into_iter().map(|(room, since)| room.with_waiters(since)).collect::<Result<_, _>>()?)
        })
        .await
    }
}

#[async_trait]
impl Concerts for Sqlite {
    async fn find(&self, id: ConcertId) -> Result<Option<Concert>, StorageError> {
        self.load(move |connection| {
            let row: Option<ConcertRow> = concerts::table
                .find(DbId(id.get()))
                .select(ConcertRow::as_select())
                .get_result(connection)
                .optional()?;
            Ok(row.map(Concert::try_from).transpose()?)
        })
        .await
    }

    async fn find_date(
        &self,
        id: PerformanceDateId,
    ) -> Result<Option<(PerformanceDate, Concert)>, StorageError> {
        self.load(move |connection| {
            let row: Option<(PerformanceDateRow, ConcertRow)> = performance_dates::table
                .inner_join(concerts::table)
                .filter(performance_dates::performance_date_id.eq(DbId(id.get())))
                .select((PerformanceDateRow::as_select(), ConcertRow::as_select()))
                .get_result(connection)
                .optional()?;
            let Some((date, concert)) = row else { return Ok(None) };
            Ok(Some((date.into(), concert.try_into()?)))
        })
        .await
    }

    async fn sales_starts(&self, id: ConcertId) -> Result<Vec<Option<Timestamp>>, StorageError> {
        self.read(move |connection| {
            let starts: Vec<Option<DbTime>> = performance_dates::table
                .filter(performance_dates::concert_id.eq(DbId(id.get())))
                .select(performance_dates::on_sale_at)
                .load(connection)?;
            Ok(starts.into_iter().map(|start| start.map(|time| time.0)).collect())
        })
        .await
    }
}

#[async_trait]
impl Seats for Sqlite {
    async fn find_many(&self, ids: Vec<SeatId>) -> Result<Vec<Versioned<Seat>>, StorageError> {
        self.load(move |connection| {
            let mut found = Vec::with_capacity(ids.len());
            for some in ids.chunks(SEATS_A_READ) {
                let last = some.last().copied();
                let padded = some.iter().copied().chain(std::iter::repeat(last).flatten());
                let padded = padded.map(|id| DbId(id.get())).take(SEATS_A_READ);
                let query = seats::table.filter(seats::seat_id.eq_any(padded)).select(SeatRow::as_select());
                let rows: Vec<SeatRow> = CachedAs::<SomeSeats, _>::new(query).load(connection)?;
                found.extend(
                    rows.into_iter().map(Versioned::<Seat>::try_from).collect::<Result<Vec<_>, _>>()?,
                );
            }
            found.sort_unstable_by_key(|seat| seat.value.id);
            found.dedup_by_key(|seat| seat.value.id);
            Ok(found)
        })
        .await
    }
}

#[async_trait]
impl Reservations for Sqlite {
    async fn find(&self, id: ReservationId) -> Result<Option<Versioned<Reservation>>, StorageError> {
        self.load(move |connection| {
            let rows: Vec<(ReservationRow, ReservationSeatRow)> = reservations::table
                .inner_join(reservation_seats::table)
                .filter(reservations::reservation_id.eq(DbId(id.get())))
                .order(reservation_seats::seat_id)
                .select((ReservationRow::as_select(), ReservationSeatRow::as_select()))
                .load(connection)?;
            let (mut reservations, seats): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            Ok(reservations.pop().map(|row| row.with_seats(seats)).transpose()?)
        })
        .await
    }

    async fn holdings(
        &self,
        user_id: UserId,
        performance_date_id: PerformanceDateId,
        now: Timestamp,
    ) -> Result<Holdings, StorageError> {
        self.load(move |connection| {
            let lapsed =
                reservations::status.eq("RESERVED").and(reservations::hold_expires_at.le(DbTime(now)));
            let query = reservations::table
                .inner_join(reservation_seats::table)
                .filter(reservations::user_id.eq(DbId(user_id.get())))
                .filter(reservations::performance_date_id.eq(DbId(performance_date_id.get())))
                .filter(sql::<Bool>("reservations.status IN ('RESERVED', 'DONE')"))
                .select((reservations::reservation_id, lapsed));
            let seats: Vec<(DbId, bool)> = CachedAs::<HeldSeats, _>::new(query).load(connection)?;
            let (lapsed, live): (Vec<_>, Vec<_>) = seats.into_iter().partition(|(_, lapsed)| *lapsed);
            let mut lapsed: Vec<_> = lapsed.into_iter().map(|(id, _)| ReservationId::new(id.0)).collect();
            lapsed.sort_unstable();
            lapsed.dedup();
            Ok(Holdings { live_seats: u32::try_from(live.len()).unwrap_or(u32::MAX), lapsed })
        })
        .await
    }
}

#[async_trait]
impl Accounts for Sqlite {
    async fn find(&self, user_id: UserId) -> Result<Option<Versioned<Account>>, StorageError> {
        self.load(move |connection| {
            let row: Option<AccountRow> = accounts::table
                .find(DbId(user_id.get()))
                .select(AccountRow::as_select())
                .get_result(connection)
                .optional()?;
            Ok(row.map(Versioned::try_from).transpose()?)
        })
        .await
    }
}

#[async_trait]
impl IdempotencyRecords for Sqlite {
    async fn find(
        &self,
        user_id: UserId,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StorageError> {
        let key = key.as_str().to_owned();
        self.load(move |connection| {
            let row: Option<IdempotencyRow> = idempotency_records::table
                .find((DbId(user_id.get()), key.as_str()))
                .select(IdempotencyRow::as_select())
                .get_result(connection)
                .optional()?;
            Ok(row.map(IdempotencyRecord::try_from).transpose()?)
        })
        .await
    }
}
