use std::collections::HashSet;

use frontrow_domain::ports::WaitClaims;
use frontrow_domain::queue::{QueueToken, Room, RoomPolicy};
use frontrow_domain::unit_of_work::{Command, CommandOutcome, CommitError, GiveUpAbandoned};
use frontrow_domain::{QueueTokenId, RoomId, Timestamp, UnitOfWork};

use crate::testing::{
    OTHER_ROOM, ROOM, TOKEN, WAITING, World, at, given, now, refusal, room, stored, token, world,
};
use crate::{Abandonment, Lines};

const GRACE: u32 = 120;

/// A world whose only waiter is next, in a room with a grace, and what is known there.
async fn watched() -> (World, Lines, Abandonment) {
    let world = world();
    world.facts().put_token(stored(token(WAITING), 1));
    set_policy(&world, with_grace(), 4);
    let lines = world.lines();
    lines.refresh().await.unwrap();
    let abandonment = Abandonment::new(lines.clone(), world.committer(), world.clock());
    (world, lines, abandonment)
}

fn with_grace() -> RoomPolicy {
    RoomPolicy { wait_grace_seconds: Some(GRACE), ..RoomPolicy::default() }
}

fn set_policy(world: &World, policy: RoomPolicy, version: i64) {
    world.facts().put_room(stored(room(policy, at(900)), version));
}

fn sweep(gone_since: Option<Timestamp>, now: Timestamp) -> Command {
    Command::GiveUpAbandoned(GiveUpAbandoned { room_id: ROOM, window: 30, gone_since, now })
}

fn judged(now: i64) -> Command {
    sweep(Some(at(now - i64::from(GRACE))), at(now))
}

fn started(now: i64) -> Command {
    sweep(None, at(now))
}

fn noted(now: i64) -> Command {
    Command::NotePolls { tokens: vec![TOKEN], now: at(now) }
}

async fn poll(lines: &Lines) {
    lines.standing(&WaitClaims::from(&token(WAITING))).await.unwrap().unwrap();
}

/// One pass at this time after a refresh, all of whose commits go well; what it committed.
async fn pass(world: &World, lines: &Lines, abandonment: &Abandonment, second: i64) -> Vec<Command> {
    world.facts().now = at(second);
    lines.refresh().await.unwrap();
    pass_without_refresh(world, abandonment, second).await
}

async fn pass_without_refresh(world: &World, abandonment: &Abandonment, second: i64) -> Vec<Command> {
    world.facts().now = at(second);
    let before = world.works().len();
    // An answer to whichever commit comes: the script is longer than any pass.
    for _ in 0..4 {
        world.on_commit(|facts| Ok(facts.answer_to_last()));
    }
    abandonment.run().await.unwrap();
    world.facts().forget_script();
    world.works().split_off(before).into_iter().map(command).collect()
}

fn command(work: UnitOfWork) -> Command {
    let command = work.command.clone().unwrap();
    assert_eq!(work, UnitOfWork { command: Some(command.clone()), ..UnitOfWork::default() });
    command
}

#[tokio::test]
async fn rooms_without_a_grace_cost_nothing() {
    let (world, lines, abandonment) = watched().await;
    set_policy(&world, RoomPolicy::default(), 5);
    assert_eq!(pass(&world, &lines, &abandonment, 1_000).await, []);
}

#[tokio::test]
async fn a_room_is_judged_from_the_second_look_on() {
    let (world, lines, abandonment) = watched().await;
    assert_eq!(pass(&world, &lines, &abandonment, 1_000).await, [started(1_000)]);
    assert_eq!(pass(&world, &lines, &abandonment, 1_001).await, [judged(1_001)]);
    assert_eq!(pass(&world, &lines, &abandonment, 1_011).await, [judged(1_011)], "ten seconds apart");
}

#[tokio::test]
async fn polls_are_noted_before_anybody_is_judged() {
    let (world, lines, abandonment) = watched().await;
    pass(&world, &lines, &abandonment, 1_000).await;
    poll(&lines).await;
    assert_eq!(pass(&world, &lines, &abandonment, 1_001).await, [noted(1_001), judged(1_001)]);
}

/// The control of the next two: an outage must not count as absence.
#[tokio::test]
async fn after_an_outage_the_clocks_start_again() {
    let (world, lines, abandonment) = watched().await;
    pass(&world, &lines, &abandonment, 1_000).await;
    pass(&world, &lines, &abandonment, 1_001).await;
    assert_eq!(pass(&world, &lines, &abandonment, 1_012).await, [started(1_012)]);
    assert_eq!(pass(&world, &lines, &abandonment, 1_013).await, [judged(1_013)]);
}

#[tokio::test]
async fn polls_that_could_not_be_noted_are_kept_and_nobody_is_judged() {
    let (world, lines, abandonment) = watched().await;
    pass(&world, &lines, &abandonment, 1_000).await;
    poll(&lines).await;
    for second in [1_001, 1_002, 1_011] {
        world.facts().now = at(second);
        world.will_fail(CommitError::Unavailable("away".into()));
        assert!(refusal(abandonment.run().await).starts_with("Unavailable"));
        assert_eq!(command(world.works().pop().unwrap()), noted(second));
    }
    assert_eq!(pass(&world, &lines, &abandonment, 1_012).await, [noted(1_012), started(1_012)]);
}

#[tokio::test]
async fn nobody_is_judged_by_a_view_that_is_old() {
    let (world, lines, abandonment) = watched().await;
    pass(&world, &lines, &abandonment, 1_000).await;
    assert_eq!(pass_without_refresh(&world, &abandonment, 1_009).await, [judged(1_009)]);
    assert_eq!(pass_without_refresh(&world, &abandonment, 1_011).await, []);
    assert_eq!(pass(&world, &lines, &abandonment, 1_020).await, [started(1_020)]);
}

/// A window that grew takes in people whose polls were not noted before.
#[tokio::test]
async fn another_policy_starts_the_clocks_again() {
    let (world, lines, abandonment) = watched().await;
    pass(&world, &lines, &abandonment, 1_000).await;
    let larger = RoomPolicy { admit_batch: 100, ..with_grace() };
    set_policy(&world, larger, 5);
    let window = |gone_since, now| GiveUpAbandoned { room_id: ROOM, window: 300, gone_since, now };
    let started_again = Command::GiveUpAbandoned(window(None, at(1_001)));
    assert_eq!(pass(&world, &lines, &abandonment, 1_001).await, [started_again]);

    set_policy(&world, RoomPolicy { wait_grace_seconds: None, ..larger }, 6);
    assert_eq!(pass(&world, &lines, &abandonment, 1_002).await, []);
    set_policy(&world, larger, 7);
    let started_again = Command::GiveUpAbandoned(window(None, at(1_003)));
    assert_eq!(pass(&world, &lines, &abandonment, 1_003).await, [started_again], "off and on again");
}

#[tokio::test]
async fn a_sweep_that_fails_has_not_watched() {
    let (world, lines, abandonment) = watched().await;
    pass(&world, &lines, &abandonment, 1_000).await;
    world.facts().now = at(1_001);
    world.will_fail(CommitError::OutcomeUnknown("lost".into()));
    assert!(abandonment.run().await.is_err());
    assert_eq!(pass(&world, &lines, &abandonment, 1_002).await, [started(1_002)]);
}

#[tokio::test]
async fn a_room_that_fails_keeps_no_other_from_its_sweep() {
    let (world, lines, abandonment) = watched().await;
    let other = Room { id: OTHER_ROOM, ..room(with_grace(), at(900)) };
    world.facts().put_room(stored(other, 1));
    let waiter = QueueToken { id: QueueTokenId::new(given(99)), room_id: OTHER_ROOM, ..token(WAITING) };
    world.facts().put_token(stored(waiter, 1));
    world.facts().now = at(1_060);
    lines.refresh().await.unwrap();
    world.will_fail(CommitError::Unavailable("its line is locked".into()));
    world.will_come_to(CommandOutcome::GivenUp(7));
    assert!(refusal(abandonment.run().await).starts_with("Unavailable"));
    let swept: HashSet<RoomId> = world.works().iter().map(|work| room_of(command(work.clone()))).collect();
    assert_eq!(swept, HashSet::from([ROOM, OTHER_ROOM]));
}

fn room_of(command: Command) -> RoomId {
    match command {
        Command::GiveUpAbandoned(sweep) => sweep.room_id,
        other => panic!("{other:?} sweeps nothing"),
    }
}

#[tokio::test]
async fn what_was_given_up_is_told() {
    let (world, _, abandonment) = watched().await;
    world.will_come_to(CommandOutcome::GivenUp(7));
    assert_eq!(abandonment.run().await.unwrap(), 7);
    world.will_come_to(CommandOutcome::Admitted(1));
    assert!(refusal(abandonment.run().await).starts_with("Internal"));
    assert_eq!(now(), at(1_000));
}
