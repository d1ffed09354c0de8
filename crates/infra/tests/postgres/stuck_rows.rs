//! A row that another session keeps locked stops only the units that need it (ADR 0022).

use std::sync::Arc;
use std::time::{Duration, Instant};

use frontrow_domain::ports::Committer;
use frontrow_domain::reservation::ReservationStatus;
use frontrow_domain::unit_of_work::{AggregateRef, Command, CommandOutcome, CommitError, Guard};
use frontrow_domain::{Change, RoomId, UnitOfWork, UserId};
use frontrow_infra::Storage;
use frontrow_infra::postgres::{Postgres, PostgresOptions};
use frontrow_testkit::wire::{Cut, Wire};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::fixture::{Fixture, HOLD, Sale, admit_up_to, at, commanded};
use crate::{Opened, options, told};

/// Users that charge their own accounts, and callers that need the row.
const OTHERS: usize = 8;
const VICTIMS: usize = 8;
/// How long a refused caller waits before it comes again.
const RETRY: Duration = Duration::from_millis(20);

/// The control: committers that wait for locks for as long as a unit does.
fn unprotected() -> PostgresOptions {
    let options = options();
    PostgresOptions { batch_lock_timeout: options.lock_timeout, ..options }
}

/// The row that is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stuck {
    Line,
    Room,
    Token,
    Account,
    Reservation,
    Seat,
    Feed,
}

/// A system with one of each.
struct Ground {
    opened: Opened,
    fixture: Arc<Fixture>,
    room: RoomId,
    /// A date whose seat is free.
    free: Sale,
    guards: [Guard; 4],
    /// Whether rows stop others: then their charges may fail.
    is_control: bool,
}

impl Ground {
    async fn new(options: PostgresOptions) -> Option<Self> {
        let is_control = options.batch_lock_timeout >= options.lock_timeout;
        let opened = Opened::new(options).await?;
        let fixture = Arc::new(opened.fixture());
        let sale = fixture.sale(1).await;
        let held = fixture.hold(&sale, &sale.seat_ids(), at(1)).await;
        let account = fixture.charge(fixture.id(UserId::new), 5, at(1)).await;
        let token = fixture.token(held.value.token_id).await;
        let seat = fixture.seat(sale.seats[0].id).await;
        let guards = [
            Guard { aggregate: AggregateRef::QueueToken(token.value.id), version: token.version },
            Guard { aggregate: AggregateRef::Account(account.value.user_id), version: account.version },
            Guard { aggregate: AggregateRef::Reservation(held.value.id), version: held.version },
            Guard { aggregate: AggregateRef::Seat(seat.value.id), version: seat.version },
        ];
        let room = sale.room.id;
        let free = fixture.another_date(sale.room, sale.concert, 1).await;
        Some(Self { opened, fixture, room, free, guards, is_control })
    }

    /// A unit that needs the row.
    async fn needs(&self, stuck: Stuck) -> UnitOfWork {
        let guard = match stuck {
            Stuck::Line | Stuck::Room => {
                let user = self.fixture.id(UserId::new);
                return self.fixture.join_work(self.room, user, at(1));
            }
            Stuck::Feed => {
                let seat = self.fixture.seat(self.free.seats[0].id).await;
                return UnitOfWork { seats: vec![Change::Update(seat)], ..Default::default() };
            }
            Stuck::Token => self.guards[0],
            Stuck::Account => self.guards[1],
            Stuck::Reservation => self.guards[2],
            Stuck::Seat => self.guards[3],
        };
        UnitOfWork { guards: vec![guard], ..Default::default() }
    }

    /// Locks the row for as long as the session lives.
    async fn lock(&self, stuck: Stuck) -> tokio_postgres::Client {
        let [token, account, reservation, seat] = self.guards.map(|guard| guard.aggregate);
        let (table, key, id) = match (stuck, [token, account, reservation, seat]) {
            (Stuck::Line, _) => ("lines", "room_id", self.room.get()),
            (Stuck::Room, _) => ("rooms", "room_id", self.room.get()),
            (Stuck::Feed, _) => ("seat_feeds", "performance_date_id", self.free.date.id.get()),
            (Stuck::Token, [AggregateRef::QueueToken(id), ..]) => ("queue_tokens", "token_id", id.get()),
            (Stuck::Account, [_, AggregateRef::Account(id), ..]) => ("accounts", "user_id", id.get()),
            (Stuck::Reservation, [.., AggregateRef::Reservation(id), _]) => {
                ("reservations", "reservation_id", id.get())
            }
            (Stuck::Seat, [.., AggregateRef::Seat(id)]) => ("seats", "seat_id", id.get()),
            other => panic!("{other:?}"),
        };
        let blocker = self.opened.database.connect().await.unwrap();
        let lock = format!("BEGIN; SELECT FROM {table} WHERE {key} = '{id}' FOR UPDATE");
        blocker.batch_execute(&lock).await.unwrap();
        blocker
    }

    /// Callers that need the row all the time.
    fn victims(self: &Arc<Self>, stuck: Stuck) -> Vec<JoinHandle<()>> {
        let victim = |_| {
            let ground = self.clone();
            tokio::spawn(async move {
                loop {
                    match ground.fixture.commit(ground.needs(stuck).await).await {
                        // Of a feed, that another was faster with the seat.
                        Ok(_) | Err(CommitError::Unavailable(_) | CommitError::Conflict(_)) => {
                            sleep(RETRY).await;
                        }
                        Err(error) => panic!("{error:?}"),
                    }
                }
            })
        };
        (0..VICTIMS).map(victim).collect()
    }

    /// Others charge for so long: how long each charge took.
    async fn charges(self: &Arc<Self>, phase: Duration) -> Latencies {
        let until = Instant::now() + phase;
        let other = |_| {
            let ground = self.clone();
            tokio::spawn(async move {
                let (fixture, mut took) = (&ground.fixture, Vec::new());
                let user = fixture.id(UserId::new);
                let mut account = None;
                while Instant::now() < until {
                    let begun = Instant::now();
                    let charge = fixture.charge_work(user, account.take(), 5, at(1));
                    let committed = fixture.commit(charge).await;
                    took.push(begun.elapsed());
                    if !ground.is_control {
                        committed.unwrap();
                    }
                    account = Some(fixture.account(user).await);
                }
                took
            })
        };
        let mut took = Vec::new();
        for other in (0..OTHERS).map(other).collect::<Vec<_>>() {
            took.extend(other.await.unwrap());
        }
        took.sort_unstable();
        Latencies(took)
    }

    /// Charges with the row free and locked in turns, by the same load.
    async fn in_turns(self: &Arc<Self>, stuck: Stuck, turns: usize, phase: Duration) -> [Latencies; 2] {
        let victims = self.victims(stuck);
        self.charges(Duration::from_millis(300)).await;
        let (mut free, mut locked) = (Latencies::default(), Latencies::default());
        for _ in 0..turns {
            free.add(self.charges(phase).await);
            let blocker = self.lock(stuck).await;
            locked.add(self.charges(phase).await);
            drop(blocker);
        }
        for victim in victims {
            assert!(!victim.is_finished(), "it has panicked");
            victim.abort();
        }
        eprintln!("{stuck:?}: free {free}; locked {locked}");
        [free, locked]
    }
}

#[derive(Default)]
struct Latencies(Vec<Duration>);

impl Latencies {
    fn add(&mut self, other: Self) {
        self.0.extend(other.0);
        self.0.sort_unstable();
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    fn p99(&self) -> Duration {
        self.0[self.count() * 99 / 100]
    }
}

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} charges, p50 {:?}, p99 {:?}", self.count(), self.0[self.count() / 2], self.p99())
    }
}

/// Others are as fast as without the lock. A newly stuck row costs a batch a short wait or two, which a short run does not hide.
fn assert_unaffected(stuck: Stuck, [free, locked]: &[Latencies; 2]) {
    let once = PostgresOptions::default().batch_lock_timeout * 4;
    assert!(locked.count() > free.count() / 3, "{stuck:?}: free {free}; locked {locked}");
    assert!(locked.p99() <= free.p99() * 2 + once, "{stuck:?}: free {free}; locked {locked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn charges_go_on_while_a_line_is_locked() {
    let Some(ground) = Ground::new(options()).await.map(Arc::new) else { return };
    let latencies = ground.in_turns(Stuck::Line, 2, Duration::from_secs(3)).await;
    assert_unaffected(Stuck::Line, &latencies);
}

/// The control: committers that wait for the line.
#[tokio::test(flavor = "multi_thread")]
async fn control_charges_stop_when_committers_wait_for_the_line() {
    let Some(ground) = Ground::new(unprotected()).await.map(Arc::new) else { return };
    let [free, locked] = ground.in_turns(Stuck::Line, 1, Duration::from_secs(3)).await;
    assert!(locked.count() < free.count() / 4, "free {free}; locked {locked}");
    assert!(locked.p99() > free.p99() * 4, "free {free}; locked {locked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn charges_go_on_while_any_other_row_is_locked() {
    for stuck in [Stuck::Room, Stuck::Token, Stuck::Account, Stuck::Reservation, Stuck::Seat, Stuck::Feed] {
        let Some(ground) = Ground::new(options()).await.map(Arc::new) else { return };
        let latencies = ground.in_turns(stuck, 1, Duration::from_millis(1_500)).await;
        assert_unaffected(stuck, &latencies);
    }
}

/// Another node stops between its locks and its COMMIT.
#[tokio::test(flavor = "multi_thread")]
async fn charges_go_on_while_another_node_is_stopped() {
    let Some(ground) = Ground::new(options()).await.map(Arc::new) else { return };
    let (wire, url) = Wire::to_database(ground.opened.database.url());
    let other = Storage::new(Arc::new(Postgres::connect(&url, options()).await.unwrap()));
    let victims = ground.victims(Stuck::Line);
    ground.charges(Duration::from_millis(300)).await;
    let free = ground.charges(Duration::from_secs(3)).await;
    wire.cut_at_commit(Cut::StrandedCommit);
    let join = ground.needs(Stuck::Line).await;
    let stopped = tokio::spawn(async move { other.committer.commit(join).await });
    while wire.is_armed() {
        assert!(!stopped.is_finished(), "it never came to its COMMIT");
        sleep(Duration::from_millis(5)).await;
    }
    let locked = ground.charges(Duration::from_secs(3)).await;
    stopped.abort();
    victims.iter().for_each(JoinHandle::abort);
    eprintln!("a stopped node: free {free}; locked {locked}");
    assert_unaffected(Stuck::Line, &[free, locked]);
}

/// One seat of a hold that is over is locked: the sweep expires the other holds, and that one once the seat is free.
#[tokio::test(flavor = "multi_thread")]
async fn sweep_of_holds_goes_on_while_a_seat_is_locked() {
    let Some(ground) = Ground::new(options()).await else { return };
    let fixture = &ground.fixture;
    let sale = fixture.sale(4).await;
    let seats = sale.seat_ids();
    let stuck = fixture.hold(&sale, &seats[..2], at(1)).await.value.id;
    let other = fixture.hold(&sale, &seats[2..], at(1)).await.value.id;
    let blocker = ground.opened.database.connect().await.unwrap();
    let lock = format!("BEGIN; SELECT FROM seats WHERE seat_id = '{}' FOR UPDATE", seats[1]);
    blocker.batch_execute(&lock).await.unwrap();
    let sweep = async || fixture.order(Command::ExpireHolds { now: at(1 + HOLD), limit: 9 }).await;
    // With the one of the ground.
    assert_eq!(sweep().await, CommandOutcome::HoldsExpired(2));
    let status = async |id| fixture.reservation(id).await.value.status;
    assert_eq!(status(stuck).await, ReservationStatus::Reserved);
    assert_eq!(status(other).await, ReservationStatus::Expired);
    assert_eq!(fixture.seat(seats[0]).await.value.state, fixture.seat(seats[1]).await.value.state);
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(sweep().await, CommandOutcome::HoldsExpired(1));
    assert_eq!(status(stuck).await, ReservationStatus::Expired);
    assert_eq!(sweep().await, CommandOutcome::HoldsExpired(0));
}

/// The first wait for the lock timeout, later ones hardly, and all get through once the row is free.
#[tokio::test(flavor = "multi_thread")]
async fn units_on_a_stuck_row_are_refused_in_time_and_written_once_it_is_free() {
    let longest = Duration::from_secs(2);
    let options = PostgresOptions { lock_timeout: longest, ..options() };
    let Some(ground) = Ground::new(options).await else { return };
    let fixture = &ground.fixture;
    let join = async || {
        let begun = Instant::now();
        let joined = fixture.commit(ground.needs(Stuck::Line).await).await;
        (joined.map(|_| ()), begun.elapsed())
    };
    let blocker = ground.lock(Stuck::Line).await;
    let (first, took) = join().await;
    assert!(matches!(first, Err(CommitError::Unavailable(_))), "{first:?}");
    assert!(took >= longest && took < longest * 3, "{took:?}");
    let (second, took) = join().await;
    assert!(matches!(second, Err(CommitError::Unavailable(_))), "{second:?}");
    assert!(took < longest / 2, "{took:?}");
    // A command of the scheduler does not wait as long.
    let begun = Instant::now();
    let admit = commanded(admit_up_to(1, None, ground.room, at(2)));
    let admitted = fixture.commit(admit).await;
    assert!(matches!(admitted, Err(CommitError::Unavailable(_))), "{admitted:?}");
    assert!(begun.elapsed() < longest / 2, "{:?}", begun.elapsed());
    drop(blocker);
    let until = Instant::now() + Duration::from_secs(10);
    while join().await.0.is_err() {
        assert!(Instant::now() < until, "the row is never seen to be free");
    }
    assert_eq!(ground.opened.postgres.stats().queued_units, 0);
    assert_eq!(fixture.in_room(ground.room, at(1)).await.0, 1, "what was refused is not there");
}

/// The first of them have queued for the row in vain when the last come: they stay the first.
#[tokio::test(flavor = "multi_thread")]
async fn units_that_queued_in_vain_stay_before_those_that_came_later() {
    const JOINS: usize = 24;
    let options = PostgresOptions { lock_timeout: Duration::from_secs(30), ..options() };
    let Some(ground) = Ground::new(options).await else { return };
    let blocker = ground.lock(Stuck::Line).await;
    let mut joins = Vec::new();
    for n in 1..=JOINS {
        let (postgres, work) = (ground.opened.postgres.clone(), ground.needs(Stuck::Line).await);
        joins.push(tokio::spawn(async move { postgres.commit(work).await }));
        while ground.opened.postgres.stats().queued_units < n {
            assert!(!joins[0].is_finished(), "it was refused");
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_millis(120)).await;
    }
    drop(blocker);
    let mut tickets = Vec::new();
    for join in joins {
        match join.await.unwrap().unwrap().outcome {
            Some(CommandOutcome::Joined(token)) => tickets.push(token.ticket.0),
            other => panic!("{other:?}"),
        }
    }
    assert!(tickets.is_sorted(), "{tickets:?}");
}

/// It is tried once, and its caller learns the cause. The other tests of this file are the control: of a lock.
#[tokio::test(flavor = "multi_thread")]
async fn statement_timeout_is_no_wait_for_a_lock() {
    let statement_timeout = Duration::from_secs(1);
    let options = PostgresOptions { statement_timeout, ..options() };
    let Some(opened) = Opened::new(options).await else { return };
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
                $$ BEGIN PERFORM pg_sleep(30); RETURN NULL; END $$; \
                CREATE TRIGGER slow AFTER INSERT ON entries EXECUTE FUNCTION slow()";
    opened.database.execute(slow).await.unwrap();
    let fixture = opened.fixture();
    let before = opened.postgres.stats().transactions;
    let work = fixture.charge_work(fixture.id(UserId::new), None, 5, at(1));
    let error = fixture.commit(work).await.unwrap_err();
    assert!(told(&error).contains("statement timeout"), "{}", told(&error));
    assert_eq!(opened.postgres.stats().transactions - before, 1);
}

/// Units that wait for the row are written in their order when it becomes free, also those whose callers have gone.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_units_are_written_in_order_when_the_row_is_free() {
    const JOINS: usize = 20;
    let Some(ground) = Ground::new(options()).await.map(Arc::new) else { return };
    let blocker = ground.lock(Stuck::Line).await;
    let mut joins = Vec::new();
    for n in 1..=JOINS {
        let (ground, work) = (ground.clone(), ground.needs(Stuck::Line).await);
        let postgres = ground.opened.postgres.clone();
        joins.push(tokio::spawn(async move { postgres.commit(work).await }));
        while ground.opened.postgres.stats().queued_units < n {
            assert!(!joins[0].is_finished(), "not all have come to wait");
            sleep(Duration::from_millis(1)).await;
        }
    }
    let gone = joins.split_off(JOINS - 5);
    gone.iter().for_each(JoinHandle::abort);
    drop(blocker);
    let mut tickets = Vec::new();
    for join in joins {
        match join.await.unwrap().unwrap().outcome {
            Some(CommandOutcome::Joined(token)) => tickets.push(token.ticket.0),
            other => panic!("{other:?}"),
        }
    }
    assert!(tickets.is_sorted(), "{tickets:?}");
    let until = Instant::now() + Duration::from_secs(10);
    while ground.fixture.in_room(ground.room, at(1)).await.0 < u64::try_from(JOINS).unwrap() {
        assert!(Instant::now() < until, "a caller that went away has withdrawn its unit");
        sleep(Duration::from_millis(10)).await;
    }
}
