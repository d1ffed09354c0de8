//! A sale that is over: what an audit of a big database has to read.

use super::{BALANCE, Kind, PRICE, Venue};

/// One in so many gave the seats back, the others paid.
const GIVES_BACK: u64 = 10;

impl Venue {
    /// Everybody was admitted, charged and reserved: two seats or one in turn, three for each two people. All but a few
    /// have paid, under a key. Nobody is there any more.
    pub(super) fn history(&self) -> Vec<String> {
        let mut statements = self.places(super::Crowd::Gone);
        statements.push(self.ended_tokens());
        statements.extend(self.spent_wallets());
        statements.extend(self.sold_seats());
        statements.extend(self.payments());
        statements
    }

    /// The how manieth of its venue somebody is, from 0.
    fn index(&self) -> String {
        format!("(n - {})", self.first)
    }

    /// Whether the one of this index has paid.
    fn has_paid(index: &str) -> String {
        format!("{index} % {GIVES_BACK} <> {}", GIVES_BACK - 1)
    }

    /// What everybody who has paid gets written, selected from all people.
    fn for_payers(&self, into: &str, values: &str) -> String {
        format!(
            "INSERT INTO {into} SELECT {values} FROM {} WHERE {}",
            self.people_series(),
            Self::has_paid(&self.index())
        )
    }

    fn cost(&self) -> String {
        format!("{PRICE} * (2 - {} % 2)", self.index())
    }

    fn ended_tokens(&self) -> String {
        let (token, room, user) = (self.each(Kind::Token), self.own(Kind::Room), self.each(Kind::User));
        let (index, now) = (self.index(), self.at(0));
        format!(
            "INSERT INTO queue_tokens (token_id, room_id, user_id, ticket, entered_at, status, activated_at, expires_at,
                version) SELECT {token}, {room}, {user}, {index} + 1, {now}, 'EXPIRED', {now}, {now}, 2 FROM {}",
            self.people_series()
        )
    }

    fn spent_wallets(&self) -> Vec<String> {
        let (user, charge, now) = (self.each(Kind::User), self.each(Kind::Charge), self.at(0));
        let (paid, cost, people) = (Self::has_paid(&self.index()), self.cost(), self.people_series());
        vec![
            format!(
                "INSERT INTO accounts (user_id, balance, entry_count, version)
                    SELECT {user}, CASE WHEN {paid} THEN {BALANCE} - {cost} ELSE {BALANCE} END,
                    CASE WHEN {paid} THEN 2 ELSE 1 END, 1 FROM {people}"
            ),
            format!(
                "INSERT INTO entries (entry_id, user_id, number, kind, amount, balance_after, entered_at)
                    SELECT {charge}, {user}, 1, 'CHARGE', {BALANCE}, {BALANCE}, {now} FROM {people}"
            ),
        ]
    }

    /// The seat of everybody's own number, and one of every other more behind those.
    fn sold_seats(&self) -> Vec<String> {
        let (index, cost, people) = (self.index(), self.cost(), self.people_series());
        let (reservation, user) = (self.each(Kind::Reservation), self.each(Kind::User));
        let (token, room, date) = (self.each(Kind::Token), self.own(Kind::Room), self.own(Kind::Date));
        let (now, end, paid) = (self.at(0), self.at(300), Self::has_paid(&index));
        let reservation_seats = |number: &str| {
            format!(
                "INSERT INTO reservation_seats (reservation_id, seat_id, price, live)
                    SELECT {reservation}, {}, {PRICE}, {paid} FROM {people}",
                self.dialect.id(Kind::Seat, number)
            )
        };
        let second = format!("{} + {index} / 2", self.first + self.people);
        vec![
            format!(
                "INSERT INTO reservations (reservation_id, user_id, performance_date_id, room_id, token_id, total_amount,
                    reserved_at, hold_expires_at, status, version)
                    SELECT {reservation}, {user}, {date}, {room}, {token}, {cost}, {now}, {end},
                    CASE WHEN {paid} THEN 'DONE' ELSE 'CANCELLED' END, 2 FROM {people}"
            ),
            reservation_seats("n"),
            format!("{} WHERE {index} % 2 = 0", reservation_seats(&second)),
            self.ended_seat_rows(),
            format!(
                "UPDATE seat_feeds SET available_seats = (SELECT count(*) FROM seats
                    WHERE seats.performance_date_id = seat_feeds.performance_date_id AND status = 'AVAILABLE')
                    WHERE performance_date_id = {date}"
            ),
        ]
    }

    fn ended_seat_rows(&self) -> String {
        let (seat, people) = (self.each(Kind::Seat), self.people);
        let index = self.index();
        let owner = format!("(CASE WHEN {index} < {people} THEN {index} ELSE ({index} - {people}) * 2 END)");
        let paid = Self::has_paid(&owner);
        let reservation = self.dialect.id(Kind::Reservation, &format!("({} + {owner})", self.first));
        let state = format!(
            "CASE WHEN {paid} THEN 'UNAVAILABLE' ELSE 'AVAILABLE' END, CASE WHEN {paid} THEN {reservation} END, NULL"
        );
        self.seats_as(&seat, &state)
    }

    fn payments(&self) -> Vec<String> {
        let (payment, entry) = (self.each(Kind::Payment), self.each(Kind::PaymentEntry));
        let (reservation, user) = (self.each(Kind::Reservation), self.each(Kind::User));
        let (index, cost, now, later) = (self.index(), self.cost(), self.at(0), self.at(24 * 60 * 60));
        let ticket = |number: &str| {
            let id = |kind| self.dialect.id(kind, number);
            self.for_payers(
                "tickets (ticket_id, payment_id, seat_id)",
                &format!("{}, {payment}, {}", id(Kind::Ticket), id(Kind::Seat)),
            )
        };
        let second = format!("({} + {index} / 2)", self.first + self.people);
        let answer = self.dialect.bytes(&format!(
            "'{{\"paymentId\":\"' || {} || '\",\"reservationId\":\"' || {} || '\"}}'",
            self.dialect.id_text(Kind::Payment, "n"),
            self.dialect.id_text(Kind::Reservation, "n"),
        ));
        let print = self.dialect.bytes("'a fingerprint of 32 bytes or so.'");
        vec![
            self.for_payers(
                "entries (entry_id, user_id, number, kind, amount, balance_after, entered_at, reservation_id)",
                &format!("{entry}, {user}, 2, 'PAYMENT', {cost}, {BALANCE} - {cost}, {now}, {reservation}"),
            ),
            self.for_payers(
                "payments (payment_id, reservation_id, user_id, entry_id, amount, paid_at)",
                &format!("{payment}, {reservation}, {user}, {entry}, {cost}, {now}"),
            ),
            ticket("n"),
            format!("{} AND {index} % 2 = 0", ticket(&second)),
            self.for_payers(
                "idempotency_records (user_id, idempotency_key, fingerprint, answer_status, answer_content_type,
                    answer_body, created_at, expires_at)",
                &format!("{user}, 'pay', {print}, 200, 'application/json', {answer}, {now}, {later}"),
            ),
        ]
    }
}
