//! The workspace as `cargo metadata` describes it, reduced to what the rules about crates speak of: who depends on whom,
//! and which feature turns on which. The rules themselves are in `tests/layering.rs` and `tests/features.rs`; they take a
//! [`Workspace`], so that a made-up bad one can show that each rule is able to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::semver::Version;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};
use serde_json::Value;

/// Why the workspace could not be described.
pub type Error = Box<dyn std::error::Error>;

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// One line of a `[dependencies]` table.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// The name under which features speak of it: the package's, or its new one where it is renamed.
    pub key: String,
    /// The package's own name.
    pub package: String,
    /// False for dev-dependencies, which no user of the crate ever builds.
    pub normal: bool,
    /// Whether a feature must turn it on.
    pub optional: bool,
    /// Whether its default features are on.
    pub default_features: bool,
    /// The features the line itself turns on.
    pub features: BTreeSet<String>,
}

impl Dependency {
    /// A plain dependency on `package`, as an edit of a manifest would add it.
    #[must_use]
    pub fn on(package: &str) -> Self {
        Self {
            key: package.to_owned(),
            package: package.to_owned(),
            normal: true,
            optional: false,
            default_features: true,
            features: BTreeSet::new(),
        }
    }
}

/// One member of the workspace.
#[derive(Clone, Debug)]
pub struct Package {
    /// Whether it goes to the registry: everything under `crates/`.
    pub published: bool,
    /// Feature name to what it turns on.
    pub features: BTreeMap<String, Vec<String>>,
    /// Its direct dependencies of every kind but build.
    pub dependencies: Vec<Dependency>,
    /// Every package reached through normal dependencies with default features, itself left out.
    pub reaches: BTreeSet<String>,
    /// The `rust-version` of its manifest.
    pub rust_version: Option<Version>,
    /// The `[package.metadata]` table.
    pub metadata: Value,
}

/// The members and what the rules need to know of packages outside.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Member name to member.
    pub members: BTreeMap<String, Package>,
    /// Feature names of every package, members and others, by package name.
    pub features: BTreeMap<String, BTreeSet<String>>,
    /// The `rust-version` of each package outside that declares one, by `name version`.
    pub outside_rust_versions: BTreeMap<String, Version>,
}

impl Workspace {
    /// Reads the workspace this file belongs to, with default features, for the platform the test runs on.
    ///
    /// # Errors
    /// If `cargo metadata` fails or answers without a resolved graph.
    pub fn load() -> Result<Self, Error> {
        let platform = format!("{}-{}", std::env::consts::ARCH, target_suffix());
        let metadata = MetadataCommand::new()
            .manifest_path(root().join("Cargo.toml"))
            .other_options(vec!["--locked".to_owned(), format!("--filter-platform={platform}")])
            .exec()?;
        Self::from_metadata(&metadata)
    }

    /// Reduces `metadata`.
    ///
    /// # Errors
    /// If `metadata` holds no resolved graph.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, Error> {
        let resolve = metadata.resolve.as_ref().ok_or("cargo metadata answered without a resolved graph")?;
        let names: BTreeMap<&PackageId, &str> = metadata.packages.iter().map(|p| (&p.id, p.name.as_str())).collect();
        let edges: BTreeMap<&PackageId, Vec<&PackageId>> = resolve
            .nodes
            .iter()
            .map(|node| {
                let normal = node.deps.iter().filter(|d| d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal));
                (&node.id, normal.map(|d| &d.pkg).collect())
            })
            .collect();

        let mut workspace =
            Self { members: BTreeMap::new(), features: BTreeMap::new(), outside_rust_versions: BTreeMap::new() };
        for package in &metadata.packages {
            let name = package.name.to_string();
            workspace.features.entry(name.clone()).or_default().extend(package.features.keys().cloned());
            if !metadata.workspace_members.contains(&package.id) {
                if let Some(version) = &package.rust_version {
                    workspace.outside_rust_versions.insert(format!("{name} {}", package.version), version.clone());
                }
                continue;
            }
            let mut reaches = BTreeSet::new();
            let mut open = vec![&package.id];
            while let Some(id) = open.pop() {
                for next in edges.get(id).into_iter().flatten() {
                    if names.get(next).is_some_and(|n| reaches.insert((*n).to_owned())) {
                        open.push(next);
                    }
                }
            }
            let dependencies =
                package.dependencies.iter().filter(|d| d.kind != DependencyKind::Build).map(|d| Dependency {
                    key: d.rename.clone().unwrap_or_else(|| d.name.clone()),
                    package: d.name.clone(),
                    normal: d.kind == DependencyKind::Normal,
                    optional: d.optional,
                    default_features: d.uses_default_features,
                    features: d.features.iter().cloned().collect(),
                });
            workspace.members.insert(
                name,
                Package {
                    published: package.publish.as_ref().is_none_or(|registries| !registries.is_empty()),
                    features: package.features.clone(),
                    dependencies: dependencies.collect(),
                    reaches,
                    rust_version: package.rust_version.clone(),
                    metadata: package.metadata.clone(),
                },
            );
        }
        Ok(workspace)
    }

    /// The named member, to be changed for the worse.
    ///
    /// # Panics
    /// If there is no such member.
    #[allow(clippy::expect_used, reason = "a test's helper: a wrong name is a mistake in the test")]
    pub fn member_mut(&mut self, name: &str) -> &mut Package {
        self.members.get_mut(name).expect("the member exists")
    }
}

const fn target_suffix() -> &'static str {
    if cfg!(target_os = "macos") {
        "apple-darwin"
    } else if cfg!(target_os = "windows") {
        "pc-windows-msvc"
    } else {
        "unknown-linux-gnu"
    }
}
