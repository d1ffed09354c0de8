//! Two nodes on one database: they show the same seats, and keep one line.

use std::collections::BTreeSet;

use frontrow_testkit::app::{Buyer, Database, Sale, TestApp, settings};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::seats_since::Follower;
use crate::support::{Answer, admin, ask, asked, becomes, enter, room, seat_status};

async fn tag(app: &TestApp, buyer: &Buyer, sale: &Sale) -> String {
    asked(buyer.own(app.get(&sale.seats_path())), 200).await.header("ETag").unwrap().to_owned()
}

/// PostgreSQL alone: one node serves a file.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_changes_the_other_shows() {
    let Some(database) = Database::postgres().await else { return };
    let (a, b) = (TestApp::start(settings(&database)).await, TestApp::start(settings(&database)).await);
    let sale = a.sale(json!({}), 1, 4).await;
    let (buyer, onlooker) = (a.active(&sale).await, a.active(&sale).await);
    let seats = a.seats(&buyer, &sale).await;
    assert_eq!(b.seats(&onlooker, &sale).await, seats);
    assert_eq!(tag(&a, &buyer, &sale).await, tag(&b, &onlooker, &sale).await, "the same seats, the same tag");

    let mut follower = Follower::new(&onlooker, &sale);
    follower.ask(&b).await;
    let reservation_id = a.hold(&buyer, &sale, &seats[..1]).await;
    assert_eq!(seat_status(&a, &buyer, &sale, seats[0]).await, "RESERVED", "its own node shows it at once");
    becomes("the hold", "RESERVED".to_owned(), async || seat_status(&b, &onlooker, &sale, seats[0]).await)
        .await;
    becomes("the tag", tag(&a, &buyer, &sale).await, async || tag(&b, &onlooker, &sale).await).await;
    assert!(!follower.ask(&a).await, "versions are those of the database, not of a node");
    a.charge(&buyer, 100).await;
    asked(b.pay(&buyer, reservation_id), 200).await;
    becomes("the sale", "UNAVAILABLE".to_owned(), async || seat_status(&a, &onlooker, &sale, seats[0]).await)
        .await;

    // A node that starts shows what happened before, and goes on.
    b.stop().await;
    let c = TestApp::start(settings(&database)).await;
    assert_eq!(seat_status(&c, &onlooker, &sale, seats[0]).await, "UNAVAILABLE");
    let second = a.active(&sale).await;
    a.hold(&second, &sale, &seats[1..2]).await;
    becomes("the hold", "RESERVED".to_owned(), async || seat_status(&c, &onlooker, &sale, seats[1]).await)
        .await;
    let sales = admin(&c, Method::GET, &format!("/admin/performanceDates/{}/sales", sale.date_id));
    assert_eq!(asked(sales, 200).await.json()["reserved"], 1);
    a.stop().await;
    c.stop().await;
}

/// However often somebody joins, and wherever, it is one place: or whoever has a script would have the whole line.
#[tokio::test(flavor = "multi_thread")]
async fn who_joins_many_times_on_every_node_holds_one_place() {
    let Some(database) = Database::postgres().await else { return };
    let nodes = [TestApp::start(settings(&database)).await, TestApp::start(settings(&database)).await];
    let sale = nodes[0].sale(json!({}), 1, 1).await;
    let greedy = nodes[0].guest().await;
    let answers = join_all((0..32).map(|n| ask(enter(&nodes[n % 2], &greedy, &sale)))).await;
    let with = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((with(201), with(200)), (1, 31));
    let first = answers[0].wait_token();
    assert!(answers.iter().all(|answer| answer.wait_token() == first), "one token, byte for byte");
    let places: BTreeSet<String> =
        answers.iter().map(|answer| answer.json()["tokenId"].to_string()).collect();
    assert_eq!(places.len(), 1);
    let waiting = async |node: &TestApp| room(node, sale.room_id).await["waiting"].clone();
    assert_eq!(waiting(&nodes[0]).await, 1);

    // As many people at once, each with a token of its own, have as many places. What happens to the one person without
    // protection is in the controls of the races.
    let mut crowd = Vec::new();
    for _ in 0..32 {
        crowd.push(nodes[0].guest().await);
    }
    let answers = join_all((0..32).map(|n| ask(enter(&nodes[n % 2], &crowd[n], &sale)))).await;
    let tokens: BTreeSet<String> = answers.iter().map(Answer::wait_token).collect();
    assert_eq!((tokens.len(), waiting(&nodes[1]).await), (32, json!(33)));
    for node in nodes {
        node.stop().await;
    }
}
