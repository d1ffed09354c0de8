//! Read models: one statement each, except reservations, which are two of one snapshot.

use std::collections::HashMap;

use async_trait::async_trait;
use diesel::dsl::sql;
use diesel::prelude::{
    Connection, ExpressionMethods, NullableExpressionMethods, OptionalExtension, QueryDsl, QueryableByName,
    RunQueryDsl, SelectableHelper,
};
use diesel::sql_types::{BigInt, Bool, Text};
use diesel::sqlite::{Sqlite as Backend, SqliteConnection};
use frontrow_domain::account::Entry;
use frontrow_domain::audit_log::AuditEntry;
use frontrow_domain::concert::Concert;
use frontrow_domain::ports::{
    AccountQueries, AdminQueries, ConcertQueries, DateFilter, DateSummary, QueueQueries, ReservationQueries,
    ReservationView, RoomOverview, Sales, StorageError,
};
use frontrow_domain::queue::{Departure, LineState, Room, TicketNumber};
use frontrow_domain::reservation::ReservationStatus;
use frontrow_domain::seat::SeatPlace;
use frontrow_domain::{
    AuditEntryId, ConcertId, PerformanceDateId, ReservationId, RoomId, SeatId, Timestamp, UserId, Versioned,
};

use super::Sqlite;
use super::error::ReadError;
use super::repositories::json_of;
use super::statement::{Cached, Sql};
use crate::sql::rows::{
    AuditRow, ConcertRow, DateSummaryRow, EntryRow, LineRow, ReservationRow, RoomRow, SeatPlaceRow, money,
};
use crate::sql::schema::{
    audit_log, concerts, entries, lines, queue_tokens, reservation_seats, reservations, rooms, seats,
};
use crate::sql::types::{DbId, DbTime, Instant};

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[async_trait]
impl QueueQueries for Sqlite {
    async fn lines(&self) -> Result<Vec<LineState>, StorageError> {
        self.read(|connection| {
            let rows: Vec<(RoomRow, LineRow)> = rooms::table
                .inner_join(lines::table)
                .select((RoomRow::as_select(), LineRow::as_select()))
                .load(connection)?;
            Ok(rows.into_iter().map(|(room, line)| line.with_room(room)).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn lines_of(&self, rooms: Vec<RoomId>) -> Result<Vec<LineState>, StorageError> {
        self.read(move |connection| {
            let named = sql::<Bool>("rooms.room_id IN (SELECT unhex(value) FROM json_each(")
                .bind::<Text, _>(json_of(rooms.into_iter().map(RoomId::get)))
                .sql("))");
            let query = rooms::table
                .inner_join(lines::table)
                .filter(named)
                .select((RoomRow::as_select(), LineRow::as_select()));
            let rows: Vec<(RoomRow, LineRow)> = Cached(query).load(connection)?;
            Ok(rows.into_iter().map(|(room, line)| line.with_room(room)).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn departures(
        &self,
        after: Vec<(RoomId, i64)>,
        limit: u32,
    ) -> Result<Vec<(RoomId, Departure)>, StorageError> {
        self.read(move |connection| {
            let mut found = Vec::new();
            for (room_id, after) in after {
                let query = queue_tokens::table
                    .filter(queue_tokens::room_id.eq(DbId(room_id.get())))
                    .filter(queue_tokens::departure.gt(after))
                    .order(queue_tokens::departure)
                    .limit(i64::from(limit))
                    .select((queue_tokens::departure.assume_not_null(), queue_tokens::ticket));
                let rows: Vec<(i64, i64)> = query.load(connection)?;
                let departure = |(number, ticket)| Departure { number, ticket: TicketNumber(ticket) };
                found.extend(rows.into_iter().map(|row| (room_id, departure(row))));
            }
            Ok(found)
        })
        .await
    }

    async fn departed_tickets(
        &self,
        room_id: RoomId,
        after: TicketNumber,
        limit: u32,
    ) -> Result<Vec<TicketNumber>, StorageError> {
        self.read(move |connection| {
            let tickets: Vec<i64> = queue_tokens::table
                .filter(queue_tokens::room_id.eq(DbId(room_id.get())))
                .filter(queue_tokens::ticket.gt(after.0))
                .filter(queue_tokens::departure.is_not_null())
                .order(queue_tokens::ticket)
                .limit(i64::from(limit))
                .select(queue_tokens::ticket)
                .load(connection)?;
            Ok(tickets.into_iter().map(TicketNumber).collect())
        })
        .await
    }
}

#[async_trait]
impl ConcertQueries for Sqlite {
    async fn list_concerts(
        &self,
        after: Option<ConcertId>,
        limit: u32,
    ) -> Result<Vec<Concert>, StorageError> {
        self.read(move |connection| {
            let mut query = concerts::table
                .order(concerts::concert_id)
                .limit(i64::from(limit))
                .select(ConcertRow::as_select())
                .into_boxed::<Backend>();
            if let Some(after) = after {
                query = query.filter(concerts::concert_id.gt(DbId(after.get())));
            }
            let rows: Vec<ConcertRow> = query.load(connection)?;
            Ok(rows.into_iter().map(Concert::try_from).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn list_dates(
        &self,
        concert_id: ConcertId,
        filter: DateFilter,
        now: Timestamp,
    ) -> Result<Vec<DateSummary>, StorageError> {
        self.read(move |connection| {
            // What is stored as AVAILABLE is counted by the feed; lapsed holds that nobody has swept are free as well.
            let text = "WITH lapsed AS MATERIALIZED (\
                    SELECT reservations.performance_date_id, COUNT(*) AS seats \
                    FROM reservations CROSS JOIN reservation_seats USING (reservation_id) \
                    WHERE reservations.status = 'RESERVED' AND hold_expires_at <= ?1 GROUP BY 1) \
                SELECT date.performance_date_id, starts_at, on_sale_at, total_seats, \
                    available_seats + COALESCE(lapsed.seats, 0) AS available_seats \
                FROM performance_dates AS date CROSS JOIN seat_feeds USING (performance_date_id) \
                LEFT JOIN lapsed USING (performance_date_id) \
                WHERE concert_id = ?2 AND (?3 OR (starts_at > ?1 AND seat_feeds.available_seats + COALESCE(lapsed.seats, 0) > 0)) \
                ORDER BY starts_at, date.performance_date_id";
            let all = filter == DateFilter::All;
            let rows: Vec<DateSummaryRow> =
                Sql(text, (DbTime(now), DbId(concert_id.get()), all)).load(connection)?;
            Ok(rows.into_iter().map(DateSummary::from).collect())
        })
        .await
    }
}

/// The seats of each of these reservations, in the order of the house.
fn places_of(
    connection: &mut SqliteConnection,
    rows: &[ReservationRow],
) -> Result<HashMap<DbId, Vec<(SeatId, SeatPlace)>>, ReadError> {
    let named = sql::<Bool>("reservation_seats.reservation_id IN (SELECT unhex(value) FROM json_each(")
        .bind::<Text, _>(json_of(rows.iter().map(|row| row.reservation_id.0)))
        .sql("))");
    let query = reservation_seats::table
        .inner_join(seats::table)
        .filter(named)
        .order((seats::section, seats::row_number, seats::seat_number))
        .select((reservation_seats::reservation_id, seats::seat_id, SeatPlaceRow::as_select()));
    let found: Vec<(DbId, DbId, SeatPlaceRow)> = Cached(query).load(connection)?;
    let mut places: HashMap<_, Vec<_>> = HashMap::new();
    for (reservation_id, seat_id, place) in found {
        places.entry(reservation_id).or_default().push((SeatId::new(seat_id.0), place.try_into()?));
    }
    Ok(places)
}

fn views(
    connection: &mut SqliteConnection,
    rows: Vec<ReservationRow>,
    now: Timestamp,
) -> Result<Vec<ReservationView>, ReadError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut places = places_of(connection, &rows)?;
    let view = |row: ReservationRow| {
        let status: ReservationStatus = row.status()?;
        Ok(ReservationView {
            id: ReservationId::new(row.reservation_id.0),
            user_id: UserId::new(row.user_id.0),
            performance_date_id: PerformanceDateId::new(row.performance_date_id.0),
            seats: places.remove(&row.reservation_id).unwrap_or_default(),
            total_amount: money(row.total_amount)?,
            status: status.at(now, row.hold_expires_at.0),
            hold_expires_at: row.hold_expires_at.0,
        })
    };
    Ok(rows.into_iter().map(view).collect::<Result<_, StorageError>>()?)
}

#[async_trait]
impl ReservationQueries for Sqlite {
    async fn find_own(
        &self,
        user_id: UserId,
        id: ReservationId,
        now: Timestamp,
    ) -> Result<Option<ReservationView>, StorageError> {
        self.read(move |connection| {
            connection.transaction(|connection| {
                let own: Vec<ReservationRow> = reservations::table
                    .find(DbId(id.get()))
                    .filter(reservations::user_id.eq(DbId(user_id.get())))
                    .select(ReservationRow::as_select())
                    .load(connection)?;
                Ok(views(connection, own, now)?.pop())
            })
        })
        .await
    }

    async fn list_own(
        &self,
        user_id: UserId,
        before: Option<ReservationId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<ReservationView>, StorageError> {
        self.read(move |connection| {
            connection.transaction(|connection| {
                let mut query = reservations::table
                    .filter(reservations::user_id.eq(DbId(user_id.get())))
                    .order(reservations::reservation_id.desc())
                    .limit(i64::from(limit))
                    .select(ReservationRow::as_select())
                    .into_boxed::<Backend>();
                if let Some(before) = before {
                    query = query.filter(reservations::reservation_id.lt(DbId(before.get())));
                }
                let own = query.load(connection)?;
                views(connection, own, now)
            })
        })
        .await
    }
}

#[async_trait]
impl AccountQueries for Sqlite {
    async fn list_entries(
        &self,
        user_id: UserId,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Entry>, StorageError> {
        self.read(move |connection| {
            let mut query = entries::table
                .filter(entries::user_id.eq(DbId(user_id.get())))
                .order(entries::number.desc())
                .limit(i64::from(limit))
                .select(EntryRow::as_select())
                .into_boxed::<Backend>();
            if let Some(before) = before {
                query = query.filter(entries::number.lt(before));
            }
            let rows: Vec<EntryRow> = query.load(connection)?;
            Ok(rows.into_iter().map(Entry::try_from).collect::<Result<_, _>>()?)
        })
        .await
    }
}

#[derive(QueryableByName)]
struct SalesRow {
    #[diesel(sql_type = BigInt)]
    available: i64,
    #[diesel(sql_type = BigInt)]
    reserved: i64,
    #[diesel(sql_type = BigInt)]
    unavailable: i64,
    #[diesel(sql_type = BigInt)]
    amount_sold: i64,
}

/// Which rooms to show.
#[derive(Clone, Copy)]
enum Which {
    After(Option<RoomId>, u32),
    One(RoomId),
}

fn overviews(
    connection: &mut SqliteConnection,
    which: Which,
    now: Timestamp,
) -> Result<Vec<RoomOverview>, ReadError> {
    let active = sql::<BigInt>(
        "(SELECT COUNT(*) FROM queue_tokens WHERE queue_tokens.room_id = rooms.room_id \
          AND queue_tokens.status = 'ACTIVE' AND queue_tokens.expires_at > ",
    )
    .bind::<Instant, _>(DbTime(now))
    .sql(")");
    let mut query = rooms::table
        .inner_join(lines::table)
        .order(rooms::room_id)
        .select((RoomRow::as_select(), lines::waiting, active))
        .into_boxed::<Backend>();
    match which {
        Which::One(id) => query = query.filter(rooms::room_id.eq(DbId(id.get()))),
        Which::After(after, limit) => {
            query = query.limit(i64::from(limit));
            if let Some(after) = after {
                query = query.filter(rooms::room_id.gt(DbId(after.get())));
            }
        }
    }
    let rows: Vec<(RoomRow, i64, i64)> = Cached(query).load(connection)?;
    let overview = |(row, waiting, active)| {
        let room = Versioned::<Room>::try_from(row)?.value;
        Ok(RoomOverview { room, waiting: count(waiting), active: count(active) })
    };
    Ok(rows.into_iter().map(overview).collect::<Result<_, StorageError>>()?)
}

#[async_trait]
impl AdminQueries for Sqlite {
    async fn list_rooms(
        &self,
        after: Option<RoomId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<RoomOverview>, StorageError> {
        self.read(move |connection| overviews(connection, Which::After(after, limit), now)).await
    }

    async fn find_room(&self, id: RoomId, now: Timestamp) -> Result<Option<RoomOverview>, StorageError> {
        self.read(move |connection| Ok(overviews(connection, Which::One(id), now)?.pop())).await
    }

    async fn sales(&self, id: PerformanceDateId, now: Timestamp) -> Result<Option<Sales>, StorageError> {
        self.read(move |connection| {
            let text = "SELECT COUNT(CASE WHEN status = 'AVAILABLE' OR hold_expires_at <= ?1 THEN 1 END) AS available, \
                    COUNT(CASE WHEN hold_expires_at > ?1 THEN 1 END) AS reserved, \
                    COUNT(CASE WHEN status = 'UNAVAILABLE' THEN 1 END) AS unavailable, \
                    COALESCE(SUM(CASE WHEN status = 'UNAVAILABLE' THEN price END), 0) AS amount_sold \
                FROM performance_dates AS date \
                LEFT JOIN seats ON seats.performance_date_id = date.performance_date_id \
                WHERE date.performance_date_id = ?2 GROUP BY date.performance_date_id";
            let row: Option<SalesRow> =
                Sql(text, (DbTime(now), DbId(id.get()))).get_result(connection).optional()?;
            let Some(row) = row else { return Ok(None) };
            Ok(Some(Sales {
                available: count(row.available),
                reserved: count(row.reserved),
                unavailable: count(row.unavailable),
                amount_sold: money(row.amount_sold)?,
            }))
        })
        .await
    }

    async fn list_audit_log(
        &self,
        before: Option<AuditEntryId>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StorageError> {
        self.read(move |connection| {
            let mut query = audit_log::table
                .order(audit_log::entry_id.desc())
                .limit(i64::from(limit))
                .select(AuditRow::as_select())
                .into_boxed::<Backend>();
            if let Some(before) = before {
                query = query.filter(audit_log::entry_id.lt(DbId(before.get())));
            }
            let rows: Vec<AuditRow> = query.load(connection)?;
            Ok(rows.into_iter().map(AuditEntry::try_from).collect::<Result<_, _>>()?)
        })
        .await
    }
}
