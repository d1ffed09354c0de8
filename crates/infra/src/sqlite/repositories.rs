//! Loading aggregates: one statement each.

use async_trait::async_trait;
use diesel::dsl::sql;
use diesel::prelude::{
    BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, RunQueryDsl, SelectableHelper,
};
use diesel::sql_types::Bool;
use diesel::sqlite::SqliteConnection;
use frontrow_domain::account::Account;
use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::idempotency::{IdempotencyKey, IdempotencyRecord};
use frontrow_domain::ports::{
    Accounts, Concerts, IdempotencyRecords, QueueTokens, Reservations, Rooms, Seats, StorageError,
};
use frontrow_domain::queue::{QueueToken, Room, RoomMode};
use frontrow_domain::reservation::{Holdings, Reservation};
use frontrow_domain::seat::Seat;
use frontrow_domain::{
    ConcertId, PerformanceDateId, QueueTokenId, ReservationId, RoomId, SeatId, Timestamp, UserId, Versioned,
};
use uuid::Uuid;

use super::Sqlite;
use super::error::ReadError;
use super::statement::CachedAs;
use crate::sql::rows::{
    AccountRow, ConcertRow, IdempotencyRow, PerformanceDateRow, QueueTokenRow, ReservationRow,
    ReservationSeatRow, RoomRow, SeatRow, name_of,
};
use crate::sql::schema::{
    accounts, concerts, idempotency_records, lines, performance_dates, queue_tokens, reservation_seats,
    reservations, rooms, seats,
};
use crate::sql::types::{DbId, DbTime};

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

    async fn due(&self, now: Timestamp, limit: u32) -> Result<Vec<Versioned<Room>>, StorageError> {
        self.read(move |connection| {
            let open = rooms::mode.eq(name_of(&RoomMode::NAMES, RoomMode::Open));
            let rows: Vec<RoomRow> = rooms::table
                .inner_join(lines::table)
                .filter(rooms::next_tick_at.le(DbTime(now)).or(open.and(lines::waiting.gt(0))))
                .order((rooms::next_tick_at, rooms::room_id))
                .limit(i64::from(limit))
                .select(RoomRow::as_select())
                .load(connection)?;
            Ok(rows.into_iter().map(Versioned::try_from).collect::<Result<_, _>>()?)
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
