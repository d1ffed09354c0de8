use frontrow_domain::account::Ticket;
use frontrow_domain::concert::{Concert, PerformanceDate, SeatPlan, Section};
use frontrow_domain::ports::Committer;
use frontrow_domain::queue::{Room, RoomPolicy, TicketNumber};
use frontrow_domain::reservation::{HoldTerms, ReservedSeat};
use frontrow_domain::unit_of_work::{Admit, Command, Join};
use frontrow_domain::{
    Change, ConcertId, EntryId, Label, PaymentId, PerformanceDateId, QueueTokenId, TicketId, Timestamp,
    UnitOfWork, UserId,
};
use uuid::Uuid;

use super::*;
use crate::memory::Memory;

const ROOM: RoomId = RoomId::new(Uuid::from_u128(1));
const CONCERT: ConcertId = ConcertId::new(Uuid::from_u128(2));
const DATE: PerformanceDateId = PerformanceDateId::new(Uuid::from_u128(3));
const PAYMENT: PaymentId = PaymentId::new(Uuid::from_u128(4));
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
    write(UnitOfWork {
        rooms: vec![Change::Insert(Room::new(ROOM, RoomPolicy::default(), now()))],
        concerts: vec![concert],
        performance_dates: vec![
            PerformanceDate::new(DATE, CONCERT, now().plus_seconds(9_999), None).unwrap(),
        ],
        seats: seats.iter().cloned().map(Change::Insert).collect(),
        ..UnitOfWork::default()
    })
    .await;
    for nth in 0..PEOPLE.len() {
        let join = Join { token_id: token(nth), room_id: ROOM, user_id: user(nth), now: now() };
        write(UnitOfWork { command: Some(Command::Join(join)), ..UnitOfWork::default() }).await;
    }
    let admit = Admit { room_id: ROOM, limit: 2, max_active: None, active_ttl_seconds: 600, now: now() };
    write(UnitOfWork { command: Some(Command::Admit(admit)), ..UnitOfWork::default() }).await;

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
        ..UnitOfWork::default()
    })
    .await;
    memory.look(Clone::clone)
}

fn broken(state: &State) -> Vec<&'static str> {
    let findings = state.audit().into_iter();
    findings.filter(|finding| finding.breaches > 0).map(|finding| finding.promise).collect()
}

fn change<K: Ord, T>(table: &mut BTreeMap<K, Versioned<T>>, key: K, work: impl FnOnce(&mut T)) {
    work(&mut table.get_mut(&key).unwrap().value);
}

/// Each promise with a way to break it.
fn breaks() -> [fn(&mut State); INVARIANTS.len()] {
    [
        |state| change(&mut state.reservations, HELD, |r| r.seats[0].seat_id = seat(0)),
        |state| {
            change(&mut state.seats, seat(0), |s| s.state = SeatState::Unavailable { reservation_id: HELD });
        },
        |state| change(&mut state.seats, seat(2), |s| s.state = SeatState::Available),
        |state| change(&mut state.reservations, PAID, |r| r.total_amount = money(1)),
        |state| change(&mut state.accounts, user(0), |a| a.balance = money(1)),
        |state| state.entries.get_mut(&entry(1)).unwrap().number = 3,
        |state| state.payments.get_mut(&PAYMENT).unwrap().amount = money(1),
        |state| state.payments.get_mut(&PAYMENT).unwrap().entry_id = entry(0),
        |state| state.payments.get_mut(&PAYMENT).unwrap().tickets.truncate(1),
        |state| {
            let active = state.queue_tokens[&token(1)].value.state;
            change(&mut state.queue_tokens, token(0), |t| t.state = active);
        },
        |state| {
            change(&mut state.queue_tokens, token(3), |t| t.user_id = user(1));
        },
        |state| {
            let active = state.queue_tokens[&token(1)].value.state;
            change(&mut state.queue_tokens, token(1), |t| t.state = QueueTokenState::Wait);
            change(&mut state.queue_tokens, token(3), |t| t.state = active);
        },
        |state| change(&mut state.queue_tokens, token(3), |t| t.ticket = TicketNumber(5)),
        |state| state.departures.clear(),
    ]
}

#[tokio::test]
async fn each_broken_promise_is_named() {
    let sound = state().await;
    assert_eq!(broken(&sound), Vec::<&str>::new());
    assert!(sound.audit().iter().all(|finding| finding.checked > 0), "{:?}", sound.audit());
    for ((_, promise, _), break_it) in INVARIANTS.iter().zip(breaks()) {
        let mut state = sound.clone();
        break_it(&mut state);
        assert!(broken(&state).contains(promise), "{promise:?} is not among {:?}", broken(&state));
    }
}

#[tokio::test]
async fn promises_have_the_words_of_the_databases_audit() {
    // Theirs count in what was pruned, which nobody does to what is audited here.
    let theirs = crate::audit::invariants()
        .map(|theirs| (theirs.name, theirs.promise.trim_end_matches(", pruned ones counted in")));
    let theirs: BTreeSet<_> = theirs.collect();
    for (name, promise, _) in INVARIANTS {
        assert!(theirs.contains(&(name, promise)), "{name}: {promise:?}");
    }
}
