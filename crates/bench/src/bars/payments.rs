//! P1 and P2: payments a second.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Stores;
use crate::bench::{Bench, Store};
use crate::load::Pace;
use crate::report::{Aim, Report};
use crate::seed::{Crowd, Dialect, Kind, PRICE, Venue};
use crate::usage::{Shares, Watch};

/// More payments a second than any subject makes; so many are prepared.
const MOST_A_SECOND: f64 = 12_000.0;
/// The same for one payment a transaction.
const MOST_SINGLE_A_SECOND: f64 = 4_000.0;
const PGBENCH_CLIENTS: u32 = 16;

pub(super) fn on_postgres(bench: &Bench, stores: &mut Stores, report: &mut Report) -> Result<()> {
    let most = bench.enough_for(MOST_A_SECOND);
    let outcome = bench.pay(stores.postgres(bench)?, &[], Pace::Closed, most)?;
    let ours = report.run("P1", "pay, PostgreSQL, 256 clients", &outcome);
    let (theirs, shares) = one_a_transaction(bench, stores)?;
    report.foreign("P1", "pgbench -M prepared -c 16", theirs, shares);
    report.ratio("P1", "pay / pgbench", ours / theirs, Aim::AtLeast(5.0));
    Ok(())
}

pub(super) fn on_sqlite(bench: &Bench, stores: &mut Stores, report: &mut Report) -> Result<()> {
    let most = bench.enough_for(MOST_A_SECOND);
    let grouped = bench.pay(stores.sqlite(bench)?, &[], Pace::Closed, most)?;
    let grouped = report.run("P2", "pay, SQLite, 256 clients", &grouped);
    let most = bench.enough_for(MOST_SINGLE_A_SECOND);
    let limit = ["--group-commit-limit", "1"];
    let single = bench.pay(stores.sqlite(bench)?, &limit, Pace::Closed, most)?;
    let single = report.run("P2", "the same, group commit limited to 1", &single);
    report.ratio("P2", "group commit / one by one", grouped / single, Aim::AtLeast(10.0));
    Ok(())
}

/// Payments a second by pgbench, one a transaction.
fn one_a_transaction(bench: &Bench, stores: &mut Stores) -> Result<(f64, Shares)> {
    let store = stores.baseline(bench)?;
    let people = bench.enough_for(MOST_SINGLE_A_SECOND);
    let venue = bench.fill(store, people, people, Crowd::Holding)?;
    let script = bench.directory().join("payment.sql");
    fs::write(&script, payment_script(&venue))?;
    let watch = Watch { server: None, postmaster: Some(bench.postgres()?.postmaster()?) };
    let begin = watch.sample()?;
    let output = pgbench(bench, store, &venue, &script).output().context("cannot run pgbench")?;
    let shares = watch.since(&begin)?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "pgbench failed:\n{text}{}", String::from_utf8_lossy(&output.stderr));
    let (rate, transactions) = understood(&text).with_context(|| format!("pgbench said:\n{text}"))?;
    // Every transaction must have paid: one that finds nothing to change would be fast.
    let paid = format!(
        "SELECT count(*) FROM payments JOIN reservations USING (reservation_id)
            WHERE performance_date_id = {}",
        Dialect::Postgres.id(Kind::Date, &venue.number.to_string())
    );
    let paid = store.database.count(&bench.runtime, &paid)?;
    ensure!(paid == transactions, "pgbench ran {transactions} transactions, but {paid} payments are there");
    Ok((rate, shares))
}

fn pgbench(bench: &Bench, store: &Store, venue: &Venue, script: &std::path::Path) -> Command {
    let share = venue.people / u64::from(PGBENCH_CLIENTS);
    let mut command = Command::new("pgbench");
    command
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
        .arg(format!("--client={PGBENCH_CLIENTS}"))
        .arg(format!("--time={}", bench.options.seconds))
        .arg(format!("--file={}", script.display()))
        .args(["-D", "i=-1", "-D", &format!("first={}", venue.first), "-D", &format!("share={share}")])
        .arg(store.url());
    command
}

/// Payments a second, and how many were made.
fn understood(text: &str) -> Option<(f64, i64)> {
    let after = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    let rate = after("tps = ")?.split(' ').next()?.parse().ok()?;
    let transactions = after("number of transactions actually processed: ")?;
    Some((rate, transactions.split('/').next()?.trim().parse().ok()?))
}

/// A payment as a plain client makes it: four reads, four updates, three inserts.
fn payment_script(venue: &Venue) -> String {
    let of = |kind| Dialect::Postgres.id(kind, ":n::bigint");
    let room = Dialect::Postgres.id(Kind::Room, &venue.number.to_string());
    let (user, token, reservation, seat) =
        (of(Kind::User), of(Kind::Token), of(Kind::Reservation), of(Kind::Seat));
    let (entry, payment, ticket) = (of(Kind::PaymentEntry), of(Kind::Payment), of(Kind::Ticket));
    format!(
        "\\set i :i + 1
\\set n :first + :client_id * :share + :i
BEGIN;
SELECT user_id, performance_date_id, room_id, token_id, total_amount, reserved_at, hold_expires_at, status, version
    FROM reservations WHERE reservation_id = {reservation};
SELECT balance, entry_count, version FROM accounts WHERE user_id = {user};
SELECT s.seat_id, s.performance_date_id, s.section, s.row_number, s.seat_number, s.grade, s.price, s.status,
    s.reservation_id, s.hold_expires_at, s.version
    FROM reservation_seats rs JOIN seats s ON s.seat_id = rs.seat_id WHERE rs.reservation_id = {reservation};
SELECT token_id, ticket, entered_at, status, activated_at, expires_at, version
    FROM queue_tokens WHERE room_id = {room} AND user_id = {user} AND status IN ('WAIT', 'ACTIVE');
UPDATE accounts SET balance = balance - {PRICE}, entry_count = entry_count + 1, version = version + 1
    WHERE user_id = {user} AND version = 1;
UPDATE reservations SET status = 'DONE', version = version + 1 WHERE reservation_id = {reservation} AND version = 1;
UPDATE seats SET status = 'UNAVAILABLE', hold_expires_at = NULL, version = version + 1
    WHERE seat_id = {seat} AND version = 1;
UPDATE queue_tokens SET status = 'EXPIRED', expires_at = now(), version = version + 1
    WHERE token_id = {token} AND version = 1;
INSERT INTO entries (entry_id, user_id, number, kind, amount, balance_after, entered_at, reservation_id)
    SELECT {entry}, user_id, entry_count, 'PAYMENT', {PRICE}, balance, now(), {reservation}
    FROM accounts WHERE user_id = {user};
INSERT INTO payments (payment_id, reservation_id, user_id, entry_id, amount, paid_at)
    VALUES ({payment}, {reservation}, {user}, {entry}, {PRICE}, now());
INSERT INTO tickets (ticket_id, payment_id, seat_id) VALUES ({ticket}, {payment}, {seat});
COMMIT;
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbench_says_is_understood() {
        let text = "transaction type: payment.sql\n\
            number of transactions actually processed: 3456\n\
            number of failed transactions: 0 (0.000%)\n\
            latency average = 13.9 ms\n\
            tps = 1151.234567 (without initial connection time)\n";
        assert_eq!(understood(text), Some((1_151.234_567, 3_456)));
        assert_eq!(understood("pgbench: error"), None);
    }
}
