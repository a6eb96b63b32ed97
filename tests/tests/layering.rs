//! The arrows between the crates, and what a crate must not hold. `docs/architecture.md` says why.
//!
//! Every rule returns the list of its breaches, so that a made-up bad workspace can show that the rule is able to fail.

#![allow(clippy::expect_used, reason = "a test that cannot read the workspace must fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use genrec_tests::manifest::{Dependency, Workspace, root};

/// Who may depend on whom: crate, its layer, the crates it points to. Exact: an arrow that is not drawn is a breach, and
/// so is a drawn one that no manifest has.
const ARROWS: &[(&str, u8, &[&str])] = &[
    ("genrec-files", 0, &[]),
    ("genrec-kernels", 0, &[]),
    ("genrec-eval", 0, &[]),
    ("sid-index", 1, &["genrec-files"]),
    ("sid-quantize", 1, &["genrec-files", "genrec-kernels"]),
    ("genrec-model", 1, &["genrec-files", "genrec-kernels"]),
    ("genrec-data", 1, &["sid-index"]),
    ("genrec-embed", 1, &["genrec-files"]),
    ("genrec-decode", 1, &["genrec-kernels", "genrec-model", "sid-index"]),
    ("genrec-train", 1, &["genrec-files", "genrec-model", "genrec-kernels"]),
    (
        "genrec",
        2,
        &[
            "genrec-files",
            "genrec-kernels",
            "sid-index",
            "genrec-eval",
            "sid-quantize",
            "genrec-model",
            "genrec-data",
            "genrec-embed",
            "genrec-decode",
            "genrec-train",
        ],
    ),
];

/// Packages of layer 3: unpublished, and free to depend on every published crate.
const PROGRAMS: &[&str] = &["genrec-examples", "genrec-tests", "genrec-benches"];

/// Nothing a library may bring to its users: command lines, opaque errors, terminals, allocators, log sinks.
const NEVER_IN_A_LIBRARY: &[&str] = &[
    "anyhow",
    "clap",
    "color-eyre",
    "comfy-table",
    "criterion",
    "env_logger",
    "eyre",
    "indicatif",
    "mimalloc",
    "proptest",
    "tempfile",
    "tracing-subscriber",
];

/// Crates that know nothing of tensors, however indirectly.
const WITHOUT_CANDLE: &[&str] = &["genrec-files", "sid-index", "genrec-eval", "genrec-data"];

/// Network clients: one crate alone may name one, and only behind a feature.
const NETWORK: &[&str] = &["hf-hub", "reqwest", "ureq", "hyper", "tokio"];

fn arrows(workspace: &Workspace) -> Vec<String> {
    let drawn: BTreeMap<&str, (u8, BTreeSet<&str>)> =
        ARROWS.iter().map(|(name, layer, to)| (*name, (*layer, to.iter().copied().collect()))).collect();
    let mut breaches = Vec::new();
    for (name, package) in &workspace.members {
        if PROGRAMS.contains(&name.as_str()) {
            if package.published {
                breaches.push(format!("{name} would be published: set `publish = false`"));
            }
            continue;
        }
        let Some((layer, allowed)) = drawn.get(name.as_str()) else {
            breaches.push(format!("{name} has no layer: add it to ARROWS and to docs/architecture.md"));
            continue;
        };
        let inside = |d: &&Dependency| workspace.members.contains_key(&d.package);
        let mut seen = BTreeSet::new();
        for dependency in package.dependencies.iter().filter(inside) {
            let to = dependency.package.as_str();
            if dependency.normal {
                seen.insert(to);
                if !allowed.contains(to) {
                    breaches.push(format!("{name} depends on {to}: no such arrow"));
                }
            } else if !allowed.contains(to) && drawn.get(to).is_none_or(|(below, _)| below >= layer) {
                breaches.push(format!("{name} depends on {to} in its tests, which is not below it"));
            }
        }
        breaches
            .extend(allowed.difference(&seen).map(|to| format!("{name} no longer depends on {to}: remove the arrow")));
    }
    let missing = drawn.keys().chain(PROGRAMS).filter(|name| !workspace.members.contains_key(**name));
    breaches.extend(missing.map(|name| format!("{name} is not a member of the workspace")));
    breaches
}

fn forbidden(workspace: &Workspace) -> Vec<String> {
    let mut breaches = Vec::new();
    for (name, package) in workspace.members.iter().filter(|(_, package)| package.published) {
        for dependency in package.dependencies.iter().filter(|d| d.normal) {
            let to = dependency.package.as_str();
            if NEVER_IN_A_LIBRARY.contains(&to) {
                breaches.push(format!("{name} depends on {to}, which no library may bring to its users"));
            }
            if NETWORK.contains(&to) && (name != "genrec-embed" || !dependency.optional) {
                breaches.push(format!("{name} depends on {to}: the network is for genrec-embed, behind a feature"));
            }
            let shared = ["genrec-files", "genrec-kernels"].contains(&to);
            if name.starts_with("sid-") && to.starts_with("genrec") && !shared {
                breaches.push(format!(
                    "{name} depends on {to}: sid-* crates stand without genrec-*, but for the files and the kernels"
                ));
            }
        }
        let tensors = |to: &&String| to.starts_with("candle-");
        let direct = package.dependencies.iter().filter(|d| d.normal).map(|d| &d.package);
        if WITHOUT_CANDLE.contains(&name.as_str())
            && let Some(to) = package.reaches.iter().chain(direct).find(tensors)
        {
            breaches.push(format!("{name} reaches {to}: it must know nothing of tensors"));
        }
    }
    if let Some(eval) = workspace.members.get("genrec-eval") {
        let extra = eval.dependencies.iter().filter(|d| d.normal && !d.optional && d.package != "thiserror");
        breaches.extend(extra.map(|d| format!("genrec-eval depends on {}: it stands on thiserror alone", d.package)));
    }
    breaches
}

/// The workspace's `rust-version` is one number, not below any that a dependency needs. It is the compiler that the gates
/// run on, and so may be above them all.
fn rust_version(workspace: &Workspace) -> Vec<String> {
    let mut breaches = Vec::new();
    let ours: BTreeSet<_> = workspace.members.values().map(|p| p.rust_version.clone()).collect();
    let (Some(Some(ours)), 1) = (ours.first(), ours.len()) else {
        return vec![format!("the members declare {ours:?}: use `rust-version.workspace = true`")];
    };
    // `gemm/x86-v4` turns on bytemuck's AVX-512 types, which no manifest dates but its changelog does: Rust 1.89.
    let floor = cargo_metadata::semver::Version::new(1, 89, 0);
    let highest = workspace.outside_rust_versions.values().max().map_or(&floor, |v| v.max(&floor));
    if ours < highest {
        let who: Vec<_> = workspace.outside_rust_versions.iter().filter(|(_, v)| *v == highest).collect();
        breaches.push(format!("rust-version is {ours}, dependencies need {highest} ({who:?}): raise it"));
    }
    breaches
}

/// Read once: `cargo metadata` takes a while on a busy machine.
fn workspace() -> Workspace {
    static WORKSPACE: LazyLock<Workspace> =
        LazyLock::new(|| Workspace::load().expect("cargo metadata describes the workspace"));
    WORKSPACE.clone()
}

fn assert_none(breaches: &[String]) {
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

fn assert_one(breaches: &[String], part: &str) {
    assert!(breaches.iter().any(|b| b.contains(part)), "no breach says {part:?}: {breaches:?}");
}

#[test]
fn crates_depend_along_the_arrows() {
    assert_none(&arrows(&workspace()));
}

#[test]
fn the_arrows_are_drawn_in_the_documents() {
    let text = std::fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md");
    for (name, _, to) in ARROWS.iter().filter(|(_, _, to)| !to.is_empty()) {
        let line = format!("{name} ─► {}", to.join(", "));
        assert!(text.lines().any(|l| l.ends_with(&line)), "docs/architecture.md lacks the arrow {line}");
    }
}

#[test]
fn libraries_hold_nothing_forbidden() {
    assert_none(&forbidden(&workspace()));
}

#[test]
fn rust_version_is_not_below_what_dependencies_need() {
    assert_none(&rust_version(&workspace()));
}

#[test]
fn a_wrong_arrow_is_found() {
    let good = workspace();

    let mut bad = good.clone();
    bad.member_mut("sid-index").dependencies.push(Dependency::on("genrec-data"));
    assert_one(&arrows(&bad), "sid-index depends on genrec-data: no such arrow");
    assert_one(&forbidden(&bad), "sid-index depends on genrec-data: sid-* crates stand without genrec-*");

    let mut bad = good.clone();
    bad.member_mut("genrec-train").dependencies.retain(|d| d.package != "genrec-kernels");
    assert_one(&arrows(&bad), "genrec-train no longer depends on genrec-kernels");

    let mut bad = good.clone();
    let upward = Dependency { normal: false, ..Dependency::on("genrec") };
    bad.member_mut("genrec-decode").dependencies.push(upward);
    assert_one(&arrows(&bad), "genrec-decode depends on genrec in its tests");

    let mut bad = good.clone();
    let package = bad.members["genrec-eval"].clone();
    bad.members.insert("genrec-core".to_owned(), package);
    assert_one(&arrows(&bad), "genrec-core has no layer");

    let mut bad = good.clone();
    bad.member_mut("genrec-examples").published = true;
    assert_one(&arrows(&bad), "genrec-examples would be published");

    let mut bad = good;
    bad.members.remove("genrec-eval");
    assert_one(&arrows(&bad), "genrec-eval is not a member");
}

#[test]
fn a_forbidden_dependency_is_found() {
    let good = workspace();
    for name in NEVER_IN_A_LIBRARY {
        let mut bad = good.clone();
        bad.member_mut("genrec-model").dependencies.push(Dependency::on(name));
        assert_one(&forbidden(&bad), &format!("genrec-model depends on {name}"));
    }
    for name in WITHOUT_CANDLE {
        let mut bad = good.clone();
        bad.member_mut(name).dependencies.push(Dependency::on("candle-core"));
        assert_one(&forbidden(&bad), &format!("{name} reaches candle-core"));
        let mut bad = good.clone();
        bad.member_mut(name).reaches.insert("candle-nn".to_owned());
        assert_one(&forbidden(&bad), &format!("{name} reaches candle-nn"));
    }
    let mut bad = good.clone();
    bad.member_mut("genrec").dependencies.push(Dependency { optional: true, ..Dependency::on("ureq") });
    assert_one(&forbidden(&bad), "genrec depends on ureq");

    let mut bad = good.clone();
    for dependency in &mut bad.member_mut("genrec-embed").dependencies {
        dependency.optional = false;
    }
    assert_one(&forbidden(&bad), "genrec-embed depends on ureq");

    let mut bad = good;
    bad.member_mut("genrec-eval").dependencies.push(Dependency::on("serde_json"));
    assert_one(&forbidden(&bad), "genrec-eval depends on serde_json");
}

#[test]
fn a_wrong_rust_version_is_found() {
    let good = workspace();
    let mut bad = good.clone();
    bad.outside_rust_versions.insert("newer 1.0.0".to_owned(), cargo_metadata::semver::Version::new(1, 999, 0));
    assert_one(&rust_version(&bad), "dependencies need 1.999.0");
    let mut bad = good;
    bad.member_mut("genrec-eval").rust_version = None;
    assert_one(&rust_version(&bad), "the members declare");
}

/// A line that no library may contain, and the crates (or files) that may.
struct Ban {
    what: &'static str,
    pattern: &'static str,
    allowed_under: &'static [&'static str],
}

/// What the manifests cannot show. Text search over code without comments and without unit tests: blunt, and enough,
/// since a hit is for a person to read.
const BANS: &[Ban] = &[
    Ban { what: "prints", pattern: "println!", allowed_under: &[] },
    Ban { what: "prints", pattern: "print!(", allowed_under: &[] },
    Ban { what: "reads the environment", pattern: "env::var", allowed_under: &[] },
    Ban { what: "ends the process", pattern: "process::exit", allowed_under: &[] },
    Ban { what: "has mutable global state", pattern: "static mut", allowed_under: &[] },
    Ban { what: "branches on a device feature", pattern: "feature = \"cuda\"", allowed_under: &["genrec-kernels/"] },
    Ban { what: "branches on a device feature", pattern: "feature = \"metal\"", allowed_under: &["genrec-kernels/"] },
    Ban { what: "branches on a device feature", pattern: "feature = \"cudnn\"", allowed_under: &["genrec-kernels/"] },
    Ban { what: "branches on a device feature", pattern: "feature = \"nccl\"", allowed_under: &["genrec-kernels/"] },
    Ban { what: "branches on a BLAS feature", pattern: "feature = \"mkl\"", allowed_under: &["genrec-kernels/"] },
    Ban {
        what: "branches on a BLAS feature",
        pattern: "feature = \"accelerate\"",
        allowed_under: &["genrec-kernels/"],
    },
    Ban {
        what: "holds unsafe code",
        pattern: "unsafe ",
        allowed_under: &["genrec-kernels/", "sid-index/src/packed/words.rs"],
    },
];

/// The breaches of `text`, the source of `path` (relative to `crates/`).
fn bans(path: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    for (i, line) in lines.iter().enumerate() {
        // Unit tests close a file.
        if *line == "#[cfg(test)]" && lines.get(i + 1).is_some_and(|next| next.starts_with("mod ")) {
            break;
        }
        if line.starts_with("//") {
            continue;
        }
        for ban in BANS.iter().filter(|ban| line.contains(ban.pattern)) {
            if !ban.allowed_under.iter().any(|under| path.starts_with(under)) {
                breaches.push(format!("crates/{path}:{}: {} ({})", i + 1, ban.what, ban.pattern.trim()));
            }
        }
        let opens = ["unsafe {", "unsafe impl "].iter().any(|open| line.contains(open));
        let argued = || lines[i.saturating_sub(6)..=i].iter().any(|l| l.contains("SAFETY:"));
        if opens && !argued() {
            breaches.push(format!("crates/{path}:{}: unsafe without a `// SAFETY:` just above", i + 1));
        }
    }
    breaches
}

fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn library_sources_hold_nothing_forbidden() {
    let crates = root().join("crates");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&crates).expect("the folder of crates") {
        rust_files(&entry.expect("a readable entry").path().join("src"), &mut files);
    }
    assert!(files.len() > 10, "only {} sources found under {}", files.len(), crates.display());
    let is_test = |path: &Path| path.components().any(|c| c.as_os_str() == "tests.rs" || c.as_os_str() == "tests");
    let mut breaches = Vec::new();
    for file in files {
        let path = file.strip_prefix(&crates).expect("a path under crates");
        if !is_test(path) {
            let text = std::fs::read_to_string(&file).expect("a readable source");
            breaches.extend(bans(&path.to_string_lossy(), &text));
        }
    }
    assert_none(&breaches);
}

#[test]
fn a_forbidden_line_is_found() {
    for ban in BANS {
        let found = bans("genrec-eval/src/lib.rs", &format!("fn f() {{\n    {} x\n}}\n", ban.pattern));
        assert_one(&found, &format!("crates/genrec-eval/src/lib.rs:2: {}", ban.what));
    }
    assert_one(&bans("genrec-kernels/src/gemm.rs", "fn f() {\n    unsafe { g() }\n}\n"), "without a `// SAFETY:`");
    assert_none(&bans("genrec-kernels/src/gemm.rs", "// SAFETY: `g` has no precondition.\nunsafe { g() }\n"));
    assert_none(&bans("genrec-eval/src/lib.rs", "/// println!(\"in a doc example\");\n"));
    assert_none(&bans("genrec-eval/src/lib.rs", "#[cfg(test)]\nmod tests {\n    println!();\n}\n"));
}
