//! An index is saved over another.

use std::{fs, path::Path};

use genrec::index::{CollisionPolicy, ItemId, SemanticId, SidIndex, SidLayout};
use ndarray::Array2;

use super::{BoxError, Work};

pub(crate) const INDEX: Work =
    Work { prepare: |root| before().save(root).unwrap(), reader: keeps_reading, ..Work::new("index", save, is_done) };

/// An index is saved over one whose own save was stopped when it had replaced the description and not yet the payload.
pub(crate) const INTERRUPTED: Work = Work {
    name: "interrupted index",
    prepare: |root| {
        before().save(root).unwrap();
        let payload = |dir: &Path| dir.join("index.safetensors");
        let old = fs::read(payload(root)).unwrap();
        between().save(root).unwrap();
        fs::rename(payload(root), root.join("index.safetensors.next")).unwrap();
        fs::write(payload(root), old).unwrap();
    },
    is_done: |root| {
        let found = sids(&SidIndex::open(root).unwrap());
        assert!(found == sids(&between()) || found == sids(&after()));
        found == sids(&after())
    },
    is_moved: |file| file.starts_with("index.safetensors"),
    ..INDEX
};

/// An index is read that somebody cuts while it is open.
pub(crate) const CUT_OPEN: Work = Work { name: "cut index", run: |root| cut(root, SidIndex::open), ..INDEX };

/// The same where it is mapped.
pub(crate) const CUT_MAPPED: Work =
    Work { name: "cut mapped index", run: |root| cut(root, SidIndex::open_mapped), ..INDEX };

fn cut(root: &Path, open: fn(&Path) -> genrec::index::Result<SidIndex>) -> Result<(), BoxError> {
    let index = open(root)?;
    fs::File::options().write(true).open(root.join("index.safetensors"))?.set_len(0)?;
    assert!(sids(&index) == sids(&before()));
    Ok(())
}

fn before() -> SidIndex {
    let codes = Array2::from_shape_fn((1200, 2), |(item, level)| ((item * (level + 3)) % 16) as u32);
    let layout = SidLayout::new(vec![16, 16]).unwrap().with_suffix(256);
    SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Suffix).unwrap()
}

/// With one more item.
fn between() -> SidIndex {
    let mut index = before();
    index.insert(&[1, 1]).unwrap();
    index.compact().unwrap();
    index
}

/// With more items, and without one.
fn after() -> SidIndex {
    changed(before()).unwrap()
}

fn changed(mut index: SidIndex) -> Result<SidIndex, BoxError> {
    for code in 0..8 {
        index.insert(&[code, 7 - code])?;
    }
    index.remove(ItemId(3));
    index.compact()?;
    Ok(index)
}

fn save(root: &Path) -> Result<(), BoxError> {
    let there = SidIndex::open(root)?;
    let index = if there.id_bound() == before().id_bound() { changed(there)? } else { after() };
    Ok(index.save(root)?)
}

/// Has an index mapped, and reads all of it whenever asked.
pub(super) fn keeps_reading(dir: &Path) -> Box<dyn Fn() -> bool> {
    let (index, mapped) = (SidIndex::open(dir).unwrap(), SidIndex::open_mapped(dir).unwrap());
    Box::new(move || sids(&mapped) == sids(&index))
}

fn sids(index: &SidIndex) -> Vec<Option<SemanticId>> {
    (0..index.id_bound()).map(|item| index.sid(ItemId(item))).collect()
}

fn is_done(root: &Path) -> bool {
    let index = SidIndex::open(root).unwrap();
    let mapped = SidIndex::open_mapped(root).unwrap();
    mapped.verify(root).unwrap();
    let found = sids(&index);
    assert!(found == sids(&before()) || found == sids(&after()));
    assert!(found == sids(&mapped));
    found == sids(&after())
}
