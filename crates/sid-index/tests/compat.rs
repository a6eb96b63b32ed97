//! Files written by released formats open in every later release.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use sid_index::{CollisionPolicy, ItemId, SidIndex, SidLayout};

/// What the directory of version 1 holds: written once, by the first release of the format, never again.
fn version_1() -> SidIndex {
    let layout = SidLayout::new(vec![16, 8, 4]).unwrap().with_suffix(5);
    let sids = [[12, 4, 2, 0], [3, 5, 1, 0], [12, 4, 2, 1], [0, 0, 0, 0], [15, 7, 3, 4], [12, 0, 2, 0]];
    SidIndex::from_sids(layout, sids.concat(), CollisionPolicy::Suffix).unwrap()
}

#[test]
fn version_1_opens() {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/compat/v1/index"));
    let index = SidIndex::load(dir).unwrap();
    assert_eq!(index, version_1());
    assert_eq!(index.item(&[12, 4, 2, 1]), Some(ItemId(2)));
}

/// While version 1 is the newest, saving must still write the very bytes recorded.
#[test]
fn version_1_is_still_written_alike() {
    let recorded = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/compat/v1/index"));
    let dir = tempfile::tempdir().unwrap();
    version_1().save(dir.path()).unwrap();
    for file in ["index.json", "index.safetensors"] {
        assert_eq!(
            std::fs::read(dir.path().join(file)).unwrap(),
            std::fs::read(recorded.join(file)).unwrap(),
            "{file} is written differently: raise the format version and keep reading version 1"
        );
    }
}
