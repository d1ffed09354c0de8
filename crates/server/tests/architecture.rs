//! The direction of dependencies, read from cargo's own graph (docs/ARCHITECTURE.md).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails where something is missing"
)]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Which package must never see which, directly or through others.
const FORBIDDEN: [(&str, &[&str]); 6] = [
    (
        "frontrow-domain",
        &[
            "frontrow-app",
            "frontrow-infra",
            "frontrow-api",
            "frontrow",
            "diesel",
            "actix-web",
            "tokio",
            "anyhow",
            "serde",
        ],
    ),
    (
        "frontrow-app",
        &["frontrow-infra", "frontrow-api", "frontrow", "diesel", "actix-web", "tokio", "anyhow"],
    ),
    ("frontrow-api", &["frontrow-infra", "frontrow", "diesel", "anyhow"]),
    ("frontrow-infra", &["frontrow-app", "frontrow-api", "frontrow", "actix-web", "anyhow"]),
    ("frontrow", &["frontrow-testkit", "frontrow-model", "frontrow-sim"]),
    // It says the rules a second time, and proves nothing if it asks for them.
    (
        "frontrow-model",
        &[
            "frontrow-domain",
            "frontrow-app",
            "frontrow-infra",
            "frontrow-api",
            "frontrow",
            "frontrow-testkit",
            "frontrow-sim",
        ],
    ),
];

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Who depends on whom in what is shipped: no dev-dependencies.
fn graph(metadata: &Metadata) -> Graph {
    let name_of: BTreeMap<_, _> = metadata.packages.iter().map(|p| (&p.id, p.name.to_string())).collect();
    let nodes = &metadata.resolve.as_ref().expect("a resolved graph").nodes;
    let edges = nodes.iter().map(|node| {
        let normal = node
            .deps
            .iter()
            .filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
        (name_of[&node.id].clone(), normal.map(|dep| name_of[&dep.pkg].clone()).collect())
    });
    edges.collect()
}

/// The shortest way from one package to another, if there is one.
fn path(graph: &Graph, from: &str, to: &str) -> Option<Vec<String>> {
    let mut paths = vec![vec![from.to_owned()]];
    let mut seen = BTreeSet::from([from.to_owned()]);
    while !paths.is_empty() {
        let mut longer = Vec::new();
        for path in paths {
            let last = path.last().expect("a path has an end");
            if last == to {
                return Some(path);
            }
            for next in graph.get(last).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    longer.push(path.iter().cloned().chain([next.clone()]).collect());
                }
            }
        }
        paths = longer;
    }
    None
}

fn broken(graph: &Graph) -> Vec<String> {
    let pairs = FORBIDDEN.iter().flat_map(|(from, tos)| tos.iter().map(move |to| (*from, *to)));
    pairs.filter_map(|(from, to)| path(graph, from, to).map(|way| way.join(" -> "))).collect()
}

#[test]
fn dependencies_point_inwards() {
    let metadata = MetadataCommand::new().exec().expect("cargo metadata");
    let graph = graph(&metadata);
    for (from, _) in FORBIDDEN {
        assert!(graph.contains_key(from), "{from} is no package: mend the table");
    }
    let broken = broken(&graph);
    assert!(broken.is_empty(), "these dependencies point outwards:\n{}", broken.join("\n"));
}

#[test]
fn a_detour_is_found_and_named() {
    let edge = |from: &str, to: &str| (from.to_owned(), BTreeSet::from([to.to_owned()]));
    let graph = Graph::from([edge("frontrow-app", "helper"), edge("helper", "diesel")]);
    assert_eq!(broken(&graph), ["frontrow-app -> helper -> diesel"]);
}

#[test]
fn every_crate_forbids_unsafe_code() {
    let metadata = MetadataCommand::new().exec().unwrap();
    let manifest = |path: &str| std::fs::read_to_string(path).unwrap();
    let of_workspace = manifest(metadata.workspace_root.join("Cargo.toml").as_str());
    assert!(of_workspace.contains("\nunsafe_code = \"forbid\"\n"));
    for package in metadata.workspace_packages() {
        let own = manifest(package.manifest_path.as_str());
        assert!(own.contains("\n[lints]\nworkspace = true\n"), "{} has lints of its own", package.name);
    }
}
