//! Joining, polling and admitting cost the same however long the line is. Not measured in time: PostgreSQL counts the rows and
//! the pages that they touch.

use std::sync::Arc;
use std::time::Duration;

use frontrow_domain::unit_of_work::{Command, Fill};
use frontrow_domain::{QueueTokenId, RoomId, UserId};
use frontrow_infra::Storage;
use frontrow_infra::postgres::Postgres;
use frontrow_testkit::postgres::TestDatabase;

use crate::fixture::{Fixture, at};
use crate::{Opened, options};

const SHORT: i64 = 1_000;
const LONG: i64 = 100_000;
/// The most people of one Fill.
const BLOCK: i64 = 10_000;
/// A tree of a hundred times as many entries is a level or two deeper; nothing else may grow.
const MOST_TIMES_THE_PAGES: i64 = 3;
/// Rows that are looked at more or less by chance, such as dead ones.
const ROWS_OF_CHANCE: i64 = 4;

/// What was read of tables and their indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    rows: i64,
    pages: i64,
}

impl Cost {
    /// Whether this is the cost of the same in a longer line than `of_short`, as it may be.
    fn is_flat(self, of_short: Self) -> bool {
        self.rows <= of_short.rows + ROWS_OF_CHANCE && self.pages <= of_short.pages * MOST_TIMES_THE_PAGES
    }
}

/// A line on a database of its own, which nothing but the steps of the test looks at.
struct Line {
    database: TestDatabase,
    /// Gives ids; its connections are closed.
    ids: Fixture,
    room_id: RoomId,
}

impl Line {
    /// So many have come; the first 50 are admitted, and three more have come and left.
    async fn of(people: i64) -> Option<Self> {
        let Opened { database, postgres } = Opened::new(options()).await?;
        let quiet = "ALTER TABLE queue_tokens SET (autovacuum_enabled = false)";
        database.execute(quiet).await.unwrap();
        let ids = Fixture::new(Storage::new(Arc::new(postgres.clone())), ());
        let room_id = ids.default_room().await.id;
        for block in (0..people).step_by(usize::try_from(BLOCK).unwrap()) {
            let people =
                (0..BLOCK.min(people - block)).map(|_| (ids.id(QueueTokenId::new), ids.id(UserId::new)));
            let fill = Fill { room_id, people: people.collect(), now: at(0) };
            ids.order(Command::Fill(fill)).await;
        }
        assert_eq!(ids.admit(room_id, 50, at(1)).await, 50);
        for _ in 0..3 {
            let joined = ids.join(room_id, ids.id(UserId::new), at(1)).await;
            ids.leave(joined.id, at(1)).await;
        }
        let line = Self { database, ids, room_id };
        line.close(&postgres).await;
        // Settled: no row is new, and the planner knows how many there are.
        line.database.execute("VACUUM ANALYZE").await.unwrap();
        Some(line)
    }

    /// Ends the connections of an adapter, and waits until they are gone: what they counted is written down by then.
    async fn close(&self, postgres: &Postgres) {
        assert!(postgres.close(Duration::from_secs(10)).await);
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE datname = current_database() AND application_name = 'frontrow'";
        while self.database.query_i64(end).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn counted(&self) -> Cost {
        let rows = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::BIGINT FROM pg_stat_user_tables";
        let entries = "SELECT sum(idx_tup_read)::BIGINT FROM pg_stat_user_indexes";
        let pages = "SELECT sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read + idx_blks_hit, 0))::BIGINT \
                     FROM pg_statio_user_tables";
        let count = async |sql| self.database.query_i64(sql).await.unwrap();
        Cost { rows: count(rows).await + count(entries).await, pages: count(pages).await }
    }

    /// What a step costs on a node that has just started.
    async fn cost(&self, step: impl AsyncFnOnce(&Fixture)) -> Cost {
        let before = self.counted().await;
        let postgres = Postgres::connect(self.database.url(), options()).await.unwrap();
        step(&Fixture::new(Storage::new(Arc::new(postgres.clone())), ())).await;
        self.close(&postgres).await;
        let after = self.counted().await;
        let cost = Cost { rows: after.rows - before.rows, pages: after.pages - before.pages };
        assert!(cost.rows > 0 && cost.pages > 0, "nothing was counted");
        cost
    }

    /// Somebody joins; a node refreshes what it answers polls from; a new node learns the line; ten are admitted.
    async fn costs(&self) -> [(&'static str, Cost); 4] {
        let room_id = self.room_id;
        let user_id = self.ids.id(UserId::new);
        let join = self.ids.join_work(room_id, user_id, at(2));
        let join = self.cost(async |node| node.write(join).await).await;
        let poll = self
            .cost(async |node| {
                let queries = &node.storage.queue_queries;
                assert_eq!(queries.lines_of(vec![room_id]).await.unwrap().lines.len(), 1);
                assert_eq!(queries.departures(vec![(room_id, 1)], 100).await.unwrap().len(), 2);
            })
            .await;
        let start = self
            .cost(async |node| {
                let queries = &node.storage.queue_queries;
                let lines = queries.lines().await.unwrap().lines;
                let line = lines.iter().find(|line| line.room.value.id == room_id).unwrap();
                let departed = queries.departed_tickets(room_id, line.admitted_through, 100);
                assert_eq!(departed.await.unwrap().len(), 3);
            })
            .await;
        let admit = self.cost(async |node| assert_eq!(node.admit(room_id, 10, at(3)).await, 10)).await;
        [("join", join), ("poll", poll), ("start", start), ("admit", admit)]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_polling_and_admitting_cost_the_same_in_a_long_line() {
    let (Some(short), Some(long)) = (Line::of(SHORT).await, Line::of(LONG).await) else { return };
    for ((step, of_short), (_, of_long)) in short.costs().await.into_iter().zip(long.costs().await) {
        assert!(of_long.is_flat(of_short), "{step}: {of_short:?} of {SHORT}, {of_long:?} of {LONG}");
    }
}

/// A control: without the index of those who wait the check above fails.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_index_admission_grows_with_the_line() {
    let (Some(short), Some(long)) = (Line::of(SHORT).await, Line::of(LONG).await) else { return };
    let mut admissions = Vec::new();
    for line in [&short, &long] {
        line.database
            .execute("DROP INDEX queue_tokens_waiting; DROP INDEX queue_tokens_ticket")
            .await
            .unwrap();
        let [.., (step, admit)] = line.costs().await;
        assert_eq!(step, "admit");
        admissions.push(admit);
    }
    assert!(!admissions[1].is_flat(admissions[0]), "{admissions:?}");
}

/// Rooms whose ticks are long over and in which no one waits.
async fn old_rooms(line: &Line, count: i64) {
    let rooms = format!(
        "INSERT INTO rooms (room_id, admit_batch, admit_interval_seconds, active_ttl_seconds, mode, \
             last_tick_at, next_tick_at, version) \
         SELECT gen_random_uuid(), 10, 1, 600, 'AUTO', to_timestamp(0), to_timestamp(1), 1 \
         FROM generate_series(1, {count}); \
         INSERT INTO lines (room_id) SELECT room_id FROM rooms WHERE room_id NOT IN (SELECT room_id FROM lines)"
    );
    line.database.execute(&rooms).await.unwrap();
    line.database.execute("VACUUM ANALYZE").await.unwrap();
}

/// What the passes of a node read, twice: the rooms with work, and the lines with waiters.
async fn cost_of_passes(line: &Line) -> Cost {
    line.cost(async |node| {
        for _ in 0..2 {
            let due = node.storage.rooms.due(at(1_000), None, 200).await.unwrap();
            assert_eq!(due.iter().map(|found| found.room.value.id).collect::<Vec<_>>(), [line.room_id]);
            assert_eq!(node.storage.queue_queries.lines().await.unwrap().lines.len(), 1);
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn sleeping_rooms_add_nothing_to_what_a_pass_reads() {
    let Some(line) = Line::of(SHORT).await else { return };
    old_rooms(&line, 10).await;
    let few = cost_of_passes(&line).await;
    old_rooms(&line, 10_000).await;
    let many = cost_of_passes(&line).await;
    assert!(many.is_flat(few), "{few:?} with 10 rooms, {many:?} with 10,000");

    // The control: without the index of lines with waiters they are read, as they were when each had a tick to be written.
    line.database.execute("DROP INDEX lines_waiting").await.unwrap();
    let without = cost_of_passes(&line).await;
    assert!(!without.is_flat(few) && without.rows > 10_000, "{without:?}");
}
