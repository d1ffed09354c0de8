//! A unit with several faults reports the same one everywhere.

use frontrow_domain::concert::Concert;
use frontrow_domain::queue::{RoomMode, RoomPolicy, RoomRefusal};
use frontrow_domain::unit_of_work::{AggregateRef, CommitError};
use frontrow_domain::{Change, ConcertId, RoomId, SeatId, UnitOfWork, UserId, Version, Versioned};

use crate::fixture::{Fixture, at, both, label};
use crate::snapshot::Snapshot;
use crate::versions::{Aggregate, one_of_each};

/// Faults in the order in which they are to be reported: each with its name.
pub(crate) async fn faults(fixture: &Fixture) -> Vec<(&'static str, UnitOfWork)> {
    let user = fixture.id(UserId::new);
    let used = UnitOfWork { idempotency: Some(fixture.record(user, at(0))), ..Default::default() };
    fixture.write(used.clone()).await;

    let present = one_of_each(fixture).await;
    let mut conflicts = UnitOfWork::default();
    for stored in &present {
        conflicts = both(conflicts, stored.value.update(stored.version.next()));
    }
    let present = one_of_each(fixture).await;
    let insert = present.iter().filter_map(|stored| stored.value.insert()).reduce(both).unwrap();

    let closed = RoomPolicy { mode: RoomMode::Closed, ..RoomPolicy::default() };
    let closed = fixture.new_room(closed).await;
    let refused = fixture.join_work(closed.id, fixture.id(UserId::new), at(0));
    vec![
        ("key", used),
        ("conflict", conflicts),
        ("conflict", insert),
        ("refused", refused),
        ("backstop", taken_place(fixture).await),
        ("backstop", homeless_concert(fixture)),
    ]
}

/// A seat in the place of another.
async fn taken_place(fixture: &Fixture) -> UnitOfWork {
    let mut seat = fixture.sale(1).await.seats.remove(0);
    seat.id = fixture.id(SeatId::new);
    UnitOfWork { seats: vec![Change::Insert(seat)], ..Default::default() }
}

/// A concert whose room is nowhere.
pub(crate) fn homeless_concert(fixture: &Fixture) -> UnitOfWork {
    let concert = Concert {
        id: fixture.id(ConcertId::new),
        title: label("t"),
        venue: label("v"),
        room_id: fixture.id(RoomId::new),
    };
    UnitOfWork { concerts: vec![concert], ..Default::default() }
}

pub(crate) fn stage(error: &CommitError) -> &'static str {
    match error {
        CommitError::DuplicateIdempotencyKey => "key",
        CommitError::Conflict(_) => "conflict",
        CommitError::Refused(RoomRefusal::Closed) => "refused",
        CommitError::Backstop { .. } => "backstop",
        other => panic!("{other:?}"),
    }
}

async fn assert_reports(fixture: &Fixture, work: UnitOfWork, expected: AggregateRef) {
    let refused = fixture.commit(work.clone()).await.unwrap_err();
    let is_it = matches!(refused, CommitError::Conflict(aggregate) if aggregate == expected);
    assert!(is_it, "{refused:?} instead of {expected:?} for {work:?}");
}

pub(crate) async fn faults_are_reported_by_stage(fixture: &Fixture) {
    let faults = faults(fixture).await;
    let before = Snapshot::of(fixture).await;
    for (n, (first, fault)) in faults.iter().enumerate() {
        let alone = fixture.commit(fault.clone()).await.unwrap_err();
        assert_eq!(stage(&alone), *first, "{alone:?}");
        for (second, later) in &faults[n + 1..] {
            for work in [both(fault.clone(), later.clone()), both(later.clone(), fault.clone())] {
                let refused = fixture.commit(work).await.unwrap_err();
                assert_eq!(stage(&refused), *first, "{first} with {second}: {refused:?}");
            }
        }
    }
    let all = faults.into_iter().map(|(_, fault)| fault).rev().reduce(both).unwrap();
    assert_eq!(stage(&fixture.commit(all).await.unwrap_err()), "key");
    before.assert_same(fixture).await;
}

/// Every way in which an aggregate can be in conflict.
fn conflicting(stored: &Versioned<Aggregate>) -> Vec<UnitOfWork> {
    let newer = stored.version.next();
    let mut works = vec![stored.value.update(newer), stored.value.guard(newer)];
    works.extend(stored.value.insert());
    works
}

pub(crate) async fn conflicts_are_reported_by_kind(fixture: &Fixture) {
    // Later kinds get lower ids: the kind comes first.
    let mut present = Vec::new();
    for n in (0..5).rev() {
        present.insert(0, one_of_each(fixture).await.swap_remove(n));
    }
    for (n, first) in present.iter().enumerate() {
        for second in &present[n + 1..] {
            for a in conflicting(first) {
                for b in conflicting(second) {
                    assert_reports(fixture, both(b, a.clone()), first.value.name()).await;
                }
            }
            let fine = first.value.update(first.version);
            for b in conflicting(second) {
                assert_reports(fixture, both(fine.clone(), b), second.value.name()).await;
            }
        }
    }
}

pub(crate) async fn conflicts_of_one_kind_are_reported_by_id(fixture: &Fixture) {
    let (low, high) = (one_of_each(fixture).await, one_of_each(fixture).await);
    for (low, high) in low.iter().zip(&high) {
        assert!(low.value.name() < high.value.name());
        for a in conflicting(low) {
            for b in conflicting(high) {
                assert_reports(fixture, both(b.clone(), a.clone()), low.value.name()).await;
                assert_reports(fixture, both(a.clone(), b), low.value.name()).await;
            }
        }
        let fine = low.value.guard(low.version);
        assert_reports(fixture, both(high.value.guard(Version::new(9)), fine), high.value.name()).await;
    }
}
