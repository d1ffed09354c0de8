use std::sync::Arc;

use frontrow_domain::account::{Account, ChargingRefusal, Entry, EntryKind, WalletCharging};
use frontrow_domain::idempotency::IdempotencyRecord;
use frontrow_domain::ports::{AccountQueries, MockAccountQueries, Role};
use frontrow_domain::unit_of_work::{AggregateRef, CommitError};
use frontrow_domain::{Change, EntryId, Money, UnitOfWork};

use crate::testing::{
    Load, STRANGER, USER, World, account, encoded, given, keyed, keyed_request, money, now, refusal, stored,
    twins_answer, twins_record, unkeyed, world,
};
use crate::{AccountService, Caller, ChargeError, ChargePermit, ChargeReceipt, Reply};

fn service_with(world: &World, queries: MockAccountQueries) -> AccountService {
    let queries: Arc<dyn AccountQueries> = Arc::new(queries);
    AccountService {
        charging: WalletCharging::Owner,
        accounts: world.accounts(),
        queries,
        committer: world.committer(),
        idempotency: world.idempotency(),
        clock: world.clock(),
        ids: world.ids(),
    }
}

fn service(world: &World) -> AccountService {
    service_with(world, MockAccountQueries::new())
}

/// Of the owner.
fn permit(world: &World) -> ChargePermit {
    service(world).permit_charge(Caller { user_id: USER, role: Role::User }, USER).unwrap()
}

async fn charge(world: &World, amount: i64) -> Result<Reply, ChargeError> {
    service(world).charge(permit(world), money(amount), unkeyed()).await
}

async fn charge_keyed(world: &World, amount: i64) -> Result<Reply, ChargeError> {
    service(world).charge(permit(world), money(amount), keyed()).await
}

/// The entry that a charge makes.
fn entry(number: i64, amount: i64, balance_after: i64) -> Entry {
    Entry {
        id: EntryId::new(given(1)),
        user_id: USER,
        number,
        kind: EntryKind::Charge,
        amount: money(amount),
        balance_after: money(balance_after),
        at: now(),
    }
}

#[tokio::test]
async fn a_charge_is_one_unit_of_work_with_its_answer() {
    let world = world();
    world.facts().account = Some(stored(account(700), 3));
    world.will_commit();

    let reply = charge_keyed(&world, 50).await.unwrap();

    let answer = encoded(&ChargeReceipt { entry: entry(5, 50, 750) });
    let charged = Account { user_id: USER, balance: money(750), entry_count: 5 };
    let work = UnitOfWork {
        idempotency: Some(IdempotencyRecord::new(keyed_request(1), answer.clone(), now())),
        accounts: vec![Change::Update(stored(charged, 3))],
        entries: vec![entry(5, 50, 750)],
        ..UnitOfWork::default()
    };
    assert_eq!(world.work(), work);
    assert_eq!(reply, Reply { answer, replayed: false });
    assert_eq!(world.take_loads(), [Load::Account]);
}

#[tokio::test]
async fn a_cashier_charges_the_wallet_of_anybody() {
    let world = world();
    world.will_commit();
    let service = AccountService { charging: WalletCharging::Cashier, ..service(&world) };
    let cashier = Caller { user_id: STRANGER, role: Role::Cashier };
    let owner = Caller { user_id: USER, role: Role::User };
    assert_eq!(service.permit_charge(owner, USER), Err(ChargingRefusal::NotACashier));
    let permit = service.permit_charge(cashier, USER).unwrap();
    service.charge(permit, money(50), unkeyed()).await.unwrap();
    assert_eq!(world.work().entries, [entry(1, 50, 50)], "in the wallet of the user, as any charge");
}

#[tokio::test]
async fn the_first_charge_makes_the_account() {
    let world = world();
    world.will_commit();
    charge(&world, 50).await.unwrap();
    let made = Account { user_id: USER, balance: money(50), entry_count: 1 };
    let work = UnitOfWork {
        accounts: vec![Change::Insert(made)],
        entries: vec![entry(1, 50, 50)],
        ..UnitOfWork::default()
    };
    assert_eq!(world.work(), work);
}

#[tokio::test]
async fn amounts_that_cannot_be_charged_change_nothing() {
    for (balance, amount, expected) in [
        (0, 0, "InvalidAmount(InvalidAmount)"),
        (0, 10_000_001, "InvalidAmount(InvalidAmount)"),
        (i64::MAX, 1, "InvalidAmount(BalanceTooLarge)"),
    ] {
        let world = world();
        world.facts().account = Some(stored(account(balance), 3));
        assert_eq!(refusal(charge(&world, amount).await), expected);
        world.assert_untouched();
    }
}

/// A double click must not charge twice (seed: 낙관락 충돌시 충전 불가).
#[tokio::test]
async fn a_conflict_is_refused_and_never_retried() {
    for stored_account in [None, Some(stored(account(700), 3))] {
        for key in [false, true] {
            let world = world();
            world.facts().account = stored_account;
            world.will_conflict(AggregateRef::Account(USER), |facts| {
                facts.account = Some(stored(account(750), 4));
            });
            let charged = if key { charge_keyed(&world, 50).await } else { charge(&world, 50).await };
            assert_eq!(refusal(charged), "Conflict");
            assert_eq!(world.works().len(), 1);
            let loads = world.take_loads();
            assert_eq!(loads.iter().filter(|load| **load == Load::Account).count(), 1, "not read again");
        }
    }
}

#[tokio::test]
async fn a_taken_key_gives_the_twins_answer_and_charges_once() {
    let replayed = Reply { answer: twins_answer(), replayed: true };

    let world = self::world();
    world.will_meet_its_twin();
    assert_eq!(charge_keyed(&world, 50).await.unwrap(), replayed);

    let world = self::world();
    world.will_conflict(AggregateRef::Account(USER), |facts| facts.record = Some(twins_record()));
    assert_eq!(charge_keyed(&world, 50).await.unwrap(), replayed, "the conflict was the twin");

    let world = self::world();
    world.facts().record = Some(twins_record());
    world.will_fail(CommitError::DuplicateIdempotencyKey);
    let mut other = keyed();
    other.request = Some(keyed_request(2));
    let charged = service(&world).charge(permit(&world), money(50), other).await;
    assert_eq!(refusal(charged), "KeyReused(KeyReused)");
}

#[tokio::test]
async fn failures_are_told_and_not_repeated() {
    for (error, expected) in [
        (CommitError::Unavailable("down".into()), "Failure(Unavailable(\"down\"))"),
        (CommitError::OutcomeUnknown("lost".into()), "Failure(OutcomeUnknown(\"lost\"))"),
    ] {
        let world = world();
        world.will_fail(error);
        assert_eq!(refusal(charge_keyed(&world, 50).await), expected);
        assert_eq!(world.works().len(), 1);
    }
    let world = self::world();
    world.facts().down = Some(Load::Account);
    assert_eq!(refusal(charge(&world, 50).await), "Failure(Unavailable(\"down\"))");
    world.assert_untouched();
}

#[tokio::test]
async fn a_lost_answer_is_looked_up_by_its_key() {
    let world = world();
    world.on_commit(|facts| {
        facts.record = Some(twins_record());
        Err(CommitError::OutcomeUnknown("lost".into()))
    });
    let reply = charge_keyed(&world, 50).await.unwrap();
    assert_eq!(reply, Reply { answer: twins_answer(), replayed: true });
}

#[tokio::test]
async fn a_balance_is_zero_until_the_first_charge() {
    let world = world();
    assert_eq!(service(&world).balance(USER).await.unwrap(), Money::ZERO);
    world.facts().account = Some(stored(account(700), 3));
    assert_eq!(service(&world).balance(USER).await.unwrap(), money(700));
    assert_eq!(service(&world).balance(STRANGER).await.unwrap(), Money::ZERO);
}

#[tokio::test]
async fn entries_are_listed_from_where_the_caller_is() {
    let mut queries = MockAccountQueries::new();
    queries
        .expect_list_entries()
        .withf(|user, before, limit| (*user, *before, *limit) == (USER, Some(6), 3))
        .returning(|_, _, _| Ok(vec![entry(5, 50, 750)]));
    let listed = service_with(&world(), queries).list_entries(USER, Some(6), 3).await.unwrap();
    assert_eq!(listed, [entry(5, 50, 750)]);
}

#[tokio::test]
async fn a_conflict_is_not_told_while_the_twin_cannot_be_looked_for() {
    let world = world();
    world.facts().down = Some(Load::Record);
    world.will_conflict(AggregateRef::Account(USER), |_| {});
    assert_eq!(refusal(charge_keyed(&world, 50).await), "Failure(Unavailable(\"down\"))");
}
