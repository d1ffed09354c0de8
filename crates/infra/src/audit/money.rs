//! Wallets, payments and tickets.

use super::Invariant;

pub(super) const INVARIANTS: [Invariant; 11] = [
    Invariant {
        name: "account-balance",
        promise: "a balance is the sum of its entries, and never negative",
        checked: "SELECT count(*) FROM accounts",
        breaches: "SELECT a.user_id FROM accounts a
            LEFT JOIN entries e ON e.user_id = a.user_id
            GROUP BY a.user_id
            HAVING a.balance < 0 OR a.entry_count <> count(e.entry_id)
                OR a.balance <> coalesce(sum(CASE e.kind WHEN 'CHARGE' THEN e.amount ELSE -e.amount END), 0)",
    },
    Invariant {
        name: "money-conserved",
        promise: "what a user charged is what it has, and what it paid",
        checked: "SELECT count(*) FROM accounts",
        breaches: "SELECT a.user_id FROM accounts a
            LEFT JOIN (
                SELECT user_id, sum(amount) AS amount FROM entries WHERE kind = 'CHARGE' GROUP BY user_id
            ) charged ON charged.user_id = a.user_id
            LEFT JOIN (SELECT user_id, sum(amount) AS amount FROM payments GROUP BY user_id) paid ON paid.user_id = a.user_id
            WHERE coalesce(charged.amount, 0) <> a.balance + coalesce(paid.amount, 0)",
    },
    Invariant {
        name: "entry-numbers",
        promise: "entries are numbered without a gap, each with the balance after it",
        checked: "SELECT count(*) FROM entries",
        breaches: "SELECT entry_id FROM (
            SELECT entry_id, number, row_number() OVER account AS expected_number, balance_after,
                sum(CASE kind WHEN 'CHARGE' THEN amount ELSE -amount END) OVER account AS expected_balance
            FROM entries WINDOW account AS (PARTITION BY user_id ORDER BY number)
            ) numbered
            WHERE number <> expected_number OR balance_after <> expected_balance OR balance_after < 0",
    },
    Invariant {
        name: "entry-kind",
        promise: "an entry is a charge above zero, or what a reservation cost",
        checked: "SELECT count(*) FROM entries",
        breaches: "SELECT entry_id FROM entries
            WHERE CASE kind WHEN 'CHARGE' THEN amount <= 0 OR reservation_id IS NOT NULL
                WHEN 'PAYMENT' THEN amount < 0 OR reservation_id IS NULL
                ELSE TRUE END",
    },
    Invariant {
        name: "payment-agrees",
        promise: "a payment equals its reservation's total and its entry",
        checked: "SELECT count(*) FROM payments",
        breaches: "SELECT p.payment_id FROM payments p
            LEFT JOIN reservations r ON r.reservation_id = p.reservation_id
            LEFT JOIN entries e ON e.entry_id = p.entry_id
            WHERE r.status IS DISTINCT FROM 'DONE' OR r.user_id <> p.user_id OR r.total_amount <> p.amount
                OR e.kind IS DISTINCT FROM 'PAYMENT' OR e.user_id <> p.user_id OR e.amount <> p.amount
                OR e.reservation_id IS DISTINCT FROM p.reservation_id",
    },
    Invariant {
        name: "payment-in-time",
        promise: "nothing was paid once its hold had lapsed",
        checked: "SELECT count(*) FROM payments",
        breaches: "SELECT p.payment_id FROM payments p
            LEFT JOIN reservations r ON r.reservation_id = p.reservation_id
            WHERE p.paid_at >= r.hold_expires_at",
    },
    Invariant {
        name: "entry-has-payment",
        promise: "a payment entry has its payment",
        checked: "SELECT count(*) FROM entries WHERE kind = 'PAYMENT'",
        breaches: "SELECT e.entry_id FROM entries e
            LEFT JOIN payments p ON p.entry_id = e.entry_id
            WHERE e.kind = 'PAYMENT'
            GROUP BY e.entry_id HAVING count(p.payment_id) <> 1",
    },
    Invariant {
        name: "paid-once",
        promise: "a paid reservation has one payment, with a ticket for each seat",
        checked: "SELECT count(*) FROM reservations WHERE status = 'DONE'",
        breaches: "SELECT r.reservation_id FROM reservations r
            LEFT JOIN payments p ON p.reservation_id = r.reservation_id
            WHERE r.status = 'DONE'
            GROUP BY r.reservation_id HAVING count(p.payment_id) <> 1
            UNION ALL
            SELECT r.reservation_id FROM reservations r
            LEFT JOIN reservation_seats rs ON rs.reservation_id = r.reservation_id
            LEFT JOIN payments p ON p.reservation_id = r.reservation_id
            LEFT JOIN tickets t ON t.payment_id = p.payment_id AND t.seat_id = rs.seat_id
            WHERE r.status = 'DONE' AND t.ticket_id IS NULL",
    },
    Invariant {
        name: "ticket-seat",
        promise: "a ticket is the only one of its seat, which its reservation bought",
        checked: "SELECT count(*) FROM tickets",
        breaches: "SELECT t.ticket_id FROM tickets t
            LEFT JOIN payments p ON p.payment_id = t.payment_id
            LEFT JOIN seats s ON s.seat_id = t.seat_id
            WHERE s.status IS DISTINCT FROM 'UNAVAILABLE' OR p.reservation_id IS NULL
                OR s.reservation_id IS DISTINCT FROM p.reservation_id
            UNION ALL
            SELECT t.ticket_id FROM (SELECT seat_id FROM tickets GROUP BY seat_id HAVING count(*) > 1) twice
            JOIN tickets t ON t.seat_id = twice.seat_id",
    },
    Invariant {
        name: "paid-token",
        promise: "a paid reservation's queue token is EXPIRED",
        checked: "SELECT count(*) FROM reservations WHERE status = 'DONE'",
        breaches: "SELECT r.reservation_id FROM reservations r
            LEFT JOIN queue_tokens t ON t.token_id = r.token_id
            WHERE r.status = 'DONE' AND t.status IS DISTINCT FROM 'EXPIRED'",
    },
    Invariant {
        name: "date-sales",
        promise: "a date's sold seats are worth what was paid for them",
        checked: "SELECT count(*) FROM performance_dates",
        breaches: "SELECT d.performance_date_id FROM performance_dates d
            LEFT JOIN (
                SELECT performance_date_id, sum(price) AS amount FROM seats
                WHERE status = 'UNAVAILABLE' GROUP BY performance_date_id
            ) sold ON sold.performance_date_id = d.performance_date_id
            LEFT JOIN (
                SELECT r.performance_date_id, sum(p.amount) AS amount FROM payments p
                JOIN reservations r ON r.reservation_id = p.reservation_id
                GROUP BY r.performance_date_id
            ) paid ON paid.performance_date_id = d.performance_date_id
            WHERE coalesce(sold.amount, 0) <> coalesce(paid.amount, 0)",
    },
];
