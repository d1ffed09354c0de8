use frontrow_domain::idempotency::{Answer, KeyReused, REPLAY_WINDOW};

use crate::testing::{Load, encoded, keyed_request, now, refusal, twins_answer, twins_record, world};
use crate::{Failure, Keyed, PayError, ReplayError, Reply};

fn is_failure(error: &PayError) -> bool {
    matches!(error, PayError::Failure(_))
}

fn own_answer() -> Answer {
    Answer { body: b"own".to_vec(), ..twins_answer() }
}

#[tokio::test]
async fn an_answer_is_given_again_to_the_same_request_while_it_counts() {
    let world = world();
    let idempotency = world.idempotency();
    assert_eq!(idempotency.replay(&keyed_request(1)).await.unwrap(), None);

    world.facts().record = Some(twins_record());
    let replayed = Reply { answer: twins_answer(), replayed: true };
    assert_eq!(idempotency.replay(&keyed_request(1)).await.unwrap(), Some(replayed));
    let reused = idempotency.replay(&keyed_request(2)).await;
    assert!(matches!(reused, Err(ReplayError::KeyReused(KeyReused))), "{reused:?}");

    world.facts().now = now().plus(REPLAY_WINDOW);
    assert_eq!(idempotency.replay(&keyed_request(1)).await.unwrap(), None, "a day later");
    assert_eq!(idempotency.replay(&keyed_request(2)).await.unwrap(), None, "the key is free again");
}

#[tokio::test]
async fn a_record_holds_the_bytes_of_the_answer_and_only_a_key_makes_one() {
    let keyed = Keyed { request: Some(keyed_request(1)), encode: &encoded::<u8> };
    let (answer, record) = keyed.answer(&7, now());
    let record = record.unwrap();
    assert_eq!((&answer, &record.answer), (&encoded(&7_u8), &answer));
    assert_eq!((record.request, record.created_at), (keyed_request(1), now()));
    assert_eq!(record.expires_at, now().plus(REPLAY_WINDOW));

    let unkeyed = Keyed { request: None, encode: &encoded::<u8> };
    assert_eq!(unkeyed.answer(&7, now()), (encoded(&7_u8), None));
}

#[tokio::test]
async fn success_and_keyless_refusals_read_nothing() {
    let world = world();
    world.facts().record = Some(twins_record());
    let idempotency = world.idempotency();
    let success = async { Ok::<_, PayError>(own_answer()) };
    let done = idempotency.once(Some(keyed_request(1)), success, is_failure).await;
    assert_eq!(done.unwrap(), Reply { answer: own_answer(), replayed: false });
    let refused = idempotency.once(None, async { Err(PayError::ReservationNotFound) }, is_failure).await;
    assert_eq!(refusal(refused), "ReservationNotFound");
    assert_eq!(world.take_loads(), []);
}

#[tokio::test]
async fn a_refusal_with_a_key_asks_for_the_twins_answer() {
    let world = world();
    let idempotency = world.idempotency();
    let once = |body| {
        let refused = async { Err(PayError::ReservationNotFound) };
        idempotency.once(Some(keyed_request(body)), refused, is_failure)
    };
    assert_eq!(refusal(once(1).await), "ReservationNotFound", "no twin");
    world.facts().record = Some(twins_record());
    assert_eq!(once(1).await.unwrap(), Reply { answer: twins_answer(), replayed: true });
    assert_eq!(refusal(once(2).await), "KeyReused(KeyReused)");
}

#[tokio::test]
async fn a_replay_that_cannot_be_read_is_a_failure() {
    let world = world();
    world.facts().down = Some(Load::Record);
    let replayed = world.idempotency().replay(&keyed_request(1)).await;
    assert!(matches!(replayed, Err(ReplayError::Failure(Failure::Unavailable(_)))), "{replayed:?}");
}
