//! Idempotency records.

use frontrow_domain::idempotency::{Answer, Fingerprint, IdempotencyKey, IdempotencyRecord, KeyedRequest};
use frontrow_domain::unit_of_work::CommitError;
use frontrow_domain::{RoomId, Timestamp, UnitOfWork, UserId};

use crate::fixture::{Fixture, at, both, just_before, key};
use crate::order::homeless_concert;

async fn find(fixture: &Fixture, user: UserId, key: &IdempotencyKey) -> Option<IdempotencyRecord> {
    fixture.storage.idempotency_records.find(user, key).await.unwrap()
}

fn recorded(record: &IdempotencyRecord) -> UnitOfWork {
    UnitOfWork { idempotency: Some(record.clone()), ..Default::default() }
}

pub(crate) async fn a_record_is_absent_until_it_is_written(fixture: &Fixture) {
    let user = fixture.id(UserId::new);
    assert_eq!(find(fixture, user, &key()).await, None);
    let record = fixture.record(user, at(0));
    fixture.write(both(recorded(&record), fixture.charge_work(user, None, 1, at(0)))).await;
    assert_eq!(find(fixture, user, &key()).await, Some(record));
}

pub(crate) async fn every_byte_of_an_answer_comes_back(fixture: &Fixture) {
    let user_id = fixture.id(UserId::new);
    let every_byte: Vec<u8> = (0..=255).collect();
    let mut every_character: String = (b' '..=b'~').map(char::from).collect();
    every_character.push_str(&"k".repeat(255 - every_character.len()));
    for (text, status, content_type, body, created_at, expires_at) in [
        (" ", 201, "application/json; charset=utf-8", vec![], Timestamp::MIN, at(0)),
        ("'; --", 999, "x", every_byte.clone(), at(0), Timestamp::MAX),
        (&every_character, 200, "", b"\0".repeat(100_000), Timestamp::MAX, Timestamp::MAX),
    ] {
        let key = IdempotencyKey::new(text).unwrap();
        let fingerprint = Fingerprint(std::array::from_fn(|n| every_byte[255 - n]));
        let request = KeyedRequest { user_id, key: key.clone(), fingerprint };
        let answer = Answer { status, content_type: content_type.to_owned(), body };
        let record = IdempotencyRecord { request, answer, created_at, expires_at };
        fixture.write(recorded(&record)).await;
        assert_eq!(find(fixture, user_id, &key).await, Some(record));
    }
}

pub(crate) async fn keys_of_different_users_never_meet(fixture: &Fixture) {
    let (a, b) = (fixture.id(UserId::new), fixture.id(UserId::new));
    let (of_a, of_b) = (fixture.record(a, at(0)), fixture.record(b, at(1)));
    fixture.write(recorded(&of_a)).await;
    assert_eq!(find(fixture, b, &key()).await, None);
    fixture.write(recorded(&of_b)).await;
    assert_eq!(find(fixture, a, &key()).await, Some(of_a.clone()));
    assert_eq!(find(fixture, b, &key()).await, Some(of_b));

    let mut upper = of_a.clone();
    upper.request.key = IdempotencyKey::new("KEY").unwrap();
    fixture.write(recorded(&upper)).await;
    assert_eq!(find(fixture, a, &key()).await, Some(of_a), "case counts");
}

pub(crate) async fn a_used_key_is_refused_until_it_expires(fixture: &Fixture) {
    let user = fixture.id(UserId::new);
    let first = fixture.record(user, at(0));
    fixture.write(recorded(&first)).await;
    for now in [at(-1), at(0), just_before(first.expires_at)] {
        let mut again = fixture.record(user, now);
        again.request.fingerprint = Fingerprint([8; 32]);
        let refused = fixture.commit(recorded(&again)).await.unwrap_err();
        assert!(matches!(refused, CommitError::DuplicateIdempotencyKey), "{now}: {refused:?}");
        assert_eq!(find(fixture, user, &key()).await, Some(first.clone()));
    }
}

pub(crate) async fn an_expired_record_is_replaced(fixture: &Fixture) {
    let user = fixture.id(UserId::new);
    let first = fixture.record(user, at(0));
    fixture.write(recorded(&first)).await;
    let mut second = fixture.record(user, first.expires_at);
    second.request.fingerprint = Fingerprint([9; 32]);
    second.answer = Answer { status: 201, content_type: "text/plain".into(), body: b"second".to_vec() };
    fixture.write(recorded(&second)).await;
    assert_eq!(find(fixture, user, &key()).await, Some(second.clone()));
    let refused = fixture.commit(recorded(&second)).await.unwrap_err();
    assert!(matches!(refused, CommitError::DuplicateIdempotencyKey), "it counts: {refused:?}");
}

pub(crate) async fn an_expired_record_stays_when_its_heir_fails(fixture: &Fixture) {
    let (user, room) = (fixture.id(UserId::new), fixture.id(RoomId::new));
    let first = fixture.record(user, at(0));
    fixture.write(recorded(&first)).await;
    let heir = recorded(&fixture.record(user, first.expires_at));
    for fault in [fixture.join_work(room, user, at(0)), homeless_concert(fixture)] {
        fixture.commit(both(heir.clone(), fault)).await.unwrap_err();
        assert_eq!(find(fixture, user, &key()).await, Some(first.clone()));
    }
    fixture.write(heir).await;
}
