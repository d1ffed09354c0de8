//! What operators did: recorded with the action, listed, never changed.

use frontrow_domain::audit_log::{Acting, AuditEntry, Fact, OperatorAction};
use frontrow_domain::concert::{Concert, PerformanceDate, SeatPlan, Section};
use frontrow_domain::queue::{Room, RoomMode, RoomPolicy};
use frontrow_domain::unit_of_work::{AggregateRef, CommitError};
use frontrow_domain::{
    AuditEntryId, Change, ConcertId, Money, PerformanceDateId, RoomId, Timestamp, UnitOfWork, UserId,
    Version, Versioned,
};

use crate::fixture::{Fixture, START, admit_up_to, all_pages, at, commanded, label, money};

fn acting(fixture: &Fixture, at: Timestamp) -> Acting {
    Acting { id: fixture.id(AuditEntryId::new), at, user_id: fixture.id(UserId::new) }
}

fn logged(entry: AuditEntry) -> UnitOfWork {
    UnitOfWork { audit_log: vec![entry], ..Default::default() }
}

async fn log(fixture: &Fixture, before: Option<AuditEntryId>, limit: u32) -> Vec<AuditEntry> {
    fixture.storage.admin_queries.list_audit_log(before, limit).await.unwrap()
}

fn section(name: &str, price: Money) -> Section {
    Section { section: label(name), grade: label("R"), price, rows: 1, seats_per_row: 200_000 / 2 }
}

pub(crate) async fn every_field_of_what_was_done_comes_back(fixture: &Fixture) {
    assert_eq!(log(fixture, None, 10).await, []);
    let policy = RoomPolicy { max_active: Some(0), mode: RoomMode::Closed, ..RoomPolicy::default() };
    let room_id = fixture.default_room().await.id;
    let id = fixture.id(ConcertId::new);
    let concert = Concert { id, title: label("\"제목\" \\ {}"), venue: label("V"), room_id };
    let date_id = fixture.id(PerformanceDateId::new);
    let date = PerformanceDate::new(date_id, id, Timestamp::MAX, Some(at(START))).unwrap();
    let seats = SeatPlan::new(vec![section("A", Money::MAX), section("B", money(0))]).unwrap();
    let entries = [
        acting(fixture, Timestamp::MIN).creates_concert(&concert, None),
        acting(fixture, at(0)).creates_concert(&concert, Some(&policy)),
        acting(fixture, at(0)).creates_date(&date, &seats),
        acting(fixture, at(0)).changes_room(room_id, &RoomPolicy::default(), &policy),
        acting(fixture, Timestamp::MAX).admits(room_id, 7),
    ];
    for entry in entries {
        fixture.write(logged(entry.clone())).await;
        assert_eq!(log(fixture, None, 1).await, [entry]);
    }
}

pub(crate) async fn what_was_done_is_listed_newest_first_in_pages(fixture: &Fixture) {
    let room_id = fixture.default_room().await.id;
    let mut ids = Vec::new();
    for n in 1..=12 {
        // Later entries at earlier times: the id is the order.
        let entry = acting(fixture, at(-n)).admits(room_id, 1);
        ids.insert(0, entry.id);
        fixture.write(logged(entry)).await;
    }
    for limit in [1, 5, 6, 12, 100] {
        let page = async |before| log(fixture, before, limit).await;
        let listed = all_pages(usize::try_from(limit).unwrap(), |entry: &AuditEntry| entry.id, page).await;
        assert_eq!(listed.iter().map(|entry| entry.id).collect::<Vec<_>>(), ids);
    }
    assert_eq!(log(fixture, None, 0).await, []);
    assert_eq!(log(fixture, ids.pop(), 10).await, []);
}

pub(crate) async fn an_admission_says_how_many_it_came_to(fixture: &Fixture) {
    let room_id = fixture.default_room().await.id;
    fixture.crowd(room_id, 3, at(0)).await;
    for (count, admitted) in [(2, 2), (2, 1), (2, 0)] {
        let mut work = commanded(admit_up_to(count, None, room_id, at(1)));
        work.audit_log.push(acting(fixture, at(1)).admits(room_id, count));
        fixture.write(work).await;
        let [entry] = log(fixture, None, 1).await.try_into().unwrap();
        assert_eq!(entry.action, OperatorAction::AdmitWaiters(room_id));
        assert_eq!(entry.after.0["admitted"], Fact::Number(admitted), "of {count}");
    }
    assert_eq!(log(fixture, None, 10).await.len(), 3, "one that admitted nobody as well");
}

pub(crate) async fn an_action_that_fails_is_not_recorded(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let changed = Room { policy: RoomPolicy { admit_batch: 77, ..room.policy }, ..room };
    let stale = Change::Update(Versioned::new(changed, Version::FIRST.next()));
    let entry = acting(fixture, at(1)).changes_room(room.id, &room.policy, &changed.policy);
    let work = UnitOfWork { rooms: vec![stale], ..logged(entry) };
    let refused = fixture.commit(work).await.unwrap_err();
    assert!(matches!(refused, CommitError::Conflict(AggregateRef::Room(id)) if id == room.id));
    let nowhere = fixture.id(RoomId::new);
    let mut work = commanded(admit_up_to(1, None, nowhere, at(1)));
    work.audit_log.push(acting(fixture, at(1)).admits(nowhere, 1));
    fixture.commit(work).await.unwrap_err();
    assert_eq!(log(fixture, None, 10).await, []);
}

pub(crate) async fn an_entry_is_recorded_once(fixture: &Fixture) {
    let entry = acting(fixture, at(0)).admits(fixture.default_room().await.id, 1);
    fixture.write(logged(entry.clone())).await;
    let again = AuditEntry { at: at(9), ..entry.clone() };
    let refused = fixture.commit(logged(again)).await.unwrap_err();
    assert!(matches!(refused, CommitError::Backstop { .. }), "{refused:?}");
    assert_eq!(log(fixture, None, 10).await, [entry]);
}
