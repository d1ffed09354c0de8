//! Holds of one second, paid as their deadline passes.

use std::sync::Arc;
use std::time::Duration;

use frontrow_app::Expiry;
use frontrow_domain::Timestamp;
use frontrow_domain::ports::Clock;
use frontrow_infra::Storage;
use frontrow_infra::identity::SystemClock;
use frontrow_testkit::app::{Buyer, id};
use futures_util::future::join_all;
use reqwest::RequestBuilder;
use uuid::Uuid;

use crate::arena::{Answer, Arena, Hammer};

/// Expires what has lapsed, as every node's scheduler does.
pub(crate) async fn sweep(storage: Storage, clock: Arc<dyn Clock>) {
    Expiry { committer: storage.committer, clock }.run().await.unwrap();
}

/// A hold, and what came of paying it.
struct Try {
    reservation: Uuid,
    deadline: Timestamp,
    paid: Answer,
}

/// A few pay at once, most around the deadline, while four sweepers besides the nodes' look for lapsed holds.
pub(crate) async fn paying_around_the_deadline(arena: &Arena) {
    let (sale, seats) = arena.sale(40).await;
    let buyers = arena.crowd(&sale, 40).await;
    arena.fund(&buyers, 100).await;
    let hammer = Hammer::start(arena, 4, sweep).await;
    let tries = buyers.iter().zip(&seats).zip(0_u64..).map(|((buyer, seat), n)| {
        let reserving = arena.reserve(buyer, &sale, &[*seat]);
        // A hold every 20 ms. One in five is paid at once, the others from 60 ms before the deadline to 18 ms after it.
        let (start, offset) = (Duration::from_millis(20 * n), Duration::from_millis(2 * n));
        let pause = move |deadline: Timestamp| {
            let almost = SystemClock::uncorrected().plus(Duration::from_millis(60));
            if n % 5 == 0 { Duration::ZERO } else { deadline.plus(offset).since(almost) }
        };
        async move {
            tokio::time::sleep(start).await;
            try_to_pay(arena, buyer, reserving, pause).await
        }
    });
    let tries = join_all(tries).await;
    hammer.stop().await;
    let mut sold = 0;
    for (buyer, tried) in buyers.iter().zip(tries) {
        sold += i64::from(assert_settled(arena, buyer, &tried).await);
    }
    assert!((1..40).contains(&sold), "some were in time and some were not: {sold}");
    assert_eq!(arena.sales(&sale).await, [40 - sold, 0, sold, 100 * sold]);
}

async fn try_to_pay(
    arena: &Arena,
    buyer: &Buyer,
    reserving: RequestBuilder,
    pause: impl Fn(Timestamp) -> Duration,
) -> Try {
    let held = Answer::of(reserving).await;
    assert_eq!(held.status, 201, "{held:?}");
    let held = held.json();
    let deadline = Timestamp::parse(held["holdExpiresAt"].as_str().unwrap()).unwrap();
    let reservation = id(&held, "reservationId");
    tokio::time::sleep(pause(deadline)).await;
    Try { reservation, deadline, paid: Answer::of(arena.pay(buyer, reservation)).await }
}

/// What is stored is what was answered, all of it. Says whether that was a payment.
async fn assert_settled(arena: &Arena, buyer: &Buyer, tried: &Try) -> bool {
    let (status, balance) = match tried.paid.kind().as_str() {
        "200" => ("DONE", 0),
        "409 RESERVATION_EXPIRED" => ("EXPIRED", 100),
        other => panic!("{other}"),
    };
    if status == "DONE" {
        let paid_at = Timestamp::parse(tried.paid.json()["paidAt"].as_str().unwrap()).unwrap();
        assert!(paid_at < tried.deadline, "paid at {paid_at}, lapsed at {}", tried.deadline);
    }
    assert_eq!(arena.status(buyer, tried.reservation).await, status);
    assert_eq!(arena.balance(buyer).await, balance);
    status == "DONE"
}
