//! Races for money.

use frontrow_testkit::app::Buyer;
use futures_util::future::join_all;
use uuid::Uuid;

use crate::arena::{Answer, Arena, count, counts, race, strangers, tally};

/// A reservation of two seats, at 200, of a buyer who has 1000.
pub(crate) async fn held_and_funded(arena: &Arena) -> (Buyer, Uuid) {
    let (sale, seats) = arena.sale(2).await;
    let buyer = arena.crowd(&sale, 1).await.remove(0);
    let held = arena.node().hold(&buyer, &sale, &seats).await;
    arena.fund(std::slice::from_ref(&buyer), 1_000).await;
    (buyer, held)
}

async fn assert_paid_once(arena: &Arena, buyer: &Buyer, held: Uuid) {
    assert_eq!(arena.status(buyer, held).await, "DONE");
    assert_eq!(arena.balance(buyer).await, 800);
    assert_eq!(arena.entries(buyer).await, ["PAYMENT", "CHARGE"]);
    assert_eq!(arena.place(buyer).await["status"], "EXPIRED");
}

pub(crate) async fn a_hundred_payments_take_the_money_once(arena: &Arena) {
    let (buyer, held) = held_and_funded(arena).await;
    let answers = race((0..100).map(|_| arena.pay(&buyer, held)).collect()).await;
    assert_eq!(tally(&answers), counts([("200", 1), ("409 ALREADY_PAID", 99)]));
    assert_paid_once(arena, &buyer, held).await;
}

pub(crate) async fn a_hundred_payments_with_one_key_have_one_answer(arena: &Arena) {
    let (buyer, held) = held_and_funded(arena).await;
    let pay = || arena.pay(&buyer, held).header("Idempotency-Key", "a double click");
    let answers = race((0..100).map(|_| pay()).collect()).await;
    assert_eq!(tally(&answers), counts([("200", 100)]));
    assert!(answers.iter().all(|answer| answer.body == answers[0].body), "one answer, byte for byte");
    assert_eq!(answers.iter().filter(|answer| !answer.is_replay()).count(), 1);
    assert_paid_once(arena, &buyer, held).await;
}

/// 300 charges of 5 by somebody who has no account yet, all at once.
pub(crate) async fn every_charge_that_is_acknowledged_counts(arena: &Arena) {
    let buyer = strangers(1).remove(0);
    let answers = race((0..300).map(|_| arena.charge(&buyer, 5)).collect()).await;
    let charged = count(&answers, "200");
    assert_eq!(tally(&answers), counts([("200", charged), ("409 ACCOUNT_CONFLICT", 300 - charged)]));
    assert!((1..300).contains(&charged), "some met, and of those that met one won: {charged}");
    assert_eq!(arena.balance(&buyer).await, 5 * i64::try_from(charged).unwrap());
}

pub(crate) async fn one_first_charge_of_many_wins(arena: &Arena) {
    let buyers = strangers(16);
    let pairs = buyers.iter().flat_map(|buyer| (0..8).map(move |_| arena.charge(buyer, 5)));
    let answers = race(pairs.collect()).await;
    for (buyer, answers) in buyers.iter().zip(answers.chunks(8)) {
        let charged = count(answers, "200");
        assert_eq!(tally(answers), counts([("200", charged), ("409 ACCOUNT_CONFLICT", 8 - charged)]));
        assert!(charged > 0);
        assert_eq!(arena.balance(buyer).await, 5 * i64::try_from(charged).unwrap());
        assert_eq!(arena.entries(buyer).await, vec!["CHARGE"; charged]);
    }
}

pub(crate) async fn charges_with_one_key_count_once(arena: &Arena) {
    // The first meets no account, the second one that is there.
    let buyer = strangers(1).remove(0);
    for (n, key) in (1..).zip(["first", "second"]) {
        let charge = || arena.charge(&buyer, 7).header("Idempotency-Key", key);
        let answers = race((0..64).map(|_| charge()).collect()).await;
        assert_eq!(tally(&answers), counts([("200", 64)]));
        assert!(answers.iter().all(|answer| answer.body == answers[0].body), "one answer, byte for byte");
        assert_eq!(answers.iter().filter(|answer| !answer.is_replay()).count(), 1);
        assert_eq!(arena.balance(&buyer).await, 7 * n);
    }
}

/// One key for charges of different amounts, from an account of its own each time.
pub(crate) async fn one_key_for_many_charges_fits_one(arena: &Arena) {
    for buyer in strangers(4) {
        let charge = |amount| arena.charge(&buyer, amount).header("Idempotency-Key", "k");
        let answers = race((1..=32).map(charge).collect()).await;
        assert_eq!(tally(&answers), counts([("200", 1), ("422 IDEMPOTENCY_KEY_REUSED", 31)]));
        let won = answers.iter().find(|answer| answer.status == 200).unwrap();
        assert_eq!(arena.balance(&buyer).await, won.json()["chargedAmount"].as_i64().unwrap());
    }
}

/// Four payments and six charges meet on one account. A payment is tried ten times, and can lose to each of the nine
/// others once: so all four go through.
pub(crate) async fn payments_and_charges_of_one_account_add_up(arena: &Arena) {
    let (sale, seats) = arena.sale(4).await;
    let buyer = arena.crowd(&sale, 1).await.remove(0);
    arena.fund(std::slice::from_ref(&buyer), 1_000).await;
    let holding = seats.iter().map(|seat| arena.node().hold(&buyer, &sale, std::slice::from_ref(seat)));
    let held: Vec<Uuid> = join_all(holding).await;

    let mut requests: Vec<_> = held.iter().map(|held| arena.pay(&buyer, *held)).collect();
    requests.extend((0..6).map(|_| arena.charge(&buyer, 5)));
    let answers: Vec<Answer> = race(requests).await;
    let (payments, charges) = answers.split_at(4);
    assert_eq!(tally(payments), counts([("200", 4)]));
    let charged = count(charges, "200");
    assert_eq!(tally(charges), counts([("200", charged), ("409 ACCOUNT_CONFLICT", 6 - charged)]));
    assert_eq!(arena.balance(&buyer).await, 600 + 5 * i64::try_from(charged).unwrap());
    assert_eq!(arena.sales(&sale).await, [0, 0, 4, 400]);
}
