-- The purchase: lines, concerts, seats, reservations, accounts, payments.
-- Every constraint here is a backstop: the rules live in the domain, and the database says no if the code is wrong.
-- Constraint and index names are the same on both databases.

CREATE TABLE rooms (
    room_id UUID PRIMARY KEY,
    admit_batch INTEGER NOT NULL CHECK (admit_batch > 0),
    admit_interval_seconds INTEGER NOT NULL CHECK (admit_interval_seconds > 0),
    active_ttl_seconds INTEGER NOT NULL CHECK (active_ttl_seconds > 0),
    max_active INTEGER CHECK (max_active >= 0),
    max_waiting INTEGER CHECK (max_waiting >= 0),
    wait_grace_seconds INTEGER CHECK (wait_grace_seconds > 0),
    mode TEXT NOT NULL CHECK (mode IN ('AUTO', 'HOLD', 'OPEN', 'CLOSED')),
    last_tick_at TIMESTAMPTZ NOT NULL,
    next_tick_at TIMESTAMPTZ NOT NULL,
    version BIGINT NOT NULL CHECK (version > 0)
);
CREATE INDEX rooms_by_next_tick ON rooms (next_tick_at);
CREATE INDEX rooms_open ON rooms (room_id) WHERE mode = 'OPEN';

-- Hot: written by every join, admission and departure of a room, and locked by them. Apart from the policy.
CREATE TABLE lines (
    room_id UUID PRIMARY KEY REFERENCES rooms (room_id),
    last_ticket BIGINT NOT NULL DEFAULT 0 CHECK (last_ticket >= 0),
    waiting BIGINT NOT NULL DEFAULT 0 CONSTRAINT lines_waiting_check CHECK (waiting >= 0),
    -- The highest ticket that was ever admitted: nobody at or before it waits.
    admitted_through BIGINT NOT NULL DEFAULT 0 CHECK (admitted_through >= 0 AND admitted_through <= last_ticket),
    -- How many gave up their place while they waited; each has its number, see queue_tokens.departure.
    departures BIGINT NOT NULL DEFAULT 0 CHECK (departures >= 0)
);

CREATE TABLE concerts (
    concert_id UUID PRIMARY KEY,
    title TEXT NOT NULL,
    venue TEXT NOT NULL,
    room_id UUID NOT NULL REFERENCES rooms (room_id)
);

CREATE TABLE performance_dates (
    performance_date_id UUID PRIMARY KEY,
    concert_id UUID NOT NULL REFERENCES concerts (concert_id),
    starts_at TIMESTAMPTZ NOT NULL,
    on_sale_at TIMESTAMPTZ CHECK (on_sale_at < starts_at)
);
CREATE INDEX performance_dates_by_concert ON performance_dates (concert_id, starts_at);

CREATE TABLE queue_tokens (
    token_id UUID PRIMARY KEY,
    room_id UUID NOT NULL REFERENCES rooms (room_id),
    user_id UUID NOT NULL,
    ticket BIGINT NOT NULL CHECK (ticket > 0),
    entered_at TIMESTAMPTZ NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('WAIT', 'ACTIVE', 'EXPIRED')),
    activated_at TIMESTAMPTZ,
    expires_at TIMESTAMPTZ,
    -- The how manieth of its room left WAIT without being admitted; gapless, in commit order.
    departure BIGINT CHECK (departure > 0),
    -- When its holder last polled, kept only near the head of a room that expires abandoned places.
    last_seen_at TIMESTAMPTZ,
    version BIGINT NOT NULL CHECK (version > 0),
    CONSTRAINT queue_tokens_state_check CHECK (CASE status
        WHEN 'WAIT' THEN activated_at IS NULL AND expires_at IS NULL
        WHEN 'ACTIVE' THEN activated_at IS NOT NULL AND expires_at IS NOT NULL
        ELSE expires_at IS NOT NULL END)
);
CREATE UNIQUE INDEX queue_tokens_ticket ON queue_tokens (room_id, ticket);
CREATE UNIQUE INDEX queue_tokens_one_live ON queue_tokens (room_id, user_id) WHERE status IN ('WAIT', 'ACTIVE');
CREATE UNIQUE INDEX queue_tokens_departure ON queue_tokens (room_id, departure) WHERE departure IS NOT NULL;
CREATE INDEX queue_tokens_waiting ON queue_tokens (room_id, ticket) WHERE status = 'WAIT';
CREATE INDEX queue_tokens_active ON queue_tokens (room_id, expires_at) WHERE status = 'ACTIVE';
CREATE INDEX queue_tokens_lapsing ON queue_tokens (expires_at) WHERE status = 'ACTIVE';

CREATE TABLE accounts (
    user_id UUID PRIMARY KEY,
    balance BIGINT NOT NULL CONSTRAINT accounts_balance_check CHECK (balance >= 0),
    entry_count BIGINT NOT NULL CHECK (entry_count >= 0),
    version BIGINT NOT NULL CHECK (version > 0)
);

CREATE TABLE reservations (
    reservation_id UUID PRIMARY KEY,
    user_id UUID NOT NULL,
    performance_date_id UUID NOT NULL REFERENCES performance_dates (performance_date_id),
    room_id UUID NOT NULL REFERENCES rooms (room_id),
    token_id UUID NOT NULL REFERENCES queue_tokens (token_id),
    total_amount BIGINT NOT NULL CHECK (total_amount >= 0),
    reserved_at TIMESTAMPTZ NOT NULL,
    hold_expires_at TIMESTAMPTZ NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('RESERVED', 'DONE', 'EXPIRED', 'CANCELLED')),
    version BIGINT NOT NULL CHECK (version > 0)
);
CREATE INDEX reservations_by_user ON reservations (user_id, reservation_id);
CREATE INDEX reservations_live ON reservations (user_id, performance_date_id) WHERE status IN ('RESERVED', 'DONE');
CREATE INDEX reservations_lapsing ON reservations (hold_expires_at) WHERE status = 'RESERVED';

CREATE TABLE seats (
    seat_id UUID PRIMARY KEY,
    performance_date_id UUID NOT NULL REFERENCES performance_dates (performance_date_id),
    section TEXT COLLATE "C" NOT NULL,
    row_number INTEGER NOT NULL CHECK (row_number > 0),
    seat_number INTEGER NOT NULL CHECK (seat_number > 0),
    grade TEXT NOT NULL,
    price BIGINT NOT NULL CHECK (price >= 0),
    status TEXT NOT NULL CHECK (status IN ('AVAILABLE', 'RESERVED', 'UNAVAILABLE')),
    reservation_id UUID REFERENCES reservations (reservation_id),
    hold_expires_at TIMESTAMPTZ,
    version BIGINT NOT NULL CHECK (version > 0),
    CONSTRAINT seats_state_check CHECK (CASE status
        WHEN 'AVAILABLE' THEN reservation_id IS NULL AND hold_expires_at IS NULL
        WHEN 'RESERVED' THEN reservation_id IS NOT NULL AND hold_expires_at IS NOT NULL
        ELSE reservation_id IS NOT NULL AND hold_expires_at IS NULL END)
);
CREATE UNIQUE INDEX seats_place ON seats (performance_date_id, section, row_number, seat_number);

-- Hot: one row a date, locked last and bumped once by every batch that writes seats of the date.
CREATE TABLE seat_feeds (
    performance_date_id UUID PRIMARY KEY REFERENCES performance_dates (performance_date_id),
    version BIGINT NOT NULL CHECK (version > 0),
    total_seats BIGINT NOT NULL CHECK (total_seats >= 0),
    -- Seats whose stored status is AVAILABLE; lapsed holds are not among them.
    available_seats BIGINT NOT NULL CHECK (available_seats >= 0 AND available_seats <= total_seats)
);

-- Which seats each version of a date changed: their ids, 16 bytes each. Only the newest versions are kept.
CREATE TABLE seat_changes (
    performance_date_id UUID NOT NULL REFERENCES performance_dates (performance_date_id),
    version BIGINT NOT NULL CHECK (version > 0),
    seat_ids BYTEA NOT NULL CHECK (length(seat_ids) > 0 AND length(seat_ids) % 16 = 0),
    PRIMARY KEY (performance_date_id, version)
);

-- `live` is true while the reservation is RESERVED or DONE.
CREATE TABLE reservation_seats (
    reservation_id UUID NOT NULL REFERENCES reservations (reservation_id),
    seat_id UUID NOT NULL REFERENCES seats (seat_id),
    price BIGINT NOT NULL CHECK (price >= 0),
    live BOOLEAN NOT NULL,
    PRIMARY KEY (reservation_id, seat_id)
);
CREATE UNIQUE INDEX reservation_seats_one_live ON reservation_seats (seat_id) WHERE live;

CREATE TABLE entries (
    entry_id UUID PRIMARY KEY,
    user_id UUID NOT NULL REFERENCES accounts (user_id),
    number BIGINT NOT NULL CHECK (number > 0),
    kind TEXT NOT NULL CHECK (kind IN ('CHARGE', 'PAYMENT')),
    amount BIGINT NOT NULL CHECK (amount >= 0),
    balance_after BIGINT NOT NULL CHECK (balance_after >= 0),
    entered_at TIMESTAMPTZ NOT NULL,
    reservation_id UUID REFERENCES reservations (reservation_id),
    CONSTRAINT entries_reservation_check CHECK ((kind = 'PAYMENT') = (reservation_id IS NOT NULL))
);
CREATE UNIQUE INDEX entries_number ON entries (user_id, number);

CREATE TABLE payments (
    payment_id UUID PRIMARY KEY,
    reservation_id UUID NOT NULL REFERENCES reservations (reservation_id),
    user_id UUID NOT NULL REFERENCES accounts (user_id),
    entry_id UUID NOT NULL REFERENCES entries (entry_id),
    amount BIGINT NOT NULL CHECK (amount >= 0),
    paid_at TIMESTAMPTZ NOT NULL
);
CREATE UNIQUE INDEX payments_reservation ON payments (reservation_id);
CREATE UNIQUE INDEX payments_entry ON payments (entry_id);

CREATE TABLE tickets (
    ticket_id UUID PRIMARY KEY,
    payment_id UUID NOT NULL REFERENCES payments (payment_id),
    seat_id UUID NOT NULL REFERENCES seats (seat_id)
);
CREATE UNIQUE INDEX tickets_seat ON tickets (seat_id);
CREATE INDEX tickets_by_payment ON tickets (payment_id);

CREATE TABLE idempotency_records (
    user_id UUID NOT NULL,
    idempotency_key TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    answer_status INTEGER NOT NULL,
    answer_content_type TEXT NOT NULL,
    answer_body BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (user_id, idempotency_key)
);
CREATE INDEX idempotency_records_by_expiry ON idempotency_records (expires_at);
