//! Documents are held to what they describe: the tree of modules, the arrows, and every relative link.

#![allow(clippy::expect_used, reason = "a test that cannot read the documents must fail")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use genrec_tests::manifest::root;

/// The modules under `dir`, as one line: `error index trainer/{run}`.
fn modules(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let Some(stem) = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()) else { continue };
        if ["lib", "mod", "tests"].contains(&stem.as_str()) {
            continue;
        }
        if path.is_dir() {
            let inner: Vec<String> = modules(&path).into_iter().map(|(name, rest)| name + &rest).collect();
            if !inner.is_empty() {
                found.insert(stem, format!("/{{{}}}", inner.join(",")));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.entry(stem).or_default();
        }
    }
    found
}

fn tree_line(source: &Path) -> String {
    modules(source).into_iter().map(|(name, rest)| name + &rest).collect::<Vec<_>>().join(" ")
}

/// Relative targets of the links of a Markdown text: files, nothing where it is the text itself, and headings in them.
fn links(text: &str) -> Vec<(String, Option<String>)> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets
        .filter(|target| !target.contains("://"))
        .map(|target| match target.split_once('#') {
            Some((file, heading)) => (file.to_owned(), Some(heading.to_owned())),
            None => (target.to_owned(), None),
        })
        .collect()
}

/// What links call the headings of a Markdown text.
fn headings(text: &str) -> Vec<String> {
    let name = |heading: &str| -> String {
        let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    text.lines().filter(|line| line.starts_with('#')).map(|line| name(line.trim_start_matches('#'))).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect(path)
}

fn crates() -> Vec<PathBuf> {
    let mut crates: Vec<_> = fs::read_dir(root().join("crates"))
        .expect("the folder of crates")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.join("Cargo.toml").exists())
        .collect();
    crates.sort();
    crates
}

fn name(path: &Path) -> String {
    path.file_name().expect("a named folder").to_string_lossy().into_owned()
}

#[test]
fn the_tree_is_that_of_the_sources() {
    let text = read("docs/architecture.md");
    let line = |path: &PathBuf| format!("{}/  {}", name(path), tree_line(&path.join("src"))).trim_end().to_owned();
    let expected: Vec<String> = crates().iter().map(line).collect();
    let missing: Vec<_> = expected.iter().filter(|line| !text.lines().any(|l| l == line.as_str())).collect();
    assert!(missing.is_empty(), "docs/architecture.md lacks these lines of its tree: {missing:#?}");
}

#[test]
fn relative_links_lead_somewhere() {
    let mut documents: Vec<PathBuf> =
        ["README.md", "CHANGELOG.md", "SECURITY.md", "examples/README.md", "tests/golden/README.md"]
            .map(|p| root().join(p))
            .into();
    documents.extend(crates().iter().map(|path| path.join("README.md")));
    for entry in fs::read_dir(root().join("docs")).expect("the folder of documents") {
        let path = entry.expect("a readable entry").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            documents.push(path);
        }
    }
    let mut broken = Vec::new();
    for document in &documents {
        let text = fs::read_to_string(document).expect("a readable document");
        let folder = document.parent().expect("a document in a folder");
        for (file, heading) in links(&text) {
            let path = if file.is_empty() { document.clone() } else { folder.join(&file) };
            let there = heading
                .as_ref()
                .is_none_or(|heading| fs::read_to_string(&path).is_ok_and(|text| headings(&text).contains(heading)));
            if !path.exists() || !there {
                broken.push(format!("{}: {file}#{}", document.display(), heading.unwrap_or_default()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere: {broken:#?}");
}

#[test]
fn every_crate_is_on_the_map() {
    let (readme, architecture) = (read("README.md"), read("docs/architecture.md"));
    for path in crates() {
        let name = name(&path);
        assert!(readme.contains(&format!("(crates/{name})")), "README.md's map of crates lacks {name}");
        assert!(architecture.contains(&format!("| `{name}` |")), "docs/architecture.md's table lacks {name}");
        assert!(path.join("README.md").exists(), "{name} has no README.md");
        let library = fs::read_to_string(path.join("src/lib.rs")).expect("each crate is a library");
        assert!(
            library.contains("#[doc = include_str!(\"../README.md\")]"),
            "the README of {name} is compiled nowhere"
        );
        for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
            let published = fs::read(path.join(licence)).expect("each crate carries its licences");
            assert_eq!(published, fs::read(root().join(licence)).expect(licence), "{name}/{licence}");
        }
    }
}

/// The value of a field in a line of a manifest: `name = "tiger"`.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.strip_prefix(name)?.trim_start().strip_prefix('=')?.trim().strip_prefix('"')?.strip_suffix('"')
}

/// The programs that a manifest has.
fn programs(manifest: &str) -> Vec<&str> {
    let sections = manifest.split("[[example]]").skip(1);
    sections.filter_map(|section| section.lines().find_map(|line| field(line, "name"))).collect()
}

#[test]
fn every_program_is_in_the_table_of_programs() {
    let (manifest, table) = (read("examples/Cargo.toml"), read("examples/README.md"));
    let programs = programs(&manifest);
    assert!(programs.len() > 10 && programs.contains(&"serve"), "{programs:?}");
    let told = |name: &&&str| {
        let command = format!("cargo run --release --example {name} ");
        table.lines().any(|line| line.starts_with('|') && line.replace('`', " ").contains(&command))
    };
    let missing: Vec<_> = programs.iter().filter(|name| !told(name)).collect();
    assert!(missing.is_empty(), "examples/README.md's table has no command for {missing:?}");
    // And no program that is not there any more.
    let commands = table.split("--example ").skip(1).filter_map(|rest| rest.split([' ', '`']).next());
    let gone: Vec<_> = commands.filter(|name| !programs.contains(name)).collect();
    assert!(gone.is_empty(), "examples/README.md tells of {gone:?}, which are no programs");
}

#[test]
fn the_tutorial_is_short_and_its_programs_are_there() {
    let (manifest, tutorial) = (read("examples/Cargo.toml"), read("docs/tutorial.md"));
    let programs = programs(&manifest);
    let blocks = tutorial.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```"));
    let lines: Vec<&str> = blocks.flat_map(|(block, _)| block.lines()).collect();
    let gone: Vec<_> = lines
        .iter()
        .filter_map(|line| line.split_once("--example ")?.1.split(' ').next())
        .filter(|name| !programs.contains(name))
        .collect();
    assert!(gone.is_empty(), "docs/tutorial.md starts {gone:?}, which are no programs");
    assert!((10..=30).contains(&lines.len()), "docs/tutorial.md has {} lines of commands", lines.len());
}

#[test]
fn the_reader_of_trees_and_links_works() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for file in ["lib.rs", "b.rs", "b/y.rs", "b/x.rs", "b/tests.rs", "a/mod.rs", "a/only.rs", "c.rs", "c/tests.rs"] {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, "").expect("a file");
    }
    assert_eq!(tree_line(dir.path()), "a/{only} b/{x,y} c");
    let expected = [("b.md", Some("c")), ("", Some("e")), ("g/h.png", None)];
    let expected = expected.map(|(file, heading)| (file.to_owned(), heading.map(str::to_owned)));
    assert_eq!(links("[a](b.md#c) [x](https://y.z) [d](#e) ![f](g/h.png)"), expected);
    assert_eq!(headings("# A, `b` and C-d\ntext\n## RQ-VAE"), ["a-b-and-c-d", "rq-vae"]);
}
