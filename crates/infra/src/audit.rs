//! The invariants of a database, checked by SQL that both databases understand. Each looks at stored states alone,
//! within one snapshot, so that a live system can be audited.

/// One promise and how to check it.
pub(crate) struct Invariant {
    /// What is promised, in a line.
    pub(crate) promise: &'static str,
    /// Counts what there is to check.
    pub(crate) checked: &'static str,
    /// Counts what breaks the promise.
    pub(crate) breaches: &'static str,
}

/// What the check of one invariant found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is promised, in a line.
    pub promise: &'static str,
    /// How many things were checked.
    pub checked: i64,
    /// How many of them break the promise.
    pub breaches: i64,
}

/// A query of one column, whose column is called `count` as both adapters read it.
pub(crate) fn count_query(query: &str) -> String {
    format!("WITH counted (number) AS ({query}) SELECT number AS \"count\" FROM counted")
}

/// Every invariant, in the order of the report.
pub(crate) const INVARIANTS: [Invariant; 20] = [
    Invariant {
        promise: "at most one live reservation a seat",
        checked: "SELECT count(*) FROM seats",
        breaches: "SELECT count(*) FROM (
            SELECT rs.seat_id FROM reservation_seats rs
            JOIN reservations r ON r.reservation_id = rs.reservation_id
            WHERE r.status IN ('RESERVED', 'DONE')
            GROUP BY rs.seat_id HAVING count(*) > 1) twice",
    },
    Invariant {
        promise: "a seat's status agrees with its reservation",
        checked: "SELECT count(*) FROM seats",
        breaches: "SELECT count(*) FROM seats s
            LEFT JOIN reservations r ON r.reservation_id = s.reservation_id
            LEFT JOIN reservation_seats rs ON rs.reservation_id = s.reservation_id AND rs.seat_id = s.seat_id
            WHERE CASE s.status
                WHEN 'AVAILABLE' THEN s.reservation_id IS NOT NULL
                WHEN 'RESERVED' THEN rs.seat_id IS NULL OR r.status <> 'RESERVED'
                    OR r.hold_expires_at <> s.hold_expires_at
                ELSE rs.seat_id IS NULL OR r.status <> 'DONE' END",
    },
    Invariant {
        promise: "a live reservation owns each of its seats, an ended one none",
        checked: "SELECT count(*) FROM reservation_seats",
        breaches: "SELECT count(*) FROM reservation_seats rs
            JOIN reservations r ON r.reservation_id = rs.reservation_id
            JOIN seats s ON s.seat_id = rs.seat_id
            WHERE CASE WHEN r.status IN ('RESERVED', 'DONE')
                THEN NOT rs.live OR s.reservation_id IS NULL OR s.reservation_id <> rs.reservation_id
                ELSE rs.live OR coalesce(s.reservation_id = rs.reservation_id, FALSE) END",
    },
    Invariant {
        promise: "a reservation's total is the sum of its seats, all of one date",
        checked: "SELECT count(*) FROM reservations",
        breaches: "SELECT count(*) FROM reservations r
            LEFT JOIN (
                SELECT rs.reservation_id, sum(rs.price) AS total,
                    min(CASE WHEN s.performance_date_id = r.performance_date_id THEN 1 ELSE 0 END) AS same_date
                FROM reservation_seats rs
                JOIN seats s ON s.seat_id = rs.seat_id
                JOIN reservations r ON r.reservation_id = rs.reservation_id
                GROUP BY rs.reservation_id
            ) sums ON sums.reservation_id = r.reservation_id
            WHERE sums.total IS NULL OR sums.total <> r.total_amount OR sums.same_date = 0",
    },
    Invariant {
        promise: "a balance is the sum of its entries, and never negative",
        checked: "SELECT count(*) FROM accounts",
        breaches: "SELECT count(*) FROM accounts a
            LEFT JOIN (
                SELECT user_id, count(*) AS entries,
                    sum(CASE kind WHEN 'CHARGE' THEN amount ELSE -amount END) AS balance
                FROM entries GROUP BY user_id
            ) sums ON sums.user_id = a.user_id
            WHERE a.balance < 0 OR a.balance <> coalesce(sums.balance, 0)
                OR a.entry_count <> coalesce(sums.entries, 0)",
    },
    Invariant {
        promise: "entries are numbered without a gap, each with the balance after it",
        checked: "SELECT count(*) FROM entries",
        breaches: "SELECT count(*) FROM (
            SELECT number, row_number() OVER account AS expected_number, balance_after,
                sum(CASE kind WHEN 'CHARGE' THEN amount ELSE -amount END) OVER account AS expected_balance
            FROM entries WINDOW account AS (PARTITION BY user_id ORDER BY number)
            ) numbered
            WHERE number <> expected_number OR balance_after <> expected_balance OR balance_after < 0",
    },
    Invariant {
        promise: "a payment equals its reservation's total and its entry",
        checked: "SELECT count(*) FROM payments",
        breaches: "SELECT count(*) FROM payments p
            LEFT JOIN reservations r ON r.reservation_id = p.reservation_id
            LEFT JOIN entries e ON e.entry_id = p.entry_id
            WHERE r.reservation_id IS NULL OR e.entry_id IS NULL
                OR r.status <> 'DONE' OR r.user_id <> p.user_id OR r.total_amount <> p.amount
                OR e.kind <> 'PAYMENT' OR e.user_id <> p.user_id OR e.amount <> p.amount
                OR e.reservation_id <> p.reservation_id",
    },
    Invariant {
        promise: "a payment entry has its payment",
        checked: "SELECT count(*) FROM entries WHERE kind = 'PAYMENT'",
        breaches: "SELECT count(*) FROM entries e
            LEFT JOIN payments p ON p.entry_id = e.entry_id
            WHERE e.kind = 'PAYMENT' AND p.payment_id IS NULL",
    },
    Invariant {
        promise: "a paid reservation has one payment, with a ticket for each seat",
        checked: "SELECT count(*) FROM reservations WHERE status = 'DONE'",
        breaches: "SELECT count(*) FROM reservations r
            WHERE r.status = 'DONE' AND (
                (SELECT count(*) FROM payments p WHERE p.reservation_id = r.reservation_id) <> 1
                OR EXISTS (
                    SELECT 1 FROM reservation_seats rs
                    LEFT JOIN payments p ON p.reservation_id = rs.reservation_id
                    LEFT JOIN tickets t ON t.payment_id = p.payment_id AND t.seat_id = rs.seat_id
                    WHERE rs.reservation_id = r.reservation_id AND t.ticket_id IS NULL)
                OR (SELECT count(*) FROM reservation_seats rs WHERE rs.reservation_id = r.reservation_id) <>
                    (SELECT count(*) FROM tickets t JOIN payments p ON p.payment_id = t.payment_id
                     WHERE p.reservation_id = r.reservation_id))",
    },
    Invariant {
        promise: "a paid reservation's queue token is EXPIRED",
        checked: "SELECT count(*) FROM reservations WHERE status = 'DONE'",
        breaches: "SELECT count(*) FROM reservations r
            LEFT JOIN queue_tokens t ON t.token_id = r.token_id
            WHERE r.status = 'DONE' AND (t.token_id IS NULL OR t.status <> 'EXPIRED')",
    },
    Invariant {
        promise: "at most one live queue token a room and user",
        checked: "SELECT count(*) FROM queue_tokens WHERE status IN ('WAIT', 'ACTIVE')",
        breaches: "SELECT count(*) FROM (
            SELECT room_id, user_id FROM queue_tokens WHERE status IN ('WAIT', 'ACTIVE')
            GROUP BY room_id, user_id HAVING count(*) > 1) twice",
    },
    Invariant {
        promise: "nobody waits behind somebody who came later and was admitted",
        checked: "SELECT count(*) FROM queue_tokens WHERE status = 'WAIT'",
        breaches: "SELECT count(*) FROM queue_tokens t
            JOIN (
                SELECT room_id, max(ticket) AS last_admitted FROM queue_tokens
                WHERE activated_at IS NOT NULL GROUP BY room_id
            ) heads ON heads.room_id = t.room_id
            WHERE t.status = 'WAIT' AND t.ticket < heads.last_admitted",
    },
    Invariant {
        promise: "tickets of a room are numbered without a gap, pruned ones counted in",
        checked: "SELECT count(*) FROM queue_tokens",
        breaches: "SELECT count(*) FROM lines l
            LEFT JOIN pruned_tokens p ON p.room_id = l.room_id
            LEFT JOIN (
                SELECT room_id, count(*) AS tokens, count(DISTINCT ticket) AS tickets, max(ticket) AS last_ticket
                FROM queue_tokens GROUP BY room_id
            ) found ON found.room_id = l.room_id
            WHERE l.last_ticket <> coalesce(found.tokens, 0) + coalesce(p.tokens, 0)
                OR l.last_ticket <> coalesce(found.tickets, 0) + coalesce(p.tokens, 0)
                OR l.last_ticket <> coalesce(found.last_ticket, 0)",
    },
    Invariant {
        promise: "a room counts its waiters right",
        checked: "SELECT count(*) FROM lines",
        breaches: "SELECT count(*) FROM lines l
            WHERE l.waiting <> (
                SELECT count(*) FROM queue_tokens t WHERE t.room_id = l.room_id AND t.status = 'WAIT')",
    },
    Invariant {
        promise: "a room knows the last one it admitted, and nobody at or before that waits",
        checked: "SELECT count(*) FROM lines",
        breaches: "SELECT count(*) FROM lines l
            LEFT JOIN (
                SELECT room_id, max(CASE WHEN activated_at IS NOT NULL THEN ticket ELSE 0 END) AS last_admitted,
                    min(CASE WHEN status = 'WAIT' THEN ticket END) AS first_waiting
                FROM queue_tokens GROUP BY room_id
            ) found ON found.room_id = l.room_id
            WHERE l.admitted_through <> coalesce(found.last_admitted, 0)
                OR found.first_waiting <= l.admitted_through",
    },
    Invariant {
        promise: "whoever left a line without being admitted has a departure, numbered without a gap, pruned ones counted in",
        checked: "SELECT count(*) FROM queue_tokens WHERE departure IS NOT NULL",
        breaches: "SELECT
            (SELECT count(*) FROM queue_tokens
                WHERE (departure IS NOT NULL) <> (status = 'EXPIRED' AND activated_at IS NULL))
            + (SELECT count(*) FROM lines l
                LEFT JOIN pruned_tokens p ON p.room_id = l.room_id
                LEFT JOIN (
                    SELECT room_id, count(*) AS departed, count(DISTINCT departure) AS numbers,
                        max(departure) AS last_departure
                    FROM queue_tokens WHERE departure IS NOT NULL GROUP BY room_id
                ) found ON found.room_id = l.room_id
                WHERE l.departures <> coalesce(found.departed, 0) + coalesce(p.departures, 0)
                    OR l.departures <> coalesce(found.numbers, 0) + coalesce(p.departures, 0)
                    OR l.departures < coalesce(found.last_departure, 0)
                    OR l.departures > coalesce(found.last_departure, 0) AND p.room_id IS NULL)",
    },
    Invariant {
        promise: "those behind the last one admitted wait, or have departed",
        checked: "SELECT count(*) FROM lines",
        breaches: "SELECT count(*) FROM lines l
            WHERE l.waiting <> l.last_ticket - l.admitted_through - (
                SELECT count(*) FROM queue_tokens t WHERE t.room_id = l.room_id
                AND t.ticket > l.admitted_through AND t.departure IS NOT NULL)",
    },
    Invariant {
        promise: "a date counts its seats right",
        checked: "SELECT count(*) FROM performance_dates",
        breaches: "SELECT count(*) FROM performance_dates d
            LEFT JOIN seat_feeds f ON f.performance_date_id = d.performance_date_id
            LEFT JOIN (
                SELECT performance_date_id, count(*) AS seats FROM seats GROUP BY performance_date_id
            ) found ON found.performance_date_id = d.performance_date_id
            WHERE f.total_seats IS NULL OR f.total_seats <> coalesce(found.seats, 0)",
    },
    Invariant {
        promise: "a date counts its AVAILABLE seats right",
        checked: "SELECT count(*) FROM performance_dates",
        breaches: "SELECT count(*) FROM performance_dates d
            LEFT JOIN seat_feeds f ON f.performance_date_id = d.performance_date_id
            LEFT JOIN (
                SELECT performance_date_id, count(*) AS seats FROM seats
                WHERE status = 'AVAILABLE' GROUP BY performance_date_id
            ) found ON found.performance_date_id = d.performance_date_id
            WHERE f.available_seats IS NULL OR f.available_seats <> coalesce(found.seats, 0)",
    },
    Invariant {
        promise: "what an operator did was done to something that there is",
        checked: "SELECT count(*) FROM audit_log",
        breaches: "SELECT count(*) FROM audit_log a WHERE NOT CASE a.action
            WHEN 'CREATE_CONCERT' THEN EXISTS (SELECT 1 FROM concerts c WHERE c.concert_id = a.target_id)
            WHEN 'CREATE_PERFORMANCE_DATE' THEN
                EXISTS (SELECT 1 FROM performance_dates d WHERE d.performance_date_id = a.target_id)
            ELSE EXISTS (SELECT 1 FROM rooms r WHERE r.room_id = a.target_id) END",
    },
];
