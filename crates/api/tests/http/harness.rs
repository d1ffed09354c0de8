//! Mocked ports, the app on top of them, and a short way to ask it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix_web::body::{MessageBody, to_bytes};
use actix_web::dev::ServiceResponse;
use actix_web::http::header::HeaderMap;
use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::{App, web};
use frontrow_api::{ApiState, OverloadLimits};
use frontrow_app::{
    AccountService, AdminService, Admission, ConcertService, Gate, HoldRules, Idempotency, Lines, Offers,
    PaymentService, QueueService, Readiness, ReservationService, SeatMaps, SessionService, UseCases,
};
use frontrow_domain::account::WalletCharging;
use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::ports::{
    AccessClaims, InvalidAccessToken, InvalidWaitToken, MockAccessTokens, MockAccountQueries, MockAccounts,
    MockAdminQueries, MockClock, MockCommitter, MockConcertQueries, MockConcerts, MockIdGenerator,
    MockIdempotencyRecords, MockQueueQueries, MockQueueTokens, MockReservationQueries, MockReservations,
    MockRooms, MockSeatFeeds, MockSeats, MockStorageHealth, MockTokenProvider, Role, StoredLines, WaitClaims,
};
use frontrow_domain::queue::{
    DEFAULT_ROOM_ID, LineState, QueueToken, QueueTokenState, Room, RoomPolicy, TicketNumber,
};
use frontrow_domain::seat::{Seat, SeatPlace, SeatState};
use frontrow_domain::{
    ConcertId, Incarnation, IncarnationId, Label, Money, PerformanceDateId, QueueTokenId, RoomId, SeatId,
    Timestamp, UserId, Version, Versioned,
};
use serde_json::Value;
use uuid::Uuid;

pub(crate) const USER: UserId = UserId::new(Uuid::from_u128(0xa));
pub(crate) const OTHER_USER: UserId = UserId::new(Uuid::from_u128(0xb));
pub(crate) const TOKEN: QueueTokenId = QueueTokenId::new(Uuid::from_u128(0x10));
pub(crate) const CONCERT: ConcertId = ConcertId::new(Uuid::from_u128(0x20));
pub(crate) const DATE: PerformanceDateId = PerformanceDateId::new(Uuid::from_u128(0x21));
pub(crate) const OTHER_DATE: PerformanceDateId = PerformanceDateId::new(Uuid::from_u128(0x22));
pub(crate) const SEAT: SeatId = SeatId::new(Uuid::from_u128(0x30));
pub(crate) const OTHER_ROOM: RoomId = RoomId::new(Uuid::from_u128(0x40));

/// The bearer of [`USER`].
pub(crate) const BEARER: (&str, &str) = ("Authorization", "Bearer user");
/// The bearer of an operator, who is [`USER`] too.
pub(crate) const ADMIN: (&str, &str) = ("Authorization", "Bearer admin");
/// A Wait-Token of [`USER`] for [`TOKEN`].
pub(crate) const WAIT_TOKEN: (&str, &str) = ("Wait-Token", "signed");
pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");

pub(crate) fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

pub(crate) fn now() -> Timestamp {
    at("2026-11-22T12:00:00Z")
}

pub(crate) fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

pub(crate) fn money(units: i64) -> Money {
    Money::new(units).unwrap()
}

pub(crate) fn stored<T>(value: T) -> Versioned<T> {
    Versioned::new(value, Version::FIRST)
}

pub(crate) fn active() -> QueueTokenState {
    QueueTokenState::Active { activated_at: now(), expires_at: now().plus_seconds(60), paused_at: None }
}

pub(crate) fn token(state: QueueTokenState) -> QueueToken {
    QueueToken {
        id: TOKEN,
        room_id: DEFAULT_ROOM_ID,
        user_id: USER,
        ticket: TicketNumber(1),
        entered_at: now(),
        state,
    }
}

pub(crate) fn concert(room_id: RoomId) -> Concert {
    Concert { id: CONCERT, title: label("First Night"), venue: label("Hall"), room_id }
}

pub(crate) fn date() -> PerformanceDate {
    PerformanceDate::new(DATE, CONCERT, now().plus_seconds(3_600), None).unwrap()
}

pub(crate) fn place(number: u32) -> SeatPlace {
    SeatPlace { section: label("A"), row: 1, number, grade: label("R"), price: money(100) }
}

pub(crate) fn seat() -> Seat {
    Seat { id: SEAT, performance_date_id: DATE, place: place(1), state: SeatState::Available }
}

/// The global room's line of 1,000 tickets, all of them admitted up to this one.
pub(crate) fn line(admitted_through: i64) -> LineState {
    LineState {
        room: stored(Room::new(DEFAULT_ROOM_ID, RoomPolicy::default(), now())),
        waiting: 1_000 - u64::try_from(admitted_through).unwrap(),
        last_ticket: TicketNumber(1_000),
        admitted_through: TicketNumber(admitted_through),
        departures: 0,
    }
}

/// Lines of an incarnation that began before everything else.
pub(crate) fn stored_lines(lines: Vec<LineState>) -> StoredLines {
    let incarnation = Incarnation { id: IncarnationId::new(Uuid::nil()), started_at: Timestamp::MIN };
    StoredLines { incarnation, lines }
}

/// Every port. Those that a test does not set up must not be called.
pub(crate) struct Ports {
    pub(crate) access: MockAccessTokens,
    pub(crate) provider: MockTokenProvider,
    pub(crate) tokens: MockQueueTokens,
    pub(crate) rooms: MockRooms,
    pub(crate) concerts: MockConcerts,
    pub(crate) seats: MockSeats,
    pub(crate) reservations: MockReservations,
    pub(crate) accounts: MockAccounts,
    pub(crate) records: MockIdempotencyRecords,
    pub(crate) committer: MockCommitter,
    pub(crate) queue_queries: MockQueueQueries,
    pub(crate) concert_queries: MockConcertQueries,
    pub(crate) seat_feeds: MockSeatFeeds,
    pub(crate) reservation_queries: MockReservationQueries,
    pub(crate) account_queries: MockAccountQueries,
    pub(crate) admin_queries: MockAdminQueries,
    pub(crate) health: MockStorageHealth,
}

impl Ports {
    /// Access tokens `user`, `admin` and `other`, and the Wait-Token `signed`.
    pub(crate) fn new() -> Self {
        let mut access = MockAccessTokens::new();
        access.expect_verify().returning(|token, _| {
            let (user_id, role) = match token {
                "user" => (USER, Role::User),
                "admin" => (USER, Role::Admin),
                "other" => (OTHER_USER, Role::User),
                _ => return Err(InvalidAccessToken),
            };
            Ok(AccessClaims { user_id, role, expires_at: now().plus_seconds(1) })
        });
        let mut provider = MockTokenProvider::new();
        provider.expect_issue().returning(|_| "signed".to_owned());
        provider.expect_verify().returning(|text| match text {
            "signed" => Ok(WaitClaims::from(&token(QueueTokenState::Wait))),
            _ => Err(InvalidWaitToken),
        });
        Self {
            access,
            provider,
            tokens: MockQueueTokens::new(),
            rooms: MockRooms::new(),
            concerts: MockConcerts::new(),
            seats: MockSeats::new(),
            reservations: MockReservations::new(),
            accounts: MockAccounts::new(),
            records: MockIdempotencyRecords::new(),
            committer: MockCommitter::new(),
            queue_queries: MockQueueQueries::new(),
            concert_queries: MockConcertQueries::new(),
            seat_feeds: MockSeatFeeds::new(),
            reservation_queries: MockReservationQueries::new(),
            account_queries: MockAccountQueries::new(),
            admin_queries: MockAdminQueries::new(),
            health: MockStorageHealth::new(),
        }
    }

    /// With [`TOKEN`] stored in this state.
    pub(crate) fn with_token(state: QueueTokenState) -> Self {
        let mut ports = Self::new();
        ports.tokens.expect_find().returning(move |_| Ok(Some(stored(token(state)))));
        ports
    }

    pub(crate) fn state(self) -> web::Data<ApiState> {
        self.state_within(OverloadLimits::new(Duration::from_secs(600)))
    }

    /// With another limit of requests under way.
    pub(crate) fn state_within(self, limits: OverloadLimits) -> web::Data<ApiState> {
        let mut clock = MockClock::new();
        clock.expect_now().returning(now);
        let mut ids = MockIdGenerator::new();
        let next = AtomicU64::new(0x1000);
        ids.expect_next_id().returning(move || Uuid::from_u128(next.fetch_add(1, Ordering::SeqCst).into()));
        web::Data::new(ApiState::new(self.use_cases(Arc::new(clock), Arc::new(ids)), limits))
    }

    fn use_cases(mut self, clock: Arc<MockClock>, ids: Arc<MockIdGenerator>) -> UseCases {
        // What a test says itself comes first.
        self.queue_queries.expect_lines().returning(|| Ok(stored_lines(vec![line(1_000)])));
        let (provider, tokens) = (Arc::new(self.provider), Arc::new(self.tokens));
        let lines = Lines::new(Arc::new(self.queue_queries), tokens.clone(), clock.clone());
        let (concerts, seats) = (Arc::new(self.concerts), Arc::new(self.seats));
        let (reservations, accounts) = (Arc::new(self.reservations), Arc::new(self.accounts));
        let (rooms, committer) = (Arc::new(self.rooms), Arc::new(self.committer));
        let admin_queries = Arc::new(self.admin_queries);
        let concert_queries = Arc::new(self.concert_queries);
        let offers = Offers::new(concert_queries.clone(), clock.clone(), lines.incarnation());
        let gate = Gate::new(provider.clone(), tokens.clone(), lines.clone(), clock.clone());
        let idempotency = Idempotency::new(Arc::new(self.records), clock.clone());
        UseCases {
            sessions: SessionService {
                tokens: Arc::new(self.access),
                clock: clock.clone(),
                ids: ids.clone(),
            },
            gate: gate.clone(),
            idempotency: idempotency.clone(),
            queue: QueueService {
                gate: gate.clone(),
                provider,
                concerts: concerts.clone(),
                offers: offers.clone(),
                tokens: tokens.clone(),
                lines: lines.clone(),
                committer: committer.clone(),
                clock: clock.clone(),
                ids: ids.clone(),
            },
            concerts: ConcertService::new(
                concerts.clone(),
                concert_queries,
                offers,
                SeatMaps::new(Arc::new(self.seat_feeds), clock.clone(), lines.incarnation()),
                clock.clone(),
            ),
            reservations: ReservationService {
                rules: HoldRules { hold_seconds: 300, max_seats_per_user: 4 },
                gate,
                reservations: reservations.clone(),
                concerts: concerts.clone(),
                seats: seats.clone(),
                queries: Arc::new(self.reservation_queries),
                committer: committer.clone(),
                idempotency: idempotency.clone(),
                clock: clock.clone(),
                ids: ids.clone(),
            },
            accounts: AccountService {
                charging: WalletCharging::Owner,
                accounts: accounts.clone(),
                queries: Arc::new(self.account_queries),
                committer: committer.clone(),
                idempotency: idempotency.clone(),
                clock: clock.clone(),
                ids: ids.clone(),
            },
            payment: PaymentService {
                reservations,
                accounts,
                seats,
                tokens,
                committer: committer.clone(),
                idempotency,
                clock: clock.clone(),
                ids: ids.clone(),
            },
            readiness: Readiness::new(Arc::new(self.health)),
            admin: AdminService {
                admission: Admission { rooms: rooms.clone(), committer, clock: clock.clone() },
                rooms,
                concerts,
                queries: admin_queries,
                clock,
                ids,
            },
        }
    }
}

/// An answer.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answered {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{}: {error}: {}", self.status, String::from_utf8_lossy(&self.body))
        })
    }

    /// The code of a problem, after a look at what all problems have.
    pub(crate) fn code(&self) -> String {
        let problem = self.json();
        assert_eq!(self.header("content-type"), "application/problem+json", "{problem}");
        assert_eq!(self.header("cache-control"), "no-store");
        assert_eq!(problem["status"], self.status);
        let code = problem["code"].as_str().unwrap();
        assert_eq!(problem["type"], format!("urn:frontrow:problem:{code}"));
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        code.to_owned()
    }

    /// Status and code of a problem.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{}", self.json());
        match status {
            301 => assert_eq!(self.header("location"), "/queue"),
            401 => assert_eq!(self.header("www-authenticate"), "Bearer"),
            503 => assert!(!self.header("retry-after").is_empty()),
            _ => {}
        }
    }
}

/// Sends one request to an app over these ports.
pub(crate) async fn ask(
    state: &web::Data<ApiState>,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: impl Into<web::Bytes>,
) -> Answered {
    let app = App::new().app_data(state.clone()).configure(frontrow_api::configure);
    let request = request(method, target, headers, body).to_request();
    answered(call_service(&init_service(app).await, request).await).await
}

/// The request itself.
pub(crate) fn request(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: impl Into<web::Bytes>,
) -> TestRequest {
    let request = TestRequest::default().method(method.parse().unwrap()).uri(target);
    let request = headers.iter().fold(request, |request, header| request.append_header(*header));
    let body: web::Bytes = body.into();
    if body.is_empty() { request } else { request.set_payload(body) }
}

/// The answer, read to its end.
pub(crate) async fn answered(response: ServiceResponse<impl MessageBody>) -> Answered {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = to_bytes(response.into_body()).await.unwrap_or_default().to_vec();
    Answered { status, headers, body }
}
