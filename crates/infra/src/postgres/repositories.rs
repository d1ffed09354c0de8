//! Loading aggregates for decisions: one statement each.

use async_trait::async_trait;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use frontrow_domain::account::Account;
use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::idempotency::{IdempotencyKey, IdempotencyRecord};
use frontrow_domain::ports::{
    Accounts, Concerts, IdempotencyRecords, QueueTokens, Reservations, Rooms, Seats, StorageError,
};
use frontrow_domain::queue::{QueueToken, Room};
use frontrow_domain::reservation::Reservation;
use frontrow_domain::seat::Seat;
use frontrow_domain::{
    ConcertId, PerformanceDateId, QueueTokenId, ReservationId, RoomId, SeatId, Timestamp, UserId, Versioned,
};

use super::Postgres;
use super::cached::Cached;
use super::error::read_error;
use crate::sql::rows::{
    AccountRow, ConcertRow, IdempotencyRow, PerformanceDateRow, QueueTokenRow, ReservationRow,
    ReservationSeatRow, RoomRow, SeatRow,
};
use crate::sql::schema::{
    accounts, concerts, idempotency_records, performance_dates, queue_tokens, reservation_seats,
    reservations, rooms, seats,
};
use crate::sql::types::{DbId, DbTime, Instant};

/// The token stored as WAIT or ACTIVE. The states are in the text, so that the partial index serves.
pub(super) async fn live_token(
    mut connection: &AsyncPgConnection,
    room_id: RoomId,
    user_id: UserId,
) -> QueryResult<Option<QueueTokenRow>> {
    let query = queue_tokens::table
        .filter(queue_tokens::room_id.eq(DbId(room_id.get())))
        .filter(queue_tokens::user_id.eq(DbId(user_id.get())))
        .filter(sql::<Bool>("status IN ('WAIT', 'ACTIVE')"))
        .select(QueueTokenRow::as_select());
    Cached(query).get_result(&mut connection).await.optional()
}

#[async_trait]
impl QueueTokens for Postgres {
    async fn find(&self, id: QueueTokenId) -> Result<Option<Versioned<QueueToken>>, StorageError> {
        let query = queue_tokens::table.find(DbId(id.get())).select(QueueTokenRow::as_select());
        let mut connection = self.connection().await?;
        let row = Cached(query).get_result(&mut connection).await.optional().map_err(read_error)?;
        drop(connection);
        row.map(TryInto::try_into).transpose()
    }

    async fn find_live(
        &self,
        room_id: RoomId,
        user_id: UserId,
    ) -> Result<Option<Versioned<QueueToken>>, StorageError> {
        let connection = self.connection().await?;
        let row = live_token(&connection, room_id, user_id).await.map_err(read_error)?;
        drop(connection);
        row.map(TryInto::try_into).transpose()
    }
}

#[async_trait]
impl Rooms for Postgres {
    async fn find(&self, id: RoomId) -> Result<Option<Versioned<Room>>, StorageError> {
        let query = rooms::table.find(DbId(id.get())).select(RoomRow::as_select());
        let mut connection = self.connection().await?;
        let row = Cached(query).get_result(&mut connection).await.optional().map_err(read_error)?;
        drop(connection);
        row.map(TryInto::try_into).transpose()
    }

    async fn due(&self, now: Timestamp, limit: u32) -> Result<Vec<Versioned<Room>>, StorageError> {
        let has_waiters_to_let_in = "mode = 'OPEN' AND (SELECT waiting FROM lines \
                                     WHERE lines.room_id = rooms.room_id) > 0";
        let query = rooms::table
            .filter(rooms::next_tick_at.le(DbTime(now)).or(sql::<Bool>(has_waiters_to_let_in)))
            .order((rooms::next_tick_at, rooms::room_id))
            .limit(i64::from(limit))
            .select(RoomRow::as_select());
        let mut connection = self.connection().await?;
        let rows: Vec<RoomRow> = Cached(query).load(&mut connection).await.map_err(read_error)?;
        drop(connection);
        rows.into_iter().map(TryInto::try_into).collect()
    }
}

#[async_trait]
impl Concerts for Postgres {
    async fn find(&self, id: ConcertId) -> Result<Option<Concert>, StorageError> {
        let query = concerts::table.find(DbId(id.get())).select(ConcertRow::as_select());
        let mut connection = self.connection().await?;
        let row = Cached(query).get_result(&mut connection).await.optional().map_err(read_error)?;
        drop(connection);
        row.map(TryInto::try_into).transpose()
    }

    async fn find_date(
        &self,
        id: PerformanceDateId,
    ) -> Result<Option<(PerformanceDate, Concert)>, StorageError> {
        let query = performance_dates::table
            .inner_join(concerts::table)
            .filter(performance_dates::performance_date_id.eq(DbId(id.get())))
            .select((PerformanceDateRow::as_select(), ConcertRow::as_select()));
        let mut connection = self.connection().await?;
        let row = Cached(query).get_result::<(PerformanceDateRow, ConcertRow)>(&mut connection).await;
        drop(connection);
        let Some((date, concert)) = row.optional().map_err(read_error)? else { return Ok(None) };
        Ok(Some((date.into(), concert.try_into()?)))
    }
}

#[async_trait]
impl Seats for Postgres {
    async fn find_many(&self, ids: Vec<SeatId>) -> Result<Vec<Versioned<Seat>>, StorageError> {
        let ids: Vec<DbId> = ids.into_iter().map(|id| DbId(id.get())).collect();
        let query = seats::table
            .filter(seats::seat_id.eq_any(ids))
            .order(seats::seat_id)
            .select(SeatRow::as_select());
        let mut connection = self.connection().await?;
        let rows: Vec<SeatRow> = Cached(query).load(&mut connection).await.map_err(read_error)?;
        drop(connection);
        rows.into_iter().map(TryInto::try_into).collect()
    }
}

#[async_trait]
impl Reservations for Postgres {
    async fn find(&self, id: ReservationId) -> Result<Option<Versioned<Reservation>>, StorageError> {
        let query = reservations::table
            .inner_join(reservation_seats::table)
            .filter(reservations::reservation_id.eq(DbId(id.get())))
            .order(reservation_seats::seat_id)
            .select((ReservationRow::as_select(), ReservationSeatRow::as_select()));
        let mut connection = self.connection().await?;
        let rows = Cached(query).load::<(ReservationRow, ReservationSeatRow)>(&mut connection).await;
        drop(connection);
        let (reservations, seats): (Vec<_>, Vec<_>) = rows.map_err(read_error)?.into_iter().unzip();
        reservations.into_iter().next().map(|reservation| reservation.with_seats(seats)).transpose()
    }

    async fn count_live_seats(
        &self,
        user_id: UserId,
        performance_date_id: PerformanceDateId,
        now: Timestamp,
    ) -> Result<u32, StorageError> {
        let is_live =
            sql::<Bool>("status IN ('RESERVED', 'DONE') AND (status = 'DONE' OR hold_expires_at > ")
                .bind::<Instant, _>(DbTime(now))
                .sql(")");
        let query = reservations::table
            .inner_join(reservation_seats::table)
            .filter(reservations::user_id.eq(DbId(user_id.get())))
            .filter(reservations::performance_date_id.eq(DbId(performance_date_id.get())))
            .filter(is_live)
            .count();
        let mut connection = self.connection().await?;
        let seats: i64 = Cached(query).get_result(&mut connection).await.map_err(read_error)?;
        Ok(u32::try_from(seats).unwrap_or(u32::MAX))
    }
}

#[async_trait]
impl Accounts for Postgres {
    async fn find(&self, user_id: UserId) -> Result<Option<Versioned<Account>>, StorageError> {
        let query = accounts::table.find(DbId(user_id.get())).select(AccountRow::as_select());
        let mut connection = self.connection().await?;
        let row = Cached(query).get_result(&mut connection).await.optional().map_err(read_error)?;
        drop(connection);
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
        let query = idempotency_records::table
            .find((DbId(user_id.get()), key.as_str()))
            .select(IdempotencyRow::as_select());
        let mut connection = self.connection().await?;
        let row = Cached(query).get_result(&mut connection).await.optional().map_err(read_error)?;
        drop(connection);
        row.map(TryInto::try_into).transpose()
    }
}
