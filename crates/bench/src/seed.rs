//! What the database holds before a run, written in a few statements: venues, lines, buyers.
//!
//! Every id says what it is and which one it is, so that requests can be prepared without reading anything back: buyer
//! `n` is user `n` with token `n`, account `n`, reservation `n` and seat `n`. Numbers are never used twice in a database.

mod history;

use frontrow_domain::ports::{AccessClaims, AccessTokens, Clock, Role, TokenProvider, WaitClaims};
use frontrow_domain::queue::TicketNumber;
use frontrow_domain::{QueueTokenId, RoomId, Timestamp, UserId};
use frontrow_infra::identity::{AccessKeys, Secret, SystemClock, WaitTokens};
use frontrow_testkit::app::SECRET;
use uuid::Uuid;

use crate::database::Database;

/// What an id belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    User = 1,
    Token,
    Reservation,
    Seat,
    Charge,
    Payment,
    PaymentEntry,
    Ticket,
    Room,
    Concert,
    Date,
}

/// The price of every seat.
pub(crate) const PRICE: u32 = 1_000;
/// What every buyer has.
const BALANCE: u32 = 1_000_000;
/// How long what is seeded lives: longer than any run.
const LIFE_SECONDS: i64 = 24 * 60 * 60;
/// A room that is not to admit by itself within a run has its next tick that far away.
const TICK_SECONDS: i64 = 30 * 24 * 60 * 60;
/// Seats in a row, and in a section.
const ROW: u64 = 100;
const SECTION: u64 = 5_000;

/// The id of the `number`th of a kind.
pub(crate) fn id(kind: Kind, number: u64) -> Uuid {
    Uuid::from_u128((kind_bits(kind) << 96) | (0x7000 << 64) | (0x8000 << 48) | u128::from(number))
}

#[allow(clippy::as_conversions, reason = "the numbers of the enum itself")]
const fn kind_bits(kind: Kind) -> u128 {
    kind as u128
}

/// How SQL is said.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dialect {
    Postgres,
    Sqlite,
}

impl From<&Database> for Dialect {
    fn from(database: &Database) -> Self {
        match database {
            Database::Postgres(_) => Self::Postgres,
            Database::Sqlite(_) => Self::Sqlite,
        }
    }
}

impl Dialect {
    /// The id of the `number`th of a kind, `number` being an expression.
    pub(crate) fn id(self, kind: Kind, number: &str) -> String {
        match self {
            Self::Postgres => format!("({})::uuid", self.id_text(kind, number)),
            Self::Sqlite => {
                format!("unhex('{:08x}000070008000' || printf('%012x', {number}))", kind_bits(kind))
            }
        }
    }

    /// The same as people write it.
    fn id_text(self, kind: Kind, number: &str) -> String {
        let digits = match self {
            Self::Postgres => format!("lpad(to_hex({number}), 12, '0')"),
            Self::Sqlite => format!("printf('%012x', {number})"),
        };
        format!("'{:08x}-0000-7000-8000-' || {digits}", kind_bits(kind))
    }

    /// The bytes of a text.
    fn bytes(self, text: &str) -> String {
        match self {
            Self::Postgres => format!("convert_to({text}, 'UTF8')"),
            Self::Sqlite => format!("CAST({text} AS BLOB)"),
        }
    }

    fn time(self, unix_seconds: i64) -> String {
        match self {
            Self::Postgres => format!("to_timestamp({unix_seconds})"),
            Self::Sqlite => format!("{unix_seconds}000000"),
        }
    }

    /// Rows of one column, `n`.
    fn series(self, first: u64, count: u64) -> String {
        let last = first + count - 1;
        match self {
            Self::Postgres => format!("generate_series({first}::bigint, {last}::bigint) AS series (n)"),
            Self::Sqlite => format!(
                "(WITH RECURSIVE r (n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM r WHERE n < {last}) SELECT n FROM r)"
            ),
        }
    }
}

/// A concert with one date, a room of its own, and people.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Venue {
    dialect: Dialect,
    /// Which one: its room, concert and date have this number.
    pub(crate) number: u64,
    /// The first of its buyers and seats.
    pub(crate) first: u64,
    /// How many people are in its room.
    pub(crate) people: u64,
    /// How many seats its date has.
    pub(crate) seats: u64,
    /// Now, in seconds since 1970.
    now: i64,
}

/// What the people of a venue have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowd {
    /// A token that waits.
    Waiting,
    /// An ACTIVE token.
    Active,
    /// An ACTIVE token, a funded account, and a hold on the seat of their number.
    Holding,
    /// A token that is over, and what they bought or gave back: three seats for each two people.
    Gone,
}

impl Venue {
    /// A venue to be filled.
    pub(crate) fn new(database: &Database, number: u64, first: u64, people: u64, seats: u64) -> Self {
        let now = SystemClock::default().now().unix_micros().div_euclid(1_000_000);
        Self { dialect: database.into(), number, first, people, seats, now }
    }

    /// The statements that write all of it.
    pub(crate) fn statements(&self, crowd: Crowd) -> Vec<String> {
        if crowd == Crowd::Gone {
            return self.history();
        }
        let mut statements = self.places(crowd);
        statements.extend(self.tokens(crowd));
        if crowd == Crowd::Holding {
            statements.extend(self.wallets());
            statements.extend(self.holds());
        }
        if self.seats > 0 {
            statements.push(self.seat_rows(crowd));
        }
        statements
    }

    fn own(&self, kind: Kind) -> String {
        self.dialect.id(kind, &self.number.to_string())
    }

    fn each(&self, kind: Kind) -> String {
        self.dialect.id(kind, "n")
    }

    fn people_series(&self) -> String {
        self.dialect.series(self.first, self.people)
    }

    fn at(&self, seconds_from_now: i64) -> String {
        self.dialect.time(self.now + seconds_from_now)
    }

    fn places(&self, crowd: Crowd) -> Vec<String> {
        let (room, concert, date) = (self.own(Kind::Room), self.own(Kind::Concert), self.own(Kind::Date));
        let (number, people, seats) = (self.number, self.people, self.seats);
        let (now, later) = (self.at(0), self.at(TICK_SECONDS));
        let (waiting, admitted) = if crowd == Crowd::Waiting { (people, 0) } else { (0, people) };
        let available = if crowd == Crowd::Holding { seats.saturating_sub(people) } else { seats };
        vec![
            format!(
                "INSERT INTO rooms (room_id, admit_batch, admit_interval_seconds, active_ttl_seconds, mode, last_tick_at,
                    next_tick_at, version) VALUES ({room}, 10, {TICK_SECONDS}, 600, 'AUTO', {now}, {later}, 1)"
            ),
            format!(
                "INSERT INTO lines (room_id, last_ticket, waiting, admitted_through, departures)
                    VALUES ({room}, {people}, {waiting}, {admitted}, 0)"
            ),
            format!(
                "INSERT INTO concerts (concert_id, title, venue, room_id)
                    VALUES ({concert}, 'Night {number}', 'Hall {number}', {room})"
            ),
            format!(
                "INSERT INTO performance_dates (performance_date_id, concert_id, starts_at)
                    VALUES ({date}, {concert}, {later})"
            ),
            format!(
                "INSERT INTO seat_feeds (performance_date_id, version, total_seats, available_seats)
                    VALUES ({date}, 1, {seats}, {available})"
            ),
        ]
    }

    fn tokens(&self, crowd: Crowd) -> Option<String> {
        let (token, room, user) = (self.each(Kind::Token), self.own(Kind::Room), self.each(Kind::User));
        let (now, end) = (self.at(0), self.at(LIFE_SECONDS));
        let state = if crowd == Crowd::Waiting {
            "'WAIT', NULL, NULL".to_owned()
        } else {
            format!("'ACTIVE', {now}, {end}")
        };
        let ticket = format!("n - {}", self.first - 1);
        (self.people > 0).then(|| {
            format!(
                "INSERT INTO queue_tokens (token_id, room_id, user_id, ticket, entered_at, status, activated_at, expires_at,
                    version) SELECT {token}, {room}, {user}, {ticket}, {now}, {state}, 1 FROM {}",
                self.people_series()
            )
        })
    }

    fn wallets(&self) -> Vec<String> {
        let (user, charge, now) = (self.each(Kind::User), self.each(Kind::Charge), self.at(0));
        let people = self.people_series();
        vec![
            format!(
                "INSERT INTO accounts (user_id, balance, entry_count, version) SELECT {user}, {BALANCE}, 1, 1 FROM {people}"
            ),
            format!(
                "INSERT INTO entries (entry_id, user_id, number, kind, amount, balance_after, entered_at)
                    SELECT {charge}, {user}, 1, 'CHARGE', {BALANCE}, {BALANCE}, {now} FROM {people}"
            ),
        ]
    }

    fn holds(&self) -> Vec<String> {
        let (reservation, user) = (self.each(Kind::Reservation), self.each(Kind::User));
        let (seat, token) = (self.each(Kind::Seat), self.each(Kind::Token));
        let (room, date) = (self.own(Kind::Room), self.own(Kind::Date));
        let (now, end) = (self.at(0), self.at(LIFE_SECONDS));
        let people = self.people_series();
        vec![
            format!(
                "INSERT INTO reservations (reservation_id, user_id, performance_date_id, room_id, token_id, total_amount,
                    reserved_at, hold_expires_at, status, version)
                    SELECT {reservation}, {user}, {date}, {room}, {token}, {PRICE}, {now}, {end}, 'RESERVED', 1 FROM {people}"
            ),
            format!(
                "INSERT INTO reservation_seats (reservation_id, seat_id, price, live)
                    SELECT {reservation}, {seat}, {PRICE}, TRUE FROM {people}"
            ),
        ]
    }

    fn seat_rows(&self, crowd: Crowd) -> String {
        let seat = self.each(Kind::Seat);
        let state = if crowd == Crowd::Holding {
            format!("'RESERVED', {}, {}", self.each(Kind::Reservation), self.at(LIFE_SECONDS))
        } else {
            "'AVAILABLE', NULL, NULL".to_owned()
        };
        self.seats_as(&seat, &state)
    }

    /// The seats, in a state that is an expression of their number.
    fn seats_as(&self, seat: &str, state: &str) -> String {
        let (date, index) = (self.own(Kind::Date), format!("(n - {})", self.first));
        format!(
            "INSERT INTO seats (seat_id, performance_date_id, section, row_number, seat_number, grade, price, status,
                reservation_id, hold_expires_at, version)
                SELECT {seat}, {date}, 'S' || ({index} / {SECTION}), {index} % {SECTION} / {ROW} + 1, {index} % {ROW} + 1,
                'VIP', {PRICE}, {state}, 1 FROM {}",
            self.dialect.series(self.first, self.seats)
        )
    }

    /// The buyers' numbers.
    pub(crate) fn buyers(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.people
    }

    /// The Wait-Token of a buyer.
    fn claims(&self, buyer: u64) -> WaitClaims {
        let micros = self.now.saturating_mul(1_000_000);
        WaitClaims {
            token_id: QueueTokenId::new(id(Kind::Token, buyer)),
            room_id: RoomId::new(id(Kind::Room, self.number)),
            user_id: UserId::new(id(Kind::User, buyer)),
            ticket: TicketNumber(i64::try_from(buyer - self.first + 1).unwrap_or(i64::MAX)),
            entered_at: Timestamp::from_unix_micros(micros).unwrap_or(Timestamp::MAX),
        }
    }
}

/// Signs what the server believes: it is started with the same secret.
pub(crate) struct Mint {
    access: AccessKeys,
    wait: WaitTokens,
    expires_at: Timestamp,
}

impl Mint {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let secret = Secret::new(SECRET)?;
        let expires_at = SystemClock::default().now().plus_seconds(24 * 60 * 60);
        Ok(Self { access: AccessKeys::own(&secret), wait: WaitTokens::new(&secret), expires_at })
    }

    /// The value of a buyer's `Authorization`.
    pub(crate) fn bearer(&self, buyer: u64) -> anyhow::Result<String> {
        let user_id = UserId::new(id(Kind::User, buyer));
        let claims = AccessClaims { user_id, role: Role::User, expires_at: self.expires_at };
        Ok(format!("Bearer {}", self.access.issue(&claims)?))
    }

    /// The value of a buyer's `Wait-Token`.
    pub(crate) fn wait_token(&self, venue: &Venue, buyer: u64) -> String {
        self.wait.issue(&venue.claims(buyer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_same_here_and_in_sql() {
        let uuid = id(Kind::Seat, 0xabc);
        assert_eq!(uuid.to_string(), "00000004-0000-7000-8000-000000000abc");
        assert!(Dialect::Postgres.id(Kind::Seat, "n").contains("'00000004-0000-7000-8000-'"));
        assert!(Dialect::Sqlite.id(Kind::Seat, "n").contains("'00000004000070008000'"));
        assert_eq!(uuid.get_version_num(), 7);
    }
}
