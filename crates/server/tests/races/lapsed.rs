//! Races over what has just lapsed. Deadlines are moved by SQL, so that they fall on one moment for everybody.

use std::time::Duration;

use frontrow_domain::Timestamp;
use frontrow_infra::identity::SystemClock;

use crate::arena::{Arena, Hammer, counts, race, tally, until};
use crate::lapsing::sweep;
use crate::seats::ask_for_one;

fn in_millis(millis: u64) -> Timestamp {
    SystemClock::uncorrected().plus(Duration::from_millis(millis))
}

/// Two seats are held, the hold lapses, and 32 want one of them: the same transaction ends the old hold, frees the other
/// seat, and makes the new one.
pub(crate) async fn one_of_32_takes_a_lapsed_hold_over(arena: &Arena) {
    let (sale, seats) = arena.sale(6).await;
    let mut buyers = arena.crowd(&sale, 33).await;
    let holder = buyers.remove(0);
    for (round, pair) in (1..).zip(seats.chunks(2)) {
        let old = arena.node().hold(&holder, &sale, pair).await;
        assert_eq!(arena.sales(&sale).await, [5 - round, 1 + round, 0, 0]);
        let deadline = in_millis(300);
        let lapse = |table| {
            let at = arena.literal(deadline);
            format!("UPDATE {table} SET hold_expires_at = {at} WHERE reservation_id = {};", arena.key(old))
        };
        arena.database.execute(&format!("{} {}", lapse("reservations"), lapse("seats"))).await;
        until(deadline.plus(Duration::from_millis(10))).await;
        let answers = ask_for_one(arena, &sale, &buyers, pair[0]).await;
        assert_eq!(tally(&answers), counts([("201", 1), ("409 SEAT_NOT_AVAILABLE", 31)]));
        assert_eq!(arena.status(&holder, old).await, "EXPIRED");
        assert_eq!(arena.sales(&sale).await, [6 - round, round, 0, 0], "the other seat is free");
    }
}

/// The payers' tokens lapse, and are swept up, at the moment of paying: every payment goes through.
pub(crate) async fn a_lapsing_token_is_no_hindrance_to_a_payment(arena: &Arena) {
    let (sale, seats) = arena.sale(40).await;
    let buyers = arena.crowd(&sale, 40).await;
    arena.fund(&buyers, 100).await;
    let held = arena.hold_each(&buyers, &sale, &seats).await;
    let deadline = in_millis(300);
    let at = arena.literal(deadline);
    arena
        .database
        .execute(&format!("UPDATE queue_tokens SET expires_at = {at} WHERE status = 'ACTIVE'"))
        .await;
    let hammer = Hammer::start(arena, 4, sweep).await;
    until(deadline).await;
    let answers = race(buyers.iter().zip(&held).map(|(buyer, held)| arena.pay(buyer, *held)).collect()).await;
    hammer.stop().await;
    assert_eq!(tally(&answers), counts([("200", 40)]));
    assert_eq!(arena.sales(&sale).await, [0, 0, 40, 4_000]);
    for buyer in &buyers {
        assert_eq!(arena.place(buyer).await["status"], "EXPIRED");
    }
}
