//! What the SQLite adapter does beyond the contract that all adapters share: migrations, batches, limits, closing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "contract/fixture.rs"]
#[allow(dead_code, reason = "the contract uses the rest")]
mod fixture;

use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{Nullable, Text};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use frontrow_domain::account::{Account, Entry};
use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::ports::{Accounts, Committer, SeatFeeds, StorageError, StorageHealth, Writability};
use frontrow_domain::queue::{Room, RoomPolicy};
use frontrow_domain::seat::{FeedVersion, Seat, SeatPlace, SeatState};
use frontrow_domain::unit_of_work::{AggregateRef, CommitError, Committed};
use frontrow_domain::{
    Change, ConcertId, EntryId, Label, Money, PerformanceDateId, RoomId, SeatId, Timestamp, UnitOfWork,
    UserId, Version, Versioned,
};
use frontrow_infra::Sqlite;
use frontrow_infra::sqlite::{OpenError, SqliteOptions};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use uuid::Uuid;

#[derive(QueryableByName)]
struct Counted {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    count: i64,
}

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");
/// Names the database for [`migrate_as_another_process`].
const DATABASE_VARIABLE: &str = "FRONTROW_TEST_SQLITE_DATABASE";

struct Database {
    directory: TempDir,
}

impl Database {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn migrated() -> Self {
        let database = Self::new();
        Sqlite::migrate(database.path()).unwrap();
        database
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("test.db")
    }

    fn open(&self, options: SqliteOptions) -> Arc<Sqlite> {
        Arc::new(Sqlite::open(self.path(), options).unwrap())
    }

    /// A connection of somebody else.
    fn foreign(&self) -> SqliteConnection {
        foreign(&self.path())
    }
}

fn foreign(path: &Path) -> SqliteConnection {
    SqliteConnection::establish(path.to_str().unwrap()).unwrap()
}

fn now() -> Timestamp {
    Timestamp::parse("2026-11-22T20:00:00Z").unwrap()
}

fn user(n: u128) -> UserId {
    UserId::new(Uuid::from_u128(n))
}

/// A first charge. The number names user and entry.
fn first_charge(n: u128) -> UnitOfWork {
    let amount = Money::new(100).unwrap();
    let id = EntryId::new(Uuid::from_u128(n));
    let (account, entry) = Account::empty(user(n)).charge(id, amount, now()).unwrap();
    UnitOfWork { accounts: vec![Change::Insert(account)], entries: vec![entry], ..Default::default() }
}

type Answer = JoinHandle<Result<Committed, CommitError>>;

fn submit(storage: &Arc<Sqlite>, work: UnitOfWork) -> Answer {
    let storage = Arc::clone(storage);
    tokio::spawn(async move { storage.commit(work).await })
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Lets units pile up behind somebody else's write lock: the first is a batch of its own that waits for the lock, the
/// others are queued in their order. Returns the lock and who waits for the units.
async fn pile_up(
    database: &Database,
    storage: &Arc<Sqlite>,
    works: Vec<UnitOfWork>,
) -> (SqliteConnection, Vec<Answer>) {
    let mut lock = database.foreign();
    lock.batch_execute("BEGIN IMMEDIATE").unwrap();
    let batches = storage.stats().batches;
    let mut answers = Vec::new();
    for work in works {
        answers.push(submit(storage, work));
        let queued = answers.len() - 1;
        until("the units are queued", || {
            let stats = storage.stats();
            stats.batches > batches && stats.queued_units == queued
        })
        .await;
    }
    (lock, answers)
}

/// Another process keeps the file locked: only the first batch waits for as long as a statement does, each later one for a
/// moment. Afterwards all is as before.
#[tokio::test(flavor = "multi_thread")]
async fn locked_file_delays_the_first_batch_only() {
    let database = Database::migrated();
    let options = SqliteOptions { group_commit_limit: 1, ..SqliteOptions::default() };
    let storage = database.open(options);
    let (mut lock, answers) = pile_up(&database, &storage, (1..=10).map(first_charge).collect()).await;
    let begun = Instant::now();
    for answer in answers {
        let refused = answer.await.unwrap();
        assert!(matches!(refused, Err(CommitError::Unavailable(_))), "{refused:?}");
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(15), "each has waited: {took:?}");
    lock.batch_execute("ROLLBACK").unwrap();
    storage.commit(first_charge(11)).await.unwrap();
    // The control: it waits again, for longer than a moment.
    lock.batch_execute("BEGIN IMMEDIATE").unwrap();
    let waits = submit(&storage, first_charge(12));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waits.is_finished());
    lock.batch_execute("ROLLBACK").unwrap();
    waits.await.unwrap().unwrap();
}

#[derive(Debug, PartialEq, Eq, QueryableByName)]
struct Object {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Nullable<Text>)]
    sql: Option<String>,
}

fn schema(connection: &mut SqliteConnection) -> Vec<Object> {
    let objects = "SELECT name, sql FROM sqlite_master WHERE name <> '__diesel_schema_migrations' \
                   AND tbl_name <> '__diesel_schema_migrations' ORDER BY name";
    diesel::sql_query(objects).load(connection).unwrap()
}

/// How many migrations there are.
fn embedded() -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/sqlite");
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn migrations_can_be_undone_and_done_again() {
    let database = Database::migrated();
    let mut connection = database.foreign();
    let up = schema(&mut connection);
    assert!(up.iter().any(|object| object.name == "reservation_seats_one_live"), "{up:?}");

    connection.revert_all_migrations(MIGRATIONS).unwrap();
    assert_eq!(schema(&mut connection), []);
    assert!(matches!(
        Sqlite::open(database.path(), SqliteOptions::default()),
        Err(OpenError::SchemaTooOld { .. })
    ));

    assert_eq!(Sqlite::migrate(database.path()).unwrap().len(), embedded());
    assert_eq!(schema(&mut connection), up);
    assert_eq!(Sqlite::migrate(database.path()).unwrap(), Vec::<String>::new(), "nothing is left to do");
}

/// Also run by `migrating_at_the_same_time`, as processes of their own on one database.
#[test]
fn migrate_as_another_process() {
    let own = Database::new();
    let path = std::env::var_os(DATABASE_VARIABLE).map_or_else(|| own.path(), PathBuf::from);
    let migrated = Sqlite::migrate(&path).unwrap();
    println!("migrations run: {}", migrated.len());
    Sqlite::open(&path, SqliteOptions::default()).unwrap();
}

#[test]
fn migrating_at_the_same_time() {
    let database = Database::new();
    let processes: Vec<_> = (0..6)
        .map(|_| {
            Process::new(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture", "migrate_as_another_process"])
                .env(DATABASE_VARIABLE, database.path())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut migrated = 0;
    for process in processes {
        let output = process.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("migrations run:"), "{said}");
        migrated += said.matches(&format!("migrations run: {}", embedded())).count();
    }
    assert_eq!(migrated, 1, "one of them does the work");
}

/// Whoever can run statements on the file could otherwise make an action undone.
#[test]
fn what_operators_did_is_neither_changed_nor_deleted() {
    let database = Database::migrated();
    let mut connection = database.foreign();
    let add = "INSERT INTO audit_log VALUES (zeroblob(16), 0, zeroblob(16), 'CHANGE_ROOM', zeroblob(16), NULL, '{}')";
    connection.batch_execute(add).unwrap();
    for change in ["UPDATE audit_log SET user_id = randomblob(16)", "DELETE FROM audit_log"] {
        let refused = connection.batch_execute(change).unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{change}: {refused}");
    }
    // Without its triggers nothing would keep anybody from it.
    connection.batch_execute("DROP TRIGGER audit_log_no_delete; DELETE FROM audit_log").unwrap();
}

#[test]
fn a_database_without_a_schema_is_refused() {
    let database = Database::new();
    let open = || Sqlite::open(database.path(), SqliteOptions::default());
    assert!(matches!(open(), Err(OpenError::Missing(_))));
    assert!(!database.path().exists(), "asking makes no file");

    database.foreign().batch_execute("CREATE TABLE other (id INTEGER)").unwrap();
    assert!(matches!(open(), Err(OpenError::SchemaTooOld { .. })));
    assert_eq!(schema(&mut database.foreign()).len(), 1, "asking makes no table");
}

#[test]
fn a_newer_schema_is_refused() {
    let database = Database::migrated();
    let newer = "INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000001')";
    database.foreign().batch_execute(newer).unwrap();
    let refused = Sqlite::open(database.path(), SqliteOptions::default()).err().unwrap();
    assert!(
        matches!(&refused, OpenError::SchemaTooNew { unknown } if unknown == "99990101000001"),
        "{refused}"
    );
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let database = Database::new();
    std::fs::write(database.path(), [b'x'; 4096]).unwrap();
    assert!(matches!(Sqlite::open(database.path(), SqliteOptions::default()), Err(OpenError::Setup(_))));
    assert!(Sqlite::migrate(database.path()).is_err());
    assert_eq!(std::fs::read(database.path()).unwrap(), [b'x'; 4096]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_is_committed_together() {
    let database = Database::migrated();
    let storage = database.open(SqliteOptions::default());
    let (mut lock, answers) = pile_up(&database, &storage, (1..=100).map(first_charge).collect()).await;
    assert!(answers.iter().all(|answer| !answer.is_finished()), "nobody is answered before the commit");
    lock.batch_execute("ROLLBACK").unwrap();
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    let stats = storage.stats();
    assert_eq!((stats.batches, stats.units), (2, 100));
    for n in 1..=100 {
        assert!(storage.find(user(n)).await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_a_limit() {
    let database = Database::migrated();
    let storage = database.open(SqliteOptions { group_commit_limit: 10, ..Default::default() });
    let (mut lock, answers) = pile_up(&database, &storage, (1..=32).map(first_charge).collect()).await;
    lock.batch_execute("ROLLBACK").unwrap();
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    let stats = storage.stats();
    assert_eq!((stats.batches, stats.units), (1 + 4, 32), "the first alone, then 10, 10, 10 and 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_units_leave_their_batch_alone() {
    let database = Database::migrated();
    let storage = database.open(SqliteOptions::default());
    storage.commit(first_charge(1)).await.unwrap();
    let loaded = storage.find(user(1)).await.unwrap().unwrap();
    let again = |entry: u128| charge_over(loaded, EntryId::new(Uuid::from_u128(entry)));

    // Breaks a constraint, but only after it has written an account.
    let mut broken = first_charge(3);
    broken.entries[0].id = EntryId::new(Uuid::from_u128(1));
    let works = vec![first_charge(2), again(10), broken, again(11), first_charge(4)];
    let (mut lock, answers) = pile_up(&database, &storage, works).await;
    lock.batch_execute("ROLLBACK").unwrap();
    let mut outcomes = Vec::new();
    for answer in answers {
        outcomes.push(answer.await.unwrap());
    }

    assert_eq!(storage.stats().batches, 3, "one to prepare, one that waited, one with the other four");
    assert!(outcomes[0].is_ok() && outcomes[1].is_ok() && outcomes[4].is_ok(), "{outcomes:?}");
    assert!(
        matches!(&outcomes[2], Err(CommitError::Backstop { constraint }) if constraint.contains("entries.entry_id"))
    );
    assert!(matches!(outcomes[3], Err(CommitError::Conflict(AggregateRef::Account(id))) if id == user(1)));
    let balance =
        |found: Option<Versioned<Account>>| found.map(|account| account.value.balance.minor_units());
    for (n, expected) in [(1, Some(200)), (2, Some(100)), (3, None), (4, Some(100))] {
        assert_eq!(balance(storage.find(user(n)).await.unwrap()), expected, "user {n}");
    }
}

fn charge_over(loaded: Versioned<Account>, id: EntryId) -> UnitOfWork {
    let (account, entry): (Account, Entry) =
        loaded.value.charge(id, Money::new(100).unwrap(), now()).unwrap();
    let account = Change::Update(Versioned::new(account, loaded.version));
    UnitOfWork { accounts: vec![account], entries: vec![entry], ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_unavailable_at_once() {
    let database = Database::migrated();
    let storage = database.open(SqliteOptions { queue_limit: 2, ..Default::default() });
    let (mut lock, answers) = pile_up(&database, &storage, (1..=3).map(first_charge).collect()).await;

    let refused = storage.commit(first_charge(4)).await;
    assert!(matches!(refused, Err(CommitError::Unavailable(_))), "{refused:?}");
    assert!(answers.iter().all(|answer| !answer.is_finished()), "refused while the others still waited");

    lock.batch_execute("ROLLBACK").unwrap();
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    assert!(storage.find(user(4)).await.unwrap().is_none());
    storage.commit(first_charge(4)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_stays_is_unavailable() {
    let database = Database::migrated();
    let storage = database.open(SqliteOptions::default());
    let (mut lock, answers) = pile_up(&database, &storage, vec![first_charge(1)]).await;
    for answer in answers {
        let refused = answer.await.unwrap();
        assert!(matches!(refused, Err(CommitError::Unavailable(_))), "{refused:?}");
    }
    assert!(storage.find(user(1)).await.unwrap().is_none(), "reads go on");
    lock.batch_execute("ROLLBACK").unwrap();
    storage.commit(first_charge(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_finishes_what_is_queued() {
    let database = Database::migrated();
    let storage = database.open(SqliteOptions::default());
    let (mut lock, answers) = pile_up(&database, &storage, (1..=5).map(first_charge).collect()).await;

    assert!(!storage.close(Duration::from_millis(50)), "the writer waits for the lock");
    let refused = storage.commit(first_charge(6)).await;
    assert!(matches!(refused, Err(CommitError::Unavailable(_))), "{refused:?}");

    lock.batch_execute("ROLLBACK").unwrap();
    assert!(storage.close(Duration::from_secs(10)));
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    assert!(matches!(storage.writability().await, Err(StorageError::Unavailable(_))));
    assert!(storage.close(Duration::ZERO), "closing twice is no error");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_after_reopening() {
    let database = Database::migrated();
    for round in 0..3 {
        let storage = database.open(SqliteOptions::default());
        for n in 1..=round * 10 {
            let account = storage.find(user(n)).await.unwrap().unwrap();
            assert_eq!((account.value.balance, account.version), (Money::new(100).unwrap(), Version::FIRST));
        }
        let answers: Vec<_> = (1..=10).map(|n| submit(&storage, first_charge(round * 10 + n))).collect();
        for answer in answers {
            answer.await.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_caller_withdraws_nothing() {
    let database = Database::migrated();
    let storage = database.open(SqliteOptions::default());
    let (mut lock, answers) = pile_up(&database, &storage, (1..=3).map(first_charge).collect()).await;
    for answer in answers {
        answer.abort();
    }
    lock.batch_execute("ROLLBACK").unwrap();
    assert!(storage.close(Duration::from_secs(10)));
    let reopened = database.open(SqliteOptions::default());
    for n in 1..=3 {
        assert!(reopened.find(user(n)).await.unwrap().is_some());
    }
}

/// A date with this many seats in one row, all of it new. Seats are numbered from 1, and so are their ids.
fn new_date(seats: u32) -> UnitOfWork {
    let room = Room::new(RoomId::new(Uuid::from_u128(1)), RoomPolicy::default(), now());
    let label = |text| Label::new(text).unwrap();
    let concert = Concert {
        id: ConcertId::new(Uuid::from_u128(1)),
        title: label("A concert"),
        venue: label("A hall"),
        room_id: room.id,
    };
    let date = PerformanceDate {
        id: PerformanceDateId::new(Uuid::from_u128(1)),
        concert_id: concert.id,
        starts_at: now().plus_seconds(1),
        on_sale_at: None,
    };
    let seat = |number: u32| Seat {
        id: SeatId::new(Uuid::from_u128(number.into())),
        performance_date_id: date.id,
        place: SeatPlace { section: label("A"), row: 1, number, grade: label("R"), price: Money::ZERO },
        state: SeatState::Available,
    };
    UnitOfWork {
        rooms: vec![Change::Insert(room)],
        concerts: vec![concert],
        performance_dates: vec![date],
        seats: (1..=seats).map(|number| Change::Insert(seat(number))).collect(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_of_many_seats_is_one_unit() {
    let database = Database::migrated();
    let storage = database.open(SqliteOptions::default());
    storage.commit(new_date(5_003)).await.unwrap();
    let date = PerformanceDateId::new(Uuid::from_u128(1));
    let seats = storage.load(date).await.unwrap().unwrap().seats;
    let mut numbers: Vec<u32> = seats.iter().map(|seat| seat.value.place.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=5_003).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_seat_of_many_that_is_there_already_is_named() {
    let database = Database::migrated();
    let storage = database.open(SqliteOptions::default());
    storage.commit(new_date(1)).await.unwrap();
    let mut more = new_date(2_000).seats;
    more.rotate_left(1);
    let refused = storage.commit(UnitOfWork { seats: more, ..Default::default() }).await.unwrap_err();
    let there = AggregateRef::Seat(SeatId::new(Uuid::from_u128(1)));
    assert!(matches!(refused, CommitError::Conflict(found) if found == there), "{refused:?}");
    let date = PerformanceDateId::new(Uuid::from_u128(1));
    assert_eq!(storage.load(date).await.unwrap().unwrap().seats.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_forgets_what_is_4096_versions_back() {
    let database = Database::migrated();
    let storage = database.open(SqliteOptions::default());
    let work = new_date(1);
    let (seat, date) = (work.seats[0].value().clone(), work.performance_dates[0].id);
    storage.commit(work).await.unwrap();
    let write = async |version: i64| {
        let seats = vec![Change::Update(Versioned::new(seat.clone(), Version::new(version)))];
        storage.commit(UnitOfWork { seats, ..Default::default() }).await.unwrap();
    };
    let kept = || {
        let text = "SELECT COUNT(*) AS count FROM seat_changes WHERE version = 2";
        diesel::sql_query(text).get_result::<Counted>(&mut database.foreign()).unwrap().count
    };
    write(1).await;
    let told = storage.news(date, FeedVersion::FIRST).await.unwrap().unwrap();
    assert_eq!((told.updates.len(), told.version, kept()), (1, FeedVersion::new(2), 1));
    database.foreign().batch_execute("UPDATE seat_feeds SET version = 4096").unwrap();
    write(2).await;
    assert_eq!(kept(), 1, "version 4,097");
    write(3).await;
    assert_eq!(kept(), 0, "version 4,098");
    assert_eq!(storage.news(date, FeedVersion::FIRST).await.unwrap(), None, "too long ago");
    let told = storage.news(date, FeedVersion::new(4_097)).await.unwrap().unwrap();
    assert_eq!((told.updates.len(), told.version), (1, FeedVersion::new(4_098)));
}

/// The fixture of the contract on this storage.
fn on(storage: &Arc<Sqlite>) -> fixture::Fixture {
    fixture::Fixture::new(frontrow_infra::Storage::new(storage.clone()), ())
}

/// Somebody gives a place up, and then comes who pays and depends on that place: whoever goes first wins. Gives how the
/// payer fares.
async fn payer_behind_others(prioritise: bool) -> Result<Committed, CommitError> {
    use frontrow_domain::unit_of_work::Guard;

    let database = Database::migrated();
    let storage = database.open(SqliteOptions { prioritise, ..SqliteOptions::default() });
    let fixture = on(&storage);
    let room = fixture.default_room().await.id;
    let token = fixture.crowd(room, 1, now()).await.remove(0);
    let left = fixture.token(token.id).await.try_map(|token| token.expire(now())).unwrap();
    let guard = Guard { aggregate: AggregateRef::QueueToken(token.id), version: left.version };
    let leaves = UnitOfWork { queue_tokens: vec![left], ..Default::default() };
    let pays = UnitOfWork { guards: vec![guard], ..first_charge(7) };
    let (mut lock, answers) = pile_up(&database, &storage, vec![first_charge(1), leaves, pays]).await;
    lock.batch_execute("ROLLBACK").unwrap();
    let mut outcomes = Vec::new();
    for answer in answers {
        outcomes.push(answer.await.unwrap());
    }
    assert!(outcomes[1].is_ok(), "both succeed, unless the payer comes second: {outcomes:?}");
    outcomes.pop().unwrap()
}

#[tokio::test]
async fn who_pays_goes_before_who_came_first() {
    assert!(payer_behind_others(true).await.is_ok());
}

#[tokio::test]
async fn control_in_one_lane_who_came_first_goes_first() {
    assert!(matches!(payer_behind_others(false).await, Err(CommitError::Conflict(_))));
}

#[tokio::test]
async fn a_full_queue_refuses_the_newest_of_the_lowest_at_once() {
    let database = Database::migrated();
    let storage = database.open(SqliteOptions { queue_limit: 2, ..SqliteOptions::default() });
    let fixture = on(&storage);
    let room = fixture.default_room().await.id;
    let join = |n| fixture.join_work(room, user(n), now());
    let works = vec![first_charge(1), join(2), join(3)];
    let (mut lock, mut answers) = pile_up(&database, &storage, works).await;
    // All of it is decided while the writer waits for the lock.
    let refused = storage.commit(join(4)).await.unwrap_err();
    assert!(matches!(refused, CommitError::Unavailable(_)), "{refused:?}");
    let payer = submit(&storage, first_charge(5));
    let displaced = answers.pop().unwrap().await.unwrap().unwrap_err();
    assert!(matches!(displaced, CommitError::Unavailable(_)), "{displaced:?}");
    lock.batch_execute("ROLLBACK").unwrap();
    payer.await.unwrap().unwrap();
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(fixture.in_room(room, now()).await, (1, 0), "nothing was written of who was refused");
}

#[tokio::test]
async fn the_audit_counts_what_was_pruned() {
    use frontrow_domain::queue::TicketNumber;
    use frontrow_domain::unit_of_work::{Command, PruneTokens};

    let database = Database::migrated();
    let storage = database.open(SqliteOptions::default());
    let fixture = on(&storage);
    let room_id = fixture.default_room().await.id;
    let crowd = fixture.crowd(room_id, 5, fixture::at(0)).await;
    fixture.leave(crowd[1].id, fixture::at(1)).await;
    fixture.admit(room_id, 9, fixture::at(1)).await;
    let end = fixture::at(1 + i64::from(fixture::TTL));
    fixture.order(Command::ExpireTokens { now: end, limit: 9 }).await;
    let breaches = || -> Vec<&str> {
        let findings = Sqlite::audit(database.path()).unwrap();
        findings.into_iter().filter(|found| found.breaches > 0).map(|found| found.promise).collect()
    };
    let prune = PruneTokens { room_id, after: TicketNumber(0), before: end, limit: 2 };
    fixture.order(Command::PruneTokens(prune)).await;
    assert_eq!(breaches(), Vec::<&str>::new());
    // Control: one that is deleted and not counted is missed.
    database.foreign().batch_execute("DELETE FROM queue_tokens WHERE ticket = 3").unwrap();
    assert_eq!(breaches(), ["tickets of a room are numbered without a gap, pruned ones counted in"]);
}

/// Whether storage can be written; the reason if not.
async fn refused(storage: &Sqlite) -> Option<String> {
    match storage.writability().await.unwrap() {
        Writability::Writable => None,
        Writability::NotWritable(reason) => Some(reason.into_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_its_schema_is_not_ready() {
    let database = Database::migrated();
    let storage = database.open(SqliteOptions::default());
    assert_eq!(refused(&storage).await, None, "control");
    for (statement, reason) in [
        ("DROP TABLE tickets", "table tickets is missing"),
        (
            "DELETE FROM __diesel_schema_migrations WHERE version LIKE '%2'",
            "migration 20261127000002 is missing",
        ),
        ("DROP TABLE __diesel_schema_migrations", "no schema"),
    ] {
        database.foreign().batch_execute(statement).unwrap();
        // What another process writes is seen when the snapshots that are kept for 50 ms are over.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let said = refused(&storage).await.unwrap();
        assert!(said.contains(reason), "{statement}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_takes_no_commit_and_answers_no_read_until_it_is_back() {
    let database = Database::migrated();
    let storage = database.open(SqliteOptions::default());
    storage.commit(first_charge(1)).await.unwrap();
    let away = database.path().with_extension("away");
    std::fs::rename(database.path(), &away).unwrap();
    let committed = storage.commit(first_charge(2)).await;
    assert!(matches!(committed, Err(CommitError::Unavailable(_))), "{committed:?}");
    let read = Accounts::find(&*storage, user(1)).await;
    assert!(matches!(read, Err(StorageError::Unavailable(_))), "{read:?}");
    assert!(refused(&storage).await.unwrap().contains("moved"));
    std::fs::rename(&away, database.path()).unwrap();
    assert!(refused(&storage).await.unwrap().contains("replaced"), "until a commit has reached the file");
    storage.commit(first_charge(3)).await.unwrap();
    assert_eq!(refused(&storage).await, None);
    for (n, is_there) in [(1, true), (2, false), (3, true)] {
        assert_eq!(Accounts::find(&*storage, user(n)).await.unwrap().is_some(), is_there, "{n}");
    }
    // One that lies in its place is another one.
    std::fs::copy(database.path(), &away).unwrap();
    std::fs::rename(&away, database.path()).unwrap();
    assert!(matches!(storage.commit(first_charge(4)).await, Err(CommitError::Unavailable(_))));
}

/// The log has what is committed and not yet in the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_deleted_takes_no_commit() {
    let database = Database::migrated();
    let storage = database.open(SqliteOptions::default());
    storage.commit(first_charge(1)).await.unwrap();
    std::fs::remove_file(database.path().with_extension("db-wal")).unwrap();
    let committed = storage.commit(first_charge(2)).await;
    assert!(matches!(committed, Err(CommitError::Unavailable(_))), "{committed:?}");
    assert!(refused(&storage).await.unwrap().contains("deleted"));
}

/// The shortest of several tries, so that others on the machine count little.
async fn shortest<T>(mut step: impl AsyncFnMut() -> T) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..15 {
        let begun = Instant::now();
        step().await;
        shortest = shortest.min(begun.elapsed());
    }
    shortest
}

#[tokio::test]
async fn sleeping_rooms_add_nothing_to_a_pass() {
    use frontrow_domain::ports::{QueueQueries, Rooms};

    let database = Database::migrated();
    let storage = database.open(SqliteOptions::default());
    let fixture = on(&storage);
    let room_id = fixture.default_room().await.id;
    fixture.crowd(room_id, 3, fixture::at(0)).await;
    let pass = async || {
        let due = storage.due(fixture::at(1_000), None, 200).await.unwrap();
        assert_eq!(due.iter().map(|found| found.room.value.id).collect::<Vec<_>>(), [room_id]);
        assert_eq!(storage.lines().await.unwrap().lines.len(), 1);
    };
    let few = shortest(pass).await;
    let old = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) \
               INSERT INTO rooms (room_id, admit_batch, admit_interval_seconds, active_ttl_seconds, mode, \
                   last_tick_at, next_tick_at, version) \
               SELECT randomblob(16), 10, 1, 600, 'AUTO', 0, 1, 1 FROM n; \
               INSERT INTO lines (room_id) SELECT room_id FROM rooms WHERE room_id NOT IN (SELECT room_id FROM lines)";
    database.foreign().batch_execute(old).unwrap();
    let many = shortest(pass).await;
    // The control: to look for rooms by their ticks, as each pass did, and to read all lines.
    let mut connection = database.foreign();
    let by_ticks = "SELECT count(*) AS count FROM (SELECT rooms.* FROM rooms JOIN lines USING (room_id) \
                    WHERE next_tick_at <= 1000000000 ORDER BY next_tick_at, room_id)";
    let control = shortest(async || {
        let found: Counted = diesel::sql_query(by_ticks).get_result(&mut connection).unwrap();
        assert_eq!(found.count, 10_000);
    })
    .await;
    assert!(
        many < control / 4,
        "{many:?} with 10,000 rooms beside {control:?} by their ticks ({few:?} with one)"
    );
}
