//! The registry of nodes.

use frontrow_domain::NodeId;
use frontrow_domain::ports::{NodeRecord, NodeRegistry};
use uuid::Uuid;

use crate::{Opened, options};

fn node(n: u128, hold: &str) -> NodeRecord {
    let rules = vec![("hold".to_owned(), hold.to_owned()), ("wallet".to_owned(), String::new())];
    let secrets = vec!["signing".to_owned(), "previous".to_owned()];
    NodeRecord { id: NodeId::new(Uuid::from_u128(n)), secrets, rules }
}

#[tokio::test]
async fn nodes_see_each_other_until_they_leave_or_fall_silent() {
    let Some(opened) = Opened::new(options()).await else { return };
    let registered = async |node: &NodeRecord| {
        let mut nodes = opened.postgres.register(node).await.unwrap();
        nodes.sort_by_key(|node| node.id);
        nodes
    };
    let (first, second, third) = (node(1, "300"), node(2, "60"), node(3, "300"));
    assert_eq!(registered(&first).await, std::slice::from_ref(&first));
    assert_eq!(registered(&second).await, [first.clone(), second.clone()]);
    assert_eq!(registered(&first).await, [first.clone(), second.clone()], "renewed, not doubled");
    registered(&third).await;
    opened.postgres.leave(second.id).await.unwrap();
    assert_eq!(registered(&first).await, [first.clone(), third.clone()]);

    let age = |seconds: u32| {
        format!(
            "UPDATE nodes SET seen_at = seen_at - INTERVAL '{seconds} seconds' WHERE rule_values[1] = '300'"
        )
    };
    opened.database.execute(&age(30)).await.unwrap();
    assert_eq!(registered(&first).await, std::slice::from_ref(&first), "the other is silent");
    assert_eq!(opened.database.query_i64("SELECT count(*) FROM nodes").await.unwrap(), 2);
    opened.database.execute(&age(60)).await.unwrap();
    registered(&first).await;
    assert_eq!(opened.database.query_i64("SELECT count(*) FROM nodes").await.unwrap(), 1, "and forgotten");
}
