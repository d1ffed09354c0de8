//! Lines as the nodes follow them: counters, departures, and the places that are given up.

use std::collections::BTreeMap;

use frontrow_domain::queue::{
    LineState, LineView, PlaceInLine, QueueToken, QueueTokenState, Room, RoomMode, RoomPolicy, TicketNumber,
};
use frontrow_domain::unit_of_work::{
    AggregateRef, Command, CommandOutcome, CommitError, Fill, GiveUpAbandoned,
};
use frontrow_domain::{Change, QueueTokenId, RoomId, Timestamp, UnitOfWork, UserId, Version, Versioned};

use crate::fixture::{Fixture, at, commanded};
use crate::rooms::by_first_byte;

pub(crate) async fn state(fixture: &Fixture, room: RoomId) -> LineState {
    fixture.storage.queue_queries.lines_of(vec![room]).await.unwrap().lines.pop().unwrap()
}

/// Waiting, last ticket, admitted through, departures.
async fn counters(fixture: &Fixture, room: RoomId) -> (u64, i64, i64, i64) {
    let state = state(fixture, room).await;
    (state.waiting, state.last_ticket.0, state.admitted_through.0, state.departures)
}

/// The tickets of those who left without being admitted, in order of departure, and their numbers must be gapless.
async fn departed(fixture: &Fixture, room: RoomId) -> Vec<i64> {
    let found = fixture.storage.queue_queries.departures(vec![(room, 0)], 1_000).await.unwrap();
    let numbers: Vec<_> = found.iter().map(|(_, departure)| departure.number).collect();
    assert_eq!(numbers, (1..=i64::try_from(found.len()).unwrap()).collect::<Vec<_>>());
    assert!(found.iter().all(|(of, _)| *of == room));
    found.iter().map(|(_, departure)| departure.ticket.0).collect()
}

async fn view(fixture: &Fixture, room: RoomId) -> LineView {
    let state = state(fixture, room).await;
    let mut view = LineView::new(state.room);
    view.advance(&state);
    for ticket in departed(fixture, room).await {
        view.departed(TicketNumber(ticket));
    }
    view
}

pub(crate) async fn a_line_counts_what_moves_it(fixture: &Fixture) {
    assert_eq!(fixture.storage.queue_queries.lines().await.unwrap().lines, []);
    let room = fixture.default_room().await;
    let expected = LineState {
        room: Versioned::new(room, Version::FIRST),
        waiting: 0,
        last_ticket: TicketNumber(0),
        admitted_through: TicketNumber(0),
        departures: 0,
    };
    assert_eq!(state(fixture, room.id).await, expected);
    assert_eq!(fixture.storage.queue_queries.lines().await.unwrap().lines, [], "nobody waits");
    let crowd = fixture.crowd(room.id, 6, at(0)).await;
    assert_eq!(fixture.storage.queue_queries.lines().await.unwrap().lines, [state(fixture, room.id).await]);
    assert_eq!(counters(fixture, room.id).await, (6, 6, 0, 0));
    fixture.leave(crowd[2].id, at(1)).await;
    assert_eq!(counters(fixture, room.id).await, (5, 6, 0, 1));
    assert_eq!(fixture.admit(room.id, 3, at(2)).await, 3);
    assert_eq!(counters(fixture, room.id).await, (2, 6, 4, 1), "1, 2 and 4");
    fixture.leave(crowd[0].id, at(3)).await;
    assert_eq!(counters(fixture, room.id).await, (2, 6, 4, 1), "an admitted one leaves no line");
    fixture.leave(crowd[4].id, at(3)).await;
    assert_eq!(fixture.admit(room.id, 9, at(4)).await, 1);
    assert_eq!(counters(fixture, room.id).await, (0, 6, 6, 2));
    assert_eq!(fixture.admit(room.id, 9, at(4)).await, 0);
    assert_eq!(counters(fixture, room.id).await, (0, 6, 6, 2));
    assert_eq!(departed(fixture, room.id).await, [3, 5]);
}

pub(crate) async fn lines_are_read_by_room(fixture: &Fixture) {
    let mut ids = Vec::new();
    for people in 0..3 {
        ids.push(fixture.default_room().await.id);
        fixture.crowd(ids[people], people, at(0)).await;
    }
    let mut states = Vec::new();
    for id in &ids {
        states.push(state(fixture, *id).await);
    }
    let nowhere = fixture.id(RoomId::new);
    for (wanted, expected) in [
        (vec![], vec![]),
        (vec![ids[1]], vec![states[1]]),
        (vec![ids[2], nowhere, ids[0]], vec![states[0], states[2]]),
    ] {
        let mut found = fixture.storage.queue_queries.lines_of(wanted).await.unwrap().lines;
        found.sort_by_key(|line| line.waiting);
        assert_eq!(found, expected);
    }
}

pub(crate) async fn rooms_are_paged_by_id(fixture: &Fixture) {
    let mut ids = Vec::new();
    for id in by_first_byte() {
        let room = Room::new(RoomId::new(id), RoomPolicy::default(), at(0));
        fixture.write(UnitOfWork { rooms: vec![Change::Insert(room)], ..Default::default() }).await;
        ids.push(room.id);
    }
    let after = async |id, limit| fixture.storage.queue_queries.rooms_after(id, limit).await.unwrap();
    assert_eq!(after(None, 10).await, ids);
    assert_eq!(after(Some(ids[0]), 2).await, ids[1..3]);
    assert_eq!(after(Some(ids[4]), 2).await, []);
}

pub(crate) async fn whoever_goes_straight_through_is_the_last_one_admitted(fixture: &Fixture) {
    let room = fixture.new_room(RoomPolicy { mode: RoomMode::Open, ..RoomPolicy::default() }).await;
    fixture.crowd(room.id, 3, at(0)).await;
    assert_eq!(counters(fixture, room.id).await, (0, 3, 3, 0));
    fixture.set_policy(room.id, RoomPolicy::default()).await;
    fixture.crowd(room.id, 2, at(0)).await;
    assert_eq!(counters(fixture, room.id).await, (2, 5, 3, 0));
    assert_eq!(state(fixture, room.id).await.room, fixture.room(room.id).await, "the room as it is now");
}

/// Whoever pays while a new token of the same person waits leaves the line with it.
pub(crate) async fn paying_while_waiting_is_a_departure(fixture: &Fixture) {
    let sale = fixture.sale(1).await;
    let held = fixture.hold(&sale, &sale.seat_ids(), at(0)).await.value;
    fixture.leave(held.token_id, at(1)).await;
    let again = fixture.join(sale.room.id, held.user_id, at(2)).await;
    fixture.crowd(sale.room.id, 1, at(2)).await;
    fixture.pay(held.id, at(3)).await;
    assert_eq!(departed(fixture, sale.room.id).await, [again.ticket.0]);
    assert_eq!(counters(fixture, sale.room.id).await, (1, 3, 1, 1));
}

pub(crate) async fn departures_are_read_from_where_one_was(fixture: &Fixture) {
    let (a, b) = (fixture.default_room().await, fixture.default_room().await);
    let in_a = fixture.crowd(a.id, 6, at(0)).await;
    let in_b = fixture.crowd(b.id, 3, at(0)).await;
    for n in [4, 0, 2, 5] {
        fixture.leave(in_a[n].id, at(1)).await;
    }
    fixture.leave(in_b[1].id, at(1)).await;
    let read = async |after: Vec<(RoomId, i64)>, limit| {
        let mut by_room: BTreeMap<RoomId, Vec<(i64, i64)>> = BTreeMap::new();
        for (room, departure) in fixture.storage.queue_queries.departures(after, limit).await.unwrap() {
            by_room.entry(room).or_default().push((departure.number, departure.ticket.0));
        }
        by_room
    };
    let all = BTreeMap::from([(a.id, vec![(1, 5), (2, 1), (3, 3), (4, 6)]), (b.id, vec![(1, 2)])]);
    assert_eq!(read(vec![(a.id, 0), (b.id, 0)], 100).await, all);
    let first = BTreeMap::from([(a.id, vec![(2, 1), (3, 3)])]);
    assert_eq!(read(vec![(b.id, 1), (a.id, 1)], 2).await, first, "for each line its first ones");
    assert_eq!(read(vec![(a.id, 4)], 2).await, BTreeMap::new());
    assert_eq!(read(vec![], 2).await, BTreeMap::new());

    let tickets = async |after: i64, limit| {
        let found = fixture.storage.queue_queries.departed_tickets(a.id, TicketNumber(after), limit).await;
        found.unwrap().into_iter().map(|ticket| ticket.0).collect::<Vec<_>>()
    };
    assert_eq!(tickets(0, 100).await, [1, 3, 5, 6]);
    assert_eq!(tickets(1, 2).await, [3, 5]);
    assert_eq!(tickets(6, 2).await, [0_i64; 0]);
}

pub(crate) async fn a_view_tells_who_is_where(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let elsewhere = fixture.default_room().await;
    fixture.crowd(elsewhere.id, 3, at(0)).await;
    let crowd = fixture.crowd(room.id, 5, at(0)).await;
    let positions = async || {
        let view = view(fixture, room.id).await;
        crowd.iter().map(|token| view.place(token.ticket)).collect::<Vec<_>>()
    };
    let at_position = |position| PlaceInLine::Waiting { position };
    let left = PlaceInLine::Left;
    assert_eq!(positions().await, [1, 2, 3, 4, 5].map(at_position));
    fixture.leave(crowd[2].id, at(1)).await;
    assert_eq!(positions().await, [at_position(1), at_position(2), left, at_position(3), at_position(4)]);
    fixture.admit(room.id, 1, at(2)).await;
    assert_eq!(positions().await, [left, at_position(1), left, at_position(2), at_position(3)]);
}

fn sweep(room: &Room, window: u32, gone_since: Option<Timestamp>, now: Timestamp) -> UnitOfWork {
    commanded(Command::GiveUpAbandoned(GiveUpAbandoned { room_id: room.id, window, gone_since, now }))
}

async fn given_up(
    fixture: &Fixture,
    room: &Room,
    window: u32,
    gone_since: Option<Timestamp>,
    now: Timestamp,
) -> u32 {
    match fixture.commit(sweep(room, window, gone_since, now)).await.unwrap().outcome {
        Some(CommandOutcome::GivenUp(people)) => people,
        other => panic!("{other:?}"),
    }
}

async fn poll(fixture: &Fixture, tokens: &[QueueToken], now: Timestamp) -> CommandOutcome {
    let tokens = tokens.iter().map(|token| token.id).collect();
    fixture.order(Command::NotePolls { tokens, now }).await
}

pub(crate) async fn the_abandoned_near_the_head_are_given_up(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let crowd = fixture.crowd(room.id, 6, at(0)).await;
    // The first look starts the clocks of those it sees, whenever they joined.
    assert_eq!(given_up(fixture, &room, 4, Some(at(900)), at(1_000)).await, 0);
    assert_eq!(poll(fixture, &[crowd[1], crowd[5]], at(1_060)).await, CommandOutcome::PollsNoted(2));
    assert_eq!(given_up(fixture, &room, 4, Some(at(999)), at(1_119)).await, 0, "not yet");
    assert_eq!(given_up(fixture, &room, 4, Some(at(1_000)), at(1_120)).await, 3, "1, 3 and 4");
    assert_eq!(counters(fixture, room.id).await, (3, 6, 0, 3));
    assert_eq!(departed(fixture, room.id).await, [1, 3, 4]);
    let state = QueueTokenState::Expired { activated_at: None, expires_at: at(1_120) };
    let expected = Versioned::new(QueueToken { state, ..crowd[0] }, Version::FIRST.next());
    assert_eq!(fixture.token(crowd[0].id).await, expected);
    for (n, token) in [(1, crowd[1]), (4, crowd[4]), (5, crowd[5])] {
        assert_eq!(fixture.token(token.id).await, Versioned::new(token, Version::FIRST), "{n}");
    }
    // The fifth has come up by that, and its clock starts now.
    assert_eq!(given_up(fixture, &room, 4, Some(at(1_050)), at(1_170)).await, 0);
    assert_eq!(given_up(fixture, &room, 4, Some(at(1_060)), at(1_180)).await, 2, "2 and 6");
    assert_eq!(given_up(fixture, &room, 4, Some(at(1_169)), at(1_289)).await, 0);
    assert_eq!(given_up(fixture, &room, 4, Some(at(1_170)), at(1_290)).await, 1, "5");
    assert_eq!(counters(fixture, room.id).await, (0, 6, 0, 6));
    assert_eq!(departed(fixture, room.id).await, [1, 3, 4, 2, 6, 5]);
}

pub(crate) async fn clocks_start_again_where_nobody_is_judged(fixture: &Fixture) {
    let room = fixture.default_room().await;
    fixture.crowd(room.id, 3, at(0)).await;
    assert_eq!(given_up(fixture, &room, 2, None, at(1_000)).await, 0);
    assert_eq!(given_up(fixture, &room, 2, None, at(2_000)).await, 0);
    assert_eq!(given_up(fixture, &room, 2, Some(at(1_999)), at(2_119)).await, 0, "by the later clock");
    assert_eq!(given_up(fixture, &room, 2, Some(at(2_000)), at(2_120)).await, 2);
}

pub(crate) async fn nobody_is_judged_by_what_was_seen_further_back(fixture: &Fixture) {
    let room = fixture.default_room().await;
    fixture.crowd(room.id, 4, at(0)).await;
    given_up(fixture, &room, 4, None, at(1_000)).await;
    // The window is smaller now, and the last two are not noted when they poll.
    given_up(fixture, &room, 2, None, at(1_100)).await;
    assert_eq!(given_up(fixture, &room, 2, Some(at(1_100)), at(1_220)).await, 2);
    assert_eq!(given_up(fixture, &room, 2, Some(at(1_105)), at(1_225)).await, 0, "their clocks start");
    assert_eq!(given_up(fixture, &room, 2, Some(at(1_225)), at(1_345)).await, 2);
}

pub(crate) async fn only_waiters_are_given_up(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let crowd = fixture.crowd(room.id, 4, at(0)).await;
    given_up(fixture, &room, 4, None, at(0)).await;
    fixture.admit(room.id, 2, at(1)).await;
    fixture.leave(crowd[2].id, at(1)).await;
    assert_eq!(poll(fixture, &crowd, at(2)).await, CommandOutcome::PollsNoted(1));
    assert_eq!(poll(fixture, &[], at(2)).await, CommandOutcome::PollsNoted(0));
    assert_eq!(given_up(fixture, &room, 4, Some(at(1)), at(3)).await, 0);
    let untouched = fixture.token(crowd[0].id).await;
    assert_eq!(given_up(fixture, &room, 4, Some(at(2)), at(3)).await, 1);
    assert_eq!(fixture.token(crowd[0].id).await, untouched);
    assert_eq!(counters(fixture, room.id).await, (0, 4, 2, 2));
    let nobody = Room::new(fixture.id(RoomId::new), RoomPolicy::default(), at(0));
    let refused = fixture.commit(sweep(&nobody, 1, None, at(0))).await.unwrap_err();
    assert!(matches!(refused, CommitError::Conflict(AggregateRef::Room(id)) if id == nobody.id));
}

/// Departures of all kinds at once: every number is given once, and what was read before stays true.
pub(crate) async fn departures_are_gapless_when_many_leave_at_once(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let crowd = fixture.crowd(room.id, 40, at(0)).await;
    given_up(fixture, &room, 40, None, at(0)).await;
    let mut works = Vec::new();
    for token in crowd.iter().skip(10).step_by(2) {
        let token = fixture.token(token.id).await.try_map(|token| token.expire(at(1))).unwrap();
        works.push(UnitOfWork { queue_tokens: vec![token], ..Default::default() });
        works.push(fixture.join_work(room.id, fixture.id(UserId::new), at(1)));
    }
    works.push(sweep(&room, 10, Some(at(0)), at(1)));
    let refused: Vec<_> = fixture.race(works).await.into_iter().filter_map(Result::err).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let mut left = departed(fixture, room.id).await;
    left.sort_unstable();
    let expected: Vec<i64> = (1..=10).chain((11..=40).step_by(2)).collect();
    assert_eq!(left, expected);
    assert_eq!(counters(fixture, room.id).await, (30, 55, 0, 25));
}

pub(crate) async fn a_crowd_is_put_at_the_tail_in_order(fixture: &Fixture) {
    let room = fixture
        .new_room(RoomPolicy { mode: RoomMode::Closed, max_waiting: Some(0), ..RoomPolicy::default() })
        .await;
    fixture.set_policy(room.id, RoomPolicy::default()).await;
    fixture.crowd(room.id, 2, at(0)).await;
    fixture.set_policy(room.id, room.policy).await;
    let people: Vec<_> = (0..700).map(|_| (fixture.id(QueueTokenId::new), fixture.id(UserId::new))).collect();
    let fill = |people: &[(QueueTokenId, UserId)], room_id| {
        commanded(Command::Fill(Fill { room_id, people: people.to_vec(), now: at(1) }))
    };
    for part in [&people[..300], &people[300..]] {
        let filled = fixture.commit(fill(part, room.id)).await.unwrap();
        assert_eq!(filled.outcome, Some(CommandOutcome::Filled));
    }
    assert_eq!(counters(fixture, room.id).await, (702, 702, 0, 0));
    for (n, ticket) in [(0, 3), (299, 302), (300, 303), (699, 702)] {
        let (id, user_id) = people[n];
        let ticket = TicketNumber(ticket);
        let state = QueueTokenState::Wait;
        let token = QueueToken { id, room_id: room.id, user_id, ticket, entered_at: at(1), state };
        assert_eq!(fixture.token(id).await, Versioned::new(token, Version::FIRST));
    }
    assert_eq!(fixture.admit(room.id, 4, at(2)).await, 4);
    assert_eq!(counters(fixture, room.id).await, (698, 702, 4, 0));

    let refused = fixture.commit(fill(&people[..1], room.id)).await.unwrap_err();
    assert!(matches!(refused, CommitError::Backstop { .. }), "{refused:?}");
    assert_eq!(counters(fixture, room.id).await, (698, 702, 4, 0));
    let nowhere = fixture.id(RoomId::new);
    let refused = fixture.commit(fill(&people[..1], nowhere)).await.unwrap_err();
    assert!(matches!(refused, CommitError::Conflict(AggregateRef::Room(id)) if id == nowhere));
}
