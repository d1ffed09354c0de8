//! Lines, as the nodes follow them: one statement each, by index, whatever their length.

use async_trait::async_trait;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool};
use diesel_async::RunQueryDsl;
use frontrow_domain::RoomId;
use frontrow_domain::ports::{QueueQueries, StorageError};
use frontrow_domain::queue::{Departure, LineState, TicketNumber};

use super::Postgres;
use super::cached::Cached;
use super::error::read_error;
use crate::sql::rows::{LineRow, RoomRow};
use crate::sql::schema::{lines, queue_tokens, rooms};
use crate::sql::types::{DbId, Id};

/// For each line its own scan of the index of departures.
const DEPARTURES: &str = "\
    SELECT later.room_id, later.departure, later.ticket \
    FROM unnest($1, $2) AS seen (room_id, after) CROSS JOIN LATERAL ( \
        SELECT room_id, departure, ticket FROM queue_tokens \
        WHERE queue_tokens.room_id = seen.room_id AND departure > seen.after AND departure IS NOT NULL \
        ORDER BY departure LIMIT $3) AS later";

#[derive(QueryableByName)]
struct DepartureRow {
    #[diesel(sql_type = Id)]
    room_id: DbId,
    #[diesel(sql_type = BigInt)]
    departure: i64,
    #[diesel(sql_type = BigInt)]
    ticket: i64,
}

#[async_trait]
impl QueueQueries for Postgres {
    async fn lines(&self) -> Result<Vec<LineState>, StorageError> {
        let query = rooms::table
            .inner_join(lines::table)
            .filter(sql::<Bool>("lines.is_waiting"))
            .select((RoomRow::as_select(), LineRow::as_select()));
        let mut connection = self.connection().await?;
        let rows = Cached(query).load::<(RoomRow, LineRow)>(&mut connection).await;
        drop(connection);
        rows.map_err(read_error)?.into_iter().map(|(room, line)| line.with_room(room)).collect()
    }

    async fn lines_of(&self, rooms: Vec<RoomId>) -> Result<Vec<LineState>, StorageError> {
        let ids: Vec<DbId> = rooms.into_iter().map(|room_id| DbId(room_id.get())).collect();
        let query = rooms::table
            .inner_join(lines::table)
            .filter(rooms::room_id.eq_any(ids))
            .select((RoomRow::as_select(), LineRow::as_select()));
        let mut connection = self.connection().await?;
        let rows = Cached(query).load::<(RoomRow, LineRow)>(&mut connection).await;
        drop(connection);
        rows.map_err(read_error)?.into_iter().map(|(room, line)| line.with_room(room)).collect()
    }

    async fn rooms_after(&self, after: Option<RoomId>, limit: u32) -> Result<Vec<RoomId>, StorageError> {
        let mut query = rooms::table.select(rooms::room_id).into_boxed();
        if let Some(after) = after {
            query = query.filter(rooms::room_id.gt(DbId(after.get())));
        }
        let query = query.order(rooms::room_id).limit(i64::from(limit));
        let mut connection = self.connection().await?;
        let ids = Cached(query).load::<DbId>(&mut connection).await;
        drop(connection);
        Ok(ids.map_err(read_error)?.into_iter().map(|id| RoomId::new(id.0)).collect())
    }

    async fn departures(
        &self,
        after: Vec<(RoomId, i64)>,
        limit: u32,
    ) -> Result<Vec<(RoomId, Departure)>, StorageError> {
        let (rooms, after): (Vec<DbId>, Vec<i64>) =
            after.into_iter().map(|(room_id, after)| (DbId(room_id.get()), after)).unzip();
        let query = sql_query(DEPARTURES)
            .bind::<Array<Id>, _>(rooms)
            .bind::<Array<BigInt>, _>(after)
            .bind::<BigInt, _>(i64::from(limit));
        let mut connection = self.connection().await?;
        let rows = Cached(query).load::<DepartureRow>(&mut connection).await;
        drop(connection);
        let departure = |row: DepartureRow| {
            let departure = Departure { number: row.departure, ticket: TicketNumber(row.ticket) };
            (RoomId::new(row.room_id.0), departure)
        };
        Ok(rows.map_err(read_error)?.into_iter().map(departure).collect())
    }

    async fn departed_tickets(
        &self,
        room_id: RoomId,
        after: TicketNumber,
        limit: u32,
    ) -> Result<Vec<TicketNumber>, StorageError> {
        let query = queue_tokens::table
            .filter(queue_tokens::room_id.eq(DbId(room_id.get())))
            .filter(queue_tokens::ticket.gt(after.0))
            .filter(queue_tokens::departure.is_not_null())
            .order(queue_tokens::ticket)
            .limit(i64::from(limit))
            .select(queue_tokens::ticket);
        let mut connection = self.connection().await?;
        let tickets = Cached(query).load::<i64>(&mut connection).await;
        drop(connection);
        Ok(tickets.map_err(read_error)?.into_iter().map(TicketNumber).collect())
    }
}
