//! Read models: one statement each, so that each is one snapshot.

use async_trait::async_trait;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text};
use diesel_async::RunQueryDsl;
use frontrow_domain::account::{Entry, Ticket};
use frontrow_domain::audit_log::AuditEntry;
use frontrow_domain::concert::Concert;
use frontrow_domain::ports::{
    AccountQueries, AdminQueries, ConcertQueries, DateFilter, DateSummary, Offer, PaymentView,
    ReservationQueries, ReservationView, RoomOverview, Sales, StorageError,
};
use frontrow_domain::queue::Room;
use frontrow_domain::{
    AuditEntryId, ConcertId, Money, PaymentId, PerformanceDateId, ReservationId, RoomId, SeatId, TicketId,
    Timestamp, UserId, Versioned,
};
use uuid::Uuid;

use super::Postgres;
use super::cached::Cached;
use super::error::read_error;
use crate::sql::rows::{
    AuditRow, ConcertRow, DateSummaryRow, EntryRow, OfferRow, ReservationRow, RoomRow, SeatPlaceRow, money,
};
use crate::sql::schema::{
    audit_log, concerts, entries, lines, payments, performance_dates, reservation_seats, reservations, rooms,
    seats, tickets,
};
use crate::sql::types::{DbId, DbTime, Id, Instant};

#[async_trait]
impl ConcertQueries for Postgres {
    async fn list_concerts(
        &self,
        after: Option<ConcertId>,
        limit: u32,
    ) -> Result<Vec<Concert>, StorageError> {
        let mut query = concerts::table.select(ConcertRow::as_select()).into_boxed();
        if let Some(after) = after {
            query = query.filter(concerts::concert_id.gt(DbId(after.get())));
        }
        let query = query.order(concerts::concert_id).limit(i64::from(limit));
        let mut connection = self.connection().await?;
        let rows: Vec<ConcertRow> = Cached(query).load(&mut connection).await.map_err(read_error)?;
        drop(connection);
        rows.into_iter().map(TryInto::try_into).collect()
    }

    async fn offers(
        &self,
        ids: Vec<ConcertId>,
        now: Timestamp,
    ) -> Result<Vec<(ConcertId, Offer)>, StorageError> {
        let ids: Vec<DbId> = ids.into_iter().map(|id| DbId(id.get())).collect();
        let query = sql_query(OFFERS).bind::<Array<Id>, _>(ids).bind::<Instant, _>(DbTime(now));
        let mut connection = self.connection().await?;
        let rows: Vec<OfferRow> = Cached(query).load(&mut connection).await.map_err(read_error)?;
        drop(connection);
        rows.into_iter().map(OfferRow::offer).collect()
    }

    async fn list_dates(
        &self,
        concert_id: ConcertId,
        filter: DateFilter,
        now: Timestamp,
    ) -> Result<Vec<DateSummary>, StorageError> {
        let query = sql_query(DATES)
            .bind::<Id, _>(DbId(concert_id.get()))
            .bind::<Instant, _>(DbTime(now))
            .bind::<Bool, _>(filter == DateFilter::All);
        let mut connection = self.connection().await?;
        let rows: Vec<DateSummaryRow> = Cached(query).load(&mut connection).await.map_err(read_error)?;
        drop(connection);
        Ok(rows.into_iter().map(DateSummary::from).collect())
    }
}

/// One probe of `seats_unsold` for each date ahead: neither sold dates nor their seats are read.
const OFFERS: &str = "\
    SELECT asked.concert_id, ahead.next_date_at, ahead.from_price \
    FROM unnest($1) AS asked (concert_id) CROSS JOIN LATERAL ( \
        SELECT min(date.starts_at) AS next_date_at, min(cheapest.price) AS from_price \
        FROM performance_dates AS date LEFT JOIN LATERAL ( \
            SELECT price FROM seats WHERE seats.performance_date_id = date.performance_date_id \
                AND seats.status <> 'UNAVAILABLE' ORDER BY price LIMIT 1) AS cheapest ON TRUE \
        WHERE date.concert_id = asked.concert_id AND date.starts_at > $2) AS ahead";

/// What is stored as AVAILABLE is counted by the feed; lapsed holds that nobody has swept are free as well. Those are few, and
/// found by their deadline.
const DATES: &str = "\
    WITH lapsed AS MATERIALIZED ( \
        SELECT held.performance_date_id, count(*) AS seats \
        FROM reservations AS held JOIN reservation_seats USING (reservation_id) \
        WHERE held.status = 'RESERVED' AND held.hold_expires_at <= $2 GROUP BY 1) \
    SELECT performance_date_id, starts_at, on_sale_at, total_seats, \
        available_seats + coalesce(lapsed.seats, 0) AS available_seats \
    FROM performance_dates JOIN seat_feeds USING (performance_date_id) LEFT JOIN lapsed USING (performance_date_id) \
    WHERE concert_id = $1 AND ($3 OR (starts_at > $2 AND available_seats + coalesce(lapsed.seats, 0) > 0)) \
    ORDER BY starts_at, performance_date_id";

/// A reservation with one of its seats; once paid, with the payment and the ticket of that seat.
type ReservedRow = (ReservationRow, DbId, SeatPlaceRow, Option<DbId>, Option<DbId>);

/// Reservations with their seats, payments and tickets.
macro_rules! reserved {
    () => {
        reservations::table
            .inner_join(reservation_seats::table.inner_join(seats::table))
            .left_join(payments::table.on(payments::reservation_id.eq(reservations::reservation_id)))
            .left_join(
                tickets::table.on(tickets::payment_id
                    .eq(payments::payment_id)
                    .and(tickets::seat_id.eq(seats::seat_id))),
            )
            .select((
                ReservationRow::as_select(),
                seats::seat_id,
                SeatPlaceRow::as_select(),
                payments::payment_id.nullable(),
                tickets::ticket_id.nullable(),
            ))
    };
}

#[async_trait]
impl ReservationQueries for Postgres {
    async fn find_own(
        &self,
        user_id: UserId,
        id: ReservationId,
        now: Timestamp,
    ) -> Result<Option<ReservationView>, StorageError> {
        let query = reserved!()
            .filter(reservations::reservation_id.eq(DbId(id.get())))
            .filter(reservations::user_id.eq(DbId(user_id.get())))
            .order((seats::section, seats::row_number, seats::seat_number));
        let mut connection = self.connection().await?;
        let rows = Cached(query).load::<ReservedRow>(&mut connection).await;
        drop(connection);
        Ok(views(rows.map_err(read_error)?, now)?.pop())
    }

    async fn list_own(
        &self,
        user_id: UserId,
        before: Option<ReservationId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<ReservationView>, StorageError> {
        let before = before.map_or(Uuid::max(), ReservationId::get);
        let on_this_page = sql::<Bool>("reservations.reservation_id IN (SELECT own.reservation_id FROM reservations AS own WHERE own.user_id = ")
            .bind::<Id, _>(DbId(user_id.get()))
            .sql(" AND own.reservation_id < ")
            .bind::<Id, _>(DbId(before))
            .sql(" ORDER BY own.reservation_id DESC LIMIT ")
            .bind::<BigInt, _>(i64::from(limit))
            .sql(")");
        let query = reserved!().filter(on_this_page).order((
            reservations::reservation_id.desc(),
            seats::section,
            seats::row_number,
            seats::seat_number,
        ));
        let mut connection = self.connection().await?;
        let rows = Cached(query).load::<ReservedRow>(&mut connection).await;
        drop(connection);
        views(rows.map_err(read_error)?, now)
    }
}

/// Puts the seats and tickets of each reservation together. The rows of one reservation are neighbours.
fn views(rows: Vec<ReservedRow>, now: Timestamp) -> Result<Vec<ReservationView>, StorageError> {
    let mut views: Vec<ReservationView> = Vec::new();
    for (row, seat_id, place, payment_id, ticket_id) in rows {
        let seat_id = SeatId::new(seat_id.0);
        let seat = (seat_id, place.try_into()?);
        let ticket = ticket_id.map(|id| Ticket { id: TicketId::new(id.0), seat_id });
        let id = ReservationId::new(row.reservation_id.0);
        match views.last_mut() {
            Some(view) if view.id == id => {
                view.seats.push(seat);
                view.payment.iter_mut().for_each(|payment| payment.tickets.extend(ticket));
            }
            _ => views.push(ReservationView {
                id,
                user_id: UserId::new(row.user_id.0),
                performance_date_id: PerformanceDateId::new(row.performance_date_id.0),
                seats: vec![seat],
                total_amount: money(row.total_amount)?,
                status: row.status()?.at(now, row.hold_expires_at.0),
                hold_expires_at: row.hold_expires_at.0,
                payment: payment_id.map(|id| PaymentView {
                    id: PaymentId::new(id.0),
                    tickets: ticket.into_iter().collect(),
                }),
            }),
        }
    }
    Ok(views)
}

#[async_trait]
impl AccountQueries for Postgres {
    async fn list_entries(
        &self,
        user_id: UserId,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut query = entries::table
            .select(EntryRow::as_select())
            .filter(entries::user_id.eq(DbId(user_id.get())))
            .into_boxed();
        if let Some(before) = before {
            query = query.filter(entries::number.lt(before));
        }
        let query = query.order(entries::number.desc()).limit(i64::from(limit));
        let mut connection = self.connection().await?;
        let rows: Vec<EntryRow> = Cached(query).load(&mut connection).await.map_err(read_error)?;
        drop(connection);
        rows.into_iter().map(TryInto::try_into).collect()
    }
}

#[async_trait]
impl AdminQueries for Postgres {
    async fn list_rooms(
        &self,
        after: Option<RoomId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<RoomOverview>, StorageError> {
        self.overviews(after, None, limit, now).await
    }

    async fn find_room(&self, id: RoomId, now: Timestamp) -> Result<Option<RoomOverview>, StorageError> {
        Ok(self.overviews(None, Some(id), 1, now).await?.pop())
    }

    async fn sales(&self, id: PerformanceDateId, now: Timestamp) -> Result<Option<Sales>, StorageError> {
        // A hold that has lapsed counts as free.
        let available =
            sql::<BigInt>("count(*) FILTER (WHERE seats.status = 'AVAILABLE' OR seats.hold_expires_at <= ")
                .bind::<Instant, _>(DbTime(now))
                .sql(")");
        let reserved = sql::<BigInt>("count(*) FILTER (WHERE seats.hold_expires_at > ")
            .bind::<Instant, _>(DbTime(now))
            .sql(")");
        let unavailable = sql::<BigInt>("count(*) FILTER (WHERE seats.status = 'UNAVAILABLE')");
        // The sum of BIGINTs is a NUMERIC, which may be larger than any money.
        let sold =
            sql::<Nullable<Text>>("(sum(seats.price) FILTER (WHERE seats.status = 'UNAVAILABLE'))::TEXT");
        let query = performance_dates::table
            .left_join(seats::table)
            .filter(performance_dates::performance_date_id.eq(DbId(id.get())))
            .group_by(performance_dates::performance_date_id)
            .select((available, reserved, unavailable, sold));
        let mut connection = self.connection().await?;
        let row = Cached(query).get_result::<(i64, i64, i64, Option<String>)>(&mut connection).await;
        drop(connection);
        let Some((available, reserved, unavailable, sold)) = row.optional().map_err(read_error)? else {
            return Ok(None);
        };
        let amount_sold = match sold {
            None => Money::ZERO,
            Some(sum) => money(sum.parse().map_err(|_| {
                StorageError::Corrupt(format!("the sales of {id} are beyond counting: {sum}"))
            })?)?,
        };
        Ok(Some(Sales {
            available: counted(available),
            reserved: counted(reserved),
            unavailable: counted(unavailable),
            amount_sold,
        }))
    }

    async fn list_audit_log(
        &self,
        before: Option<AuditEntryId>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StorageError> {
        let mut query = audit_log::table.select(AuditRow::as_select()).into_boxed();
        if let Some(before) = before {
            query = query.filter(audit_log::entry_id.lt(DbId(before.get())));
        }
        let query = query.order(audit_log::entry_id.desc()).limit(i64::from(limit));
        let mut connection = self.connection().await?;
        let rows: Vec<AuditRow> = Cached(query).load(&mut connection).await.map_err(read_error)?;
        drop(connection);
        rows.into_iter().map(TryInto::try_into).collect()
    }
}

impl Postgres {
    async fn overviews(
        &self,
        after: Option<RoomId>,
        only: Option<RoomId>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<RoomOverview>, StorageError> {
        let active = sql::<BigInt>(
            "(SELECT count(*) FROM queue_tokens WHERE queue_tokens.room_id = rooms.room_id \
             AND queue_tokens.status = 'ACTIVE' AND (queue_tokens.paused_at IS NOT NULL OR queue_tokens.expires_at > ",
        )
        .bind::<Instant, _>(DbTime(now))
        .sql("))");
        let mut query = rooms::table
            .inner_join(lines::table)
            .select((RoomRow::as_select(), lines::waiting, active))
            .into_boxed();
        if let Some(after) = after {
            query = query.filter(rooms::room_id.gt(DbId(after.get())));
        }
        if let Some(only) = only {
            query = query.filter(rooms::room_id.eq(DbId(only.get())));
        }
        let query = query.order(rooms::room_id).limit(i64::from(limit));
        let mut connection = self.connection().await?;
        let rows = Cached(query).load::<(RoomRow, i64, i64)>(&mut connection).await;
        drop(connection);
        let overview = |(room, waiting, active): (RoomRow, i64, i64)| {
            let room = Versioned::<Room>::try_from(room)?.value;
            Ok(RoomOverview { room, waiting: counted(waiting), active: counted(active) })
        };
        rows.map_err(read_error)?.into_iter().map(overview).collect()
    }
}

/// Counts are never below zero.
fn counted(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
