//! Many at once, each in a task of its own. What is counted is who won, and what storage shows afterwards.

use frontrow_domain::queue::{QueueTokenState, RoomMode, RoomPolicy, RoomRefusal};
use frontrow_domain::reservation::{Reservation, ReservationStatus};
use frontrow_domain::seat::SeatState;
use frontrow_domain::unit_of_work::{AggregateRef, Command, CommandOutcome, CommitError, Committed};
use frontrow_domain::{
    Change, ReservationId, RoomId, SeatId, Timestamp, UnitOfWork, UserId, Version, Versioned,
};

use crate::fixture::{Fixture, HOLD, Sale, TTL, admit_up_to, at, both, commanded, just_before, money};
use crate::holds::take_over;
use crate::versions::one_of_each;

type Answer = Result<Committed, CommitError>;

/// How often a race of two is run, the one or the other first.
const ROUNDS: usize = 20;

fn joins(fixture: &Fixture, room: RoomId, users: &[UserId]) -> Vec<UnitOfWork> {
    users.iter().map(|user| fixture.join_work(room, *user, at(0))).collect()
}

fn people(fixture: &Fixture, count: usize) -> Vec<UserId> {
    (0..count).map(|_| fixture.id(UserId::new)).collect()
}

fn outcome(answer: &Answer) -> CommandOutcome {
    answer.as_ref().unwrap().outcome.unwrap()
}

fn admitted(answers: &[Answer]) -> u32 {
    let each = answers.iter().map(|answer| match outcome(answer) {
        CommandOutcome::Admitted(count) => count,
        other => panic!("{other:?}"),
    });
    each.sum()
}

/// One answer is a success, the others are conflicts on this aggregate.
fn assert_one_winner(answers: &[Answer], on: AggregateRef) {
    let winners = answers.iter().filter(|answer| answer.is_ok()).count();
    let conflict = |a: &&Answer| matches!(a, Err(CommitError::Conflict(aggregate)) if *aggregate == on);
    let losers = answers.iter().filter(conflict).count();
    assert_eq!((winners, losers), (1, answers.len() - 1), "{answers:?}");
}

/// Races two units, in turns the one or the other first; the answers are in the order of the arguments.
async fn duel(fixture: &Fixture, round: usize, a: UnitOfWork, b: UnitOfWork) -> (Answer, Answer) {
    let mut works = vec![a, b];
    if round % 2 == 1 {
        works.reverse();
    }
    let mut answers = fixture.race(works).await;
    let (second, first) = (answers.pop().unwrap(), answers.pop().unwrap());
    if round % 2 == 1 { (second, first) } else { (first, second) }
}

async fn status(fixture: &Fixture, id: ReservationId) -> ReservationStatus {
    fixture.reservation(id).await.value.status
}

pub(crate) async fn tickets_have_no_gap_or_twin(fixture: &Fixture) {
    let (a, b) = (fixture.default_room().await.id, fixture.default_room().await.id);
    let users = people(fixture, 64);
    let works = joins(fixture, a, &users).into_iter().zip(joins(fixture, b, &users));
    let answers = fixture.race(works.flat_map(|(a, b)| [a, b]).collect()).await;
    for room in [a, b] {
        let tokens = answers.iter().map(|answer| match outcome(answer) {
            CommandOutcome::Joined(token) => token,
            other => panic!("{other:?}"),
        });
        let mut tickets: Vec<_> =
            tokens.filter(|token| token.room_id == room).map(|token| token.ticket.0).collect();
        tickets.sort_unstable();
        assert_eq!(tickets, (1..=64).collect::<Vec<_>>());
        assert_eq!(fixture.in_room(room, at(0)).await, (64, 0));
    }
}

pub(crate) async fn one_user_joining_at_once_gets_one_token(fixture: &Fixture) {
    let room = fixture.default_room().await.id;
    let users = people(fixture, 16);
    let four_times_each: Vec<_> = users.iter().flat_map(|user| [*user; 4]).collect();
    let answers = fixture.race(joins(fixture, room, &four_times_each)).await;
    let mut tickets = Vec::new();
    for (user, answers) in users.iter().zip(answers.chunks(4)) {
        let live = fixture.storage.queue_tokens.find_live(room, *user).await.unwrap().unwrap();
        let new = |answer: &&Answer| outcome(answer) == CommandOutcome::Joined(live.value);
        let same = |answer: &&Answer| outcome(answer) == CommandOutcome::AlreadyJoined(live.value);
        assert_eq!(answers.iter().filter(new).count(), 1);
        assert_eq!(answers.iter().filter(same).count(), 3);
        tickets.push(live.value.ticket.0);
    }
    tickets.sort_unstable();
    assert_eq!(tickets, (1..=16).collect::<Vec<_>>());
    assert_eq!(fixture.in_room(room, at(0)).await, (16, 0));
}

pub(crate) async fn a_room_is_never_filled_past_its_limit(fixture: &Fixture) {
    let policy = RoomPolicy { max_waiting: Some(5), ..RoomPolicy::default() };
    let room = fixture.new_room(policy).await.id;
    let users = people(fixture, 32);
    let answers = fixture.race(joins(fixture, room, &users)).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 5);
    let full = |answer: &&Answer| matches!(answer, Err(CommitError::Refused(RoomRefusal::Full)));
    assert_eq!(answers.iter().filter(full).count(), 27);
    assert_eq!(fixture.in_room(room, at(0)).await, (5, 0));
    fixture.set_policy(room, RoomPolicy::default()).await;
    assert_eq!(fixture.crowd(room, 1, at(0)).await[0].ticket.0, 6, "the refused burn no ticket");
}

pub(crate) async fn an_open_room_is_never_opened_past_its_cap(fixture: &Fixture) {
    let policy = RoomPolicy { mode: RoomMode::Open, max_active: Some(5), ..RoomPolicy::default() };
    let room = fixture.new_room(policy).await.id;
    let users = people(fixture, 32);
    let answers = fixture.race(joins(fixture, room, &users)).await;
    for answer in &answers {
        let CommandOutcome::Joined(token) = outcome(answer) else { panic!("{answer:?}") };
        assert_eq!(token.state == QueueTokenState::Wait, token.ticket.0 > 5, "the first five: {token:?}");
    }
    assert_eq!(fixture.in_room(room, at(0)).await, (27, 5));
}

pub(crate) async fn admissions_never_pass_the_cap(fixture: &Fixture) {
    let room = fixture.default_room().await.id;
    fixture.crowd(room, 40, at(0)).await;
    let admit = |cap| vec![commanded(admit_up_to(3, Some(cap), room, at(1))); 16];
    assert_eq!(admitted(&fixture.race(admit(7)).await), 7);
    assert_eq!(fixture.in_room(room, at(1)).await, (33, 7));
    assert_eq!(admitted(&fixture.race(admit(20)).await), 13);
    assert_eq!(fixture.in_room(room, at(1)).await, (20, 20));
}

pub(crate) async fn admissions_take_each_waiter_once_and_in_order(fixture: &Fixture) {
    let room = fixture.default_room().await.id;
    let crowd = fixture.crowd(room, 40, at(0)).await;
    let admit = vec![commanded(admit_up_to(3, None, room, at(1))); 8];
    assert_eq!(admitted(&fixture.race(admit.clone()).await), 24);
    for token in &crowd {
        let stored = fixture.token(token.id).await;
        let is_in = stored.value.state != QueueTokenState::Wait;
        assert_eq!(is_in, token.ticket.0 <= 24, "{stored:?}");
        assert_eq!(stored.version, if is_in { Version::FIRST.next() } else { Version::FIRST });
    }
    assert_eq!(admitted(&fixture.race(admit).await), 16, "no more than wait");
    assert_eq!(fixture.in_room(room, at(1)).await, (0, 40));
}

pub(crate) async fn a_tick_is_claimed_once(fixture: &Fixture) {
    let room = fixture.default_room().await;
    fixture.crowd(room.id, 40, at(0)).await;
    let loaded = fixture.room(room.id).await;
    let (ticked, batch) = loaded.value.tick(at(600)).unwrap();
    let claim = UnitOfWork {
        rooms: vec![Change::Update(Versioned::new(ticked, loaded.version))],
        ..commanded(admit_up_to(batch, None, room.id, at(600)))
    };
    let answers = fixture.race(vec![claim; 8]).await;
    assert_one_winner(&answers, AggregateRef::Room(room.id));
    assert_eq!(fixture.in_room(room.id, at(600)).await, (30, 10));
    assert_eq!(fixture.room(room.id).await, Versioned::new(ticked, loaded.version.next()));
}

/// Joining, leaving and admission all at once.
pub(crate) async fn the_waiting_are_counted_right(fixture: &Fixture) {
    let room = fixture.default_room().await.id;
    let crowd = fixture.crowd(room, 24, at(0)).await;
    let mut works = joins(fixture, room, &people(fixture, 24));
    for token in &crowd[..12] {
        let left = Versioned::new(token.expire(at(1)).unwrap(), Version::FIRST);
        works.push(UnitOfWork { queue_tokens: vec![left], ..Default::default() });
    }
    works.extend(vec![commanded(admit_up_to(2, None, room, at(1))); 12]);
    // The kinds scattered among each other: 7 and the 48 units have no common factor.
    let scattered = (0..works.len()).map(|n| works[n * 7 % works.len()].clone()).collect();
    let answers = fixture.race(scattered).await;

    let (mut joined, mut left, mut let_in) = (24, 0, 0);
    for answer in &answers {
        match answer {
            Ok(Committed { outcome: Some(CommandOutcome::Joined(_)) }) => joined += 1,
            Ok(Committed { outcome: Some(CommandOutcome::Admitted(count)) }) => let_in += u64::from(*count),
            Ok(Committed { outcome: None }) => left += 1,
            Err(CommitError::Conflict(AggregateRef::QueueToken(_))) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((joined, let_in), (48, 24));
    assert_eq!(fixture.in_room(room, at(1)).await, (joined - left - let_in, let_in));
}

pub(crate) async fn tokens_are_expired_once(fixture: &Fixture) {
    let room = fixture.default_room().await.id;
    let crowd = fixture.crowd(room, 30, at(0)).await;
    fixture.admit(room, 20, at(0)).await;
    let now = at(i64::from(TTL));
    let answers = fixture.race(vec![commanded(Command::ExpireTokens { now, limit: 3 }); 10]).await;
    let expired = answers.iter().map(|answer| match outcome(answer) {
        CommandOutcome::TokensExpired(count) => count,
        other => panic!("{other:?}"),
    });
    assert_eq!(expired.sum::<u32>(), 20);
    for token in &crowd {
        let expected = if token.ticket.0 <= 20 { 3 } else { 1 };
        assert_eq!(fixture.token(token.id).await.version, Version::new(expected));
    }
}

pub(crate) async fn holds_are_expired_once(fixture: &Fixture) {
    let sale = fixture.sale(20).await;
    let mut held = Vec::new();
    for pair in sale.seat_ids().chunks(2) {
        held.push(fixture.hold(&sale, pair, at(0)).await);
    }
    let now = at(HOLD);
    let answers = fixture.race(vec![commanded(Command::ExpireHolds { now, limit: 3 }); 8]).await;
    let expired = answers.iter().map(|answer| match outcome(answer) {
        CommandOutcome::HoldsExpired(count) => count,
        other => panic!("{other:?}"),
    });
    assert_eq!(expired.sum::<u32>(), 10);
    for before in held {
        let after = fixture.reservation(before.value.id).await;
        assert_eq!((after.value.status, after.version), (ReservationStatus::Expired, Version::new(2)));
    }
    for seat in fixture.seats(&sale.seat_ids()).await {
        assert_eq!((seat.value.state, seat.version), (SeatState::Available, Version::new(3)));
    }
}

pub(crate) async fn one_update_of_a_version_wins(fixture: &Fixture) {
    for stored in one_of_each(fixture).await {
        let answers = fixture.race(vec![stored.value.update(stored.version); 16]).await;
        assert_one_winner(&answers, stored.value.name());
        let expected = Versioned::new(stored.value.clone(), stored.version.next());
        assert_eq!(stored.value.load(fixture).await, expected);
    }
}

pub(crate) async fn one_insert_of_an_account_wins(fixture: &Fixture) {
    let user = fixture.id(UserId::new);
    let charges = (0..16).map(|_| fixture.charge_work(user, None, 5, at(0))).collect();
    let answers = fixture.race(charges).await;
    assert_one_winner(&answers, AggregateRef::Account(user));
    let account = fixture.account(user).await;
    assert_eq!((account.value.balance, account.version), (money(5), Version::FIRST));
    let entries = fixture.storage.account_queries.list_entries(user, None, 100).await.unwrap();
    assert_eq!(entries.len(), 1);
}

pub(crate) async fn one_seat_goes_to_one_buyer(fixture: &Fixture) {
    let sale = fixture.sale(1).await;
    let seat = fixture.seat(sale.seats[0].id).await;
    let mut works = Vec::new();
    for _ in 0..32 {
        let token = fixture.admitted(sale.room.id, at(0)).await;
        works.push(fixture.hold_work(token, vec![seat.clone()], at(0)).1);
    }
    let reservations: Vec<_> = works.iter().map(|work| work.reservations[0].value().id).collect();
    let answers = fixture.race(works).await;
    assert_one_winner(&answers, AggregateRef::Seat(seat.value.id));
    let winner = answers.iter().position(Result::is_ok).unwrap();
    let SeatState::Reserved { reservation_id, .. } = fixture.seat(seat.value.id).await.value.state else {
        panic!("nobody holds the seat");
    };
    assert_eq!(reservation_id, reservations[winner]);
    for (n, id) in reservations.into_iter().enumerate() {
        let stored = fixture.storage.reservations.find(id).await.unwrap();
        assert_eq!(stored.is_some(), n == winner);
    }
}

/// Holds that overlap and name their seats in opposite orders: nobody waits for ever, no seat is held twice.
pub(crate) async fn crossing_holds_end(fixture: &Fixture) {
    let sale = fixture.sale(8).await;
    let mut works = Vec::new();
    for n in 0..32 {
        let token = fixture.admitted(sale.room.id, at(0)).await;
        let ids = sale.seat_ids();
        let mut wanted = fixture.seats(&[ids[n % 8], ids[(n + 1) % 8], ids[(n + 3) % 8]]).await;
        if n % 2 == 1 {
            wanted.reverse();
        }
        works.push(fixture.hold_work(token, wanted, at(0)).1);
    }
    let made: Vec<Reservation> = works.iter().map(|work| work.reservations[0].value().clone()).collect();
    let answers = fixture.race(works).await;
    let mut taken: Vec<SeatId> = Vec::new();
    for (reservation, answer) in made.iter().zip(&answers) {
        match answer {
            Ok(_) => taken.extend(reservation.seat_ids()),
            Err(CommitError::Conflict(AggregateRef::Seat(_))) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(!taken.is_empty());
    for seat in fixture.seats(&sale.seat_ids()).await {
        let holders = taken.iter().filter(|id| **id == seat.value.id).count();
        let is_held = seat.value.state != SeatState::Available;
        assert_eq!(holders, usize::from(is_held), "{seat:?}");
    }
}

/// Two held seats, at 300, whose user has 1000.
async fn held_and_funded(fixture: &Fixture) -> (Sale, Versioned<Reservation>) {
    let sale = fixture.sale(2).await;
    let held = fixture.hold(&sale, &sale.seat_ids(), at(0)).await;
    fixture.charge(held.value.user_id, 1_000, at(0)).await;
    (sale, held)
}

/// After a race for a reservation of two seats at 300 in all: what storage shows is one outcome, all of it.
async fn assert_settled(fixture: &Fixture, sale: &Sale, held: &Reservation, expected: ReservationStatus) {
    let is_paid = expected == ReservationStatus::Done;
    assert_eq!(status(fixture, held.id).await, expected);
    let sold = SeatState::Unavailable { reservation_id: held.id };
    let state = if is_paid { sold } else { SeatState::Available };
    for seat in fixture.seats(&sale.seat_ids()).await {
        assert_eq!((seat.value.state, seat.version), (state, Version::new(3)));
    }
    let account = fixture.account(held.user_id).await.value;
    let (balance, entries) = if is_paid { (money(700), 2) } else { (money(1_000), 1) };
    assert_eq!((account.balance, account.entry_count), (balance, entries));
    let history = fixture.storage.account_queries.list_entries(held.user_id, None, 10).await.unwrap();
    assert_eq!(i64::try_from(history.len()).unwrap(), entries);
    let token = fixture.token(held.token_id).await.value;
    assert_eq!(matches!(token.state, QueueTokenState::Expired { .. }), is_paid);
}

fn sweep(now: Timestamp) -> UnitOfWork {
    commanded(Command::ExpireHolds { now, limit: 10 })
}

fn lost_on(error: &CommitError, id: ReservationId) -> bool {
    matches!(error, CommitError::Conflict(AggregateRef::Reservation(on)) if *on == id)
}

pub(crate) async fn payment_or_expiry(fixture: &Fixture) {
    for round in 0..ROUNDS {
        let (sale, held) = held_and_funded(fixture).await;
        let pay = fixture.pay_work(held.value.id, just_before(at(HOLD))).await;
        let (paid, swept) = duel(fixture, round, pay, sweep(at(HOLD))).await;
        let expected = match (&paid, outcome(&swept)) {
            (Ok(_), CommandOutcome::HoldsExpired(0)) => ReservationStatus::Done,
            (Err(error), CommandOutcome::HoldsExpired(1)) if lost_on(error, held.value.id) => {
                ReservationStatus::Expired
            }
            other => panic!("round {round}: {other:?}"),
        };
        assert_settled(fixture, &sale, &held.value, expected).await;
    }
}

pub(crate) async fn payment_or_cancellation(fixture: &Fixture) {
    for round in 0..ROUNDS {
        let (sale, held) = held_and_funded(fixture).await;
        let id = held.value.id;
        let (pay, cancel) = (fixture.pay_work(id, at(1)).await, fixture.end_work(id, at(1)).await);
        let (paid, cancelled) = duel(fixture, round, pay, cancel).await;
        let expected = match (&paid, &cancelled) {
            (Ok(_), Err(error)) if lost_on(error, id) => ReservationStatus::Done,
            (Err(error), Ok(_)) if lost_on(error, id) => ReservationStatus::Cancelled,
            other => panic!("round {round}: {other:?}"),
        };
        assert_settled(fixture, &sale, &held.value, expected).await;
    }
}

pub(crate) async fn one_payment_of_many(fixture: &Fixture) {
    let (sale, held) = held_and_funded(fixture).await;
    let mut works = Vec::new();
    for _ in 0..16 {
        works.push(fixture.pay_work(held.value.id, at(1)).await);
    }
    let answers = fixture.race(works).await;
    assert_one_winner(&answers, AggregateRef::QueueToken(held.value.token_id));
    assert_settled(fixture, &sale, &held.value, ReservationStatus::Done).await;
}

pub(crate) async fn taking_over_or_expiry(fixture: &Fixture) {
    for round in 0..ROUNDS {
        let sale = fixture.sale(3).await;
        let old = fixture.hold(&sale, &sale.seat_ids()[..2], at(0)).await;
        let (id, take) = take_over(fixture, &sale, &old, at(HOLD)).await;
        let (taken, swept) = duel(fixture, round, take, sweep(at(HOLD))).await;
        let won = match (&taken, outcome(&swept)) {
            (Ok(_), CommandOutcome::HoldsExpired(0)) => true,
            (Err(error), CommandOutcome::HoldsExpired(1)) if lost_on(error, old.value.id) => false,
            other => panic!("round {round}: {other:?}"),
        };
        assert_eq!(status(fixture, old.value.id).await, ReservationStatus::Expired);
        assert_eq!(fixture.reservation(old.value.id).await.version, old.version.next());
        let held = SeatState::Reserved { reservation_id: id, hold_expires_at: at(2 * HOLD) };
        let taken = if won { held } else { SeatState::Available };
        let states: Vec<_> =
            fixture.seats(&sale.seat_ids()).await.into_iter().map(|seat| seat.value.state).collect();
        assert_eq!(states, [SeatState::Available, taken, taken], "round {round}");
    }
}

pub(crate) async fn one_use_of_a_key_wins(fixture: &Fixture) {
    let (user, room) = (fixture.id(UserId::new), fixture.default_room().await.id);
    let first = fixture.record(user, at(0));
    for (winners, record) in [(1, first.clone()), (2, fixture.record(user, first.expires_at))] {
        // Units that have nothing but their key in common; the second time it replaces an expired one.
        let mut works = Vec::new();
        for payer in people(fixture, 16) {
            let charge = fixture.charge_work(payer, None, 5, at(0));
            let mut work = both(fixture.join_work(room, payer, at(0)), charge);
            work.idempotency = Some(record.clone());
            works.push(work);
        }
        let answers = fixture.race(works).await;
        let duplicate = |answer: &&Answer| matches!(answer, Err(CommitError::DuplicateIdempotencyKey));
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
        assert_eq!(answers.iter().filter(duplicate).count(), 15);
        assert_eq!(fixture.in_room(room, at(0)).await, (winners, 0));
    }
}

pub(crate) async fn one_seat_in_a_place_wins(fixture: &Fixture) {
    let sale = fixture.sale(1).await;
    let users = people(fixture, 16);
    let mut works = Vec::new();
    for user in &users {
        let mut seat = sale.seats[0].clone();
        seat.id = fixture.id(SeatId::new);
        seat.place.number = 2;
        let seats = vec![Change::Insert(seat)];
        let charge = fixture.charge_work(*user, None, 5, at(0));
        works.push(both(charge, UnitOfWork { seats, ..Default::default() }));
    }
    let answers = fixture.race(works).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for (user, answer) in users.iter().zip(&answers) {
        assert!(matches!(answer, Ok(_) | Err(CommitError::Backstop { .. })), "{answer:?}");
        let account = fixture.storage.accounts.find(*user).await.unwrap();
        assert_eq!(account.is_some(), answer.is_ok(), "what came with a refused seat is undone");
    }
    let sales = fixture.storage.admin_queries.sales(sale.date.id, at(0)).await.unwrap().unwrap();
    assert_eq!(sales.available, 2);
}

/// Seats are sold in pairs, while others read: one read is of one moment.
pub(crate) async fn nobody_sees_half_a_payment(fixture: &Fixture) {
    let sale = fixture.sale(32).await;
    let mut works = Vec::new();
    for pair in sale.seat_ids().chunks(2) {
        let held = fixture.hold(&sale, pair, at(0)).await.value;
        fixture.charge(held.user_id, 1_000_000, at(0)).await;
        works.push(fixture.pay_work(held.id, at(1)).await);
    }
    let payments = async { fixture.race(works).await.iter().filter(|answer| answer.is_ok()).count() };
    let reads = async {
        loop {
            let sales = fixture.storage.admin_queries.sales(sale.date.id, at(1)).await.unwrap().unwrap();
            assert_eq!(sales.unavailable % 2, 0, "{sales:?}");
            assert_eq!((sales.available, sales.reserved + sales.unavailable), (0, 32));
            if sales.unavailable == 32 {
                return sales.amount_sold;
            }
            tokio::task::yield_now().await;
        }
    };
    let all_sold = futures_util::future::join(payments, reads);
    let (paid, amount_sold) =
        tokio::time::timeout(std::time::Duration::from_secs(60), all_sold).await.unwrap();
    assert_eq!((paid, amount_sold), (16, money(100 * 32 * 33 / 2)));
}
