//! What the two SQL adapters share: column types, the schema, and the rows with their mapping to aggregates.
//! Statements are not shared: each adapter writes its own (ADR 0002).

pub(crate) mod rows;
pub(crate) mod schema;
pub(crate) mod types;

/// The tables that a sale needs.
pub(crate) const TABLES: [&str; 17] = [
    "accounts",
    "audit_log",
    "concerts",
    "entries",
    "idempotency_records",
    "incarnation",
    "lines",
    "payments",
    "performance_dates",
    "queue_tokens",
    "reservation_seats",
    "reservations",
    "rooms",
    "seat_changes",
    "seat_feeds",
    "seats",
    "tickets",
];

/// How many of the newest versions of a date's seats are told of: the change of version `v` is forgotten with version
/// `v + 4096`. Who has missed more loads all seats.
pub(crate) const KEPT_SEAT_CHANGES: i64 = 4_096;
