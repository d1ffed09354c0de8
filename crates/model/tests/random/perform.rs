//! Operations as requests: in the order in which the transport calls the use cases. What is answered is told by the names that
//! the model uses; once everybody who asked at the same time has an answer, for one may be told of what another has made.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use frontrow::app::Node;
use frontrow_app::{AdminError, Caller, ReadReservationError};
use frontrow_app::{
    CancelError, ChargeError, ChargeReceipt, ConcertError, EnterError, Failure, GateError, GatePass, Held,
    Keyed, LookUpError, PayError, PayReceipt, QueuePlace, ReplayError, Reply, ReserveError, ReserveRequest,
};
use frontrow_domain::account::{AccountError, Entry, EntryKind as DomainEntryKind};
use frontrow_domain::idempotency::{Answer as Bytes, Fingerprint, IdempotencyKey, KeyedRequest};
use frontrow_domain::ports::{DateFilter, DateSummary, ReservationView, Role, RoomOverview, Sales};
use frontrow_domain::queue::{QueueTokenState, QueueTokenStatus, RoomRefusal};
use frontrow_domain::reservation::{ReservationError, ReservationStatus as DomainReservationStatus};
use frontrow_domain::seat::SeatStatus as DomainSeatStatus;
use frontrow_domain::{Money, ReservationId, SeatId, UserId};
use frontrow_model::{
    Answer, DateSeen, EntryKind, EntrySeen, Key, Name, Operation, Place, Receipt, Refusal, ReservationSeen,
    ReservationStatus, RoomSeen, SalesSeen, SeatStatus, Snapshot, TokenStatus,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::names::{Made, OwnToken};
use crate::subject::{OPERATOR, Subject};

/// An answer in the ids of the real thing. What the request made is known by its name already.
#[derive(Debug)]
pub(crate) enum Told {
    /// Needs no names.
    Plain(Answer),
    Entered(QueuePlace, bool),
    Place(QueuePlace),
    /// The bytes of an answer, and whether they are an earlier one's.
    Body(Vec<u8>, bool),
    Reservations(Vec<ReservationView>),
    Reservation(ReservationView),
    Entries(Vec<Entry>),
}

/// The bodies of answers that have a key, as they are stored.
#[derive(Debug, Serialize, Deserialize)]
enum Body {
    Held { id: Uuid, user: Uuid, date: Uuid, seats: Vec<(Uuid, i64)>, total: i64, status: u8, until: i64 },
    Charged(EntryBody),
    Paid { id: Uuid, entry: Uuid, reservation: Uuid, amount: i64, balance: i64, at: i64, tickets: Vec<Uuid> },
}

#[derive(Debug, Serialize, Deserialize)]
struct EntryBody {
    id: Uuid,
    number: i64,
    amount: i64,
    balance_after: i64,
    at: i64,
}

type Asked = Result<Told, Refusal>;

impl Subject {
    /// Does one operation, but for those that are of the clock.
    pub(crate) async fn perform(&self, operation: &Operation) -> Told {
        self.ask(operation).await.unwrap_or_else(|refusal| Told::Plain(Answer::Refused(refusal)))
    }

    async fn ask(&self, operation: &Operation) -> Asked {
        let use_cases = &self.node.use_cases;
        match *operation {
            Operation::Wait { .. } | Operation::WaitFor { .. } => Ok(Told::Plain(Answer::Done)),
            Operation::OpenSession { call } => self.open_session(call),
            Operation::UseSession { session } => self.use_session(session),
            Operation::RenewSession { call, session } => self.renew_session(call, session),
            Operation::Enter { call, user, concert } => self.enter(call, user, concert).await,
            Operation::LookUp { user, token } => {
                let token = self.wait_token(token);
                let place = use_cases.queue.look_up(self.users[user], token.as_deref()).await;
                Ok(Told::Place(place.map_err(look_up_refused)?))
            }
            Operation::Leave { user, token } => {
                let token = self.wait_token(token);
                let left = use_cases.queue.leave(self.users[user], token.as_deref()).await;
                left.map_err(look_up_refused)?;
                Ok(Told::Plain(Answer::Left))
            }
            Operation::ListDates { user, token, concert, all } => {
                let pass = self.pass_to_look(user, token).await?;
                let filter = if all { DateFilter::All } else { DateFilter::Reservable };
                let dates = use_cases.concerts.list_dates(&pass, self.concert(concert), filter).await;
                let dates = dates.map_err(concert_refused)?;
                Ok(Told::Plain(Answer::Dates(dates.iter().map(|date| self.date_seen(date)).collect())))
            }
            Operation::LookAtSeats { user, token, concert, date } => {
                let pass = self.pass_to_look(user, token).await?;
                let map = use_cases.concerts.seat_map(&pass, self.concert(concert), self.date(date)).await;
                let shown = map.map_err(concert_refused)?.shown(self.now());
                let statuses = shown.ok_or_else(|| Refusal::Failure("an empty seat map".into()))?.statuses;
                Ok(Told::Plain(Answer::Seats(statuses.into_iter().map(seat_status).collect())))
            }
            Operation::Reserve { call, user, token, date, ref seats, key } => {
                self.reserve(call, user, token, date, seats, key).await
            }
            Operation::FindReservation { user, reservation } => {
                let id = self.reservation(reservation);
                let found = use_cases.reservations.find(self.users[user], id).await;
                Ok(Told::Reservation(found.map_err(read_refused)?))
            }
            Operation::ListReservations { user } => {
                let listed = use_cases.reservations.list(self.users[user], None, 100).await;
                Ok(Told::Reservations(listed.map_err(|failure| failed(&failure))?))
            }
            Operation::Cancel { user, reservation } => {
                let id = self.reservation(reservation);
                use_cases.reservations.cancel(self.users[user], id).await.map_err(cancel_refused)?;
                Ok(Told::Plain(Answer::Cancelled))
            }
            Operation::Charge { call, user, amount, key } => self.charge(call, user, amount, key).await,
            Operation::Balance { user } => {
                let balance = use_cases.accounts.balance(self.users[user]).await;
                let balance = balance.map_err(|failure| failed(&failure))?;
                Ok(Told::Plain(Answer::Balance(balance.minor_units())))
            }
            Operation::Entries { user, before, limit } => {
                let entries = use_cases.accounts.list_entries(self.users[user], before, limit).await;
                Ok(Told::Entries(entries.map_err(|failure| failed(&failure))?))
            }
            Operation::Pay { call, user, reservation, key } => self.pay(call, user, reservation, key).await,
            Operation::ChangeRoom { room, patch: ref given } => {
                let changed =
                    use_cases.admin.change_room(OPERATOR, self.room(room), &self.patch(given)).await;
                Ok(Told::Plain(Answer::Room(self.room_seen(&changed.map_err(admin_refused)?))))
            }
            Operation::Admit { room, count } => {
                let admitted = use_cases.admin.admit(OPERATOR, self.room(room), count).await;
                Ok(Told::Plain(Answer::Admitted(admitted.map_err(admin_refused)?)))
            }
            Operation::Rooms => Ok(Told::Plain(Answer::Rooms(self.rooms_seen(&self.node).await?))),
            Operation::Sales { date } => {
                let sales = use_cases.admin.sales(self.date(date)).await;
                Ok(Told::Plain(Answer::Sales(sales_seen(&sales.map_err(admin_refused)?))))
            }
            Operation::Watch { seconds, polling } => self.watch(seconds, polling).await,
            Operation::Tick => {
                let admitted = self.node.work.admission.run().await.map_err(|failure| failed(&failure))?;
                if admitted.failures > 0 {
                    return Err(Refusal::Failure(format!("{admitted:?}")));
                }
                Ok(Told::Plain(Answer::Admitted(admitted.people)))
            }
            Operation::Sweep => {
                self.node.work.expiry.run().await.map_err(|failure| failed(&failure))?;
                Ok(Told::Plain(Answer::Done))
            }
            Operation::Prune => {
                self.node.work.pruning.run().await.map_err(|failure| failed(&failure))?;
                Ok(Told::Plain(Answer::Done))
            }
            Operation::Refresh => {
                self.node.work.lines.refresh().await.map_err(|failure| failed(&failure))?;
                self.node.work.seat_maps.refresh().await.map_err(|failure| failed(&failure))?;
                Ok(Told::Plain(Answer::Done))
            }
        }
    }

    fn open_session(&self, call: Name) -> Asked {
        let session = self.node.use_cases.sessions.open();
        let session = session.map_err(|error| Refusal::Failure(error.to_string()))?;
        self.learn(call, Made::Session(session.user_id.get(), session.access_token));
        Ok(Told::Plain(Answer::SessionOpened { session: call, until: self.time(session.expires_at) }))
    }

    fn use_session(&self, session: Name) -> Asked {
        let caller = self.caller(session)?;
        Ok(Told::Plain(Answer::Caller(self.names().name_of(caller.user_id.get()))))
    }

    fn renew_session(&self, call: Name, session: Name) -> Asked {
        let caller = self.caller(session)?;
        let renewed = self.node.use_cases.sessions.renew(caller);
        let renewed = renewed.map_err(|error| Refusal::Failure(error.to_string()))?;
        self.learn(call, Made::Renewed(renewed.access_token));
        let guest = self.names().name_of(renewed.user_id.get());
        Ok(Told::Plain(Answer::SessionRenewed { guest, until: self.time(renewed.expires_at) }))
    }

    fn caller(&self, session: Name) -> Result<Caller, Refusal> {
        let access_token = self.names().access_token(session);
        let caller = self.node.use_cases.sessions.caller(Some(&access_token));
        let caller = caller.map_err(|_| Refusal::Unauthenticated)?;
        if caller.role != Role::User {
            return Err(Refusal::Failure(format!("a guest is {:?}", caller.role)));
        }
        Ok(caller)
    }

    /// As the scheduler does it, at its own pace or slower.
    async fn watch(&self, seconds: i64, polling: Option<(usize, Name)>) -> Asked {
        let work = &self.node.work;
        self.turn_clock_by(11);
        for second in (0..=seconds).step_by(5) {
            work.lines.refresh().await.map_err(|failure| failed(&failure))?;
            if let Some((user, token)) = polling.filter(|_| second % 20 == 0) {
                let token = self.wait_token(Some(token));
                // Who has no such place is told so, and that is all.
                let _ = self.node.use_cases.queue.look_up(self.users[user], token.as_deref()).await;
            }
            work.abandonment.run().await.map_err(|failure| failed(&failure))?;
            if second + 5 <= seconds {
                self.turn_clock_by(5);
            }
        }
        Ok(Told::Plain(Answer::Done))
    }

    async fn enter(&self, call: Name, user: usize, concert: Option<usize>) -> Asked {
        let user = self.users[user];
        let concert = concert.map(|concert| self.concert(concert));
        let entered = self.node.use_cases.queue.enter(user, concert).await.map_err(enter_refused)?;
        if entered.is_new {
            let token = OwnToken { user, wait_token: entered.wait_token };
            self.learn(call, Made::Token(entered.place.token.id.get(), token));
        }
        Ok(Told::Entered(entered.place, entered.is_new))
    }

    async fn reserve(
        &self,
        call: Name,
        user: usize,
        token: Option<Name>,
        date: usize,
        seats: &[usize],
        key: Option<Key>,
    ) -> Asked {
        let request = self.keyed(user, key, &("reserve", date, seats));
        if let Some(earlier) = self.replay(request.as_ref()).await? {
            return Ok(earlier);
        }
        let token = self.wait_token(token);
        let pass = self.node.use_cases.gate.check(self.users[user], token.as_deref()).await;
        let pass = pass.map_err(gate_refused)?;
        let wanted = ReserveRequest {
            performance_date_id: self.date(date),
            seat_ids: seats.iter().map(|seat| self.seat(*seat)).collect(),
        };
        let keyed = Keyed { request, encode: &|held: &Held| bytes(&held_body(held)) };
        let reply = self.node.use_cases.reservations.reserve(pass, &wanted, keyed).await;
        Ok(self.told(call, reply.map_err(|error| self.reserve_refused(error))?))
    }

    async fn charge(&self, call: Name, user: usize, amount: i64, key: Option<Key>) -> Asked {
        let request = self.keyed(user, key, &("charge", user, amount));
        if let Some(earlier) = self.replay(request.as_ref()).await? {
            return Ok(earlier);
        }
        let amount = Money::new(amount).map_err(|_| Refusal::InvalidAmount)?;
        let encode = |receipt: &ChargeReceipt| bytes(&Body::Charged(entry_body(&receipt.entry)));
        let keyed = Keyed { request, encode: &encode };
        let caller = Caller { user_id: self.users[user], role: Role::User };
        let accounts = &self.node.use_cases.accounts;
        let permit = accounts.permit_charge(caller, self.users[user]).unwrap();
        let reply = accounts.charge(permit, amount, keyed).await;
        Ok(self.told(call, reply.map_err(charge_refused)?))
    }

    async fn pay(&self, call: Name, user: usize, reservation: Name, key: Option<Key>) -> Asked {
        let id = self.reservation(reservation);
        let request = self.keyed(user, key, &("pay", id.get()));
        if let Some(earlier) = self.replay(request.as_ref()).await? {
            return Ok(earlier);
        }
        let keyed = Keyed { request, encode: &|receipt: &PayReceipt| bytes(&paid_body(receipt)) };
        let reply = self.node.use_cases.payment.pay(self.users[user], id, keyed).await;
        Ok(self.told(call, reply.map_err(pay_refused)?))
    }

    /// What the transport looks for before anything else.
    async fn replay(&self, request: Option<&KeyedRequest>) -> Result<Option<Told>, Refusal> {
        let Some(request) = request else { return Ok(None) };
        let earlier = self.node.use_cases.idempotency.replay(request).await.map_err(replay_refused)?;
        Ok(earlier.map(|reply| Told::Body(reply.answer.body, reply.replayed)))
    }

    /// Learns what was made, if it was made by this very call.
    fn told(&self, call: Name, reply: Reply) -> Told {
        let Reply { answer, replayed } = reply;
        if !replayed {
            match body(&answer.body) {
                Body::Held { id, .. } => self.learn(call, Made::Reservation(id)),
                Body::Charged(entry) => self.learn(call, Made::Other(entry.id)),
                Body::Paid { id, entry, .. } => {
                    self.learn(call, Made::Other(id));
                    self.learn(call, Made::Other(entry));
                }
            }
        }
        Told::Body(answer.body, replayed)
    }

    fn keyed(&self, user: usize, key: Option<Key>, asked: &impl Hash) -> Option<KeyedRequest> {
        let key = key?;
        let mut digest = DefaultHasher::new();
        asked.hash(&mut digest);
        let mut fingerprint = [0; 32];
        fingerprint[..8].copy_from_slice(&digest.finish().to_be_bytes());
        Some(KeyedRequest {
            user_id: self.users[user],
            key: IdempotencyKey::new(&format!("key {key}")).unwrap(),
            fingerprint: Fingerprint(fingerprint),
        })
    }

    async fn pass_to_look(&self, user: usize, token: Option<Name>) -> Result<GatePass, Refusal> {
        let token = self.wait_token(token);
        let pass = self.node.use_cases.gate.check_to_look(self.users[user], token.as_deref()).await;
        pass.map_err(gate_refused)
    }

    fn wait_token(&self, token: Option<Name>) -> Option<String> {
        token.map(|token| self.names().wait_token(token))
    }

    fn reservation(&self, name: Name) -> ReservationId {
        ReservationId::new(self.names().reservation(name))
    }
}

/// What was told, by names.
impl Subject {
    /// Who was told to poll again, and after how many seconds.
    pub(crate) fn told_to_poll(&self, told: &Told) -> Option<(Name, u64)> {
        let (Told::Entered(place, _) | Told::Place(place)) = told else { return None };
        Some((self.names().name_of(place.token.id.get()), place.poll_after_seconds))
    }

    pub(crate) fn named(&self, told: Told) -> Answer {
        match told {
            Told::Plain(answer) => answer,
            Told::Entered(place, is_new) => Answer::Entered { place: self.place(&place), is_new },
            Told::Place(place) => Answer::Place(self.place(&place)),
            Told::Body(bytes, replayed) => {
                let answer = self.answer_of(body(&bytes));
                if replayed { Answer::Replayed(Box::new(answer)) } else { answer }
            }
            Told::Reservation(view) => Answer::Reservation(self.view(&view)),
            Told::Reservations(views) => Answer::Reservations(self.views(&views)),
            Told::Entries(entries) => {
                Answer::Entries(entries.iter().map(|entry| self.entry(entry)).collect())
            }
        }
    }

    fn answer_of(&self, body: Body) -> Answer {
        let name = |id| self.names().name_of(id);
        match body {
            Body::Held { id, user, date, seats, total, status, until } => {
                let seat = |(id, price): (Uuid, i64)| (self.seat_number(SeatId::new(id)), price);
                Answer::Held(ReservationSeen {
                    reservation: name(id),
                    user: self.user_number(user),
                    date: self.date_number(date),
                    seats: seats.into_iter().map(seat).collect(),
                    total_amount: total,
                    status: RESERVATION_STATUSES[usize::from(status)].1,
                    hold_expires_at: until - self.time_zero(),
                    payment: None,
                })
            }
            Body::Charged(EntryBody { id, number, amount, balance_after, at }) => {
                let at = at - self.time_zero();
                let kind = EntryKind::Charge;
                Answer::Charged(EntrySeen { entry: name(id), number, kind, amount, balance_after, at })
            }
            Body::Paid { id, reservation, amount, balance, at, tickets, .. } => {
                let mut tickets: Vec<usize> =
                    tickets.into_iter().map(|seat| self.seat_number(SeatId::new(seat))).collect();
                tickets.sort_unstable();
                let (payment, reservation) = (name(id), name(reservation));
                let paid_at = at - self.time_zero();
                Answer::Paid(Receipt { payment, reservation, amount, balance, paid_at, tickets })
            }
        }
    }

    fn time_zero(&self) -> i64 {
        self.now().unix_micros() - self.time(self.now())
    }

    fn place(&self, place: &QueuePlace) -> Place {
        let token = &place.token;
        let (activated_at, expires_at) = match token.state {
            QueueTokenState::Wait => (None, None),
            QueueTokenState::Active { activated_at, expires_at, .. } => {
                (Some(activated_at), Some(expires_at))
            }
            QueueTokenState::Expired { activated_at, expires_at } => (activated_at, Some(expires_at)),
        };
        Place {
            token: self.names().name_of(token.id.get()),
            room: self.room_number(token.room_id),
            user: self.user_number(token.user_id.get()),
            status: match place.status {
                QueueTokenStatus::Wait => TokenStatus::Wait,
                QueueTokenStatus::Active => TokenStatus::Active,
                QueueTokenStatus::Expired => TokenStatus::Expired,
            },
            position: place.position,
            estimated_wait_seconds: place.estimated_wait_seconds,
            entered_at: self.time(token.entered_at),
            activated_at: activated_at.map(|time| self.time(time)),
            expires_at: expires_at.map(|time| self.time(time)),
        }
    }

    fn views(&self, views: &[ReservationView]) -> Vec<ReservationSeen> {
        let mut seen: Vec<_> = views.iter().map(|view| self.view(view)).collect();
        seen.sort_by_key(|reservation| reservation.reservation);
        seen
    }

    fn view(&self, view: &ReservationView) -> ReservationSeen {
        let seats = view.seats.iter();
        let names = self.names();
        ReservationSeen {
            reservation: names.name_of(view.id.get()),
            user: self.user_number(view.user_id.get()),
            date: self.date_number(view.performance_date_id.get()),
            seats: seats.map(|(id, place)| (self.seat_number(*id), place.price.minor_units())).collect(),
            total_amount: view.total_amount.minor_units(),
            status: reservation_status(view.status),
            hold_expires_at: self.time(view.hold_expires_at),
            payment: view.payment.as_ref().map(|payment| {
                let tickets = payment.tickets.iter().map(|ticket| self.seat_number(ticket.seat_id));
                (names.name_of(payment.id.get()), tickets.collect())
            }),
        }
    }

    fn entry(&self, entry: &Entry) -> EntrySeen {
        let names = self.names();
        EntrySeen {
            entry: names.name_of(entry.id.get()),
            number: entry.number,
            kind: match entry.kind {
                DomainEntryKind::Charge => EntryKind::Charge,
                DomainEntryKind::Payment { reservation_id } => {
                    EntryKind::Payment(names.name_of(reservation_id.get()))
                }
            },
            amount: entry.amount.minor_units(),
            balance_after: entry.balance_after.minor_units(),
            at: self.time(entry.at),
        }
    }

    fn room_seen(&self, overview: &RoomOverview) -> RoomSeen {
        let RoomOverview { room, waiting, active } = *overview;
        RoomSeen {
            room: self.room_number(room.id),
            policy: self.policy_seen(&room.policy),
            waiting,
            active,
            next_tick_at: self.time(room.next_tick_at),
        }
    }

    async fn rooms_seen(&self, node: &Node) -> Result<Vec<RoomSeen>, Refusal> {
        let rooms = node.use_cases.admin.list_rooms(None, 100).await.map_err(|failure| failed(&failure))?;
        let mut rooms: Vec<_> = rooms.iter().map(|room| self.room_seen(room)).collect();
        rooms.sort_by_key(|room| room.room);
        Ok(rooms)
    }

    fn date_seen(&self, date: &DateSummary) -> DateSeen {
        DateSeen {
            date: self.date_number(date.id.get()),
            starts_at: self.time(date.starts_at),
            on_sale_at: date.on_sale_at.map(|time| self.time(time)),
            total_seats: date.total_seats,
            available_seats: date.available_seats,
        }
    }

    /// All that anybody can see, on this node and in storage.
    pub(crate) async fn snapshot(&self, node: &Node) -> Result<Snapshot, Refusal> {
        let now = self.now();
        let mut places = Vec::new();
        let tokens = self.names().tokens();
        for OwnToken { user, wait_token } in tokens {
            let place =
                node.use_cases.queue.look_up(user, Some(&wait_token)).await.map_err(look_up_refused)?;
            places.push(self.place(&place));
        }
        let (mut dates, mut sales, mut seats) = (Vec::new(), Vec::new(), vec![None; self.seat_count()]);
        for concert in &self.concerts {
            let found = self.storage.concert_queries.list_dates(*concert, DateFilter::All, now).await;
            let found = found.map_err(|error| failed(&error.into()))?;
            dates.extend(found.iter().map(|date| self.date_seen(date)));
        }
        dates.sort_by_key(|date| date.date);
        for date in &self.dates {
            let of_it = self.storage.seat_feeds.load(*date).await.map_err(|error| failed(&error.into()))?;
            for seat in of_it.into_iter().flat_map(|seats| seats.seats) {
                seats[self.seat_number(seat.value.id)] = Some(seat_status(seat.value.status_at(now)));
            }
            sales.push(sales_seen(&node.use_cases.admin.sales(*date).await.map_err(admin_refused)?));
        }
        let (mut reservations, mut balances, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        for user in &self.users {
            reservations.push(self.reservations_of(node, *user).await?);
            let balance = node.use_cases.accounts.balance(*user).await.map_err(|failure| failed(&failure))?;
            balances.push(balance.minor_units());
            let history = node.use_cases.accounts.list_entries(*user, None, 1_000).await;
            let history = history.map_err(|failure| failed(&failure))?;
            entries.push(history.iter().rev().map(|entry| self.entry(entry)).collect());
        }
        let seats = seats.into_iter().flatten().collect();
        let rooms = self.rooms_seen(node).await?;
        Ok(Snapshot { places, rooms, dates, seats, reservations, balances, entries, sales })
    }

    async fn reservations_of(&self, node: &Node, user: UserId) -> Result<Vec<ReservationSeen>, Refusal> {
        let views = node.use_cases.reservations.list(user, None, 1_000).await;
        Ok(self.views(&views.map_err(|failure| failed(&failure))?))
    }
}

const RESERVATION_STATUSES: [(DomainReservationStatus, ReservationStatus); 4] = [
    (DomainReservationStatus::Reserved, ReservationStatus::Reserved),
    (DomainReservationStatus::Done, ReservationStatus::Done),
    (DomainReservationStatus::Expired, ReservationStatus::Expired),
    (DomainReservationStatus::Cancelled, ReservationStatus::Cancelled),
];

fn reservation_status(status: DomainReservationStatus) -> ReservationStatus {
    RESERVATION_STATUSES.iter().find(|(of, _)| *of == status).unwrap().1
}

fn seat_status(status: DomainSeatStatus) -> SeatStatus {
    match status {
        DomainSeatStatus::Available => SeatStatus::Available,
        DomainSeatStatus::Reserved => SeatStatus::Reserved,
        DomainSeatStatus::Unavailable => SeatStatus::Unavailable,
    }
}

fn sales_seen(sales: &Sales) -> SalesSeen {
    let Sales { available, reserved, unavailable, amount_sold } = *sales;
    SalesSeen { available, reserved, unavailable, amount_sold: amount_sold.minor_units() }
}

fn bytes(body: &Body) -> Bytes {
    let body = serde_json::to_vec(body).unwrap();
    Bytes { status: 200, content_type: "application/json".to_owned(), body }
}

fn body(bytes: &[u8]) -> Body {
    serde_json::from_slice(bytes).unwrap()
}

fn held_body(held: &Held) -> Body {
    let reservation = &held.reservation;
    let status = RESERVATION_STATUSES.iter().position(|(of, _)| *of == reservation.status).unwrap();
    Body::Held {
        id: reservation.id.get(),
        user: reservation.user_id.get(),
        date: reservation.performance_date_id.get(),
        seats: held.seats.iter().map(|seat| (seat.id.get(), seat.place.price.minor_units())).collect(),
        total: reservation.total_amount.minor_units(),
        status: u8::try_from(status).unwrap(),
        until: reservation.hold_expires_at.unix_micros(),
    }
}

fn entry_body(entry: &Entry) -> EntryBody {
    EntryBody {
        id: entry.id.get(),
        number: entry.number,
        amount: entry.amount.minor_units(),
        balance_after: entry.balance_after.minor_units(),
        at: entry.at.unix_micros(),
    }
}

fn paid_body(receipt: &PayReceipt) -> Body {
    let payment = &receipt.payment;
    Body::Paid {
        id: payment.id.get(),
        entry: payment.entry_id.get(),
        reservation: payment.reservation_id.get(),
        amount: payment.amount.minor_units(),
        balance: receipt.balance.minor_units(),
        at: payment.paid_at.unix_micros(),
        tickets: payment.tickets.iter().map(|ticket| ticket.seat_id.get()).collect(),
    }
}

/// Refusals by the contract's codes, as the transport maps them.
impl Subject {
    fn reserve_refused(&self, error: ReserveError) -> Refusal {
        let numbers = |ids: &[SeatId]| ids.iter().map(|id| self.seat_number(*id)).collect();
        match error {
            ReserveError::Gate(refusal) => gate_refused(refusal),
            ReserveError::WrongRoom(_) => Refusal::WaitTokenInvalid,
            ReserveError::InvalidHold(_) | ReserveError::TooManySeats { .. } => {
                Refusal::InvalidRequest(Vec::new())
            }
            ReserveError::PerformanceDateNotFound => Refusal::PerformanceDateNotFound,
            ReserveError::SalePaused(_) => Refusal::SalePaused,
            ReserveError::NotOnSale(_) => Refusal::NotOnSale,
            ReserveError::SeatNotFound(ids) => Refusal::SeatNotFound(numbers(&ids)),
            ReserveError::SeatOfAnotherDate(ids) => Refusal::InvalidRequest(numbers(&ids)),
            ReserveError::SeatLimitExceeded { .. } => Refusal::SeatLimitExceeded,
            ReserveError::SeatNotAvailable(ids) => Refusal::SeatNotAvailable(numbers(&ids)),
            ReserveError::Conflict => Refusal::Failure("a conflict without end".into()),
            ReserveError::KeyReused(_) => Refusal::IdempotencyKeyReused,
            ReserveError::Failure(failure) => failed(&failure),
        }
    }
}

fn failed(failure: &Failure) -> Refusal {
    Refusal::Failure(format!("{failure:?}"))
}

fn gate_refused(error: GateError) -> Refusal {
    match error {
        GateError::Missing => Refusal::WaitTokenMissing,
        GateError::Invalid | GateError::Gone => Refusal::WaitTokenInvalid,
        GateError::NotActive => Refusal::WaitTokenNotActive,
        GateError::Expired => Refusal::WaitTokenExpired,
        GateError::Failure(failure) => failed(&failure),
    }
}

fn look_up_refused(error: LookUpError) -> Refusal {
    match error {
        LookUpError::Missing => Refusal::WaitTokenMissing,
        LookUpError::Invalid | LookUpError::Gone => Refusal::WaitTokenInvalid,
        LookUpError::Failure(failure) => failed(&failure),
    }
}

fn enter_refused(error: EnterError) -> Refusal {
    match error {
        EnterError::ConcertNotFound => Refusal::ConcertNotFound,
        EnterError::SoldOut => Refusal::SoldOut,
        EnterError::Refused(RoomRefusal::Closed) => Refusal::RoomClosed,
        EnterError::Refused(RoomRefusal::Full) => Refusal::RoomFull,
        EnterError::Failure(failure) => failed(&failure),
    }
}

fn concert_refused(error: ConcertError) -> Refusal {
    match error {
        ConcertError::ConcertNotFound => Refusal::ConcertNotFound,
        ConcertError::PerformanceDateNotFound => Refusal::PerformanceDateNotFound,
        ConcertError::WrongRoom(_) => Refusal::WaitTokenInvalid,
        ConcertError::Failure(failure) => failed(&failure),
    }
}

fn reservation_refused(error: ReservationError) -> Refusal {
    match error {
        ReservationError::Expired => Refusal::ReservationExpired,
        ReservationError::Cancelled => Refusal::ReservationCancelled,
        ReservationError::AlreadyPaid => Refusal::AlreadyPaid,
        ReservationError::StillHeld => Refusal::Failure("still held".into()),
    }
}

fn read_refused(error: ReadReservationError) -> Refusal {
    match error {
        ReadReservationError::NotFound => Refusal::ReservationNotFound,
        ReadReservationError::Failure(failure) => failed(&failure),
    }
}

fn cancel_refused(error: CancelError) -> Refusal {
    match error {
        CancelError::NotFound => Refusal::ReservationNotFound,
        CancelError::Reservation(refusal) => reservation_refused(refusal),
        CancelError::Conflict => Refusal::Failure("a conflict without end".into()),
        CancelError::Failure(failure) => failed(&failure),
    }
}

fn charge_refused(error: ChargeError) -> Refusal {
    match error {
        ChargeError::InvalidAmount(AccountError::InsufficientBalance { .. }) => {
            Refusal::Failure("a charge that takes".into())
        }
        ChargeError::InvalidAmount(_) => Refusal::InvalidAmount,
        ChargeError::Conflict => Refusal::AccountConflict,
        ChargeError::KeyReused(_) => Refusal::IdempotencyKeyReused,
        ChargeError::Failure(failure) => failed(&failure),
    }
}

fn pay_refused(error: PayError) -> Refusal {
    match error {
        PayError::ReservationNotFound => Refusal::ReservationNotFound,
        PayError::Reservation(refusal) => reservation_refused(refusal),
        PayError::InsufficientBalance { required, balance } => {
            Refusal::InsufficientBalance { required: required.minor_units(), balance: balance.minor_units() }
        }
        PayError::Conflict => Refusal::Failure("a conflict without end".into()),
        PayError::KeyReused(_) => Refusal::IdempotencyKeyReused,
        PayError::Failure(failure) => failed(&failure),
    }
}

fn replay_refused(error: ReplayError) -> Refusal {
    match error {
        ReplayError::KeyReused(_) => Refusal::IdempotencyKeyReused,
        ReplayError::Failure(failure) => failed(&failure),
    }
}

fn admin_refused(error: AdminError) -> Refusal {
    match error {
        AdminError::ConcertNotFound => Refusal::ConcertNotFound,
        AdminError::PerformanceDateNotFound => Refusal::PerformanceDateNotFound,
        AdminError::RoomNotFound => Refusal::RoomNotFound,
        AdminError::InvalidPolicy(invalid) => Refusal::InvalidPolicy(invalid.field.to_owned()),
        AdminError::SalePaused(_) => Refusal::SalePaused,
        AdminError::NeverOnSale(_) => Refusal::InvalidRequest(Vec::new()),
        AdminError::Conflict => Refusal::Failure("a conflict without end".into()),
        AdminError::Failure(failure) => failed(&failure),
    }
}
