use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use frontrow_domain::ports::{QueueQueries, StorageError, StoredLines, WaitClaims};
use frontrow_domain::queue::{
    Departure, LineState, QueueToken, QueueTokenState, QueueTokenStatus, Room, RoomMode, RoomPolicy,
    TicketNumber,
};
use frontrow_domain::reservation::ReservationStatus;
use frontrow_domain::unit_of_work::{Admit, Command, CommandOutcome, CommitError, Committed, Join};
use frontrow_domain::{
    Change, IncarnationId, QueueTokenId, RoomId, Timestamp, UnitOfWork, UserId, Versioned,
};
use futures_util::FutureExt;
use uuid::Uuid;

use super::{BATCH, TOKEN_ANSWERS_FOR_SECONDS};
use crate::outage::GOOD_FOR;
use crate::testing::{
    HELD, Load, ROOM, TOKEN, USER, WAITING, World, active_until, at, incarnation_of, now, over, refusal,
    reservation, room, stored, token, wait_token, world,
};
use crate::{Gate, Lines, WatchedCommitter};

/// A token of the n-th of a crowd.
pub(super) fn one_of(n: u128, state: QueueTokenState) -> QueueToken {
    QueueToken {
        id: QueueTokenId::new(Uuid::from_u128(0x9000 + n)),
        user_id: UserId::new(Uuid::from_u128(0xA000 + n)),
        ticket: TicketNumber(i64::try_from(n).unwrap()),
        ..token(state)
    }
}

/// A world in whose line tickets 1 to 9 wait.
pub(super) fn crowded() -> World {
    let world = world();
    let mut facts = world.facts();
    facts.tokens.clear();
    for n in 1..=9 {
        facts.put_token(stored(one_of(n, WAITING), 1));
    }
    drop(facts);
    world
}

pub(super) async fn status(lines: &Lines, world: &World, of: &QueueToken) -> QueueTokenStatus {
    let standing = lines.standing(&WaitClaims::from(of)).await.unwrap().unwrap();
    standing.token.value.status_at(world.facts().now)
}

pub(super) async fn position(lines: &Lines, n: u128) -> u64 {
    lines.standing(&WaitClaims::from(&one_of(n, WAITING))).await.unwrap().unwrap().position
}

pub(super) fn leave(world: &World, n: u128, number: i64) {
    let mut facts = world.facts();
    let state = QueueTokenState::Expired { activated_at: None, expires_at: now() };
    let token = one_of(n, state);
    facts.put_token(stored(token, 2));
    facts.departures.push(Departure { number, ticket: token.ticket });
}

pub(super) fn turn_the_clock(world: &World, seconds: i64) {
    world.facts().now = at(1_000 + seconds);
}

#[tokio::test]
async fn who_waits_costs_no_read() {
    let world = crowded();
    let lines = world.lines();
    lines.refresh().await.unwrap();
    assert_eq!(world.take_loads(), [Load::Lines]);
    for n in 1..=9 {
        assert_eq!(position(&lines, n).await, u64::try_from(n).unwrap());
    }
    assert_eq!(world.take_loads(), []);
}

#[tokio::test]
async fn a_refresh_reads_departures_once_and_only_when_there_are_new_ones() {
    let world = crowded();
    let lines = world.lines();
    leave(&world, 2, 1);
    lines.refresh().await.unwrap();
    assert_eq!(world.take_loads(), [Load::Lines, Load::DepartedTickets], "a line that is new");
    assert_eq!(position(&lines, 3).await, 2);
    lines.refresh().await.unwrap();
    assert_eq!(world.take_loads(), [Load::Lines]);
    leave(&world, 5, 2);
    leave(&world, 4, 3);
    lines.refresh().await.unwrap();
    assert_eq!(world.take_loads(), [Load::Lines, Load::Departures]);
    assert_eq!(position(&lines, 9).await, 6);
}

#[tokio::test]
async fn many_departures_are_read_in_batches() {
    let world = crowded();
    let lines = world.lines();
    lines.refresh().await.unwrap();
    let tail = u128::from(BATCH) + 10;
    {
        let mut facts = world.facts();
        facts.put_token(stored(one_of(tail, WAITING), 1));
        facts.departures = (1..=i64::from(BATCH))
            .map(|number| Departure { number, ticket: TicketNumber(9 + number) })
            .collect();
    }
    world.take_loads();
    lines.refresh().await.unwrap();
    assert_eq!(world.take_loads(), [Load::Lines, Load::Departures, Load::Departures]);
    assert_eq!(position(&lines, tail).await, 10);
    let fresh = world.lines();
    fresh.refresh().await.unwrap();
    assert_eq!(world.take_loads(), [Load::Lines, Load::DepartedTickets, Load::DepartedTickets]);
    assert_eq!(position(&fresh, tail).await, 10);
}

#[tokio::test]
async fn whoever_is_through_is_read_at_most_once_a_second() {
    let world = world();
    let lines = world.lines();
    lines.refresh().await.unwrap();
    world.take_loads();
    let own = token(WAITING);
    for (second, loads) in [(0, vec![Load::Token]), (0, vec![]), (1, vec![Load::Token]), (1, vec![])] {
        turn_the_clock(&world, second);
        assert_eq!(status(&lines, &world, &own).await, QueueTokenStatus::Active);
        assert_eq!(world.take_loads(), loads, "{second}");
    }
    // The deadline is judged by the clock, whatever is remembered.
    world.facts().tokens.get_mut(&TOKEN).unwrap().value.state = active_until(1_002);
    turn_the_clock(&world, 2);
    assert_eq!(status(&lines, &world, &own).await, QueueTokenStatus::Expired);
}

/// What was read while it waited says nothing once the line knows better.
#[tokio::test]
async fn an_admission_shows_as_soon_as_the_line_knows_of_it() {
    let world = crowded();
    let (lines, first) = (world.lines(), one_of(1, WAITING));
    lines.refresh().await.unwrap();
    assert_eq!(status(&lines, &world, &first).await, QueueTokenStatus::Wait);
    world.facts().put_token(stored(one_of(1, active_until(1_100)), 2));
    lines.refresh().await.unwrap();
    assert_eq!(status(&lines, &world, &first).await, QueueTokenStatus::Active);
    assert_eq!(position(&lines, 2).await, 1);
}

#[tokio::test]
async fn somebody_who_joined_elsewhere_a_moment_ago_is_looked_for() {
    let world = crowded();
    let lines = world.lines();
    lines.refresh().await.unwrap();
    let (waits, through) = (one_of(10, WAITING), one_of(11, active_until(1_100)));
    world.facts().put_token(stored(waits, 1));
    world.facts().put_token(stored(through, 1));
    world.take_loads();
    assert_eq!(status(&lines, &world, &waits).await, QueueTokenStatus::Wait);
    assert_eq!(position(&lines, 10).await, 10);
    assert_eq!(status(&lines, &world, &through).await, QueueTokenStatus::Active);
    let unknown = lines.standing(&WaitClaims::from(&one_of(12, WAITING))).await.unwrap();
    assert_eq!(unknown, None);
    assert!(!world.take_loads().contains(&Load::Lines));
}

/// Counters that were read before an admission may come in after somebody was told of it.
#[tokio::test]
async fn what_was_told_of_a_token_is_not_taken_back_by_late_counters() {
    let world = crowded();
    let lines = world.lines();
    lines.refresh().await.unwrap();
    world.facts().put_token(stored(one_of(10, active_until(1_100)), 2));
    let elsewhere = one_of(10, WAITING);
    assert_eq!(status(&lines, &world, &elsewhere).await, QueueTokenStatus::Active);
    world.facts().put_token(stored(elsewhere, 1));
    lines.refresh().await.unwrap();
    assert_eq!(status(&lines, &world, &elsewhere).await, QueueTokenStatus::Active);
}

#[tokio::test]
async fn while_storage_is_away_the_last_view_answers_for_a_while() {
    let world = crowded();
    world.facts().put_token(stored(one_of(1, active_until(9_000)), 2));
    let (lines, first) = (world.lines(), one_of(1, WAITING));
    lines.refresh().await.unwrap();
    assert_eq!(status(&lines, &world, &first).await, QueueTokenStatus::Active);
    let seconds = i64::try_from(GOOD_FOR.as_secs()).unwrap();
    for down in [Load::Lines, Load::Token] {
        world.facts().down = Some(down);
        turn_the_clock(&world, seconds - 1);
        assert_eq!(position(&lines, 3).await, 2, "{down:?}");
        assert_eq!(status(&lines, &world, &first).await, QueueTokenStatus::Active, "{down:?}");
    }
    world.facts().down = Some(Load::Lines);
    assert!(lines.refresh().await.is_err());
    turn_the_clock(&world, seconds);
    let waiting = lines.standing(&WaitClaims::from(&one_of(3, WAITING))).await;
    assert!(refusal(waiting).starts_with("Unavailable"));
    world.facts().down = Some(Load::Token);
    turn_the_clock(&world, 100);
    assert_eq!(status(&lines, &world, &first).await, QueueTokenStatus::Active, "the lines are known again");
    turn_the_clock(&world, 119 + i64::try_from(TOKEN_ANSWERS_FOR_SECONDS).unwrap());
    assert!(refusal(lines.standing(&WaitClaims::from(&first)).await).starts_with("Unavailable"));
    world.facts().down = None;
    assert_eq!(position(&lines, 3).await, 2);
}

#[tokio::test]
async fn a_room_that_is_new_is_read_when_it_is_asked_for() {
    let world = crowded();
    let lines = world.lines();
    assert_eq!(position(&lines, 4).await, 4);
    assert_eq!(world.take_loads(), [Load::Lines]);
    world.facts().rooms.clear();
    let elsewhere = world.lines();
    assert_eq!(elsewhere.standing(&WaitClaims::from(&one_of(4, WAITING))).await.unwrap(), None);
}

/// Commits by `work` through a node that knows the line, whose committer answers like this.
async fn committed(world: &World, lines: &Lines, work: UnitOfWork, outcome: Option<CommandOutcome>) {
    use frontrow_domain::ports::Committer;
    world.on_commit(move |_| Ok(Committed { outcome }));
    WatchedCommitter::new(world.committer(), lines.clone()).commit(work).await.unwrap();
}

fn writing(token: Versioned<QueueToken>) -> UnitOfWork {
    UnitOfWork { queue_tokens: vec![token], ..UnitOfWork::default() }
}

#[tokio::test]
async fn what_this_node_commits_shows_at_once() {
    let world = crowded();
    let lines = world.lines();
    lines.refresh().await.unwrap();
    world.take_loads();

    let left = one_of(3, QueueTokenState::Expired { activated_at: None, expires_at: now() });
    committed(&world, &lines, writing(stored(left, 1)), None).await;
    assert_eq!(status(&lines, &world, &left).await, QueueTokenStatus::Expired);
    assert_eq!(position(&lines, 4).await, 3);

    let join = |token: &QueueToken| {
        let QueueToken { id: token_id, room_id, user_id, .. } = *token;
        let join = Join { token_id, room_id, user_id, now: now() };
        UnitOfWork { command: Some(Command::Join(join)), ..UnitOfWork::default() }
    };
    let tail = one_of(10, WAITING);
    committed(&world, &lines, join(&tail), Some(CommandOutcome::Joined(tail))).await;
    assert_eq!(position(&lines, 10).await, 9);
    assert_eq!(world.take_loads(), []);
    let through = one_of(11, active_until(1_100));
    committed(&world, &lines, join(&through), Some(CommandOutcome::Joined(through))).await;
    assert_eq!(status(&lines, &world, &through).await, QueueTokenStatus::Active);
    assert_eq!(world.take_loads(), []);
}

#[tokio::test]
async fn a_nodes_own_admission_shows_before_it_is_told() {
    let world = crowded();
    let lines = world.lines();
    lines.refresh().await.unwrap();
    let admit = Admit { room_id: ROOM, limit: 1, max_active: None, active_ttl_seconds: 100, now: now() };
    let work = UnitOfWork { command: Some(Command::Admit(admit)), ..UnitOfWork::default() };
    world.facts().put_token(stored(one_of(1, active_until(1_100)), 2));
    world.take_loads();
    committed(&world, &lines, work.clone(), Some(CommandOutcome::Admitted(0))).await;
    assert_eq!(world.take_loads(), [], "nobody moved");
    committed(&world, &lines, work, Some(CommandOutcome::Admitted(1))).await;
    assert_eq!(status(&lines, &world, &one_of(1, WAITING)).await, QueueTokenStatus::Active);
    assert_eq!(world.take_loads(), [Load::Lines, Load::Token]);
}

/// A read that began before the payment and ends after it must not bring the token back.
#[tokio::test]
async fn an_older_read_does_not_undo_what_this_node_wrote() {
    let world = world();
    let lines = world.lines();
    lines.refresh().await.unwrap();
    let paid = stored(token(over()), 2);
    committed(&world, &lines, writing(paid), None).await;
    turn_the_clock(&world, 1);
    assert_eq!(world.facts().tokens[&TOKEN].value.state, active_until(1_100), "as it was read before");
    assert_eq!(status(&lines, &world, &token(WAITING)).await, QueueTokenStatus::Expired);
    assert!(world.take_loads().contains(&Load::Token));
}

/// Another node's sweep was faster; who has paid here hears of the end here all the same.
#[tokio::test]
async fn what_was_paid_here_ends_the_token_it_was_held_under() {
    let world = world();
    let lines = world.lines();
    assert_eq!(status(&lines, &world, &token(WAITING)).await, QueueTokenStatus::Active);
    world.facts().put_token(stored(token(over()), 3));
    assert_eq!(status(&lines, &world, &token(WAITING)).await, QueueTokenStatus::Active, "as it was read");
    let done = reservation(HELD, &[1], ReservationStatus::Done, at(1_300));
    let work = UnitOfWork { reservations: vec![Change::Update(stored(done, 1))], ..UnitOfWork::default() };
    committed(&world, &lines, work, None).await;
    assert_eq!(status(&lines, &world, &token(WAITING)).await, QueueTokenStatus::Expired);
}

#[tokio::test]
async fn a_commit_whose_outcome_is_unknown_is_looked_up() {
    use frontrow_domain::ports::Committer;
    let world = world();
    let lines = world.lines();
    assert_eq!(status(&lines, &world, &token(WAITING)).await, QueueTokenStatus::Active);
    world.on_commit(|facts| {
        facts.put_token(stored(token(over()), 3));
        Err(CommitError::OutcomeUnknown("lost".into()))
    });
    let watched = WatchedCommitter::new(world.committer(), lines.clone());
    assert!(watched.commit(writing(stored(token(over()), 2))).await.is_err());
    assert_eq!(status(&lines, &world, &token(WAITING)).await, QueueTokenStatus::Expired);
}

#[tokio::test]
async fn who_only_looks_is_judged_by_what_is_known() {
    let world = world();
    let gate: Gate = world.gate();
    let text = wait_token(&token(WAITING));
    let pass = gate.check_to_look(USER, Some(&text)).await.unwrap();
    assert_eq!(pass.token(), stored(token(active_until(1_100)), 2));
    world.take_loads();
    gate.check_to_look(USER, Some(&text)).await.unwrap();
    assert_eq!(world.take_loads(), []);
    gate.check(USER, Some(&text)).await.unwrap();
    assert_eq!(world.take_loads(), [Load::Token], "who writes is judged exactly");

    for (state, expected) in [(WAITING, "NotActive"), (over(), "Expired"), (active_until(1_000), "Expired")] {
        let world = self::world();
        world.facts().put_token(stored(token(state), 5));
        assert_eq!(refusal(world.gate().check_to_look(USER, Some(&text)).await), expected, "{state:?}");
    }
    // Admitted by another node since the line was read here; and with storage away the line is what there is.
    let world = self::world();
    world.facts().put_token(stored(token(WAITING), 1));
    let gate_of_one = world.gate();
    assert_eq!(refusal(gate_of_one.check_to_look(USER, Some(&text)).await), "NotActive");
    world.facts().down = Some(Load::Token);
    assert_eq!(refusal(gate_of_one.check_to_look(USER, Some(&text)).await), "NotActive");
    world.facts().down = None;
    world.facts().put_token(stored(token(active_until(1_100)), 2));
    gate_of_one.check_to_look(USER, Some(&text)).await.unwrap();
    assert_eq!(refusal(gate.check_to_look(USER, None).await), "Missing");
    assert_eq!(refusal(gate.check_to_look(USER, Some("forged")).await), "Invalid");
}

/// Lines that take a while to read, and whose reads are counted.
#[derive(Default)]
struct Slow {
    lines: Mutex<Vec<LineState>>,
    reads: AtomicU32,
    is_away: bool,
}

#[async_trait]
impl QueueQueries for Slow {
    async fn lines(&self) -> Result<StoredLines, StorageError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        if self.is_away {
            return Err(StorageError::Unavailable("away".into()));
        }
        Ok(StoredLines { incarnation: incarnation_of(1), lines: self.lines.lock().unwrap().clone() })
    }

    async fn lines_of(&self, rooms: Vec<RoomId>) -> Result<StoredLines, StorageError> {
        let mut stored = self.lines().await?;
        stored.lines.retain(|line| rooms.contains(&line.room.value.id));
        Ok(stored)
    }

    async fn begin_incarnation(&self, _: IncarnationId, _: Timestamp) -> Result<(), StorageError> {
        Ok(())
    }

    async fn rooms_after(&self, _: Option<RoomId>, _: u32) -> Result<Vec<RoomId>, StorageError> {
        Ok(Vec::new())
    }

    async fn departures(
        &self,
        _: Vec<(RoomId, i64)>,
        _: u32,
    ) -> Result<Vec<(RoomId, Departure)>, StorageError> {
        Ok(Vec::new())
    }

    async fn departed_tickets(
        &self,
        _: RoomId,
        _: TicketNumber,
        _: u32,
    ) -> Result<Vec<TicketNumber>, StorageError> {
        Ok(Vec::new())
    }
}

/// One refresh runs; whoever asks meanwhile must not be content with that one, but all of them share the next.
#[tokio::test]
async fn those_who_ask_while_one_runs_share_the_next() {
    for is_away in [false, true] {
        let world = world();
        let known = world.queue_queries().lines().await.unwrap().lines;
        let slow = Arc::new(Slow { lines: Mutex::new(known), is_away, ..Slow::default() });
        let lines = Lines::new(slow.clone(), world.tokens(), world.clock());
        let refreshes = (0..20).map(|_| lines.refresh());
        for done in futures_util::future::join_all(refreshes).await {
            assert_eq!(done.is_err(), is_away);
        }
        assert_eq!(slow.reads.load(Ordering::SeqCst), 2);
        assert_eq!(lines.refresh().await.is_err(), is_away);
        assert_eq!(slow.reads.load(Ordering::SeqCst), 3);
    }
}

/// Three ask one after another; the second is dropped while it reads the room that the third asks for, too.
#[tokio::test]
async fn a_room_stays_wanted_when_whoever_reads_it_is_dropped() {
    let world = crowded();
    let slow = Arc::new(Slow::default());
    let lines = Lines::new(slow.clone(), world.tokens(), world.clock());
    lines.refresh().await.unwrap();
    *slow.lines.lock().unwrap() = world.queue_queries().lines().await.unwrap().lines;
    let claims = WaitClaims::from(&one_of(4, WAITING));
    let elsewhere = WaitClaims { room_id: RoomId::new(Uuid::from_u128(7)), ..claims };

    let mut first = Box::pin(lines.standing(&elsewhere));
    let mut second = Box::pin(lines.standing(&claims));
    let mut third = Box::pin(lines.standing(&claims));
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    assert!(third.as_mut().now_or_never().is_none());
    assert_eq!(first.await.unwrap(), None, "there is no such room");
    assert!(second.as_mut().now_or_never().is_none(), "it reads");
    drop(second);
    assert_eq!(third.await.unwrap().unwrap().position, 4);
}

#[tokio::test]
async fn polls_are_noted_near_the_head_of_rooms_with_a_grace_alone() {
    let world = crowded();
    let polled = |lines: &Lines| lines.polls(|polls| polls.take(now()));
    let lines = world.lines();
    position(&lines, 1).await;
    assert_eq!(polled(&lines), []);

    let policy = RoomPolicy { admit_batch: 1, wait_grace_seconds: Some(120), ..RoomPolicy::default() };
    world.facts().put_room(stored(room(policy, at(900)), 9));
    lines.refresh().await.unwrap();
    for n in [4, 3, 1, 1, 5] {
        position(&lines, n).await;
    }
    let ids = |tokens: &[u128]| tokens.iter().map(|n| one_of(*n, WAITING).id).collect::<Vec<_>>();
    assert_eq!(polled(&lines), ids(&[3, 1]), "the window is three batches");
    position(&lines, 3).await;
    assert_eq!(polled(&lines), [], "it was noted a moment ago");
    let later: Timestamp = at(1_030);
    world.facts().now = later;
    lines.refresh().await.unwrap();
    position(&lines, 3).await;
    assert_eq!(lines.polls(|polls| polls.take(later)), ids(&[3]));
}

/// Counts the rooms that are read.
struct Counting {
    queries: Arc<dyn QueueQueries>,
    rooms: AtomicU32,
}

impl Counting {
    /// How many rooms were read since this was last asked.
    fn take(&self) -> u32 {
        self.rooms.swap(0, Ordering::SeqCst)
    }

    fn count(&self, found: StoredLines) -> StoredLines {
        self.rooms.fetch_add(u32::try_from(found.lines.len()).unwrap(), Ordering::SeqCst);
        found
    }
}

#[async_trait]
impl QueueQueries for Counting {
    async fn lines(&self) -> Result<StoredLines, StorageError> {
        Ok(self.count(self.queries.lines().await?))
    }

    async fn lines_of(&self, rooms: Vec<RoomId>) -> Result<StoredLines, StorageError> {
        Ok(self.count(self.queries.lines_of(rooms).await?))
    }

    async fn begin_incarnation(&self, after: IncarnationId, now: Timestamp) -> Result<(), StorageError> {
        self.queries.begin_incarnation(after, now).await
    }

    async fn rooms_after(&self, after: Option<RoomId>, limit: u32) -> Result<Vec<RoomId>, StorageError> {
        self.queries.rooms_after(after, limit).await
    }

    async fn departures(
        &self,
        after: Vec<(RoomId, i64)>,
        limit: u32,
    ) -> Result<Vec<(RoomId, Departure)>, StorageError> {
        self.queries.departures(after, limit).await
    }

    async fn departed_tickets(
        &self,
        room_id: RoomId,
        after: TicketNumber,
        limit: u32,
    ) -> Result<Vec<TicketNumber>, StorageError> {
        self.queries.departed_tickets(room_id, after, limit).await
    }
}

/// How many rooms there are besides the one with the crowd.
const OTHER_ROOMS: u32 = 2_000;

/// A crowded world of many rooms, and a node that has known them for so long that it reads none of them any more.
async fn many_rooms() -> (World, Arc<Counting>, Lines) {
    let world = crowded();
    for n in 1..=OTHER_ROOMS {
        let id = RoomId::new(Uuid::from_u128(0xB_0000 + u128::from(n)));
        let room = Room { id, ..room(RoomPolicy::default(), at(900)) };
        world.facts().put_room(stored(room, 1));
    }
    let counting = Arc::new(Counting { queries: world.queue_queries(), rooms: AtomicU32::new(0) });
    let lines = Lines::new(counting.clone(), world.tokens(), world.clock());
    for second in [0, 200] {
        turn_the_clock(&world, second);
        lines.refresh().await.unwrap();
        assert_eq!(counting.take(), OTHER_ROOMS + 1);
    }
    refresh_after(&world, &lines, 250).await;
    assert_eq!(counting.take(), 0);
    world.take_loads();
    (world, counting, lines)
}

async fn refresh_after(world: &World, lines: &Lines, millis: u64) {
    {
        let mut facts = world.facts();
        facts.now = facts.now.plus(Duration::from_millis(millis));
    }
    lines.refresh().await.unwrap();
}

#[tokio::test]
async fn a_refresh_reads_the_rooms_that_are_asked_for_and_seldom_the_others() {
    let (world, counting, lines) = many_rooms().await;
    position(&lines, 1).await;
    assert_eq!(counting.take(), 1, "it was left out, so it is read first");
    // For three minutes, four times a second.
    let mut seldom = 0;
    for _ in 0..4 * 179 {
        refresh_after(&world, &lines, 250).await;
        match counting.take() {
            1 => {}
            all => {
                assert_eq!(all, OTHER_ROOMS + 1);
                seldom += 1;
            }
        }
    }
    assert!((34..=36).contains(&seldom), "every five seconds: {seldom}");
    refresh_after(&world, &lines, 2_000).await;
    counting.take();
    refresh_after(&world, &lines, 250).await;
    assert_eq!(counting.take(), 0, "nobody has asked again");
}

#[tokio::test]
async fn rooms_without_waiters_are_read_only_when_asked_for() {
    let (world, counting, lines) = many_rooms().await;
    world.facts().waiting_since = None;
    refresh_after(&world, &lines, 5_000).await;
    assert_eq!(counting.take(), 0, "not with all the others");
    position(&lines, 1).await;
    assert_eq!(counting.take(), 1);
    refresh_after(&world, &lines, 5_000).await;
    assert_eq!(counting.take(), 1, "it is due with the others, and asked for");
}

/// A pause may have moved the deadline since the token was read.
#[tokio::test]
async fn a_token_whose_deadline_passes_is_read_again() {
    let world = world();
    let lines = world.lines();
    let paused_at = Some(at(1_099));
    let active = token(active_until(1_100));
    world.facts().now = at(1_099);
    assert_eq!(status(&lines, &world, &active).await, QueueTokenStatus::Active);
    let state = QueueTokenState::Active { activated_at: at(500), expires_at: at(1_100), paused_at };
    world.facts().put_token(stored(token(state), 3));
    world.facts().now = at(1_099).plus(Duration::from_millis(900));
    world.take_loads();
    assert_eq!(status(&lines, &world, &active).await, QueueTokenStatus::Active);
    assert_eq!(world.take_loads(), [], "it is fresh");
    world.facts().now = at(1_099).plus(Duration::from_millis(1_000));
    assert_eq!(status(&lines, &world, &active).await, QueueTokenStatus::Active, "past its deadline");
}

/// Whatever was changed by others while nobody asked here.
#[tokio::test]
async fn a_room_that_was_left_out_is_read_before_it_answers() {
    let (world, counting, lines) = many_rooms().await;
    let first = one_of(1, active_until(2_000));
    world.facts().put_token(stored(first, 2));
    let held = RoomPolicy { mode: RoomMode::Hold, ..RoomPolicy::default() };
    world.facts().put_room(stored(room(held, at(900)), 4));
    assert_eq!(status(&lines, &world, &first).await, QueueTokenStatus::Active);
    let standing = lines.standing(&WaitClaims::from(&one_of(3, WAITING))).await.unwrap().unwrap();
    assert_eq!((standing.position, standing.room.policy.mode), (2, RoomMode::Hold));
    assert_eq!(counting.take(), 1, "once for both");

    // As long as storage is away what was known does.
    turn_the_clock(&world, 600);
    lines.refresh().await.unwrap();
    refresh_after(&world, &lines, 250).await;
    world.facts().down = Some(Load::Lines);
    assert_eq!(position(&lines, 3).await, 2);
    assert_eq!(position(&lines, 4).await, 3);
    world.facts().down = None;
    world.facts().put_token(stored(one_of(2, active_until(2_000)), 2));
    lines.refresh().await.unwrap();
    assert_eq!(position(&lines, 3).await, 1);
}

/// Ghosts do not ask.
#[tokio::test]
async fn a_room_with_a_grace_is_never_left_out() {
    let (world, counting, lines) = many_rooms().await;
    let policy = RoomPolicy { wait_grace_seconds: Some(120), ..RoomPolicy::default() };
    world.facts().put_room(stored(room(policy, at(900)), 4));
    turn_the_clock(&world, 600);
    lines.refresh().await.unwrap();
    counting.take();
    refresh_after(&world, &lines, 250).await;
    assert_eq!(counting.take(), 1);
    let rooms = lines.rooms_with_grace(1, world.facts().now).unwrap();
    assert_eq!(rooms.iter().map(|room| room.id).collect::<Vec<_>>(), [ROOM]);
}
