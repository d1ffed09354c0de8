//! A unit of work is written whole or not at all, whatever becomes of it and of those around it.

use std::time::Duration;

use frontrow_domain::audit_log::Acting;
use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::queue::{Room, RoomPolicy};
use frontrow_domain::unit_of_work::{AggregateRef, CommitError, Guard};
use frontrow_domain::{
    AuditEntryId, Change, ConcertId, PerformanceDateId, RoomId, SeatId, UnitOfWork, UserId, Version,
};

use crate::fixture::{Fixture, START, at, both, key, label, money};
use crate::order::{faults, stage};
use crate::snapshot::Snapshot;

/// A unit that writes a bit of everything there is.
async fn everything(fixture: &Fixture) -> UnitOfWork {
    let sale = fixture.sale(2).await;
    let held = fixture.hold(&sale, &sale.seat_ids(), at(0)).await;
    let user = held.value.user_id;
    fixture.charge(user, 1_000, at(0)).await;
    let mut work = fixture.pay_work(held.value.id, at(1)).await;
    work.idempotency = Some(fixture.record(user, at(1)));
    let aggregate = AggregateRef::Room(sale.room.id);
    work.guards.push(Guard { aggregate, version: Version::FIRST });

    let room = Room::new(fixture.id(RoomId::new), RoomPolicy::default(), at(1));
    let (id, title, venue) = (fixture.id(ConcertId::new), label("t"), label("v"));
    let concert = Concert { id, title, venue, room_id: room.id };
    let date = fixture.id(PerformanceDateId::new);
    let mut seat = sale.seats[0].clone();
    seat.id = fixture.id(SeatId::new);
    seat.performance_date_id = date;
    work.performance_dates.push(PerformanceDate::new(date, id, at(START), None).unwrap());
    work.rooms.push(Change::Insert(room));
    let acting = Acting { id: fixture.id(AuditEntryId::new), at: at(1), user_id: fixture.id(UserId::new) };
    work.audit_log.push(acting.creates_concert(&concert, None));
    work.concerts.push(concert);
    work.seats.push(Change::Insert(seat));
    both(work, fixture.join_work(sale.room.id, fixture.id(UserId::new), at(1)))
}

pub(crate) async fn a_unit_that_fails_leaves_nothing_behind(fixture: &Fixture) {
    let work = everything(fixture).await;
    let faults = faults(fixture).await;
    let before = Snapshot::of(fixture).await;
    for (expected, fault) in faults {
        let refused = fixture.commit(both(fault, work.clone())).await.unwrap_err();
        assert_eq!(stage(&refused), expected, "{refused:?}");
        before.assert_same(fixture).await;
    }
    // Payments and tickets cannot be read: that this passes shows that none were left.
    fixture.write(work).await;
    assert_ne!(before, Snapshot::of(fixture).await);
}

/// A user joins the line and charges, under a key.
fn joined_and_charged(fixture: &Fixture, room: RoomId, user: UserId) -> UnitOfWork {
    let mut work = both(fixture.join_work(room, user, at(1)), fixture.charge_work(user, None, 7, at(1)));
    work.idempotency = Some(fixture.record(user, at(1)));
    work
}

/// What [`joined_and_charged`] writes is all there; gives the number in the line.
async fn assert_whole(fixture: &Fixture, room: RoomId, user: UserId) -> i64 {
    let account = fixture.account(user).await;
    assert_eq!((account.version, account.value.balance), (Version::FIRST, money(7)));
    let entries = fixture.storage.account_queries.list_entries(user, None, 10).await.unwrap();
    assert_eq!(entries.len(), 1);
    let record = fixture.storage.idempotency_records.find(user, &key()).await.unwrap();
    assert_eq!(record, Some(fixture.record(user, at(1))));
    fixture.storage.queue_tokens.find_live(room, user).await.unwrap().unwrap().value.ticket.0
}

async fn assert_gapless(fixture: &Fixture, room: RoomId, users: &[UserId]) {
    let mut tickets = Vec::new();
    for user in users {
        tickets.push(assert_whole(fixture, room, *user).await);
    }
    tickets.sort_unstable();
    let count = i64::try_from(users.len()).unwrap();
    assert_eq!(tickets, (1..=count).collect::<Vec<_>>());
    assert_eq!(fixture.in_room(room, at(1)).await, (users.len().try_into().unwrap(), 0));
}

pub(crate) async fn a_unit_that_fails_leaves_its_neighbours_alone(fixture: &Fixture) {
    let faults = faults(fixture).await;
    for fault in &faults {
        poison(fixture, std::slice::from_ref(fault)).await;
    }
    poison(fixture, &faults).await;
}

/// Commits 64 units at once. As many as there are faults are poisoned, one by each.
async fn poison(fixture: &Fixture, faults: &[(&str, UnitOfWork)]) {
    let room = fixture.default_room().await.id;
    let users: Vec<_> = (0..64).map(|_| fixture.id(UserId::new)).collect();
    let mut works: Vec<_> = users.iter().map(|user| joined_and_charged(fixture, room, *user)).collect();
    let fault_at = |n: usize| if n % 10 == 7 { faults.get(n / 10) } else { None };
    for (n, work) in works.iter_mut().enumerate() {
        if let Some((_, fault)) = fault_at(n) {
            *work = both(fault.clone(), work.clone());
        }
    }
    let mut sound = Vec::new();
    for (n, outcome) in fixture.race(works).await.into_iter().enumerate() {
        match (fault_at(n), outcome) {
            (None, Ok(_)) => sound.push(users[n]),
            (Some((expected, _)), Err(refused)) => {
                assert_eq!(stage(&refused), *expected, "{refused:?}");
                assert_eq!(fixture.storage.accounts.find(users[n]).await.unwrap(), None);
                assert_eq!(fixture.storage.queue_tokens.find_live(room, users[n]).await.unwrap(), None);
            }
            (_, outcome) => panic!("{n}: {outcome:?}"),
        }
    }
    assert_eq!(sound.len(), 64 - faults.len());
    assert_gapless(fixture, room, &sound).await;
}

pub(crate) async fn a_dropped_commit_is_whole_or_absent(fixture: &Fixture) {
    let room = fixture.default_room().await.id;
    let users: Vec<_> = (0..64).map(|_| fixture.id(UserId::new)).collect();
    let works: Vec<_> = users.iter().map(|user| joined_and_charged(fixture, room, *user)).collect();
    let droppers: Vec<_> = works
        .iter()
        .enumerate()
        .map(|(n, work)| {
            let (committer, work) = (fixture.storage.committer.clone(), work.clone());
            tokio::spawn(async move {
                let patience = Duration::from_micros(25 * u64::try_from(n).unwrap());
                tokio::select! {
                    biased;
                    _ = committer.commit(work) => {}
                    () = tokio::task::yield_now(), if n % 4 == 0 => {}
                    () = tokio::time::sleep(patience), if n % 4 != 0 => {}
                }
            })
        })
        .collect();
    for (n, dropper) in droppers.into_iter().enumerate() {
        if n % 8 == 1 {
            dropper.abort();
        }
        let _finished_or_aborted = dropper.await;
    }

    // The same unit again: its key tells whether it was written, and one that is still on its way meets its twin.
    for (user, outcome) in users.iter().zip(fixture.race(works).await) {
        match outcome {
            Ok(_) | Err(CommitError::DuplicateIdempotencyKey) => {}
            Err(half) => panic!("{user}: {half:?}"),
        }
    }
    assert_gapless(fixture, room, &users).await;
}
