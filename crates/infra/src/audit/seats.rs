//! Seats and who has them.

use super::Invariant;

pub(super) const INVARIANTS: [Invariant; 10] = [
    Invariant {
        name: "seat-reserved-once",
        promise: "at most one live reservation a seat",
        checked: "SELECT count(*) FROM seats",
        breaches: "SELECT rs.seat_id FROM reservation_seats rs
            JOIN reservations r ON r.reservation_id = rs.reservation_id
            WHERE r.status IN ('RESERVED', 'DONE')
            GROUP BY rs.seat_id HAVING count(*) > 1",
    },
    Invariant {
        name: "seat-status",
        promise: "a seat's status agrees with its reservation",
        checked: "SELECT count(*) FROM seats",
        breaches: "SELECT s.seat_id FROM seats s
            LEFT JOIN reservations r ON r.reservation_id = s.reservation_id
            LEFT JOIN reservation_seats rs ON rs.reservation_id = s.reservation_id AND rs.seat_id = s.seat_id
            WHERE CASE s.status
                WHEN 'AVAILABLE' THEN s.reservation_id IS NOT NULL OR s.hold_expires_at IS NOT NULL
                WHEN 'RESERVED' THEN rs.seat_id IS NULL OR r.status IS DISTINCT FROM 'RESERVED'
                    OR r.hold_expires_at IS DISTINCT FROM s.hold_expires_at
                WHEN 'UNAVAILABLE' THEN rs.seat_id IS NULL OR r.status IS DISTINCT FROM 'DONE'
                    OR s.hold_expires_at IS NOT NULL
                ELSE TRUE END",
    },
    Invariant {
        name: "seat-place",
        promise: "no two seats of a date have the same place",
        checked: "SELECT count(*) FROM seats",
        breaches: "SELECT performance_date_id FROM seats
            GROUP BY performance_date_id, section, row_number, seat_number HAVING count(*) > 1",
    },
    Invariant {
        name: "reservation-owns-seats",
        promise: "a live reservation owns each of its seats, an ended one none",
        checked: "SELECT count(*) FROM reservation_seats",
        breaches: "SELECT rs.reservation_id FROM reservation_seats rs
            LEFT JOIN reservations r ON r.reservation_id = rs.reservation_id
            LEFT JOIN seats s ON s.seat_id = rs.seat_id
            WHERE CASE WHEN r.status IN ('RESERVED', 'DONE')
                THEN NOT rs.live OR s.reservation_id IS DISTINCT FROM rs.reservation_id
                ELSE rs.live OR s.reservation_id IS NOT DISTINCT FROM rs.reservation_id END",
    },
    Invariant {
        name: "reservation-total",
        promise: "a reservation's total is the sum of its seats, all of one date",
        checked: "SELECT count(*) FROM reservations",
        breaches: "SELECT r.reservation_id FROM reservations r
            LEFT JOIN reservation_seats rs ON rs.reservation_id = r.reservation_id
            LEFT JOIN seats s ON s.seat_id = rs.seat_id
            GROUP BY r.reservation_id
            HAVING sum(rs.price) IS DISTINCT FROM r.total_amount
                OR max(CASE WHEN s.performance_date_id IS DISTINCT FROM r.performance_date_id
                    OR s.price IS DISTINCT FROM rs.price THEN 1 ELSE 0 END) = 1",
    },
    Invariant {
        name: "reservation-token",
        promise: "a reservation was made under an admitted token of its user, in the room of its concert",
        checked: "SELECT count(*) FROM reservations",
        breaches: "SELECT r.reservation_id FROM reservations r
            LEFT JOIN queue_tokens t ON t.token_id = r.token_id
            LEFT JOIN performance_dates d ON d.performance_date_id = r.performance_date_id
            LEFT JOIN concerts c ON c.concert_id = d.concert_id
            WHERE t.user_id IS DISTINCT FROM r.user_id OR t.room_id IS DISTINCT FROM r.room_id
                OR c.room_id IS DISTINCT FROM r.room_id OR t.activated_at IS NULL",
    },
    Invariant {
        name: "reservation-on-sale",
        promise: "nothing was reserved before its date was on sale, or once it had begun",
        checked: "SELECT count(*) FROM reservations",
        breaches: "SELECT r.reservation_id FROM reservations r
            LEFT JOIN performance_dates d ON d.performance_date_id = r.performance_date_id
            WHERE r.reserved_at < d.on_sale_at OR r.reserved_at >= d.starts_at",
    },
    Invariant {
        name: "date-seats",
        promise: "a date counts its seats right",
        checked: "SELECT count(*) FROM performance_dates",
        breaches: "SELECT d.performance_date_id FROM performance_dates d
            LEFT JOIN seat_feeds f ON f.performance_date_id = d.performance_date_id
            LEFT JOIN (
                SELECT performance_date_id, count(*) AS seats FROM seats GROUP BY performance_date_id
            ) found ON found.performance_date_id = d.performance_date_id
            WHERE f.total_seats IS NULL OR f.total_seats <> coalesce(found.seats, 0)",
    },
    Invariant {
        name: "date-available",
        promise: "a date counts its AVAILABLE seats right",
        checked: "SELECT count(*) FROM performance_dates",
        breaches: "SELECT d.performance_date_id FROM performance_dates d
            LEFT JOIN seat_feeds f ON f.performance_date_id = d.performance_date_id
            LEFT JOIN (
                SELECT performance_date_id, count(*) AS seats FROM seats
                WHERE status = 'AVAILABLE' GROUP BY performance_date_id
            ) found ON found.performance_date_id = d.performance_date_id
            WHERE f.available_seats IS NULL OR f.available_seats <> coalesce(found.seats, 0)",
    },
    Invariant {
        // 4,096 are kept, see `KEPT_SEAT_CHANGES`.
        name: "date-changes",
        promise: "the last versions of a date's seats are there without a gap",
        checked: "SELECT count(*) FROM seat_feeds",
        breaches: "SELECT f.performance_date_id FROM seat_feeds f
            LEFT JOIN (
                SELECT performance_date_id, count(*) AS versions, max(version) AS last_version
                FROM seat_changes GROUP BY performance_date_id
            ) found ON found.performance_date_id = f.performance_date_id
            WHERE coalesce(found.versions, 0) <> CASE WHEN f.version > 4096 THEN 4096 ELSE f.version - 1 END
                OR coalesce(found.last_version, 1) <> f.version",
    },
];
