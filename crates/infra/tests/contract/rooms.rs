//! Rooms: stored, listed, due, counted.

use frontrow_domain::concert::PerformanceDate;
use frontrow_domain::ports::RoomOverview;
use frontrow_domain::queue::{Room, RoomMode, RoomPolicy, RoomWithWaiters};
use frontrow_domain::{
    Change, ConcertId, PerformanceDateId, RoomId, Timestamp, UnitOfWork, Version, Versioned,
};
use uuid::Uuid;

use crate::fixture::{Fixture, TTL, all_pages, at, just_before};

async fn insert(fixture: &Fixture, room: Room) {
    fixture.write(UnitOfWork { rooms: vec![Change::Insert(room)], ..Default::default() }).await;
}

async fn due(fixture: &Fixture, now: Timestamp, limit: u32) -> Vec<RoomId> {
    let due = fixture.storage.rooms.due(now, None, limit).await.unwrap();
    due.iter().map(|found| found.room.value.id).collect()
}

fn opened() -> RoomPolicy {
    RoomPolicy { mode: RoomMode::Open, ..RoomPolicy::default() }
}

pub(crate) async fn a_room_is_absent_until_it_is_inserted(fixture: &Fixture) {
    let id = fixture.id(RoomId::new);
    assert_eq!(fixture.storage.rooms.find(id).await.unwrap(), None);
    assert_eq!(fixture.storage.admin_queries.find_room(id, at(0)).await.unwrap(), None);
    assert_eq!(fixture.storage.admin_queries.list_rooms(None, 10, at(0)).await.unwrap(), []);
    assert_eq!(due(fixture, Timestamp::MAX, 10).await, []);
    let room = Room::new(id, RoomPolicy::default(), at(0));
    insert(fixture, room).await;
    assert_eq!(fixture.room(id).await, Versioned::new(room, Version::FIRST));
    assert_eq!(fixture.in_room(id, at(0)).await, (0, 0));
}

pub(crate) async fn every_field_of_a_room_comes_back(fixture: &Fixture) {
    let small = RoomPolicy {
        admit_batch: 1,
        admit_interval_seconds: 2,
        active_ttl_seconds: 3,
        max_active: Some(0),
        max_waiting: Some(4),
        wait_grace_seconds: Some(RoomPolicy::MIN_GRACE_SECONDS),
        opens_at: Some(Timestamp::MAX),
        mode: RoomMode::Auto,
    };
    let large = RoomPolicy {
        admit_batch: RoomPolicy::MAX_BATCH,
        admit_interval_seconds: RoomPolicy::MAX_SECONDS,
        active_ttl_seconds: RoomPolicy::MAX_SECONDS - 1,
        max_active: None,
        max_waiting: Some(RoomPolicy::MAX_COUNT),
        wait_grace_seconds: None,
        opens_at: None,
        mode: RoomMode::Auto,
    };
    for (mode, _) in RoomMode::NAMES {
        let id = fixture.id(RoomId::new);
        let room = |policy, last_tick_at, next_tick_at| Room {
            id,
            policy: RoomPolicy { mode, ..policy },
            last_tick_at,
            next_tick_at,
            sales_open_at: (last_tick_at < at(1)).then_some(last_tick_at),
        };
        let first = room(small, Timestamp::MIN, Timestamp::MAX);
        insert(fixture, first).await;
        assert_eq!(fixture.room(id).await.value, first);

        let capped = RoomPolicy { max_active: Some(RoomPolicy::MAX_COUNT), max_waiting: None, ..large };
        for second in [room(large, at(1), at(2)), room(capped, just_before(at(1)), Timestamp::MIN)] {
            let loaded = fixture.room(id).await;
            let update = Change::Update(Versioned::new(second, loaded.version));
            fixture.write(UnitOfWork { rooms: vec![update], ..Default::default() }).await;
            assert_eq!(fixture.room(id).await, Versioned::new(second, loaded.version.next()));
            let overview = fixture.storage.admin_queries.find_room(id, at(0)).await.unwrap().unwrap();
            assert_eq!(overview.room, second);
        }
    }
}

pub(crate) async fn rooms_are_listed_by_id_in_pages(fixture: &Fixture) {
    let ids = by_first_byte().map(RoomId::new);
    for id in [3, 0, 4, 1, 2].map(|n: usize| ids[n]) {
        insert(fixture, Room::new(id, RoomPolicy::default(), at(0))).await;
    }
    for limit in [1, 2, 5, 100] {
        let listed = all_pages(
            usize::try_from(limit).unwrap(),
            |overview: &RoomOverview| overview.room.id,
            async |after| fixture.storage.admin_queries.list_rooms(after, limit, at(0)).await.unwrap(),
        );
        let listed: Vec<_> = listed.await.iter().map(|overview| overview.room.id).collect();
        assert_eq!(listed, ids);
    }
}

/// Ids in order, some of which are negative to those who take bytes for signed.
pub(crate) fn by_first_byte() -> [Uuid; 5] {
    [0x00_u8, 0x01, 0x7f, 0x80, 0xff].map(|byte| Uuid::from_bytes([byte; 16]))
}

pub(crate) async fn a_room_is_due_from_its_tick_on(fixture: &Fixture) {
    let auto = fixture.default_room().await;
    assert_eq!(auto.next_tick_at, at(600));
    assert_eq!(due(fixture, at(600), 10).await, [], "nobody waits");
    fixture.crowd(auto.id, 2, at(600)).await;
    assert_eq!(due(fixture, just_before(at(600)), 10).await, []);
    assert_eq!(due(fixture, at(600), 10).await, [auto.id]);
    assert_eq!(due(fixture, Timestamp::MAX, 10).await, [auto.id]);
    let found = fixture.storage.rooms.due(at(600), None, 10).await.unwrap();
    let expected = RoomWithWaiters { room: fixture.room(auto.id).await, waiting_since: Some(at(600)) };
    assert_eq!(found, [expected], "with its version and its first waiter");
    assert_eq!(fixture.storage.rooms.find_with_waiters(auto.id).await.unwrap(), Some(expected));

    let ticked = fixture.room(auto.id).await.try_map(|room| room.tick(at(600)).map(|t| t.0).ok_or(()));
    let update = Change::Update(ticked.unwrap());
    fixture.write(UnitOfWork { rooms: vec![update], ..Default::default() }).await;
    assert_eq!(due(fixture, at(600), 10).await, []);
    for mode in [RoomMode::Hold, RoomMode::Closed, RoomMode::Paused] {
        fixture.set_policy(auto.id, RoomPolicy { mode, ..RoomPolicy::default() }).await;
        assert_eq!(due(fixture, at(9_999), 10).await, [], "{mode:?}");
    }
    let nowhere = fixture.id(RoomId::new);
    assert_eq!(fixture.storage.rooms.find_with_waiters(nowhere).await.unwrap(), None);
}

pub(crate) async fn a_tick_that_passed_before_the_first_waiter_is_not_due(fixture: &Fixture) {
    let room = fixture.default_room().await.id;
    let crowd = fixture.crowd(room, 2, at(1_801)).await;
    assert_eq!(
        due(fixture, just_before(at(2_400)), 10).await,
        [],
        "the ticks at 600, 1,200 and 1,800 are over"
    );
    assert_eq!(due(fixture, at(2_400), 10).await, [room]);
    fixture.leave(crowd[0].id, at(1_900)).await;
    assert_eq!(due(fixture, at(2_400), 10).await, [room], "the second is the first now");
    fixture.leave(crowd[1].id, at(1_900)).await;
    assert_eq!(due(fixture, at(2_400), 10).await, []);
    let found = fixture.storage.rooms.find_with_waiters(room).await.unwrap().unwrap();
    assert_eq!(found.waiting_since, None);
}

/// What the domain says of each room, the statement of each adapter must say as well.
pub(crate) async fn rooms_are_due_as_the_domain_says(fixture: &Fixture) {
    let mut rooms = Vec::new();
    for next_tick in [-5_000, 100, 599, 600, 601, 1_200, 1_206, 2_000, 1_000_000] {
        for opens_at in [None, Some(600), Some(1_100), Some(1_500)] {
            for (mode, last_tick) in
                [(RoomMode::Auto, 0), (RoomMode::Auto, 5_000), (RoomMode::Open, 0), (RoomMode::Hold, 0)]
            {
                let policy = RoomPolicy { mode, admit_interval_seconds: 200, ..RoomPolicy::default() };
                let mut room = Room::new(fixture.id(RoomId::new), policy, at(0));
                (room.next_tick_at, room.last_tick_at) = (at(next_tick), at(last_tick));
                if rooms.len() % 2 == 0 {
                    room.policy.opens_at = opens_at.map(at);
                } else {
                    room.sales_open_at = opens_at.map(at);
                }
                insert(fixture, room).await;
                let entered = [at(0), at(650), just_before(at(1_000)), at(1_000)][rooms.len() % 4];
                fixture.crowd(room.id, 1, entered).await;
                rooms.push(room.id);
            }
        }
    }
    for now in [at(0), at(600), just_before(at(1_000)), at(1_000), at(1_001), at(1_199), at(1_500), at(9_999)]
    {
        let mut expected = Vec::new();
        for id in &rooms {
            let found = fixture.storage.rooms.find_with_waiters(*id).await.unwrap().unwrap();
            expected.extend(found.has_work(now).then_some(found));
        }
        let key = |found: &RoomWithWaiters| (found.room.value.next_tick_at, found.room.value.id);
        expected.sort_by_key(key);
        assert!(!expected.is_empty() && expected.len() < rooms.len());
        for limit in [1_000, 7] {
            let mut all = Vec::new();
            loop {
                let after = all.last().map(key);
                let page = fixture.storage.rooms.due(now, after, limit).await.unwrap();
                let is_last = page.len() < usize::try_from(limit).unwrap();
                all.extend(page);
                if is_last {
                    break;
                }
            }
            assert_eq!(all, expected, "{now}, {limit} at once");
        }
    }
}

pub(crate) async fn a_tick_too_far_ahead_is_found(fixture: &Fixture) {
    let mut astray = fixture.default_room().await;
    fixture.crowd(astray.id, 1, at(1)).await;
    for (ahead, expected) in [(605, vec![]), (606, vec![astray.id]), (86_400, vec![astray.id])] {
        let loaded = fixture.room(astray.id).await;
        astray.next_tick_at = at(10 + ahead);
        let update = Change::Update(Versioned::new(astray, loaded.version));
        fixture.write(UnitOfWork { rooms: vec![update], ..Default::default() }).await;
        assert_eq!(due(fixture, at(10), 10).await, expected, "{ahead}");
    }
    let found = fixture.storage.rooms.due(at(10), None, 10).await.unwrap().remove(0);
    let healed = found.room.value.caught_up(found.waiting_since, at(10));
    assert!(healed.last_tick_at <= at(10) && at(10) < healed.next_tick_at && healed.next_tick_at <= at(610));
    let update = Change::Update(Versioned::new(healed, found.room.version));
    fixture.write(UnitOfWork { rooms: vec![update], ..Default::default() }).await;
    assert_eq!(due(fixture, at(10), 10).await, []);
    assert_eq!(due(fixture, healed.next_tick_at, 10).await, [astray.id]);
}

pub(crate) async fn the_starts_of_sales_are_those_of_the_dates(fixture: &Fixture) {
    let sale = fixture.sale(1).await;
    let starts = async |id| {
        let mut starts = fixture.storage.concerts.sales_starts(id).await.unwrap();
        starts.sort_unstable();
        starts
    };
    assert_eq!(starts(sale.concert.id).await, [None]);
    let id = fixture.id(PerformanceDateId::new);
    let later = PerformanceDate::new(id, sale.concert.id, at(9), Some(at(3))).unwrap();
    fixture.write(UnitOfWork { performance_dates: vec![later], ..Default::default() }).await;
    assert_eq!(starts(sale.concert.id).await, [None, Some(at(3))]);
    assert_eq!(starts(fixture.id(ConcertId::new)).await, []);
}

pub(crate) async fn an_open_room_is_due_while_somebody_waits(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let token = fixture.crowd(room.id, 1, at(0)).await.remove(0);
    assert_eq!(due(fixture, at(1), 10).await, [], "AUTO waits for its tick");
    fixture.set_policy(room.id, opened()).await;
    assert_eq!(due(fixture, at(1), 10).await, [room.id]);
    fixture.leave(token.id, at(2)).await;
    assert_eq!(due(fixture, at(2), 10).await, [], "nobody waits");
    fixture.join(room.id, token.user_id, at(3)).await;
    assert_eq!(due(fixture, at(3), 10).await, [], "ACTIVE at once");
}

pub(crate) async fn due_rooms_come_longest_due_first(fixture: &Fixture) {
    let mut rooms = Vec::new();
    for interval in [30, 10, 20, 10] {
        let policy = RoomPolicy { admit_interval_seconds: interval, ..RoomPolicy::default() };
        rooms.push(fixture.new_room(policy).await.id);
        fixture.crowd(rooms[rooms.len() - 1], 1, at(0)).await;
    }
    let open = fixture.default_room().await.id;
    fixture.crowd(open, 1, at(0)).await;
    fixture.set_policy(open, opened()).await;

    let in_order = [rooms[1], rooms[3], rooms[2], rooms[0], open];
    for limit in 0..=6_u32 {
        let expected = &in_order[..5.min(usize::try_from(limit).unwrap())];
        assert_eq!(due(fixture, at(30), limit).await, expected);
    }
    assert_eq!(due(fixture, at(15), 10).await, [rooms[1], rooms[3], open]);
}

pub(crate) async fn an_overview_counts_the_waiting_and_the_unlapsed(fixture: &Fixture) {
    let (room, other) = (fixture.default_room().await, fixture.default_room().await);
    fixture.crowd(room.id, 5, at(0)).await;
    let ttl = i64::from(TTL);
    fixture.admit(room.id, 2, at(0)).await;
    fixture.admit(room.id, 1, at(10)).await;
    fixture.crowd(other.id, 1, at(0)).await;
    for (now, active) in [
        (at(10), 3),
        (just_before(at(ttl)), 3),
        (at(ttl), 1),
        (just_before(at(ttl + 10)), 1),
        (at(ttl + 10), 0),
    ] {
        assert_eq!(fixture.in_room(room.id, now).await, (2, active), "{now}");
        let listed = fixture.storage.admin_queries.list_rooms(None, 10, now).await.unwrap();
        let counts: Vec<_> = listed.iter().map(|o| (o.room, o.waiting, o.active)).collect();
        assert_eq!(counts, [(room, 2, active), (other, 1, 0)], "{now}");
    }
}
