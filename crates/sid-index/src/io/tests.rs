use std::fs;

use ndarray::{Array2, array};
use proptest::prelude::*;
use safetensors::{Dtype, tensor::TensorView};
use tempfile::{TempDir, tempdir};

use super::{description::MAX_DESCRIPTION, *};
use crate::{CodebookId, CollisionPolicy, IndexError, ItemId, SidLayout};

fn small() -> SidIndex {
    let layout = SidLayout::new(vec![4, 4]).unwrap().with_suffix(3);
    SidIndex::from_codes(layout, array![[1, 2], [0, 3], [1, 2]].view(), CollisionPolicy::Suffix).unwrap()
}

fn shared() -> SidIndex {
    let layout = SidLayout::new(vec![4, 4]).unwrap().without_suffix();
    SidIndex::from_codes(layout, array![[1, 2], [0, 3], [1, 2]].view(), CollisionPolicy::Share).unwrap()
}

/// Sparse levels, a codebook, and numbers without an item.
fn holes() -> SidIndex {
    let codes = Array2::from_shape_fn((60, 3), |(i, level)| (i as u32 * [7, 11, 13][level]) % 64);
    let layout = SidLayout::new(vec![64; 3]).unwrap();
    let mut index = SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Suffix).unwrap();
    (0..60).step_by(7).for_each(|item| drop(index.remove(ItemId(item))));
    index.compact().unwrap();
    index.with_codebook(CodebookId([7; 16]))
}

fn saved(index: &SidIndex) -> TempDir {
    let dir = tempdir().unwrap();
    index.save(dir.path()).unwrap();
    dir
}

fn description(dir: &Path) -> Description {
    match Saved::read(&dir.join(DESCRIPTION)).unwrap().0 {
        Saved::V2(description) => description,
        Saved::V1(_) => panic!("written in version 1"),
    }
}

/// Replaces parts of the description and signs it anew: the lies of a writer, not of a broken disk.
fn rewrite(dir: &Path, change: impl FnOnce(&mut Description)) {
    let path = dir.join(DESCRIPTION);
    let mut description = description(dir);
    change(&mut description);
    description.crc32 = description.checksum(&path).unwrap();
    fs::write(&path, description.to_json(&path).unwrap()).unwrap();
}

/// Replaces the payload and signs all of it anew.
fn rewrite_payload(dir: &Path, bytes: &[u8]) {
    fs::write(dir.join(PAYLOAD), bytes).unwrap();
    let header = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length)).saturating_add(8);
    let header = usize::try_from(header).unwrap_or(0).min(bytes.len());
    rewrite(dir, |description| {
        description.payload_bytes = bytes.len() as u64;
        description.header_crc32 = crc32fast::hash(&bytes[..header]);
        description.data_crc32 = crc32fast::hash(&bytes[header..]);
    });
}

fn entries(dir: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    names
}

/// Asks an index everything that could make an unchecked one panic.
fn exercise(index: &SidIndex) {
    for item in (0..index.id_bound().min(80)).chain([u32::MAX]).map(ItemId) {
        if let Some(sid) = index.sid(item) {
            let _ = (index.item(&sid), index.items_with_sid(&sid).take(100).count());
        }
    }
    let (mut open, mut seen) = (vec![index.root()], 0);
    while let Some(node) = open.pop() {
        seen += 1;
        let _ = (index.count_below(node), index.items_below(node).take(100).count(), index.child(node, 3));
        if seen < 300 {
            open.extend(index.children(node).take(70).map(|(_, child)| child));
        }
    }
    let mut changed = index.clone();
    let _ = (changed.remove(ItemId(1)), changed.insert(&[1, 2]), changed.insert(&[1, 2, 3]));
    let _ = changed.compact();
    let filter = crate::ItemFilter::matching(index, |item| item.0 % 3 == 0);
    let _ = (filter.count(index), filter.any_below(index, index.root()));
}

#[test]
fn every_kind_survives_a_round_trip_read_and_mapped() {
    let empty = SidIndex::from_sids(SidLayout::new(vec![2]).unwrap(), &[], CollisionPolicy::Suffix).unwrap();
    let codes = Array2::from_shape_fn((5000, 3), |(i, level)| (i as u32 * [7919, 104_729, 31][level]) % 64);
    let layout = SidLayout::new(vec![64; 3]).unwrap();
    let large = SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Suffix).unwrap();
    for index in [small(), shared(), holes(), empty, large] {
        let dir = saved(&index);
        assert_eq!(SidIndex::open(dir.path()).unwrap(), index);
        let mapped = SidIndex::open_mapped(dir.path()).unwrap();
        mapped.verify(dir.path()).unwrap();
        assert_eq!(mapped, index);
        exercise(&mapped);
        assert_eq!(entries(dir.path()), [DESCRIPTION, PAYLOAD]);
    }
}

#[test]
fn saving_twice_replaces_and_equal_indexes_give_equal_bytes() {
    let mut index = small();
    let dir = saved(&index);
    index.insert(&[1, 2]).unwrap();
    let mapped = SidIndex::open_mapped(dir.path()).unwrap();
    index.save(dir.path()).unwrap();
    // What was mapped before stays as it was.
    assert_eq!(mapped, small());
    let loaded = SidIndex::open(dir.path()).unwrap();
    assert_eq!(loaded.sid(ItemId(3)).unwrap().to_string(), "(1, 2, 2)");
    let again = saved(&loaded);
    for file in [DESCRIPTION, PAYLOAD] {
        assert_eq!(fs::read(dir.path().join(file)).unwrap(), fs::read(again.path().join(file)).unwrap());
    }
}

#[test]
fn a_mapped_index_takes_changes_and_goes_back_to_its_own_directory() {
    let dir = saved(&holes());
    let mut index = SidIndex::open_mapped(dir.path()).unwrap();
    let item = index.insert(&[7, 11, 13]).unwrap();
    assert_eq!(item, ItemId(60));
    index.remove(ItemId(2)).unwrap();
    index.save(dir.path()).unwrap();
    assert_eq!(SidIndex::open(dir.path()).unwrap(), index);
}

#[test]
fn truncation_at_every_length_is_refused() {
    for file in [DESCRIPTION, PAYLOAD] {
        let dir = saved(&holes());
        let path = dir.path().join(file);
        let bytes = fs::read(&path).unwrap();
        // The last byte of the description is a line end, without which it still says the same.
        let whole = if file == DESCRIPTION { bytes.len() - 1 } else { bytes.len() };
        for length in (0..whole).step_by(if file == DESCRIPTION { 1 } else { 5 }) {
            fs::write(&path, &bytes[..length]).unwrap();
            assert!(SidIndex::open(dir.path()).is_err(), "{file} cut to {length} bytes");
            assert!(SidIndex::open_mapped(dir.path()).is_err(), "{file} cut to {length} bytes, mapped");
        }
        fs::write(&path, [&bytes[..], b"x"].concat()).unwrap();
        assert!(SidIndex::open(dir.path()).is_err(), "{file} with a byte too many");
        assert!(SidIndex::open_mapped(dir.path()).is_err(), "{file} with a byte too many, mapped");
    }
}

/// `open` refuses every flipped bit; a mapped index answers without a panic, and `verify` finds it.
#[test]
fn every_flipped_bit_is_found() {
    for index in [small(), shared(), holes()] {
        for file in [DESCRIPTION, PAYLOAD] {
            let dir = saved(&index);
            let path = dir.path().join(file);
            let bytes = fs::read(&path).unwrap();
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, &flipped).unwrap();
                assert!(SidIndex::open(dir.path()).is_err(), "{file} with bit {bit} flipped");
                match SidIndex::open_mapped(dir.path()) {
                    Ok(mapped) => {
                        assert!(mapped.verify(dir.path()).is_err(), "{file} with bit {bit} flipped, mapped");
                        if bit % 3 == 0 {
                            exercise(&mapped);
                        }
                    }
                    Err(_) => continue,
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), resigned: bool) {
        let dir = saved(&small());
        if resigned {
            rewrite_payload(dir.path(), &bytes);
        } else {
            fs::write(dir.path().join(DESCRIPTION), &bytes).unwrap();
        }
        prop_assert!(SidIndex::open(dir.path()).is_err());
        prop_assert!(SidIndex::open_mapped(dir.path()).is_err());
    }

    /// Data that lie under right checksums: `open` refuses them, and a mapped index does not panic on them.
    #[test]
    fn resigned_lies_are_refused(place in any::<prop::sample::Index>(), value in any::<u64>(), which in 0usize..3) {
        let index = [small(), shared(), holes()][which].clone();
        let dir = saved(&index);
        let mut bytes = fs::read(dir.path().join(PAYLOAD)).unwrap();
        let data = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let words = (bytes.len() - data) / 8;
        let at = data + 8 * place.index(words);
        let before = bytes[at..at + 8].to_vec();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        prop_assume!(before != bytes[at..at + 8]);
        // The header names the checksum of the data.
        let crc = format!("{:08x}", crc32fast::hash(&bytes[data..]));
        let header = String::from_utf8(bytes[8..data].to_vec()).unwrap();
        let old = format!("{:08x}", description(dir.path()).data_crc32);
        bytes[8..data].copy_from_slice(header.replace(&old, &crc).as_bytes());
        rewrite_payload(dir.path(), &bytes);
        prop_assert!(SidIndex::open(dir.path()).is_err());
        let mapped = SidIndex::open_mapped(dir.path()).unwrap();
        prop_assert!(mapped.verify(dir.path()).is_err());
        exercise(&mapped);
    }
}

#[test]
fn the_payload_is_checked_against_the_description() {
    let dir = saved(&small());
    let bytes = fs::read(dir.path().join(PAYLOAD)).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    type Change<'a> = &'a dyn Fn(&mut Vec<(String, Dtype, Vec<usize>, Vec<u8>)>);
    let open = |tie: bool, change: Change<'_>| {
        let mut all: Vec<_> = tensors
            .iter()
            .map(|(name, view)| (name.to_owned(), view.dtype(), view.shape().to_vec(), view.data().to_vec()))
            .collect();
        change(&mut all);
        let file = |crc: u32| {
            let metadata = [("data_crc32".to_owned(), format!("{crc:08x}"))].into();
            let views = all.iter().map(|(n, t, shape, data)| (n, TensorView::new(*t, shape.clone(), data).unwrap()));
            safetensors::serialize(views, Some(metadata)).unwrap()
        };
        let untied = file(1);
        let data = 8 + u64::from_le_bytes(*untied.first_chunk().unwrap()) as usize;
        rewrite_payload(dir.path(), &if tie { file(crc32fast::hash(&untied[data..])) } else { untied });
        let mapped = SidIndex::open_mapped(dir.path()).map(drop);
        (SidIndex::open(dir.path()).map(drop), mapped)
    };
    assert!(matches!(open(true, &|_| ()), (Ok(()), Ok(()))));
    let refused = |(read, mapped): (Result<()>, Result<()>)| {
        assert_eq!(mapped.unwrap_err().to_string(), read.as_ref().unwrap_err().to_string());
        read.unwrap_err()
    };
    assert!(matches!(refused(open(false, &|_| ())), IndexError::Contradiction { .. }));
    assert!(matches!(refused(open(true, &|all| drop(all.pop()))), IndexError::Contradiction { .. }));
    assert!(matches!(
        refused(open(true, &|all| all.push(("more".into(), Dtype::U64, vec![1], vec![0; 8])))),
        IndexError::Contradiction { .. }
    ));
    assert!(matches!(refused(open(true, &|all| all[0].1 = Dtype::I64)), IndexError::Tensor { .. }));
    assert!(matches!(
        refused(open(true, &|all| {
            all[0].2[0] += 1;
            all[0].3.extend([0; 8]);
        })),
        IndexError::Tensor { .. }
    ));
}

#[test]
fn the_description_is_checked_against_itself_and_the_payload() {
    let open = |change: fn(&mut Description)| {
        let dir = saved(&small());
        rewrite(dir.path(), change);
        let error = SidIndex::open(dir.path()).unwrap_err();
        if !matches!(error, IndexError::Checksum { .. }) {
            assert!(SidIndex::open_mapped(dir.path()).is_err());
        }
        error
    };
    // Sizes that do not belong together are refused before anything of that size is allocated.
    assert!(matches!(open(|d| d.items = u32::MAX), IndexError::Contradiction { .. }));
    assert!(matches!(open(|d| d.id_bound = u32::MAX), IndexError::Contradiction { .. }));
    assert!(matches!(
        open(|d| d.id_bound = u32::MAX - 1),
        IndexError::Contradiction { .. } | IndexError::Tensor { .. }
    ));
    assert!(matches!(open(|d| d.items = 0), IndexError::Contradiction { .. }));
    assert!(matches!(open(|d| d.items = 2), IndexError::Contradiction { .. }));
    assert!(matches!(open(|d| d.prefixes[0] = 9), IndexError::Contradiction { .. }));
    assert!(matches!(open(|d| d.prefixes.truncate(2)), IndexError::Contradiction { .. }));
    assert!(matches!(
        open(|d| d.prefixes = vec![2, 3, 3]),
        IndexError::Contradiction { .. } | IndexError::Tensor { .. }
    ));
    assert!(matches!(open(|d| d.payload_bytes = u64::MAX), IndexError::FileSize { .. }));
    assert!(matches!(open(|d| d.payload_bytes -= 1), IndexError::FileSize { .. }));
    assert!(matches!(open(|d| d.header_crc32 ^= 1), IndexError::Checksum { .. }));
    assert!(matches!(open(|d| d.data_crc32 ^= 1), IndexError::Contradiction { .. }));
    assert!(matches!(open(|d| d.collision_policy = CollisionPolicy::Share), IndexError::UnusedSuffix));
    assert!(matches!(
        open(|d| d.layout = SidLayout::new(vec![64, 2]).unwrap()),
        IndexError::Contradiction { .. } | IndexError::Tensor { .. }
    ));
    assert!(matches!(open(|d| d.layout = d.layout.clone().without_suffix()), IndexError::NoSuffix));
    assert!(matches!(open(|d| d.format_version = 3), IndexError::FormatVersion { got: 3, supported: 2, .. }));
    assert!(matches!(open(|d| d.format_version = 0), IndexError::FormatVersion { got: 0, .. }));
}

/// A count that changes no array's length: only rebuilding the trie finds it.
#[test]
fn a_lie_about_the_number_of_prefixes_is_found() {
    let layout = SidLayout::new(vec![4, 4]).unwrap().without_suffix();
    let codes = Array2::from_shape_fn((8, 2), |(i, level)| [i / 2, i % 2][level] as u32);
    let dir = saved(&SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Share).unwrap());
    rewrite(dir.path(), |description| description.prefixes[0] = 3);
    assert!(matches!(SidIndex::open(dir.path()), Err(IndexError::Contradiction { .. })));
    let mapped = SidIndex::open_mapped(dir.path()).unwrap();
    assert!(matches!(mapped.verify(dir.path()), Err(IndexError::Contradiction { .. })));
    exercise(&mapped);
}

#[test]
fn a_version_to_come_is_named_whatever_its_fields() {
    let dir = saved(&small());
    fs::write(dir.path().join(DESCRIPTION), r#"{"format_version": 7, "shards": [1, 2]}"#).unwrap();
    let error = SidIndex::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("format version 7, this release reads versions 1 to 2"), "{error}");
}

#[test]
fn another_codebook_is_refused() {
    let index = holes();
    index.check_codebook(CodebookId([7; 16])).unwrap();
    let error = index.check_codebook(CodebookId([0xab; 16])).unwrap_err();
    assert!(error.to_string().contains("belongs to codebook 0707070707070707"), "{error}");
    assert!(!error.to_string().contains("  "), "{error}");
    small().check_codebook(CodebookId([1; 16])).unwrap();
    let opened = SidIndex::open(saved(&index).path()).unwrap();
    assert_eq!(opened.codebook(), Some(CodebookId([7; 16])));
    for bad in ["\"07\"", "\"0707070707070707070707070707070g\"", "7", "\"+7070707070707070707070707070707\""] {
        assert!(serde_json::from_str::<CodebookId>(bad).is_err(), "{bad}");
    }
}

#[test]
fn missing_and_oversized_files_are_refused() {
    let dir = saved(&small());
    fs::remove_file(dir.path().join(PAYLOAD)).unwrap();
    assert!(matches!(SidIndex::open(dir.path()), Err(IndexError::Io { action: "read", .. })));
    fs::write(dir.path().join(DESCRIPTION), vec![b' '; MAX_DESCRIPTION as usize + 1]).unwrap();
    assert!(matches!(SidIndex::open(dir.path()), Err(IndexError::FileSize { .. })));
    assert!(matches!(SidIndex::open(&dir.path().join("nowhere")), Err(IndexError::Io { .. })));
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(small().save(&file), Err(IndexError::Io { action: "create", .. })));
}

/// Every state that the steps of a save pass through, in order, is the old index up to the commit and the new one after.
#[test]
fn a_save_cut_short_anywhere_leaves_an_index() {
    let old = small();
    let mut new = old.clone();
    new.insert(&[3, 3]).unwrap();
    let source = saved(&new);
    let read = |name: &str| fs::read(source.path().join(name)).unwrap();
    let dir = saved(&old);
    let at = |name: &str| dir.path().join(name);
    let expect = |index: &SidIndex| {
        assert_eq!(&SidIndex::open(dir.path()).unwrap(), index);
        assert_eq!(&SidIndex::open_mapped(dir.path()).unwrap(), index);
    };

    let payload = read(PAYLOAD);
    for length in (0..payload.len()).step_by(7) {
        fs::write(at(NEXT_PAYLOAD), &payload[..length]).unwrap();
        expect(&old);
    }
    fs::write(at(NEXT_PAYLOAD), &payload).unwrap();
    expect(&old);
    fs::write(at("index.json.tmp"), read(DESCRIPTION)).unwrap();
    expect(&old);
    fs::rename(at("index.json.tmp"), at(DESCRIPTION)).unwrap();
    expect(&new);
    // A save that begins in this state must not overwrite the only copy of what is committed.
    finish_interrupted(dir.path()).unwrap();
    expect(&new);
    assert!(!at(NEXT_PAYLOAD).exists());
    old.save(dir.path()).unwrap();
    expect(&old);
}

/// An interrupted save of other codes for as many items has files of the same length: the header tells them apart.
#[test]
fn a_payload_of_the_same_length_is_not_mistaken() {
    let codes = |by: u32| Array2::from_shape_fn((50, 2), |(i, level)| (i as u32 * [3, 5][level] + by) % 64);
    let index = |by| {
        let layout = SidLayout::new(vec![64; 2]).unwrap();
        SidIndex::from_codes(layout, codes(by).view(), CollisionPolicy::Suffix).unwrap()
    };
    let (old, new) = (saved(&index(0)), saved(&index(1)));
    let length = |dir: &TempDir| fs::metadata(dir.path().join(PAYLOAD)).unwrap().len();
    assert_eq!(length(&old), length(&new));
    fs::copy(new.path().join(PAYLOAD), old.path().join(NEXT_PAYLOAD)).unwrap();
    fs::copy(new.path().join(DESCRIPTION), old.path().join(DESCRIPTION)).unwrap();
    assert_eq!(SidIndex::open_mapped(old.path()).unwrap(), index(1));
    assert_eq!(SidIndex::open(old.path()).unwrap(), index(1));
}

/// A reader that comes while another index is saved again and again finds one of them, whole, every time.
#[cfg(unix)]
#[test]
fn an_index_opens_while_it_is_replaced() {
    let (old, new) = (small(), holes());
    let dir = saved(&old);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for index in [&new, &old].iter().cycle().take(200) {
                index.save(dir.path()).unwrap();
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut seen = [0, 0];
        while !over.load(std::sync::atomic::Ordering::Relaxed) {
            let read = SidIndex::open(dir.path()).unwrap();
            let mapped = SidIndex::open_mapped(dir.path()).unwrap();
            for index in [read, mapped] {
                assert!(index == old || index == new);
                seen[usize::from(index == new)] += 1;
            }
        }
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    });
}

#[test]
fn an_array_that_does_not_follow_is_named() {
    let dir = saved(&holes());
    let mut bytes = fs::read(dir.path().join(PAYLOAD)).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let at = tensors.tensor("level.2.codes").unwrap().data().as_ptr() as usize - bytes.as_ptr() as usize;
    bytes[at] ^= 1;
    let data = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let crc = format!("{:08x}", crc32fast::hash(&bytes[data..]));
    let header = String::from_utf8(bytes[8..data].to_vec()).unwrap();
    let old = format!("{:08x}", description(dir.path()).data_crc32);
    bytes[8..data].copy_from_slice(header.replace(&old, &crc).as_bytes());
    rewrite_payload(dir.path(), &bytes);
    let error = SidIndex::open(dir.path()).unwrap_err();
    assert!(matches!(&error, IndexError::Array { name, .. } if name == "level.2.codes"), "{error}");
}
