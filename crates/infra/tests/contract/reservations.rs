//! Reservations: stored, shown, counted, paid, cancelled.

use frontrow_domain::account::Payment;
use frontrow_domain::ports::{PaymentView, ReservationView};
use frontrow_domain::queue::QueueTokenState;
use frontrow_domain::reservation::{Holdings, Reservation, ReservationStatus, ReservedSeat};
use frontrow_domain::seat::SeatState;
use frontrow_domain::unit_of_work::Command;
use frontrow_domain::{
    Change, Money, ReservationId, SeatId, Timestamp, UnitOfWork, UserId, Version, Versioned,
};

use crate::fixture::{Fixture, HOLD, Sale, all_pages, at, both, just_before, key, money};

async fn view(fixture: &Fixture, reservation: &Reservation, now: Timestamp) -> Option<ReservationView> {
    let Reservation { user_id, id, .. } = *reservation;
    fixture.storage.reservation_queries.find_own(user_id, id, now).await.unwrap()
}

async fn status(fixture: &Fixture, reservation: &Reservation, now: Timestamp) -> ReservationStatus {
    let seen = view(fixture, reservation, now).await.unwrap().status;
    let listed =
        fixture.storage.reservation_queries.list_own(reservation.user_id, None, 1, now).await.unwrap();
    assert_eq!(listed[0].status, seen);
    seen
}

async fn update(fixture: &Fixture, reservation: Versioned<Reservation>) {
    let change = Change::Update(reservation);
    fixture.write(UnitOfWork { reservations: vec![change], ..Default::default() }).await;
}

pub(crate) async fn a_reservation_is_absent_until_it_is_inserted(fixture: &Fixture) {
    let (id, user) = (fixture.id(ReservationId::new), fixture.id(UserId::new));
    let sale = fixture.sale(1).await;
    assert_eq!(fixture.storage.reservations.find(id).await.unwrap(), None);
    let queries = &fixture.storage.reservation_queries;
    assert_eq!(queries.find_own(user, id, at(0)).await.unwrap(), None);
    assert_eq!(queries.list_own(user, None, 10, at(0)).await.unwrap(), []);
    let holdings = fixture.storage.reservations.holdings(user, sale.date.id, at(0)).await.unwrap();
    assert_eq!(holdings, Holdings::default());
}

pub(crate) async fn every_field_of_a_reservation_comes_back(fixture: &Fixture) {
    let sale = fixture.sale(2).await;
    let token = fixture.admitted(sale.room.id, at(0)).await.value;
    for ((ended, _), prices) in ReservationStatus::NAMES.into_iter().zip([
        [Money::ZERO, Money::MAX],
        [Money::ZERO, Money::ZERO],
        [money(1), money(2)],
        [Money::MAX, Money::ZERO],
    ]) {
        let seats = sale.seats.iter().zip(prices);
        let reservation = Reservation {
            id: fixture.id(ReservationId::new),
            user_id: fixture.id(UserId::new),
            performance_date_id: sale.date.id,
            room_id: sale.room.id,
            token_id: token.id,
            seats: seats.map(|(seat, price)| ReservedSeat { seat_id: seat.id, price }).collect(),
            total_amount: Money::total(prices).unwrap(),
            reserved_at: Timestamp::MIN,
            hold_expires_at: Timestamp::MAX,
            status: ReservationStatus::Reserved,
        };
        let insert = Change::Insert(reservation.clone());
        fixture.write(UnitOfWork { reservations: vec![insert], ..Default::default() }).await;
        let stored = fixture.reservation(reservation.id).await;
        assert_eq!(stored, Versioned::new(reservation.clone(), Version::FIRST));

        let changed = Reservation { status: ended, ..reservation };
        update(fixture, Versioned::new(changed.clone(), Version::FIRST)).await;
        let stored = fixture.reservation(changed.id).await;
        assert_eq!(stored, Versioned::new(changed.clone(), Version::FIRST.next()));
        // So that the next one may have the seats.
        let cancelled = Reservation { status: ReservationStatus::Cancelled, ..changed };
        update(fixture, Versioned::new(cancelled, stored.version)).await;
    }
}

pub(crate) async fn the_seats_of_a_reservation_are_ordered(fixture: &Fixture) {
    let sale = fixture.sale(1).await;
    let mut by_place = Vec::new();
    for number in [9, 8, 7] {
        let mut seat = sale.seats[0].clone();
        seat.id = fixture.id(SeatId::new);
        seat.place.number = number;
        by_place.insert(0, seat.id);
        let insert = Change::Insert(seat);
        fixture.write(UnitOfWork { seats: vec![insert], ..Default::default() }).await;
    }
    let mut by_id = by_place.clone();
    by_id.sort_unstable();
    assert_ne!(by_id, by_place);

    let token = fixture.admitted(sale.room.id, at(0)).await;
    let mut seats = fixture.seats(&by_id).await;
    seats.rotate_left(1);
    let (id, work) = fixture.hold_work(token, seats, at(0));
    fixture.write(work).await;
    let stored = fixture.reservation(id).await.value;
    assert_eq!(stored.seat_ids(), by_id, "the aggregate by id");
    let seen = view(fixture, &stored, at(0)).await.unwrap().seats;
    assert_eq!(seen.iter().map(|(id, _)| *id).collect::<Vec<_>>(), by_place, "the view by place");
}

pub(crate) async fn a_reservation_is_seen_by_its_user_alone(fixture: &Fixture) {
    let sale = fixture.sale(2).await;
    let held = fixture.hold(&sale, &sale.seat_ids(), at(0)).await.value;
    let expected = ReservationView {
        id: held.id,
        user_id: held.user_id,
        performance_date_id: sale.date.id,
        seats: sale.seats.iter().map(|seat| (seat.id, seat.place.clone())).collect(),
        total_amount: money(300),
        status: ReservationStatus::Reserved,
        hold_expires_at: at(HOLD),
        payment: None,
    };
    assert_eq!(view(fixture, &held, at(0)).await, Some(expected.clone()));
    let queries = &fixture.storage.reservation_queries;
    assert_eq!(queries.list_own(held.user_id, None, 10, at(0)).await.unwrap(), [expected]);

    let stranger = fixture.id(UserId::new);
    assert_eq!(queries.find_own(stranger, held.id, at(0)).await.unwrap(), None);
    assert_eq!(queries.list_own(stranger, None, 10, at(0)).await.unwrap(), []);
}

pub(crate) async fn a_view_shows_the_status_of_now(fixture: &Fixture) {
    let sale = fixture.sale(3).await;
    let ids = sale.seat_ids();
    let held = fixture.hold(&sale, &ids[..1], at(0)).await.value;
    let cancelled = fixture.hold(&sale, &ids[1..2], at(0)).await.value;
    let paid = fixture.hold(&sale, &ids[2..], at(0)).await.value;
    let work = fixture.end_work(cancelled.id, at(1)).await;
    fixture.write(work).await;
    fixture.pay(paid.id, at(1)).await;

    assert_eq!(status(fixture, &held, just_before(at(HOLD))).await, ReservationStatus::Reserved);
    assert_eq!(status(fixture, &held, at(HOLD)).await, ReservationStatus::Expired);
    assert_eq!(fixture.reservation(held.id).await.value, held, "reading changes nothing");
    for now in [just_before(at(HOLD)), at(HOLD)] {
        assert_eq!(status(fixture, &cancelled, now).await, ReservationStatus::Cancelled);
        assert_eq!(status(fixture, &paid, now).await, ReservationStatus::Done);
    }
}

pub(crate) async fn own_reservations_are_listed_newest_first_in_pages(fixture: &Fixture) {
    let sale = fixture.sale(7).await;
    let token = fixture.admitted(sale.room.id, at(0)).await.value;
    let mut newest_first = Vec::new();
    for seat in &sale.seat_ids()[..5] {
        let held = fixture.hold_under(token.id, &[*seat], at(0)).await;
        newest_first.insert(0, held.value.id);
    }
    fixture.hold(&sale, &sale.seat_ids()[5..], at(0)).await;
    for limit in [1, 2, 5, 100] {
        let page = async |before| {
            let queries = &fixture.storage.reservation_queries;
            queries.list_own(token.user_id, before, limit, at(0)).await.unwrap()
        };
        let listed = all_pages(usize::try_from(limit).unwrap(), |r: &ReservationView| r.id, page).await;
        assert_eq!(listed.iter().map(|view| view.id).collect::<Vec<_>>(), newest_first);
        for (view, seat) in listed.iter().rev().zip(&sale.seats) {
            assert_eq!(view.seats, [(seat.id, seat.place.clone())], "each has its own seats");
        }
    }
}

pub(crate) async fn a_paid_reservation_shows_its_tickets(fixture: &Fixture) {
    let sale = fixture.sale(7).await;
    let ids = sale.seat_ids();
    let token = fixture.admitted(sale.room.id, at(0)).await.value;
    let user = token.user_id;
    fixture.charge(user, 100_000, at(0)).await;
    let mut held = Vec::new();
    for seats in [&ids[..3], &ids[3..4], &ids[4..6], &ids[6..]] {
        held.push(fixture.hold_under(token.id, seats, at(0)).await.value.id);
    }
    let mut expected: Vec<_> = held.iter().rev().map(|id| (*id, None)).collect();
    for paid in [0, 2] {
        let work = fixture.pay_work(held[paid], at(1)).await;
        let Payment { id, ref tickets, .. } = work.payments[0];
        expected[3 - paid].1 = Some(PaymentView { id, tickets: tickets.clone() });
        fixture.write(work).await;
    }
    let cancel = fixture.end_work(held[1], at(1)).await;
    fixture.write(cancel).await;
    let queries = &fixture.storage.reservation_queries;
    // Long after whatever was answered is forgotten.
    for now in [at(1), at(100_000)] {
        let listed = queries.list_own(user, None, 10, now).await.unwrap();
        let shown: Vec<_> = listed.iter().map(|view| (view.id, view.payment.clone())).collect();
        assert_eq!(shown, expected);
        for view in listed {
            assert_eq!(queries.find_own(user, view.id, now).await.unwrap(), Some(view.clone()));
            if let Some(payment) = view.payment {
                assert_eq!(view.status, ReservationStatus::Done);
                let seats: Vec<_> = view.seats.iter().map(|(id, _)| *id).collect();
                assert_eq!(payment.tickets.iter().map(|ticket| ticket.seat_id).collect::<Vec<_>>(), seats);
            }
        }
    }
}

pub(crate) async fn live_seats_are_held_unlapsed_or_bought(fixture: &Fixture) {
    let sale = fixture.sale(6).await;
    let ids = sale.seat_ids();
    let other = fixture.another_date(sale.room, sale.concert.clone(), 1).await;
    let token = fixture.admitted(sale.room.id, at(0)).await.value;
    let holdings = async |sale: &Sale, now| {
        fixture.storage.reservations.holdings(token.user_id, sale.date.id, now).await.unwrap()
    };
    let count = async |sale: &Sale, now| holdings(sale, now).await.live_seats;
    let first = fixture.hold_under(token.id, &ids[..2], at(0)).await.value.id;
    assert_eq!(count(&sale, at(0)).await, 2);
    let later = fixture.hold_under(token.id, &ids[2..3], at(10)).await;
    assert_eq!(count(&sale, at(10)).await, 3);
    fixture.hold_under(token.id, &other.seat_ids(), at(10)).await;
    fixture.hold(&sale, &ids[3..4], at(10)).await;
    assert_eq!((count(&sale, at(10)).await, count(&other, at(10)).await), (3, 1), "this user, this date");

    assert_eq!(count(&sale, just_before(at(HOLD))).await, 3);
    assert_eq!(holdings(&sale, just_before(at(HOLD))).await.lapsed, []);
    let lapsed = Holdings { live_seats: 1, lapsed: vec![first] };
    assert_eq!(holdings(&sale, at(HOLD)).await, lapsed, "named once, however many seats it has");
    let both = Holdings { live_seats: 0, lapsed: vec![first, later.value.id] };
    assert_eq!(holdings(&sale, Timestamp::MAX).await, both);
    fixture.pay(later.value.id, at(20)).await;
    assert_eq!(holdings(&sale, Timestamp::MAX).await, lapsed, "bought for good");

    let again = fixture.join(sale.room.id, token.user_id, at(21)).await;
    let cancelled = fixture.hold_under(again.id, &ids[4..], at(21)).await;
    assert_eq!(count(&sale, at(21)).await, 5);
    let work = fixture.end_work(cancelled.value.id, at(22)).await;
    fixture.write(work).await;
    assert_eq!(count(&sale, at(22)).await, 3, "cancelled");
    fixture.order(Command::ExpireHolds { now: at(HOLD), limit: 9 }).await;
    assert_eq!(holdings(&sale, at(HOLD)).await, Holdings { live_seats: 1, lapsed: vec![] }, "swept");
}

pub(crate) async fn a_payment_is_written_whole(fixture: &Fixture) {
    let sale = fixture.sale(2).await;
    let ids = sale.seat_ids();
    let held = fixture.hold(&sale, &ids, at(0)).await;
    let user = held.value.user_id;
    let charged = fixture.charge(user, 1_000, at(1)).await;
    let token = fixture.token(held.value.token_id).await;
    let seats = fixture.seats(&ids).await;
    let mut work = fixture.pay_work(held.value.id, at(2)).await;
    work.idempotency = Some(fixture.record(user, at(2)));
    let entry = work.entries[0];
    fixture.write(work.clone()).await;

    let account = fixture.account(user).await;
    assert_eq!((account.value.balance, account.version), (money(700), charged.version.next()));
    let entries = fixture.storage.account_queries.list_entries(user, None, 1).await.unwrap();
    assert_eq!(entries, [entry]);
    let paid = fixture.reservation(held.value.id).await;
    assert_eq!((paid.value.status, paid.version), (ReservationStatus::Done, held.version.next()));
    for (seat, before) in fixture.seats(&ids).await.iter().zip(seats) {
        let sold = SeatState::Unavailable { reservation_id: held.value.id };
        assert_eq!((seat.value.state, seat.version), (sold, before.version.next()));
    }
    let gone = fixture.token(token.value.id).await;
    let state = QueueTokenState::Expired { activated_at: Some(at(0)), expires_at: at(2) };
    assert_eq!((gone.value.state, gone.version), (state, token.version.next()));
    let record = fixture.storage.idempotency_records.find(user, &key()).await.unwrap();
    assert_eq!(record, work.idempotency);
}

pub(crate) async fn a_cancelled_seat_sells_again(fixture: &Fixture) {
    let sale = fixture.sale(2).await;
    let ids = sale.seat_ids();
    for round in 0..3 {
        let held = fixture.hold(&sale, &ids, at(round)).await;
        let work = fixture.end_work(held.value.id, at(round)).await;
        fixture.write(work).await;
        for seat in fixture.seats(&ids).await {
            assert_eq!(seat.value.state, SeatState::Available);
        }
    }
    let held = fixture.hold(&sale, &ids, at(5)).await;
    let cancel = fixture.end_work(held.value.id, at(6)).await;
    let token = fixture.admitted(sale.room.id, at(6)).await;
    let mut seats = fixture.seats(&ids).await;
    for seat in &mut seats {
        seat.value.state = SeatState::Available;
    }
    let (id, hold) = fixture.hold_work(token, seats, at(6));
    // From one reservation straight to the next, in one unit.
    fixture.write(both(hold, UnitOfWork { seats: vec![], ..cancel })).await;
    fixture.pay(id, at(7)).await;
    assert_eq!(fixture.reservation(id).await.value.status, ReservationStatus::Done);
}
