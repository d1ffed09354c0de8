//! What the SQLite adapter sends to the database: how many statements, each prepared once, and none that reads a table
//! from end to end. diesel reports every statement of this process, so the tests take turns.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "contract/fixture.rs"]
#[allow(dead_code, reason = "the contract needs more of it")]
mod fixture;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel::prelude::*;
use diesel::sql_types::Text;
use frontrow_domain::ports::DateFilter;
use frontrow_domain::queue::{RoomMode, RoomPolicy, TicketNumber};
use frontrow_domain::reservation::Reservation;
use frontrow_domain::unit_of_work::{Command, GiveUpAbandoned, Join, PauseTokens, PruneTokens};
use frontrow_domain::{QueueTokenId, UnitOfWork, UserId, Versioned};
use frontrow_infra::sqlite::SqliteOptions;
use frontrow_infra::{Sqlite, Storage};
use tempfile::TempDir;
use tokio::sync::MutexGuard;

use crate::fixture::{Fixture, HOLD, Sale, admit_up_to, at, commanded, key};

/// What diesel reported, in order.
static REPORTED: Mutex<Vec<Report>> = Mutex::new(Vec::new());
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[derive(Debug, Clone)]
enum Report {
    /// A statement was run.
    Run(String),
    /// A statement was prepared and kept.
    Kept(String),
}

struct Reporter;

impl Instrumentation for Reporter {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let report = match event {
            InstrumentationEvent::StartQuery { query, .. } => {
                let text = query.to_string();
                Report::Run(text.split(" -- binds").next().unwrap().to_owned())
            }
            InstrumentationEvent::CacheQuery { sql, .. } => Report::Kept(sql.to_owned()),
            _ => return,
        };
        REPORTED.lock().unwrap().push(report);
    }
}

struct Observed {
    fixture: Fixture,
    path: PathBuf,
    _directory: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Observed {
    async fn new() -> Self {
        let turn = TURN.lock().await;
        diesel::connection::set_default_instrumentation(|| Some(Box::new(Reporter))).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.db");
        Sqlite::migrate(&path).unwrap();
        // One reader: what it prepared it has.
        let options = SqliteOptions { read_connections: 1, ..Default::default() };
        let storage = Storage::new(Arc::new(Sqlite::open(&path, options).unwrap()));
        Self { fixture: Fixture::new(storage, ()), path, _directory: directory, _turn: turn }
    }

    /// The statements that a unit of work took, without its savepoint; and those that its batch took for it.
    async fn costs(&self, work: UnitOfWork) -> (usize, usize) {
        let has_command = work.command.is_some();
        REPORTED.lock().unwrap().clear();
        self.fixture.write(work).await;
        let mut run = statements();
        // What comes after it is the end of older snapshots of readers.
        let end = run.iter().position(|statement| statement == "COMMIT").unwrap();
        run.truncate(end + 1);
        let of = |text: &str| run.iter().filter(|statement| *statement == text).count();
        assert_eq!(
            (run.first().unwrap().as_str(), run.last().unwrap().as_str()),
            ("BEGIN IMMEDIATE", "COMMIT")
        );
        let savepoints = usize::from(has_command);
        assert_eq!((of("SAVEPOINT unit"), of("RELEASE unit")), (savepoints, savepoints), "{run:?}");
        let about_feeds = |text: &&String| {
            ["seat_feeds", "seat_changes", "AS is_free"].iter().any(|part| text.contains(part))
        };
        let batch = run.iter().filter(about_feeds).count();
        (run.len() - 2 - 2 * savepoints - batch, batch)
    }

    /// What a unit took that changes no seat: its batch took nothing for it.
    async fn cost(&self, work: UnitOfWork) -> usize {
        let (unit, batch) = self.costs(work).await;
        assert_eq!(batch, 0);
        unit
    }
}

fn statements() -> Vec<String> {
    let reported = REPORTED.lock().unwrap();
    let run = reported.iter().filter_map(|report| match report {
        Report::Run(text) => Some(text.clone()),
        Report::Kept(_) => None,
    });
    run.collect()
}

/// The same work under an idempotency key.
fn keyed(fixture: &Fixture, user: UserId, work: UnitOfWork) -> UnitOfWork {
    UnitOfWork { idempotency: Some(fixture.record(user, at(0))), ..work }
}

async fn hold_work(fixture: &Fixture, sale: &Sale, seats: usize) -> UnitOfWork {
    let token = fixture.admitted(sale.room.id, at(0)).await;
    let user = token.value.user_id;
    let seats = fixture.seats(&sale.seat_ids()[..seats]).await;
    keyed(fixture, user, fixture.hold_work(token, seats, at(0)).1)
}

async fn pay_work(fixture: &Fixture, held: &Versioned<Reservation>) -> UnitOfWork {
    let user = held.value.user_id;
    fixture.charge(user, 1_000_000, at(0)).await;
    keyed(fixture, user, fixture.pay_work(held.value.id, at(0)).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn units_cost_what_the_documentation_says() {
    let observed = Observed::new().await;
    let fixture = &observed.fixture;

    let user = fixture.id(UserId::new);
    let charge = fixture.charge_work(user, None, 100, at(0));
    assert_eq!(observed.cost(keyed(fixture, user, charge)).await, 3, "charge");

    for seats in 1..=4 {
        let sale = fixture.sale(4).await;
        let work = hold_work(fixture, &sale, seats).await;
        let reservation = work.reservations[0].value().id;
        assert_eq!(observed.costs(work).await, (4 + 2 * seats, 4), "reserve {seats}");
        let held = fixture.reservation(reservation).await;
        let work = pay_work(fixture, &held).await;
        assert!(!work.queue_tokens.is_empty(), "the payer's token is live");
        let key_is_taken = UnitOfWork { idempotency: None, ..work };
        assert_eq!(observed.costs(key_is_taken).await, (6 + 2 * seats, 4), "pay {seats}, without a key");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_cost_the_same_for_many() {
    let observed = Observed::new().await;
    let fixture = &observed.fixture;
    let room = fixture.default_room().await.id;
    let nobody = commanded(admit_up_to(10, None, room, at(0)));
    assert_eq!(observed.cost(nobody).await, 1, "admit nobody");
    assert_eq!(observed.cost(fixture.join_work(room, fixture.id(UserId::new), at(0))).await, 4, "join");
    fixture.crowd(room, 20, at(0)).await;
    assert_eq!(observed.cost(commanded(admit_up_to(10, None, room, at(0)))).await, 3, "admit");
    assert_eq!(
        observed.cost(commanded(admit_up_to(10, Some(15), room, at(0)))).await,
        4,
        "admit under a cap"
    );

    let sale = fixture.sale(4).await;
    for seat in sale.seat_ids() {
        fixture.hold(&sale, &[seat], at(0)).await;
    }
    let lapsed = at(100_000);
    let expire_holds = commanded(Command::ExpireHolds { now: lapsed, limit: 100 });
    assert_eq!(observed.costs(expire_holds).await, (3, 3), "expire holds");
    let expire_tokens = commanded(Command::ExpireTokens { now: lapsed, limit: 100 });
    assert_eq!(observed.cost(expire_tokens).await, 1, "expire tokens");

    let capped = RoomPolicy { mode: RoomMode::Open, max_active: Some(1), ..RoomPolicy::default() };
    let capped = fixture.new_room(capped).await.id;
    let user = fixture.id(UserId::new);
    assert_eq!(
        observed.cost(fixture.join_work(capped, user, at(0))).await,
        5,
        "join an OPEN room with a cap"
    );
    let again = Join { token_id: fixture.id(QueueTokenId::new), room_id: capped, user_id: user, now: lapsed };
    assert_eq!(observed.cost(commanded(Command::Join(again))).await, 6, "and again with a lapsed token");
}

/// Calls every port, so that every statement is run.
async fn call_everything(fixture: &Fixture) {
    let storage = &fixture.storage;
    let sale = fixture.sale(4).await;
    let work = hold_work(fixture, &sale, 2).await;
    let (reservation, user) = {
        let reservation = work.reservations[0].value();
        (reservation.id, reservation.user_id)
    };
    fixture.write(work).await;
    let lapsing = fixture.hold(&sale, &sale.seat_ids()[2..3], at(0)).await;
    fixture.pay(reservation, at(0)).await;
    fixture.join(sale.room.id, user, at(0)).await;
    let leaving = fixture.crowd(sale.room.id, 3, at(0)).await;
    fixture.leave(leaving[0].id, at(0)).await;
    fixture.order(Command::NotePolls { tokens: vec![leaving[1].id], now: at(0) }).await;
    let sweep = GiveUpAbandoned { room_id: sale.room.id, window: 1, gone_since: Some(at(0)), now: at(1) };
    fixture.order(Command::GiveUpAbandoned(sweep)).await;
    fixture.order(admit_up_to(1, Some(9), sale.room.id, at(0))).await;
    fixture.order(Command::ExpireTokens { now: at(HOLD), limit: 9 }).await;
    fixture.order(Command::ExpireHolds { now: at(HOLD), limit: 9 }).await;
    for begins in [true, false] {
        fixture.order(Command::PauseTokens(PauseTokens { room_id: sale.room.id, begins, now: at(0) })).await;
    }
    let prune = PruneTokens { room_id: sale.room.id, after: TicketNumber(0), before: at(0), limit: 9 };
    fixture.order(Command::PruneTokens(prune)).await;
    fixture.order(Command::PruneAnswers { now: at(0), limit: 9 }).await;
    fixture.set_policy(sale.room.id, RoomPolicy { mode: RoomMode::Open, ..sale.room.policy }).await;

    let (concert, date, now) = (sale.concert.id, sale.date.id, at(0));
    storage.queue_tokens.find_live(sale.room.id, user).await.unwrap().unwrap();
    storage.queue_queries.lines().await.unwrap();
    assert_eq!(storage.queue_queries.lines_of(vec![sale.room.id]).await.unwrap().lines.len(), 1);
    storage.queue_queries.departures(vec![(sale.room.id, 0)], 10).await.unwrap();
    storage.queue_queries.departed_tickets(sale.room.id, TicketNumber(0), 10).await.unwrap();
    for after in [None, Some((now, sale.room.id))] {
        storage.rooms.due(now, after, 10).await.unwrap();
        storage.queue_queries.rooms_after(after.map(|(_, id)| id), 10).await.unwrap();
    }
    storage.rooms.find_with_waiters(sale.room.id).await.unwrap().unwrap();
    assert_eq!(storage.concerts.sales_starts(concert).await.unwrap().len(), 1);
    storage.concerts.find(concert).await.unwrap().unwrap();
    storage.concerts.find_date(date).await.unwrap().unwrap();
    storage.reservations.holdings(user, date, now).await.unwrap();
    storage.idempotency_records.find(user, &key()).await.unwrap().unwrap();
    for after in [None, Some(concert)] {
        storage.concert_queries.list_concerts(after, 10).await.unwrap();
    }
    storage.concert_queries.offers(vec![concert], now).await.unwrap();
    for filter in [DateFilter::All, DateFilter::Reservable] {
        storage.concert_queries.list_dates(concert, filter, now).await.unwrap();
    }
    let since = storage.seat_feeds.versions(vec![date]).await.unwrap()[0].1;
    fixture.hold(&sale, &sale.seat_ids()[3..], at(0)).await;
    assert_eq!(storage.seat_feeds.news(date, since).await.unwrap().unwrap().updates.len(), 1);
    assert_eq!(storage.seat_feeds.load(date).await.unwrap().unwrap().seats.len(), 4);
    storage.reservation_queries.find_own(user, reservation, now).await.unwrap().unwrap();
    for before in [None, Some(lapsing.value.id)] {
        storage.reservation_queries.list_own(user, before, 10, now).await.unwrap();
    }
    for before in [None, Some(9)] {
        storage.account_queries.list_entries(user, before, 10).await.unwrap();
    }
    for after in [None, Some(sale.room.id)] {
        storage.admin_queries.list_rooms(after, 10, now).await.unwrap();
    }
    fixture.in_room(sale.room.id, now).await;
    storage.admin_queries.sales(date, now).await.unwrap().unwrap();
    storage.health.writability().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_prepared_once() {
    let observed = Observed::new().await;
    call_everything(&observed.fixture).await;
    let kept: BTreeSet<String> = REPORTED
        .lock()
        .unwrap()
        .drain(..)
        .filter_map(|report| match report {
            Report::Kept(text) => Some(text),
            Report::Run(_) => None,
        })
        .collect();
    call_everything(&observed.fixture).await;
    let not_kept: BTreeSet<String> = statements().into_iter().filter(|text| !kept.contains(text)).collect();
    // Many rows in one statement are another statement for every number of rows. BEGIN and COMMIT are diesel's.
    let expected =
        |text: &String| text.starts_with("INSERT INTO `seats`") || text == "BEGIN" || text == "COMMIT";
    assert!(not_kept.iter().all(expected), "{not_kept:#?}");
}

/// The tables that grow with sales. Rooms and concerts are few, and are read in pages by key or by tick.
const GROWING: [&str; 12] = [
    "accounts",
    "entries",
    "idempotency_records",
    "payments",
    "performance_dates",
    "queue_tokens",
    "reservation_seats",
    "reservations",
    "seat_changes",
    "seat_feeds",
    "seats",
    "tickets",
];

#[derive(Debug, QueryableByName)]
struct Step {
    #[diesel(sql_type = Text)]
    detail: String,
}

/// The steps of a statement that read a growing table from end to end.
fn scans(connection: &mut SqliteConnection, text: &str) -> Vec<String> {
    let plan = diesel::sql_query(format!("EXPLAIN QUERY PLAN {text}"));
    let steps: Vec<Step> = plan.load(connection).unwrap();
    let is_scan = |detail: &str| match detail.strip_prefix("SCAN ") {
        Some(scanned) => GROWING.iter().any(|table| scanned.split(' ').next() == Some(table)),
        None => false,
    };
    steps.into_iter().map(|step| step.detail).filter(|detail| is_scan(detail)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_reads_a_table_from_end_to_end() {
    let observed = Observed::new().await;
    REPORTED.lock().unwrap().clear();
    call_everything(&observed.fixture).await;
    let statements: BTreeSet<String> = statements().into_iter().collect();
    let mut connection = SqliteConnection::establish(observed.path.to_str().unwrap()).unwrap();

    assert_eq!(
        scans(&mut connection, "SELECT * FROM seats WHERE grade = 'R'").len(),
        1,
        "what a scan looks like"
    );
    let planned = |text: &&String| {
        ["SELECT", "UPDATE", "INSERT", "WITH", "DELETE"].iter().any(|verb| text.starts_with(verb))
    };
    let planned: Vec<_> = statements.iter().filter(planned).collect();
    assert!(planned.len() > 45, "{} statements", planned.len());
    for text in planned {
        // An insert of many rows has a step for rows that already refer to them, which is skipped when no key dangles.
        if !text.starts_with("INSERT INTO `seats`") {
            assert_eq!(scans(&mut connection, text), Vec::<String>::new(), "{text}");
        }
    }
}

/// The steps of a statement that walk a line: bound by no token, and by no place or person besides the room.
fn walks(connection: &mut SqliteConnection, text: &str) -> Vec<String> {
    let steps: Vec<Step> = diesel::sql_query(format!("EXPLAIN QUERY PLAN {text}")).load(connection).unwrap();
    let is_of_the_line = |detail: &String| detail.contains(" queue_tokens");
    let is_bound = |detail: &String| detail.contains("token_id=?") || detail.contains(" AND ");
    steps.into_iter().map(|step| step.detail).filter(|step| is_of_the_line(step) && !is_bound(step)).collect()
}

/// Joining, polling and admitting cost the same in a line of any length: each statement goes to its rows by an index. So it
/// does not where that index is gone, which is the control.
#[tokio::test(flavor = "multi_thread")]
async fn no_statement_of_the_line_walks_it() {
    let observed = Observed::new().await;
    let fixture = &observed.fixture;
    let room = fixture.default_room().await.id;
    let leaver = fixture.join(room, fixture.id(UserId::new), at(0)).await;
    let admitted = fixture.crowd(room, 10, at(0)).await;
    fixture.leave(leaver.id, at(0)).await;
    REPORTED.lock().unwrap().clear();
    fixture.join(room, fixture.id(UserId::new), at(0)).await;
    fixture.storage.queue_queries.lines_of(vec![room]).await.unwrap();
    fixture.storage.queue_queries.departures(vec![(room, 0)], 10).await.unwrap();
    fixture.storage.queue_queries.departed_tickets(room, TicketNumber(0), 10).await.unwrap();
    assert_eq!(fixture.admit(room, 10, at(0)).await, 10);
    fixture.storage.queue_tokens.find(admitted[0].id).await.unwrap().unwrap();
    let of_the_line = |text: &String| text.contains("queue_tokens") && !text.starts_with("SAVEPOINT");
    let statements: BTreeSet<String> = statements().into_iter().filter(of_the_line).collect();
    assert!(statements.len() >= 6, "{statements:#?}");

    let mut connection = SqliteConnection::establish(observed.path.to_str().unwrap()).unwrap();
    for text in &statements {
        assert_eq!(walks(&mut connection, text), Vec::<String>::new(), "{text}");
    }
    for index in ["queue_tokens_waiting", "queue_tokens_ticket"] {
        diesel::sql_query(format!("DROP INDEX {index}")).execute(&mut connection).unwrap();
    }
    let walked = statements.iter().filter(|text| !walks(&mut connection, text).is_empty()).count();
    assert!(walked > 0, "the check sees nothing");
}
