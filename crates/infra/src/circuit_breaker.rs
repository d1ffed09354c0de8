//! A circuit breaker in front of storage, which opens when storage answers nothing at all (ADR 0022).
//!
//! A read that has no answer after half a second makes the breaker ask storage for a sign of life, one question at a time,
//! on a connection that reads cannot take. As long as anything is answered, commits and errors of the database among it, a
//! slow read is waited for. After a second in which nothing
//! was, the circuit is open: the reads under way are given up, and further reads and commits are refused at once as
//! unavailable. The questions go on, and the first answer closes the circuit. What the use cases know already they still
//! show (stale-if-error).
//!
//! A read that is given up, or whose caller goes away, comes to its end in a task of its own: a connection is never left in the
//! middle of an answer. Loads by key need no such task: workers of the adapter run them.
//!
//! In front of storage that answers, a read costs two looks at the clock, and a timer. A query (not a load by key) that is
//! not answered at its first poll also costs a spawned task and a box, so each one on PostgreSQL does. A commit costs one
//! look at the clock.

use std::error::Error;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use frontrow_domain::account::{Account, Entry};
use frontrow_domain::audit_log::AuditEntry;
use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::idempotency::{IdempotencyKey, IdempotencyRecord};
use frontrow_domain::ports::{
    AccountQueries, Accounts, AdminQueries, Committer, ConcertQueries, Concerts, DateFilter, DateSummary,
    IdempotencyRecords, Offer, QueueQueries, QueueTokens, ReservationQueries, ReservationView, Reservations,
    RoomOverview, Rooms, Sales, SeatFeeds, SeatNews, Seats, SeatsOfDate, StorageError, StorageHealth,
    StoredLines, Writability,
};
use frontrow_domain::queue::{Departure, QueueToken, Room, RoomWithWaiters, TicketNumber};
use frontrow_domain::reservation::{Holdings, Reservation};
use frontrow_domain::seat::{FeedVersion, Seat};
use frontrow_domain::unit_of_work::{CommitError, Committed, UnitOfWork};
use frontrow_domain::{
    AuditEntryId, ConcertId, IncarnationId, PerformanceDateId, QueueTokenId, ReservationId, RoomId, SeatId,
    Timestamp, UserId, Versioned,
};
use futures_util::FutureExt;
use tokio::time::{Instant, sleep, timeout};

use crate::Storage;

/// The most reads that go on in tasks of their own.
const MAX_DETACHED: usize = 1_024;
/// How long to wait after a question that failed at once.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Storage behind a circuit breaker, which opens after `silence` without any answer.
#[must_use]
pub fn with_circuit_breaker(storage: Storage, silence: Duration) -> Storage {
    let breaker = Breaker(Arc::new(Inner {
        health: storage.health.clone(),
        silence,
        began: Instant::now(),
        last_answer: AtomicU64::new(0),
        is_open: AtomicBool::new(false),
        is_asking: AtomicBool::new(false),
        detached: AtomicUsize::new(0),
    }));
    let Storage {
        committer,
        queue_tokens,
        rooms,
        concerts,
        seats,
        reservations,
        accounts,
        idempotency_records,
        queue_queries,
        concert_queries,
        seat_feeds,
        reservation_queries,
        account_queries,
        admin_queries,
        health,
    } = storage;
    Storage {
        committer: breaker.guard(committer),
        queue_tokens: breaker.guard(queue_tokens),
        rooms: breaker.guard(rooms),
        concerts: breaker.guard(concerts),
        seats: breaker.guard(seats),
        reservations: breaker.guard(reservations),
        accounts: breaker.guard(accounts),
        idempotency_records: breaker.guard(idempotency_records),
        queue_queries: breaker.guard(queue_queries),
        concert_queries: breaker.guard(concert_queries),
        seat_feeds: breaker.guard(seat_feeds),
        reservation_queries: breaker.guard(reservation_queries),
        account_queries: breaker.guard(account_queries),
        admin_queries: breaker.guard(admin_queries),
        health: breaker.guard(health),
    }
}

/// Why a call is refused without, or before, an answer.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Refused {
    #[error("storage has not answered for {0:?}")]
    Silent(Duration),
    #[error("too many reads are under way")]
    TooMany,
    #[error("the read has ended without an answer")]
    Lost,
}

impl From<Refused> for StorageError {
    fn from(refused: Refused) -> Self {
        Self::Unavailable(Box::new(refused))
    }
}

/// The circuit breaker of one storage. Cloning shares it.
#[derive(Clone)]
struct Breaker(Arc<Inner>);

struct Inner {
    health: Arc<dyn StorageHealth>,
    silence: Duration,
    began: Instant,
    /// When storage last answered anything, in microseconds since `began`.
    last_answer: AtomicU64,
    is_open: AtomicBool,
    /// A question is under way.
    is_asking: AtomicBool,
    /// How many reads go on in tasks of their own.
    detached: AtomicUsize,
}

impl Breaker {
    fn guard<P: ?Sized, G>(&self, port: Arc<P>) -> Arc<G>
    where
        Guarded<P>: Into<Arc<G>>,
        G: ?Sized,
    {
        Guarded { port, breaker: self.clone() }.into()
    }

    /// Runs a read that may be dropped at any time, as another task does the work.
    async fn load<T>(
        &self,
        read: impl Future<Output = Result<T, StorageError>> + Send,
    ) -> Result<T, StorageError> {
        self.require_closed()?;
        let asked_at = Instant::now();
        let mut read = pin!(read);
        let mut has_asked = false;
        loop {
            let waits_since = Instant::now();
            if let Ok(answer) = timeout(self.0.silence / 2, read.as_mut()).await {
                if has_answered(&answer) {
                    self.heard();
                }
                return answer;
            }
            // A task that is woken much too late had no processor, or the process was stopped: no fault of storage.
            let was_awake = waits_since.elapsed() < self.0.silence;
            if has_asked && was_awake && self.is_silent_since(asked_at) {
                self.open();
            }
            self.require_closed()?;
            self.ask();
            has_asked = true;
        }
    }

    /// Runs a read in a task of its own, which ends also when the caller goes away.
    async fn query<T: Send + 'static>(
        &self,
        read: impl Future<Output = Result<T, StorageError>> + Send + 'static,
    ) -> Result<T, StorageError> {
        self.require_closed()?;
        let mut read = Box::pin(read);
        // On SQLite and in memory many are answered at once.
        if let Some(answer) = read.as_mut().now_or_never() {
            return answer;
        }
        let place = Place::take(&self.0)?;
        let breaker = self.clone();
        let task = tokio::spawn(async move {
            let _place = place;
            let answer = read.await;
            if has_answered(&answer) {
                breaker.heard();
            }
            answer
        });
        self.load(async { task.await.unwrap_or_else(|_| Err(Refused::Lost.into())) }).await
    }

    fn require_closed(&self) -> Result<(), Refused> {
        if !self.0.is_open.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.ask();
        Err(Refused::Silent(self.0.silence))
    }

    /// Storage has answered.
    fn heard(&self) {
        let inner = &*self.0;
        let since = u64::try_from(inner.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        inner.last_answer.fetch_max(since, Ordering::Relaxed);
        if inner.is_open.load(Ordering::Relaxed) && inner.is_open.swap(false, Ordering::Relaxed) {
            tracing::info!("storage answers again");
        }
    }

    /// Whether a read that has waited since then, and every other read, had no answer for too long.
    fn is_silent_since(&self, asked_at: Instant) -> bool {
        let inner = &*self.0;
        let last_answer = inner.began + Duration::from_micros(inner.last_answer.load(Ordering::Relaxed));
        last_answer.max(asked_at).elapsed() >= inner.silence
    }

    fn open(&self) {
        if !self.0.is_open.swap(true, Ordering::Relaxed) {
            let silence = self.0.silence;
            tracing::warn!("storage has not answered for {silence:?}: calls are refused until it does");
        }
    }

    /// Asks storage for a sign of life, while the circuit is open until there is one. One such task at a time.
    fn ask(&self) {
        let Some(turn) = Turn::take(&self.0) else { return };
        let breaker = self.clone();
        tokio::spawn(async move {
            let _turn = turn;
            loop {
                if has_answered(&breaker.0.health.writability().await) {
                    breaker.heard();
                }
                if !breaker.0.is_open.load(Ordering::Relaxed) {
                    return;
                }
                sleep(ASK_EVERY).await;
            }
        });
    }
}

/// Whether storage has answered. A corrupt row is an answer, and so is an error of the database, such as a timeout of a lock
/// or of a statement.
fn has_answered<T>(answer: &Result<T, StorageError>) -> bool {
    match answer {
        Err(StorageError::Unavailable(cause)) => is_of_database(cause.as_ref()),
        Ok(_) | Err(StorageError::Corrupt(_)) => true,
    }
}

/// Whether the database itself reported an error, rather than its connection.
fn is_of_database(error: &(dyn Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.any(|cause| match cause.downcast_ref() {
        Some(DieselError::DatabaseError(kind, _)) => {
            !matches!(kind, DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand)
        }
        _ => false,
    })
}

/// The right to ask, until it is dropped.
struct Turn(Arc<Inner>);

impl Turn {
    fn take(inner: &Arc<Inner>) -> Option<Self> {
        (!inner.is_asking.swap(true, Ordering::Relaxed)).then(|| Self(inner.clone()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.is_asking.store(false, Ordering::Relaxed);
    }
}

/// A place among the reads that go on in tasks of their own, until it is dropped.
struct Place(Arc<Inner>);

impl Place {
    fn take(inner: &Arc<Inner>) -> Result<Self, Refused> {
        let place = Self(inner.clone());
        let others = inner.detached.fetch_add(1, Ordering::Relaxed);
        if others < MAX_DETACHED { Ok(place) } else { Err(Refused::TooMany) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.detached.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A port behind a breaker.
struct Guarded<P: ?Sized> {
    port: Arc<P>,
    breaker: Breaker,
}

/// Ports whose every method is a read: `load` by key, or `query`.
macro_rules! guarded {
    ($($port:ident { $($way:ident $method:ident($($name:ident: $type:ty),*) -> $answer:ty;)* })*) => { $(
        impl From<Guarded<dyn $port>> for Arc<dyn $port> {
            fn from(guarded: Guarded<dyn $port>) -> Self {
                Arc::new(guarded)
            }
        }

        #[async_trait]
        impl $port for Guarded<dyn $port> {
            $(
                async fn $method(&self, $($name: $type),*) -> Result<$answer, StorageError> {
                    guarded!($way, self, port, port.$method($($name),*))
                }
            )*
        }
    )* };
    (load, $self:ident, $port:ident, $call:expr) => {{
        let $port = &$self.port;
        $self.breaker.load($call).await
    }};
    (query, $self:ident, $port:ident, $call:expr) => {{
        let $port = $self.port.clone();
        $self.breaker.query(async move { $call.await }).await
    }};
}

guarded! {
    QueueTokens {
        load find(id: QueueTokenId) -> Option<Versioned<QueueToken>>;
        load find_live(room_id: RoomId, user_id: UserId) -> Option<Versioned<QueueToken>>;
    }
    Rooms {
        load find(id: RoomId) -> Option<Versioned<Room>>;
        load find_with_waiters(id: RoomId) -> Option<RoomWithWaiters>;
        query due(now: Timestamp, after: Option<(Timestamp, RoomId)>, limit: u32) -> Vec<RoomWithWaiters>;
    }
    Concerts {
        load find(id: ConcertId) -> Option<Concert>;
        load find_date(id: PerformanceDateId) -> Option<(PerformanceDate, Concert)>;
        query sales_starts(id: ConcertId) -> Vec<Option<Timestamp>>;
    }
    Seats {
        load find_many(ids: Vec<SeatId>) -> Vec<Versioned<Seat>>;
    }
    Reservations {
        load find(id: ReservationId) -> Option<Versioned<Reservation>>;
        load holdings(user_id: UserId, date_id: PerformanceDateId, now: Timestamp) -> Holdings;
    }
    Accounts {
        load find(user_id: UserId) -> Option<Versioned<Account>>;
    }
    IdempotencyRecords {
        load find(user_id: UserId, key: &IdempotencyKey) -> Option<IdempotencyRecord>;
    }
    QueueQueries {
        query lines() -> StoredLines;
        query lines_of(rooms: Vec<RoomId>) -> StoredLines;
        query begin_incarnation(after: IncarnationId, now: Timestamp) -> ();
        query rooms_after(after: Option<RoomId>, limit: u32) -> Vec<RoomId>;
        query departures(after: Vec<(RoomId, i64)>, limit: u32) -> Vec<(RoomId, Departure)>;
        query departed_tickets(room_id: RoomId, after: TicketNumber, limit: u32) -> Vec<TicketNumber>;
    }
    ConcertQueries {
        query offers(ids: Vec<ConcertId>, now: Timestamp) -> Vec<(ConcertId, Offer)>;
        query list_concerts(after: Option<ConcertId>, limit: u32) -> Vec<Concert>;
        query list_dates(concert_id: ConcertId, filter: DateFilter, now: Timestamp) -> Vec<DateSummary>;
    }
    SeatFeeds {
        query versions(ids: Vec<PerformanceDateId>) -> Vec<(PerformanceDateId, FeedVersion)>;
        query news(id: PerformanceDateId, since: FeedVersion) -> Option<SeatNews>;
        query load(id: PerformanceDateId) -> Option<SeatsOfDate>;
    }
    ReservationQueries {
        query find_own(user_id: UserId, id: ReservationId, now: Timestamp) -> Option<ReservationView>;
        query list_own(
            user_id: UserId,
            before: Option<ReservationId>,
            limit: u32,
            now: Timestamp
        ) -> Vec<ReservationView>;
    }
    AccountQueries {
        query list_entries(user_id: UserId, before: Option<i64>, limit: u32) -> Vec<Entry>;
    }
    AdminQueries {
        query list_rooms(after: Option<RoomId>, limit: u32, now: Timestamp) -> Vec<RoomOverview>;
        query find_room(id: RoomId, now: Timestamp) -> Option<RoomOverview>;
        query sales(id: PerformanceDateId, now: Timestamp) -> Option<Sales>;
        query list_audit_log(before: Option<AuditEntryId>, limit: u32) -> Vec<AuditEntry>;
    }
    StorageHealth {
        query writability() -> Writability;
    }
}

impl From<Guarded<dyn Committer>> for Arc<dyn Committer> {
    fn from(guarded: Guarded<dyn Committer>) -> Self {
        Arc::new(guarded)
    }
}

#[async_trait]
impl Committer for Guarded<dyn Committer> {
    /// One that is under way when the circuit opens keeps its own bounds: only its adapter knows what was sent.
    async fn commit(&self, work: UnitOfWork) -> Result<Committed, CommitError> {
        let open = |refused| CommitError::Unavailable(Box::new(refused));
        self.breaker.require_closed().map_err(open)?;
        let outcome = self.port.commit(work).await;
        if !matches!(outcome, Err(CommitError::Unavailable(_) | CommitError::OutcomeUnknown(_))) {
            self.breaker.heard();
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::Memory;

    const SILENCE: Duration = Duration::from_millis(400);
    /// Sooner than half of it: without waiting for an answer.
    const AT_ONCE: Duration = Duration::from_millis(150);

    /// Storage whose answers to two kinds of reads can be held back.
    #[derive(Default)]
    struct Stub {
        is_silent: AtomicBool,
        /// Only the list of rooms is slow.
        is_slow: AtomicBool,
        pings: AtomicUsize,
        ended: Mutex<Vec<&'static str>>,
    }

    impl Stub {
        async fn wait(&self, is_held_back: &AtomicBool) {
            while is_held_back.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(1)).await;
            }
        }

        fn speak(&self) {
            self.is_silent.store(false, Ordering::SeqCst);
            self.is_slow.store(false, Ordering::SeqCst);
        }
    }

    #[async_trait]
    impl AdminQueries for Stub {
        async fn list_rooms(
            &self,
            _: Option<RoomId>,
            _: u32,
            _: Timestamp,
        ) -> Result<Vec<RoomOverview>, StorageError> {
            tokio::task::yield_now().await;
            self.wait(&self.is_slow).await;
            self.wait(&self.is_silent).await;
            self.ended.lock().unwrap().push("rooms");
            Ok(Vec::new())
        }

        async fn find_room(&self, _: RoomId, _: Timestamp) -> Result<Option<RoomOverview>, StorageError> {
            Ok(None)
        }

        async fn sales(&self, _: PerformanceDateId, _: Timestamp) -> Result<Option<Sales>, StorageError> {
            Ok(None)
        }

        async fn list_audit_log(
            &self,
            _: Option<AuditEntryId>,
            _: u32,
        ) -> Result<Vec<AuditEntry>, StorageError> {
            Ok(Vec::new())
        }
    }

    #[async_trait]
    impl StorageHealth for Stub {
        async fn writability(&self) -> Result<Writability, StorageError> {
            self.pings.fetch_add(1, Ordering::SeqCst);
            self.wait(&self.is_silent).await;
            Ok(Writability::Writable)
        }
    }

    fn guarded() -> (Arc<Stub>, Storage) {
        let stub = Arc::new(Stub::default());
        let memory = Storage::new(Arc::new(Memory::new()));
        let storage = Storage { admin_queries: stub.clone(), health: stub.clone(), ..memory };
        (stub, with_circuit_breaker(storage, SILENCE))
    }

    async fn eventually(is_so: impl AsyncFn() -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !is_so().await {
            assert!(Instant::now() < until, "it never is");
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn list(storage: &Storage) -> (Result<(), StorageError>, Duration) {
        let asked_at = Instant::now();
        let answer = storage.admin_queries.list_rooms(None, 1, Timestamp::MIN).await;
        (answer.map(|_| ()), asked_at.elapsed())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn silence_is_given_up_after_a_second_and_then_at_once() {
        let (stub, storage) = guarded();
        list(&storage).await.0.unwrap();
        stub.is_silent.store(true, Ordering::SeqCst);
        let (answer, took) = list(&storage).await;
        assert!(answer.is_err() && took >= SILENCE && took <= SILENCE * 5, "{took:?}");
        let mut slow = 0;
        for _ in 0..100 {
            let (answer, took) = list(&storage).await;
            answer.unwrap_err();
            slow += usize::from(took > AT_ONCE);
            let commit = storage.committer.commit(UnitOfWork::default()).await;
            assert!(matches!(commit, Err(CommitError::Unavailable(_))), "{commit:?}");
        }
        assert!(slow < 10, "{slow} of 100 have waited");
        assert_eq!(stub.pings.load(Ordering::SeqCst), 1, "one question at a time");
        stub.speak();
        eventually(async || storage.health.writability().await.is_ok()).await;
        list(&storage).await.0.unwrap();
        storage.committer.commit(UnitOfWork::default()).await.unwrap();
        let ended = async || stub.ended.lock().unwrap().len() == 3;
        eventually(ended).await;
    }

    /// The control: without the breaker the same read waits for as long as storage is silent.
    #[tokio::test(flavor = "multi_thread")]
    async fn control_without_a_breaker_silence_is_waited_for() {
        let stub = Stub::default();
        stub.is_silent.store(true, Ordering::SeqCst);
        let read = stub.list_rooms(None, 1, Timestamp::MIN);
        assert!(timeout(SILENCE * 4, read).await.is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn slow_read_is_waited_for_while_storage_answers_others() {
        let (stub, storage) = guarded();
        stub.is_slow.store(true, Ordering::SeqCst);
        let later = async {
            sleep(SILENCE * 3).await;
            stub.speak();
        };
        let ((answer, took), ()) = tokio::join!(list(&storage), later);
        answer.unwrap();
        assert!(took >= SILENCE * 3, "{took:?}");
        assert!(stub.pings.load(Ordering::SeqCst) > 1);
    }

    /// Of that test without commits, `silence_is_given_up_after_a_second_and_then_at_once` is the control.
    #[tokio::test(flavor = "multi_thread")]
    async fn slow_reads_refuse_no_commit_while_commits_are_answered() {
        let (stub, storage) = guarded();
        stub.is_silent.store(true, Ordering::SeqCst);
        let commits = async {
            let until = Instant::now() + SILENCE * 6;
            while Instant::now() < until {
                storage.committer.commit(UnitOfWork::default()).await.unwrap();
                sleep(SILENCE / 40).await;
            }
            stub.speak();
        };
        let ((answer, took), ()) = tokio::join!(list(&storage), commits);
        answer.unwrap();
        assert!(took >= SILENCE * 5, "{took:?}");
    }

    #[test]
    fn errors_of_the_database_are_answers_and_those_of_a_connection_are_not() {
        let failed = |kind| {
            let error = DieselError::DatabaseError(kind, Box::new("canceled".to_owned()));
            Err::<(), _>(StorageError::Unavailable(Box::new(error)))
        };
        assert!(has_answered(&failed(DatabaseErrorKind::Unknown)));
        // As an error that several callers share wraps it.
        let nested = failed(DatabaseErrorKind::Unknown).unwrap_err();
        assert!(has_answered(&Err::<(), _>(StorageError::Unavailable(Box::new(nested)))));
        assert!(!has_answered(&failed(DatabaseErrorKind::ClosedConnection)));
        assert!(!has_answered(&failed(DatabaseErrorKind::UnableToSendCommand)));
        assert!(!has_answered::<()>(&Err(Refused::Lost.into())));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn read_ends_although_its_caller_is_gone() {
        let (stub, storage) = guarded();
        stub.is_slow.store(true, Ordering::SeqCst);
        assert!(timeout(SILENCE / 4, list(&storage)).await.is_err());
        stub.speak();
        eventually(async || *stub.ended.lock().unwrap() == ["rooms"]).await;
        // The control: without the breaker it goes with its caller.
        stub.is_slow.store(true, Ordering::SeqCst);
        assert!(timeout(SILENCE / 4, stub.list_rooms(None, 1, Timestamp::MIN)).await.is_err());
        stub.speak();
        sleep(SILENCE / 4).await;
        assert_eq!(*stub.ended.lock().unwrap(), ["rooms"]);
    }
}
