//! A prune that stands still in the middle of its transaction, with all its locks: whoever joins, holds or charges meanwhile
//! goes past it.

use std::sync::Arc;
use std::time::Duration;

use frontrow_domain::queue::TicketNumber;
use frontrow_domain::unit_of_work::{Command, CommandOutcome, CommitError, Committed, PruneTokens};
use frontrow_domain::{UnitOfWork, UserId};
use frontrow_infra::Storage;
use frontrow_infra::postgres::{Postgres, PostgresOptions};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::fixture::{Fixture, TTL, at, both};
use crate::{Opened, options};

/// Longer than the test takes: nobody gives up a lock, or waiting for one.
fn patient() -> PostgresOptions {
    let long = Duration::from_secs(120);
    PostgresOptions {
        answer_timeout: long * 2,
        lock_timeout: long,
        batch_lock_timeout: long,
        statement_timeout: long,
        idle_in_transaction_timeout: long,
        ..options()
    }
}

/// Whoever deletes in this table takes these locks besides, and stands still while somebody has the advisory lock.
fn brake(table: &str, takes: &str) -> String {
    format!(
        "CREATE FUNCTION brake() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN {takes} PERFORM pg_advisory_xact_lock(1); RETURN NULL; END'; \
         CREATE TRIGGER brake AFTER DELETE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION brake()"
    )
}

/// Who stands still in the middle of a prune, and who waits for a lock of such a one.
const STANDS_STILL: &str = "wait_event = 'advisory'";
const IS_KEPT: &str =
    "pg_blocking_pids(pid) && ARRAY(SELECT pid FROM pg_stat_activity WHERE wait_event = 'advisory')";

async fn pause() {
    sleep(Duration::from_millis(5)).await;
}

type Commit = JoinHandle<Result<Committed, CommitError>>;

fn begin(storage: Storage, work: UnitOfWork) -> Commit {
    tokio::spawn(async move { storage.committer.commit(work).await })
}

/// A prune of what is there by now, six tokens or an answer; and a join, a hold and a charge that have nothing to do with it.
async fn units(fixture: &Fixture, pruned: &str) -> (Command, [UnitOfWork; 3]) {
    let sale = fixture.sale(1).await;
    fixture.crowd(sale.room.id, 6, at(0)).await;
    fixture.admit(sale.room.id, 6, at(1)).await;
    let end = at(1 + i64::from(TTL));
    fixture.order(Command::ExpireTokens { now: end, limit: 9 }).await;
    let record = fixture.record(fixture.id(UserId::new), at(1));
    let over = record.expires_at;
    fixture.write(UnitOfWork { idempotency: Some(record), ..Default::default() }).await;

    let join = fixture.join_work(sale.room.id, fixture.id(UserId::new), end);
    let token = fixture.admitted(sale.room.id, end).await;
    let (_, hold) = fixture.hold_work(token, fixture.seats(&sale.seat_ids()).await, end);
    let user = fixture.id(UserId::new);
    let keyed = UnitOfWork { idempotency: Some(fixture.record(user, over)), ..Default::default() };
    let account = fixture.charge(user, 5, end).await;
    let charge = both(fixture.charge_work(user, Some(account), 5, end), keyed);

    let tokens = PruneTokens { room_id: sale.room.id, after: TicketNumber(0), before: end, limit: 9 };
    let prune = match pruned {
        "queue_tokens" => Command::PruneTokens(tokens),
        _ => Command::PruneAnswers { now: over, limit: 9 },
    };
    (prune, [join, hold, charge])
}

/// Prunes this table, with more locks than a prune takes. Gives which of a join, a hold and a charge are kept waiting by it.
async fn kept_waiting(pruned: &str, takes: &str) -> Option<[bool; 3]> {
    let opened = Opened::new(patient()).await?;
    let fixture = opened.fixture();
    let (prune, units) = units(&fixture, pruned).await;
    opened.database.execute(&brake(pruned, takes)).await.unwrap();
    let brakeman = opened.database.connect().await.unwrap();
    brakeman.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
    let prune = UnitOfWork { command: Some(prune), ..Default::default() };
    let prune = begin(fixture.storage.clone(), prune);
    while opened.sessions(STANDS_STILL).await == 0 {
        assert!(!prune.is_finished(), "it stood still nowhere");
        pause().await;
    }

    let (mut waiting, mut kept) = (Vec::new(), [false; 3]);
    for (unit, is_kept) in units.into_iter().zip(&mut kept) {
        // Each has a node of its own, so that none waits behind another.
        let node = Postgres::connect(opened.database.url(), patient()).await.unwrap();
        let commit = begin(Storage::new(Arc::new(node)), unit);
        let before = i64::try_from(waiting.len()).unwrap();
        while !commit.is_finished() && !*is_kept {
            *is_kept = opened.sessions(IS_KEPT).await > before;
            pause().await;
        }
        if *is_kept {
            waiting.push(commit);
        } else {
            commit.await.unwrap().unwrap();
        }
    }
    assert_eq!((opened.sessions(STANDS_STILL).await, prune.is_finished()), (1, false), "all the while");

    brakeman.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
    match prune.await.unwrap().unwrap().outcome {
        Some(CommandOutcome::TokensPruned(pruned)) => assert_eq!(pruned.deleted, 6),
        outcome => assert_eq!(outcome, Some(CommandOutcome::AnswersPruned(1))),
    }
    for commit in waiting {
        commit.await.unwrap().unwrap();
    }
    Some(kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_keeps_nobody_waiting() {
    for pruned in ["queue_tokens", "idempotency_records"] {
        let Some(kept) = kept_waiting(pruned, "").await else { return };
        assert_eq!(kept, [false; 3], "{pruned}");
    }
}

/// The control: a prune that takes more than its rows does. In SHARE mode nobody else writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_locks_a_line_or_a_table_is_noticed() {
    for (pruned, takes, expected) in [
        ("queue_tokens", "PERFORM FROM lines FOR UPDATE;", [true, false, false]),
        ("queue_tokens", "LOCK TABLE queue_tokens IN SHARE MODE;", [true, true, false]),
        ("queue_tokens", "LOCK TABLE seats IN SHARE MODE;", [false, true, false]),
        ("idempotency_records", "LOCK TABLE idempotency_records IN SHARE MODE;", [false, false, true]),
    ] {
        let Some(kept) = kept_waiting(pruned, takes).await else { return };
        assert_eq!(kept, expected, "a join, a hold, a charge: {takes}");
    }
}
