//! What cargo knows about the packages, read once.

use std::sync::OnceLock;

use serde::Deserialize;

use crate::command;

#[derive(Debug, Deserialize)]
pub struct Metadata {
    pub packages: Vec<Package>,
    pub workspace_members: Vec<String>,
    pub resolve: Resolve,
}

#[derive(Debug, Deserialize)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub id: String,
    pub license: Option<String>,
    pub license_file: Option<String>,
    pub dependencies: Vec<Dependency>,
    pub metadata: serde_json::Value,
}

#[derive(Debug, Deserialize)]
pub struct Dependency {
    pub name: String,
    /// `None` for normal ones, else `dev` or `build`.
    pub kind: Option<String>,
    pub path: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Resolve {
    pub nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
pub struct Node {
    pub id: String,
    pub deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
pub struct Edge {
    pub pkg: String,
    pub dep_kinds: Vec<EdgeKind>,
}

#[derive(Debug, Deserialize)]
pub struct EdgeKind {
    pub kind: Option<String>,
}

/// Packages and their resolved graph for the machine that runs the test. Other platforms are
/// left out: their packages need not have been downloaded.
pub fn metadata() -> &'static Metadata {
    static READ: OnceLock<Metadata> = OnceLock::new();
    READ.get_or_init(|| {
        let version = command::Call::new("rustc").args(["-vV"]).output().unwrap();
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        let args = ["metadata", "--format-version", "1", "--filter-platform", host];
        serde_json::from_str(&command::cargo(args).output().unwrap()).unwrap()
    })
}

impl Metadata {
    /// The packages of this repository.
    pub fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// Packages that end up in a program of ours: everything reachable from the members
    /// without going through development dependencies.
    pub fn shipped(&self) -> Vec<&Package> {
        let mut seen: Vec<&str> = Vec::new();
        let mut open: Vec<&str> = self.workspace_members.iter().map(String::as_str).collect();
        while let Some(id) = open.pop() {
            if seen.contains(&id) {
                continue;
            }
            seen.push(id);
            let node = self.resolve.nodes.iter().find(|node| node.id == id).unwrap();
            for edge in &node.deps {
                let only_dev = edge.dep_kinds.iter().all(|k| k.kind.as_deref() == Some("dev"));
                if !only_dev {
                    open.push(&edge.pkg);
                }
            }
        }
        self.packages.iter().filter(|package| seen.contains(&package.id.as_str())).collect()
    }
}
