//! Group commit: units that come at the same moment share transactions, and each has an outcome of its own all the same.
//!
//! That they did share is counted (see [`Fixture::together`]), so that what happens between two batches is never taken for what
//! happens within one: of units in a row, at most one in every transaction has its next neighbour in another.

use frontrow_domain::account::Account;
use frontrow_domain::idempotency::IdempotencyRecord;
use frontrow_domain::unit_of_work::{AggregateRef, CommitError, Committed};
use frontrow_domain::{ReservationId, SeatId, UnitOfWork, UserId, Version, Versioned};

use crate::fixture::{Fixture, at, both, money};
use crate::order::{faults, stage};

/// How many units come together.
const MANY: usize = 256;

type Answer = Result<Committed, CommitError>;

fn lost_on(answer: &Answer, aggregate: AggregateRef) -> bool {
    matches!(answer, Err(CommitError::Conflict(on)) if *on == aggregate)
}

/// Every account twice, first new and then over one version: one charge of each wins.
pub(crate) async fn an_account_twice_in_a_batch_is_charged_once(fixture: &Fixture) {
    let users: Vec<UserId> = (0..MANY / 2).map(|_| fixture.id(UserId::new)).collect();
    let mut loaded: Vec<Option<Versioned<Account>>> = vec![None; users.len()];
    for round in 1..=2 {
        let charges = users.iter().zip(&loaded).flat_map(|(user, loaded)| {
            [5, 7].map(|amount| fixture.charge_work(*user, *loaded, amount, at(round)))
        });
        let answers = fixture.together(charges.collect()).await;
        for ((user, answers), loaded) in users.iter().zip(answers.chunks(2)).zip(&mut loaded) {
            let aggregate = AggregateRef::Account(*user);
            let amount = match answers {
                [Ok(_), lost] if lost_on(lost, aggregate) => 5,
                [lost, Ok(_)] if lost_on(lost, aggregate) => 7,
                other => panic!("round {round}: {other:?}"),
            };
            let before = loaded.map_or(0, |account| account.value.balance.minor_units());
            let account = fixture.account(*user).await;
            let entries = fixture.storage.account_queries.list_entries(*user, None, 9).await.unwrap();
            assert_eq!(
                (account.value.balance, account.version),
                (money(before + amount), Version::new(round))
            );
            assert_eq!(entries.len(), usize::try_from(round).unwrap());
            *loaded = Some(account);
        }
    }
}

/// Of every three seats one wants the first two, another the last two, a third the last: nobody gets half of what he wants,
/// and nobody loses a seat to one who fails.
pub(crate) async fn a_seat_twice_in_a_batch_is_held_once(fixture: &Fixture) {
    let sale = fixture.sale(96).await;
    let wanted: Vec<SeatId> = sale.seat_ids();
    let tokens = fixture.crowd(sale.room.id, wanted.len(), at(1)).await;
    fixture.admit(sale.room.id, u32::MAX, at(1)).await;
    let mut works = Vec::new();
    let mut tokens = tokens.into_iter();
    for three in wanted.chunks(3) {
        for of_one in [&three[..2], &three[1..], &three[2..]] {
            let token = fixture.token(tokens.next().unwrap().id).await;
            works.push(fixture.hold_work(token, fixture.seats(of_one).await, at(1)));
        }
    }
    let (ids, works): (Vec<ReservationId>, Vec<UnitOfWork>) = works.into_iter().unzip();
    let answers = fixture.together(works).await;
    for ((three, answers), ids) in wanted.chunks(3).zip(answers.chunks(3)).zip(ids.chunks(3)) {
        let lost = |answer: &Answer| three[1..].iter().any(|seat| lost_on(answer, AggregateRef::Seat(*seat)));
        let won: Vec<bool> = match answers {
            [Ok(_), second, Ok(_)] if lost(second) => vec![true, false, true],
            // Transactions of one moment may come in any order, and the second of the three was first.
            [first, Ok(_), third] if lost(first) && lost(third) => vec![false, true, false],
            other => panic!("{other:?}"),
        };
        for (id, won) in ids.iter().zip(won) {
            let stored = fixture.storage.reservations.find(*id).await.unwrap();
            assert_eq!(stored.is_some(), won);
        }
    }
}

/// Every key twice, with charges of different users: one of each is done.
pub(crate) async fn a_key_twice_in_a_batch_counts_once(fixture: &Fixture) {
    let keyed = |record: IdempotencyRecord, payer| {
        let recorded = UnitOfWork { idempotency: Some(record), ..Default::default() };
        both(recorded, fixture.charge_work(payer, None, 5, at(1)))
    };
    let people = || -> Vec<UserId> { (0..MANY / 2).map(|_| fixture.id(UserId::new)).collect() };
    let (first, second) = (people(), people());
    let works = first.iter().zip(&second).flat_map(|(first, second)| {
        let record = fixture.record(*first, at(1));
        [keyed(record.clone(), *first), keyed(record, *second)]
    });
    let answers = fixture.together(works.collect()).await;
    for ((first, second), answers) in first.iter().zip(&second).zip(answers.chunks(2)) {
        let payer = match answers {
            [Ok(_), Err(CommitError::DuplicateIdempotencyKey)] => first,
            [Err(CommitError::DuplicateIdempotencyKey), Ok(_)] => second,
            other => panic!("{other:?}"),
        };
        for user in [first, second] {
            let account = fixture.storage.accounts.find(*user).await.unwrap();
            assert_eq!(account.is_some(), user == payer);
        }
    }
}

/// One unit with each fault in turn, somewhere among 255 good ones.
pub(crate) async fn one_that_fails_leaves_255_alone(fixture: &Fixture) {
    // Where nothing is grouped there is no batch to spoil, and many units only take time.
    let many = if fixture.groups() { MANY } else { MANY / 16 };
    for (n, (expected, fault)) in faults(fixture).await.into_iter().enumerate() {
        let users: Vec<UserId> = (0..many).map(|_| fixture.id(UserId::new)).collect();
        let mut works: Vec<UnitOfWork> =
            users.iter().map(|user| fixture.charge_work(*user, None, 5, at(1))).collect();
        let place = (n * 97 + 13) % many;
        works[place] = both(fault, works[place].clone());
        let mut failed = 0;
        for (at_place, (user, answer)) in users.iter().zip(fixture.together(works).await).enumerate() {
            let account = fixture.storage.accounts.find(*user).await.unwrap();
            match answer {
                Ok(_) => assert_eq!(account.map(|account| account.value.balance), Some(money(5))),
                Err(refused) => {
                    assert_eq!((stage(&refused), at_place, account), (expected, place, None), "{refused:?}");
                    failed += 1;
                }
            }
        }
        assert_eq!(failed, 1, "{expected}");
    }
}
