//! Clients that hang up and servers that stop, in the middle of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use frontrow_testkit::app::{Buyer, id, sent};
use futures_util::future::join_all;
use reqwest::RequestBuilder;
use tokio::time::timeout;
use uuid::Uuid;

use crate::arena::{Answer, Arena, counts, race, strangers, tally};

/// Sends all at once. The nth client hangs up after n² times 60 microseconds, unless it has its answer by then; the last
/// five wait for theirs.
async fn hanging_up(requests: Vec<RequestBuilder>) -> Vec<Option<Answer>> {
    let patient_from = u64::try_from(requests.len()).unwrap() - 5;
    let sending = requests.into_iter().zip(0_u64..).map(|(request, n)| {
        let patience = if n < patient_from { Duration::from_micros(60 * n * n) } else { Duration::MAX };
        tokio::spawn(timeout(patience, Answer::of(request)))
    });
    let answers: Vec<_> = join_all(sending).await.into_iter().map(|sent| sent.unwrap().ok()).collect();
    assert!(answers.iter().any(Option::is_none), "nobody hung up");
    answers
}

/// Two seats each. What was dropped is asked for again: it holds both seats, or none.
pub(crate) async fn a_dropped_reservation_is_whole_or_absent(arena: &Arena) {
    let (sale, seats) = arena.sale(120).await;
    let buyers = arena.crowd(&sale, 60).await;
    let ask = || buyers.iter().zip(seats.chunks(2)).map(|(buyer, pair)| arena.reserve(buyer, &sale, pair));
    let first = hanging_up(ask().collect()).await;
    let second = race(ask().collect()).await;
    for ((buyer, pair), (first, second)) in buyers.iter().zip(seats.chunks(2)).zip(first.iter().zip(&second))
    {
        match second.kind().as_str() {
            "201" => assert!(first.is_none(), "what was acknowledged is gone: {first:?}"),
            "409 SEAT_NOT_AVAILABLE" => {
                assert_eq!(second.json()["seatIds"].as_array().unwrap().len(), 2, "half a reservation");
            }
            other => panic!("{other}"),
        }
        let own = sent(buyer.own(arena.node().get("/reservations")), 200).await;
        let own = own["items"].as_array().unwrap();
        assert_eq!(own.len(), 1);
        let held: Vec<Uuid> =
            own[0]["seats"].as_array().unwrap().iter().map(|seat| id(seat, "seatId")).collect();
        assert_eq!(held, pair);
    }
    assert_eq!(arena.sales(&sale).await, [0, 120, 0, 0]);
}

/// What was dropped is paid again: either it had happened, all of it, or it happens now.
pub(crate) async fn a_dropped_payment_is_whole_or_absent(arena: &Arena) {
    let (sale, seats) = arena.sale(60).await;
    let buyers = arena.crowd(&sale, 60).await;
    arena.fund(&buyers, 100).await;
    let held = arena.hold_each(&buyers, &sale, &seats).await;
    let pay = || buyers.iter().zip(&held).map(|(buyer, held)| arena.pay(buyer, *held));
    let first = hanging_up(pay().collect()).await;
    let paid_at_once = first.iter().flatten().count();
    let second = race(pay().collect()).await;
    for (first, second) in first.iter().zip(&second) {
        match second.kind().as_str() {
            "200" => assert!(first.is_none(), "what was acknowledged is gone: {first:?}"),
            "409 ALREADY_PAID" => {}
            other => panic!("{other}"),
        }
    }
    assert!(tally(&second).get("409 ALREADY_PAID").copied().unwrap_or(0) >= paid_at_once);
    assert_eq!(arena.sales(&sale).await, [0, 0, 60, 6_000]);
    for buyer in &buyers {
        assert_eq!(arena.balance(buyer).await, 0);
        assert_eq!(arena.entries(buyer).await, ["PAYMENT", "CHARGE"]);
    }
}

/// Sends one after the other, over and over if asked to, until the server is gone. Says how many succeeded.
async fn load(requests: Vec<RequestBuilder>, for_ever: bool, succeeded: Arc<AtomicUsize>) -> usize {
    let mut own = 0;
    loop {
        for request in &requests {
            let Some(answer) = Answer::try_of(request.try_clone().unwrap()).await else { return own };
            assert_eq!(answer.kind(), "200");
            own += 1;
            succeeded.fetch_add(1, Ordering::Relaxed);
        }
        if !for_ever {
            return own;
        }
    }
}

/// All nodes stop while people charge and pay. After a restart everything that was acknowledged is there.
pub(crate) async fn a_stopped_server_keeps_what_it_acknowledged(arena: &mut Arena) {
    const PAYERS: usize = 24;
    let (sale, seats) = arena.sale(96).await;
    let buyers = arena.crowd(&sale, PAYERS).await;
    arena.fund(&buyers, 400).await;
    let mut held = vec![Vec::new(); PAYERS];
    for seats in seats.chunks(PAYERS) {
        for (held, new) in held.iter_mut().zip(arena.hold_each(&buyers, &sale, seats).await) {
            held.push(new);
        }
    }
    let chargers = strangers(16);
    let (charged, paid) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let charging: Vec<_> = chargers
        .iter()
        .map(|charger| tokio::spawn(load(vec![arena.charge(charger, 1)], true, charged.clone())))
        .collect();
    let paying: Vec<_> = buyers
        .iter()
        .zip(&held)
        .map(|(buyer, held)| held.iter().map(|held| arena.pay(buyer, *held)).collect())
        .map(|payments| tokio::spawn(load(payments, false, paid.clone())))
        .collect();
    while paid.load(Ordering::Relaxed) < 30 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    arena.restart().await;
    let charged = join_all(charging).await;
    let paid = join_all(paying).await;

    for (charger, charged) in chargers.iter().zip(charged) {
        let (charged, balance) = (charged.unwrap(), arena.balance(charger).await);
        let charged = i64::try_from(charged).unwrap();
        // The answer to the last one may have been lost.
        assert!((charged..=charged + 1).contains(&balance), "{charged} acknowledged, {balance} there");
    }
    for ((buyer, held), paid) in buyers.iter().zip(&held).zip(paid) {
        assert_paid(arena, buyer, held, paid.unwrap()).await;
    }
    let pay_all =
        buyers.iter().zip(&held).flat_map(|(buyer, held)| held.iter().map(move |held| (buyer, *held)));
    let again = race(pay_all.map(|(buyer, held)| arena.pay(buyer, held)).collect()).await;
    let still_open = tally(&again).get("200").copied().unwrap_or(0);
    assert_eq!(tally(&again), counts([("200", still_open), ("409 ALREADY_PAID", 96 - still_open)]));
    assert_eq!(arena.sales(&sale).await, [0, 0, 96, 9_600]);
}

/// The first `paid` are paid, the next one perhaps, the others not.
async fn assert_paid(arena: &Arena, buyer: &Buyer, held: &[Uuid], paid: usize) {
    for (n, held) in held.iter().enumerate() {
        let status = arena.status(buyer, *held).await;
        assert!(n > paid || status == "DONE" || n == paid, "acknowledged, and {status}");
        assert!(n <= paid || status == "RESERVED", "never sent, and {status}");
    }
}
