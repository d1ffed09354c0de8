//! Rooms: stored, listed, due, counted.

use frontrow_domain::ports::RoomOverview;
use frontrow_domain::queue::{Room, RoomMode, RoomPolicy};
use frontrow_domain::{Change, RoomId, Timestamp, UnitOfWork, Version, Versioned};
use uuid::Uuid;

use crate::fixture::{Fixture, TTL, all_pages, at, just_before};

async fn insert(fixture: &Fixture, room: Room) {
    fixture.write(UnitOfWork { rooms: vec![Change::Insert(room)], ..Default::default() }).await;
}

async fn due(fixture: &Fixture, now: Timestamp, limit: u32) -> Vec<RoomId> {
    let due = fixture.storage.rooms.due(now, limit).await.unwrap();
    due.iter().map(|room| room.value.id).collect()
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
        mode: RoomMode::Auto,
    };
    let large = RoomPolicy {
        admit_batch: RoomPolicy::MAX_BATCH,
        admit_interval_seconds: RoomPolicy::MAX_SECONDS,
        active_ttl_seconds: RoomPolicy::MAX_SECONDS - 1,
        max_active: None,
        max_waiting: Some(RoomPolicy::MAX_COUNT),
        wait_grace_seconds: None,
        mode: RoomMode::Auto,
    };
    for (mode, _) in RoomMode::NAMES {
        let id = fixture.id(RoomId::new);
        let room = |policy, last_tick_at, next_tick_at| Room {
            id,
            policy: RoomPolicy { mode, ..policy },
            last_tick_at,
            next_tick_at,
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
    let closed = fixture.new_room(RoomPolicy { mode: RoomMode::Closed, ..RoomPolicy::default() }).await;
    assert_eq!(auto.next_tick_at, at(600));
    assert_eq!(due(fixture, just_before(at(600)), 10).await, []);
    assert_eq!(due(fixture, at(600), 10).await, [auto.id, closed.id], "in every mode");
    assert_eq!(due(fixture, Timestamp::MAX, 10).await, [auto.id, closed.id]);

    let ticked = fixture.room(auto.id).await.try_map(|room| room.tick(at(600)).map(|t| t.0).ok_or(()));
    let update = Change::Update(ticked.unwrap());
    fixture.write(UnitOfWork { rooms: vec![update], ..Default::default() }).await;
    assert_eq!(due(fixture, at(600), 10).await, [closed.id]);
    let found = fixture.storage.rooms.due(at(600), 10).await.unwrap();
    assert_eq!(found, [fixture.room(closed.id).await], "with its version");
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
