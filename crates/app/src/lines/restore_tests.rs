//! Data that goes back under a node that runs, and the incarnation that follows.

use frontrow_domain::ports::{Committer, WaitClaims};
use frontrow_domain::queue::{QueueToken, QueueTokenStatus, RoomPolicy};
use frontrow_domain::unit_of_work::Committed;
use frontrow_domain::{Incarnation, UnitOfWork, Versioned};

use super::tests::{crowded, leave, one_of, position, status, turn_the_clock};
use crate::testing::{
    Load, TOKEN, USER, WAITING, World, active_until, at, incarnation_of, over, refusal, room, stored, token,
    wait_token, world,
};
use crate::{Lines, WatchedCommitter};

/// Another incarnation begins now.
fn begin(world: &World) {
    let mut facts = world.facts();
    facts.incarnation = Incarnation { started_at: facts.now, ..incarnation_of(77) };
}

fn has_begun(world: &World) -> bool {
    world.facts().incarnation != incarnation_of(1)
}

/// The token of the n-th waiter, and the tickets behind it, were never written.
fn lose_from(world: &World, n: u128) {
    world.facts().tokens.retain(|_, token| u128::try_from(token.value.ticket.0).unwrap() < n);
}

async fn is_known(lines: &Lines, token: &QueueToken) -> bool {
    lines.standing(&WaitClaims::from(token)).await.unwrap().is_some()
}

#[tokio::test]
async fn a_lost_place_is_gone_at_once_although_its_ticket_was_given_again() {
    for begins in [true, false] {
        let world = crowded();
        lose_from(&world, 8);
        let newcomer = QueueToken { id: TOKEN, user_id: USER, entered_at: at(1_000), ..one_of(8, WAITING) };
        world.facts().put_token(stored(newcomer, 1));
        if begins {
            begin(&world);
        }
        // The node starts after the restore: its caches are empty.
        let lines = world.lines();
        assert_eq!(is_known(&lines, &one_of(8, WAITING)).await, !begins, "false is the control");
        assert!(is_known(&lines, &newcomer).await);
        assert_eq!(position(&lines, 7).await, 7, "what the data knows keeps its place");
    }
}

#[tokio::test]
async fn a_place_from_before_costs_one_read_in_all() {
    let world = crowded();
    begin(&world);
    let lines = world.lines();
    lines.refresh().await.unwrap();
    world.take_loads();
    for _ in 0..3 {
        assert_eq!(position(&lines, 3).await, 3);
    }
    assert_eq!(world.take_loads(), [Load::Token]);
    world.facts().put_token(stored(QueueToken { entered_at: at(1_005), ..one_of(10, WAITING) }, 1));
    lines.refresh().await.unwrap();
    world.take_loads();
    let newcomer = QueueToken { entered_at: at(1_005), ..one_of(10, WAITING) };
    assert!(is_known(&lines, &newcomer).await);
    assert_eq!(world.take_loads(), [], "a token of this incarnation costs none");
}

#[tokio::test]
async fn another_incarnation_moves_positions_and_tokens_back() {
    let world = crowded();
    let lines = world.lines();
    world.facts().put_token(stored(one_of(1, over()), 3));
    leave(&world, 2, 1);
    lines.refresh().await.unwrap();
    assert_eq!(status(&lines, &world, &one_of(1, WAITING)).await, QueueTokenStatus::Expired);
    assert_eq!(position(&lines, 5).await, 3);

    world.facts().put_token(stored(one_of(1, active_until(2_000)), 2));
    world.facts().put_token(stored(one_of(2, WAITING), 1));
    world.facts().departures.clear();
    begin(&world);
    lines.refresh().await.unwrap();
    assert_eq!(status(&lines, &world, &one_of(1, WAITING)).await, QueueTokenStatus::Active);
    assert_eq!(position(&lines, 5).await, 4);
    assert_eq!(world.facts().incarnation.id, incarnation_of(77).id, "no other one begins");
}

#[tokio::test]
async fn a_line_that_has_gone_back_begins_an_incarnation() {
    type Change = fn(&World);
    let changes: [(&str, Change); 4] = [
        ("tickets", |world| lose_from(world, 8)),
        ("departures", |world| world.facts().departures.clear()),
        ("the room", |world| world.facts().put_room(stored(room(RoomPolicy::default(), at(900)), 2))),
        ("all", |world| world.facts().rooms.clear()),
    ];
    for (what, change) in changes {
        let world = crowded();
        leave(&world, 2, 1);
        let lines = world.lines();
        lines.refresh().await.unwrap();
        lines.refresh().await.unwrap();
        assert!(!has_begun(&world), "the control: {what}");
        position(&lines, 5).await;
        change(&world);
        lines.refresh().await.unwrap();
        assert!(has_begun(&world), "{what}");
    }
}

#[tokio::test]
async fn a_token_that_has_gone_back_begins_an_incarnation() {
    let world = world();
    world.facts().put_token(stored(token(over()), 3));
    let lines = world.lines();
    assert_eq!(status(&lines, &world, &token(WAITING)).await, QueueTokenStatus::Expired);
    world.facts().put_token(stored(token(active_until(2_000)), 2));
    turn_the_clock(&world, 1);
    assert_eq!(status(&lines, &world, &token(WAITING)).await, QueueTokenStatus::Expired, "not told yet");
    assert!(!has_begun(&world));
    lines.refresh().await.unwrap();
    assert!(has_begun(&world));
    assert_eq!(status(&lines, &world, &token(WAITING)).await, QueueTokenStatus::Active);
}

#[tokio::test]
async fn a_commit_that_began_before_fills_nothing() {
    let world = crowded();
    let lines = world.lines();
    lines.refresh().await.unwrap();
    let ended = UnitOfWork {
        queue_tokens: vec![Versioned::new(one_of(3, over()), frontrow_domain::Version::new(1))],
        ..UnitOfWork::default()
    };
    // The data goes back while the answer is on its way.
    let incarnation = lines.incarnation();
    world.on_commit(move |_| {
        incarnation.adopt(incarnation_of(77));
        Ok(Committed::default())
    });
    let committer = WatchedCommitter::new(world.committer(), lines.clone());
    committer.commit(ended.clone()).await.unwrap();
    assert_eq!(status(&lines, &world, &one_of(3, WAITING)).await, QueueTokenStatus::Wait);
    world.will_commit();
    committer.commit(ended).await.unwrap();
    assert_eq!(status(&lines, &world, &one_of(3, WAITING)).await, QueueTokenStatus::Expired, "the control");
}

#[tokio::test]
async fn polls_of_an_earlier_incarnation_judge_no_place() {
    let world = crowded();
    let policy = RoomPolicy { wait_grace_seconds: Some(120), ..RoomPolicy::default() };
    world.facts().put_room(stored(room(policy, at(900)), 9));
    let lines = world.lines();
    position(&lines, 1).await;
    begin(&world);
    lines.refresh().await.unwrap();
    assert_eq!(lines.polls(|polls| polls.take(at(1_000))), [], "noted for data that is gone");
    assert!(lines.polls(super::Polls::take_missed), "every clock starts again");
}

#[tokio::test]
async fn the_gate_says_that_the_place_is_gone() {
    let world = world();
    let text = wait_token(&token(WAITING));
    let gate = world.gate();
    gate.check_to_look(USER, Some(&text)).await.unwrap();
    world.facts().tokens.clear();
    begin(&world);
    turn_the_clock(&world, 1);
    assert_eq!(refusal(gate.check_to_look(USER, Some(&text)).await), "Gone");
    assert_eq!(refusal(gate.check(USER, Some(&text)).await), "Gone");
}
