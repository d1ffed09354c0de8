use std::sync::Arc;
use std::time::Duration;

use frontrow_domain::ports::{Concerts, WaitClaims};
use frontrow_domain::queue::{
    DEFAULT_ROOM_ID, QueueToken, QueueTokenState, QueueTokenStatus, Room, RoomMode, RoomPolicy, RoomRefusal,
    poll_after_seconds,
};
use frontrow_domain::unit_of_work::{AggregateRef, Command, CommandOutcome, CommitError, Committed, Join};
use frontrow_domain::{QueueTokenId, RoomId, UnitOfWork};

use crate::testing::{
    CONCERT, Load, OTHER_CONCERT, OTHER_ROOM, ROOM, STRANGER, TOKEN, USER, WAITING, World, active_until, at,
    concert, given, now, open_offer, over, refusal, sold_out, stored, token, wait_token, world,
};
use crate::{Entered, Failure, LookUpError, MAX_ATTEMPTS, QueuePlace, QueueService};

fn service(world: &World) -> QueueService {
    let lines = world.lines();
    QueueService {
        gate: world.gate_over(lines.clone()),
        provider: world.provider(),
        concerts: world.concerts(),
        offers: world.offers(),
        tokens: world.tokens(),
        lines,
        committer: world.committer(),
        clock: world.clock(),
        ids: world.ids(),
    }
}

/// A world in which the user's token in [`ROOM`] is stored like this.
fn world_with(state: QueueTokenState) -> World {
    let world = world();
    world.facts().put_token(stored(token(state), 5));
    world
}

const BY_FIVE: RoomPolicy = RoomPolicy {
    admit_batch: 5,
    admit_interval_seconds: 600,
    active_ttl_seconds: 600,
    max_active: None,
    max_waiting: None,
    wait_grace_seconds: None,
    opens_at: None,
    mode: RoomMode::Auto,
};

/// The token that a join makes.
fn new_token(room_id: RoomId) -> QueueToken {
    QueueToken { id: QueueTokenId::new(given(1)), room_id, entered_at: now(), ..token(WAITING) }
}

fn join_of(room_id: RoomId) -> UnitOfWork {
    let join = Join { token_id: QueueTokenId::new(given(1)), room_id, user_id: USER, now: now() };
    UnitOfWork { command: Some(Command::Join(join)), ..UnitOfWork::default() }
}

/// The next commit stores `token`, as the adapter does, and comes to `outcome`.
fn will_join(world: &World, token: QueueToken, outcome: CommandOutcome) {
    world.on_commit(move |facts| {
        facts.put_token(stored(token, 1));
        Ok(Committed { outcome: Some(outcome) })
    });
}

#[tokio::test]
async fn a_newcomer_takes_a_place_in_the_global_room() {
    let world = world();
    let global = Room::new(DEFAULT_ROOM_ID, BY_FIVE, at(900));
    world.facts().put_room(stored(global, 1));
    world.facts().ahead = 6;
    let joined = new_token(DEFAULT_ROOM_ID);
    will_join(&world, joined, CommandOutcome::Joined(joined));

    let entered = service(&world).enter(USER, None).await.unwrap();

    let place = QueuePlace {
        token: joined,
        status: QueueTokenStatus::Wait,
        position: 7,
        estimated_wait_seconds: Some(500 + 600),
        poll_after_seconds: poll_after_seconds(QueueTokenStatus::Wait, 7, &global, joined.id, now()),
        sale_paused: false,
    };
    assert_eq!(entered, Entered { place, wait_token: wait_token(&joined), is_new: true });
    assert_eq!(world.work(), join_of(DEFAULT_ROOM_ID));
    assert_eq!(world.take_loads(), [Load::Lines]);
}

#[tokio::test]
async fn a_concert_leads_into_its_own_room() {
    let world = world();
    let own = Room { id: OTHER_ROOM, ..Room::new(ROOM, RoomPolicy::default(), at(900)) };
    world.facts().put_room(stored(own, 1));
    world.facts().concerts.insert(OTHER_CONCERT, concert(OTHER_CONCERT, OTHER_ROOM));
    let joined = new_token(OTHER_ROOM);
    will_join(&world, joined, CommandOutcome::Joined(joined));

    let entered = service(&world).enter(USER, Some(OTHER_CONCERT)).await.unwrap();

    assert!(entered.is_new, "the live token in another room does not count");
    assert_eq!(world.work(), join_of(OTHER_ROOM));
}

#[tokio::test]
async fn whoever_has_a_live_place_gets_the_same_token_again() {
    for (state, status, position) in
        [(WAITING, QueueTokenStatus::Wait, 1), (active_until(1_001), QueueTokenStatus::Active, 0)]
    {
        let world = world_with(state);
        world.will_come_to(CommandOutcome::AlreadyJoined(token(state)));
        let entered = service(&world).enter(USER, Some(CONCERT)).await.unwrap();
        assert_eq!((entered.place.status, entered.place.position), (status, position));
        assert_eq!((entered.wait_token, entered.is_new), (wait_token(&token(state)), false));
        assert_eq!(world.work(), join_of(ROOM));
    }
}

#[tokio::test]
async fn after_the_end_of_a_place_there_is_a_new_one() {
    for state in [active_until(1_000), over()] {
        let world = world_with(state);
        let joined = new_token(ROOM);
        will_join(&world, joined, CommandOutcome::Joined(joined));
        let entered = service(&world).enter(USER, Some(CONCERT)).await.unwrap();
        assert_eq!((entered.place.token, entered.is_new), (joined, true), "{state:?}");
        assert_eq!(world.work(), join_of(ROOM), "{state:?}");
        assert_eq!(world.take_loads(), [Load::Concert, Load::Offers, Load::Lines], "{state:?}");
    }
}

#[tokio::test]
async fn a_place_that_ends_while_it_is_read_is_not_given_again() {
    let world = world_with(WAITING);
    world.will_come_to(CommandOutcome::AlreadyJoined(token(WAITING)));
    world.before(Load::Lines, |facts| facts.put_token(stored(token(over()), 3)));
    let joined = QueueToken { id: QueueTokenId::new(given(2)), ..new_token(ROOM) };
    will_join(&world, joined, CommandOutcome::Joined(joined));
    let entered = service(&world).enter(USER, Some(CONCERT)).await.unwrap();
    assert_eq!((entered.place.token, entered.is_new), (joined, true));
    assert_eq!(entered.wait_token, wait_token(&joined));
}

#[tokio::test]
async fn a_second_entrance_at_the_same_time_finds_the_place_of_the_first() {
    let world = world_with(over());
    let first = QueueToken { id: QueueTokenId::new(given(99)), ..new_token(ROOM) };
    will_join(&world, first, CommandOutcome::AlreadyJoined(first));
    let entered = service(&world).enter(USER, Some(CONCERT)).await.unwrap();
    assert_eq!((entered.place.token, entered.is_new), (first, false));
    assert_eq!(entered.wait_token, wait_token(&first));
}

#[tokio::test]
async fn refusals_of_the_room_are_told() {
    for (refused, expected) in
        [(RoomRefusal::Closed, "Refused(Closed)"), (RoomRefusal::Full, "Refused(Full)")]
    {
        let world = world_with(over());
        world.will_fail(CommitError::Refused(refused));
        assert_eq!(refusal(service(&world).enter(USER, Some(CONCERT)).await), expected);
    }
}

/// A world in which [`CONCERT`] is sold out, and the user's token in its room is stored like this.
fn sold_out_world_with(state: QueueTokenState) -> World {
    let world = world_with(state);
    world.facts().offers.insert(CONCERT, sold_out());
    world
}

#[tokio::test]
async fn newcomers_to_a_sold_out_concert_are_refused() {
    for state in [over(), active_until(1_000)] {
        let world = sold_out_world_with(state);
        assert_eq!(refusal(service(&world).enter(USER, Some(CONCERT)).await), "SoldOut");
        assert_eq!(world.take_loads(), [Load::Concert, Load::Offers, Load::LiveToken]);
        world.assert_untouched();
    }
}

#[tokio::test]
async fn a_live_place_is_found_again_although_all_is_sold() {
    for state in [WAITING, active_until(1_001)] {
        let world = sold_out_world_with(state);
        world.will_come_to(CommandOutcome::AlreadyJoined(token(state)));
        let entered = service(&world).enter(USER, Some(CONCERT)).await.unwrap();
        assert_eq!((entered.wait_token, entered.is_new), (wait_token(&token(state)), false));
        assert_eq!(refusal(service(&world).enter(STRANGER, Some(CONCERT)).await), "SoldOut");
    }
}

#[tokio::test]
async fn the_global_room_is_never_sold_out() {
    let world = sold_out_world_with(over());
    let global = Room::new(DEFAULT_ROOM_ID, BY_FIVE, at(900));
    world.facts().put_room(stored(global, 1));
    world.facts().concerts.insert(CONCERT, concert(CONCERT, DEFAULT_ROOM_ID));
    for concert_id in [Some(CONCERT), None] {
        let joined = new_token(DEFAULT_ROOM_ID);
        will_join(&world, joined, CommandOutcome::Joined(joined));
        assert!(service(&world).enter(USER, concert_id).await.unwrap().is_new);
        assert!(!world.take_loads().contains(&Load::Offers));
    }
}

#[tokio::test]
async fn a_seat_that_comes_back_is_noticed_within_a_second() {
    let world = sold_out_world_with(over());
    let service = service(&world);
    let enter = async || service.enter(USER, Some(CONCERT)).await;
    assert_eq!(refusal(enter().await), "SoldOut");
    world.facts().offers.insert(CONCERT, open_offer());
    world.facts().now = now().plus(Duration::from_millis(499));
    world.take_loads();
    assert_eq!(refusal(enter().await), "SoldOut", "by the view");
    assert_eq!(world.take_loads(), [Load::Concert, Load::LiveToken]);
    world.facts().now = now().plus(Duration::from_millis(500));
    let joined = new_token(ROOM);
    will_join(&world, joined, CommandOutcome::Joined(joined));
    assert!(enter().await.unwrap().is_new);
}

#[tokio::test]
async fn sold_out_is_said_before_closed_and_full() {
    let world = sold_out_world_with(over());
    // A commit would be refused; there is none.
    assert_eq!(refusal(service(&world).enter(USER, Some(CONCERT)).await), "SoldOut");
    world.assert_untouched();
    world.facts().offers.clear();
    world.will_fail(CommitError::Refused(RoomRefusal::Closed));
    assert_eq!(refusal(service(&world).enter(USER, Some(CONCERT)).await), "Refused(Closed)");
}

#[tokio::test]
async fn an_offer_that_cannot_be_read_refuses_no_newcomer() {
    let world = sold_out_world_with(over());
    world.facts().down = Some(Load::Offers);
    let joined = new_token(ROOM);
    will_join(&world, joined, CommandOutcome::Joined(joined));
    assert!(service(&world).enter(USER, Some(CONCERT)).await.unwrap().is_new);

    let world = sold_out_world_with(over());
    world.facts().down = Some(Load::LiveToken);
    let refused = refusal(service(&world).enter(USER, Some(CONCERT)).await);
    assert!(refused.starts_with("Failure(Unavailable"), "{refused}");
    world.assert_untouched();
}

#[tokio::test]
async fn nobody_enters_for_an_unknown_concert_or_without_storage() {
    let world = world();
    assert_eq!(refusal(service(&world).enter(USER, Some(OTHER_CONCERT)).await), "ConcertNotFound");
    world.facts().down = Some(Load::Concert);
    let refused = refusal(service(&world).enter(USER, Some(CONCERT)).await);
    assert!(refused.starts_with("Failure(Unavailable"), "{refused}");
    world.assert_untouched();

    world.facts().down = Some(Load::Lines);
    will_join(&world, new_token(ROOM), CommandOutcome::Joined(new_token(ROOM)));
    let refused = refusal(service(&world).enter(USER, Some(CONCERT)).await);
    assert!(refused.starts_with("Failure(Unavailable"), "{refused}");
    world.facts().down = None;
    world.will_come_to(CommandOutcome::AlreadyJoined(new_token(ROOM)));
    let again = service(&world).enter(USER, Some(CONCERT)).await.unwrap();
    assert_eq!(again.place.token, new_token(ROOM), "the place that was taken is found by the next try");
}

#[tokio::test]
async fn entering_gives_up_when_no_place_lasts() {
    let world = world_with(over());
    for _ in 0..MAX_ATTEMPTS {
        world.will_come_to(CommandOutcome::AlreadyJoined(token(over())));
    }
    let refused = refusal(service(&world).enter(USER, Some(CONCERT)).await);
    assert!(refused.starts_with("Failure(Unavailable"), "{refused}");
    assert_eq!(world.works().len(), usize::try_from(MAX_ATTEMPTS).unwrap());
}

#[tokio::test]
async fn a_join_that_comes_to_nothing_is_a_bug_and_said_so() {
    let world = world_with(over());
    world.will_come_to(CommandOutcome::Admitted(1));
    let refused = refusal(service(&world).enter(USER, Some(CONCERT)).await);
    assert!(refused.starts_with("Failure(Internal"), "{refused}");
}

#[tokio::test]
async fn a_place_is_looked_up_in_every_state() {
    let room = Room::new(ROOM, BY_FIVE, at(900));
    for (state, status, position, estimate, loads) in [
        (WAITING, QueueTokenStatus::Wait, 7, Some(1_100), vec![Load::Lines]),
        (active_until(1_001), QueueTokenStatus::Active, 0, Some(0), vec![Load::Lines, Load::Token]),
        (active_until(1_000), QueueTokenStatus::Expired, 0, Some(0), vec![Load::Lines, Load::Token]),
        (over(), QueueTokenStatus::Expired, 0, Some(0), vec![Load::Lines, Load::Token]),
    ] {
        let world = world_with(state);
        world.facts().put_room(stored(room, 4));
        world.facts().ahead = 6;
        let found = service(&world).look_up(USER, Some(&wait_token(&token(state)))).await.unwrap();
        let place = QueuePlace {
            token: token(state),
            status,
            position,
            estimated_wait_seconds: estimate,
            poll_after_seconds: poll_after_seconds(status, position, &room, TOKEN, now()),
            sale_paused: false,
        };
        assert_eq!(found, place);
        assert_eq!(world.take_loads(), loads);
    }
}

#[tokio::test]
async fn only_the_holder_looks_up_or_leaves() {
    let own = wait_token(&token(WAITING));
    for (caller, text, expected) in [
        (USER, None, "Missing"),
        (USER, Some("forged"), "Invalid"),
        (STRANGER, Some(own.as_str()), "Invalid"),
    ] {
        let world = world_with(WAITING);
        assert_eq!(refusal(service(&world).look_up(caller, text).await), expected);
        assert_eq!(refusal(service(&world).leave(caller, text).await), expected);
        world.assert_untouched();
        assert_eq!(world.take_loads(), [], "what is not the caller's is not read either");
    }
}

#[tokio::test]
async fn a_signed_token_that_is_not_stored_as_the_callers_is_unknown() {
    for stored_token in [None, Some(QueueToken { user_id: STRANGER, ..token(active_until(1_100)) })] {
        let world = world();
        world.facts().tokens = stored_token.map(|token| (TOKEN, stored(token, 1))).into_iter().collect();
        world.facts().signed = vec![WaitClaims::from(&token(WAITING))];
        let text = wait_token(&token(WAITING));
        assert_eq!(refusal(service(&world).look_up(USER, Some(&text)).await), "Gone");
        assert_eq!(refusal(service(&world).leave(USER, Some(&text)).await), "Gone");
        world.assert_untouched();
    }
}

#[tokio::test]
async fn leaving_expires_a_live_place() {
    for (state, expires_at) in [(WAITING, now()), (active_until(1_100), now()), (active_until(900), at(900))]
    {
        let world = world_with(state);
        world.will_commit();
        service(&world).leave(USER, Some(&wait_token(&token(state)))).await.unwrap();
        let activated_at = if state == WAITING { None } else { Some(at(500)) };
        let expired = token(QueueTokenState::Expired { activated_at, expires_at });
        let work = UnitOfWork { queue_tokens: vec![stored(expired, 5)], ..UnitOfWork::default() };
        assert_eq!(world.work(), work, "{state:?}");
    }
}

#[tokio::test]
async fn leaving_again_writes_nothing() {
    let world = world_with(over());
    service(&world).leave(USER, Some(&wait_token(&token(over())))).await.unwrap();
    world.assert_untouched();
}

#[tokio::test]
async fn a_place_that_changed_meanwhile_is_left_as_it_is_now() {
    let world = world_with(WAITING);
    world.will_conflict(AggregateRef::QueueToken(TOKEN), |facts| {
        facts.put_token(stored(token(active_until(1_600)), 6));
    });
    world.will_commit();
    service(&world).leave(USER, Some(&wait_token(&token(WAITING)))).await.unwrap();
    let left = QueueTokenState::Expired { activated_at: Some(at(500)), expires_at: now() };
    assert_eq!(world.works().pop().unwrap().queue_tokens, [stored(token(left), 6)]);

    let world = world_with(WAITING);
    world.will_conflict(AggregateRef::QueueToken(TOKEN), |facts| {
        facts.put_token(stored(token(over()), 6));
    });
    service(&world).leave(USER, Some(&wait_token(&token(WAITING)))).await.unwrap();
    assert_eq!(world.works().len(), 1, "it was over, so nothing is left to write");
}

#[tokio::test]
async fn leaving_gives_up_when_the_place_never_holds_still() {
    let world = world_with(WAITING);
    for _ in 0..MAX_ATTEMPTS {
        world.will_conflict(AggregateRef::QueueToken(TOKEN), |_| {});
    }
    let left = service(&world).leave(USER, Some(&wait_token(&token(WAITING)))).await;
    assert!(matches!(left, Err(LookUpError::Failure(Failure::Unavailable(_)))), "{left:?}");
}

#[tokio::test]
async fn a_commit_that_fails_is_told_and_not_repeated() {
    let world = world_with(WAITING);
    world.will_fail(CommitError::OutcomeUnknown("lost".into()));
    let left = service(&world).leave(USER, Some(&wait_token(&token(WAITING)))).await;
    assert!(matches!(left, Err(LookUpError::Failure(Failure::OutcomeUnknown(_)))), "{left:?}");
    assert_eq!(world.works().len(), 1);
}

#[tokio::test]
async fn no_estimate_while_the_room_admits_nobody() {
    for mode in [RoomMode::Hold, RoomMode::Closed] {
        let world = world_with(WAITING);
        let policy = RoomPolicy { mode, ..RoomPolicy::default() };
        world.facts().put_room(stored(Room::new(ROOM, policy, at(900)), 4));
        let place = service(&world).look_up(USER, Some(&wait_token(&token(WAITING)))).await.unwrap();
        assert_eq!((place.position, place.estimated_wait_seconds), (1, None));
        assert!((8..=10).contains(&place.poll_after_seconds));
    }
}

/// A concert that is known here and was never made, as the data has it now.
#[tokio::test]
async fn a_concert_that_the_data_has_lost_is_not_found() {
    for is_back in [false, true] {
        let world = world();
        let lines = world.lines();
        lines.refresh().await.unwrap();
        let known = Arc::new(crate::KnownConcerts::new(world.concerts(), lines.incarnation()));
        let service = QueueService { concerts: known.clone(), lines, ..service(&world) };
        known.find(CONCERT).await.unwrap().unwrap();
        let incarnation = world.facts().incarnation;
        world.on_commit(move |facts| {
            if !is_back {
                facts.concerts.clear();
            }
            Err(CommitError::Conflict(AggregateRef::Room(ROOM)))
        });
        if is_back {
            world.on_commit(|_| Err(CommitError::Conflict(AggregateRef::Room(ROOM))));
        }
        assert_eq!(refusal(service.enter(USER, Some(CONCERT)).await), "ConcertNotFound");
        assert_ne!(world.facts().incarnation, incarnation, "the data has gone back");
    }
}

#[tokio::test]
async fn without_the_global_room_nothing_can_be_joined() {
    let world = world();
    world.on_commit(|_| Err(CommitError::Conflict(AggregateRef::Room(DEFAULT_ROOM_ID))));
    assert!(refusal(service(&world).enter(USER, None).await).contains("Unavailable"));
}
