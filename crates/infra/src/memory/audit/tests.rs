use std::collections::{BTreeMap, BTreeSet};

use frontrow_domain::account::{Account, Payment, Ticket};
use frontrow_domain::audit_log::{Acting, OperatorAction};
use frontrow_domain::concert::{Concert, PerformanceDate, SeatPlan, Section};
use frontrow_domain::idempotency::{Answer, Fingerprint, IdempotencyKey, IdempotencyRecord, KeyedRequest};
use frontrow_domain::ports::Committer;
use frontrow_domain::queue::{QueueTokenState, Room, RoomPolicy, TicketNumber};
use frontrow_domain::reservation::{HoldTerms, ReservedSeat};
use frontrow_domain::seat::{FeedVersion, Seat, SeatState};
use frontrow_domain::unit_of_work::{Admit, Command, Join, PruneTokens};
use frontrow_domain::{
    AuditEntryId, Change, ConcertId, EntryId, Label, PaymentId, PerformanceDateId, QueueTokenId, RoomId,
    SeatId, TicketId, Timestamp, UnitOfWork, UserId, Versioned,
};
use uuid::Uuid;

use super::*;
use crate::memory::{Memory, Pruned};

const ROOM: RoomId = RoomId::new(Uuid::from_u128(1));
const CONCERT: ConcertId = ConcertId::new(Uuid::from_u128(2));
const DATE: PerformanceDateId = PerformanceDateId::new(Uuid::from_u128(3));
const PAYMENT: PaymentId = PaymentId::new(Uuid::from_u128(4));
/// What nobody has made.
const NO_ROOM: RoomId = RoomId::new(Uuid::from_u128(7));
const NO_DATE: PerformanceDateId = PerformanceDateId::new(Uuid::from_u128(8));
/// What is paid, and what is held.
const PAID: ReservationId = ReservationId::new(Uuid::from_u128(5));
const HELD: ReservationId = ReservationId::new(Uuid::from_u128(6));
/// Who has paid, who holds, who has left, who waits.
const PEOPLE: [u128; 4] = [11, 12, 13, 14];

fn id<T>(kind: fn(Uuid) -> T, number: u128) -> T {
    kind(Uuid::from_u128(number))
}

fn user(nth: usize) -> UserId {
    id(UserId::new, PEOPLE[nth])
}

fn token(nth: usize) -> QueueTokenId {
    id(QueueTokenId::new, PEOPLE[nth])
}

/// The charge of the one who has paid, and the payment.
fn entry(nth: u128) -> EntryId {
    id(EntryId::new, 20 + nth)
}

fn seat(nth: u128) -> SeatId {
    id(SeatId::new, 30 + nth)
}

fn money(units: i64) -> Money {
    Money::new(units).unwrap()
}

fn now() -> Timestamp {
    Timestamp::parse("2026-11-22T20:00:00Z").unwrap()
}

fn hold(id: ReservationId, holder: usize, seats: &[Seat]) -> Reservation {
    let terms = HoldTerms {
        user_id: user(holder),
        performance_date_id: DATE,
        room_id: ROOM,
        token_id: token(holder),
        reserved_at: now(),
        hold_expires_at: now().plus_seconds(300),
    };
    let seats = seats.iter().map(|seat| ReservedSeat { seat_id: seat.id, price: seat.place.price }).collect();
    Reservation::hold(id, terms, seats).unwrap()
}

fn commanded(command: Command) -> UnitOfWork {
    UnitOfWork { command: Some(command), ..UnitOfWork::default() }
}

fn join(nth: usize) -> Command {
    Command::Join(Join { token_id: token(nth), room_id: ROOM, user_id: user(nth), now: now() })
}

/// Of the first two in line.
fn admit() -> Command {
    let (limit, active_ttl_seconds) = (2, 600);
    Command::Admit(Admit { room_id: ROOM, limit, max_active: None, active_ttl_seconds, now: now() })
}

/// A sale under way: seats 0 and 1 are paid, seat 2 is held, seat 3 is free.
async fn state() -> State {
    let memory = Memory::new();
    let write = async |work: UnitOfWork| {
        memory.commit(work).await.unwrap();
    };
    let label = |text| Label::new(text).unwrap();
    let concert = Concert { id: CONCERT, title: label("Concert"), venue: label("Hall"), room_id: ROOM };
    let (section, grade) = (label("A"), label("R"));
    let section = Section { section, grade, price: money(100), rows: 1, seats_per_row: 4 };
    let mut numbers = 0..;
    let seats = SeatPlan::new(vec![section]).unwrap().seats(DATE, || seat(numbers.next().unwrap()));
    let operator = Acting { id: id(AuditEntryId::new, 50), at: now(), user_id: user(3) };
    write(UnitOfWork {
        rooms: vec![Change::Insert(Room::new(ROOM, RoomPolicy::default(), now()))],
        audit_log: vec![operator.creates_concert(&concert, None)],
        concerts: vec![concert],
        performance_dates: vec![
            PerformanceDate::new(DATE, CONCERT, now().plus_seconds(9_999), None).unwrap(),
        ],
        seats: seats.iter().cloned().map(Change::Insert).collect(),
        ..UnitOfWork::default()
    })
    .await;
    for nth in 0..PEOPLE.len() {
        write(commanded(join(nth))).await;
    }
    write(commanded(admit())).await;

    let (paid, held) = (hold(PAID, 0, &seats[..2]), hold(HELD, 1, &seats[2..3]));
    let (account, charge) = Account::empty(user(0)).charge(entry(0), money(500), now()).unwrap();
    let (account, taken) = account.pay(entry(1), paid.total_amount, PAID, now()).unwrap();
    let tickets = paid
        .seats
        .iter()
        .zip(40..)
        .map(|(seat, number)| Ticket { id: id(TicketId::new, number), seat_id: seat.seat_id });
    let payment = Payment {
        id: PAYMENT,
        reservation_id: PAID,
        user_id: user(0),
        entry_id: entry(1),
        amount: paid.total_amount,
        paid_at: now(),
        tickets: tickets.collect(),
    };
    let request = KeyedRequest {
        user_id: user(0),
        key: IdempotencyKey::new("key").unwrap(),
        fingerprint: Fingerprint([0; 32]),
    };
    let body = format!("{{\"paymentId\":\"{PAYMENT}\",\"reservationId\":\"{PAID}\"}}").into_bytes();
    let answer = Answer { status: 201, content_type: "application/json".to_owned(), body };
    let rows = memory.look(Clone::clone);
    let sold = |nth: u128| {
        let row = rows.seats[&seat(nth)].clone();
        let deadline = paid.hold_expires_at;
        Change::Update(row.try_map(|s| s.hold(PAID, deadline, now())?.sell(PAID)).unwrap())
    };
    let taken_seat =
        rows.seats[&seat(2)].clone().try_map(|s| s.hold(HELD, held.hold_expires_at, now())).unwrap();
    let over = |nth: usize| rows.queue_tokens[&token(nth)].try_map(|t| t.expire(now())).unwrap();
    write(UnitOfWork {
        queue_tokens: vec![over(0), over(2)],
        accounts: vec![Change::Insert(account)],
        entries: vec![charge, taken],
        seats: vec![sold(0), sold(1), Change::Update(taken_seat)],
        reservations: vec![Change::Insert(paid.pay(now()).unwrap()), Change::Insert(held)],
        payments: vec![payment],
        idempotency: Some(IdempotencyRecord::new(request, answer, now())),
        ..UnitOfWork::default()
    })
    .await;
    memory.look(Clone::clone)
}

fn broken(state: &State) -> BTreeSet<&'static str> {
    state.audit().into_iter().filter(|finding| finding.breaches > 0).map(|finding| finding.name).collect()
}

fn change<K: Ord, T>(table: &mut BTreeMap<K, Versioned<T>>, key: K, work: impl FnOnce(&mut T)) {
    work(&mut table.get_mut(&key).unwrap().value);
}

fn payment(state: &mut State) -> &mut Payment {
    state.payments.get_mut(&PAYMENT).unwrap()
}

fn date(state: &mut State) -> &mut PerformanceDate {
    state.performance_dates.get_mut(&DATE).unwrap()
}

fn prune(state: &mut State, tokens: i64, departures: i64) {
    state.pruned_tokens.insert(ROOM, Pruned { tokens, departures });
}

fn answer(state: &mut State) -> &mut IdempotencyRecord {
    state.idempotency_records.values_mut().next().unwrap()
}

fn answers(state: &mut State, field: &str, id: Uuid) {
    answer(state).answer.body = format!("{{\"{field}\":\"{id}\"}}").into_bytes();
}

fn did(state: &mut State, action: OperatorAction) {
    state.audit_log.values_mut().next().unwrap().action = action;
}

/// A promise, and a way to break it.
type Break = (&'static str, fn(&mut State));

const BREAKS: [Break; 64] = [
    ("seat-reserved-once", |state| change(&mut state.reservations, HELD, |r| r.seats[0].seat_id = seat(0))),
    ("seat-status", |state| {
        change(&mut state.seats, seat(0), |s| s.state = SeatState::Unavailable { reservation_id: HELD });
    }),
    ("seat-place", |state| change(&mut state.seats, seat(3), |s| s.place.number = 1)),
    ("reservation-owns-seats", |state| change(&mut state.seats, seat(2), |s| s.state = SeatState::Available)),
    ("reservation-total", |state| change(&mut state.reservations, PAID, |r| r.total_amount = money(1))),
    ("reservation-total", |state| change(&mut state.seats, seat(2), |s| s.place.price = money(1))),
    ("reservation-total", |state| {
        change(&mut state.seats, seat(2), |s| s.performance_date_id = NO_DATE);
    }),
    ("reservation-token", |state| change(&mut state.reservations, HELD, |r| r.user_id = user(0))),
    ("reservation-token", |state| change(&mut state.reservations, HELD, |r| r.token_id = token(2))),
    ("reservation-token", |state| change(&mut state.reservations, HELD, |r| r.room_id = NO_ROOM)),
    ("reservation-token", |state| state.concerts.get_mut(&CONCERT).unwrap().room_id = NO_ROOM),
    ("reservation-token", |state| {
        change(&mut state.queue_tokens, token(1), |t| t.state = QueueTokenState::Wait);
    }),
    ("reservation-on-sale", |state| date(state).on_sale_at = Some(now().plus_seconds(1))),
    ("reservation-on-sale", |state| date(state).starts_at = now()),
    ("date-changes", |state| {
        state.seat_changes.pop_first();
    }),
    ("date-changes", |state| {
        state.seat_feeds.insert(DATE, FeedVersion::new(3));
    }),
    ("account-balance", |state| change(&mut state.accounts, user(0), |a| a.balance = money(1))),
    ("account-balance", |state| change(&mut state.accounts, user(0), |a| a.entry_count = 1)),
    ("money-conserved", |state| change(&mut state.accounts, user(0), |a| a.balance = money(1))),
    ("money-conserved", |state| payment(state).amount = money(1)),
    ("entry-numbers", |state| state.entries.get_mut(&entry(1)).unwrap().number = 3),
    ("entry-numbers", |state| state.entries.get_mut(&entry(1)).unwrap().balance_after = money(1)),
    ("entry-kind", |state| state.entries.get_mut(&entry(0)).unwrap().amount = Money::ZERO),
    ("payment-agrees", |state| payment(state).amount = money(1)),
    ("payment-agrees", |state| payment(state).user_id = user(1)),
    ("payment-in-time", |state| payment(state).paid_at = now().plus_seconds(300)),
    ("entry-has-payment", |state| payment(state).entry_id = entry(0)),
    ("paid-once", |state| payment(state).tickets.truncate(1)),
    ("paid-once", |state| {
        state.payments.pop_first();
    }),
    ("ticket-seat", |state| payment(state).tickets[1].seat_id = seat(0)),
    ("ticket-seat", |state| payment(state).reservation_id = HELD),
    ("ticket-seat", |state| payment(state).tickets[1].seat_id = seat(3)),
    ("paid-token", |state| {
        let active = state.queue_tokens[&token(1)].value.state;
        change(&mut state.queue_tokens, token(0), |t| t.state = active);
    }),
    ("date-sales", |state| change(&mut state.seats, seat(0), |s| s.place.price = money(1))),
    ("token-state", |state| {
        change(&mut state.queue_tokens, token(1), |t| {
            t.state = QueueTokenState::Active { activated_at: now(), expires_at: now(), paused_at: None };
        });
    }),
    ("token-paused", |state| {
        change(&mut state.queue_tokens, token(1), |t| t.state = t.paused(now()).unwrap().state);
    }),
    ("token-live-once", |state| change(&mut state.queue_tokens, token(3), |t| t.user_id = user(1))),
    ("line-order", |state| {
        let active = state.queue_tokens[&token(1)].value.state;
        change(&mut state.queue_tokens, token(1), |t| t.state = QueueTokenState::Wait);
        change(&mut state.queue_tokens, token(3), |t| t.state = active);
    }),
    ("line-tickets", |state| change(&mut state.queue_tokens, token(3), |t| t.ticket = TicketNumber(5))),
    ("line-tickets", |state| change(&mut state.queue_tokens, token(2), |t| t.ticket = TicketNumber(4))),
    ("line-tickets", |state| {
        state.queue_tokens.remove(&token(0));
    }),
    ("line-tickets", |state| prune(state, 1, 0)),
    ("line-departures", |state| state.departures.clear()),
    ("line-departures", |state| {
        state.departures.insert(token(2), 2);
    }),
    ("line-departures", |state| {
        state.departures.insert(token(3), 2);
    }),
    ("line-departures", |state| {
        state.departures.insert(token(2), 3);
        prune(state, 1, 1);
    }),
    ("answer-effect", |state| answer(state).answer.status = 500),
    ("answer-effect", |state| answer(state).request.user_id = user(1)),
    ("answer-effect", |state| answers(state, "paymentId", NO_DATE.get())),
    ("answer-effect", |state| answers(state, "entryId", NO_DATE.get())),
    ("answer-effect", |state| answers(state, "reservationId", HELD.get())),
    ("answer-effect", |state| answer(state).answer.body = b"{\"entryId\":\"none\"}".to_vec()),
    ("operator-target", |state| did(state, OperatorAction::CreateConcert(ConcertId::new(DATE.get())))),
    ("operator-target", |state| did(state, OperatorAction::CreatePerformanceDate(NO_DATE))),
    ("operator-target", |state| did(state, OperatorAction::ChangeRoom(NO_ROOM))),
    ("operator-target", |state| did(state, OperatorAction::AdmitWaiters(NO_ROOM))),
    ("reference", |state| state.rooms.clear()),
    ("reference", |state| state.concerts.clear()),
    ("reference", |state| state.performance_dates.clear()),
    ("reference", |state| state.seats.clear()),
    ("reference", |state| state.queue_tokens.clear()),
    ("reference", |state| state.reservations.clear()),
    ("reference", |state| state.accounts.clear()),
    ("reference", |state| state.entries.clear()),
];

#[tokio::test]
async fn each_broken_promise_is_named() {
    let sound = state().await;
    assert_eq!(broken(&sound), BTreeSet::new());
    assert!(sound.audit().iter().all(|finding| finding.checked > 0), "{:?}", sound.audit());
    for (nth, (name, break_it)) in BREAKS.into_iter().enumerate() {
        let mut state = sound.clone();
        break_it(&mut state);
        assert!(broken(&state).contains(name), "{nth}: {name} is not among {:?}", broken(&state));
    }
    let with_a_break: BTreeSet<_> = BREAKS.iter().map(|(name, _)| *name).collect();
    assert_eq!(with_a_break, invariants().map(|(name, ..)| *name).collect());
}

#[tokio::test]
async fn what_was_pruned_is_counted_in() {
    let memory = Memory::new();
    let write = async |work: UnitOfWork| {
        memory.commit(work).await.unwrap();
    };
    let room = Room::new(ROOM, RoomPolicy::default(), now());
    write(UnitOfWork { rooms: vec![Change::Insert(room)], ..UnitOfWork::default() }).await;
    for nth in 0..PEOPLE.len() {
        write(commanded(join(nth))).await;
    }
    // The second leaves, the first and the third are admitted and lapse, and only then is anybody deleted.
    let leaver = memory.look(|state| state.queue_tokens[&token(1)].try_map(|t| t.expire(now())).unwrap());
    write(UnitOfWork { queue_tokens: vec![leaver], ..UnitOfWork::default() }).await;
    write(commanded(admit())).await;
    let later = now().plus_seconds(9_999);
    write(commanded(Command::ExpireTokens { now: later, limit: 9 })).await;
    let (after, before) = (TicketNumber(0), later.plus_seconds(1));
    write(commanded(Command::PruneTokens(PruneTokens { room_id: ROOM, after, before, limit: 9 }))).await;
    let state = memory.look(Clone::clone);
    assert_eq!((state.queue_tokens.len(), state.departures.len()), (2, 0));
    assert_eq!(broken(&state), BTreeSet::new());
    for forget in [|pruned: &mut Pruned| pruned.tokens = 0, |pruned: &mut Pruned| pruned.tokens = 3] {
        let mut state = state.clone();
        forget(state.pruned_tokens.get_mut(&ROOM).unwrap());
        assert_eq!(broken(&state), BTreeSet::from(["line-tickets"]));
    }
}

#[test]
fn promises_have_the_words_of_the_databases_audit() {
    let theirs: Vec<_> = crate::audit::invariants().map(|theirs| (theirs.name, theirs.promise)).collect();
    let ours: Vec<_> = invariants().map(|(name, promise, _)| (*name, *promise)).collect();
    let missing = ["date-seats", "date-available", "line-waiting", "line-admitted", "line-behind"];
    let counted = theirs.into_iter().filter(|(name, _)| !missing.contains(name));
    assert_eq!(ours, counted.collect::<Vec<_>>());
}
