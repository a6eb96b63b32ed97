//! Files written by released formats open in every later release.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use sid_index::{CodebookId, CollisionPolicy, ItemId, SidIndex, SidLayout};

fn recorded(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/compat/v{version}/index"))
}

/// What the directory of version 1 holds: written once, by the first release of the format, never again.
fn version_1() -> SidIndex {
    let layout = SidLayout::new(vec![16, 8, 4]).unwrap().with_suffix(5);
    let sids = [[12, 4, 2, 0], [3, 5, 1, 0], [12, 4, 2, 1], [0, 0, 0, 0], [15, 7, 3, 4], [12, 0, 2, 0]];
    SidIndex::from_sids(layout, &sids.concat(), CollisionPolicy::Suffix).unwrap()
}

/// What the directory of version 2 holds: the same without item 1, and of a codebook.
fn version_2() -> SidIndex {
    let mut index = version_1();
    index.remove(ItemId(1)).unwrap();
    index.with_codebook(CodebookId(*b"a codebook's id."))
}

#[test]
fn version_1_opens() {
    for index in [SidIndex::open(&recorded(1)).unwrap(), SidIndex::open_mapped(&recorded(1)).unwrap()] {
        assert_eq!(index, version_1());
        assert_eq!(index.item(&[12, 4, 2, 1]), Some(ItemId(2)));
        index.verify(&recorded(1)).unwrap();
    }
}

#[test]
fn version_2_opens() {
    for index in [SidIndex::open(&recorded(2)).unwrap(), SidIndex::open_mapped(&recorded(2)).unwrap()] {
        assert_eq!(index, version_2());
        assert_eq!((index.len(), index.item(&[12, 4, 2, 1])), (5, Some(ItemId(2))));
        index.verify(&recorded(2)).unwrap();
    }
}

/// While version 2 is the newest, saving must still write the very bytes recorded.
#[test]
fn version_2_is_still_written_alike() {
    let dir = tempfile::tempdir().unwrap();
    version_2().save(dir.path()).unwrap();
    for file in ["index.json", "index.safetensors"] {
        assert_eq!(
            std::fs::read(dir.path().join(file)).unwrap(),
            std::fs::read(recorded(2).join(file)).unwrap(),
            "{file} is written differently: raise the format version and keep reading version 2"
        );
    }
}
