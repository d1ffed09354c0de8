//! The incarnation of the data, which comes with the lines (ADR 0018).

use frontrow_domain::{Incarnation, IncarnationId};
use uuid::Uuid;

use crate::fixture::{Fixture, at};

async fn incarnation(fixture: &Fixture) -> Incarnation {
    fixture.storage.queue_queries.lines_of(Vec::new()).await.unwrap().incarnation
}

pub(crate) async fn lines_come_with_the_incarnation_of_the_data(fixture: &Fixture) {
    let queries = &fixture.storage.queue_queries;
    let of_no_line = incarnation(fixture).await;
    assert_eq!(queries.lines().await.unwrap().incarnation, of_no_line);
    let room = fixture.default_room().await;
    assert_eq!(queries.lines().await.unwrap().incarnation, of_no_line);
    let of_one = queries.lines_of(vec![room.id]).await.unwrap();
    assert_eq!((of_one.incarnation, of_one.lines.len()), (of_no_line, 1));
}

pub(crate) async fn an_incarnation_begins_after_the_one_that_is_named(fixture: &Fixture) {
    let queries = &fixture.storage.queue_queries;
    let room = fixture.default_room().await;
    let first = incarnation(fixture).await;
    queries.begin_incarnation(IncarnationId::new(Uuid::from_u128(9)), at(0)).await.unwrap();
    assert_eq!(incarnation(fixture).await, first, "another node was faster");

    queries.begin_incarnation(first.id, at(7)).await.unwrap();
    let second = incarnation(fixture).await;
    assert_ne!(second.id, first.id);
    assert_eq!(second.started_at, at(7));
    queries.begin_incarnation(first.id, at(8)).await.unwrap();
    assert_eq!(incarnation(fixture).await, second, "one of two that find out the same begins it");
    assert_eq!(queries.lines().await.unwrap().incarnation, second);
    assert_eq!(queries.lines_of(vec![room.id]).await.unwrap().lines.len(), 1, "nothing else has changed");
}
