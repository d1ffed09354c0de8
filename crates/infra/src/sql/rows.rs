//! Rows, and their mapping to aggregates. What changes of a row is a struct of its own, so that an update writes
//! that and nothing else. An absent value is written as NULL, never left out: the text of a statement stays the same,
//! so that it is prepared once, and many rows fit in one insert.

use diesel::prelude::{AsChangeset, Insertable, Queryable, QueryableByName, Selectable};
use diesel::sql_types::{BigInt, Nullable};
use frontrow_domain::account::{Account, Entry, EntryKind, Payment, Ticket};
use frontrow_domain::audit_log::{AuditEntry, Fact, Facts, OperatorAction};
use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::idempotency::{Answer, Fingerprint, IdempotencyKey, IdempotencyRecord, KeyedRequest};
use frontrow_domain::ports::{DateSummary, Offer, StorageError};
use frontrow_domain::queue::{
    LineState, QueueToken, QueueTokenState, QueueTokenStatus, Room, RoomMode, RoomPolicy, RoomWithWaiters,
    TicketNumber,
};
use frontrow_domain::reservation::{Reservation, ReservationStatus, ReservedSeat};
use frontrow_domain::seat::{Seat, SeatPlace, SeatState, SeatStatus, SeatUpdate};
use frontrow_domain::unit_of_work::CommandOutcome;
use frontrow_domain::{
    AuditEntryId, ConcertId, EntryId, Label, Money, PerformanceDateId, QueueTokenId, ReservationId, RoomId,
    SeatId, UserId, Version, Versioned,
};
use serde_json::{Map, Value};

use crate::sql::schema;
use crate::sql::types::{DbId, DbTime, Id, Instant};

/// The name of `value` in a table of names.
pub(crate) fn name_of<T: Copy + PartialEq>(names: &[(T, &'static str)], value: T) -> &'static str {
    names.iter().find(|(named, _)| *named == value).map_or("", |(_, name)| name)
}

fn named<T: Copy>(names: &[(T, &'static str)], name: &str) -> Result<T, StorageError> {
    let found = names.iter().find(|(_, known)| *known == name).map(|(value, _)| *value);
    found.ok_or_else(|| StorageError::Corrupt(format!("{name:?} is no state")))
}

fn corrupt(what: impl std::fmt::Display) -> StorageError {
    StorageError::Corrupt(what.to_string())
}

pub(crate) fn money(units: i64) -> Result<Money, StorageError> {
    Money::new(units).map_err(corrupt)
}

fn label(text: &str) -> Result<Label, StorageError> {
    Label::stored(text).map_err(corrupt)
}

fn count(number: i32) -> Result<u32, StorageError> {
    u32::try_from(number).map_err(corrupt)
}

/// The domain keeps every count far below `i32::MAX`.
fn column(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A room. Also its change: every column but the key is written.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = schema::rooms, primary_key(room_id), treat_none_as_null = true, treat_none_as_default_value = false)]
pub(crate) struct RoomRow {
    pub(crate) room_id: DbId,
    pub(crate) admit_batch: i32,
    pub(crate) admit_interval_seconds: i32,
    pub(crate) active_ttl_seconds: i32,
    pub(crate) max_active: Option<i32>,
    pub(crate) max_waiting: Option<i32>,
    pub(crate) wait_grace_seconds: Option<i32>,
    pub(crate) mode: String,
    pub(crate) last_tick_at: DbTime,
    pub(crate) next_tick_at: DbTime,
    pub(crate) version: i64,
    pub(crate) opens_at: Option<DbTime>,
    pub(crate) sales_open_at: Option<DbTime>,
    pub(crate) paused: bool,
}

impl RoomRow {
    pub(crate) fn new(room: &Room, version: Version) -> Self {
        let policy = &room.policy;
        let paused = policy.mode == RoomMode::Paused;
        let stored_mode = if paused { RoomMode::Hold } else { policy.mode };
        Self {
            room_id: DbId(room.id.get()),
            admit_batch: column(policy.admit_batch),
            admit_interval_seconds: column(policy.admit_interval_seconds),
            active_ttl_seconds: column(policy.active_ttl_seconds),
            max_active: policy.max_active.map(column),
            max_waiting: policy.max_waiting.map(column),
            wait_grace_seconds: policy.wait_grace_seconds.map(column),
            mode: name_of(&RoomMode::NAMES, stored_mode).to_owned(),
            last_tick_at: DbTime(room.last_tick_at),
            next_tick_at: DbTime(room.next_tick_at),
            version: version.get(),
            opens_at: policy.opens_at.map(DbTime),
            sales_open_at: room.sales_open_at.map(DbTime),
            paused,
        }
    }
}

impl TryFrom<RoomRow> for Versioned<Room> {
    type Error = StorageError;

    fn try_from(row: RoomRow) -> Result<Self, StorageError> {
        let policy = RoomPolicy {
            admit_batch: count(row.admit_batch)?,
            admit_interval_seconds: count(row.admit_interval_seconds)?,
            active_ttl_seconds: count(row.active_ttl_seconds)?,
            max_active: row.max_active.map(count).transpose()?,
            max_waiting: row.max_waiting.map(count).transpose()?,
            wait_grace_seconds: row.wait_grace_seconds.map(count).transpose()?,
            opens_at: row.opens_at.map(|time| time.0),
            mode: if row.paused { RoomMode::Paused } else { named(&RoomMode::NAMES, &row.mode)? },
        };
        let room = Room {
            id: RoomId::new(row.room_id.0),
            policy,
            last_tick_at: row.last_tick_at.0,
            next_tick_at: row.next_tick_at.0,
            sales_open_at: row.sales_open_at.map(|time| time.0),
        };
        Ok(Self::new(room, Version::new(row.version)))
    }
}

impl RoomRow {
    /// The room with the time of entry of its first waiter.
    pub(crate) fn with_waiters(self, waiting_since: Option<DbTime>) -> Result<RoomWithWaiters, StorageError> {
        Ok(RoomWithWaiters { room: self.try_into()?, waiting_since: waiting_since.map(|time| time.0) })
    }
}

/// The counters of a line.
#[derive(Debug, Clone, Copy, Queryable, Selectable)]
#[diesel(table_name = schema::lines)]
pub(crate) struct LineRow {
    pub(crate) last_ticket: i64,
    pub(crate) waiting: i64,
    pub(crate) admitted_through: i64,
    pub(crate) departures: i64,
}

impl LineRow {
    /// The line with its room.
    pub(crate) fn with_room(self, room: RoomRow) -> Result<LineState, StorageError> {
        Ok(LineState {
            room: room.try_into()?,
            waiting: u64::try_from(self.waiting).map_err(corrupt)?,
            last_ticket: TicketNumber(self.last_ticket),
            admitted_through: TicketNumber(self.admitted_through),
            departures: self.departures,
        })
    }
}

/// A queue token.
#[derive(Debug, Clone, Queryable, QueryableByName, Selectable, Insertable)]
#[diesel(table_name = schema::queue_tokens, treat_none_as_default_value = false)]
pub(crate) struct QueueTokenRow {
    pub(crate) token_id: DbId,
    pub(crate) room_id: DbId,
    pub(crate) user_id: DbId,
    pub(crate) ticket: i64,
    pub(crate) entered_at: DbTime,
    #[diesel(embed)]
    pub(crate) state: QueueTokenStateRow,
}

/// What changes of a queue token.
#[derive(Debug, Clone, Queryable, QueryableByName, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = schema::queue_tokens, treat_none_as_null = true, treat_none_as_default_value = false)]
pub(crate) struct QueueTokenStateRow {
    pub(crate) status: String,
    pub(crate) activated_at: Option<DbTime>,
    pub(crate) expires_at: Option<DbTime>,
    pub(crate) paused_at: Option<DbTime>,
    pub(crate) version: i64,
}

impl QueueTokenRow {
    pub(crate) fn new(token: &QueueToken, version: Version) -> Self {
        Self {
            token_id: DbId(token.id.get()),
            room_id: DbId(token.room_id.get()),
            user_id: DbId(token.user_id.get()),
            ticket: token.ticket.0,
            entered_at: DbTime(token.entered_at),
            state: QueueTokenStateRow::new(&token.state, version),
        }
    }
}

impl QueueTokenStateRow {
    pub(crate) fn new(state: &QueueTokenState, version: Version) -> Self {
        let (status, activated_at, expires_at, paused_at) = match *state {
            QueueTokenState::Wait => (QueueTokenStatus::Wait, None, None, None),
            QueueTokenState::Active { activated_at, expires_at, paused_at } => {
                (QueueTokenStatus::Active, Some(activated_at), Some(expires_at), paused_at)
            }
            QueueTokenState::Expired { activated_at, expires_at } => {
                (QueueTokenStatus::Expired, activated_at, Some(expires_at), None)
            }
        };
        Self {
            status: name_of(&QueueTokenStatus::NAMES, status).to_owned(),
            activated_at: activated_at.map(DbTime),
            expires_at: expires_at.map(DbTime),
            paused_at: paused_at.map(DbTime),
            version: version.get(),
        }
    }

    fn state(&self) -> Result<QueueTokenState, StorageError> {
        let activated_at = self.activated_at.map(|time| time.0);
        let expires_at = self.expires_at.map(|time| time.0);
        match (named(&QueueTokenStatus::NAMES, &self.status)?, activated_at, expires_at) {
            (QueueTokenStatus::Wait, None, None) => Ok(QueueTokenState::Wait),
            (QueueTokenStatus::Active, Some(activated_at), Some(expires_at)) => {
                let paused_at = self.paused_at.map(|time| time.0);
                Ok(QueueTokenState::Active { activated_at, expires_at, paused_at })
            }
            (QueueTokenStatus::Expired, activated_at, Some(expires_at)) => {
                Ok(QueueTokenState::Expired { activated_at, expires_at })
            }
            _ => Err(corrupt("a queue token whose times do not fit its status")),
        }
    }
}

impl TryFrom<QueueTokenRow> for Versioned<QueueToken> {
    type Error = StorageError;

    fn try_from(row: QueueTokenRow) -> Result<Self, StorageError> {
        let token = QueueToken {
            id: QueueTokenId::new(row.token_id.0),
            room_id: RoomId::new(row.room_id.0),
            user_id: UserId::new(row.user_id.0),
            ticket: TicketNumber(row.ticket),
            entered_at: row.entered_at.0,
            state: row.state.state()?,
        };
        Ok(Self::new(token, Version::new(row.state.version)))
    }
}

/// An account. Also its change: every column but the key is written.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = schema::accounts, primary_key(user_id), treat_none_as_default_value = false)]
pub(crate) struct AccountRow {
    pub(crate) user_id: DbId,
    pub(crate) balance: i64,
    pub(crate) entry_count: i64,
    pub(crate) version: i64,
}

impl AccountRow {
    pub(crate) fn new(account: &Account, version: Version) -> Self {
        Self {
            user_id: DbId(account.user_id.get()),
            balance: account.balance.minor_units(),
            entry_count: account.entry_count,
            version: version.get(),
        }
    }
}

impl TryFrom<AccountRow> for Versioned<Account> {
    type Error = StorageError;

    fn try_from(row: AccountRow) -> Result<Self, StorageError> {
        let account = Account {
            user_id: UserId::new(row.user_id.0),
            balance: money(row.balance)?,
            entry_count: row.entry_count,
        };
        Ok(Self::new(account, Version::new(row.version)))
    }
}

/// The names of entry kinds in storage.
const CHARGE: &str = "CHARGE";
const PAYMENT: &str = "PAYMENT";

/// An entry of an account.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = schema::entries, treat_none_as_default_value = false)]
pub(crate) struct EntryRow {
    pub(crate) entry_id: DbId,
    pub(crate) user_id: DbId,
    pub(crate) number: i64,
    pub(crate) kind: String,
    pub(crate) amount: i64,
    pub(crate) balance_after: i64,
    pub(crate) entered_at: DbTime,
    pub(crate) reservation_id: Option<DbId>,
}

impl From<&Entry> for EntryRow {
    fn from(entry: &Entry) -> Self {
        let (kind, reservation_id) = match entry.kind {
            EntryKind::Charge => (CHARGE, None),
            EntryKind::Payment { reservation_id } => (PAYMENT, Some(DbId(reservation_id.get()))),
        };
        Self {
            entry_id: DbId(entry.id.get()),
            user_id: DbId(entry.user_id.get()),
            number: entry.number,
            kind: kind.to_owned(),
            amount: entry.amount.minor_units(),
            balance_after: entry.balance_after.minor_units(),
            entered_at: DbTime(entry.at),
            reservation_id,
        }
    }
}

impl TryFrom<EntryRow> for Entry {
    type Error = StorageError;

    fn try_from(row: EntryRow) -> Result<Self, StorageError> {
        let kind = match (row.kind.as_str(), row.reservation_id) {
            (CHARGE, None) => EntryKind::Charge,
            (PAYMENT, Some(id)) => EntryKind::Payment { reservation_id: ReservationId::new(id.0) },
            _ => return Err(corrupt("an entry whose reservation does not fit its kind")),
        };
        Ok(Self {
            id: EntryId::new(row.entry_id.0),
            user_id: UserId::new(row.user_id.0),
            number: row.number,
            kind,
            amount: money(row.amount)?,
            balance_after: money(row.balance_after)?,
            at: row.entered_at.0,
        })
    }
}

/// A reservation without its seats.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = schema::reservations, treat_none_as_default_value = false)]
pub(crate) struct ReservationRow {
    pub(crate) reservation_id: DbId,
    pub(crate) user_id: DbId,
    pub(crate) performance_date_id: DbId,
    pub(crate) room_id: DbId,
    pub(crate) token_id: DbId,
    pub(crate) total_amount: i64,
    pub(crate) reserved_at: DbTime,
    pub(crate) hold_expires_at: DbTime,
    #[diesel(embed)]
    pub(crate) state: ReservationStateRow,
}

/// What changes of a reservation.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = schema::reservations, treat_none_as_default_value = false)]
pub(crate) struct ReservationStateRow {
    pub(crate) status: String,
    pub(crate) version: i64,
}

/// A seat of a reservation.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = schema::reservation_seats, treat_none_as_default_value = false)]
pub(crate) struct ReservationSeatRow {
    pub(crate) reservation_id: DbId,
    pub(crate) seat_id: DbId,
    pub(crate) price: i64,
    pub(crate) live: bool,
}

/// Whether a reservation of this status owns its seats.
pub(crate) const fn owns_seats(status: ReservationStatus) -> bool {
    matches!(status, ReservationStatus::Reserved | ReservationStatus::Done)
}

impl ReservationStateRow {
    pub(crate) fn new(status: ReservationStatus, version: Version) -> Self {
        Self { status: name_of(&ReservationStatus::NAMES, status).to_owned(), version: version.get() }
    }
}

impl ReservationRow {
    pub(crate) fn new(reservation: &Reservation, version: Version) -> Self {
        Self {
            reservation_id: DbId(reservation.id.get()),
            user_id: DbId(reservation.user_id.get()),
            performance_date_id: DbId(reservation.performance_date_id.get()),
            room_id: DbId(reservation.room_id.get()),
            token_id: DbId(reservation.token_id.get()),
            total_amount: reservation.total_amount.minor_units(),
            reserved_at: DbTime(reservation.reserved_at),
            hold_expires_at: DbTime(reservation.hold_expires_at),
            state: ReservationStateRow::new(reservation.status, version),
        }
    }

    pub(crate) fn status(&self) -> Result<ReservationStatus, StorageError> {
        named(&ReservationStatus::NAMES, &self.state.status)
    }

    /// The aggregate, with the rows of its seats.
    pub(crate) fn with_seats(
        self,
        seats: impl IntoIterator<Item = ReservationSeatRow>,
    ) -> Result<Versioned<Reservation>, StorageError> {
        let status = self.status()?;
        let seats = seats
            .into_iter()
            .map(|row| Ok(ReservedSeat { seat_id: SeatId::new(row.seat_id.0), price: money(row.price)? }));
        let reservation = Reservation {
            id: ReservationId::new(self.reservation_id.0),
            user_id: UserId::new(self.user_id.0),
            performance_date_id: PerformanceDateId::new(self.performance_date_id.0),
            room_id: RoomId::new(self.room_id.0),
            token_id: QueueTokenId::new(self.token_id.0),
            seats: seats.collect::<Result<_, StorageError>>()?,
            total_amount: money(self.total_amount)?,
            reserved_at: self.reserved_at.0,
            hold_expires_at: self.hold_expires_at.0,
            status,
        };
        Ok(Versioned::new(reservation, Version::new(self.state.version)))
    }
}

/// The seat rows of a new reservation.
pub(crate) fn reservation_seat_rows(reservation: &Reservation) -> Vec<ReservationSeatRow> {
    let row = |seat: &ReservedSeat| ReservationSeatRow {
        reservation_id: DbId(reservation.id.get()),
        seat_id: DbId(seat.seat_id.get()),
        price: seat.price.minor_units(),
        live: owns_seats(reservation.status),
    };
    reservation.seats.iter().map(row).collect()
}

/// A seat.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = schema::seats, treat_none_as_default_value = false)]
pub(crate) struct SeatRow {
    pub(crate) seat_id: DbId,
    pub(crate) performance_date_id: DbId,
    #[diesel(embed)]
    pub(crate) place: SeatPlaceRow,
    #[diesel(embed)]
    pub(crate) state: SeatStateRow,
}

/// Where a seat is and what it costs.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = schema::seats, treat_none_as_default_value = false)]
pub(crate) struct SeatPlaceRow {
    pub(crate) section: String,
    pub(crate) row_number: i32,
    pub(crate) seat_number: i32,
    pub(crate) grade: String,
    pub(crate) price: i64,
}

/// What changes of a seat.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = schema::seats, treat_none_as_null = true, treat_none_as_default_value = false)]
pub(crate) struct SeatStateRow {
    pub(crate) status: String,
    pub(crate) reservation_id: Option<DbId>,
    pub(crate) hold_expires_at: Option<DbTime>,
    pub(crate) version: i64,
}

impl SeatRow {
    pub(crate) fn new(seat: &Seat, version: Version) -> Self {
        Self {
            seat_id: DbId(seat.id.get()),
            performance_date_id: DbId(seat.performance_date_id.get()),
            place: SeatPlaceRow {
                section: seat.place.section.as_str().to_owned(),
                row_number: column(seat.place.row),
                seat_number: column(seat.place.number),
                grade: seat.place.grade.as_str().to_owned(),
                price: seat.place.price.minor_units(),
            },
            state: SeatStateRow::new(&seat.state, version),
        }
    }
}

impl SeatStateRow {
    pub(crate) fn new(state: &SeatState, version: Version) -> Self {
        let (status, reservation_id, hold_expires_at) = match *state {
            SeatState::Available => (SeatStatus::Available, None, None),
            SeatState::Reserved { reservation_id, hold_expires_at } => {
                (SeatStatus::Reserved, Some(reservation_id), Some(hold_expires_at))
            }
            SeatState::Unavailable { reservation_id } => {
                (SeatStatus::Unavailable, Some(reservation_id), None)
            }
        };
        Self {
            status: name_of(&SeatStatus::NAMES, status).to_owned(),
            reservation_id: reservation_id.map(|id| DbId(id.get())),
            hold_expires_at: hold_expires_at.map(DbTime),
            version: version.get(),
        }
    }

    /// What the row says of this seat.
    pub(crate) fn update(&self, id: SeatId) -> Result<SeatUpdate, StorageError> {
        Ok(SeatUpdate { id, state: self.state()?, version: Version::new(self.version) })
    }

    fn state(&self) -> Result<SeatState, StorageError> {
        let reservation_id = self.reservation_id.map(|id| ReservationId::new(id.0));
        let hold_expires_at = self.hold_expires_at.map(|time| time.0);
        match (named(&SeatStatus::NAMES, &self.status)?, reservation_id, hold_expires_at) {
            (SeatStatus::Available, None, None) => Ok(SeatState::Available),
            (SeatStatus::Reserved, Some(reservation_id), Some(hold_expires_at)) => {
                Ok(SeatState::Reserved { reservation_id, hold_expires_at })
            }
            (SeatStatus::Unavailable, Some(reservation_id), None) => {
                Ok(SeatState::Unavailable { reservation_id })
            }
            _ => Err(corrupt("a seat whose reservation does not fit its status")),
        }
    }
}

impl TryFrom<SeatPlaceRow> for SeatPlace {
    type Error = StorageError;

    fn try_from(row: SeatPlaceRow) -> Result<Self, StorageError> {
        Ok(Self {
            section: label(&row.section)?,
            row: count(row.row_number)?,
            number: count(row.seat_number)?,
            grade: label(&row.grade)?,
            price: money(row.price)?,
        })
    }
}

impl TryFrom<SeatRow> for Versioned<Seat> {
    type Error = StorageError;

    fn try_from(row: SeatRow) -> Result<Self, StorageError> {
        let seat = Seat {
            id: SeatId::new(row.seat_id.0),
            performance_date_id: PerformanceDateId::new(row.performance_date_id.0),
            place: row.place.try_into()?,
            state: row.state.state()?,
        };
        Ok(Self::new(seat, Version::new(row.state.version)))
    }
}

/// A payment without its tickets.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = schema::payments, treat_none_as_default_value = false)]
pub(crate) struct PaymentRow {
    pub(crate) payment_id: DbId,
    pub(crate) reservation_id: DbId,
    pub(crate) user_id: DbId,
    pub(crate) entry_id: DbId,
    pub(crate) amount: i64,
    pub(crate) paid_at: DbTime,
}

impl From<&Payment> for PaymentRow {
    fn from(payment: &Payment) -> Self {
        Self {
            payment_id: DbId(payment.id.get()),
            reservation_id: DbId(payment.reservation_id.get()),
            user_id: DbId(payment.user_id.get()),
            entry_id: DbId(payment.entry_id.get()),
            amount: payment.amount.minor_units(),
            paid_at: DbTime(payment.paid_at),
        }
    }
}

/// A ticket.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = schema::tickets, treat_none_as_default_value = false)]
pub(crate) struct TicketRow {
    pub(crate) ticket_id: DbId,
    pub(crate) payment_id: DbId,
    pub(crate) seat_id: DbId,
}

/// The ticket rows of a payment.
pub(crate) fn ticket_rows(payment: &Payment) -> Vec<TicketRow> {
    let row = |ticket: &Ticket| TicketRow {
        ticket_id: DbId(ticket.id.get()),
        payment_id: DbId(payment.id.get()),
        seat_id: DbId(ticket.seat_id.get()),
    };
    payment.tickets.iter().map(row).collect()
}

/// A concert.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = schema::concerts, treat_none_as_default_value = false)]
pub(crate) struct ConcertRow {
    pub(crate) concert_id: DbId,
    pub(crate) title: String,
    pub(crate) venue: String,
    pub(crate) room_id: DbId,
}

impl From<&Concert> for ConcertRow {
    fn from(concert: &Concert) -> Self {
        Self {
            concert_id: DbId(concert.id.get()),
            title: concert.title.as_str().to_owned(),
            venue: concert.venue.as_str().to_owned(),
            room_id: DbId(concert.room_id.get()),
        }
    }
}

impl TryFrom<ConcertRow> for Concert {
    type Error = StorageError;

    fn try_from(row: ConcertRow) -> Result<Self, StorageError> {
        Ok(Self {
            id: ConcertId::new(row.concert_id.0),
            title: label(&row.title)?,
            venue: label(&row.venue)?,
            room_id: RoomId::new(row.room_id.0),
        })
    }
}

/// A performance date.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = schema::performance_dates, treat_none_as_default_value = false)]
pub(crate) struct PerformanceDateRow {
    pub(crate) performance_date_id: DbId,
    pub(crate) concert_id: DbId,
    pub(crate) starts_at: DbTime,
    pub(crate) on_sale_at: Option<DbTime>,
}

impl From<&PerformanceDate> for PerformanceDateRow {
    fn from(date: &PerformanceDate) -> Self {
        Self {
            performance_date_id: DbId(date.id.get()),
            concert_id: DbId(date.concert_id.get()),
            starts_at: DbTime(date.starts_at),
            on_sale_at: date.on_sale_at.map(DbTime),
        }
    }
}

impl From<PerformanceDateRow> for PerformanceDate {
    fn from(row: PerformanceDateRow) -> Self {
        Self {
            id: PerformanceDateId::new(row.performance_date_id.0),
            concert_id: ConcertId::new(row.concert_id.0),
            starts_at: row.starts_at.0,
            on_sale_at: row.on_sale_at.map(|time| time.0),
        }
    }
}

/// A stored answer.
#[derive(Debug, Clone, Queryable, QueryableByName, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = schema::idempotency_records, primary_key(user_id, idempotency_key), treat_none_as_default_value = false)]
pub(crate) struct IdempotencyRow {
    pub(crate) user_id: DbId,
    pub(crate) idempotency_key: String,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) answer_status: i32,
    pub(crate) answer_content_type: String,
    pub(crate) answer_body: Vec<u8>,
    pub(crate) created_at: DbTime,
    pub(crate) expires_at: DbTime,
}

impl From<&IdempotencyRecord> for IdempotencyRow {
    fn from(record: &IdempotencyRecord) -> Self {
        Self {
            user_id: DbId(record.request.user_id.get()),
            idempotency_key: record.request.key.as_str().to_owned(),
            fingerprint: record.request.fingerprint.0.to_vec(),
            answer_status: i32::from(record.answer.status),
            answer_content_type: record.answer.content_type.clone(),
            answer_body: record.answer.body.clone(),
            created_at: DbTime(record.created_at),
            expires_at: DbTime(record.expires_at),
        }
    }
}

impl TryFrom<IdempotencyRow> for IdempotencyRecord {
    type Error = StorageError;

    fn try_from(row: IdempotencyRow) -> Result<Self, StorageError> {
        let fingerprint =
            row.fingerprint.try_into().map_err(|_| corrupt("a fingerprint of another length"))?;
        let request = KeyedRequest {
            user_id: UserId::new(row.user_id.0),
            key: IdempotencyKey::new(&row.idempotency_key).map_err(corrupt)?,
            fingerprint: Fingerprint(fingerprint),
        };
        let answer = Answer {
            status: u16::try_from(row.answer_status).map_err(corrupt)?,
            content_type: row.answer_content_type,
            body: row.answer_body,
        };
        Ok(Self { request, answer, created_at: row.created_at.0, expires_at: row.expires_at.0 })
    }
}

/// What an operator did. The states are JSON objects.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = schema::audit_log, treat_none_as_default_value = false)]
pub(crate) struct AuditRow {
    pub(crate) entry_id: DbId,
    pub(crate) acted_at: DbTime,
    pub(crate) user_id: DbId,
    pub(crate) action: String,
    pub(crate) target_id: DbId,
    pub(crate) state_before: Option<String>,
    pub(crate) state_after: String,
}

impl AuditRow {
    /// The row of an entry whose unit of work had a command that came to this.
    pub(crate) fn new(entry: &AuditEntry, outcome: Option<CommandOutcome>) -> Self {
        let entry = entry.completed(outcome);
        Self {
            entry_id: DbId(entry.id.get()),
            acted_at: DbTime(entry.at),
            user_id: DbId(entry.user_id.get()),
            action: entry.action.name().to_owned(),
            target_id: DbId(entry.action.target()),
            state_before: entry.before.map(|facts| json_of(facts).to_string()),
            state_after: json_of(entry.after).to_string(),
        }
    }
}

impl TryFrom<AuditRow> for AuditEntry {
    type Error = StorageError;

    fn try_from(row: AuditRow) -> Result<Self, StorageError> {
        let action = OperatorAction::named(&row.action, row.target_id.0);
        Ok(Self {
            id: AuditEntryId::new(row.entry_id.0),
            at: row.acted_at.0,
            user_id: UserId::new(row.user_id.0),
            action: action.ok_or_else(|| corrupt(format_args!("{:?} is no action", row.action)))?,
            before: row.state_before.as_deref().map(facts_of).transpose()?,
            after: facts_of(&row.state_after)?,
        })
    }
}

fn json_of(Facts(facts): Facts) -> Value {
    let value = |fact| match fact {
        Fact::Absent => Value::Null,
        Fact::Number(number) => Value::from(number),
        Fact::Text(text) => Value::String(text),
        Fact::List(parts) => Value::Array(parts.into_iter().map(json_of).collect()),
    };
    Value::Object(facts.into_iter().map(|(name, fact)| (name, value(fact))).collect())
}

fn facts_of(json: &str) -> Result<Facts, StorageError> {
    facts_in(serde_json::from_str(json).map_err(corrupt)?)
}

fn facts_in(object: Map<String, Value>) -> Result<Facts, StorageError> {
    let part = |value| match value {
        Value::Object(object) => facts_in(object),
        other => Err(corrupt(format_args!("{other} is no part of a state"))),
    };
    let fact = |value| match value {
        Value::Null => Ok(Fact::Absent),
        Value::String(text) => Ok(Fact::Text(text)),
        Value::Array(parts) => parts.into_iter().map(part).collect::<Result<_, _>>().map(Fact::List),
        Value::Number(number) if number.is_i64() => Ok(Fact::Number(number.as_i64().unwrap_or_default())),
        other => Err(corrupt(format_args!("{other} is no fact"))),
    };
    let entries = object.into_iter().map(|(name, value)| Ok((name, fact(value)?)));
    entries.collect::<Result<_, StorageError>>().map(Facts)
}

/// A date with its seats counted.
#[derive(QueryableByName)]
pub(crate) struct DateSummaryRow {
    #[diesel(sql_type = Id)]
    performance_date_id: DbId,
    #[diesel(sql_type = Instant)]
    starts_at: DbTime,
    #[diesel(sql_type = Nullable<Instant>)]
    on_sale_at: Option<DbTime>,
    #[diesel(sql_type = BigInt)]
    total_seats: i64,
    #[diesel(sql_type = BigInt)]
    available_seats: i64,
}

impl From<DateSummaryRow> for DateSummary {
    fn from(row: DateSummaryRow) -> Self {
        let counted = |number: i64| u64::try_from(number).unwrap_or(0);
        Self {
            id: PerformanceDateId::new(row.performance_date_id.0),
            starts_at: row.starts_at.0,
            on_sale_at: row.on_sale_at.map(|time| time.0),
            total_seats: counted(row.total_seats),
            available_seats: counted(row.available_seats),
        }
    }
}

/// The offer of a concert.
#[derive(QueryableByName)]
pub(crate) struct OfferRow {
    #[diesel(sql_type = Id)]
    concert_id: DbId,
    #[diesel(sql_type = Nullable<Instant>)]
    next_date_at: Option<DbTime>,
    #[diesel(sql_type = Nullable<BigInt>)]
    from_price: Option<i64>,
}

impl OfferRow {
    /// What the row says of this concert.
    pub(crate) fn offer(self) -> Result<(ConcertId, Offer), StorageError> {
        let offer = Offer {
            next_date_at: self.next_date_at.map(|time| time.0),
            from_price: self.from_price.map(money).transpose()?,
        };
        Ok((ConcertId::new(self.concert_id.0), offer))
    }
}
