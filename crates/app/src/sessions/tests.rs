use std::sync::Arc;

use frontrow_domain::ports::{AccessClaims, InvalidAccessToken, MockAccessTokens, NoIssuer, Role};
use frontrow_domain::{Timestamp, UserId};

use crate::testing::{USER, at, given, now, world};
use crate::{Caller, RenewError, SessionService, Unauthenticated};

fn service(tokens: MockAccessTokens) -> SessionService {
    let world = world();
    world.facts().now = Timestamp::from_unix_micros(1_000_700_000).unwrap();
    SessionService { tokens: Arc::new(tokens), clock: world.clock(), ids: world.ids() }
}

#[test]
fn a_guest_is_a_new_user_with_a_token_until_a_whole_second() {
    let guest =
        AccessClaims { user_id: UserId::new(given(1)), role: Role::User, expires_at: at(1_000 + 86_400) };
    let mut tokens = MockAccessTokens::new();
    tokens.expect_issue().withf(move |claims| *claims == guest).returning(|_| Ok("signed".into()));
    let session = service(tokens).open().unwrap();
    assert_eq!((session.user_id, session.expires_at), (guest.user_id, guest.expires_at));
    assert_eq!(session.access_token, "signed");
}

#[test]
fn no_guest_where_another_issues_the_tokens() {
    let mut tokens = MockAccessTokens::new();
    tokens.expect_issue().returning(|_| Err(NoIssuer));
    assert_eq!(service(tokens).open().err(), Some(NoIssuer));
}

#[test]
fn a_caller_is_who_its_token_says_at_the_time_of_the_request() {
    let mut tokens = MockAccessTokens::new();
    tokens.expect_verify().returning(|token, at| match token {
        "good" if at > now() => Ok(AccessClaims { user_id: USER, role: Role::Admin, expires_at: at }),
        _ => Err(InvalidAccessToken),
    });
    let service = service(tokens);
    assert_eq!(service.caller(Some("good")), Ok(Caller { user_id: USER, role: Role::Admin }));
    assert_eq!(service.caller(Some("bad")), Err(Unauthenticated));
    assert_eq!(service.caller(None), Err(Unauthenticated));
}

#[test]
fn a_guest_is_renewed_as_the_same_user() {
    let renewed = AccessClaims { user_id: USER, role: Role::User, expires_at: at(1_000 + 86_400) };
    let mut tokens = MockAccessTokens::new();
    tokens.expect_issue().withf(move |claims| *claims == renewed).returning(|_| Ok("renewed".into()));
    let session = service(tokens).renew(Caller { user_id: USER, role: Role::User }).unwrap();
    assert_eq!((session.user_id, session.expires_at), (USER, renewed.expires_at));
    assert_eq!(session.access_token, "renewed");
}

#[test]
fn a_token_with_a_role_is_not_renewed() {
    for role in [Role::Admin, Role::Cashier] {
        let caller = Caller { user_id: USER, role };
        let mut tokens = MockAccessTokens::new();
        // Whatever is signed on the way has no role, and goes nowhere.
        tokens.expect_issue().withf(|claims| claims.role == Role::User).returning(|_| Ok("signed".into()));
        assert_eq!(service(tokens).renew(caller).err(), Some(RenewError::HasRole));
        let mut elsewhere = MockAccessTokens::new();
        elsewhere.expect_issue().returning(|_| Err(NoIssuer));
        assert_eq!(service(elsewhere).renew(caller).err(), Some(RenewError::NoIssuer(NoIssuer)));
    }
}
