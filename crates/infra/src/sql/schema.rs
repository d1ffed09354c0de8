//! The tables, as both databases have them. The migrations make them; a test compares the two.
#![allow(unreachable_pub, reason = "the tables that diesel generates are public")]

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql::types::{Id, Instant};

    rooms (room_id) {
        room_id -> Id,
        admit_batch -> Integer,
        admit_interval_seconds -> Integer,
        active_ttl_seconds -> Integer,
        max_active -> Nullable<Integer>,
        max_waiting -> Nullable<Integer>,
        wait_grace_seconds -> Nullable<Integer>,
        mode -> Text,
        last_tick_at -> Instant,
        next_tick_at -> Instant,
        version -> BigInt,
        opens_at -> Nullable<Instant>,
        sales_open_at -> Nullable<Instant>,
        paused -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql::types::Id;

    lines (room_id) {
        room_id -> Id,
        last_ticket -> BigInt,
        waiting -> BigInt,
        admitted_through -> BigInt,
        departures -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql::types::Id;

    concerts (concert_id) {
        concert_id -> Id,
        title -> Text,
        venue -> Text,
        room_id -> Id,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql::types::{Id, Instant};

    performance_dates (performance_date_id) {
        performance_date_id -> Id,
        concert_id -> Id,
        starts_at -> Instant,
        on_sale_at -> Nullable<Instant>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql::types::{Id, Instant};

    queue_tokens (token_id) {
        token_id -> Id,
        room_id -> Id,
        user_id -> Id,
        ticket -> BigInt,
        entered_at -> Instant,
        status -> Text,
        activated_at -> Nullable<Instant>,
        expires_at -> Nullable<Instant>,
        departure -> Nullable<BigInt>,
        last_seen_at -> Nullable<Instant>,
        version -> BigInt,
        paused_at -> Nullable<Instant>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql::types::Id;

    accounts (user_id) {
        user_id -> Id,
        balance -> BigInt,
        entry_count -> BigInt,
        version -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql::types::{Id, Instant};

    reservations (reservation_id) {
        reservation_id -> Id,
        user_id -> Id,
        performance_date_id -> Id,
        room_id -> Id,
        token_id -> Id,
        total_amount -> BigInt,
        reserved_at -> Instant,
        hold_expires_at -> Instant,
        status -> Text,
        version -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql::types::{Id, Instant};

    seats (seat_id) {
        seat_id -> Id,
        performance_date_id -> Id,
        section -> Text,
        row_number -> Integer,
        seat_number -> Integer,
        grade -> Text,
        price -> BigInt,
        status -> Text,
        reservation_id -> Nullable<Id>,
        hold_expires_at -> Nullable<Instant>,
        version -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql::types::Id;

    seat_feeds (performance_date_id) {
        performance_date_id -> Id,
        version -> BigInt,
        total_seats -> BigInt,
        available_seats -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql::types::Id;

    seat_changes (performance_date_id, version) {
        performance_date_id -> Id,
        version -> BigInt,
        seat_ids -> Binary,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql::types::Id;

    reservation_seats (reservation_id, seat_id) {
        reservation_id -> Id,
        seat_id -> Id,
        price -> BigInt,
        live -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql::types::{Id, Instant};

    entries (entry_id) {
        entry_id -> Id,
        user_id -> Id,
        number -> BigInt,
        kind -> Text,
        amount -> BigInt,
        balance_after -> BigInt,
        entered_at -> Instant,
        reservation_id -> Nullable<Id>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql::types::{Id, Instant};

    payments (payment_id) {
        payment_id -> Id,
        reservation_id -> Id,
        user_id -> Id,
        entry_id -> Id,
        amount -> BigInt,
        paid_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql::types::Id;

    tickets (ticket_id) {
        ticket_id -> Id,
        payment_id -> Id,
        seat_id -> Id,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql::types::{Id, Instant};

    idempotency_records (user_id, idempotency_key) {
        user_id -> Id,
        idempotency_key -> Text,
        fingerprint -> Binary,
        answer_status -> Integer,
        answer_content_type -> Text,
        answer_body -> Binary,
        created_at -> Instant,
        expires_at -> Instant,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql::types::{Id, Instant};

    audit_log (entry_id) {
        entry_id -> Id,
        acted_at -> Instant,
        user_id -> Id,
        action -> Text,
        target_id -> Id,
        state_before -> Nullable<Text>,
        state_after -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::sql::types::{Id, Instant};

    // Has one row. PostgreSQL has more columns, which its adapter alone knows.
    incarnation (incarnation_id) {
        incarnation_id -> Id,
        started_at -> Instant,
    }
}

diesel::joinable!(lines -> rooms (room_id));
diesel::joinable!(concerts -> rooms (room_id));
diesel::joinable!(performance_dates -> concerts (concert_id));
diesel::joinable!(queue_tokens -> rooms (room_id));
diesel::joinable!(seats -> performance_dates (performance_date_id));
diesel::joinable!(seat_feeds -> performance_dates (performance_date_id));
diesel::joinable!(reservation_seats -> seats (seat_id));
diesel::joinable!(reservation_seats -> reservations (reservation_id));
diesel::allow_tables_to_appear_in_same_query!(
    rooms,
    lines,
    concerts,
    performance_dates,
    queue_tokens,
    accounts,
    reservations,
    seats,
    seat_feeds,
    seat_changes,
    reservation_seats,
    entries,
    payments,
    tickets,
    idempotency_records,
);
