use frontrow_domain::account::{Account, Entry, EntryKind, Payment, Ticket};
use frontrow_domain::idempotency::IdempotencyRecord;
use frontrow_domain::queue::{QueueToken, QueueTokenState};
use frontrow_domain::reservation::ReservationStatus::{Cancelled, Done, Expired, Reserved};
use frontrow_domain::reservation::{Reservation, ReservationStatus};
use frontrow_domain::seat::SeatState;
use frontrow_domain::unit_of_work::{AggregateRef, CommitError};
use frontrow_domain::{Change, EntryId, PaymentId, QueueTokenId, TicketId, UnitOfWork, Versioned};

use crate::testing::{
    Facts, HELD, LAPSED, Load, OTHER_ROOM, STRANGER, TOKEN, USER, WAITING, World, account, active_until, at,
    encoded, given, held_by, keyed, keyed_request, money, now, over, refusal, reservation, seat, seat_id,
    sold_to, stored, token, twins_answer, twins_record, unkeyed, world,
};
use crate::{MAX_ATTEMPTS, PayError, PayReceipt, PaymentService, Reply};

fn service(world: &World) -> PaymentService {
    PaymentService {
        reservations: world.reservations(),
        accounts: world.accounts(),
        seats: world.seats(),
        tokens: world.tokens(),
        committer: world.committer(),
        idempotency: world.idempotency(),
        clock: world.clock(),
        ids: world.ids(),
    }
}

async fn pay(world: &World) -> Result<Reply, PayError> {
    service(world).pay(USER, HELD, unkeyed()).await
}

async fn pay_keyed(world: &World) -> Result<Reply, PayError> {
    service(world).pay(USER, HELD, keyed()).await
}

fn held(status: ReservationStatus) -> Reservation {
    reservation(HELD, &[1, 3], status, at(1_001))
}

/// The user holds the seats 1 and 3 for 200 and has 700.
fn payable() -> World {
    let world = world();
    {
        let mut facts = world.facts();
        facts.put_reservation(stored(held(Reserved), 4));
        facts.put_seat(stored(seat(1, held_by(HELD, 1_001)), 2));
        facts.put_seat(stored(seat(3, held_by(HELD, 1_001)), 6));
        facts.account = Some(stored(account(700), 3));
    }
    world
}

/// What the payment of [`payable`] by an attempt whose ids start at `first` comes to.
fn receipt(first: u128) -> PayReceipt {
    let ticket = |id, n| Ticket { id: TicketId::new(given(id)), seat_id: seat_id(n) };
    let payment = Payment {
        id: PaymentId::new(given(first + 1)),
        reservation_id: HELD,
        user_id: USER,
        entry_id: EntryId::new(given(first)),
        amount: money(200),
        paid_at: now(),
        tickets: vec![ticket(first + 2, 1), ticket(first + 3, 3)],
    };
    PayReceipt { payment, balance: money(500) }
}

/// All that the payment of [`payable`] writes, but for the record.
fn paid(first: u128, tokens: Vec<Versioned<QueueToken>>) -> UnitOfWork {
    let entry = Entry {
        id: EntryId::new(given(first)),
        user_id: USER,
        number: 5,
        kind: EntryKind::Payment { reservation_id: HELD },
        amount: money(200),
        balance_after: money(500),
        at: now(),
    };
    let debited = Account { user_id: USER, balance: money(500), entry_count: 5 };
    UnitOfWork {
        queue_tokens: tokens,
        accounts: vec![Change::Update(stored(debited, 3))],
        entries: vec![entry],
        reservations: vec![Change::Update(stored(held(Done), 4))],
        seats: vec![
            Change::Update(stored(seat(1, sold_to(HELD)), 2)),
            Change::Update(stored(seat(3, sold_to(HELD)), 6)),
        ],
        payments: vec![receipt(first).payment],
        ..UnitOfWork::default()
    }
}

fn spent(activated_at: Option<i64>, expires_at: i64) -> QueueToken {
    let activated_at = activated_at.map(at);
    token(QueueTokenState::Expired { activated_at, expires_at: at(expires_at) })
}

#[tokio::test]
async fn a_payment_is_one_unit_of_work_with_its_answer() {
    let world = payable();
    world.will_commit();

    let reply = pay_keyed(&world).await.unwrap();

    let answer = encoded(&receipt(1));
    let record = IdempotencyRecord::new(keyed_request(1), answer.clone(), now());
    let work = paid(1, vec![stored(spent(Some(500), 1_000), 2)]);
    assert_eq!(world.work(), UnitOfWork { idempotency: Some(record), ..work });
    assert_eq!(reply, Reply { answer, replayed: false });
    assert_eq!(world.take_loads(), [Load::Reservation, Load::Account, Load::Seats, Load::LiveToken]);
}

#[tokio::test]
async fn the_live_token_in_the_reservations_room_is_over_then() {
    let elsewhere =
        QueueToken { id: QueueTokenId::new(given(88)), room_id: OTHER_ROOM, ..token(active_until(1_100)) };
    let strangers =
        QueueToken { id: QueueTokenId::new(given(89)), user_id: STRANGER, ..token(active_until(1_100)) };
    for (state, spent) in [
        (active_until(1_100), Some(spent(Some(500), 1_000))),
        (active_until(900), Some(spent(Some(500), 900))),
        (WAITING, Some(spent(None, 1_000))),
        (over(), None),
    ] {
        let world = payable();
        world.facts().put_token(stored(token(state), 7));
        world.facts().put_token(stored(elsewhere, 1));
        world.facts().put_token(stored(strangers, 1));
        world.will_commit();
        pay(&world).await.unwrap();
        let tokens = spent.map(|spent| stored(spent, 7)).into_iter().collect();
        assert_eq!(world.work(), paid(1, tokens), "{state:?}");
    }
}

#[tokio::test]
async fn an_account_is_emptied_to_the_last_coin_but_not_below() {
    let world = payable();
    world.facts().account = Some(stored(account(200), 3));
    world.will_commit();
    pay(&world).await.unwrap();
    let emptied = Account { user_id: USER, balance: money(0), entry_count: 5 };
    assert_eq!(world.work().accounts, [Change::Update(stored(emptied, 3))]);

    for (stored_account, balance) in [(Some(stored(account(199), 3)), 199), (None, 0)] {
        let world = payable();
        world.facts().account = stored_account;
        let refused = refusal(pay(&world).await);
        let expected =
            format!("InsufficientBalance {{ required: {:?}, balance: {:?} }}", money(200), money(balance));
        assert_eq!(refused, expected);
        world.assert_untouched();
    }
}

#[tokio::test]
async fn a_free_reservation_is_paid_without_an_account() {
    let world = payable();
    let free = Reservation { total_amount: money(0), ..held(Reserved) };
    world.facts().put_reservation(stored(free, 4));
    world.facts().account = None;
    world.will_commit();
    pay(&world).await.unwrap();
    let made = Account { user_id: USER, balance: money(0), entry_count: 1 };
    assert_eq!(world.work().accounts, [Change::Insert(made)]);
}

/// Each state is told before the balance is looked at: there is none.
#[tokio::test]
async fn what_cannot_be_paid_changes_nothing() {
    for (user, status, until, expected) in [
        (STRANGER, Reserved, 1_001, "ReservationNotFound"),
        (STRANGER, Done, 1_001, "ReservationNotFound"),
        (USER, Reserved, 1_000, "Reservation(Expired)"),
        (USER, Expired, 900, "Reservation(Expired)"),
        (USER, Cancelled, 1_001, "Reservation(Cancelled)"),
        (USER, Done, 1_001, "Reservation(AlreadyPaid)"),
        (USER, Done, 900, "Reservation(AlreadyPaid)"),
    ] {
        let world = payable();
        world.facts().account = None;
        world.facts().put_reservation(stored(reservation(HELD, &[1, 3], status, at(until)), 4));
        let refused = refusal(service(&world).pay(user, HELD, unkeyed()).await);
        assert_eq!(refused, expected, "{status:?} until {until}");
        world.assert_untouched();
        assert_eq!(world.take_loads(), [Load::Reservation, Load::Account], "no more than that is read");
    }
    let world = payable();
    let refused = refusal(service(&world).pay(USER, LAPSED, unkeyed()).await);
    assert_eq!(refused, "ReservationNotFound", "unknown");
    world.assert_untouched();
}

fn sets(status: ReservationStatus, seat_state: SeatState) -> impl FnOnce(&mut Facts) + Send + 'static {
    move |facts| {
        facts.put_reservation(stored(held(status), 5));
        facts.put_seat(stored(seat(1, seat_state), 3));
        facts.put_seat(stored(seat(3, seat_state), 7));
    }
}

#[tokio::test]
async fn the_loser_of_a_race_answers_by_the_new_state() {
    for (status, seats, expected) in [
        (Done, sold_to(HELD), "Reservation(AlreadyPaid)"),
        (Expired, SeatState::Available, "Reservation(Expired)"),
        (Cancelled, SeatState::Available, "Reservation(Cancelled)"),
    ] {
        let world = payable();
        world.will_conflict(AggregateRef::Reservation(HELD), sets(status, seats));
        assert_eq!(refusal(pay(&world).await), expected);
        assert_eq!(world.works().len(), 1);
    }
}

#[tokio::test]
async fn the_deadline_is_judged_again_after_a_conflict() {
    let world = payable();
    world.will_conflict(AggregateRef::Account(USER), |facts| facts.now = at(1_001));
    assert_eq!(refusal(pay(&world).await), "Reservation(Expired)");
    assert_eq!(world.works().len(), 1);
}

#[tokio::test]
async fn a_deadline_that_passes_while_loading_counts() {
    let world = payable();
    world.before(Load::LiveToken, |facts| facts.now = at(1_001));
    assert_eq!(refusal(pay(&world).await), "Reservation(Expired)");
    world.assert_untouched();
}

#[tokio::test]
async fn a_conflict_elsewhere_is_paid_over_the_new_versions() {
    let world = payable();
    world.will_conflict(AggregateRef::Account(USER), |facts| {
        facts.account = Some(stored(Account { entry_count: 9, ..account(900) }, 8));
        facts.put_token(stored(token(over()), 3));
    });
    world.will_commit();
    pay_keyed(&world).await.unwrap();
    let work = world.works().pop().unwrap();
    let debited = Account { user_id: USER, balance: money(700), entry_count: 10 };
    assert_eq!(work.accounts, [Change::Update(stored(debited, 8))]);
    assert_eq!(work.queue_tokens, [], "the token was over by then");
    let receipt = PayReceipt { balance: money(700), ..receipt(5) };
    assert_eq!(work.idempotency.unwrap().answer, encoded(&receipt), "the bytes of this attempt");
}

/// The reservation was read before a faster commit, its seats after: nothing is tried with the two together.
#[tokio::test]
async fn loads_that_do_not_fit_together_are_loaded_again() {
    for (status, seats, expected) in [
        (Done, sold_to(HELD), "Reservation(AlreadyPaid)"),
        (Expired, held_by(LAPSED, 1_300), "Reservation(Expired)"),
        (Cancelled, SeatState::Available, "Reservation(Cancelled)"),
    ] {
        let world = payable();
        world.before(Load::Seats, sets(status, seats));
        assert_eq!(refusal(pay(&world).await), expected);
        world.assert_untouched();
    }
}

#[tokio::test]
async fn attempts_are_bounded() {
    let world = payable();
    for _ in 0..MAX_ATTEMPTS {
        world.will_conflict(AggregateRef::Account(USER), |_| {});
    }
    assert_eq!(refusal(pay(&world).await), "Conflict");
    assert_eq!(world.works().len(), usize::try_from(MAX_ATTEMPTS).unwrap());
}

#[tokio::test]
async fn a_taken_key_gives_the_twins_answer() {
    let replayed = Reply { answer: twins_answer(), replayed: true };

    let world = payable();
    world.will_meet_its_twin();
    assert_eq!(pay_keyed(&world).await.unwrap(), replayed, "met at the commit");

    let world = payable();
    world.will_conflict(AggregateRef::Reservation(HELD), |facts| {
        facts.record = Some(twins_record());
        sets(Done, sold_to(HELD))(facts);
    });
    assert_eq!(pay_keyed(&world).await.unwrap(), replayed, "never ALREADY_PAID because of itself");
    assert_eq!(world.works().len(), 1);

    let world = payable();
    world.will_meet_its_twin();
    let mut other = keyed();
    other.request = Some(keyed_request(2));
    let refused = service(&world).pay(USER, HELD, other).await;
    assert_eq!(refusal(refused), "KeyReused(KeyReused)");
}

#[tokio::test]
async fn a_lost_answer_is_looked_up_by_its_key() {
    let lost = || CommitError::OutcomeUnknown("lost".into());
    let world = payable();
    world.on_commit(move |facts| {
        facts.record = Some(twins_record());
        Err(lost())
    });
    assert_eq!(pay_keyed(&world).await.unwrap().answer, twins_answer());

    for (key, records) in [(false, None), (true, None), (true, Some(Load::Record))] {
        let world = payable();
        world.facts().down = records;
        world.will_fail(lost());
        let refused = if key { pay_keyed(&world).await } else { pay(&world).await };
        assert_eq!(refusal(refused), "Failure(OutcomeUnknown(\"lost\"))", "key {key}, {records:?}");
        assert_eq!(world.works().len(), 1, "not repeated: it may have taken effect");
    }
}

#[tokio::test]
async fn other_failures_are_told_and_not_repeated() {
    for (error, expected) in [
        (CommitError::Unavailable("down".into()), "Failure(Unavailable"),
        (CommitError::Backstop { constraint: "balance".into() }, "Failure(Internal"),
    ] {
        let world = payable();
        world.will_fail(error);
        let refused = refusal(pay(&world).await);
        assert!(refused.starts_with(expected), "{refused}");
        assert_eq!(world.works().len(), 1);
    }
    for load in [Load::Reservation, Load::Account, Load::Seats, Load::LiveToken] {
        let world = payable();
        world.facts().down = Some(load);
        let refused = refusal(pay(&world).await);
        assert!(refused.starts_with("Failure(Unavailable"), "{load:?}: {refused}");
        world.assert_untouched();
    }
}

#[tokio::test]
async fn a_token_that_moved_on_is_spent_as_it_is_now() {
    let world = payable();
    world.facts().put_token(stored(token(WAITING), 1));
    world.will_conflict(AggregateRef::QueueToken(TOKEN), |facts| {
        facts.put_token(stored(token(active_until(1_600)), 2));
    });
    world.will_commit();
    pay(&world).await.unwrap();
    assert_eq!(world.works().pop().unwrap().queue_tokens, [stored(spent(Some(500), 1_000), 2)]);
}

/// Read after a faster payment of the same reservation, the balance is not told as the reason: the state comes first.
#[tokio::test]
async fn the_balance_that_a_faster_payment_left_is_not_the_reason() {
    let world = payable();
    world.before(Load::Account, |facts| {
        sets(Done, sold_to(HELD))(facts);
        facts.account = Some(stored(account(0), 4));
    });
    assert_eq!(refusal(pay(&world).await), "Reservation(AlreadyPaid)");
    world.assert_untouched();
}

/// It may be the twin that paid: while that cannot be read, nobody is told that somebody else did.
#[tokio::test]
async fn a_refusal_is_not_told_while_the_twin_cannot_be_looked_for() {
    let world = payable();
    world.facts().put_reservation(stored(held(Done), 5));
    world.facts().down = Some(Load::Record);
    assert_eq!(refusal(pay_keyed(&world).await), "Failure(Unavailable(\"down\"))");
    assert_eq!(refusal(pay(&world).await), "Reservation(AlreadyPaid)", "without a key there is no twin");
    world.assert_untouched();
}
