//! Units of work that no use case would make: storage says no where the code is wrong.
//!
//! A balance below zero is not among them, as [`Money`] cannot say it, nor a ticket number given twice, as only
//! storage gives them.

use frontrow_domain::account::{Entry, EntryKind, Payment, Ticket};
use frontrow_domain::queue::{QueueToken, QueueTokenState};
use frontrow_domain::reservation::{Reservation, ReservationStatus};
use frontrow_domain::seat::{Seat, SeatState};
use frontrow_domain::unit_of_work::CommitError;
use frontrow_domain::{
    Change, ConcertId, EntryId, Money, PaymentId, PerformanceDateId, QueueTokenId, ReservationId, RoomId,
    SeatId, TicketId, Timestamp, UnitOfWork, UserId, Versioned,
};

use crate::fixture::{Fixture, HOLD, START, Sale, at, just_before};
use crate::order::homeless_concert;
use crate::snapshot::Snapshot;

async fn assert_refused(fixture: &Fixture, work: UnitOfWork) {
    let before = Snapshot::of(fixture).await;
    let refused = fixture.commit(work).await.unwrap_err();
    assert!(matches!(refused, CommitError::Backstop { .. }), "{refused:?}");
    before.assert_same(fixture).await;
}

/// A hold by a new user that takes these seats for free, whatever they are.
async fn blind_hold(fixture: &Fixture, sale: &Sale, seats: &[SeatId]) -> UnitOfWork {
    let token = fixture.admitted(sale.room.id, at(0)).await;
    let mut seats = fixture.seats(seats).await;
    for seat in &mut seats {
        seat.value.state = SeatState::Available;
    }
    fixture.hold_work(token, seats, at(0)).1
}

/// Two reservations of one seat each by different users with an account; the first is paid.
struct Paid {
    first: Reservation,
    payment: Payment,
    second: Reservation,
}

async fn paid(fixture: &Fixture) -> Paid {
    let sale = fixture.sale(2).await;
    let ids = sale.seat_ids();
    let first = fixture.hold(&sale, &ids[..1], at(0)).await.value;
    let second = fixture.hold(&sale, &ids[1..], at(0)).await.value;
    fixture.charge(second.user_id, 1_000, at(0)).await;
    fixture.charge(first.user_id, 1_000, at(0)).await;
    let work = fixture.pay_work(first.id, at(1)).await;
    let payment = work.payments[0].clone();
    fixture.write(work).await;
    Paid { first, payment, second }
}

/// The bare payment of a reservation with an entry for it.
fn bare_payment(fixture: &Fixture, reservation: &Reservation, tickets: Vec<Ticket>) -> UnitOfWork {
    let (entry_id, user_id) = (fixture.id(EntryId::new), reservation.user_id);
    let payment = Payment {
        id: fixture.id(PaymentId::new),
        reservation_id: reservation.id,
        user_id,
        entry_id,
        amount: reservation.total_amount,
        paid_at: at(2),
        tickets,
    };
    let kind = EntryKind::Payment { reservation_id: reservation.id };
    let entries = vec![entry(entry_id, user_id, 9, kind)];
    UnitOfWork { entries, payments: vec![payment], ..Default::default() }
}

const fn entry(id: EntryId, user_id: UserId, number: i64, kind: EntryKind) -> Entry {
    let (amount, balance_after) = (Money::ZERO, Money::ZERO);
    Entry { id, user_id, number, kind, amount, balance_after, at: Timestamp::MIN }
}

fn reserve(reservation: Reservation) -> UnitOfWork {
    UnitOfWork { reservations: vec![Change::Insert(reservation)], ..Default::default() }
}

fn seated(seat: Seat) -> UnitOfWork {
    UnitOfWork { seats: vec![Change::Insert(seat)], ..Default::default() }
}

pub(crate) async fn one_live_hold_per_seat(fixture: &Fixture) {
    let sale = fixture.sale(3).await;
    let ids = sale.seat_ids();
    let held = fixture.hold(&sale, &ids[1..2], at(0)).await;
    assert_refused(fixture, blind_hold(fixture, &sale, &ids).await).await;
    let work = fixture.end_work(held.value.id, just_before(at(HOLD))).await;
    fixture.write(work).await;
    fixture.write(blind_hold(fixture, &sale, &ids).await).await;
}

pub(crate) async fn no_hold_of_a_sold_seat(fixture: &Fixture) {
    let sale = fixture.sale(2).await;
    let held = fixture.hold(&sale, &sale.seat_ids()[..1], at(0)).await;
    fixture.pay(held.value.id, at(1)).await;
    assert_refused(fixture, blind_hold(fixture, &sale, &sale.seat_ids()).await).await;
}

pub(crate) async fn no_revival_of_a_hold_whose_seat_is_taken(fixture: &Fixture) {
    let sale = fixture.sale(1).await;
    let old = fixture.hold(&sale, &sale.seat_ids(), at(0)).await;
    let work = fixture.end_work(old.value.id, at(HOLD)).await;
    fixture.write(work).await;
    fixture.hold(&sale, &sale.seat_ids(), at(HOLD)).await;
    let ended = fixture.reservation(old.value.id).await;
    for status in [ReservationStatus::Reserved, ReservationStatus::Done] {
        let revived = Versioned::new(Reservation { status, ..old.value.clone() }, ended.version);
        let reservations = vec![Change::Update(revived)];
        assert_refused(fixture, UnitOfWork { reservations, ..Default::default() }).await;
    }
}

pub(crate) async fn one_live_token_per_room_and_user(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let old = fixture.join(room.id, fixture.id(UserId::new), at(0)).await;
    fixture.leave(old.id, at(1)).await;
    fixture.join(room.id, old.user_id, at(2)).await;
    let left = fixture.token(old.id).await;
    let active = QueueTokenState::Active { activated_at: at(1), expires_at: at(9), paused_at: None };
    for state in [QueueTokenState::Wait, active] {
        let revived = Versioned::new(QueueToken { state, ..old }, left.version);
        assert_refused(fixture, UnitOfWork { queue_tokens: vec![revived], ..Default::default() }).await;
    }
}

pub(crate) async fn one_entry_per_number(fixture: &Fixture) {
    let (user, other) = (fixture.id(UserId::new), fixture.id(UserId::new));
    fixture.charge(user, 1, at(0)).await;
    fixture.charge(user, 1, at(0)).await;
    for number in [1, 2] {
        let again = entry(fixture.id(EntryId::new), user, number, EntryKind::Charge);
        assert_refused(fixture, UnitOfWork { entries: vec![again], ..Default::default() }).await;
    }
    fixture.charge(other, 1, at(0)).await;
}

pub(crate) async fn one_payment_per_reservation(fixture: &Fixture) {
    let paid = paid(fixture).await;
    assert_refused(fixture, bare_payment(fixture, &paid.first, vec![])).await;
    fixture.write(bare_payment(fixture, &paid.second, vec![])).await;
    let twice = bare_payment(fixture, &paid.second, vec![]);
    assert_refused(fixture, twice).await;
}

pub(crate) async fn one_payment_per_entry(fixture: &Fixture) {
    let paid = paid(fixture).await;
    let mut work = bare_payment(fixture, &paid.second, vec![]);
    work.payments[0].entry_id = paid.payment.entry_id;
    assert_refused(fixture, work).await;
}

pub(crate) async fn one_ticket_per_seat(fixture: &Fixture) {
    let paid = paid(fixture).await;
    let ticket = |seat_id| Ticket { id: fixture.id(TicketId::new), seat_id };
    let sold = paid.payment.tickets[0].seat_id;
    assert_refused(fixture, bare_payment(fixture, &paid.second, vec![ticket(sold)])).await;
    let free = paid.second.seat_ids()[0];
    fixture.write(bare_payment(fixture, &paid.second, vec![ticket(free)])).await;
}

pub(crate) async fn one_seat_per_place(fixture: &Fixture) {
    let sale = fixture.sale(1).await;
    let mut twin = Seat { id: fixture.id(SeatId::new), ..sale.seats[0].clone() };
    assert_refused(fixture, seated(twin.clone())).await;
    twin.performance_date_id = fixture.new_date(sale.concert.id, at(START)).await.id;
    fixture.write(seated(twin)).await;
}

pub(crate) async fn rows_that_never_change_are_inserted_once(fixture: &Fixture) {
    let sale = fixture.sale(1).await;
    let concert = sale.concert;
    assert_refused(fixture, UnitOfWork { concerts: vec![concert], ..Default::default() }).await;
    let date = sale.date;
    assert_refused(fixture, UnitOfWork { performance_dates: vec![date], ..Default::default() }).await;

    let paid = paid(fixture).await;
    let mut same_entry = bare_payment(fixture, &paid.second, vec![]);
    same_entry.entries[0].id = paid.payment.entry_id;
    same_entry.payments.clear();
    assert_refused(fixture, same_entry).await;
    let mut same_payment = bare_payment(fixture, &paid.second, vec![]);
    same_payment.payments[0].id = paid.payment.id;
    assert_refused(fixture, same_payment).await;
    let same_ticket = Ticket { id: paid.payment.tickets[0].id, seat_id: paid.second.seat_ids()[0] };
    assert_refused(fixture, bare_payment(fixture, &paid.second, vec![same_ticket])).await;
}

pub(crate) async fn a_concert_has_a_room(fixture: &Fixture) {
    assert_refused(fixture, homeless_concert(fixture)).await;
}

pub(crate) async fn a_date_has_a_concert(fixture: &Fixture) {
    let mut date = fixture.sale(1).await.date;
    date.id = fixture.id(PerformanceDateId::new);
    date.concert_id = fixture.id(ConcertId::new);
    assert_refused(fixture, UnitOfWork { performance_dates: vec![date], ..Default::default() }).await;
}

pub(crate) async fn a_seat_has_a_date(fixture: &Fixture) {
    let mut seat = fixture.sale(1).await.seats.remove(0);
    seat.id = fixture.id(SeatId::new);
    seat.performance_date_id = fixture.id(PerformanceDateId::new);
    assert_refused(fixture, seated(seat)).await;
}

pub(crate) async fn a_taken_seat_has_a_reservation(fixture: &Fixture) {
    let sale = fixture.sale(1).await;
    let seat = fixture.seat(sale.seats[0].id).await;
    let reservation_id = fixture.id(ReservationId::new);
    for state in [
        SeatState::Reserved { reservation_id, hold_expires_at: at(HOLD) },
        SeatState::Unavailable { reservation_id },
    ] {
        let taken = Versioned::new(Seat { state, ..seat.value.clone() }, seat.version);
        assert_refused(fixture, UnitOfWork { seats: vec![Change::Update(taken)], ..Default::default() })
            .await;
    }
}

pub(crate) async fn a_reservation_has_a_date_a_room_a_token_and_seats(fixture: &Fixture) {
    let sale = fixture.sale(1).await;
    let token = fixture.admitted(sale.room.id, at(0)).await;
    let (_, work) = fixture.hold_work(token, fixture.seats(&sale.seat_ids()).await, at(0));
    let sound = work.reservations[0].value();
    let mut no_seat = sound.clone();
    no_seat.seats[0].seat_id = fixture.id(SeatId::new);
    for unsound in [
        Reservation { performance_date_id: fixture.id(PerformanceDateId::new), ..sound.clone() },
        Reservation { room_id: fixture.id(RoomId::new), ..sound.clone() },
        Reservation { token_id: fixture.id(QueueTokenId::new), ..sound.clone() },
        no_seat,
    ] {
        assert_refused(fixture, reserve(unsound)).await;
    }
    fixture.write(reserve(sound.clone())).await;
}

pub(crate) async fn an_entry_has_an_account(fixture: &Fixture) {
    let orphan = entry(fixture.id(EntryId::new), fixture.id(UserId::new), 1, EntryKind::Charge);
    assert_refused(fixture, UnitOfWork { entries: vec![orphan], ..Default::default() }).await;
}

pub(crate) async fn an_entry_of_a_payment_has_a_reservation(fixture: &Fixture) {
    let user = fixture.id(UserId::new);
    fixture.charge(user, 1, at(0)).await;
    let kind = EntryKind::Payment { reservation_id: fixture.id(ReservationId::new) };
    let orphan = entry(fixture.id(EntryId::new), user, 2, kind);
    assert_refused(fixture, UnitOfWork { entries: vec![orphan], ..Default::default() }).await;
}

pub(crate) async fn a_payment_has_a_reservation_an_account_and_an_entry(fixture: &Fixture) {
    let paid = paid(fixture).await;
    let sound = bare_payment(fixture, &paid.second, vec![]);
    let mut unsound = [sound.clone(), sound.clone(), sound.clone()];
    unsound[0].payments[0].reservation_id = fixture.id(ReservationId::new);
    unsound[1].payments[0].user_id = fixture.id(UserId::new);
    unsound[2].payments[0].entry_id = fixture.id(EntryId::new);
    for work in unsound {
        assert_refused(fixture, work).await;
    }
    fixture.write(sound).await;
}

pub(crate) async fn a_ticket_has_a_seat(fixture: &Fixture) {
    let paid = paid(fixture).await;
    let ticket = Ticket { id: fixture.id(TicketId::new), seat_id: fixture.id(SeatId::new) };
    assert_refused(fixture, bare_payment(fixture, &paid.second, vec![ticket])).await;
}
