//! Holds: expired by command, or taken over.

use frontrow_domain::reservation::{Reservation, ReservationStatus};
use frontrow_domain::seat::{Seat, SeatState};
use frontrow_domain::unit_of_work::{Command, CommandOutcome};
use frontrow_domain::{Change, ReservationId, Timestamp, UnitOfWork, Versioned};

use crate::fixture::{Fixture, HOLD, Sale, at, both, just_before};
use crate::snapshot::Snapshot;

async fn expire(fixture: &Fixture, limit: u32, now: Timestamp) -> u32 {
    match fixture.order(Command::ExpireHolds { now, limit }).await {
        CommandOutcome::HoldsExpired(expired) => expired,
        other => panic!("{other:?}"),
    }
}

/// The reservation as it was, one version later and EXPIRED.
async fn assert_expired(fixture: &Fixture, held: &Versioned<Reservation>) {
    let status = ReservationStatus::Expired;
    let expected = Versioned::new(Reservation { status, ..held.value.clone() }, held.version.next());
    assert_eq!(fixture.reservation(held.value.id).await, expected);
}

pub(crate) async fn lapsed_holds_are_expired_in_batches(fixture: &Fixture) {
    let sale = fixture.sale(6).await;
    let mut by_deadline = Vec::new();
    for (second, seat) in [3, 1, 2, 0, 4, 9].into_iter().zip(sale.seat_ids()) {
        by_deadline.push(fixture.hold(&sale, &[seat], at(second)).await);
    }
    by_deadline.sort_by_key(|held| held.value.hold_expires_at);

    assert_eq!(expire(fixture, 10, just_before(at(HOLD))).await, 0);
    assert_eq!(expire(fixture, 0, at(HOLD + 4)).await, 0);
    for (so_far, batch) in [(2, 2), (4, 2), (5, 1), (5, 0)] {
        assert_eq!(expire(fixture, 2, at(HOLD + 4)).await, batch);
        for (n, held) in by_deadline.iter().enumerate() {
            if n < so_far {
                assert_expired(fixture, held).await;
            } else {
                assert_eq!(fixture.reservation(held.value.id).await, *held, "after {so_far}");
            }
        }
    }
}

pub(crate) async fn a_hold_expires_with_all_its_seats(fixture: &Fixture) {
    let sale = fixture.sale(4).await;
    let ids = sale.seat_ids();
    let first = fixture.hold(&sale, &ids[..3], at(0)).await;
    let second = fixture.hold(&sale, &ids[3..], at(1)).await;
    let before = fixture.seats(&ids).await;
    assert_eq!(expire(fixture, 1, at(HOLD + 10)).await, 1, "a limit of reservations, not of seats");
    assert_expired(fixture, &first).await;
    assert_eq!(fixture.reservation(second.value.id).await, second);
    let after = fixture.seats(&ids).await;
    for (before, after) in before[..3].iter().zip(&after) {
        let mut released = before.value.clone();
        released.state = SeatState::Available;
        assert_eq!(*after, Versioned::new(released, before.version.next()));
    }
    assert_eq!(after[3], before[3]);
}

pub(crate) async fn only_unpaid_holds_expire(fixture: &Fixture) {
    let sale = fixture.sale(4).await;
    let ids = sale.seat_ids();
    let paid = fixture.hold(&sale, &ids[..1], at(0)).await;
    fixture.pay(paid.value.id, at(1)).await;
    let cancelled = fixture.hold(&sale, &ids[1..2], at(0)).await;
    let work = fixture.end_work(cancelled.value.id, at(1)).await;
    fixture.write(work).await;
    let expired = fixture.hold(&sale, &ids[2..3], at(0)).await;
    let work = fixture.end_work(expired.value.id, at(HOLD)).await;
    fixture.write(work).await;
    fixture.hold(&sale, &ids[3..], Timestamp::MAX).await;

    let before = Snapshot::of(fixture).await;
    assert_eq!(expire(fixture, 10, just_before(Timestamp::MAX)).await, 0);
    before.assert_same(fixture).await;
    assert_eq!(expire(fixture, 10, Timestamp::MAX).await, 1);
}

pub(crate) async fn a_lapsed_hold_gives_way_in_one_unit(fixture: &Fixture) {
    let sale = fixture.sale(3).await;
    let ids = sale.seat_ids();
    let old = fixture.hold(&sale, &ids[..2], at(0)).await;
    let (id, work) = take_over(fixture, &sale, &old, at(HOLD)).await;
    fixture.write(work).await;

    assert_expired(fixture, &old).await;
    let new = fixture.reservation(id).await.value;
    assert_eq!((new.seat_ids(), new.status), (ids[1..].to_vec(), ReservationStatus::Reserved));
    let states: Vec<_> = fixture.seats(&ids).await.into_iter().map(|seat| seat.value.state).collect();
    let held = SeatState::Reserved { reservation_id: id, hold_expires_at: at(2 * HOLD) };
    assert_eq!(states, [SeatState::Available, held, held]);
    assert_eq!(expire(fixture, 10, at(HOLD)).await, 0, "nothing is left to sweep");
}

/// What a new user writes who takes the last seat of a lapsed hold, and the one after it: the hold is expired, its
/// other seats are freed.
pub(crate) async fn take_over(
    fixture: &Fixture,
    sale: &Sale,
    old: &Versioned<Reservation>,
    now: Timestamp,
) -> (ReservationId, UnitOfWork) {
    let old_seats = old.value.seat_ids();
    let (last, others) = old_seats.split_last().unwrap();
    let after_last = sale.seat_ids()[old_seats.len()];
    let token = fixture.admitted(sale.room.id, now).await;
    let (id, hold) = fixture.hold_work(token, fixture.seats(&[*last, after_last]).await, now);
    let end = fixture.end_work(old.value.id, now).await;
    let freed = |change: &Change<Seat>| others.contains(&change.value().id);
    let seats = end.seats.into_iter().filter(freed).collect();
    (id, both(hold, UnitOfWork { reservations: end.reservations, seats, ..Default::default() }))
}
