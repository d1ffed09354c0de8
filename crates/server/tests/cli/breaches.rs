//! What the audit must find: ways to break each invariant by hand.

/// Each breach: the invariant that it breaks, and how it is made. `{random}` is an id that nothing has, `{early}` and
/// `{late}` are times before and after all others, `{nonsense}` is an answer whose id is none.
pub(crate) const BREACHES: [(&str, &str); 74] = [
    (
        "seat-reserved-once",
        "DROP INDEX reservation_seats_one_live;
         INSERT INTO reservation_seats (reservation_id, seat_id, price, live)
         SELECT (SELECT reservation_id FROM reservations WHERE status = 'RESERVED'), seat_id, price, TRUE
         FROM reservation_seats WHERE reservation_id = (SELECT reservation_id FROM reservations WHERE status = 'DONE')",
    ),
    ("seat-status", "UPDATE seats SET status = 'UNAVAILABLE', hold_expires_at = NULL WHERE status = 'RESERVED'"),
    ("seat-status", "UPDATE seats SET status = 'RESERVED', hold_expires_at = {early} WHERE status = 'UNAVAILABLE'"),
    ("seat-status", "UPDATE seats SET hold_expires_at = NULL WHERE status = 'RESERVED'"),
    ("seat-status", "UPDATE seats SET hold_expires_at = {late} WHERE status = 'AVAILABLE'"),
    ("seat-status", "UPDATE seats SET hold_expires_at = {late} WHERE status = 'UNAVAILABLE'"),
    ("seat-status", "UPDATE reservations SET hold_expires_at = {late} WHERE status = 'RESERVED'"),
    ("seat-status", "UPDATE seats SET status = 'GONE' WHERE status = 'AVAILABLE'"),
    ("seat-place", "DROP INDEX seats_place; UPDATE seats SET seat_number = 1"),
    (
        "reservation-owns-seats",
        "UPDATE seats SET status = 'AVAILABLE', reservation_id = NULL WHERE status = 'UNAVAILABLE'",
    ),
    ("reservation-owns-seats", "UPDATE reservations SET status = 'EXPIRED' WHERE status = 'RESERVED'"),
    ("reservation-owns-seats", "UPDATE reservation_seats SET live = FALSE"),
    ("reservation-owns-seats", "DELETE FROM seats WHERE status = 'RESERVED'"),
    ("reservation-total", "UPDATE reservations SET total_amount = total_amount + 1 WHERE status = 'RESERVED'"),
    (
        "reservation-total",
        "UPDATE reservation_seats SET price = price + 1; UPDATE reservations SET total_amount = total_amount + 2",
    ),
    ("reservation-total", "UPDATE seats SET performance_date_id = {random} WHERE status = 'RESERVED'"),
    (
        "reservation-total",
        "DELETE FROM reservation_seats
         WHERE reservation_id = (SELECT reservation_id FROM reservations WHERE status = 'CANCELLED')",
    ),
    ("reservation-token", "UPDATE reservations SET user_id = {random} WHERE status = 'CANCELLED'"),
    (
        "reservation-token",
        "UPDATE reservations SET room_id = (SELECT room_id FROM rooms WHERE room_id NOT IN (SELECT room_id FROM concerts))",
    ),
    (
        "reservation-token",
        "UPDATE concerts SET room_id = (SELECT room_id FROM rooms WHERE room_id NOT IN (SELECT room_id FROM concerts))",
    ),
    (
        "reservation-token",
        "UPDATE queue_tokens SET activated_at = NULL
         WHERE token_id = (SELECT token_id FROM reservations WHERE status = 'DONE')",
    ),
    ("reservation-on-sale", "UPDATE performance_dates SET on_sale_at = {late}"),
    ("reservation-on-sale", "UPDATE performance_dates SET starts_at = {early}"),
    ("date-seats", "UPDATE seat_feeds SET total_seats = total_seats + 1"),
    ("date-seats", "DELETE FROM seat_feeds"),
    ("date-available", "UPDATE seat_feeds SET available_seats = available_seats + 1"),
    ("date-changes", "DELETE FROM seat_changes WHERE version = 2"),
    ("date-changes", "UPDATE seat_feeds SET version = version + 1"),
    ("account-balance", "UPDATE accounts SET balance = balance + 1"),
    ("account-balance", "UPDATE accounts SET entry_count = entry_count + 1"),
    ("account-balance", "DELETE FROM entries WHERE kind = 'CHARGE' AND number = 1"),
    ("money-conserved", "UPDATE accounts SET balance = balance + 1"),
    ("money-conserved", "UPDATE payments SET amount = amount + 1"),
    ("entry-numbers", "UPDATE entries SET balance_after = balance_after + 1 WHERE number = 1"),
    ("entry-numbers", "UPDATE entries SET number = number + 1 WHERE kind = 'PAYMENT'"),
    ("entry-kind", "UPDATE entries SET amount = 0 WHERE kind = 'CHARGE'"),
    ("entry-kind", "UPDATE entries SET reservation_id = NULL"),
    ("entry-kind", "UPDATE entries SET kind = 'GIFT'"),
    ("payment-agrees", "UPDATE payments SET amount = amount + 1"),
    ("payment-agrees", "UPDATE entries SET amount = amount + 1 WHERE kind = 'PAYMENT'"),
    ("payment-agrees", "UPDATE reservations SET status = 'EXPIRED' WHERE status = 'DONE'"),
    ("payment-in-time", "UPDATE payments SET paid_at = {late}"),
    ("entry-has-payment", "DELETE FROM tickets; DELETE FROM payments"),
    (
        "entry-has-payment",
        "DROP INDEX payments_entry; DROP INDEX payments_reservation; INSERT INTO payments
         SELECT {random}, reservation_id, user_id, entry_id, amount, paid_at FROM payments",
    ),
    (
        "paid-once",
        "DROP INDEX payments_entry; DROP INDEX payments_reservation; INSERT INTO payments
         SELECT {random}, reservation_id, user_id, entry_id, amount, paid_at FROM payments",
    ),
    (
        "paid-once",
        "DELETE FROM tickets WHERE ticket_id = (SELECT ticket_id FROM tickets ORDER BY ticket_id LIMIT 1)",
    ),
    (
        "ticket-seat",
        "DROP INDEX tickets_seat;
         UPDATE tickets SET seat_id = (SELECT seat_id FROM tickets ORDER BY seat_id LIMIT 1)",
    ),
    (
        "ticket-seat",
        "UPDATE tickets SET seat_id = (SELECT seat_id FROM seats WHERE status = 'RESERVED' ORDER BY seat_id LIMIT 1)
         WHERE ticket_id = (SELECT ticket_id FROM tickets ORDER BY ticket_id LIMIT 1)",
    ),
    (
        "paid-token",
        "UPDATE queue_tokens SET status = 'ACTIVE', activated_at = {early}, expires_at = {late}
         WHERE token_id = (SELECT token_id FROM reservations WHERE status = 'DONE')",
    ),
    ("date-sales", "UPDATE seats SET price = price + 1 WHERE status = 'UNAVAILABLE'"),
    ("token-state", "UPDATE queue_tokens SET activated_at = {early} WHERE status = 'WAIT'"),
    ("token-state", "UPDATE queue_tokens SET expires_at = activated_at WHERE status = 'ACTIVE'"),
    ("token-state", "UPDATE queue_tokens SET expires_at = NULL WHERE status = 'EXPIRED'"),
    ("token-paused", "UPDATE queue_tokens SET paused_at = activated_at WHERE status = 'ACTIVE'"),
    (
        "token-live-once",
        "DROP INDEX queue_tokens_one_live;
         UPDATE queue_tokens SET user_id = (SELECT user_id FROM queue_tokens WHERE status = 'WAIT' ORDER BY ticket LIMIT 1)
         WHERE status = 'WAIT'",
    ),
    (
        "line-order",
        "UPDATE queue_tokens SET status = 'ACTIVE', activated_at = {early}, expires_at = {late}
         WHERE ticket = (SELECT max(ticket) FROM queue_tokens)",
    ),
    ("line-tickets", "UPDATE lines SET last_ticket = last_ticket + 1"),
    ("line-tickets", "DELETE FROM queue_tokens WHERE ticket = (SELECT max(ticket) FROM queue_tokens)"),
    ("line-waiting", "UPDATE lines SET waiting = waiting + 1"),
    ("line-waiting", "DELETE FROM lines"),
    ("line-admitted", "UPDATE lines SET admitted_through = admitted_through - 1"),
    ("line-admitted", "UPDATE lines SET admitted_through = last_ticket"),
    ("line-departures", "UPDATE lines SET departures = departures + 1"),
    (
        "line-departures",
        "UPDATE queue_tokens SET departure = 2 WHERE ticket =
         (SELECT max(ticket) FROM queue_tokens WHERE status = 'WAIT')",
    ),
    ("line-behind", "UPDATE queue_tokens SET departure = NULL"),
    ("operator-target", "UPDATE concerts SET concert_id = {random}"),
    (
        "operator-target",
        "INSERT INTO audit_log SELECT {random}, acted_at, user_id, action, {random}, state_before, state_after
         FROM audit_log WHERE action = 'CREATE_PERFORMANCE_DATE'",
    ),
    ("operator-target", "INSERT INTO audit_log SELECT {random}, acted_at, user_id, 'WITHDRAW', target_id, state_before, state_after FROM audit_log"),
    ("answer-effect", "UPDATE payments SET payment_id = {random}"),
    ("answer-effect", "UPDATE entries SET entry_id = {random}"),
    ("answer-effect", "UPDATE reservations SET reservation_id = {random}"),
    ("answer-effect", "UPDATE idempotency_records SET user_id = {random}"),
    ("answer-effect", "UPDATE idempotency_records SET answer_status = 500"),
    ("answer-effect", "UPDATE idempotency_records SET answer_body = {nonsense}"),
];
