//! The answer to a COMMIT is lost on its way, by a proxy that cuts the wire at that very message.

use std::sync::Arc;

use frontrow_domain::unit_of_work::CommitError;
use frontrow_domain::{UnitOfWork, UserId};
use frontrow_infra::Storage;
use frontrow_infra::postgres::Postgres;
use frontrow_testkit::postgres::{TestDatabase, database};
use frontrow_testkit::wire::{Cut, Wire};
use futures_util::future::join_all;

use crate::fixture::{Fixture, at, money};
use crate::{MIGRATED, options};

/// An adapter at the end of a wire.
struct Wired {
    database: TestDatabase,
    wire: Wire,
    fixture: Fixture,
}

async fn wired() -> Option<Wired> {
    let database = database(&MIGRATED).await?;
    let (wire, url) = Wire::to_database(database.url());
    let postgres = Postgres::connect(&url, options()).await.unwrap();
    let fixture = Fixture::new(Storage::new(Arc::new(postgres)), ());
    Some(Wired { database, wire, fixture })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_is_found_out_and_done_once() {
    let Some(Wired { database, wire, fixture }) = wired().await else { return };
    for (n, cut) in (1..).zip([Cut::Answer, Cut::Commit, Cut::Answer]) {
        let user = fixture.id(UserId::new);
        wire.cut_at_commit(cut);
        fixture.commit(fixture.charge_work(user, None, 5, at(1))).await.unwrap();
        assert_eq!(wire.cuts(), n, "the wire was cut");
        assert_eq!(fixture.account(user).await.value.balance, money(5));
        let entries = database.query_i64("SELECT count(*) FROM entries").await.unwrap();
        assert_eq!(usize::try_from(entries).unwrap(), n, "{cut:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_in_a_lost_batch_hears_what_became_of_it() {
    let Some(Wired { database: _database, wire, fixture }) = wired().await else { return };
    let room = fixture.default_room().await;
    for cut in [Cut::Answer, Cut::Commit] {
        wire.cut_at_commit(cut);
        let works: Vec<UnitOfWork> =
            (0..50).map(|_| fixture.join_work(room.id, fixture.id(UserId::new), at(1))).collect();
        for outcome in join_all(works.into_iter().map(|work| fixture.commit(work))).await {
            outcome.unwrap();
        }
    }
    assert_eq!(wire.cuts(), 2);
    assert_eq!(fixture.in_room(room.id, at(1)).await.0, 100);
}

/// Giving up a place inserts nothing that could tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_without_a_witness_is_unknown() {
    let Some(Wired { database: _database, wire, fixture }) = wired().await else { return };
    let room = fixture.default_room().await;
    let waiting = fixture.join(room.id, fixture.id(UserId::new), at(1)).await;
    let left = fixture.token(waiting.id).await.try_map(|token| token.expire(at(2))).unwrap();
    wire.cut_at_commit(Cut::Answer);
    let outcome = fixture.commit(UnitOfWork { queue_tokens: vec![left], ..Default::default() }).await;
    assert!(matches!(outcome, Err(CommitError::OutcomeUnknown(_))), "{outcome:?}");
    assert_eq!(fixture.in_room(room.id, at(1)).await.0, 0, "it did happen");
}
