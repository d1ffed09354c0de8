use std::sync::Arc;

use frontrow_domain::concert::PerformanceDate;
use frontrow_domain::idempotency::IdempotencyRecord;
use frontrow_domain::ports::{MockReservationQueries, ReservationQueries, ReservationView};
use frontrow_domain::reservation::ReservationStatus::{Cancelled, Done, Expired, Reserved};
use frontrow_domain::reservation::{Reservation, ReservationStatus};
use frontrow_domain::seat::{Seat, SeatPlace, SeatState};
use frontrow_domain::unit_of_work::{AggregateRef, CommitError};
use frontrow_domain::{Change, ReservationId, SeatId, Timestamp, UnitOfWork, Versioned};

use crate::testing::{
    CONCERT, DATE, HELD, LAPSED, Load, OTHER_DATE, OTHER_ROOM, ROOM, STRANGER, TOKEN, USER, World,
    active_until, at, concert, date, encoded, given, held_by, keyed, keyed_request, money, now, over,
    refusal, reservation, seat, seat_id, sold_to, stored, token, twins_answer, twins_record, unkeyed, world,
};
use crate::{Held, HoldRules, MAX_ATTEMPTS, Reply, ReservationService, ReserveError, ReserveRequest};

const HOLD_SECONDS: u32 = 300;
const NEW: ReservationId = ReservationId::new(given(1));

fn service_with(world: &World, queries: MockReservationQueries) -> ReservationService {
    let queries: Arc<dyn ReservationQueries> = Arc::new(queries);
    ReservationService {
        rules: HoldRules { hold_seconds: HOLD_SECONDS, max_seats_per_user: 4 },
        gate: world.gate(),
        reservations: world.reservations(),
        concerts: world.concerts(),
        seats: world.seats(),
        queries,
        committer: world.committer(),
        idempotency: world.idempotency(),
        clock: world.clock(),
        ids: world.ids(),
    }
}

fn service(world: &World) -> ReservationService {
    service_with(world, MockReservationQueries::new())
}

fn wanting(seats: &[u128]) -> ReserveRequest {
    let seat_ids = seats.iter().copied().map(seat_id).collect();
    ReserveRequest { performance_date_id: DATE, seat_ids }
}

/// Asks for seats without a key.
async fn reserve(world: &World, seats: &[u128]) -> Result<Reply, ReserveError> {
    let pass = world.pass().await;
    service(world).reserve(pass, &wanting(seats), unkeyed()).await
}

/// Asks for seats with a key.
async fn reserve_keyed(world: &World, seats: &[u128]) -> Result<Reply, ReserveError> {
    let pass = world.pass().await;
    service(world).reserve(pass, &wanting(seats), keyed()).await
}

/// What a hold made at `at` looks like.
fn new_hold(id: ReservationId, seats: &[u128], at: Timestamp) -> Reservation {
    let until = at.plus_seconds(HOLD_SECONDS);
    Reservation { reserved_at: at, ..reservation(id, seats, Reserved, until) }
}

fn update(n: u32, state: SeatState, version: i64) -> Change<Seat> {
    Change::Update(stored(seat(n, state), version))
}

/// A stored reservation with its seats in the state that goes with it.
fn put(world: &World, value: Versioned<Reservation>) {
    let mut facts = world.facts();
    for reserved in &value.value.seats {
        let (id, until) = (value.value.id, value.value.hold_expires_at);
        let state = match value.value.status {
            Reserved => SeatState::Reserved { reservation_id: id, hold_expires_at: until },
            Done => sold_to(id),
            Expired | Cancelled => SeatState::Available,
        };
        let old = facts.seats[&reserved.seat_id].value.clone();
        facts.put_seat(stored(Seat { state, ..old }, 2));
    }
    facts.put_reservation(value);
}

#[tokio::test]
async fn a_hold_is_one_unit_of_work_with_its_answer() {
    let world = world();
    world.will_commit();

    let reply = reserve_keyed(&world, &[3, 1]).await.unwrap();

    let until = now().plus_seconds(HOLD_SECONDS);
    let held = |n| seat(n, SeatState::Reserved { reservation_id: NEW, hold_expires_at: until });
    let reserved = new_hold(NEW, &[1, 3], now());
    let shown = Held { reservation: reserved.clone(), seats: vec![held(3), held(1)] };
    let answer = encoded(&shown);
    let work = UnitOfWork {
        idempotency: Some(IdempotencyRecord::new(keyed_request(1), answer.clone(), now())),
        queue_tokens: vec![stored(token(active_until(1_100)), 2)],
        reservations: vec![Change::Insert(reserved)],
        seats: vec![Change::Update(stored(held(1), 1)), Change::Update(stored(held(3), 1))],
        ..UnitOfWork::default()
    };
    assert_eq!(world.work(), work);
    assert_eq!(reply, Reply { answer, replayed: false });
    assert_eq!(world.take_loads(), [Load::Date, Load::Seats, Load::Holdings]);
}

#[tokio::test]
async fn without_a_key_nothing_is_recorded() {
    let world = world();
    world.will_commit();
    let reply = reserve(&world, &[1]).await.unwrap();
    assert_eq!(world.work().idempotency, None);
    assert!(!reply.replayed);
}

#[tokio::test]
async fn impossible_requests_are_refused_unread() {
    for (seats, expected) in [
        (&[][..], "InvalidHold(NoSeat)"),
        (&[1, 2, 1], "InvalidHold(DuplicateSeat)"),
        (&[1, 2, 3, 4, 5], "TooManySeats { max: 4 }"),
    ] {
        let world = world();
        world.facts().dates.clear();
        assert_eq!(refusal(reserve(&world, seats).await), expected);
        assert_eq!(world.take_loads(), []);
        world.assert_untouched();
    }
}

/// Everything is wrong at once; each fault that is mended shows the next one in the contract's order.
#[tokio::test]
async fn the_first_fault_in_the_contracts_order_is_told() {
    let world = world();
    put(&world, stored(reservation(HELD, &[3, 4], Done, at(900)), 1));
    {
        let mut facts = world.facts();
        facts.concerts.insert(CONCERT, concert(CONCERT, OTHER_ROOM));
        facts.seats.remove(&seat_id(6));
        facts.put_seat(stored(Seat { performance_date_id: OTHER_DATE, ..seat(5, SeatState::Available) }, 1));
        facts.dates.clear();
    }
    let refused = async || refusal(reserve(&world, &[6, 5, 3]).await);
    assert_eq!(refused().await, "PerformanceDateNotFound");

    let not_yet = PerformanceDate::new(DATE, CONCERT, at(9_000), Some(at(1_001))).unwrap();
    world.facts().dates.insert(DATE, not_yet);
    assert_eq!(refused().await, "WrongRoom(WrongRoom)");

    world.facts().concerts.insert(CONCERT, concert(CONCERT, ROOM));
    assert_eq!(refused().await, "NotOnSale(NotOnSale)");

    world.facts().dates.insert(DATE, date(DATE));
    assert_eq!(refused().await, format!("SeatNotFound({:?})", [seat_id(6)]));

    world.facts().put_seat(stored(seat(6, SeatState::Available), 1));
    assert_eq!(refused().await, format!("SeatOfAnotherDate({:?})", [seat_id(5)]));

    world.facts().put_seat(stored(seat(5, SeatState::Available), 1));
    assert_eq!(refused().await, "SeatLimitExceeded { live: 2, max: 4 }");

    let strangers = reservation(HELD, &[3, 4], Done, at(900));
    world.facts().put_reservation(stored(Reservation { user_id: STRANGER, ..strangers }, 1));
    assert_eq!(refused().await, format!("SeatNotAvailable({:?})", [seat_id(3)]));

    world.assert_untouched();
    world.facts().put_seat(stored(seat(3, SeatState::Available), 1));
    world.will_commit();
    assert!(!reserve(&world, &[6, 5, 3]).await.unwrap().replayed);
}

#[tokio::test]
async fn every_seat_that_was_lost_is_named_in_the_clients_order() {
    let world = world();
    put(
        &world,
        stored(Reservation { user_id: STRANGER, ..reservation(HELD, &[1, 2], Reserved, at(1_001)) }, 1),
    );
    put(&world, stored(Reservation { user_id: STRANGER, ..reservation(LAPSED, &[4], Done, at(900)) }, 1));
    let refused = refusal(reserve(&world, &[4, 3, 2]).await);
    assert_eq!(refused, format!("SeatNotAvailable({:?})", [seat_id(4), seat_id(2)]));
    world.assert_untouched();
}

#[tokio::test]
async fn ones_own_hold_is_not_held_twice() {
    let world = world();
    put(&world, stored(reservation(HELD, &[1], Reserved, at(1_200)), 1));
    let refused = refusal(reserve(&world, &[1]).await);
    assert_eq!(refused, format!("SeatNotAvailable({:?})", [seat_id(1)]));
    world.assert_untouched();
}

#[tokio::test]
async fn the_limit_of_live_seats_is_reached_but_not_passed() {
    for (status, until, fits) in [
        (Reserved, 1_001, false),
        (Done, 900, false),
        (Reserved, 1_000, true),
        (Expired, 900, true),
        (Cancelled, 1_001, true),
    ] {
        let world = world();
        put(&world, stored(reservation(HELD, &[1, 2], status, at(until)), 1));
        if fits {
            world.will_commit();
        }
        let reserved = reserve(&world, &[3, 4, 5]).await;
        assert_eq!(reserved.is_ok(), fits, "{status:?} until {until}: {reserved:?}");
        if !fits {
            assert_eq!(refusal(reserved), "SeatLimitExceeded { live: 2, max: 4 }");
            world.will_commit();
            assert!(reserve(&world, &[3, 4]).await.is_ok(), "2 + 2 is the limit itself");
        }
    }
}

#[tokio::test]
async fn a_sum_that_cannot_be_paid_is_refused() {
    let world = world();
    for n in [1, 2] {
        let free = seat(n, SeatState::Available);
        let place = SeatPlace { price: money(i64::MAX), ..free.place };
        world.facts().put_seat(stored(Seat { place, ..free }, 1));
    }
    assert_eq!(refusal(reserve(&world, &[1, 2]).await), "InvalidHold(TotalTooLarge)");
    world.assert_untouched();
}

#[tokio::test]
async fn a_lapsed_hold_gives_way_and_gives_all_its_seats_back() {
    let world = world();
    let lapsed = reservation(LAPSED, &[1, 2], Reserved, now());
    let lapsed = Reservation { user_id: STRANGER, ..lapsed };
    put(&world, stored(lapsed.clone(), 4));
    world.will_commit();

    reserve(&world, &[2, 3]).await.unwrap();

    let expired = Reservation { status: Expired, ..lapsed };
    let held = held_by(NEW, 1_300);
    let work = UnitOfWork {
        queue_tokens: vec![stored(token(active_until(1_100)), 2)],
        reservations: vec![Change::Update(stored(expired, 4)), Change::Insert(new_hold(NEW, &[2, 3], now()))],
        seats: vec![update(1, SeatState::Available, 2), update(2, held, 2), update(3, held, 1)],
        ..UnitOfWork::default()
    };
    assert_eq!(world.work(), work);
    let loads = [Load::Date, Load::Seats, Load::Holdings, Load::Reservation, Load::Seats];
    assert_eq!(world.take_loads(), loads);
}

#[tokio::test]
async fn several_lapsed_holds_give_way_at_once() {
    let world = world();
    put(&world, stored(reservation(HELD, &[1], Reserved, at(900)), 4));
    put(&world, stored(reservation(LAPSED, &[2], Reserved, at(901)), 5));
    world.will_commit();
    reserve(&world, &[1, 2]).await.unwrap();
    let work = world.work();
    let reservations = [
        Change::Update(stored(reservation(HELD, &[1], Expired, at(900)), 4)),
        Change::Update(stored(reservation(LAPSED, &[2], Expired, at(901)), 5)),
        Change::Insert(new_hold(NEW, &[1, 2], now())),
    ];
    assert_eq!(work.reservations, reservations);
    assert_eq!(work.seats.len(), 2);
}

#[tokio::test]
async fn a_hold_that_was_paid_in_time_while_it_was_looked_at_keeps_its_seats() {
    let world = world();
    put(&world, stored(reservation(LAPSED, &[1, 2], Reserved, now()), 4));
    world.before(Load::Reservation, |facts| {
        facts.put_reservation(stored(reservation(LAPSED, &[1, 2], Done, now()), 5));
        facts.put_seat(stored(seat(1, sold_to(LAPSED)), 3));
        facts.put_seat(stored(seat(2, sold_to(LAPSED)), 3));
    });
    let refused = refusal(reserve(&world, &[1]).await);
    assert_eq!(refused, format!("SeatNotAvailable({:?})", [seat_id(1)]));
    world.assert_untouched();
}

#[tokio::test]
async fn a_hold_that_was_swept_while_it_was_looked_at_is_looked_at_again() {
    let world = world();
    put(&world, stored(reservation(LAPSED, &[1, 2], Reserved, now()), 4));
    world.before(Load::Reservation, |facts| {
        facts.before(Load::Seats, |facts| {
            facts.put_reservation(stored(reservation(LAPSED, &[1, 2], Expired, now()), 5));
            facts.put_seat(stored(seat(1, SeatState::Available), 3));
            facts.put_seat(stored(seat(2, SeatState::Available), 3));
        });
    });
    world.will_commit();
    reserve(&world, &[1]).await.unwrap();
    let work = world.work();
    let id = ReservationId::new(given(2));
    assert_eq!(work.reservations, [Change::Insert(new_hold(id, &[1], now()))]);
    assert_eq!(work.seats, [update(1, held_by(id, 1_300), 3)]);
}

#[tokio::test]
async fn a_conflict_is_decided_anew_by_the_new_state_token_first() {
    let world = world();
    world.will_conflict(AggregateRef::Seat(seat_id(1)), |facts| {
        facts.now = at(1_010);
        facts.put_token(stored(token(active_until(1_100)), 3));
        facts.put_seat(stored(seat(1, SeatState::Available), 8));
    });
    world.will_commit();

    reserve_keyed(&world, &[1]).await.unwrap();

    let id = ReservationId::new(given(2));
    let shown = Held { reservation: new_hold(id, &[1], at(1_010)), seats: vec![seat(1, held_by(id, 1_310))] };
    let work = UnitOfWork {
        idempotency: Some(IdempotencyRecord::new(keyed_request(1), encoded(&shown), at(1_010))),
        queue_tokens: vec![stored(token(active_until(1_100)), 3)],
        reservations: vec![Change::Insert(new_hold(id, &[1], at(1_010)))],
        seats: vec![update(1, held_by(id, 1_310), 8)],
        ..UnitOfWork::default()
    };
    assert_eq!(world.works().pop(), Some(work));
    let first = [Load::Date, Load::Seats, Load::Holdings];
    let second = [Load::Token, Load::Date, Load::Seats, Load::Holdings];
    assert_eq!(world.take_loads(), [&first[..], &second[..]].concat());
}

#[tokio::test]
async fn the_loser_of_a_race_is_told_what_is_so_now() {
    let world = world();
    world.will_conflict(AggregateRef::Seat(seat_id(1)), |facts| {
        facts.put_seat(stored(seat(1, held_by(HELD, 1_300)), 2));
    });
    let refused = refusal(reserve(&world, &[1]).await);
    assert_eq!(refused, format!("SeatNotAvailable({:?})", [seat_id(1)]));
    assert_eq!(world.works().len(), 1);
}

/// Seats and holdings are read at two moments. Here the person's own other hold is written between the two.
#[tokio::test]
async fn a_seat_that_one_took_oneself_meanwhile_is_a_matter_of_the_limit() {
    let world = world();
    world.facts().put_seat(stored(seat(1, held_by(HELD, 1_300)), 2));
    world.before(Load::Token, |facts| {
        facts.put_token(stored(token(active_until(1_100)), 3));
        facts.put_reservation(stored(reservation(HELD, &[1, 2, 3], Reserved, at(1_300)), 1));
    });
    assert_eq!(refusal(reserve(&world, &[1, 4]).await), "SeatLimitExceeded { live: 3, max: 4 }");
    world.assert_untouched();
}

/// And here it is given back between the two: at no moment was the seat taken and the limit not reached.
#[tokio::test]
async fn a_seat_that_one_gives_back_meanwhile_can_be_held_again() {
    let world = world();
    put(&world, stored(reservation(HELD, &[1, 2, 3, 4], Reserved, at(1_300)), 1));
    world.before(Load::Holdings, |facts| {
        facts.put_reservation(stored(reservation(HELD, &[1, 2, 3, 4], Cancelled, at(1_300)), 2));
        for n in 1..=4 {
            facts.put_seat(stored(seat(n, SeatState::Available), 3));
        }
    });
    world.will_commit();
    assert!(reserve(&world, &[1]).await.is_ok());
}

#[tokio::test]
async fn who_finds_a_seat_taken_looks_once_more_at_it_and_at_the_token() {
    let world = world();
    world.facts().put_seat(stored(seat(1, held_by(HELD, 1_300)), 2));
    assert_eq!(refusal(reserve(&world, &[1]).await), format!("SeatNotAvailable({:?})", [seat_id(1)]));
    let loads = [Load::Date, Load::Seats, Load::Holdings, Load::Token, Load::Seats];
    assert_eq!(world.take_loads(), loads);
}

/// By a clock that is behind, the hold could still be paid: the two together would pass the limit.
#[tokio::test]
async fn ones_own_lapsed_hold_is_expired_with_the_hold_that_does_not_count_it() {
    let world = world();
    let lapsed = reservation(LAPSED, &[1, 2], Reserved, now());
    put(&world, stored(lapsed.clone(), 4));
    world.will_commit();

    reserve(&world, &[3, 4, 5]).await.unwrap();

    let work = world.work();
    let expired = Change::Update(stored(Reservation { status: Expired, ..lapsed }, 4));
    assert_eq!(work.reservations, [expired, Change::Insert(new_hold(NEW, &[3, 4, 5], now()))]);
    let free = |n| update(n, SeatState::Available, 2);
    let held = |n| update(n, held_by(NEW, 1_300), 1);
    assert_eq!(work.seats, [free(1), free(2), held(3), held(4), held(5)]);
    let loads = [Load::Date, Load::Seats, Load::Holdings, Load::Reservation, Load::Seats];
    assert_eq!(world.take_loads(), loads);
}

/// One person's parallel reservations meet on the token, so that they cannot pass the limit together.
#[tokio::test]
async fn parallel_holds_of_one_person_are_counted_anew() {
    let world = world();
    world.will_conflict(AggregateRef::QueueToken(TOKEN), |facts| {
        facts.put_token(stored(token(active_until(1_100)), 3));
        facts.put_reservation(stored(reservation(HELD, &[3, 4, 5], Reserved, at(1_300)), 1));
    });
    assert_eq!(refusal(reserve(&world, &[1, 2]).await), "SeatLimitExceeded { live: 3, max: 4 }");
    assert_eq!(world.works().len(), 1);
}

#[tokio::test]
async fn a_token_that_is_over_by_now_ends_the_attempt() {
    for (state, time, expected) in
        [(over(), 1_000, "Gate(Expired)"), (active_until(1_100), 1_100, "Gate(Expired)")]
    {
        let world = world();
        world.will_conflict(AggregateRef::QueueToken(TOKEN), move |facts| {
            facts.now = at(time);
            facts.put_token(stored(token(state), 3));
        });
        assert_eq!(refusal(reserve(&world, &[1]).await), expected);
        assert_eq!(world.works().len(), 1);
    }
}

#[tokio::test]
async fn attempts_are_bounded() {
    let world = world();
    for _ in 0..MAX_ATTEMPTS {
        world.will_conflict(AggregateRef::Seat(seat_id(1)), |_| {});
    }
    assert_eq!(refusal(reserve(&world, &[1]).await), "Conflict");
    assert_eq!(world.works().len(), usize::try_from(MAX_ATTEMPTS).unwrap());
}

#[tokio::test]
async fn a_taken_key_gives_the_twins_answer() {
    let replayed = Reply { answer: twins_answer(), replayed: true };

    let world = self::world();
    world.will_meet_its_twin();
    assert_eq!(reserve_keyed(&world, &[1]).await.unwrap(), replayed, "met at the commit");
    assert_eq!(world.works().len(), 1);

    let world = self::world();
    world.will_conflict(AggregateRef::Seat(seat_id(1)), |facts| {
        facts.record = Some(twins_record());
        facts.put_seat(stored(seat(1, held_by(HELD, 1_300)), 2));
    });
    assert_eq!(
        reserve_keyed(&world, &[1]).await.unwrap(),
        replayed,
        "refused because of the twin's own hold"
    );

    let world = self::world();
    world.will_meet_its_twin();
    let pass = world.pass().await;
    let mut other = keyed();
    other.request = Some(keyed_request(2));
    let refused = service(&world).reserve(pass, &wanting(&[1]), other).await;
    assert_eq!(refusal(refused), "KeyReused(KeyReused)");
}

#[tokio::test]
async fn a_lost_answer_is_looked_up_by_its_key() {
    let lost = || CommitError::OutcomeUnknown("lost".into());
    let world = self::world();
    world.on_commit(move |facts| {
        facts.record = Some(twins_record());
        Err(lost())
    });
    assert_eq!(reserve_keyed(&world, &[1]).await.unwrap().answer, twins_answer());

    for key in [true, false] {
        let world = self::world();
        world.will_fail(lost());
        let refused = if key { reserve_keyed(&world, &[1]).await } else { reserve(&world, &[1]).await };
        assert_eq!(refusal(refused), "Failure(OutcomeUnknown(\"lost\"))", "with a key: {key}");
        assert_eq!(world.works().len(), 1, "not repeated: it may have taken effect");
    }
}

#[tokio::test]
async fn other_failures_of_a_commit_are_not_repeated() {
    for (error, expected) in [
        (CommitError::Unavailable("down".into()), "Failure(Unavailable"),
        (CommitError::Backstop { constraint: "live_seat".into() }, "Failure(Internal"),
    ] {
        let world = world();
        world.will_fail(error);
        let refused = refusal(reserve(&world, &[1]).await);
        assert!(refused.starts_with(expected), "{refused}");
        assert_eq!(world.works().len(), 1);
    }
}

#[tokio::test]
async fn storage_that_is_away_is_a_failure_and_nothing_is_written() {
    for load in [Load::Date, Load::Seats, Load::Holdings, Load::Reservation] {
        let world = world();
        put(&world, stored(reservation(LAPSED, &[1], Reserved, now()), 4));
        world.facts().down = Some(load);
        let refused = refusal(reserve(&world, &[1]).await);
        assert!(refused.starts_with("Failure(Unavailable"), "{load:?}: {refused}");
        world.assert_untouched();
    }
}

#[tokio::test]
async fn giving_back_cancels_and_frees_in_one_unit_of_work() {
    let world = world();
    put(&world, stored(reservation(HELD, &[1, 3], Reserved, at(1_001)), 4));
    world.will_commit();
    service(&world).cancel(USER, HELD).await.unwrap();
    let cancelled = reservation(HELD, &[1, 3], Cancelled, at(1_001));
    let work = UnitOfWork {
        reservations: vec![Change::Update(stored(cancelled, 4))],
        seats: vec![update(1, SeatState::Available, 2), update(3, SeatState::Available, 2)],
        ..UnitOfWork::default()
    };
    assert_eq!(world.work(), work);
}

#[tokio::test]
async fn what_cannot_be_given_back_is_left_alone() {
    for (user, status, until, expected) in [
        (STRANGER, Reserved, 1_001, Some("NotFound")),
        (USER, Done, 1_001, Some("Reservation(AlreadyPaid)")),
        (USER, Done, 900, Some("Reservation(AlreadyPaid)")),
        (USER, Expired, 900, Some("Reservation(Expired)")),
        (USER, Reserved, 1_000, Some("Reservation(Expired)")),
        (USER, Cancelled, 1_001, None),
        (USER, Cancelled, 900, None),
    ] {
        let world = world();
        put(&world, stored(reservation(HELD, &[1], status, at(until)), 4));
        let cancelled = service(&world).cancel(user, HELD).await;
        match expected {
            Some(expected) => assert_eq!(refusal(cancelled), expected, "{status:?} until {until}"),
            None => assert!(cancelled.is_ok(), "again: {cancelled:?}"),
        }
        world.assert_untouched();
    }
    assert_eq!(refusal(service(&self::world()).cancel(USER, HELD).await), "NotFound");
}

#[tokio::test]
async fn giving_back_meets_a_payment_and_answers_by_the_new_state() {
    let sets = |status: ReservationStatus| {
        move |facts: &mut crate::testing::Facts| {
            facts.put_reservation(stored(reservation(HELD, &[1], status, at(1_001)), 5));
        }
    };
    for (status, expected) in
        [(Done, Some("Reservation(AlreadyPaid)")), (Expired, Some("Reservation(Expired)")), (Cancelled, None)]
    {
        let world = world();
        put(&world, stored(reservation(HELD, &[1], Reserved, at(1_001)), 4));
        world.will_conflict(AggregateRef::Reservation(HELD), sets(status));
        let cancelled = service(&world).cancel(USER, HELD).await;
        assert_eq!(cancelled.err().map(|error| format!("{error:?}")).as_deref(), expected);
        assert_eq!(world.works().len(), 1);
    }
    // The same between the two loads: what was loaded does not fit together, so nothing is tried.
    let world = world();
    put(&world, stored(reservation(HELD, &[1], Reserved, at(1_001)), 4));
    world.before(Load::Seats, move |facts| {
        sets(Done)(facts);
        facts.put_seat(stored(seat(1, sold_to(HELD)), 3));
    });
    assert_eq!(refusal(service(&world).cancel(USER, HELD).await), "Reservation(AlreadyPaid)");
    world.assert_untouched();
}

#[tokio::test]
async fn giving_back_is_bounded_and_tells_failures() {
    let world = self::world();
    put(&world, stored(reservation(HELD, &[1], Reserved, at(1_001)), 4));
    for _ in 0..MAX_ATTEMPTS {
        world.will_conflict(AggregateRef::Seat(seat_id(1)), |_| {});
    }
    assert_eq!(refusal(service(&world).cancel(USER, HELD).await), "Conflict");

    let world = self::world();
    put(&world, stored(reservation(HELD, &[1], Reserved, at(1_001)), 4));
    world.will_fail(CommitError::OutcomeUnknown("lost".into()));
    let refused = refusal(service(&world).cancel(USER, HELD).await);
    assert_eq!(refused, "Failure(OutcomeUnknown(\"lost\"))");
}

#[tokio::test]
async fn only_ones_own_reservations_are_asked_for() {
    let view = ReservationView {
        id: HELD,
        user_id: USER,
        performance_date_id: DATE,
        seats: Vec::<(SeatId, SeatPlace)>::new(),
        total_amount: money(0),
        status: Done,
        hold_expires_at: now(),
        payment: None,
    };
    let (found, listed) = (view.clone(), view.clone());
    let mut queries = MockReservationQueries::new();
    queries
        .expect_find_own()
        .returning(move |user, id, at| Ok(((user, id, at) == (USER, HELD, now())).then(|| found.clone())));
    queries
        .expect_list_own()
        .withf(|user, before, limit, at| (*user, *before, *limit, *at) == (USER, Some(LAPSED), 9, now()))
        .returning(move |_, _, _, _| Ok(vec![listed.clone()]));
    let service = service_with(&world(), queries);
    assert_eq!(service.find(USER, HELD).await.unwrap(), view);
    assert_eq!(refusal(service.find(STRANGER, HELD).await), "NotFound");
    assert_eq!(service.list(USER, Some(LAPSED), 9).await.unwrap(), [view]);
}

#[tokio::test]
async fn a_lost_seat_is_not_told_while_the_twin_cannot_be_looked_for() {
    let world = self::world();
    world.facts().put_seat(stored(seat(1, held_by(HELD, 1_300)), 2));
    world.facts().down = Some(Load::Record);
    assert_eq!(refusal(reserve_keyed(&world, &[1]).await), "Failure(Unavailable(\"down\"))");

    let world = self::world();
    world.facts().down = Some(Load::Record);
    world.will_fail(CommitError::OutcomeUnknown("lost".into()));
    let refused = refusal(reserve_keyed(&world, &[1]).await);
    assert_eq!(refused, "Failure(OutcomeUnknown(\"lost\"))", "this says more");
}
