//! Group commit: many units in one transaction, each with an outcome of its own. What adapters have in common of it is in the
//! contract; here the batches are exact, and so are the transactions that they take.

use std::any::Any;
use std::time::Duration;

use frontrow_domain::account::Account;
use frontrow_domain::idempotency::IdempotencyRecord;
use frontrow_domain::queue::{QueueToken, RoomMode, RoomPolicy, RoomRefusal};
use frontrow_domain::unit_of_work::{AggregateRef, CommandOutcome, CommitError, Committed, Guard};
use frontrow_domain::{EntryId, RoomId, UnitOfWork, UserId, Versioned};
use frontrow_infra::postgres::PostgresOptions;

use crate::fixture::{Fixture, TTL, at, money};
use crate::{Opened, options};

const MANY: usize = 255;

/// One committer, which waits for locks for as long as a unit does: so that a test can hold it.
fn one_committer() -> PostgresOptions {
    let batch_lock_timeout = PostgresOptions::default().lock_timeout;
    PostgresOptions { committers: 1, group_commit_limit: 256, batch_lock_timeout, ..options() }
}

impl Opened {
    /// Queues all in this order while the only committer waits for a lock, so that they come into one batch. Gives the
    /// outcomes, and how many transactions they took.
    pub(crate) async fn together(
        &self,
        fixture: &Fixture,
        works: Vec<UnitOfWork>,
    ) -> (Vec<Result<Committed, CommitError>>, u64) {
        let gate = fixture.default_room().await.id;
        let blocker = self.database.connect().await.unwrap();
        let lock = format!("BEGIN; SELECT FROM rooms WHERE room_id = '{gate}' FOR UPDATE");
        blocker.batch_execute(&lock).await.unwrap();
        let aggregate = AggregateRef::Room(gate);
        let guards = vec![Guard { aggregate, version: fixture.room(gate).await.version }];
        let mut callers = vec![self.spawn(UnitOfWork { guards, ..Default::default() })];
        while self.sessions("wait_event_type = 'Lock'").await == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let before = self.postgres.stats().transactions;
        for (queued, work) in (1..).zip(works) {
            callers.push(self.spawn(work));
            while self.postgres.stats().queued_units < queued {
                assert!(!callers[0].is_finished(), "the committer has not waited until all were queued");
                tokio::task::yield_now().await;
            }
        }
        blocker.batch_execute("ROLLBACK").await.unwrap();
        let mut outcomes = Vec::new();
        for caller in callers {
            outcomes.push(caller.await.unwrap());
        }
        outcomes.remove(0).unwrap();
        (outcomes, self.postgres.stats().transactions - before)
    }

    fn spawn(&self, work: UnitOfWork) -> tokio::task::JoinHandle<Result<Committed, CommitError>> {
        let storage = self.fixture().storage;
        tokio::spawn(async move { storage.committer.commit(work).await })
    }

    async fn rows(&self, table: &str) -> usize {
        let sql = format!("SELECT count(*) FROM {table}");
        usize::try_from(self.database.query_i64(&sql).await.unwrap()).unwrap()
    }
}

fn recorded(record: IdempotencyRecord) -> UnitOfWork {
    UnitOfWork { idempotency: Some(record), ..Default::default() }
}

fn joined(outcome: &Result<Committed, CommitError>) -> QueueToken {
    match outcome.as_ref().unwrap().outcome {
        Some(CommandOutcome::Joined(token)) => token,
        other => panic!("{other:?}"),
    }
}

/// A unit that cannot be written, and the answer it must get.
type BadUnit = (&'static str, UnitOfWork, fn(&CommitError) -> bool);

/// One for each way to fail, and what must live as long.
async fn bad_units(opened: &Opened, fixture: &Fixture) -> (Vec<BadUnit>, Box<dyn Any + Send>) {
    let user = fixture.id(UserId::new);
    let stale = fixture.charge(user, 1, at(1)).await;
    fixture.charge(user, 1, at(1)).await;
    let taken = recorded(fixture.record(user, at(1)));
    fixture.write(taken.clone()).await;
    let closed = fixture.new_room(RoomPolicy { mode: RoomMode::Closed, ..RoomPolicy::default() }).await;
    let (_, orphan) =
        Account::empty(fixture.id(UserId::new)).charge(fixture.id(EntryId::new), money(1), at(1)).unwrap();
    // No text of PostgreSQL can have this character.
    let mut unwritable = fixture.record(fixture.id(UserId::new), at(1));
    unwritable.answer.content_type = "\0".to_owned();
    let held = fixture.charge(fixture.id(UserId::new), 1, at(1)).await;
    let lock = format!("BEGIN; SELECT FROM accounts WHERE user_id = '{}' FOR UPDATE", held.value.user_id);
    let blocker = opened.database.connect().await.unwrap();
    blocker.batch_execute(&lock).await.unwrap();
    let units: Vec<BadUnit> = vec![
        ("key", taken, |error| matches!(error, CommitError::DuplicateIdempotencyKey)),
        ("version", fixture.charge_work(user, Some(stale), 1, at(1)), |error| {
            matches!(error, CommitError::Conflict(AggregateRef::Account(_)))
        }),
        ("closed", fixture.join_work(closed.id, user, at(1)), |error| {
            matches!(error, CommitError::Refused(RoomRefusal::Closed))
        }),
        ("nowhere", fixture.join_work(fixture.id(RoomId::new), user, at(1)), |error| {
            matches!(error, CommitError::Conflict(AggregateRef::Room(_)))
        }),
        (
            "constraint",
            UnitOfWork { entries: vec![orphan], ..Default::default() },
            |error| matches!(error, CommitError::Backstop { constraint } if constraint == "entries_user_id_fkey"),
        ),
        ("statement", recorded(unwritable), |error| matches!(error, CommitError::Unavailable(_))),
        ("lock", fixture.charge_work(held.value.user_id, Some(held), 1, at(1)), |error| {
            matches!(error, CommitError::Unavailable(_))
        }),
    ];
    (units, Box::new(blocker))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_fails_leaves_its_neighbours_alone() {
    let Some(opened) = Opened::new(one_committer()).await else { return };
    let fixture = opened.fixture();
    let (bad_units, _blocker) = bad_units(&opened, &fixture).await;
    for (n, (name, bad, is_right)) in bad_units.into_iter().enumerate() {
        let before = opened.rows("entries").await;
        let mut works: Vec<UnitOfWork> =
            (0..MANY).map(|_| fixture.charge_work(fixture.id(UserId::new), None, 5, at(1))).collect();
        let place = (n * 97) % MANY;
        works.insert(place, bad);
        let (mut outcomes, transactions) = opened.together(&fixture, works).await;
        let failed = outcomes.remove(place);
        assert!(failed.as_ref().is_err_and(is_right), "{name}: {failed:?}");
        for outcome in &outcomes {
            assert!(outcome.is_ok(), "{name}: {outcome:?}");
        }
        assert_eq!(opened.rows("entries").await - before, MANY, "{name}");
        assert!(transactions <= 1 + 2 * 8, "{name} took {transactions} transactions");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_of_a_batch_are_numbered_in_order_and_each_user_once() {
    let Some(opened) = Opened::new(one_committer()).await else { return };
    let fixture = opened.fixture();
    let rooms = [fixture.default_room().await, fixture.default_room().await];
    let old = fixture.join(rooms[0].id, fixture.id(UserId::new), at(0)).await;
    let users: Vec<UserId> = (0..100).map(|_| fixture.id(UserId::new)).collect();
    let mut works = vec![fixture.join_work(rooms[0].id, old.user_id, at(1))];
    for user in &users {
        works.extend(rooms.map(|room| fixture.join_work(room.id, *user, at(1))));
        works.push(fixture.join_work(rooms[0].id, *user, at(1)));
    }
    let (outcomes, transactions) = opened.together(&fixture, works).await;
    assert_eq!(transactions, 1 + 1, "256 of the 301 are the first batch");
    assert!(
        matches!(outcomes[0].as_ref().unwrap().outcome, Some(CommandOutcome::AlreadyJoined(t)) if t == old)
    );
    for (n, of_user) in (1..).zip(outcomes[1..].chunks(3)) {
        let (first, other) = (joined(&of_user[0]), joined(&of_user[1]));
        assert_eq!((first.ticket.0, other.ticket.0), (n + 1, n));
        let again = of_user[2].as_ref().unwrap().outcome;
        assert_eq!(again, Some(CommandOutcome::AlreadyJoined(first)));
    }
    assert_eq!(
        (fixture.in_room(rooms[0].id, at(1)).await.0, fixture.in_room(rooms[1].id, at(1)).await.0),
        (101, 100)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_filled_to_its_limits_by_a_batch() {
    let Some(opened) = Opened::new(one_committer()).await else { return };
    let fixture = opened.fixture();
    let policy = RoomPolicy {
        mode: RoomMode::Open,
        max_active: Some(3),
        max_waiting: Some(2),
        ..RoomPolicy::default()
    };
    let room = fixture.new_room(policy).await;
    let works = (0..7).map(|_| fixture.join_work(room.id, fixture.id(UserId::new), at(1))).collect();
    let (outcomes, _) = opened.together(&fixture, works).await;
    let active = outcomes[..3].iter().map(joined).filter(|token| token.require_active(at(1)).is_ok());
    assert_eq!(active.count(), 3);
    assert!(outcomes[3..5].iter().map(joined).all(|token| token.require_active(at(1)).is_err()));
    for full in &outcomes[5..] {
        assert!(matches!(full, Err(CommitError::Refused(RoomRefusal::Full))), "{full:?}");
    }
    assert_eq!(fixture.in_room(room.id, at(1)).await, (2, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_over_a_lapsed_token_comes_again_alone() {
    let Some(opened) = Opened::new(one_committer()).await else { return };
    let fixture = opened.fixture();
    let room = fixture.default_room().await;
    let lapsed = fixture.admitted(room.id, at(1)).await;
    let now = at(i64::from(TTL) + 2);
    let works = [fixture.id(UserId::new), lapsed.value.user_id, fixture.id(UserId::new)]
        .map(|user| fixture.join_work(room.id, user, now));
    let (outcomes, transactions) = opened.together(&fixture, works.into()).await;
    let tickets: Vec<i64> = outcomes.iter().map(|outcome| joined(outcome).ticket.0).collect();
    assert_eq!((tickets, transactions), (vec![2, 4, 3], 2));
    assert!(!fixture.token(lapsed.value.id).await.value.is_live(at(1)), "it is stored as over");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_and_who_leaves_meet_in_a_batch() {
    let Some(opened) = Opened::new(one_committer()).await else { return };
    let fixture = opened.fixture();
    let room = fixture.default_room().await;
    let waiters = fixture.crowd(room.id, 3, at(1)).await;
    let mut works = Vec::new();
    for token in [waiters[2], waiters[0]] {
        let left: Versioned<_> = fixture.token(token.id).await.try_map(|token| token.expire(at(2))).unwrap();
        works.push(UnitOfWork { queue_tokens: vec![left], ..Default::default() });
    }
    // One who has just left is new.
    works.push(fixture.join_work(room.id, waiters[0].user_id, at(2)));
    works.push(fixture.join_work(room.id, waiters[1].user_id, at(2)));
    let (outcomes, transactions) = opened.together(&fixture, works).await;
    assert_eq!(joined(&outcomes[2]).ticket.0, 4);
    assert!(matches!(outcomes[3].as_ref().unwrap().outcome, Some(CommandOutcome::AlreadyJoined(_))));
    assert_eq!((opened.line(room.id).await, transactions), ([4, 2, 0, 2], 1));
    assert_eq!((opened.departure(3).await, opened.departure(1).await), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_closing_finishes_what_is_queued() {
    let options = PostgresOptions { queue_limit: 2, ..one_committer() };
    let Some(opened) = Opened::new(options).await else { return };
    let fixture = opened.fixture();
    let room = fixture.default_room().await;
    let blocker = opened.database.connect().await.unwrap();
    blocker.batch_execute("BEGIN; SELECT FROM lines FOR UPDATE").await.unwrap();
    let join = || fixture.join_work(room.id, fixture.id(UserId::new), at(1));
    let mut queued = vec![opened.spawn(join())];
    while opened.sessions("wait_event_type = 'Lock'").await == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for n in 1..=2 {
        queued.push(opened.spawn(join()));
        while opened.postgres.stats().queued_units < n {
            tokio::task::yield_now().await;
        }
    }
    let refused = fixture.commit(join()).await;
    assert!(matches!(refused, Err(CommitError::Unavailable(_))), "{refused:?}");
    assert!(!opened.postgres.close(Duration::from_millis(50)).await, "the line is locked");
    let late = fixture.commit(join()).await;
    assert!(matches!(late, Err(CommitError::Unavailable(_))), "{late:?}");
    blocker.batch_execute("ROLLBACK").await.unwrap();
    for caller in queued {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(fixture.in_room(room.id, at(1)).await.0, 3);
}
