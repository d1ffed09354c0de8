//! Many at once: no deadlock, and no transaction left open by callers who went away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use frontrow_domain::ports::StorageHealth;
use frontrow_domain::seat::{Seat, SeatState, SeatStatus};
use frontrow_domain::unit_of_work::{Command, CommitError};
use frontrow_domain::{Change, SeatId, Timestamp, UnitOfWork, UserId, Versioned};
use frontrow_infra::Storage;
use frontrow_infra::postgres::{Postgres, PostgresOptions};
use tokio::sync::Barrier;

use crate::fixture::{Fixture, HOLD, Sale, at};
use crate::{Opened, options};

/// Deadlocks that the server has broken. Statistics reach the view with some delay.
async fn deadlocks(opened: &Opened) -> i64 {
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    opened.database.query_i64(sql).await.unwrap()
}

/// The control of the tests below: locks taken crosswise are seen by the figure that they look at.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_counted() {
    let Some(opened) = Opened::new(options()).await else { return };
    opened
        .database
        .execute("CREATE TABLE pair (id INT PRIMARY KEY); INSERT INTO pair VALUES (1), (2)")
        .await
        .unwrap();
    let (one, other) = (opened.database.connect().await.unwrap(), opened.database.connect().await.unwrap());
    one.batch_execute("BEGIN; SELECT FROM pair WHERE id = 1 FOR UPDATE").await.unwrap();
    other.batch_execute("BEGIN; SELECT FROM pair WHERE id = 2 FOR UPDATE").await.unwrap();
    let crossed = tokio::join!(
        one.batch_execute("SELECT FROM pair WHERE id = 2 FOR UPDATE"),
        other.batch_execute("SELECT FROM pair WHERE id = 1 FOR UPDATE"),
    );
    assert!(crossed.0.is_err() != crossed.1.is_err());
    drop((one, other));
    assert_eq!(deadlocks(&opened).await, 1);
}

const BUYERS: usize = 12;
const ROUNDS: i64 = 6;
const SEATS: usize = 10;
/// How many seats each buyer wants.
const WANTED: usize = 4;

/// Buyers want the same seats, each in another order, while holds are swept, lines are joined and people admitted.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn overlapping_holds_payments_and_sweeps_do_not_deadlock() {
    let Some(opened) = Opened::new(options()).await else { return };
    let fixture = Arc::new(opened.fixture());
    let sale = Arc::new(fixture.sale(u32::try_from(SEATS).unwrap()).await);
    let rounds = Arc::new(Barrier::new(BUYERS));
    let buyers: Vec<_> = (0..BUYERS)
        .map(|buyer| {
            let (fixture, sale, rounds) = (fixture.clone(), sale.clone(), rounds.clone());
            let mut wanted = sale.seat_ids();
            wanted.rotate_left(buyer % SEATS);
            if buyer.is_multiple_of(2) {
                wanted.reverse();
            }
            wanted.truncate(WANTED);
            tokio::spawn(async move {
                let mut outcomes = (0, 0);
                for round in 0..ROUNDS {
                    rounds.wait().await;
                    // The holds of the round before have lapsed.
                    let now = at(round * 2 * HOLD);
                    // In every round somebody is the first to hold: in the last two, whoever it is pays.
                    let pays = round + 2 >= ROUNDS;
                    match buy(&fixture, &sale, &wanted, now, pays).await {
                        Bought::Paid => outcomes.0 += 1,
                        Bought::Lost => outcomes.1 += 1,
                        Bought::Held => {}
                    }
                }
                outcomes
            })
        })
        .collect();
    let (mut paid, mut lost) = (0, 0);
    for buyer in buyers {
        // One that panics leaves the others at the barrier.
        let (p, l) = tokio::time::timeout(Duration::from_secs(60), buyer).await.unwrap().unwrap();
        (paid, lost) = (paid + p, lost + l);
    }
    let seats = fixture.seats(&sale.seat_ids()).await;
    let sold = seats.iter().filter(|seat| seat.value.status_at(at(99_999)) == SeatStatus::Unavailable);
    assert_eq!(sold.count(), paid * WANTED);
    assert!(paid > 0 && lost > 0, "{paid} paid, {lost} lost a race");
    assert_eq!(deadlocks(&opened).await, 0);
}

const NODES: usize = 2;
const ATTEMPTS: usize = 25;

/// Which seats the buyers want: sets that overlap, in orders of their own.
fn orders(seats: &[SeatId]) -> Vec<Vec<SeatId>> {
    let order = |buyer: usize| {
        let mut wanted = seats.to_vec();
        wanted.rotate_left(buyer % seats.len());
        if buyer.is_multiple_of(2) {
            wanted.reverse();
        }
        wanted.truncate(WANTED);
        wanted
    };
    (0..BUYERS).map(order).collect()
}

/// Buyers on two nodes hold and give back sets of seats that overlap, many to a batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn batches_of_two_nodes_do_not_deadlock() {
    let Some(opened) = Opened::new(options()).await else { return };
    let other = Postgres::connect(opened.database.url(), options()).await.unwrap();
    let stores = [opened.fixture().storage, Storage::new(Arc::new(other))];
    let fixture = Arc::new(opened.fixture());
    let sale = fixture.sale(u32::try_from(SEATS).unwrap()).await;
    let mut buyers = Vec::new();
    for (buyer, wanted) in orders(&sale.seat_ids()).into_iter().enumerate() {
        let token = fixture.admitted(sale.room.id, at(1)).await.value.id;
        let (fixture, store) = (fixture.clone(), stores[buyer % NODES].clone());
        buyers.push(tokio::spawn(async move {
            let mut held = 0;
            for attempt in 0..ATTEMPTS {
                let seats = store.seats.find_many(wanted.clone()).await.unwrap();
                let token = fixture.token(token).await;
                // Written in the buyer's order, over the holds of others: the lock order is the adapter's to keep.
                let now = at(i64::try_from(attempt).unwrap() * 2 * HOLD);
                if !seats.iter().all(|seat| seat.value.state == SeatState::Available) {
                    continue;
                }
                let (id, mut work) = fixture.hold_work(token, seats, now);
                work.seats.sort_by_key(|seat| wanted.iter().position(|id| *id == seat.value().id));
                match store.committer.commit(work).await {
                    Ok(_) => held += 1,
                    Err(CommitError::Conflict(_)) => continue,
                    Err(error) => panic!("{error:?}"),
                }
                let ended = fixture.end_work(id, now).await;
                store.committer.commit(ended).await.unwrap();
            }
            held
        }));
    }
    let mut held = 0;
    for buyer in buyers {
        held += buyer.await.unwrap();
    }
    assert!(held > BUYERS, "{held} holds");
    assert_eq!(deadlocks(&opened).await, 0);
}

/// The control: the same seats, locked in the order of each buyer, do deadlock.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn locks_in_the_order_of_each_buyer_deadlock() {
    let Some(opened) = Opened::new(options()).await else { return };
    let sale = opened.fixture().sale(u32::try_from(SEATS).unwrap()).await;
    let mut buyers = Vec::new();
    for wanted in orders(&sale.seat_ids()) {
        let client = opened.database.connect().await.unwrap();
        buyers.push(tokio::spawn(async move {
            for _ in 0..3 {
                client.batch_execute("BEGIN").await.unwrap();
                for id in &wanted {
                    let lock = format!("SELECT FROM seats WHERE seat_id = '{id}' FOR NO KEY UPDATE");
                    if client.batch_execute(&lock).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                client.batch_execute("ROLLBACK").await.unwrap();
            }
        }));
    }
    for buyer in buyers {
        buyer.await.unwrap();
    }
    assert!(deadlocks(&opened).await > 0);
}

enum Bought {
    Paid,
    Held,
    Lost,
}

/// Sweeps, joins, is admitted, holds, and pays or lets lapse.
async fn buy(fixture: &Fixture, sale: &Sale, wanted: &[SeatId], now: Timestamp, pays: bool) -> Bought {
    fixture.order(Command::ExpireHolds { now, limit: 3 }).await;
    let token = fixture.admitted(sale.room.id, now).await;
    let seats = fixture.seats(wanted).await;
    let free = |seat: &Versioned<Seat>| seat.value.state == SeatState::Available;
    if !seats.iter().all(free) {
        return Bought::Lost;
    }
    let (id, work) = fixture.hold_work(token, seats, now);
    match fixture.commit(work).await {
        Ok(_) if pays => {
            fixture.pay(id, now).await;
            Bought::Paid
        }
        Ok(_) => Bought::Held,
        Err(CommitError::Conflict(_)) => Bought::Lost,
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_admissions_and_departures_do_not_deadlock() {
    let Some(opened) = Opened::new(options()).await else { return };
    let fixture = Arc::new(opened.fixture());
    let room = fixture.default_room().await;
    let waiters = fixture.crowd(room.id, 60, at(0)).await;
    let mut tasks = Vec::new();
    for half in waiters.chunks(20).map(<[_]>::to_vec) {
        let fixture = fixture.clone();
        tasks.push(tokio::spawn(async move {
            for token in half.into_iter().rev() {
                let loaded = fixture.token(token.id).await;
                // Admitted meanwhile, and swept.
                let Ok(left) = loaded.try_map(|token| token.expire(at(5))) else { continue };
                match fixture.commit(UnitOfWork { queue_tokens: vec![left], ..Default::default() }).await {
                    Ok(_) | Err(CommitError::Conflict(_)) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }));
    }
    for _ in 0..2 {
        let (fixture, room) = (fixture.clone(), room.id);
        tasks.push(tokio::spawn(async move {
            for _ in 0..15 {
                fixture.admit(room, 2, at(5)).await;
                fixture.join(room, fixture.id(UserId::new), at(5)).await;
                fixture.order(Command::ExpireTokens { now: at(10_000), limit: 5 }).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(deadlocks(&opened).await, 0);
    let waiting = "SELECT count(*) FROM queue_tokens WHERE status = 'WAIT'";
    let counted = fixture.in_room(room.id, at(5)).await.0;
    assert_eq!(i64::try_from(counted).unwrap(), opened.database.query_i64(waiting).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_commits_leave_no_transaction_open() {
    let options = PostgresOptions { pool_size: 4, ..options() };
    let Some(opened) = Opened::new(options).await else { return };
    let fixture = opened.fixture();
    let room = fixture.default_room().await;
    for round in 0..60_u64 {
        let work = fixture.join_work(room.id, fixture.id(UserId::new), at(1));
        let patience = Duration::from_micros(100 * (round % 12));
        // Most of them are dropped somewhere on the way.
        let _ = tokio::time::timeout(patience, fixture.commit(work)).await;
    }
    // Whoever still has a line to wait for is through by now, and with it all before.
    fixture.join(room.id, fixture.id(UserId::new), at(1)).await;
    let settled = Instant::now() + Duration::from_secs(5);
    while opened.sessions("state <> 'idle'").await > 0 {
        assert!(Instant::now() < settled, "a transaction was left open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Every one of them came to its end all the same.
    assert_eq!(fixture.in_room(room.id, at(1)).await.0, 61);
}

/// A lock that somebody else holds for too long is an answer, and the connection is as good as new.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_timeout_is_unavailable() {
    let options = PostgresOptions { lock_timeout: Duration::from_millis(100), pool_size: 1, ..options() };
    let Some(opened) = Opened::new(options).await else { return };
    let fixture = opened.fixture();
    let room = fixture.default_room().await;
    let blocker = opened.database.connect().await.unwrap();
    blocker.batch_execute("BEGIN; SELECT FROM rooms FOR UPDATE").await.unwrap();
    let loaded: Versioned<_> = fixture.room(room.id).await;
    let work = UnitOfWork { rooms: vec![Change::Update(loaded)], ..Default::default() };
    let refused = fixture.commit(work.clone()).await;
    assert!(matches!(refused, Err(CommitError::Unavailable(_))), "{refused:?}");
    blocker.batch_execute("ROLLBACK").await.unwrap();
    fixture.commit(work).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_in_use_is_waited_for_no_longer_than_allowed() {
    let options = PostgresOptions {
        pool_size: 1,
        acquire_timeout: Duration::from_millis(200),
        // The join keeps its connection.
        batch_lock_timeout: PostgresOptions::default().lock_timeout,
        ..options()
    };
    let Some(opened) = Opened::new(options).await else { return };
    let fixture = Arc::new(opened.fixture());
    let room = fixture.default_room().await;
    let blocker = opened.database.connect().await.unwrap();
    blocker.batch_execute("BEGIN; SELECT FROM lines FOR UPDATE").await.unwrap();
    let work = fixture.join_work(room.id, fixture.id(UserId::new), at(1));
    let stuck = tokio::spawn({
        let fixture = fixture.clone();
        async move { fixture.commit(work).await }
    });
    while opened.sessions("wait_event_type = 'Lock'").await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let started = Instant::now();
    opened.postgres.writability().await.unwrap_err();
    assert!(started.elapsed() >= Duration::from_millis(200) && started.elapsed() < Duration::from_secs(3));
    blocker.batch_execute("ROLLBACK").await.unwrap();
    stuck.await.unwrap().unwrap();
    opened.postgres.writability().await.unwrap();
}
