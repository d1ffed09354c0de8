//! Accounts and their history.

use frontrow_domain::account::{Account, Entry, EntryKind};
use frontrow_domain::{Change, EntryId, Money, Timestamp, UnitOfWork, UserId, Version, Versioned};

use crate::fixture::{Fixture, all_pages, at, money};

async fn entries(fixture: &Fixture, user: UserId, before: Option<i64>, limit: u32) -> Vec<Entry> {
    fixture.storage.account_queries.list_entries(user, before, limit).await.unwrap()
}

pub(crate) async fn an_account_is_absent_until_its_first_entry(fixture: &Fixture) {
    let user = fixture.id(UserId::new);
    assert_eq!(fixture.storage.accounts.find(user).await.unwrap(), None);
    assert_eq!(entries(fixture, user, None, 10).await, []);
    let work = fixture.charge_work(user, None, 100, at(0));
    let entry = work.entries[0];
    fixture.write(work).await;
    let account = Account { user_id: user, balance: money(100), entry_count: 1 };
    assert_eq!(fixture.account(user).await, Versioned::new(account, Version::FIRST));
    assert_eq!(entries(fixture, user, None, 10).await, [entry]);
}

pub(crate) async fn every_field_of_an_account_comes_back(fixture: &Fixture) {
    let user_id = fixture.id(UserId::new);
    let first = Account { user_id, balance: Money::ZERO, entry_count: 0 };
    let insert = Change::Insert(first);
    fixture.write(UnitOfWork { accounts: vec![insert], ..Default::default() }).await;
    assert_eq!(fixture.account(user_id).await, Versioned::new(first, Version::FIRST));

    let second = Account { user_id, balance: Money::MAX, entry_count: i64::MAX };
    let update = Change::Update(Versioned::new(second, Version::FIRST));
    fixture.write(UnitOfWork { accounts: vec![update], ..Default::default() }).await;
    assert_eq!(fixture.account(user_id).await, Versioned::new(second, Version::FIRST.next()));
}

pub(crate) async fn every_field_of_an_entry_comes_back(fixture: &Fixture) {
    let sale = fixture.sale(1).await;
    let held = fixture.hold(&sale, &sale.seat_ids(), at(0)).await.value;
    let user_id = held.user_id;
    fixture.charge(user_id, 1, at(0)).await;
    let paid = EntryKind::Payment { reservation_id: held.id };
    for (number, kind, amount, balance_after, time) in [
        (2, EntryKind::Charge, Money::MAX, Money::ZERO, Timestamp::MIN),
        (3, paid, Money::ZERO, Money::MAX, Timestamp::MAX),
        (i64::MAX, EntryKind::Charge, money(1), money(2), at(-1)),
    ] {
        let id = fixture.id(EntryId::new);
        let entry = Entry { id, user_id, number, kind, amount, balance_after, at: time };
        fixture.write(UnitOfWork { entries: vec![entry], ..Default::default() }).await;
        assert_eq!(entries(fixture, user_id, None, 1).await, [entry]);
    }
}

pub(crate) async fn entries_are_listed_newest_first_in_pages(fixture: &Fixture) {
    let (user, other) = (fixture.id(UserId::new), fixture.id(UserId::new));
    for n in 1..=12 {
        // Later entries at earlier times: the number is the order.
        fixture.charge(user, n, at(-n)).await;
        fixture.charge(other, 100, at(n)).await;
    }
    for limit in [1, 5, 6, 12, 100] {
        let page = async |before| entries(fixture, user, before, limit).await;
        let listed = all_pages(usize::try_from(limit).unwrap(), |entry: &Entry| entry.number, page).await;
        let numbers: Vec<_> = listed.iter().map(|entry| entry.number).collect();
        assert_eq!(numbers, (1..=12).rev().collect::<Vec<i64>>());
        assert!(listed.iter().all(|entry| entry.user_id == user && entry.amount == money(entry.number)));
    }
    assert_eq!(entries(fixture, user, None, 0).await, []);
    assert_eq!(entries(fixture, user, Some(1), 10).await, []);
    assert_eq!(entries(fixture, user, Some(i64::MIN), 10).await, []);
}
