//! Comparison of the nodes that share a database: their secrets and rules must agree.
//!
//! Every node registers with the public names of its secrets and with its rules, and compares the others with itself. A
//! difference is logged when it appears, and listed by readiness while it lasts. It does not make a node unready: which one
//! of them is wrong, only the operator knows.

use std::sync::{Arc, Mutex, PoisonError};

use frontrow_domain::NodeId;
use frontrow_domain::ports::{NodeRecord, NodeRegistry};

use crate::Failure;

/// What the name of a secret is called in a difference.
const SECRET: &str = "secret";

/// A node that differs from this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeDifference {
    /// The other node.
    pub node: NodeId,
    /// Names of the rules in which it differs; `secret` when neither node accepts the tokens of the other.
    pub subjects: Vec<String>,
}

/// The differences that were found last. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct NodeDifferences(Arc<Mutex<Vec<NodeDifference>>>);

impl NodeDifferences {
    /// The nodes that differ from this one, by id.
    #[must_use]
    pub fn list(&self) -> Vec<NodeDifference> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what was found before, which is returned.
    fn replace(&self, found: Vec<NodeDifference>) -> Vec<NodeDifference> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), found)
    }
}

/// Compares this node with the others.
#[derive(Clone)]
pub struct NodeComparison {
    own: Arc<NodeRecord>,
    registry: Arc<dyn NodeRegistry>,
    differences: NodeDifferences,
}

impl NodeComparison {
    /// Compares `own` with what is registered, and writes what differs into `differences`.
    #[must_use]
    pub fn new(own: NodeRecord, registry: Arc<dyn NodeRegistry>, differences: NodeDifferences) -> Self {
        Self { own: Arc::new(own), registry, differences }
    }

    /// Renews the registration and compares.
    ///
    /// # Errors
    /// [`Failure`] when the registry does not answer; what was found before stays.
    pub async fn run(&self) -> Result<(), Failure> {
        let mut nodes = self.registry.register(&self.own).await?;
        nodes.sort_unstable_by_key(|node| node.id);
        let found: Vec<_> = nodes.iter().filter_map(|node| difference(&self.own, node)).collect();
        let before = self.differences.replace(found.clone());
        for new in found.iter().filter(|found| !before.contains(found)) {
            let (node, subjects) = (new.node, new.subjects.join(", "));
            tracing::warn!(%node, "another node on this database differs from this one in: {subjects}");
        }
        if found.is_empty() && !before.is_empty() {
            tracing::info!("all nodes on this database agree again");
        }
        Ok(())
    }

    /// Removes the registration, so that a successor with other settings is not compared with a node that has ended.
    ///
    /// # Errors
    /// [`Failure`] when the registry does not answer; the registration then ends by its age.
    pub async fn leave(&self) -> Result<(), Failure> {
        Ok(self.registry.leave(self.own.id).await?)
    }
}

fn difference(own: &NodeRecord, other: &NodeRecord) -> Option<NodeDifference> {
    let accepts = |node: &NodeRecord, signer: &NodeRecord| {
        signer.secrets.first().is_some_and(|signing| node.secrets.contains(signing))
    };
    // In the middle of a rotation one node may not know the secret of the other yet.
    let is_one_ring = accepts(own, other) || accepts(other, own);
    let secret = (!is_one_ring).then(|| SECRET.to_owned());
    // A rule that only one of them has is of another version: nodes of both run during an upgrade.
    let differs = |(name, value): &&(String, String)| {
        let others = other.rules.iter().find(|(rule, _)| rule == name);
        others.is_some_and(|(_, others)| others != value)
    };
    let rules = own.rules.iter().filter(differs).map(|(name, _)| name.clone());
    let subjects: Vec<String> = secret.into_iter().chain(rules).collect();
    (!subjects.is_empty()).then_some(NodeDifference { node: other.id, subjects })
}

#[cfg(test)]
mod tests {
    use frontrow_domain::ports::MockNodeRegistry;
    use uuid::Uuid;

    use super::*;

    fn node(id: u128, secrets: &[&str], rules: &[(&str, &str)]) -> NodeRecord {
        NodeRecord {
            id: NodeId::new(Uuid::from_u128(id)),
            secrets: secrets.iter().map(ToString::to_string).collect(),
            rules: rules.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        }
    }

    fn subjects(own: &NodeRecord, other: &NodeRecord) -> Vec<String> {
        difference(own, other).map(|found| found.subjects).unwrap_or_default()
    }

    #[test]
    fn nodes_that_agree_or_are_one_do_not_differ() {
        let own = node(1, &["a", "b"], &[("hold", "300"), ("wallet", "self")]);
        assert_eq!(difference(&own, &own), None);
        assert_eq!(difference(&own, &NodeRecord { id: NodeId::new(Uuid::max()), ..own.clone() }), None);
    }

    #[test]
    fn each_rule_and_the_secret_are_named() {
        let own = node(1, &["a"], &[("hold", "300"), ("wallet", "self")]);
        let other = node(2, &["b"], &[("wallet", "cashier"), ("hold", "300")]);
        assert_eq!(subjects(&own, &other), ["secret", "wallet"]);
        assert_eq!(subjects(&other, &own), ["secret", "wallet"], "both nodes notice");
    }

    #[test]
    fn nodes_in_the_middle_of_a_rotation_agree() {
        let steps = [node(1, &["a"], &[]), node(2, &["a", "b"], &[]), node(3, &["b", "a"], &[])];
        for (own, other) in [(0, 1), (1, 2), (0, 2)] {
            assert_eq!(subjects(&steps[own], &steps[other]), [""; 0], "{own} {other}");
            assert_eq!(subjects(&steps[other], &steps[own]), [""; 0], "{other} {own}");
        }
        let strangers = (node(1, &["a", "old"], &[]), node(2, &["b", "old"], &[]));
        assert_eq!(subjects(&strangers.0, &strangers.1), ["secret"], "a past in common is not enough");
    }

    #[test]
    fn a_rule_of_another_version_is_no_difference() {
        assert_eq!(subjects(&node(1, &["a"], &[("new", "1")]), &node(2, &["a"], &[])), [""; 0]);
    }

    #[tokio::test]
    async fn a_difference_is_listed_while_it_lasts() {
        let (own, other) = (node(1, &["a"], &[]), node(2, &["b"], &[]));
        let mut registry = MockNodeRegistry::new();
        let answers = [vec![own.clone(), other.clone()], vec![own.clone()]];
        let mut answers = answers.into_iter();
        registry.expect_register().times(2).returning(move |_| Ok(answers.next().unwrap()));
        let differences = NodeDifferences::default();
        let comparison = NodeComparison::new(own, Arc::new(registry), differences.clone());
        comparison.run().await.unwrap();
        let found = NodeDifference { node: other.id, subjects: vec!["secret".to_owned()] };
        assert_eq!(differences.list(), [found]);
        comparison.run().await.unwrap();
        assert_eq!(differences.list(), []);
    }
}
