use frontrow_domain::ports::WaitClaims;
use frontrow_domain::queue::{QueueToken, QueueTokenState};
use frontrow_domain::{RoomId, UserId};

use crate::testing::{
    Load, OTHER_ROOM, ROOM, STRANGER, TOKEN, USER, WAITING, World, active_until, over, refusal, signed,
    stored, token, wait_token, world,
};
use crate::{GateError, WrongRoom};

/// A world in which the token is stored like this.
fn world_with(state: QueueTokenState) -> World {
    let world = world();
    world.facts().put_token(stored(token(state), 5));
    world
}

#[tokio::test]
async fn an_active_token_opens_the_gate_of_its_room() {
    let world = world_with(active_until(1_001));
    let pass = world.gate().check(USER, Some(&wait_token(&token(WAITING)))).await.unwrap();
    assert_eq!(pass.user_id(), USER);
    assert_eq!(pass.token(), stored(token(active_until(1_001)), 5), "with the version that was judged");
    assert_eq!(pass.require_room(ROOM), Ok(()));
    assert_eq!(pass.require_room(OTHER_ROOM), Err(WrongRoom));
    assert_eq!(world.take_loads(), [Load::Token]);
}

#[tokio::test]
async fn any_other_state_keeps_it_shut() {
    for (state, expected) in [
        (WAITING, "NotActive"),
        (active_until(1_000), "Expired"),
        (active_until(999), "Expired"),
        (over(), "Expired"),
    ] {
        let world = world_with(state);
        let checked = world.gate().check(USER, Some(&wait_token(&token(state)))).await;
        assert_eq!(refusal(checked), expected, "{state:?}");
    }
}

#[tokio::test]
async fn what_is_not_a_token_of_the_caller_is_refused_unread() {
    let world = world();
    let own = wait_token(&token(WAITING));
    for (caller, text, expected) in [
        (USER, None, "Missing"),
        (USER, Some("forged"), "Invalid"),
        (STRANGER, Some(own.as_str()), "Invalid"),
    ] {
        assert_eq!(refusal(world.gate().check(caller, text).await), expected, "{text:?}");
    }
    assert_eq!(world.take_loads(), []);
}

#[tokio::test]
async fn a_signed_token_that_is_not_stored_as_the_callers_is_refused() {
    let world = world();
    world.facts().tokens.clear();
    let text = wait_token(&token(WAITING));
    assert_eq!(refusal(world.gate().check(USER, Some(&text)).await), "Gone", "unknown");

    let strangers = QueueToken { user_id: STRANGER, ..token(active_until(1_100)) };
    world.facts().tokens.insert(TOKEN, stored(strangers, 1));
    world.facts().signed = vec![WaitClaims::from(&token(WAITING))];
    assert_eq!(refusal(world.gate().check(USER, Some(&text)).await), "Gone", "stored as another's");
}

/// Whether the Wait-Token of [`USER`] for [`ROOM`] opens this room to this caller, to write as to look, where `forget` has
/// changed what is signed and stored of it.
async fn opens(caller: UserId, room_id: RoomId, forget: fn(&mut WaitClaims, &mut QueueToken)) -> bool {
    let world = world();
    let mut stored_token = token(active_until(1_100));
    let mut claims = WaitClaims::from(&stored_token);
    forget(&mut claims, &mut stored_token);
    world.facts().tokens.insert(TOKEN, stored(stored_token, 1));
    world.facts().signed = vec![claims];
    let (gate, text) = (world.gate(), signed(&claims));
    let passes = [gate.check(caller, Some(&text)).await, gate.check_to_look(caller, Some(&text)).await];
    let [writes, looks] = passes.map(|pass| pass.is_ok_and(|pass| pass.require_room(room_id).is_ok()));
    assert_eq!(writes, looks);
    writes
}

#[tokio::test]
async fn a_token_opens_one_room_to_one_user() {
    assert!(opens(USER, ROOM, |_, _| {}).await);
    assert!(!opens(STRANGER, ROOM, |_, _| {}).await);
    assert!(!opens(USER, OTHER_ROOM, |_, _| {}).await);
}

/// The controls: where it is forgotten whose a token is, or of which room, others get in. Whose it is both remember, who
/// signs and who stores, and one of them is enough.
#[tokio::test]
async fn a_binding_that_is_forgotten_is_noticed() {
    assert!(!opens(STRANGER, ROOM, |claims, _| claims.user_id = STRANGER).await);
    assert!(!opens(STRANGER, ROOM, |_, token| token.user_id = STRANGER).await);
    assert!(
        opens(STRANGER, ROOM, |claims, token| (claims.user_id, token.user_id) = (STRANGER, STRANGER)).await
    );
    assert!(opens(USER, OTHER_ROOM, |_, token| token.room_id = OTHER_ROOM).await);
}

#[tokio::test]
async fn storage_that_is_away_is_not_the_tokens_fault() {
    let world = world();
    world.facts().down = Some(Load::Token);
    let checked = world.gate().check(USER, Some(&wait_token(&token(WAITING)))).await;
    assert!(matches!(checked, Err(GateError::Failure(crate::Failure::Unavailable(_)))), "{checked:?}");
}

#[tokio::test]
async fn a_pass_is_renewed_by_the_state_as_it_is_now() {
    let world = world();
    let pass = world.pass().await;
    world.facts().put_token(stored(token(active_until(1_050)), 9));
    let renewed = world.gate().renew(&pass).await.unwrap();
    assert_eq!(renewed.token(), stored(token(active_until(1_050)), 9));

    world.facts().put_token(stored(token(over()), 10));
    assert_eq!(refusal(world.gate().renew(&pass).await), "Expired");
    world.facts().tokens.clear();
    assert_eq!(refusal(world.gate().renew(&pass).await), "Gone");
}
