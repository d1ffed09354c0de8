//! The composition root: puts adapters behind ports, ports behind use cases, use cases behind HTTP, and runs it all.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use anyhow::{Context, Result, bail};
use frontrow_api::{ApiState, OverloadLimits};
use frontrow_app::{
    Abandonment, AccountService, AdminService, Admission, AnnouncingCommitter, ConcertService, Expiry, Gate,
    HoldRules, Idempotency, KnownConcerts, Lines, PaymentService, Pruning, QueueService, ReservationService,
    SeatMaps, SessionService, UseCases, WatchedCommitter,
};
use frontrow_domain::ports::{AccessTokens, Clock, IdGenerator, TokenProvider};
use frontrow_domain::queue::RoomPolicy;
use frontrow_infra::Storage;
use frontrow_infra::identity::{AccessKey, Secret, SystemClock, UuidV7, VerifiedTokens, WaitTokens};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

use crate::backend::{Backend, ServeLock, migrate};
use crate::cli::{DatabaseUrl, Options};
use crate::scheduler::{Scheduler, Work};
use crate::secret;

/// How long a request that runs may take to finish when the server stops, in seconds.
const STOP_WITHIN_SECONDS: u64 = 10;
/// How long a client may take to send the head of a request.
const REQUEST_HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long an idle connection is kept: longer than the rarest poll, and than the 60 s after which usual proxies let go,
/// so that it is never we who close under a request.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How many connections may wait to be accepted: the first second of a sale. The kernel may allow fewer (`somaxconn`).
const BACKLOG: u32 = 4_096;
/// The most connections a worker serves at once; further ones wait in the backlog. There is a worker a core.
const CONNECTIONS_PER_WORKER: usize = 50_000;

/// What a server is made of.
#[derive(Clone)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one.
    pub bind: String,
    /// The database.
    pub database: DatabaseUrl,
    /// The server's secret.
    pub secret: Secret,
    /// The public key of an outside identity provider, in PEM.
    pub identity_public_key: Option<Vec<u8>>,
    /// The limits of holds.
    pub hold_rules: HoldRules,
    /// The policy of the global room when it is first made.
    pub global_policy: RoomPolicy,
    /// How many units of work one transaction takes at most; the adapter's own limit where nothing is said.
    pub group_commit_limit: Option<u16>,
    /// How many requests may be under way.
    pub overload: OverloadLimits,
    /// How long a queue token is kept after its end, in seconds.
    pub keep_tokens_for: u32,
    /// Whether to bring the schema up to date.
    pub migrate: bool,
}

impl Settings {
    /// The settings that the command line asks for.
    ///
    /// # Errors
    /// A secret, key or number that is not usable.
    pub fn new(options: &Options, migrate: bool) -> Result<Self> {
        let database = options.database()?;
        let read = |path| std::fs::read(path).context("cannot read --identity-public-key");
        Ok(Self {
            bind: options.bind.clone(),
            secret: secret::load(options.secret.as_deref(), &database)?,
            identity_public_key: options.identity_public_key.as_ref().map(read).transpose()?,
            hold_rules: options.hold_rules(),
            global_policy: options.global_policy()?,
            group_commit_limit: options.group_commit_limit,
            overload: options.overload(),
            keep_tokens_for: options.keep_tokens_for(),
            database,
            migrate,
        })
    }

    fn access_tokens(&self) -> Result<Arc<dyn AccessTokens>> {
        match &self.identity_public_key {
            None => Ok(Arc::new(VerifiedTokens::new(AccessKey::own(&self.secret)))),
            Some(pem) => {
                let key = AccessKey::outside(pem).context("--identity-public-key is not usable")?;
                Ok(Arc::new(VerifiedTokens::new(key)))
            }
        }
    }
}

/// The ports that are no storage.
#[derive(Clone)]
struct Identity {
    access_tokens: Arc<dyn AccessTokens>,
    wait_tokens: Arc<dyn TokenProvider>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGenerator>,
}

/// A server that runs.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    handle: ServerHandle,
    server: JoinHandle<std::io::Result<()>>,
    scheduler: Scheduler,
    backend: Backend,
    _lock: ServeLock,
}

/// Opens the database, starts the scheduler and listens.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn start(settings: Settings) -> Result<Running> {
    let access_tokens = settings.access_tokens()?;
    let listener = listen(&settings.bind)?;
    let lock = ServeLock::take(&settings.database)?;
    if settings.migrate {
        prepare(&settings.database, settings.global_policy).await?;
    }
    let backend = Backend::open(&settings.database, settings.group_commit_limit).await?;
    let clock = Arc::new(SystemClock::default());
    if let Some(offset) = backend.clock_offset_micros().await? {
        clock.correct(offset);
    }
    let storage = backend.storage();
    let lines = Lines::new(storage.queue_queries.clone(), storage.queue_tokens.clone(), clock.clone());
    let seat_maps = SeatMaps::new(storage.seat_feeds.clone(), clock.clone());
    let storage = showing(storage, &lines, &seat_maps);
    let identity = Identity {
        access_tokens,
        wait_tokens: Arc::new(WaitTokens::new(&settings.secret)),
        clock: clock.clone(),
        ids: Arc::new(UuidV7),
    };
    let use_cases = compose(&storage, &identity, &lines, &seat_maps, settings.hold_rules);
    check_global_room(&use_cases, settings.global_policy).await?;
    let work = Work {
        admission: use_cases.admin.admission.clone(),
        expiry: Expiry { committer: storage.committer.clone(), clock: clock.clone() },
        abandonment: Abandonment::new(lines.clone(), storage.committer.clone(), clock.clone()),
        pruning: Pruning::new(
            storage.queue_queries.clone(),
            storage.committer.clone(),
            clock.clone(),
            settings.keep_tokens_for,
        ),
        lines,
        seat_maps,
    };
    let address = listener.local_addr()?;
    let server = serve(listener, ApiState::new(use_cases, settings.overload))?;
    let handle = server.handle();
    let scheduler = Scheduler::start(work, clock, backend.clone());
    let server = tokio::spawn(server);
    Ok(Running { address, handle, server, scheduler, backend, _lock: lock })
}

impl Running {
    /// Stops: takes no more connections, finishes what runs, flushes the writer; all within a bound.
    ///
    /// # Errors
    /// When the HTTP server had failed.
    pub async fn stop(self) -> Result<()> {
        self.handle.stop(true).await;
        self.scheduler.stop().await;
        self.backend.close().await;
        Ok(self.server.await??)
    }
}

/// Brings a database up to date: its schema, and the global room. Returns that room's policy.
///
/// # Errors
/// When it cannot be reached or changed.
pub async fn prepare(database: &DatabaseUrl, policy: RoomPolicy) -> Result<RoomPolicy> {
    migrate(database).await?;
    let backend = Backend::open(database, None).await?;
    let admin = admin_service(&backend.storage(), Arc::new(SystemClock::default()), Arc::new(UuidV7));
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

fn listen(bind: &str) -> Result<TcpListener> {
    let addresses = bind.to_socket_addrs();
    let addresses = addresses.with_context(|| format!("--bind {bind} is no address"))?;
    let mut last = None;
    for address in addresses {
        match listen_on(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    let error = last.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into());
    Err(error).with_context(|| format!("cannot listen on {bind}"))
}

/// As the standard library does it, but with a backlog for a crowd: its own takes 128.
fn listen_on(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

fn serve(listener: TcpListener, state: ApiState) -> Result<actix_web::dev::Server> {
    let state = web::Data::new(state);
    let server =
        HttpServer::new(move || App::new().app_data(state.clone()).configure(frontrow_api::configure));
    let server = server
        .keep_alive(KEEP_ALIVE)
        .tcp_nodelay(true)
        .max_connections(CONNECTIONS_PER_WORKER)
        .client_request_timeout(REQUEST_HEAD_WITHIN)
        .shutdown_timeout(STOP_WITHIN_SECONDS)
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
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
    let concerts = Arc::new(KnownConcerts::new(storage.concerts));
    Storage { committer, concerts, ..storage }
}

fn compose(
    storage: &Storage,
    identity: &Identity,
    lines: &Lines,
    seat_maps: &SeatMaps,
    rules: HoldRules,
) -> UseCases {
    let Identity { access_tokens, wait_tokens, clock, ids } = identity.clone();
    let gate = Gate::new(wait_tokens.clone(), storage.queue_tokens.clone(), lines.clone(), clock.clone());
    let idempotency = Idempotency::new(storage.idempotency_records.clone(), clock.clone());
    UseCases {
        sessions: SessionService { tokens: access_tokens, clock: clock.clone(), ids: ids.clone() },
        gate: gate.clone(),
        idempotency: idempotency.clone(),
        queue: QueueService {
            gate: gate.clone(),
            provider: wait_tokens,
            concerts: storage.concerts.clone(),
            lines: lines.clone(),
            committer: storage.committer.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
        },
        concerts: ConcertService::new(
            storage.concerts.clone(),
            storage.concert_queries.clone(),
            seat_maps.clone(),
            clock.clone(),
        ),
        reservations: ReservationService {
            rules,
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
        admin: admin_service(storage, clock, ids),
    }
}
