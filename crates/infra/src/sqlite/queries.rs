//! Read models: one statement each, except reservations, which are two of one snapshot.

use std::collections::HashMap;

use async_trait::async_trait;
use diesel::dsl::sql;
use diesel::prelude::{
    BoolExpressionMethods, Connection, ExpressionMethods, JoinOnDsl, NullableExpressionMethods,
    OptionalExtension, QueryDsl, QueryableByName, RunQueryDsl, SelectableHelper,
};
use diesel::sql_types::{BigInt, Bool, Text};
use diesel::sqlite::{Sqlite as Backend, SqliteConnection};
use frontrow_domain::account::{Entry, Ticket};
use frontrow_domain::audit_log::AuditEntry;
use frontrow_domain::concert::Concert;
use frontrow_domain::ports::{
    AccountQueries, AdminQueries, ConcertQueries, DateFilter, DateSummary, Offer, PaymentView, QueueQueries,
    ReservationQueries, ReservationView, RoomOverview, Sales, StorageError, StoredLines,
};
use frontrow_domain::queue::{Departure, Room, TicketNumber};
use frontrow_domain::reservation::ReservationStatus;
use frontrow_domain::seat::SeatPlace;
use frontrow_domain::{
    AuditEntryId, ConcertId, Incarnation, IncarnationId, PaymentId, PerformanceDateId, ReservationId, RoomId,
    SeatId, TicketId, Timestamp, UserId, Versioned,
};

use super::Sqlite;
use super::error::ReadError;
use super::repositories::json_of;
use super::statement::{Cached, Sql, run};
use crate::sql::rows::{
    AuditRow, ConcertRow, DateSummaryRow, EntryRow, LineRow, OfferRow, ReservationRow, RoomRow, SeatPlaceRow,
    money,
};
use crate::sql::schema::{
    audit_log, concerts, entries, incarnation, lines, payments, queue_tokens, reservation_seats,
    reservations, rooms, seats, tickets,
};
use crate::sql::types::{DbId, DbTime, Id, Instant};

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

const INCARNATION_ID: &str = "(SELECT incarnation_id FROM incarnation)";
const STARTED_AT: &str = "(SELECT started_at FROM incarnation)";

/// A line, and the incarnation of the same snapshot.
type StoredLineRow = (RoomRow, LineRow, DbId, DbTime);

/// Without any line the incarnation is read by itself.
fn stored_lines(
    rows: Vec<StoredLineRow>,
    connection: &mut SqliteConnection,
) -> Result<StoredLines, ReadError> {
    let (id, started_at) =
        match rows.as_slice() {
            [(_, _, id, started_at), ..] => (*id, *started_at),
            [] => incarnation::table
                .select((incarnation::incarnation_id, incarnation::started_at))
                .first::<(DbId, DbTime)>(connection)?,
        };
    let incarnation = Incarnation { id: IncarnationId::new(id.0), started_at: started_at.0 };
    let lines = rows.into_iter().map(|(room, line, ..)| line.with_room(room));
    Ok(StoredLines { incarnation, lines: lines.collect::<Result<_, _>>()? })
}

#[async_trait]
impl QueueQueries for Sqlite {
    async fn lines(&self) -> Result<StoredLines, StorageError> {
        self.read(|connection| {
            let waiting =
                "rooms.room_id IN (SELECT room_id FROM lines INDEXED BY lines_waiting WHERE waiting > 0)";
            let query = rooms::table.inner_join(lines::table).filter(sql::<Bool>(waiting)).select((
                RoomRow::as_select(),
                LineRow::as_select(),
                sql::<Id>(INCARNATION_ID),
                sql::<Instant>(STARTED_AT),
            ));
            let rows: Vec<StoredLineRow> = Cached(query).load(connection)?;
            stored_lines(rows, connection)
        })
        .await
    }

    async fn lines_of(&self, rooms: Vec<RoomId>) -> Result<StoredLines, StorageError> {
        self.read(move |connection| {
            let named = sql::<Bool>("rooms.room_id IN (SELECT unhex(value) FROM json_each(")
                .bind::<Text, _>(json_of(rooms.into_iter().map(RoomId::get)))
                .sql("))");
            let query = rooms::table.inner_join(lines::table).filter(named).select((
                RoomRow::as_select(),
                LineRow::as_select(),
                sql::<Id>(INCARNATION_ID),
                sql::<Instant>(STARTED_AT),
            ));
            let rows: Vec<StoredLineRow> = Cached(query).load(connection)?;
            stored_lines(rows, connection)
        })
        .await
    }

    /// On a connection that reads: the writer's is for units of work, and this is done once in a long while.
    async fn begin_incarnation(&self, after: IncarnationId, now: Timestamp) -> Result<(), StorageError> {
        self.read(move |connection| {
            run(connection, "PRAGMA query_only = OFF")?;
            let text = "UPDATE incarnation SET incarnation_id = randomblob(16), started_at = ? \
                        WHERE incarnation_id = ?";
            let begun = Sql(text, (DbTime(now), DbId(after.get()))).execute(connection);
            run(connection, "PRAGMA query_only = ON")?;
            Ok(begun.map(|_| ())?)
        })
        .await
    }

    async fn rooms_after(&self, after: Option<RoomId>, limit: u32) -> Result<Vec<RoomId>, StorageError> {
        self.read(move |connection| {
            let mut query = rooms::table.order(rooms::room_id).select(rooms::room_id).into_boxed::<Backend>();
            if let Some(after) = after {
                query = query.filter(rooms::room_id.gt(DbId(after.get())));
            }
            let ids: Vec<DbId> = Cached(query.limit(i64::from(limit))).load(connection)?;
            Ok(ids.into_iter().map(|id| RoomId::new(id.0)).collect())
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

    async fn offers(
        &self,
        ids: Vec<ConcertId>,
        now: Timestamp,
    ) -> Result<Vec<(ConcertId, Offer)>, StorageError> {
        self.read(move |connection| {
            // One probe of `seats_unsold` for each date ahead: neither sold dates nor their seats are read.
            let text = "WITH asked (concert_id) AS MATERIALIZED (SELECT unhex(value) FROM json_each(?1)) \
                SELECT asked.concert_id, \
                    (SELECT min(starts_at) FROM performance_dates AS date \
                        WHERE date.concert_id = asked.concert_id AND date.starts_at > ?2) AS next_date_at, \
                    (SELECT min((SELECT price FROM seats \
                            WHERE seats.performance_date_id = date.performance_date_id \
                                AND seats.status <> 'UNAVAILABLE' ORDER BY price LIMIT 1)) \
                        FROM performance_dates AS date \
                        WHERE date.concert_id = asked.concert_id AND date.starts_at > ?2) AS from_price \
                FROM asked";
            let ids = json_of(ids.into_iter().map(ConcertId::get));
            let rows: Vec<OfferRow> = Sql(text, (ids, DbTime(now))).load(connection)?;
            Ok(rows.into_iter().map(OfferRow::offer).collect::<Result<_, StorageError>>()?)
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

/// What is stored of a reservation in other tables: its seats in the order of the house, and its payment.
#[derive(Default)]
struct Details {
    seats: Vec<(SeatId, SeatPlace)>,
    payment: Option<PaymentView>,
}

/// A seat of a reservation; once paid, with the payment and the ticket of that seat.
type ReservedRow = (DbId, DbId, SeatPlaceRow, Option<DbId>, Option<DbId>);

fn details_of(
    connection: &mut SqliteConnection,
    rows: &[ReservationRow],
) -> Result<HashMap<DbId, Details>, ReadError> {
    let named = sql::<Bool>("reservation_seats.reservation_id IN (SELECT unhex(value) FROM json_each(")
        .bind::<Text, _>(json_of(rows.iter().map(|row| row.reservation_id.0)))
        .sql("))");
    let query = reservation_seats::table
        .inner_join(seats::table)
        .left_join(payments::table.on(payments::reservation_id.eq(reservation_seats::reservation_id)))
        .left_join(
            tickets::table
                .on(tickets::payment_id.eq(payments::payment_id).and(tickets::seat_id.eq(seats::seat_id))),
        )
        .filter(named)
        .order((seats::section, seats::row_number, seats::seat_number))
        .select((
            reservation_seats::reservation_id,
            seats::seat_id,
            SeatPlaceRow::as_select(),
            payments::payment_id.nullable(),
            tickets::ticket_id.nullable(),
        ));
    let found: Vec<ReservedRow> = Cached(query).load(connection)?;
    let mut details: HashMap<DbId, Details> = HashMap::new();
    for (reservation_id, seat_id, place, payment_id, ticket_id) in found {
        let seat_id = SeatId::new(seat_id.0);
        let of_reservation = details.entry(reservation_id).or_default();
        of_reservation.seats.push((seat_id, place.try_into()?));
        if let Some(id) = payment_id {
            let paid = PaymentView { id: PaymentId::new(id.0), tickets: Vec::new() };
            let payment = of_reservation.payment.get_or_insert(paid);
            payment.tickets.extend(ticket_id.map(|id| Ticket { id: TicketId::new(id.0), seat_id }));
        }
    }
    Ok(details)
}

fn views(
    connection: &mut SqliteConnection,
    rows: Vec<ReservationRow>,
    now: Timestamp,
) -> Result<Vec<ReservationView>, ReadError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut details = details_of(connection, &rows)?;
    let view = |row: ReservationRow| {
        let status: ReservationStatus = row.status()?;
        let Details { seats, payment } = details.remove(&row.reservation_id).unwrap_or_default();
        Ok(ReservationView {
            id: ReservationId::new(row.reservation_id.0),
            user_id: UserId::new(row.user_id.0),
            performance_date_id: PerformanceDateId::new(row.performance_date_id.0),
            seats,
            total_amount: money(row.total_amount)?,
            status: status.at(now, row.hold_expires_at.0),
            hold_expires_at: row.hold_expires_at.0,
            payment,
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
          AND queue_tokens.status = 'ACTIVE' AND (queue_tokens.paused_at IS NOT NULL OR queue_tokens.expires_at > ",
    )
    .bind::<Instant, _>(DbTime(now))
    .sql("))");
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
