//! Who goes first, who is refused, and what pruning leaves alone.

use frontrow_domain::queue::TicketNumber;
use frontrow_domain::unit_of_work::{
    AggregateRef, Command, CommandOutcome, CommitError, Committed, Guard, PruneTokens,
};
use frontrow_domain::{UnitOfWork, UserId};
use frontrow_infra::postgres::{PostgresOptions, audit};

use crate::fixture::{TTL, at};
use crate::{Opened, options};

/// One committer, which waits for locks for as long as a unit does: so that a test can hold it.
fn one_committer() -> PostgresOptions {
    let batch_lock_timeout = PostgresOptions::default().lock_timeout;
    PostgresOptions { committers: 1, batch_lock_timeout, ..options() }
}

/// Somebody gives a place up, and then comes who pays and depends on that place: whoever goes first wins. Gives how the
/// payer fares.
async fn payer_behind_others(prioritise: bool) -> Option<Result<Committed, CommitError>> {
    let opened = Opened::new(PostgresOptions { prioritise, ..one_committer() }).await?;
    let fixture = opened.fixture();
    let room = fixture.default_room().await.id;
    let token = fixture.crowd(room, 1, at(0)).await.remove(0);
    let left = fixture.token(token.id).await.try_map(|token| token.expire(at(1))).unwrap();
    let guard = Guard { aggregate: AggregateRef::QueueToken(token.id), version: left.version };
    let leaves = UnitOfWork { queue_tokens: vec![left], ..Default::default() };
    let charge = fixture.charge_work(fixture.id(UserId::new), None, 5, at(1));
    let pays = UnitOfWork { guards: vec![guard], ..charge };
    let (mut outcomes, _) = opened.together(&fixture, vec![leaves, pays]).await;
    assert!(outcomes[0].is_ok(), "both succeed, unless the payer comes second: {outcomes:?}");
    outcomes.pop()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_pays_goes_before_who_came_first() {
    let Some(outcome) = payer_behind_others(true).await else { return };
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_in_one_lane_who_came_first_goes_first() {
    let Some(outcome) = payer_behind_others(false).await else { return };
    assert!(matches!(outcome, Err(CommitError::Conflict(_))), "{outcome:?}");
}

/// Another transaction holds some of what is over, and the line itself: pruning takes the rest, and waits for neither.
#[tokio::test(flavor = "multi_thread")]
async fn pruning_waits_for_nobody_and_the_audit_counts_it() {
    let Some(opened) = Opened::new(one_committer()).await else { return };
    let fixture = opened.fixture();
    let room_id = fixture.default_room().await.id;
    let crowd = fixture.crowd(room_id, 6, at(0)).await;
    fixture.leave(crowd[1].id, at(1)).await;
    fixture.admit(room_id, 9, at(1)).await;
    let end = at(1 + i64::from(TTL));
    fixture.order(Command::ExpireTokens { now: end, limit: 9 }).await;
    let user = fixture.id(UserId::new);
    let record = fixture.record(user, at(1));
    let over = record.expires_at;
    fixture.write(UnitOfWork { idempotency: Some(record), ..Default::default() }).await;

    let blocker = opened.database.connect().await.unwrap();
    let lock = format!(
        "BEGIN; SELECT FROM lines FOR UPDATE; SELECT FROM idempotency_records FOR UPDATE; \
         SELECT FROM queue_tokens WHERE token_id = '{}' FOR UPDATE",
        crowd[0].id
    );
    blocker.batch_execute(&lock).await.unwrap();
    let prune = || PruneTokens { room_id, after: TicketNumber(0), before: end, limit: 9 };
    let deleted = |outcome| match outcome {
        CommandOutcome::TokensPruned(pruned) => pruned.deleted,
        other => panic!("{other:?}"),
    };
    assert_eq!(deleted(fixture.order(Command::PruneTokens(prune())).await), 4);
    let answers = Command::PruneAnswers { now: over, limit: 9 };
    assert_eq!(fixture.order(answers.clone()).await, CommandOutcome::AnswersPruned(0));
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(deleted(fixture.order(Command::PruneTokens(prune())).await), 1);
    assert_eq!(fixture.order(answers).await, CommandOutcome::AnswersPruned(1));

    let breaches = async || -> Vec<&str> {
        let findings = audit(opened.database.url()).await.unwrap();
        findings.into_iter().filter(|found| found.breaches > 0).map(|found| found.promise).collect()
    };
    assert_eq!(breaches().await, Vec::<&str>::new());
    // Control: one that was deleted and not counted is missed.
    opened.database.execute("UPDATE pruned_tokens SET tokens = tokens - 1").await.unwrap();
    assert_eq!(breaches().await, ["tickets of a room are numbered without a gap, pruned ones counted in"]);
}
