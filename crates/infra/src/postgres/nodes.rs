//! Registry of the nodes that share the database. Times are the server's own.

use async_trait::async_trait;
use diesel::sql_types::{Array, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::RunQueryDsl;
use frontrow_domain::NodeId;
use frontrow_domain::ports::{NodeRecord, NodeRegistry, StorageError};

use super::Postgres;
use super::cached::Cached;
use super::error::read_error;
use crate::sql::types::{DbId, Id};

/// Renews a row, deletes those that are long since over, and reads the fresh ones: a node that was killed is no difference
/// for more than 15 seconds. The statement reads what was there before it, hence without its own row.
const REGISTER: &str = "\
    WITH renewed AS ( \
        INSERT INTO nodes VALUES ($1, clock_timestamp(), clock_timestamp(), $2, $3, $4) \
        ON CONFLICT (node_id) DO UPDATE SET seen_at = excluded.seen_at), \
    pruned AS (DELETE FROM nodes WHERE node_id <> $1 AND seen_at < clock_timestamp() - INTERVAL '1 minute') \
    SELECT node_id, secrets, rule_names, rule_values FROM nodes \
    WHERE node_id <> $1 AND seen_at > clock_timestamp() - INTERVAL '15 seconds'";

const LEAVE: &str = "DELETE FROM nodes WHERE node_id = $1";

#[derive(QueryableByName)]
struct NodeRow {
    #[diesel(sql_type = Id)]
    node_id: DbId,
    #[diesel(sql_type = Array<Text>)]
    secrets: Vec<String>,
    #[diesel(sql_type = Array<Text>)]
    rule_names: Vec<String>,
    #[diesel(sql_type = Array<Text>)]
    rule_values: Vec<String>,
}

impl From<NodeRow> for NodeRecord {
    fn from(row: NodeRow) -> Self {
        let rules = row.rule_names.into_iter().zip(row.rule_values).collect();
        Self { id: NodeId::new(row.node_id.0), secrets: row.secrets, rules }
    }
}

#[async_trait]
impl NodeRegistry for Postgres {
    async fn register(&self, node: &NodeRecord) -> Result<Vec<NodeRecord>, StorageError> {
        let (names, values): (Vec<&str>, Vec<&str>) =
            node.rules.iter().map(|(name, value)| (name.as_str(), value.as_str())).unzip();
        let query = sql_query(REGISTER)
            .bind::<Id, _>(DbId(node.id.get()))
            .bind::<Array<Text>, _>(&node.secrets)
            .bind::<Array<Text>, _>(names)
            .bind::<Array<Text>, _>(values);
        let mut connection = self.connection().await?;
        let rows: Vec<NodeRow> = Cached(query).load(&mut connection).await.map_err(read_error)?;
        drop(connection);
        let others = rows.into_iter().map(NodeRecord::from);
        Ok(others.chain([node.clone()]).collect())
    }

    async fn leave(&self, id: NodeId) -> Result<(), StorageError> {
        let query = sql_query(LEAVE).bind::<Id, _>(DbId(id.get()));
        let mut connection = self.connection().await?;
        query.execute(&mut connection).await.map(|_| ()).map_err(read_error)
    }
}
