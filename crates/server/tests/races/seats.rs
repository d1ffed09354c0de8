//! Races for seats.

use std::collections::BTreeSet;
use std::time::Duration;

use frontrow_testkit::app::{Buyer, Sale, id, sent};
use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::arena::{Answer, Arena, count, counts, race, race_from, tally};

/// Everyone asks for the same seat at once.
pub(crate) async fn ask_for_one(arena: &Arena, sale: &Sale, buyers: &[Buyer], seat: Uuid) -> Vec<Answer> {
    race(buyers.iter().map(|buyer| arena.reserve(buyer, sale, &[seat])).collect()).await
}

fn ids(body: &Value, field: &str) -> BTreeSet<Uuid> {
    let ids = body[field].as_array().unwrap().iter();
    ids.map(|id| Uuid::parse_str(id.as_str().unwrap()).unwrap()).collect()
}

/// The seats that a 201 has given.
fn given(answer: &Answer) -> BTreeSet<Uuid> {
    let seats = answer.json();
    seats["seats"].as_array().unwrap().iter().map(|seat| id(seat, "seatId")).collect()
}

pub(crate) async fn one_seat_goes_to_one_of_32(arena: &Arena) {
    let (sale, seats) = arena.sale(4).await;
    let buyers = arena.crowd(&sale, 32).await;
    for (round, seat) in (1..).zip(&seats[..3]) {
        let answers = ask_for_one(arena, &sale, &buyers, *seat).await;
        assert_eq!(tally(&answers), counts([("201", 1), ("409 SEAT_NOT_AVAILABLE", 31)]));
        for loser in answers.iter().filter(|answer| answer.status == 409) {
            assert_eq!(ids(&loser.json(), "seatIds"), BTreeSet::from([*seat]));
        }
        let winner = answers.iter().position(|answer| answer.status == 201).unwrap();
        let reservation = id(&answers[winner].json(), "reservationId");
        assert_eq!(arena.status(&buyers[winner], reservation).await, "RESERVED");
        assert_eq!(arena.sales(&sale).await, [4 - round, round, 0, 0]);
    }
}

/// Three seats each, in opposite orders: no circle of waiting, no seat given twice, and nobody refused for nothing.
pub(crate) async fn overlapping_holds_share_no_seat(arena: &Arena) {
    let (sale, seats) = arena.sale(12).await;
    let buyers = arena.crowd(&sale, 32).await;
    let wanted = |n: usize| {
        let mut wanted = vec![seats[n % 12], seats[(n + 1) % 12], seats[(n + 5) % 12]];
        if n % 2 == 1 {
            wanted.reverse();
        }
        wanted
    };
    let asking = buyers.iter().enumerate().map(|(n, buyer)| arena.reserve(buyer, &sale, &wanted(n)));
    let answers = race(asking.collect()).await;

    let won = count(&answers, "201");
    assert_eq!(tally(&answers), counts([("201", won), ("409 SEAT_NOT_AVAILABLE", 32 - won)]));
    assert!((2..=4).contains(&won), "any two winners leave at most twelve seats, any one leaves room: {won}");
    let mut taken = BTreeSet::new();
    for (n, winner) in answers.iter().enumerate().filter(|(_, answer)| answer.status == 201) {
        assert_eq!(given(winner), wanted(n).into_iter().collect());
        for seat in given(winner) {
            assert!(taken.insert(seat), "{seat} was given twice");
        }
    }
    for (n, loser) in answers.iter().enumerate().filter(|(_, answer)| answer.status == 409) {
        let lost = ids(&loser.json(), "seatIds");
        let expected = wanted(n).into_iter().collect();
        assert!(!lost.is_empty() && lost.is_subset(&taken) && lost.is_subset(&expected), "{lost:?}");
    }
    let held = i64::try_from(taken.len()).unwrap();
    assert_eq!(arena.sales(&sale).await, [12 - held, held, 0, 0]);
}

/// One person asks for twelve seats at once, one by one.
pub(crate) async fn ask_for_twelve(arena: &Arena) -> Vec<Answer> {
    let (sale, seats) = arena.sale(12).await;
    let buyer = arena.crowd(&sale, 1).await.remove(0);
    let answers = race(seats.iter().map(|seat| arena.reserve(&buyer, &sale, &[*seat])).collect()).await;
    let held = i64::try_from(count(&answers, "201")).unwrap();
    assert_eq!(arena.sales(&sale).await, [12 - held, held, 0, 0]);
    answers
}

pub(crate) async fn nobody_passes_the_limit_by_asking_at_once(arena: &Arena) {
    for _ in 0..3 {
        let answers = ask_for_twelve(arena).await;
        assert_eq!(tally(&answers), counts([("201", 4), ("409 SEAT_LIMIT_EXCEEDED", 8)]));
    }
}

/// Each buyer tries one seat after the other, from a place of its own, until one is won; then all pay at once.
pub(crate) async fn a_house_is_sold_out_without_a_seat_sold_twice(arena: &Arena) {
    const SEATS: usize = 40;
    let (sale, seats) = arena.sale(40).await;
    let buyers = arena.crowd(&sale, SEATS + 8).await;
    arena.fund(&buyers, 100).await;
    let looking = buyers.iter().enumerate().map(|(n, buyer)| {
        let mut seats = seats.clone();
        seats.rotate_left(n * 7 % SEATS);
        let sale = &sale;
        async move {
            for seat in seats {
                let answer = Answer::of(arena.reserve(buyer, sale, &[seat])).await;
                match answer.kind().as_str() {
                    "201" => return Some((buyer.clone(), id(&answer.json(), "reservationId"))),
                    "409 SEAT_NOT_AVAILABLE" => {}
                    other => panic!("{other}"),
                }
            }
            None
        }
    });
    let lucky: Vec<_> = join_all(looking).await.into_iter().flatten().collect();
    assert_eq!(lucky.len(), SEATS);
    assert_eq!(arena.sales(&sale).await, [0, 40, 0, 0]);
    let answers = race(lucky.iter().map(|(buyer, held)| arena.pay(buyer, *held)).collect()).await;
    assert_eq!(tally(&answers), counts([("200", SEATS)]));
    assert_eq!(arena.sales(&sale).await, [0, 0, 40, 4_000]);
}

pub(crate) async fn one_key_makes_one_reservation(arena: &Arena) {
    let (sale, seats) = arena.sale(8).await;
    let buyers = arena.crowd(&sale, 4).await;
    for (buyer, pair) in buyers.iter().zip(seats.chunks(2)) {
        let ask = || arena.reserve(buyer, &sale, pair).header("Idempotency-Key", "once");
        let answers = race((0..32).map(|_| ask()).collect()).await;
        assert_eq!(tally(&answers), counts([("201", 32)]));
        assert!(answers.iter().all(|answer| answer.body == answers[0].body), "one answer, byte for byte");
        assert_eq!(answers.iter().filter(|answer| !answer.is_replay()).count(), 1);
        let own = sent(buyer.own(arena.node().get("/reservations")), 200).await;
        assert_eq!(own["items"].as_array().unwrap().len(), 1);
    }
    assert_eq!(arena.sales(&sale).await, [0, 8, 0, 0]);
}

/// Whoever commits first wins, and the other is told so. Rounds of four; after one that went one way, the losing side
/// gets a longer head start in the next, so that the race is close in the end, and both sides win some.
pub(crate) async fn pay_or_cancel(arena: &Arena) {
    const ROUNDS: usize = 10;
    let (sale, seats) = arena.sale(40).await;
    let buyers = arena.crowd(&sale, 4 * ROUNDS).await;
    arena.fund(&buyers, 100).await;
    let (mut sold, mut lead) = (0, Lead::default());
    for (buyers, seats) in buyers.chunks(4).zip(seats.chunks(4)) {
        let held = arena.hold_each(buyers, &sale, seats).await;
        let duels = buyers.iter().zip(&held).flat_map(|(buyer, held)| {
            [(lead.of_cancel(), arena.pay(buyer, *held)), (lead.of_pay(), arena.cancel(buyer, *held))]
        });
        let answers = race_from(duels.collect()).await;
        let mut paid = 0;
        for ((buyer, held), duel) in buyers.iter().zip(&held).zip(answers.chunks(2)) {
            paid += i64::from(assert_one_won(arena, buyer, *held, duel).await);
        }
        lead.after(paid);
        sold += paid;
    }
    assert!((1..40).contains(&sold), "both win sometimes: {sold} of 40");
    assert_eq!(arena.sales(&sale).await, [40 - sold, 0, sold, 100 * sold]);
}

/// How much earlier than the cancel a payment starts, in milliseconds; later when negative.
#[derive(Default)]
struct Lead {
    millis: i64,
    step: i64,
}

impl Lead {
    fn of_pay(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.millis).unwrap_or(0))
    }

    fn of_cancel(&self) -> Duration {
        Duration::from_millis(u64::try_from(-self.millis).unwrap_or(0))
    }

    /// Learns from a round in which so many of four were paid. A step in the same direction as the last is twice as long.
    fn after(&mut self, paid: i64) {
        let direction = match paid {
            0 => 1,
            4 => -1,
            _ => return,
        };
        self.step = if self.step * direction > 0 { 2 * self.step } else { 2 * direction };
        self.millis += self.step;
    }
}

/// Checks the answers to a payment and a cancel, and what is stored. Says whether the payment won.
async fn assert_one_won(arena: &Arena, buyer: &Buyer, held: Uuid, duel: &[Answer]) -> bool {
    let outcome = (duel[0].kind(), duel[1].kind());
    let (status, balance) = match (outcome.0.as_str(), outcome.1.as_str()) {
        ("200", "409 ALREADY_PAID") => ("DONE", 0),
        ("409 RESERVATION_CANCELLED", "204") => ("CANCELLED", 100),
        _ => panic!("{outcome:?}"),
    };
    assert_eq!(arena.status(buyer, held).await, status);
    assert_eq!(arena.balance(buyer).await, balance);
    status == "DONE"
}

/// Eight cancel the same hold while eight others wait for the seat: a late cancel must not take it from its next holder.
pub(crate) async fn cancelling_at_once_gives_the_seat_back_once(arena: &Arena) {
    let (sale, seats) = arena.sale(4).await;
    let buyers = arena.crowd(&sale, 9).await;
    let (first, others) = buyers.split_first().unwrap();
    for (round, seat) in (1..).zip(&seats) {
        let held = arena.hold_each(std::slice::from_ref(first), &sale, &[*seat]).await[0];
        let sale = &sale;
        let grabbing = others.iter().map(|buyer| async move {
            // The seat is free as soon as one cancel is through; whoever is refused asks again for a while.
            for _ in 0..20 {
                let answer = Answer::of(arena.reserve(buyer, sale, &[*seat])).await;
                match answer.kind().as_str() {
                    "201" => return Some((buyer, id(&answer.json(), "reservationId"))),
                    "409 SEAT_NOT_AVAILABLE" => {}
                    other => panic!("{other}"),
                }
            }
            None
        });
        let cancels = race((0..8).map(|_| arena.cancel(first, held)).collect());
        let (cancelled, grabbed) = tokio::join!(cancels, join_all(grabbing));
        assert_eq!(tally(&cancelled), counts([("204", 8)]));
        assert_eq!(arena.status(first, held).await, "CANCELLED");
        let mut holders: Vec<_> = grabbed.into_iter().flatten().collect();
        if holders.is_empty() {
            // All had given up before the first cancel was through.
            let again = ask_for_one(arena, sale, others, *seat).await;
            let winner = again.iter().position(|answer| answer.status == 201).unwrap();
            holders.push((&others[winner], id(&again[winner].json(), "reservationId")));
        }
        assert_eq!(holders.len(), 1, "the seat has one holder");
        assert_eq!(arena.status(holders[0].0, holders[0].1).await, "RESERVED");
        assert_eq!(arena.sales(sale).await, [4 - round, round, 0, 0]);
    }
    let limit = sent(first.own(arena.node().get("/reservations")), 200).await;
    assert_eq!(limit["items"].as_array().unwrap().len(), 4, "each was cancelled: {}", json!(limit));
}
