//! Waiting lines and their tokens.

use super::Invariant;

pub(super) const INVARIANTS: [Invariant; 9] = [
    Invariant {
        name: "token-state",
        promise: "a token has the times of its status: those of its admission and of its end",
        checked: "SELECT count(*) FROM queue_tokens",
        breaches: "SELECT token_id FROM queue_tokens
            WHERE CASE status WHEN 'WAIT' THEN activated_at IS NOT NULL OR expires_at IS NOT NULL
                WHEN 'ACTIVE' THEN activated_at IS NULL OR expires_at IS NULL OR expires_at <= activated_at
                    OR expires_at <= paused_at
                WHEN 'EXPIRED' THEN expires_at IS NULL
                ELSE TRUE END",
    },
    Invariant {
        name: "token-paused",
        promise: "tokens are paused while their room is PAUSED, and no others",
        checked: "SELECT count(*) FROM queue_tokens",
        breaches: "SELECT token_id FROM queue_tokens t JOIN rooms r ON r.room_id = t.room_id
            WHERE t.paused_at IS NOT NULL AND (t.status <> 'ACTIVE' OR NOT r.paused)",
    },
    Invariant {
        name: "token-live-once",
        promise: "at most one live queue token a room and user",
        checked: "SELECT count(*) FROM queue_tokens WHERE status IN ('WAIT', 'ACTIVE')",
        breaches: "SELECT user_id FROM queue_tokens WHERE status IN ('WAIT', 'ACTIVE')
            GROUP BY room_id, user_id HAVING count(*) > 1",
    },
    Invariant {
        name: "line-order",
        promise: "nobody waits behind somebody who came later and was admitted",
        checked: "SELECT count(*) FROM queue_tokens WHERE status = 'WAIT'",
        breaches: "SELECT t.token_id FROM queue_tokens t
            LEFT JOIN (
                SELECT room_id, max(ticket) AS last_admitted FROM queue_tokens
                WHERE activated_at IS NOT NULL GROUP BY room_id
            ) heads ON heads.room_id = t.room_id
            WHERE t.status = 'WAIT' AND t.ticket < heads.last_admitted",
    },
    Invariant {
        name: "line-tickets",
        promise: "tickets of a room are numbered without a gap, pruned ones counted in",
        checked: "SELECT count(*) FROM queue_tokens",
        breaches: "SELECT l.room_id FROM lines l
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
        name: "line-waiting",
        promise: "a room has a line, which counts its waiters right",
        checked: "SELECT count(*) FROM rooms",
        breaches: "SELECT r.room_id FROM rooms r
            LEFT JOIN lines l ON l.room_id = r.room_id
            LEFT JOIN (
                SELECT room_id, count(*) AS tokens FROM queue_tokens WHERE status = 'WAIT' GROUP BY room_id
            ) waiting ON waiting.room_id = r.room_id
            WHERE l.room_id IS NULL OR l.waiting <> coalesce(waiting.tokens, 0)",
    },
    Invariant {
        name: "line-admitted",
        promise: "a room knows the last one it admitted, and nobody at or before that waits",
        checked: "SELECT count(*) FROM lines",
        breaches: "SELECT l.room_id FROM lines l
            LEFT JOIN (
                SELECT room_id, max(CASE WHEN activated_at IS NOT NULL THEN ticket ELSE 0 END) AS last_admitted,
                    min(CASE WHEN status = 'WAIT' THEN ticket END) AS first_waiting
                FROM queue_tokens GROUP BY room_id
            ) found ON found.room_id = l.room_id
            WHERE l.admitted_through <> coalesce(found.last_admitted, 0)
                OR found.first_waiting <= l.admitted_through",
    },
    Invariant {
        name: "line-departures",
        promise: "whoever left a line without being admitted has a departure, numbered without a gap, pruned ones counted in",
        checked: "SELECT count(*) FROM lines",
        breaches: "SELECT room_id FROM queue_tokens
            WHERE (departure IS NOT NULL) <> (status = 'EXPIRED' AND activated_at IS NULL)
            UNION ALL
            SELECT l.room_id FROM lines l
            LEFT JOIN pruned_tokens p ON p.room_id = l.room_id
            LEFT JOIN (
                SELECT room_id, count(*) AS departed, count(DISTINCT departure) AS numbers,
                    max(departure) AS last_departure
                FROM queue_tokens WHERE departure IS NOT NULL GROUP BY room_id
            ) found ON found.room_id = l.room_id
            WHERE l.departures <> coalesce(found.departed, 0) + coalesce(p.departures, 0)
                OR l.departures <> coalesce(found.numbers, 0) + coalesce(p.departures, 0)
                OR l.departures < coalesce(found.last_departure, 0)
                OR l.departures > coalesce(found.last_departure, 0) AND p.room_id IS NULL",
    },
    Invariant {
        name: "line-behind",
        promise: "those behind the last one admitted wait, or have departed",
        checked: "SELECT count(*) FROM lines",
        breaches: "SELECT l.room_id FROM lines l
            LEFT JOIN queue_tokens t ON t.room_id = l.room_id AND t.departure IS NOT NULL
                AND t.ticket > l.admitted_through
            GROUP BY l.room_id
            HAVING l.waiting <> l.last_ticket - l.admitted_through - count(t.token_id)",
    },
];
