//! What refers to something else: answers that are kept, what operators did, foreign keys.

use super::Invariant;

/// Whoever refers to what is not there: the id of each row whose column names no key of the other table.
macro_rules! dangling {
    ($($table:literal $id:literal: $column:literal -> $parent:literal $key:literal),+ $(,)?) => {
        concat!($(
            "SELECT child.", $id, " FROM ", $table, " child WHERE child.", $column, " IS NOT NULL AND NOT EXISTS (
                SELECT 1 FROM ", $parent, " parent WHERE parent.", $key, " = child.", $column, ") UNION ALL "
        ),+, "SELECT room_id FROM rooms WHERE FALSE")
    };
}

pub(super) const INVARIANTS: [Invariant; 3] = [
    Invariant {
        name: "answer-effect",
        promise: "what is answered again was done",
        checked: "SELECT count(*) FROM idempotency_records",
        // Whoever charges may be another than the owner of the wallet.
        breaches: "SELECT a.user_id FROM (
                SELECT user_id, answer_status, {paymentId} AS payment_id, {entryId} AS entry_id,
                    {reservationId} AS reservation_id
                FROM idempotency_records
            ) a
            LEFT JOIN payments p ON p.payment_id = a.payment_id
            LEFT JOIN entries e ON e.entry_id = a.entry_id
            LEFT JOIN reservations r ON r.reservation_id = a.reservation_id
            WHERE a.answer_status NOT BETWEEN 200 AND 299
                OR a.payment_id IS NOT NULL AND p.user_id IS DISTINCT FROM a.user_id
                OR a.entry_id IS NOT NULL AND e.entry_id IS NULL
                OR a.reservation_id IS NOT NULL AND r.user_id IS DISTINCT FROM a.user_id",
    },
    Invariant {
        name: "operator-target",
        promise: "what an operator did was done to something that there is",
        checked: "SELECT count(*) FROM audit_log",
        breaches: "SELECT a.entry_id FROM audit_log a
            LEFT JOIN concerts c ON c.concert_id = a.target_id
            LEFT JOIN performance_dates d ON d.performance_date_id = a.target_id
            LEFT JOIN rooms r ON r.room_id = a.target_id
            WHERE CASE a.action WHEN 'CREATE_CONCERT' THEN c.concert_id IS NULL
                WHEN 'CREATE_PERFORMANCE_DATE' THEN d.performance_date_id IS NULL
                WHEN 'CHANGE_ROOM' THEN r.room_id IS NULL
                WHEN 'ADMIT_WAITERS' THEN r.room_id IS NULL
                ELSE TRUE END",
    },
    Invariant {
        name: "reference",
        promise: "whatever is referred to is there",
        checked: "SELECT (SELECT count(*) FROM seats) + (SELECT count(*) FROM reservations)
            + (SELECT count(*) FROM reservation_seats) + (SELECT count(*) FROM queue_tokens)
            + (SELECT count(*) FROM entries) + (SELECT count(*) FROM payments) + (SELECT count(*) FROM tickets)
            + (SELECT count(*) FROM lines) + (SELECT count(*) FROM pruned_tokens) + (SELECT count(*) FROM concerts)
            + (SELECT count(*) FROM performance_dates) + (SELECT count(*) FROM seat_feeds)
            + (SELECT count(*) FROM seat_changes)",
        breaches: dangling! {
            "lines" "room_id": "room_id" -> "rooms" "room_id",
            "pruned_tokens" "room_id": "room_id" -> "rooms" "room_id",
            "concerts" "concert_id": "room_id" -> "rooms" "room_id",
            "performance_dates" "performance_date_id": "concert_id" -> "concerts" "concert_id",
            "queue_tokens" "token_id": "room_id" -> "rooms" "room_id",
            "reservations" "reservation_id": "performance_date_id" -> "performance_dates" "performance_date_id",
            "reservations" "reservation_id": "room_id" -> "rooms" "room_id",
            "reservations" "reservation_id": "token_id" -> "queue_tokens" "token_id",
            "seats" "seat_id": "performance_date_id" -> "performance_dates" "performance_date_id",
            "seats" "seat_id": "reservation_id" -> "reservations" "reservation_id",
            "seat_feeds" "performance_date_id": "performance_date_id" -> "performance_dates" "performance_date_id",
            "seat_changes" "performance_date_id": "performance_date_id" -> "performance_dates" "performance_date_id",
            "reservation_seats" "reservation_id": "reservation_id" -> "reservations" "reservation_id",
            "reservation_seats" "reservation_id": "seat_id" -> "seats" "seat_id",
            "entries" "entry_id": "user_id" -> "accounts" "user_id",
            "entries" "entry_id": "reservation_id" -> "reservations" "reservation_id",
            "payments" "payment_id": "reservation_id" -> "reservations" "reservation_id",
            "payments" "payment_id": "user_id" -> "accounts" "user_id",
            "payments" "payment_id": "entry_id" -> "entries" "entry_id",
            "tickets" "ticket_id": "payment_id" -> "payments" "payment_id",
            "tickets" "ticket_id": "seat_id" -> "seats" "seat_id",
        },
    },
];
