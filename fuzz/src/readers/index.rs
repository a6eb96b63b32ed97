//! An index: `index.json` and `index.safetensors`, read, mapped and verified, and then asked everything.
//!
//! The first byte of an input says what is made right before the files are read, so that lies get past the checksums:
//! bit 0 signs the files anew, bit 1 gives the payload the header that the description calls for, bit 2 names the payload as
//! an interrupted save would. Then `index.json`, a NUL, and the payload (only its data under bit 1).

mod forge;

use std::{fs, path::Path};

use genrec::index::{CodebookId, ItemFilter, ItemId, SidIndex};

use super::{put, split, told};

const PAYLOADS: [&str; 2] = ["index.safetensors", "index.safetensors.next"];

/// Reads an input as an index in `dir`; says whether it is one.
pub fn read(input: &[u8], dir: &Path) -> bool {
    let Some((&mode, rest)) = input.split_first() else { return false };
    let (json, payload) = split(rest);
    let forged = if mode & 1 == 0 { None } else { forge::files(json, payload, mode & 2 != 0) };
    let (name, other) = if mode & 4 == 0 { (PAYLOADS[0], PAYLOADS[1]) } else { (PAYLOADS[1], PAYLOADS[0]) };
    let (json, payload) =
        forged.as_ref().map_or((json, payload), |(json, payload)| (json.as_slice(), payload.as_slice()));
    put(dir, "index.json", json);
    put(dir, name, payload);
    let _ = fs::remove_file(dir.join(other));

    let opened = told(SidIndex::open(dir));
    match told(SidIndex::open_mapped(dir)) {
        Some(mapped) => {
            // Where both open, the other is equal to it.
            ask(&mapped);
            let verified = told(mapped.verify(dir)).is_some();
            assert_eq!(verified, opened.is_some(), "`verify` and `open` must agree");
            assert!(!verified || opened.as_ref() == Some(&mapped), "what is mapped must be what is read");
        }
        None => assert!(opened.is_none(), "`open` must refuse what `open_mapped` refuses"),
    }
    opened.inspect(believe).is_some()
}

/// An index that was verified finds each item where it says that it is.
fn believe(index: &SidIndex) {
    let items = index.sids().inspect(|(item, sid)| {
        assert!(index.items_with_sid(sid).any(|found| found == *item), "{item} is not found under {sid}");
    });
    assert_eq!(items.count(), index.len());
    assert_eq!(index.items_with_prefix(&[]).count(), index.len());
}

/// Asks everything that could make an index panic whose contents nobody has verified.
fn ask(index: &SidIndex) {
    for item in (0..index.id_bound().min(20)).chain([u32::MAX]).map(ItemId) {
        if let Some(sid) = index.sid(item) {
            let _ = (index.contains(item), index.item(&sid), index.items_with_sid(&sid).take(20).count());
        }
    }
    let (mut open, mut seen) = (vec![index.root()], 0);
    while let Some(node) = open.pop() {
        seen += 1;
        index.prefetch(node);
        let _ = (index.count_below(node), index.items_below(node).take(20).count(), index.child(node, 3));
        index.for_each_group(node, |first, group| assert!(group != 0, "an empty group at {first}"));
        if seen < 12 {
            open.extend(index.children(node).take(5).map(|(_, child)| child));
        }
    }
    let _ = (index.collision_rate(), index.bytes().total());
    let _ = told(index.check_codebook(CodebookId([7; 16])));
    let filter = ItemFilter::matching(index, |item| item.0 % 3 == 0);
    let _ = (filter.count(index), filter.any_below(index, index.root()), filter.allows(index, ItemId(2)));
    let mut changed = index.clone();
    let codes = vec![0; index.layout().levels()];
    let _ = (changed.remove(ItemId(1)), told(changed.insert(&codes)), told(changed.insert(&[1, 2, 3])));
    let _ = (changed.count_prefixes(2), changed.items_with_prefix(&[0]).take(20).count(), told(changed.compact()));
}
