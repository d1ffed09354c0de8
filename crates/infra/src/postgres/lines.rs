//! Lines, as the nodes follow them: one statement each, by index, whatever their length. The incarnation of the data is in
//! the rows of the same statement; of no line at all it takes a second one.
//!
//! The row of the incarnation tells when it does not belong where it is (ADR 0018): another server (the system identifier),
//! a standby that was promoted (the timeline), or a copy that was put here by a restored dump (the transaction that
//! wrote it). Then a new incarnation begins, by compare-and-set: 2 statements more, once.

use async_trait::async_trait;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Nullable};
use diesel_async::RunQueryDsl;
use frontrow_domain::ports::{QueueQueries, StorageError, StoredLines};
use frontrow_domain::queue::{Departure, TicketNumber};
use frontrow_domain::{Incarnation, IncarnationId, RoomId, Timestamp};

use super::Postgres;
use super::cached::Cached;
use super::error::read_error;
use crate::sql::rows::{LineRow, RoomRow};
use crate::sql::schema::{lines, queue_tokens, rooms};
use crate::sql::types::{DbId, DbTime, Id, Instant};

/// For each line its own scan of the index of departures.
const DEPARTURES: &str = "\
    SELECT later.room_id, later.departure, later.ticket \
    FROM unnest($1, $2) AS seen (room_id, after) CROSS JOIN LATERAL ( \
        SELECT room_id, departure, ticket FROM queue_tokens \
        WHERE queue_tokens.room_id = seen.room_id AND departure > seen.after AND departure IS NOT NULL \
        ORDER BY departure LIMIT $3) AS later";

const INCARNATION_ID: &str = "(SELECT incarnation_id FROM incarnation)";
const STARTED_AT: &str = "(SELECT started_at FROM incarnation)";
/// Whether the row of the incarnation belongs where it is; NULL when it does not say yet where that is. A standby knows no
/// timeline of its own.
const BELONGS: &str = "\
    (SELECT CASE \
        WHEN xmin::text::bigint <> written_by % 4294967296 THEN FALSE \
        WHEN pg_is_in_recovery() THEN TRUE \
        ELSE system_identifier = (SELECT system_identifier FROM pg_control_system()) \
            AND timeline = ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint \
    END FROM incarnation)";
const BEGIN_INCARNATION: &str = "\
    UPDATE incarnation SET incarnation_id = gen_random_uuid(), \
        started_at = coalesce($2, clock_timestamp() + INTERVAL '30 seconds'), \
        system_identifier = (SELECT system_identifier FROM pg_control_system()), \
        timeline = ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint, \
        written_by = pg_current_xact_id()::text::bigint \
    WHERE incarnation_id = $1";
/// The first node after the migration says where the incarnation lives.
const LOCATE_INCARNATION: &str = "\
    UPDATE incarnation SET \
        system_identifier = (SELECT system_identifier FROM pg_control_system()), \
        timeline = ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint, \
        written_by = pg_current_xact_id()::text::bigint \
    WHERE system_identifier IS NULL";

/// A line, the incarnation of the same snapshot, and whether that belongs where it is.
type StoredLineRow = (RoomRow, LineRow, DbId, DbTime, Option<bool>);

impl Postgres {
    /// The lines of all rooms with waiters, or those of some rooms, in an incarnation that belongs where it is.
    async fn lines_in_place(&self, rooms: Option<Vec<DbId>>) -> Result<StoredLines, StorageError> {
        let (stored, belongs) = self.read_lines(rooms.clone()).await?;
        match belongs {
            Some(true) => Ok(stored),
            Some(false) => {
                tracing::warn!("the data was restored, or its server was replaced: a new incarnation begins");
                self.write_incarnation(stored.incarnation.id, None).await?;
                Ok(self.read_lines(rooms).await?.0)
            }
            None => {
                let mut connection = self.connection().await?;
                if let Err(error) = Cached(sql_query(LOCATE_INCARNATION)).execute(&mut connection).await {
                    tracing::debug!(%error, "the place of the incarnation could not be noted; trying again");
                }
                Ok(stored)
            }
        }
    }

    async fn read_lines(&self, ids: Option<Vec<DbId>>) -> Result<(StoredLines, Option<bool>), StorageError> {
        let query = rooms::table.inner_join(lines::table).select((
            RoomRow::as_select(),
            LineRow::as_select(),
            sql::<Id>(INCARNATION_ID),
            sql::<Instant>(STARTED_AT),
            sql::<Nullable<Bool>>(BELONGS),
        ));
        let mut connection = self.connection().await?;
        let rows: QueryResult<Vec<StoredLineRow>> = match ids {
            None => Cached(query.filter(sql::<Bool>("lines.is_waiting"))).load(&mut connection).await,
            Some(ids) => Cached(query.filter(rooms::room_id.eq_any(ids))).load(&mut connection).await,
        };
        let rows = rows.map_err(read_error)?;
        let (id, started_at, belongs) = match rows.as_slice() {
            [(_, _, id, started_at, belongs), ..] => (*id, *started_at, *belongs),
            [] => {
                let row = diesel::select((
                    sql::<Id>(INCARNATION_ID),
                    sql::<Instant>(STARTED_AT),
                    sql::<Nullable<Bool>>(BELONGS),
                ));
                let row = Cached(row).get_result::<(DbId, DbTime, Option<bool>)>(&mut connection).await;
                row.map_err(read_error)?
            }
        };
        drop(connection);
        let incarnation = Incarnation { id: IncarnationId::new(id.0), started_at: started_at.0 };
        let lines = rows.into_iter().map(|(room, line, ..)| line.with_room(room));
        Ok((StoredLines { incarnation, lines: lines.collect::<Result<_, _>>()? }, belongs))
    }

    /// Begins a new incarnation: now by the database's clock where no time is given, and half a minute more, as the clock of a
    /// standby may be behind the one that stamped the tokens which it lacks.
    async fn write_incarnation(
        &self,
        after: IncarnationId,
        now: Option<Timestamp>,
    ) -> Result<(), StorageError> {
        let query = sql_query(BEGIN_INCARNATION)
            .bind::<Id, _>(DbId(after.get()))
            .bind::<Nullable<Instant>, _>(now.map(DbTime));
        let mut connection = self.connection().await?;
        let written = Cached(query).execute(&mut connection).await;
        drop(connection);
        written.map(|_| ()).map_err(read_error)
    }
}

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
    async fn lines(&self) -> Result<StoredLines, StorageError> {
        self.lines_in_place(None).await
    }

    async fn lines_of(&self, rooms: Vec<RoomId>) -> Result<StoredLines, StorageError> {
        let ids = rooms.into_iter().map(|room_id| DbId(room_id.get())).collect();
        self.lines_in_place(Some(ids)).await
    }

    async fn begin_incarnation(&self, after: IncarnationId, now: Timestamp) -> Result<(), StorageError> {
        self.write_incarnation(after, Some(now)).await
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
