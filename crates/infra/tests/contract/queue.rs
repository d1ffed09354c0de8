//! Lines: joining, admission, expiry.

use frontrow_domain::queue::{QueueToken, QueueTokenState, RoomMode, RoomPolicy, RoomRefusal, TicketNumber};
use frontrow_domain::unit_of_work::{AggregateRef, Command, CommandOutcome, CommitError};
use frontrow_domain::{QueueTokenId, RoomId, Timestamp, UnitOfWork, UserId, Version, Versioned};

use crate::fixture::{Fixture, TTL, admit_up_to, at, commanded, just_before};
use crate::snapshot::Snapshot;

fn policy(mode: RoomMode, max_active: Option<u32>, max_waiting: Option<u32>) -> RoomPolicy {
    RoomPolicy { mode, max_active, max_waiting, ..RoomPolicy::default() }
}

fn active_since(now: Timestamp) -> QueueTokenState {
    QueueTokenState::Active { activated_at: now, expires_at: now.plus_seconds(TTL), paused_at: None }
}

async fn live(fixture: &Fixture, token: &QueueToken) -> Option<Versioned<QueueToken>> {
    fixture.storage.queue_tokens.find_live(token.room_id, token.user_id).await.unwrap()
}

/// What becomes of a newcomer.
async fn entered(fixture: &Fixture, room: RoomId, now: Timestamp) -> QueueTokenState {
    fixture.join(room, fixture.id(UserId::new), now).await.state
}

async fn refusal(fixture: &Fixture, room: RoomId, user: UserId, now: Timestamp) -> RoomRefusal {
    match fixture.commit(fixture.join_work(room, user, now)).await {
        Err(CommitError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

async fn assert_rejoins(fixture: &Fixture, token: &QueueToken, now: Timestamp) {
    let before = Snapshot::of(fixture).await;
    let again = fixture.commit(fixture.join_work(token.room_id, token.user_id, now)).await.unwrap();
    assert_eq!(again.outcome, Some(CommandOutcome::AlreadyJoined(*token)));
    before.assert_same(fixture).await;
}

pub(crate) async fn a_newcomer_waits_at_the_tail(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let user = fixture.id(UserId::new);
    assert_eq!(fixture.storage.queue_tokens.find(fixture.id(QueueTokenId::new)).await.unwrap(), None);
    assert_eq!(fixture.storage.queue_tokens.find_live(room.id, user).await.unwrap(), None);

    let token = fixture.join(room.id, user, at(1)).await;
    let expected = QueueToken {
        id: token.id,
        room_id: room.id,
        user_id: user,
        ticket: TicketNumber(1),
        entered_at: at(1),
        state: QueueTokenState::Wait,
    };
    let stored = Versioned::new(expected, Version::FIRST);
    assert_eq!(token, expected);
    assert_eq!(fixture.token(token.id).await, stored);
    assert_eq!(live(fixture, &token).await, Some(stored));
    for ticket in 2..=4 {
        assert_eq!(fixture.crowd(room.id, 1, at(2)).await[0].ticket, TicketNumber(ticket));
    }
    assert_eq!(fixture.in_room(room.id, at(2)).await, (4, 0));
}

pub(crate) async fn every_line_has_its_own_tickets(fixture: &Fixture) {
    let (a, b) = (fixture.default_room().await, fixture.default_room().await);
    let user = fixture.id(UserId::new);
    fixture.crowd(a.id, 3, at(0)).await;
    let in_a = fixture.join(a.id, user, at(0)).await;
    let in_b = fixture.join(b.id, user, at(0)).await;
    assert_eq!((in_a.ticket, in_b.ticket), (TicketNumber(4), TicketNumber(1)));
    assert_eq!(live(fixture, &in_a).await.unwrap().value, in_a);
    assert_eq!(live(fixture, &in_b).await.unwrap().value, in_b);
    assert_eq!(fixture.in_room(a.id, at(0)).await, (4, 0));
    assert_eq!(fixture.in_room(b.id, at(0)).await, (1, 0));
}

pub(crate) async fn joining_again_gives_the_same_token(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let token = fixture.crowd(room.id, 1, at(0)).await[0];
    assert_rejoins(fixture, &token, at(1)).await;
    assert_rejoins(fixture, &token, Timestamp::MAX).await;
    fixture.admit(room.id, 1, at(2)).await;
    let active = fixture.token(token.id).await.value;
    assert_rejoins(fixture, &active, just_before(at(2 + i64::from(TTL)))).await;
    assert_eq!(fixture.crowd(room.id, 1, at(3)).await[0].ticket, TicketNumber(2), "no ticket is burnt");
}

pub(crate) async fn a_lapsed_token_is_expired_by_joining_again(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let old = fixture.admitted(room.id, at(0)).await;
    fixture.crowd(room.id, 1, at(1)).await;
    let deadline = at(i64::from(TTL));
    assert_eq!(live(fixture, &old.value).await, Some(old), "lapsed, but stored as ACTIVE");

    let new = fixture.join(room.id, old.value.user_id, deadline).await;
    assert_ne!(new.id, old.value.id);
    assert_eq!((new.ticket, new.state), (TicketNumber(3), QueueTokenState::Wait));
    let expired = QueueTokenState::Expired { activated_at: Some(at(0)), expires_at: deadline };
    let expected = Versioned::new(QueueToken { state: expired, ..old.value }, old.version.next());
    assert_eq!(fixture.token(old.value.id).await, expected);
    assert_eq!(live(fixture, &new).await, Some(Versioned::new(new, Version::FIRST)));
    assert_eq!(fixture.in_room(room.id, deadline).await, (2, 0));
}

pub(crate) async fn a_token_given_up_is_followed_by_one_at_the_tail(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let crowd = fixture.crowd(room.id, 2, at(0)).await;
    fixture.leave(crowd[0].id, at(1)).await;
    assert_eq!(live(fixture, &crowd[0]).await, None);
    assert_eq!(fixture.in_room(room.id, at(1)).await, (1, 0));
    let again = fixture.join(room.id, crowd[0].user_id, at(2)).await;
    assert_eq!(again.ticket, TicketNumber(3));
    assert_eq!(fixture.in_room(room.id, at(2)).await, (2, 0));
}

pub(crate) async fn a_closed_room_refuses_newcomers_only(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let waiting = fixture.crowd(room.id, 1, at(0)).await[0];
    fixture.set_policy(room.id, policy(RoomMode::Closed, None, None)).await;
    let newcomer = fixture.id(UserId::new);
    assert_eq!(refusal(fixture, room.id, newcomer, at(1)).await, RoomRefusal::Closed);
    assert_rejoins(fixture, &waiting, at(1)).await;
    fixture.set_policy(room.id, policy(RoomMode::Hold, None, None)).await;
    assert_eq!(fixture.join(room.id, newcomer, at(2)).await.ticket, TicketNumber(2));
}

pub(crate) async fn a_full_room_refuses_newcomers_only(fixture: &Fixture) {
    let room = fixture.new_room(policy(RoomMode::Auto, None, Some(2))).await;
    let crowd = fixture.crowd(room.id, 2, at(0)).await;
    let newcomer = fixture.id(UserId::new);
    assert_eq!(refusal(fixture, room.id, newcomer, at(1)).await, RoomRefusal::Full);
    assert_rejoins(fixture, &crowd[1], at(1)).await;

    fixture.admit(room.id, 1, at(2)).await;
    assert_eq!(fixture.join(room.id, newcomer, at(2)).await.ticket, TicketNumber(3), "one was admitted");
    let another = fixture.id(UserId::new);
    assert_eq!(refusal(fixture, room.id, another, at(3)).await, RoomRefusal::Full);
    fixture.leave(crowd[1].id, at(3)).await;
    assert_eq!(fixture.join(room.id, another, at(3)).await.ticket, TicketNumber(4), "one has left");
}

pub(crate) async fn a_refused_newcomer_changes_nothing(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let old = fixture.admitted(room.id, at(0)).await;
    let lapsed = at(i64::from(TTL));
    fixture.set_policy(room.id, policy(RoomMode::Closed, None, None)).await;
    let before = Snapshot::of(fixture).await;
    assert_eq!(refusal(fixture, room.id, old.value.user_id, lapsed).await, RoomRefusal::Closed);
    before.assert_same(fixture).await;
    assert_eq!(fixture.token(old.value.id).await, old, "the lapsed token stays as it was");
}

pub(crate) async fn an_open_room_lets_straight_through(fixture: &Fixture) {
    let open = RoomPolicy { active_ttl_seconds: 7, ..policy(RoomMode::Open, None, Some(0)) };
    let room = fixture.new_room(open).await;
    for ticket in 1..=3 {
        let token = fixture.crowd(room.id, 1, at(1)).await[0];
        let state = QueueTokenState::Active { activated_at: at(1), expires_at: at(8), paused_at: None };
        assert_eq!((token.ticket, token.state), (TicketNumber(ticket), state));
        assert_eq!(fixture.token(token.id).await, Versioned::new(token, Version::FIRST));
    }
    assert_eq!(fixture.in_room(room.id, at(1)).await, (0, 3));
}

pub(crate) async fn an_open_room_lets_nobody_past_those_who_wait(fixture: &Fixture) {
    let room = fixture.default_room().await;
    fixture.crowd(room.id, 1, at(0)).await;
    fixture.set_policy(room.id, policy(RoomMode::Open, None, None)).await;
    assert_eq!(entered(fixture, room.id, at(1)).await, QueueTokenState::Wait);
    assert_eq!(fixture.admit(room.id, 10, at(2)).await, 2);
    assert_eq!(entered(fixture, room.id, at(3)).await, active_since(at(3)));
}

pub(crate) async fn an_open_room_keeps_to_its_cap(fixture: &Fixture) {
    let room = fixture.new_room(policy(RoomMode::Open, Some(2), Some(1))).await;
    let deadline = at(i64::from(TTL));
    assert_eq!(entered(fixture, room.id, at(0)).await, active_since(at(0)));
    assert_eq!(entered(fixture, room.id, at(1)).await, active_since(at(1)));
    assert_eq!(entered(fixture, room.id, just_before(deadline)).await, QueueTokenState::Wait);
    let newcomer = fixture.id(UserId::new);
    assert_eq!(refusal(fixture, room.id, newcomer, just_before(deadline)).await, RoomRefusal::Full);

    let other = fixture.new_room(policy(RoomMode::Open, Some(1), None)).await;
    entered(fixture, other.id, at(0)).await;
    let lapsed_do_not_count = entered(fixture, other.id, deadline).await;
    assert_eq!(lapsed_do_not_count, active_since(deadline));
}

pub(crate) async fn an_unknown_room_is_a_conflict(fixture: &Fixture) {
    let room = fixture.id(RoomId::new);
    let work = fixture.join_work(room, fixture.id(UserId::new), at(0));
    let refused = fixture.commit(work).await.unwrap_err();
    assert!(matches!(refused, CommitError::Conflict(AggregateRef::Room(id)) if id == room), "{refused:?}");
}

pub(crate) async fn admission_is_by_ticket(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let crowd = fixture.crowd(room.id, 6, at(0)).await;
    let elsewhere = fixture.default_room().await;
    let other = fixture.crowd(elsewhere.id, 1, at(0)).await[0];
    fixture.leave(crowd[1].id, at(1)).await;

    assert_eq!(fixture.admit(room.id, 0, at(2)).await, 0);
    assert_eq!(fixture.admit(room.id, 3, at(2)).await, 3, "one of the first four has left");
    for n in [0, 2, 3] {
        let admitted = QueueToken { state: active_since(at(2)), ..crowd[n] };
        assert_eq!(fixture.token(crowd[n].id).await, Versioned::new(admitted, Version::FIRST.next()));
    }
    for n in [4, 5] {
        assert_eq!(fixture.token(crowd[n].id).await, Versioned::new(crowd[n], Version::FIRST));
    }
    assert_eq!(fixture.in_room(room.id, at(2)).await, (2, 3));
    assert_eq!(fixture.admit(room.id, 100, at(3)).await, 2, "no more than wait");
    assert_eq!(fixture.admit(room.id, 100, at(3)).await, 0);
    assert_eq!(fixture.in_room(room.id, at(3)).await, (0, 5));
    assert_eq!(fixture.token(other.id).await.value, other, "another line");
}

pub(crate) async fn admission_stops_at_the_cap(fixture: &Fixture) {
    let room = fixture.default_room().await;
    fixture.crowd(room.id, 10, at(0)).await;
    let deadline = at(i64::from(TTL));
    for (limit, cap, now, admitted) in [
        (5, Some(0), at(0), 0),
        (2, Some(3), at(0), 2),
        (5, Some(3), at(0), 1),
        (5, Some(3), just_before(deadline), 0),
        (5, Some(2), just_before(deadline), 0),
        (5, Some(4), deadline, 4),
        (1, Some(u32::MAX), deadline, 1),
        (u32::MAX, None, deadline, 2),
    ] {
        let outcome = fixture.order(admit_up_to(limit, cap, room.id, now)).await;
        assert_eq!(outcome, CommandOutcome::Admitted(admitted), "{limit} {cap:?} {now}");
    }
}

pub(crate) async fn admission_works_in_every_mode(fixture: &Fixture) {
    for (mode, _) in RoomMode::NAMES {
        let room = fixture.default_room().await;
        fixture.crowd(room.id, 2, at(0)).await;
        fixture.set_policy(room.id, policy(mode, Some(1), Some(0))).await;
        assert_eq!(fixture.admit(room.id, 2, at(1)).await, 2, "what the command says counts");
    }
}

pub(crate) async fn nobody_is_admitted_to_an_unknown_room(fixture: &Fixture) {
    let room = fixture.id(RoomId::new);
    let refused = fixture.commit(commanded(admit_up_to(1, None, room, at(0)))).await.unwrap_err();
    assert!(matches!(refused, CommitError::Conflict(AggregateRef::Room(id)) if id == room), "{refused:?}");
}

pub(crate) async fn lapsed_tokens_are_expired_in_batches(fixture: &Fixture) {
    let (a, b) = (fixture.default_room().await, fixture.default_room().await);
    let mut by_deadline = Vec::new();
    for (second, room) in [(3, a.id), (1, b.id), (2, a.id), (0, a.id), (4, b.id), (9, a.id)] {
        let token = fixture.admitted(room, at(second)).await;
        by_deadline.push((second, token));
    }
    by_deadline.sort_by_key(|(second, _)| *second);
    let waiting = fixture.crowd(a.id, 1, at(0)).await[0];
    let left = fixture.admitted(b.id, at(0)).await.value;
    fixture.leave(left.id, at(1)).await;
    let untouched = [fixture.token(waiting.id).await, fixture.token(left.id).await];

    let ttl = i64::from(TTL);
    let expire = async |limit, now| fixture.order(Command::ExpireTokens { now, limit }).await;
    assert_eq!(expire(10, just_before(at(ttl))).await, CommandOutcome::TokensExpired(0));
    assert_eq!(expire(0, at(ttl + 4)).await, CommandOutcome::TokensExpired(0));
    for (done, batch) in [(0, 2), (2, 2), (4, 1), (5, 0)] {
        assert_eq!(expire(2, at(ttl + 4)).await, CommandOutcome::TokensExpired(batch));
        let so_far = done + usize::try_from(batch).unwrap();
        for (n, (second, token)) in by_deadline.iter().enumerate() {
            let expected = if n < so_far { expired_at_deadline(token, *second) } else { *token };
            assert_eq!(fixture.token(token.value.id).await, expected, "after {so_far}");
        }
    }
    assert_eq!([fixture.token(waiting.id).await, fixture.token(left.id).await], untouched);
    assert_eq!(fixture.in_room(a.id, at(ttl + 4)).await, (1, 1));
}

fn expired_at_deadline(token: &Versioned<QueueToken>, admitted: i64) -> Versioned<QueueToken> {
    let state = QueueTokenState::Expired {
        activated_at: Some(at(admitted)),
        expires_at: at(admitted + i64::from(TTL)),
    };
    Versioned::new(QueueToken { state, ..token.value }, token.version.next())
}

pub(crate) async fn every_state_of_a_token_comes_back(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let token = fixture.crowd(room.id, 1, at(0)).await[0];
    fixture.leave(token.id, at(5)).await;
    let state = QueueTokenState::Expired { activated_at: None, expires_at: at(5) };
    let expected = Versioned::new(QueueToken { state, ..token }, Version::FIRST.next());
    assert_eq!(fixture.token(token.id).await, expected);

    let active = fixture.admitted(room.id, at(6)).await;
    assert_eq!(active.value.state, active_since(at(6)));
    fixture.leave(active.value.id, at(7)).await;
    let state = QueueTokenState::Expired { activated_at: Some(at(6)), expires_at: at(7) };
    let expected = Versioned::new(QueueToken { state, ..active.value }, active.version.next());
    assert_eq!(fixture.token(active.value.id).await, expected);
}

pub(crate) async fn the_extremes_of_time_come_back_in_tokens(fixture: &Fixture) {
    for time in [Timestamp::MIN, just_before(at(0)), Timestamp::MAX] {
        let room = fixture.default_room().await;
        let token = fixture.crowd(room.id, 1, time).await[0];
        assert_eq!(token.entered_at, time);
        fixture.admit(room.id, 1, time).await;
        let admitted = fixture.token(token.id).await;
        assert_eq!(admitted.value, QueueToken { state: active_since(time), ..token });
        for state in [
            QueueTokenState::Active {
                activated_at: Timestamp::MIN,
                expires_at: Timestamp::MAX,
                paused_at: Some(Timestamp::MIN),
            },
            QueueTokenState::Active {
                activated_at: Timestamp::MIN,
                expires_at: Timestamp::MAX,
                paused_at: None,
            },
            QueueTokenState::Expired { activated_at: Some(Timestamp::MIN), expires_at: Timestamp::MAX },
        ] {
            let loaded = fixture.token(token.id).await;
            let update = Versioned::new(QueueToken { state, ..token }, loaded.version);
            fixture.write(UnitOfWork { queue_tokens: vec![update], ..Default::default() }).await;
            assert_eq!(fixture.token(token.id).await, Versioned::new(update.value, loaded.version.next()));
        }
    }
}
