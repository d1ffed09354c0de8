//! Registry of the nodes that share a database.

use async_trait::async_trait;

use crate::NodeId;
use crate::ports::StorageError;

/// What a node says of itself to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Names this run of the node.
    pub id: NodeId,
    /// Public names of the secrets whose tokens it accepts, the signing one first.
    pub secrets: Vec<String>,
    /// Configured rules that all nodes must share, each with its value.
    pub rules: Vec<(String, String)>,
}

/// Knows which nodes share the database.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait NodeRegistry: Send + Sync {
    /// Registers the node, or renews its registration, and returns all nodes whose registration is fresh, itself included.
    async fn register(&self, node: &NodeRecord) -> Result<Vec<NodeRecord>, StorageError>;

    /// Removes the registration of a node that stops.
    async fn leave(&self, id: NodeId) -> Result<(), StorageError>;
}
