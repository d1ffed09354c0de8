//! The statements of each use case: how many round trips, and all of them prepared once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel::QueryableByName;
use diesel::connection::InstrumentationEvent;
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;
use frontrow_domain::account::{Account, Payment, Ticket};
use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::idempotency::{Answer, Fingerprint, IdempotencyKey, IdempotencyRecord, KeyedRequest};
use frontrow_domain::ports::{Accounts, Committer, QueueQueries, QueueTokens, Reservations, Rooms, Seats};
use frontrow_domain::queue::{Room, RoomPolicy, TicketNumber};
use frontrow_domain::reservation::{HoldTerms, Reservation, ReservedSeat};
use frontrow_domain::seat::{Seat, SeatPlace, SeatState};
use frontrow_domain::unit_of_work::{Admit, Command, CommandOutcome, GiveUpAbandoned, Join};
use frontrow_domain::{
    Change, ConcertId, EntryId, Label, Money, PaymentId, PerformanceDateId, QueueTokenId, ReservationId,
    RoomId, SeatId, TicketId, Timestamp, UnitOfWork, UserId, Versioned,
};
use frontrow_testkit::postgres::{Template, TestDatabase, database};
use futures_util::FutureExt;
use futures_util::future::join_all;
use uuid::Uuid;

use super::{Postgres, PostgresOptions, migrate};

const ROUNDS: u128 = 8;

/// An adapter with one connection and one committer, and the texts that went over it.
struct Watched {
    postgres: Postgres,
    database: TestDatabase,
    texts: Arc<Mutex<Vec<String>>>,
    last_id: u128,
}

#[derive(QueryableByName)]
struct Prepared {
    #[diesel(sql_type = Text)]
    statement: String,
    #[diesel(sql_type = BigInt)]
    runs: i64,
}

/// `None` where there is no PostgreSQL.
async fn watched() -> Option<Watched> {
    let template = Template::new("statements", |url| async move { Ok(migrate(&url).await?) });
    Some(Watched::new(database(&template).await?).await)
}

impl Watched {
    async fn new(database: TestDatabase) -> Self {
        let patient = PostgresOptions::default().lock_timeout;
        let options = PostgresOptions {
            pool_size: 1,
            committers: 1,
            batch_lock_timeout: patient,
            allow_lossy_commits: true,
            ..Default::default()
        };
        let postgres = Postgres::connect(database.url(), options).await.unwrap();
        let texts = Arc::new(Mutex::new(Vec::new()));
        let mut connection = postgres.connection().await.unwrap();
        let seen = texts.clone();
        connection.set_instrumentation(move |event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::StartQuery { query, .. } = event {
                let text = query.to_string();
                let sql = text.split(" -- binds").next().unwrap_or_default().to_owned();
                // The pool's own question to a connection that has been idle.
                if sql != super::server_check::STATE {
                    seen.lock().unwrap().push(sql);
                }
            }
        });
        drop(connection);
        Self { postgres, database, texts, last_id: 0 }
    }

    fn id<T>(&mut self, kind: fn(Uuid) -> T) -> T {
        self.last_id += 1;
        kind(Uuid::from_u128(self.last_id))
    }

    /// The texts since the last call, without those that open and end transactions; and these.
    fn taken(&self) -> (Vec<String>, Vec<String>) {
        let texts = std::mem::take(&mut *self.texts.lock().unwrap());
        texts.into_iter().partition(|text| {
            !text.starts_with("BEGIN") && !["ROLLBACK", super::transaction::COMMIT].contains(&text.as_str())
        })
    }

    async fn commit(&self, work: UnitOfWork) -> Option<CommandOutcome> {
        self.postgres.commit(work).await.unwrap().outcome
    }

    /// Commits all in one transaction of so many statements: they are queued while the committer waits for a lock.
    async fn batch(
        &self,
        sale: &Sale,
        works: Vec<UnitOfWork>,
        statements: usize,
    ) -> Vec<Option<CommandOutcome>> {
        let room = Rooms::find(&self.postgres, sale.room_id).await.unwrap().unwrap();
        let blocker = self.database.connect().await.unwrap();
        blocker.batch_execute("BEGIN; SELECT FROM rooms FOR UPDATE").await.unwrap();
        let work = UnitOfWork { rooms: vec![Change::Update(room)], ..Default::default() };
        let postgres = self.postgres.clone();
        let stuck = tokio::spawn(async move { postgres.commit(work).await });
        let waits = "SELECT count(*) FROM pg_stat_activity \
                     WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while self.database.query_i64(waits).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let queued = works.len();
        let release = async {
            while self.postgres.stats().queued_units < queued {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.taken();
            blocker.batch_execute("ROLLBACK").await.unwrap();
        };
        let committed = join_all(works.into_iter().map(|work| self.postgres.commit(work)));
        let ((), committed) = tokio::join!(release, committed);
        stuck.await.unwrap().unwrap();
        let (texts, transaction) = self.taken();
        let update_of_the_room = 1;
        assert_eq!(texts.len(), statements + update_of_the_room, "{texts:#?}");
        assert_eq!(transaction.iter().filter(|text| *text == super::transaction::COMMIT).count(), 2);
        committed.into_iter().map(|outcome| outcome.unwrap().outcome).collect()
    }

    /// How often each text that is prepared on the connection has been run.
    async fn prepared(&self) -> HashMap<String, i64> {
        let mut connection = self.postgres.connection().await.unwrap();
        let query = "SELECT statement, generic_plans + custom_plans AS runs FROM pg_prepared_statements";
        let rows: Vec<Prepared> = diesel::sql_query(query).load(&mut connection).await.unwrap();
        let texts = rows.len();
        let runs: HashMap<_, _> = rows.into_iter().map(|row| (row.statement, row.runs)).collect();
        assert_eq!(runs.len(), texts, "a text is prepared twice");
        runs
    }
}

fn now() -> Timestamp {
    Timestamp::parse("2026-11-22T20:00:00Z").unwrap()
}

fn money(units: i64) -> Money {
    Money::new(units).unwrap()
}

/// What there is to sell.
struct Sale {
    room_id: RoomId,
    date_id: PerformanceDateId,
}

async fn sale(watched: &mut Watched) -> Sale {
    let label = |text| Label::new(text).unwrap();
    let room = Room::new(watched.id(RoomId::new), RoomPolicy::default(), now());
    let (title, venue) = (label("A concert"), label("A hall"));
    let concert = Concert { id: watched.id(ConcertId::new), title, venue, room_id: room.id };
    let starts_at = now().plus_seconds(9_999);
    let date = PerformanceDate::new(watched.id(PerformanceDateId::new), concert.id, starts_at, None).unwrap();
    let sale = Sale { room_id: room.id, date_id: date.id };
    let rooms = vec![Change::Insert(room)];
    let (concerts, performance_dates) = (vec![concert], vec![date]);
    watched.commit(UnitOfWork { rooms, concerts, performance_dates, ..Default::default() }).await;
    sale
}

async fn new_seats(watched: &mut Watched, sale: &Sale, row: u32) -> Vec<SeatId> {
    let ids: Vec<SeatId> = (0..2).map(|_| watched.id(SeatId::new)).collect();
    let seat = |(number, id): (u32, &SeatId)| Seat {
        id: *id,
        performance_date_id: sale.date_id,
        place: SeatPlace {
            section: Label::new("A").unwrap(),
            row,
            number,
            grade: Label::new("R").unwrap(),
            price: money(50),
        },
        state: SeatState::Available,
    };
    let seats = (1..).zip(&ids).map(seat).map(Change::Insert).collect();
    watched.commit(UnitOfWork { seats, ..Default::default() }).await;
    ids
}

fn record(user_id: UserId, key: &str) -> Option<IdempotencyRecord> {
    let key = IdempotencyKey::new(key).unwrap();
    let request = KeyedRequest { user_id, key, fingerprint: Fingerprint([1; 32]) };
    let answer = Answer { status: 200, content_type: "application/json".into(), body: b"{}".to_vec() };
    Some(IdempotencyRecord::new(request, answer, now()))
}

fn join_work(watched: &mut Watched, sale: &Sale, user_id: UserId) -> UnitOfWork {
    let token_id = watched.id(QueueTokenId::new);
    let join = Join { token_id, room_id: sale.room_id, user_id, now: now() };
    UnitOfWork { command: Some(Command::Join(join)), ..Default::default() }
}

async fn join(watched: &mut Watched, sale: &Sale, user_id: UserId) -> QueueTokenId {
    let work = join_work(watched, sale, user_id);
    match watched.commit(work).await {
        Some(CommandOutcome::Joined(token) | CommandOutcome::AlreadyJoined(token)) => token.id,
        other => panic!("{other:?}"),
    }
}

async fn admit(watched: &Watched, sale: &Sale) {
    let admit = Admit {
        room_id: sale.room_id,
        limit: 100,
        max_active: Some(100),
        active_ttl_seconds: 600,
        now: now(),
    };
    watched.commit(UnitOfWork { command: Some(Command::Admit(admit)), ..Default::default() }).await;
}

async fn order(watched: &Watched, command: Command) {
    watched.commit(UnitOfWork { command: Some(command), ..Default::default() }).await;
}

async fn charge_work(watched: &mut Watched, user_id: UserId) -> UnitOfWork {
    let loaded = Accounts::find(&watched.postgres, user_id).await.unwrap();
    let account = loaded.map_or_else(|| Account::empty(user_id), |loaded| loaded.value);
    let (account, entry) = account.charge(watched.id(EntryId::new), money(100), now()).unwrap();
    let change = loaded
        .map_or(Change::Insert(account), |loaded| Change::Update(Versioned::new(account, loaded.version)));
    let (accounts, entries) = (vec![change], vec![entry]);
    let idempotency = record(user_id, &format!("charge {}", watched.last_id));
    UnitOfWork { idempotency, accounts, entries, ..Default::default() }
}

async fn reserve_work(
    watched: &mut Watched,
    token: QueueTokenId,
    seat_ids: &[SeatId],
) -> (ReservationId, UnitOfWork) {
    let token = QueueTokens::find(&watched.postgres, token).await.unwrap().unwrap();
    let seats = watched.postgres.find_many(seat_ids.to_vec()).await.unwrap();
    let id = watched.id(ReservationId::new);
    let hold_expires_at = now().plus_seconds(300);
    let terms = HoldTerms {
        user_id: token.value.user_id,
        performance_date_id: seats[0].value.performance_date_id,
        room_id: token.value.room_id,
        token_id: token.value.id,
        reserved_at: now(),
        hold_expires_at,
    };
    let reserved =
        |seat: &Versioned<Seat>| ReservedSeat { seat_id: seat.value.id, price: seat.value.place.price };
    let reservation = Reservation::hold(id, terms, seats.iter().map(reserved).collect()).unwrap();
    let hold = |seat: Versioned<Seat>| seat.try_map(|seat| seat.hold(id, hold_expires_at, now())).unwrap();
    let work = UnitOfWork {
        idempotency: record(token.value.user_id, "reserve"),
        queue_tokens: vec![token],
        reservations: vec![Change::Insert(reservation)],
        seats: seats.into_iter().map(hold).map(Change::Update).collect(),
        ..Default::default()
    };
    (id, work)
}

async fn pay_work(watched: &mut Watched, token: QueueTokenId, id: ReservationId) -> UnitOfWork {
    let token = QueueTokens::find(&watched.postgres, token).await.unwrap().unwrap();
    let reservation = Reservations::find(&watched.postgres, id).await.unwrap().unwrap();
    let (user_id, amount) = (reservation.value.user_id, reservation.value.total_amount);
    let account = Accounts::find(&watched.postgres, user_id).await.unwrap().unwrap();
    let seats = watched.postgres.find_many(reservation.value.seat_ids()).await.unwrap();
    let entry_id = watched.id(EntryId::new);
    let (debited, entry) = account.value.pay(entry_id, amount, id, now()).unwrap();
    let tickets =
        seats.iter().map(|seat| Ticket { id: watched.id(TicketId::new), seat_id: seat.value.id }).collect();
    let payment = Payment {
        id: watched.id(PaymentId::new),
        reservation_id: id,
        user_id,
        entry_id,
        amount,
        paid_at: now(),
        tickets,
    };
    let sell = |seat: Versioned<Seat>| seat.try_map(|seat| seat.sell(id)).unwrap();
    UnitOfWork {
        idempotency: record(user_id, "pay"),
        queue_tokens: vec![token.try_map(|token| token.expire(now())).unwrap()],
        accounts: vec![Change::Update(Versioned::new(debited, account.version))],
        entries: vec![entry],
        reservations: vec![Change::Update(reservation.try_map(|r| r.pay(now())).unwrap())],
        seats: seats.into_iter().map(sell).map(Change::Update).collect(),
        payments: vec![payment],
        ..Default::default()
    }
}

/// The module doc says how many statements a use case takes. Every one is found prepared after its first time.
#[tokio::test(flavor = "multi_thread")]
async fn statements_are_as_few_as_written_and_prepared_once() {
    let Some(mut watched) = watched().await else { return };
    let sale = sale(&mut watched).await;
    // The first node on a database notes where the data lives.
    watched.postgres.lines().await.unwrap();
    let mut used = Vec::new();
    for round in 1..=ROUNDS {
        let user_id = watched.id(UserId::new);
        let first_charge = charge_work(&mut watched, user_id).await;
        watched.commit(first_charge).await;
        watched.taken();
        let seats = new_seats(&mut watched, &sale, u32::try_from(round).unwrap()).await;
        let mut step = |name: &str, watched: &Watched, statements: usize, ends: &str| {
            let (texts, transaction) = watched.taken();
            assert_eq!(texts.len(), statements, "{name}: {texts:#?}");
            assert_eq!(transaction.last().map_or("", String::as_str), ends, "{name}");
            used.extend(texts);
        };
        let commit = super::transaction::COMMIT;
        step("new seats", &watched, 3, commit);
        let token = join(&mut watched, &sale, user_id).await;
        step("join", &watched, 5, commit);
        join(&mut watched, &sale, user_id).await;
        step("join again", &watched, 3, "ROLLBACK");
        watched.postgres.lines().await.unwrap();
        step("lines", &watched, 1, "");
        watched.postgres.due(now(), None, 10).await.unwrap();
        step("rooms with work", &watched, 1, "");
        watched.postgres.find_with_waiters(sale.room_id).await.unwrap();
        step("a room with its first waiter", &watched, 1, "");
        watched.postgres.lines_of(vec![sale.room_id]).await.unwrap();
        step("lines of some rooms", &watched, 1, "");
        watched.postgres.departures(vec![(sale.room_id, 0)], 10).await.unwrap();
        step("departures", &watched, 1, "");
        watched.postgres.departed_tickets(sale.room_id, TicketNumber(0), 10).await.unwrap();
        step("departed tickets", &watched, 1, "");
        order(&watched, Command::NotePolls { tokens: vec![token], now: now() }).await;
        step("note polls", &watched, 2, commit);
        let (room_id, now) = (sale.room_id, now());
        let sweep = GiveUpAbandoned { room_id, window: 9, gone_since: Some(now.minus_seconds(1)), now };
        order(&watched, Command::GiveUpAbandoned(sweep)).await;
        step("give up the abandoned", &watched, 2, commit);
        admit(&watched, &sale).await;
        step("admit", &watched, 2, commit);
        let charge = charge_work(&mut watched, user_id).await;
        watched.taken();
        watched.commit(charge).await;
        step("charge", &watched, 5, commit);
        let (reservation, reserve) = reserve_work(&mut watched, token, &seats).await;
        watched.taken();
        watched.commit(reserve).await;
        step("reserve", &watched, 8, commit);
        let pay = pay_work(&mut watched, token, reservation).await;
        watched.taken();
        watched.commit(pay).await;
        step("pay", &watched, 11, commit);
    }
    let prepared = watched.prepared().await;
    for text in used {
        let runs = prepared.get(&text).copied().unwrap_or(0);
        assert!(runs >= i64::try_from(ROUNDS).unwrap(), "ran {runs} times as prepared: {text}");
    }
}

const BUYERS: u32 = 40;

/// However many units share a transaction, it takes the statements of one.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_takes_as_many_statements_as_one_unit() {
    let Some(mut watched) = watched().await else { return };
    let sale = sale(&mut watched).await;
    let users: Vec<UserId> = (0..BUYERS).map(|_| watched.id(UserId::new)).collect();

    let joins = users.iter().map(|user| join_work(&mut watched, &sale, *user)).collect();
    let outcomes = watched.batch(&sale, joins, 5).await;
    admit(&watched, &sale).await;
    let token = |outcome: Option<CommandOutcome>| match outcome {
        Some(CommandOutcome::Joined(token)) => token.id,
        other => panic!("{other:?}"),
    };
    let tokens: Vec<QueueTokenId> = outcomes.into_iter().map(token).collect();

    // The second charge of each is an update.
    for _ in 0..2 {
        let mut charges = Vec::new();
        for user in &users {
            charges.push(charge_work(&mut watched, *user).await);
        }
        watched.batch(&sale, charges, 5).await;
    }
    let (mut ids, mut reserves) = (Vec::new(), Vec::new());
    for (row, token) in (1..).zip(&tokens) {
        let seats = new_seats(&mut watched, &sale, row).await;
        let (id, work) = reserve_work(&mut watched, *token, &seats).await;
        ids.push(id);
        reserves.push(work);
    }
    watched.batch(&sale, reserves, 8).await;
    let mut pays = Vec::new();
    for (token, id) in tokens.iter().zip(ids) {
        pays.push(pay_work(&mut watched, *token, id).await);
    }
    watched.batch(&sale, pays, 11).await;
}

/// Whoever asks while a read is under way shares the next one. Those who went away disturb nobody.
#[tokio::test(flavor = "multi_thread")]
async fn reads_of_many_callers_share_their_statements() {
    let Some(mut watched) = watched().await else { return };
    let users: Vec<UserId> = (0..BUYERS).map(|_| watched.id(UserId::new)).collect();
    for user in &users[1..] {
        let work = charge_work(&mut watched, *user).await;
        watched.commit(work).await;
    }
    watched.taken();
    // While the only connection is in use, both readers wait with what they have taken.
    let connection = watched.postgres.connection().await.unwrap();
    let postgres = &watched.postgres;
    let mut reads: Vec<_> =
        users.iter().chain(&users).map(|user| (*user, Box::pin(Accounts::find(postgres, *user)))).collect();
    for (_, read) in &mut reads {
        assert!(read.now_or_never().is_none(), "it is queued");
    }
    // Two of three go away.
    let left = reads.into_iter().step_by(3).map(|(user, read)| async move { (user, read.await.unwrap()) });
    let left = join_all(left);
    drop(connection);
    for (user, found) in left.await {
        assert_eq!(found.map(|account| account.value.user_id), (user != users[0]).then_some(user));
    }
    let (texts, _) = watched.taken();
    assert!((1..=3).contains(&texts.len()), "{texts:#?}");
}
