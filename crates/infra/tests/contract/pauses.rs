//! Pauses of the sale: the ACTIVE tokens of a room, and what meets them.

use frontrow_domain::queue::{QueueToken, QueueTokenState, RoomMode, RoomPolicy};
use frontrow_domain::unit_of_work::{AggregateRef, Command, CommandOutcome, CommitError, Join, PauseTokens};
use frontrow_domain::{Change, QueueTokenId, RoomId, Timestamp, UnitOfWork, UserId, Version, Versioned};

use crate::fixture::{Fixture, TTL, admit_up_to, at, commanded};

fn pausing(room_id: RoomId, begins: bool, now: Timestamp) -> Command {
    Command::PauseTokens(PauseTokens { room_id, begins, now })
}

/// As an operator does it: the mode of the room and its tokens in one unit.
async fn set_paused(fixture: &Fixture, id: RoomId, begins: bool, now: Timestamp) -> UnitOfWork {
    let mut room = fixture.room(id).await;
    room.value.policy.mode = if begins { RoomMode::Paused } else { RoomMode::Auto };
    UnitOfWork { rooms: vec![Change::Update(room)], ..commanded(pausing(id, begins, now)) }
}

fn active(admitted: i64, until: i64, paused: Option<i64>) -> QueueTokenState {
    QueueTokenState::Active { activated_at: at(admitted), expires_at: at(until), paused_at: paused.map(at) }
}

async fn state(fixture: &Fixture, id: QueueTokenId) -> (QueueTokenState, Version) {
    let token = fixture.token(id).await;
    (token.value.state, token.version)
}

pub(crate) async fn a_pause_keeps_the_time_that_remains(fixture: &Fixture) {
    let ttl = i64::from(TTL);
    let (room, other) = (fixture.default_room().await.id, fixture.default_room().await.id);
    let over = fixture.admitted(room, at(0)).await;
    let first = fixture.admitted(room, at(100)).await;
    let second = fixture.admitted(room, at(200)).await;
    let elsewhere = fixture.admitted(other, at(100)).await;
    let gone = fixture.admitted(room, at(150)).await;
    fixture.leave(gone.value.id, at(160)).await;
    let waiting = fixture.crowd(room, 1, at(300)).await[0];
    let untouched = [over.value.id, elsewhere.value.id, gone.value.id, waiting.id];
    let mut before = Vec::new();
    for id in untouched {
        before.push(fixture.token(id).await);
    }

    assert_eq!(fixture.order(pausing(room, true, at(ttl))).await, CommandOutcome::TokensPaused(2));
    let once = first.version.next();
    assert_eq!(state(fixture, first.value.id).await, (active(100, 100 + ttl, Some(ttl)), once));
    assert_eq!(state(fixture, second.value.id).await.0, active(200, 200 + ttl, Some(ttl)));
    assert_eq!(
        fixture.order(pausing(room, true, at(ttl + 5))).await,
        CommandOutcome::TokensPaused(0),
        "again"
    );

    // Past their deadlines they are there still, and the others are swept.
    let late = at(100_000);
    assert_eq!(fixture.in_room(room, late).await, (1, 2));
    let expire = Command::ExpireTokens { now: late, limit: 10 };
    assert_eq!(fixture.order(expire.clone()).await, CommandOutcome::TokensExpired(2));
    assert_eq!(state(fixture, first.value.id).await, (active(100, 100 + ttl, Some(ttl)), once));

    let resumed_at = ttl + 50_000;
    assert_eq!(fixture.order(pausing(room, false, at(resumed_at))).await, CommandOutcome::TokensPaused(2));
    assert_eq!(state(fixture, first.value.id).await, (active(100, 50_100 + ttl, None), once.next()));
    assert_eq!(state(fixture, second.value.id).await.0, active(200, 50_200 + ttl, None));
    assert_eq!(
        fixture.order(pausing(room, false, at(resumed_at))).await,
        CommandOutcome::TokensPaused(0),
        "again"
    );
    assert_eq!(fixture.in_room(room, at(50_099 + ttl)).await, (1, 2));
    assert_eq!(fixture.in_room(room, at(50_100 + ttl)).await, (1, 1));
    for (id, before) in untouched.into_iter().zip(before) {
        let now = fixture.token(id).await;
        assert!(now == before || now.version == before.version.next(), "swept at most: {now:?}");
    }
}

/// The clock of the node that ends it may be behind.
pub(crate) async fn a_pause_never_shortens_a_token(fixture: &Fixture) {
    let room = fixture.default_room().await.id;
    let token = fixture.admitted(room, at(0)).await;
    fixture.order(pausing(room, true, at(10))).await;
    fixture.order(pausing(room, false, at(5))).await;
    assert_eq!(state(fixture, token.value.id).await.0, token.value.state);
}

pub(crate) async fn paused_tokens_count_as_active(fixture: &Fixture) {
    let late = at(100_000);
    let room = fixture.default_room().await.id;
    let token = fixture.admitted(room, at(0)).await.value;
    fixture.order(pausing(room, true, at(1))).await;
    fixture.crowd(room, 2, late).await;
    let admit = fixture.order(admit_up_to(9, Some(2), room, late)).await;
    assert_eq!(admit, CommandOutcome::Admitted(1), "one place is taken by the paused one");

    let again =
        Join { token_id: fixture.id(QueueTokenId::new), room_id: room, user_id: token.user_id, now: late };
    let again = fixture.order(Command::Join(again)).await;
    assert!(
        matches!(again, CommandOutcome::AlreadyJoined(QueueToken { id, .. }) if id == token.id),
        "{again:?}"
    );

    let open = RoomPolicy { mode: RoomMode::Open, max_active: Some(2), ..RoomPolicy::default() };
    let open = fixture.new_room(open).await.id;
    fixture.crowd(open, 1, at(0)).await;
    fixture.order(pausing(open, true, at(1))).await;
    assert_eq!(fixture.crowd(open, 1, late).await[0].state, active(100_000, 100_000 + i64::from(TTL), None));
    assert_eq!(fixture.crowd(open, 1, late).await[0].state, QueueTokenState::Wait);
}

pub(crate) async fn a_paused_token_ends_when_it_is_given_up(fixture: &Fixture) {
    let room = fixture.default_room().await.id;
    let token = fixture.admitted(room, at(0)).await.value;
    fixture.order(pausing(room, true, at(1))).await;
    fixture.leave(token.id, at(5_000)).await;
    let over = QueueTokenState::Expired { activated_at: Some(at(0)), expires_at: at(5_000) };
    assert_eq!(fixture.token(token.id).await.value.state, over);
    assert_eq!(fixture.order(pausing(room, false, at(5_001))).await, CommandOutcome::TokensPaused(0));
    assert_eq!(fixture.join(room, token.user_id, at(5_002)).await.state, QueueTokenState::Wait);
}

/// A hold writes the version of its token, and so does the pause.
pub(crate) async fn a_hold_that_was_decided_before_a_pause_conflicts(fixture: &Fixture) {
    let sale = fixture.sale(2).await;
    let token = fixture.admitted(sale.room.id, at(0)).await;
    let decide = async |token: Versioned<QueueToken>| {
        let seats = fixture.seats(&sale.seat_ids()[..1]).await;
        fixture.hold_work(token, seats, at(2)).1
    };
    let decided = decide(token).await;
    fixture.write(set_paused(fixture, sale.room.id, true, at(1)).await).await;
    let refused = fixture.commit(decided).await.unwrap_err();
    let on = AggregateRef::QueueToken(token.value.id);
    assert!(matches!(refused, CommitError::Conflict(aggregate) if aggregate == on), "{refused:?}");
    assert!(
        fixture.token(token.value.id).await.value.require_unpaused().is_err(),
        "decided anew, it is refused"
    );

    // The control: a pause that touches no token lets the hold through.
    let other = fixture.admitted(sale.room.id, at(0)).await;
    let decided = decide(other).await;
    let mut room = fixture.room(sale.room.id).await;
    room.value.policy.mode = RoomMode::Paused;
    fixture.write(UnitOfWork { rooms: vec![Change::Update(room)], ..Default::default() }).await;
    fixture.write(decided).await;
}

/// Many times, at once: each hold comes whole before the pause, or not at all.
pub(crate) async fn no_hold_slips_past_a_pause(fixture: &Fixture) {
    const BUYERS: usize = 12;
    let mut held = 0;
    for round in 0..8 {
        let sale = fixture.sale(u32::try_from(BUYERS).unwrap()).await;
        let mut works = Vec::new();
        let mut tokens = Vec::new();
        for seat in sale.seat_ids() {
            let token = fixture.admitted(sale.room.id, at(0)).await;
            tokens.push(token);
            works.push(fixture.hold_work(token, fixture.seats(&[seat]).await, at(2)).1);
        }
        let pause = set_paused(fixture, sale.room.id, true, at(1)).await;
        works.insert(round * BUYERS / 8, pause);
        let mut answers = fixture.race(works).await;
        let paused = answers.remove(round * BUYERS / 8).unwrap().outcome;
        assert_eq!(paused, Some(CommandOutcome::TokensPaused(u32::try_from(BUYERS).unwrap())));
        for (token, answer) in tokens.into_iter().zip(answers) {
            let stored = fixture.token(token.value.id).await;
            assert!(stored.value.require_unpaused().is_err());
            let (won, versions) = (answer.is_ok(), stored.version.get() - token.version.get());
            assert_eq!(versions, if won { 2 } else { 1 }, "a hold, then the pause; or the pause alone");
            held += usize::from(won);
        }
    }
    assert!(held <= 8 * BUYERS);
}

pub(crate) async fn a_pause_of_no_room_is_a_conflict(fixture: &Fixture) {
    let nowhere = fixture.id(RoomId::new);
    let refused = fixture.commit(commanded(pausing(nowhere, true, at(0)))).await.unwrap_err();
    assert!(matches!(refused, CommitError::Conflict(AggregateRef::Room(id)) if id == nowhere), "{refused:?}");
    let room = fixture.default_room().await.id;
    assert_eq!(fixture.order(pausing(room, true, at(0))).await, CommandOutcome::TokensPaused(0));
    fixture.join(room, fixture.id(UserId::new), at(1)).await;
}
