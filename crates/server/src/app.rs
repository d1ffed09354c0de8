//! The composition root: puts adapters behind ports, ports behind use cases, use cases behind HTTP, and runs it all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use anyhow::{Context, Result, anyhow, bail};
use frontrow_app::{
    Abandonment, AccountService, AdminService, Admission, AnnouncingCommitter, ConcertService, Expiry, Gate,
    HoldRules, Idempotency, KnownConcerts, Lines, NodeComparison, Offers, PaymentService, Pruning,
    QueueService, Readiness, ReservationService, SeatMaps, SessionService, UseCases, WatchedCommitter,
};
use frontrow_domain::NodeId;
use frontrow_domain::account::WalletCharging;
use frontrow_domain::ports::{AccessTokens, Clock, IdGenerator, NodeRecord, TokenProvider};
use frontrow_domain::queue::RoomPolicy;
use frontrow_infra::identity::{UuidV7, WaitTokens};
use frontrow_infra::{Storage, with_circuit_breaker};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::backend::{Backend, DatabaseOptions, migrate};
use crate::cli::{DatabaseUrl, Options};
use crate::file::ServeLock;
use crate::http::{ClientRules, listen, serve};
use crate::scheduler::{Scheduler, Watched, Work};
use crate::tokens::TokenSettings;

/// How long storage may answer nothing, before calls are refused without waiting for it.
pub const STORAGE_SILENCE: Duration = Duration::from_secs(1);

/// What a server is made of.
#[derive(Clone)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one.
    pub bind: String,
    /// The database.
    pub database: DatabaseUrl,
    /// What tokens are signed and checked with.
    pub tokens: TokenSettings,
    /// The limits of holds.
    pub hold_rules: HoldRules,
    /// Who may charge a wallet.
    pub wallet_charging: WalletCharging,
    /// The policy of the global room when it is first made.
    pub global_policy: RoomPolicy,
    /// How the database is used.
    pub database_options: DatabaseOptions,
    /// How long a queue token is kept after its end, in seconds.
    pub keep_tokens_for: u32,
    /// What clients may do.
    pub clients: ClientRules,
    /// Whether to bring the schema up to date.
    pub migrate: bool,
    /// How long storage may answer nothing, before calls are refused without waiting for it.
    pub storage_silence: Duration,
}

impl Settings {
    /// The settings that the command line asks for.
    ///
    /// # Errors
    /// A secret, key or number that is not usable.
    pub fn new(options: &Options, migrate: bool) -> Result<Self> {
        let database = options.database()?;
        Ok(Self {
            bind: options.bind.clone(),
            tokens: TokenSettings::new(options, &database)?,
            hold_rules: options.hold_rules(),
            wallet_charging: options.wallet_charging.into(),
            global_policy: options.global_policy()?,
            database_options: options.database_options(),
            keep_tokens_for: options.keep_tokens_for(),
            clients: options.client_rules(),
            database,
            migrate,
            storage_silence: STORAGE_SILENCE,
        })
    }

    /// What the node says of itself to the others: they must agree in all of it.
    fn record(&self, id: NodeId) -> NodeRecord {
        let rule = |name: &str, value: String| (name.to_owned(), value);
        let expected = &self.tokens.expected;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let rules = vec![
            rule("holdSeconds", self.hold_rules.hold_seconds.to_string()),
            rule("maxSeatsPerUser", self.hold_rules.max_seats_per_user.to_string()),
            rule("walletCharging", format!("{:?}", self.wallet_charging)),
            rule("tokenRetentionSeconds", self.keep_tokens_for.to_string()),
            rule("identityProvider", self.tokens.provider_kind().to_owned()),
            rule("identityIssuer", text(&expected.issuer)),
            rule("identityAudience", text(&expected.audience)),
            rule("identityRoleClaim", text(&expected.role_claim)),
        ];
        NodeRecord { id, secrets: self.tokens.ring.names(), rules }
    }

    const fn rules(&self) -> Rules {
        Rules {
            holds: self.hold_rules,
            charging: self.wallet_charging,
            keep_tokens_for: self.keep_tokens_for,
        }
    }
}

/// What of the business is configured.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The limits of holds.
    pub holds: HoldRules,
    /// Who may charge a wallet.
    pub charging: WalletCharging,
    /// How long a queue token is kept after its end, in seconds.
    pub keep_tokens_for: u32,
}

/// The ports that are no storage.
#[derive(Clone)]
#[allow(missing_docs, reason = "each field is the port of its type")]
pub struct Identity {
    pub access_tokens: Arc<dyn AccessTokens>,
    pub wait_tokens: Arc<dyn TokenProvider>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdGenerator>,
}

/// What a node does: for those who ask, and by itself.
pub struct Node {
    /// Every use case that a transport calls.
    pub use_cases: UseCases,
    /// Every use case that the scheduler runs.
    pub work: Work,
}

impl Node {
    /// Puts ports behind use cases. Several nodes may share a storage; each has views and maps of its own.
    #[must_use]
    pub fn new(storage: Storage, identity: &Identity, rules: Rules) -> Self {
        let clock = &identity.clock;
        let lines = Lines::new(storage.queue_queries.clone(), storage.queue_tokens.clone(), clock.clone());
        let seat_maps = SeatMaps::new(storage.seat_feeds.clone(), clock.clone(), lines.incarnation());
        let storage = showing(storage, &lines, &seat_maps);
        let use_cases = compose(&storage, identity, &lines, &seat_maps, rules);
        let work = Work {
            admission: use_cases.admin.admission.clone(),
            expiry: Expiry { committer: storage.committer.clone(), clock: clock.clone() },
            abandonment: Abandonment::new(lines.clone(), storage.committer.clone(), clock.clone()),
            pruning: Pruning::new(
                storage.queue_queries.clone(),
                storage.committer.clone(),
                clock.clone(),
                rules.keep_tokens_for,
            ),
            lines,
            seat_maps,
        };
        Self { use_cases, work }
    }
}

/// A server that runs.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    handle: ServerHandle,
    server: JoinHandle<std::io::Result<()>>,
    scheduler: Scheduler,
    backend: Backend,
    _lock: Arc<ServeLock>,
}

/// Opens the database, starts the scheduler and listens.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn start(settings: Settings) -> Result<Running> {
    let (access_tokens, key_set) = settings.tokens.checking()?;
    let listener = listen(&settings.bind)?;
    let (database, migrates) = (settings.database.clone(), settings.migrate);
    let lock = spawn_blocking(move || ServeLock::take(&database, migrates)).await??;
    // Both may take long: the integrity of a file is checked after an unclean end.
    let lock = spawn_blocking(move || lock.settle().map(|()| lock)).await??;
    if settings.migrate {
        prepare(&settings.database, settings.global_policy).await?;
    }
    let lock = Arc::new(spawn_blocking(move || lock.mark().map(|()| lock)).await??);
    let backend = Backend::open(&settings.database, settings.database_options).await?;
    let clock = Arc::new(backend.clock().await?);
    let identity = Identity {
        access_tokens,
        wait_tokens: Arc::new(WaitTokens::new(&settings.tokens.ring)),
        clock: clock.clone(),
        ids: Arc::new(UuidV7::new(clock.clone())),
    };
    let storage = with_circuit_breaker(backend.storage(), settings.storage_silence);
    let Node { use_cases, work } = Node::new(storage, &identity, settings.rules());
    let readiness = use_cases.readiness.clone();
    let own = settings.record(NodeId::new(identity.ids.next_id()));
    let nodes = backend.nodes().map(|registry| NodeComparison::new(own, registry, readiness.nodes()));
    check_global_room(&use_cases, settings.global_policy).await?;
    let address = listener.local_addr()?;
    let server = serve(listener, use_cases, settings.clients)?;
    let handle = server.handle();
    let watched = Watched { key_set, nodes, lock: Arc::downgrade(&lock) };
    let scheduler = Scheduler::start(work, clock, backend.clone(), watched, &readiness.passes());
    let server = tokio::spawn(server);
    Ok(Running { address, handle, server, scheduler, backend, _lock: lock })
}

impl Running {
    /// Runs until `stop` is ready, then stops.
    ///
    /// # Errors
    /// When the HTTP server ends before that: it cannot be started again, so the process has to be.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<()> {
        let ended = tokio::select! {
            ended = &mut self.server => Some(ended),
            () = stop => None,
        };
        let Some(ended) = ended else { return self.stop().await };
        let cause = ended_by(ended).err().unwrap_or_else(|| anyhow!("it was stopped"));
        self.scheduler.stop().await;
        self.backend.close().await;
        Err(cause).context("the HTTP server has ended")
    }

    /// Stops: takes no more connections, finishes what runs, flushes the writer; all within a bound.
    ///
    /// # Errors
    /// When the HTTP server had failed.
    pub async fn stop(self) -> Result<()> {
        self.handle.stop(true).await;
        self.scheduler.stop().await;
        self.backend.close().await;
        ended_by(self.server.await)
    }
}

/// How the task of the HTTP server ended.
fn ended_by(ended: Result<std::io::Result<()>, JoinError>) -> Result<()> {
    Ok(ended??)
}

/// Brings a database up to date: its schema, and the global room. Returns that room's policy.
///
/// # Errors
/// When it cannot be reached or changed.
pub async fn prepare(database: &DatabaseUrl, policy: RoomPolicy) -> Result<RoomPolicy> {
    migrate(database).await?;
    let backend = Backend::open(database, DatabaseOptions::for_preparation()).await?;
    let clock = Arc::new(backend.clock().await?);
    let admin = admin_service(&backend.storage(), clock.clone(), Arc::new(UuidV7::new(clock)));
    let policy = admin.ensure_global_room(policy).await;
    backend.close().await;
    Ok(policy?)
}

/// Warns when the global room was made with another policy than is asked for now: operators change it, options do not.
async fn check_global_room(use_cases: &UseCases, wanted: RoomPolicy) -> Result<()> {
    let policy = use_cases.admin.global_policy().await?;
    let Some(policy) = policy else { bail!("the database has no global room: run `frontrow migrate`") };
    let timing =
        |policy: RoomPolicy| (policy.admit_batch, policy.admit_interval_seconds, policy.active_ttl_seconds);
    if timing(policy) != timing(wanted) {
        tracing::warn!(
            "the global room keeps its policy; the options for it differ and change nothing (PATCH /admin/rooms does)"
        );
    }
    Ok(())
}

fn admin_service(storage: &Storage, clock: Arc<dyn Clock>, ids: Arc<dyn IdGenerator>) -> AdminService {
    let admission = Admission {
        rooms: storage.rooms.clone(),
        committer: storage.committer.clone(),
        clock: clock.clone(),
    };
    AdminService {
        admission,
        rooms: storage.rooms.clone(),
        concerts: storage.concerts.clone(),
        queries: storage.admin_queries.clone(),
        clock,
        ids,
    }
}

/// Storage as a node uses it that serves: what it commits is in its views of lines and on its seat maps at once, and
/// concerts and dates are read once.
fn showing(storage: Storage, lines: &Lines, seat_maps: &SeatMaps) -> Storage {
    let committer = Arc::new(WatchedCommitter::new(storage.committer, lines.clone()));
    let committer = Arc::new(AnnouncingCommitter::new(committer, seat_maps.clone()));
    let concerts = Arc::new(KnownConcerts::new(storage.concerts, lines.incarnation()));
    Storage { committer, concerts, ..storage }
}

fn compose(
    storage: &Storage,
    identity: &Identity,
    lines: &Lines,
    seat_maps: &SeatMaps,
    rules: Rules,
) -> UseCases {
    let Identity { access_tokens, wait_tokens, clock, ids } = identity.clone();
    let gate = Gate::new(wait_tokens.clone(), storage.queue_tokens.clone(), lines.clone(), clock.clone());
    let idempotency = Idempotency::new(storage.idempotency_records.clone(), clock.clone());
    let offers = Offers::new(storage.concert_queries.clone(), clock.clone(), lines.incarnation());
    UseCases {
        sessions: SessionService { tokens: access_tokens, clock: clock.clone(), ids: ids.clone() },
        gate: gate.clone(),
        idempotency: idempotency.clone(),
        queue: QueueService {
            gate: gate.clone(),
            provider: wait_tokens,
            concerts: storage.concerts.clone(),
            offers: offers.clone(),
            tokens: storage.queue_tokens.clone(),
            lines: lines.clone(),
            committer: storage.committer.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
        },
        concerts: ConcertService::new(
            storage.concerts.clone(),
            storage.concert_queries.clone(),
            offers,
            seat_maps.clone(),
            clock.clone(),
        ),
        reservations: ReservationService {
            rules: rules.holds,
            gate,
            reservations: storage.reservations.clone(),
            concerts: storage.concerts.clone(),
            seats: storage.seats.clone(),
            queries: storage.reservation_queries.clone(),
            committer: storage.committer.clone(),
            idempotency: idempotency.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
        },
        accounts: AccountService {
            charging: rules.charging,
            accounts: storage.accounts.clone(),
            queries: storage.account_queries.clone(),
            committer: storage.committer.clone(),
            idempotency: idempotency.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
        },
        payment: PaymentService {
            reservations: storage.reservations.clone(),
            accounts: storage.accounts.clone(),
            seats: storage.seats.clone(),
            tokens: storage.queue_tokens.clone(),
            committer: storage.committer.clone(),
            idempotency,
            clock: clock.clone(),
            ids: ids.clone(),
        },
        readiness: Readiness::new(storage.health.clone()),
        admin: admin_service(storage, clock, ids),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use frontrow_domain::account::WalletCharging;
    use frontrow_infra::identity::{Expected, KeyRing, Secret};
    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;

    async fn started() -> (TempDir, Running) {
        let folder = tempfile::tempdir().unwrap();
        let secret = Secret::new("a secret for tests and for nothing else").unwrap();
        let (provider, expected) = (None, Expected::default());
        let settings = Settings {
            bind: "127.0.0.1:0".to_owned(),
            database: DatabaseUrl::Sqlite(folder.path().join("test.db")),
            tokens: TokenSettings { ring: KeyRing::from(&secret), provider, expected },
            hold_rules: HoldRules { hold_seconds: 300, max_seats_per_user: 4 },
            wallet_charging: WalletCharging::default(),
            global_policy: RoomPolicy::default(),
            database_options: DatabaseOptions::default(),
            storage_silence: STORAGE_SILENCE,
            keep_tokens_for: 3_600,
            clients: ClientRules::default(),
            migrate: true,
        };
        let running = start(settings).await.unwrap();
        (folder, running)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_http_server_that_ends_by_itself_ends_the_process_with_an_error() {
        let (_folder, running) = started().await;
        let handle = running.handle.clone();
        let ended = tokio::spawn(running.run_until(pending()));
        handle.stop(false).await;
        let ended = timeout(Duration::from_secs(60), ended).await.expect("the end is noticed").unwrap();
        assert!(format!("{:#}", ended.unwrap_err()).contains("the HTTP server has ended"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_is_told_to_stop_ends_in_order() {
        let (_folder, running) = started().await;
        running.run_until(ready(())).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_task_of_the_http_server_may_panic() {
        let (_folder, mut running) = started().await;
        running.handle.stop(false).await;
        running.server = tokio::spawn(async { panic!("on purpose") });
        let ended = timeout(Duration::from_secs(60), running.run_until(pending())).await.expect("noticed");
        assert!(format!("{:#}", ended.unwrap_err()).contains("panic"));
    }
}
