use frontrow_domain::queue::{Room, RoomMode, RoomPolicy, RoomWithWaiters};
use frontrow_domain::unit_of_work::{
    Admit, AggregateRef, Command, CommandOutcome, CommitError, Committed, Guard,
};
use frontrow_domain::{Change, RoomId, UnitOfWork, Versioned};

use super::{OPEN_BATCH, OPEN_BATCHES_PER_PASS, ROOMS_PER_READ};
use crate::testing::{Load, OTHER_ROOM, ROOM, World, at, given, now, refusal, room, stored, version, world};
use crate::{Admission, Admitted};

fn admission(world: &World) -> Admission {
    Admission { rooms: world.rooms(), committer: world.committer(), clock: world.clock() }
}

fn policy(mode: RoomMode) -> RoomPolicy {
    RoomPolicy { mode, max_active: Some(50), active_ttl_seconds: 60, ..RoomPolicy::default() }
}

/// A world whose only room, of version 3, was made at this second. Its interval is 600 seconds, the time 1,000.
fn world_with(mode: RoomMode, created_at: i64) -> World {
    let world = world();
    world.facts().rooms.clear();
    world.facts().put_room(stored(room(policy(mode), at(created_at)), 3));
    world
}

fn admit(room_id: RoomId, limit: u32) -> Option<Command> {
    let admit = Admit { room_id, limit, max_active: Some(50), active_ttl_seconds: 60, now: now() };
    Some(Command::Admit(admit))
}

/// The claim of the tick at second 900 of a room made at second 300, whoever it admits.
fn claim(mode: RoomMode, command: Option<Command>) -> UnitOfWork {
    let ticked = Room { last_tick_at: at(900), next_tick_at: at(1_500), ..room(policy(mode), at(300)) };
    UnitOfWork { command, rooms: vec![Change::Update(stored(ticked, 3))], ..UnitOfWork::default() }
}

/// A batch of an OPEN room that must still be of this version.
fn drain(room_version: i64) -> UnitOfWork {
    let guard = Guard { aggregate: AggregateRef::Room(ROOM), version: version(room_version) };
    UnitOfWork { guards: vec![guard], command: admit(ROOM, OPEN_BATCH), ..UnitOfWork::default() }
}

#[tokio::test]
async fn a_due_tick_is_claimed_in_the_unit_of_work_that_admits() {
    let world = world_with(RoomMode::Auto, 300);
    world.will_come_to(CommandOutcome::Admitted(7));
    let admitted = admission(&world).run().await.unwrap();
    assert_eq!(admitted, Admitted { people: 7, failures: 0 });
    assert_eq!(world.work(), claim(RoomMode::Auto, admit(ROOM, 10)));
}

#[tokio::test]
async fn nothing_happens_before_a_tick_is_due() {
    let world = world_with(RoomMode::Auto, 401);
    assert_eq!(admission(&world).run().await.unwrap(), Admitted::default());
    let room = Versioned::new(room(policy(RoomMode::Auto), at(401)), version(3));
    let found = RoomWithWaiters { room, waiting_since: Some(at(1)) };
    assert_eq!(admission(&world).run_room(found, now()).await.unwrap(), 0, "nor by the back door");
    world.assert_untouched();
}

#[tokio::test]
async fn rooms_that_admit_nobody_are_left_alone() {
    for mode in [RoomMode::Hold, RoomMode::Closed, RoomMode::Paused] {
        let world = world_with(mode, 300);
        assert_eq!(admission(&world).run().await.unwrap(), Admitted::default());
        let room = stored(room(policy(mode), at(300)), 3);
        let found = RoomWithWaiters { room, waiting_since: Some(at(1)) };
        assert_eq!(admission(&world).run_room(found, now()).await.unwrap(), 0, "{mode:?}");
        world.assert_untouched();
    }
}

#[tokio::test]
async fn a_tick_without_waiters_is_not_written() {
    for waiting_since in [None, Some(at(901))] {
        let world = world_with(RoomMode::Auto, 300);
        world.facts().waiting_since = waiting_since;
        assert_eq!(admission(&world).run().await.unwrap(), Admitted::default());
        world.assert_untouched();
    }
    let world = world_with(RoomMode::Auto, 300);
    world.facts().waiting_since = Some(at(900));
    world.will_come_to(CommandOutcome::Admitted(1));
    assert_eq!(admission(&world).run().await.unwrap().people, 1, "a waiter who came in time");
}

#[tokio::test]
async fn a_tick_too_far_ahead_is_moved_back_and_admits_nobody() {
    let world = world_with(RoomMode::Auto, 300);
    let healthy =
        Room { last_tick_at: at(900), next_tick_at: at(1_500), ..room(policy(RoomMode::Auto), at(300)) };
    let astray = Room { last_tick_at: at(900_900), next_tick_at: at(901_500), ..healthy };
    world.facts().put_room(stored(astray, 3));
    world.will_commit();
    assert_eq!(admission(&world).run().await.unwrap(), Admitted::default());
    let moved = UnitOfWork { rooms: vec![Change::Update(stored(healthy, 3))], ..UnitOfWork::default() };
    assert_eq!(world.work(), moved);
}

#[tokio::test]
async fn no_tick_admits_before_the_opening() {
    let world = world_with(RoomMode::Auto, 300);
    let opens_at = Some(at(1_001));
    let closed = RoomPolicy { opens_at, ..policy(RoomMode::Auto) };
    world.facts().put_room(stored(Room { policy: closed, ..room(policy(RoomMode::Auto), at(300)) }, 3));
    assert_eq!(admission(&world).run().await.unwrap(), Admitted::default());
    world.assert_untouched();
    world.facts().now = at(1_001);
    world.will_come_to(CommandOutcome::Admitted(1));
    world.facts().put_room(stored(room(closed, at(300)), 3));
    assert_eq!(admission(&world).run().await.unwrap().people, 1);
}

/// As many rooms as it takes are read, so that none starves behind others.
#[tokio::test]
async fn a_pass_sees_to_every_room_with_work() {
    let world = world_with(RoomMode::Auto, 300);
    let rooms = 2 * ROOMS_PER_READ + 1;
    world.facts().rooms.clear();
    for n in 1..=rooms {
        let other = Room { id: RoomId::new(given(u128::from(n))), ..room(policy(RoomMode::Auto), at(300)) };
        world.facts().put_room(stored(other, 1));
        world.will_come_to(CommandOutcome::Admitted(1));
    }
    assert_eq!(admission(&world).run().await.unwrap(), Admitted { people: u64::from(rooms), failures: 0 });
    assert_eq!(world.take_loads().len(), 3, "reads");
}

#[tokio::test]
async fn an_open_room_admits_until_less_than_a_batch_is_left() {
    let world = world_with(RoomMode::Open, 401);
    world.will_come_to(CommandOutcome::Admitted(OPEN_BATCH));
    world.will_come_to(CommandOutcome::Admitted(OPEN_BATCH));
    world.will_come_to(CommandOutcome::Admitted(1));
    assert_eq!(admission(&world).run().await.unwrap(), Admitted { people: 2_001, failures: 0 });
    assert_eq!(world.works(), [drain(3), drain(3), drain(3)]);
}

#[tokio::test]
async fn an_open_room_needs_no_tick() {
    let world = world_with(RoomMode::Open, 300);
    world.will_come_to(CommandOutcome::Admitted(5));
    assert_eq!(admission(&world).run().await.unwrap(), Admitted { people: 5, failures: 0 });
    assert_eq!(world.works(), [drain(3)]);
}

#[tokio::test]
async fn one_open_room_does_not_take_the_whole_pass() {
    let world = world_with(RoomMode::Open, 401);
    for _ in 0..OPEN_BATCHES_PER_PASS {
        world.will_come_to(CommandOutcome::Admitted(OPEN_BATCH));
    }
    let people = u64::from(OPEN_BATCH) * u64::from(OPEN_BATCHES_PER_PASS);
    assert_eq!(admission(&world).run().await.unwrap(), Admitted { people, failures: 0 });
}

#[tokio::test]
async fn an_open_room_that_changes_is_left_to_the_next_pass() {
    let world = world_with(RoomMode::Open, 401);
    world.will_come_to(CommandOutcome::Admitted(OPEN_BATCH));
    world.will_conflict(AggregateRef::Room(ROOM), |_| {});
    assert_eq!(admission(&world).run().await.unwrap(), Admitted { people: 1_000, failures: 0 });
    assert_eq!(world.works().len(), 2);
}

/// Another node was faster: the tick is taken, and the lost claim admits nobody.
#[tokio::test]
async fn a_lost_claim_is_no_failure_and_is_not_tried_again() {
    for mode in [RoomMode::Auto, RoomMode::Open] {
        let world = world_with(mode, 300);
        world.will_conflict(AggregateRef::Room(ROOM), |_| {});
        assert_eq!(admission(&world).run().await.unwrap(), Admitted::default(), "{mode:?}");
        assert_eq!(world.works().len(), 1);
    }
}

#[tokio::test]
async fn a_room_that_fails_leaves_the_others_alone() {
    let world = world_with(RoomMode::Auto, 300);
    let other = Room { id: OTHER_ROOM, ..room(policy(RoomMode::Auto), at(300)) };
    world.facts().put_room(stored(other, 1));
    world.will_fail(CommitError::Unavailable("down".into()));
    world.on_commit(|_| Ok(Committed { outcome: Some(CommandOutcome::Admitted(4)) }));
    assert_eq!(admission(&world).run().await.unwrap(), Admitted { people: 4, failures: 1 });
    let commands: Vec<_> = world.works().into_iter().map(|work| work.command).collect();
    assert_eq!(commands, [admit(ROOM, 10), admit(OTHER_ROOM, 10)]);
}

#[tokio::test]
async fn without_storage_there_is_no_pass() {
    let world = world_with(RoomMode::Auto, 300);
    world.facts().down = Some(Load::DueRooms);
    assert_eq!(refusal(admission(&world).run().await), "Unavailable(\"down\")");
    world.assert_untouched();
}
