//! The optimistic lock, the same for every kind of aggregate.

use frontrow_domain::account::Account;
use frontrow_domain::queue::{QueueToken, Room};
use frontrow_domain::reservation::{Reservation, ReservationStatus};
use frontrow_domain::seat::Seat;
use frontrow_domain::unit_of_work::{AggregateRef, CommitError, Committed, Guard};
use frontrow_domain::{
    Change, QueueTokenId, ReservationId, RoomId, SeatId, UnitOfWork, UserId, Version, Versioned,
};

use crate::fixture::{Fixture, at, both};
use crate::snapshot::Snapshot;

/// A value of one of the kinds that have a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Aggregate {
    Room(Room),
    QueueToken(QueueToken),
    Account(Account),
    Reservation(Reservation),
    Seat(Seat),
}

impl Aggregate {
    pub(crate) fn name(&self) -> AggregateRef {
        match self {
            Self::Room(room) => AggregateRef::Room(room.id),
            Self::QueueToken(token) => AggregateRef::QueueToken(token.id),
            Self::Account(account) => AggregateRef::Account(account.user_id),
            Self::Reservation(reservation) => AggregateRef::Reservation(reservation.id),
            Self::Seat(seat) => AggregateRef::Seat(seat.id),
        }
    }

    /// Writes the value as it is over a version.
    pub(crate) fn update(&self, version: Version) -> UnitOfWork {
        let mut work = UnitOfWork::default();
        match self.clone() {
            Self::Room(room) => work.rooms.push(over(room, version)),
            Self::QueueToken(token) => work.queue_tokens.push(Versioned::new(token, version)),
            Self::Account(account) => work.accounts.push(over(account, version)),
            Self::Reservation(reservation) => work.reservations.push(over(reservation, version)),
            Self::Seat(seat) => work.seats.push(over(seat, version)),
        }
        work
    }

    /// Inserts the value. A queue token cannot be inserted.
    pub(crate) fn insert(&self) -> Option<UnitOfWork> {
        let mut work = UnitOfWork::default();
        match self.clone() {
            Self::Room(room) => work.rooms.push(Change::Insert(room)),
            Self::QueueToken(_) => return None,
            Self::Account(account) => work.accounts.push(Change::Insert(account)),
            Self::Reservation(reservation) => work.reservations.push(Change::Insert(reservation)),
            Self::Seat(seat) => work.seats.push(Change::Insert(seat)),
        }
        Some(work)
    }

    pub(crate) fn guard(&self, version: Version) -> UnitOfWork {
        let guard = Guard { aggregate: self.name(), version };
        UnitOfWork { guards: vec![guard], ..Default::default() }
    }

    /// The same under an id that was never stored, and no longer in the way of the stored one.
    fn unstored(&self, fixture: &Fixture) -> Self {
        let mut copy = self.clone();
        match &mut copy {
            Self::Room(room) => room.id = fixture.id(RoomId::new),
            Self::QueueToken(token) => {
                token.id = fixture.id(QueueTokenId::new);
                token.user_id = fixture.id(UserId::new);
                token.ticket.0 += 1_000;
            }
            Self::Account(account) => account.user_id = fixture.id(UserId::new),
            Self::Reservation(reservation) => {
                reservation.id = fixture.id(ReservationId::new);
                reservation.status = ReservationStatus::Cancelled;
            }
            Self::Seat(seat) => {
                seat.id = fixture.id(SeatId::new);
                seat.place.number += 1_000;
            }
        }
        copy
    }

    pub(crate) async fn load(&self, fixture: &Fixture) -> Versioned<Self> {
        match self.name() {
            AggregateRef::Room(id) => wrap(fixture.room(id).await, Self::Room),
            AggregateRef::QueueToken(id) => wrap(fixture.token(id).await, Self::QueueToken),
            AggregateRef::Account(id) => wrap(fixture.account(id).await, Self::Account),
            AggregateRef::Reservation(id) => wrap(fixture.reservation(id).await, Self::Reservation),
            AggregateRef::Seat(id) => wrap(fixture.seat(id).await, Self::Seat),
        }
    }
}

const fn over<T>(value: T, version: Version) -> Change<T> {
    Change::Update(Versioned::new(value, version))
}

fn wrap<T>(stored: Versioned<T>, kind: fn(T) -> Aggregate) -> Versioned<Aggregate> {
    Versioned::new(kind(stored.value), stored.version)
}

/// One stored aggregate of each kind, in the order in which conflicts are reported.
pub(crate) async fn one_of_each(fixture: &Fixture) -> Vec<Versioned<Aggregate>> {
    let sale = fixture.sale(1).await;
    let held = fixture.hold(&sale, &sale.seat_ids(), at(0)).await;
    let account = fixture.charge(held.value.user_id, 100, at(0)).await;
    vec![
        wrap(fixture.room(sale.room.id).await, Aggregate::Room),
        wrap(fixture.token(held.value.token_id).await, Aggregate::QueueToken),
        wrap(account, Aggregate::Account),
        wrap(held, Aggregate::Reservation),
        wrap(fixture.seat(sale.seats[0].id).await, Aggregate::Seat),
    ]
}

/// Commits what conflicts on this aggregate, together with a charge that must not be written.
async fn assert_conflict(fixture: &Fixture, on: AggregateRef, work: UnitOfWork) {
    let before = Snapshot::of(fixture).await;
    let charge = fixture.charge_work(fixture.id(UserId::new), None, 1, at(0));
    let refused = fixture.commit(both(work, charge)).await.unwrap_err();
    assert!(matches!(refused, CommitError::Conflict(aggregate) if aggregate == on), "{on:?}: {refused:?}");
    before.assert_same(fixture).await;
}

fn other_versions(version: Version) -> [Version; 3] {
    [Version::new(version.get() - 1), version.next(), Version::new(i64::MAX)]
}

pub(crate) async fn an_inserted_aggregate_has_the_first_version(fixture: &Fixture) {
    for stored in one_of_each(fixture).await {
        let copy = stored.value.unstored(fixture);
        let Some(insert) = copy.insert() else { continue };
        fixture.write(insert).await;
        assert_eq!(copy.load(fixture).await, Versioned::new(copy, Version::FIRST));
    }
}

pub(crate) async fn every_update_is_one_more_version(fixture: &Fixture) {
    for mut stored in one_of_each(fixture).await {
        for _ in 0..3 {
            fixture.write(stored.value.update(stored.version)).await;
            let expected = Versioned::new(stored.value.clone(), stored.version.next());
            stored = stored.value.load(fixture).await;
            assert_eq!(stored, expected, "also when nothing changed");
        }
    }
}

pub(crate) async fn an_update_of_another_version_is_a_conflict(fixture: &Fixture) {
    for stored in one_of_each(fixture).await {
        for version in other_versions(stored.version) {
            assert_conflict(fixture, stored.value.name(), stored.value.update(version)).await;
        }
    }
}

pub(crate) async fn an_update_of_an_absent_aggregate_is_a_conflict(fixture: &Fixture) {
    for stored in one_of_each(fixture).await {
        let absent = stored.value.unstored(fixture);
        for version in [Version::FIRST, stored.version] {
            assert_conflict(fixture, absent.name(), absent.update(version)).await;
        }
    }
}

pub(crate) async fn an_insert_of_a_present_aggregate_is_a_conflict(fixture: &Fixture) {
    for stored in one_of_each(fixture).await {
        if let Some(insert) = stored.value.insert() {
            assert_conflict(fixture, stored.value.name(), insert).await;
        }
    }
}

pub(crate) async fn a_guard_that_holds_changes_nothing(fixture: &Fixture) {
    let all = one_of_each(fixture).await;
    let before = Snapshot::of(fixture).await;
    for stored in &all {
        fixture.write(stored.value.guard(stored.version)).await;
    }
    let guards = all.iter().map(|stored| stored.value.guard(stored.version));
    fixture.write(guards.rev().reduce(both).unwrap()).await;
    before.assert_same(fixture).await;

    let guards = all.iter().map(|stored| stored.value.guard(stored.version)).reduce(both).unwrap();
    let user = fixture.id(UserId::new);
    fixture.write(both(guards, fixture.charge_work(user, None, 5, at(0)))).await;
    assert_eq!(fixture.account(user).await.version, Version::FIRST, "what it guarded is written");
    for stored in all {
        assert_eq!(stored.value.load(fixture).await, stored);
    }
}

pub(crate) async fn a_guard_of_another_version_is_a_conflict(fixture: &Fixture) {
    for stored in one_of_each(fixture).await {
        for version in other_versions(stored.version) {
            assert_conflict(fixture, stored.value.name(), stored.value.guard(version)).await;
        }
    }
}

pub(crate) async fn a_guard_of_an_absent_aggregate_is_a_conflict(fixture: &Fixture) {
    for stored in one_of_each(fixture).await {
        let absent = stored.value.unstored(fixture);
        assert_conflict(fixture, absent.name(), absent.guard(Version::FIRST)).await;
    }
}

pub(crate) async fn an_empty_unit_of_work_is_committed(fixture: &Fixture) {
    let committed = fixture.commit(UnitOfWork::default()).await.unwrap();
    assert_eq!(committed, Committed { outcome: None });
}
