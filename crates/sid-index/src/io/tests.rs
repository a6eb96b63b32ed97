use ndarray::{Array2, array};
use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::ItemId;

fn small() -> SidIndex {
    let layout = SidLayout::new(vec![4, 4]).unwrap().with_suffix(3);
    SidIndex::from_codes(layout, array![[1, 2], [0, 3], [1, 2]].view(), CollisionPolicy::Suffix).unwrap()
}

fn shared() -> SidIndex {
    let layout = SidLayout::new(vec![4, 4]).unwrap().without_suffix();
    SidIndex::from_codes(layout, array![[1, 2], [0, 3], [1, 2]].view(), CollisionPolicy::Share).unwrap()
}

fn saved(index: &SidIndex) -> TempDir {
    let dir = tempdir().unwrap();
    index.save(dir.path()).unwrap();
    dir
}

/// Replaces parts of the description and signs it anew: the lies of a writer, not of a broken disk.
fn rewrite(dir: &Path, change: impl FnOnce(&mut Description)) {
    let path = dir.join(DESCRIPTION);
    let mut description = Description::read(&path).unwrap();
    change(&mut description);
    description.crc32 = description.checksum(&path).unwrap();
    fs::write(path, serde_json::to_vec(&description).unwrap()).unwrap();
}

fn rewrite_payload(dir: &Path, bytes: &[u8]) {
    fs::write(dir.join(PAYLOAD), bytes).unwrap();
    rewrite(dir, |description| {
        description.payload_bytes = bytes.len() as u64;
        description.payload_crc32 = crc32fast::hash(bytes);
    });
}

fn file_of(tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let views =
        tensors.iter().map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn both_policies_survive_a_round_trip() {
    for index in [small(), shared()] {
        let dir = saved(&index);
        assert_eq!(SidIndex::load(dir.path()).unwrap(), index);
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [DESCRIPTION, PAYLOAD]);
    }
    let empty = SidIndex::from_sids(SidLayout::new(vec![2]).unwrap(), vec![], CollisionPolicy::Suffix).unwrap();
    assert_eq!(SidIndex::load(saved(&empty).path()).unwrap(), empty);
}

#[test]
fn saving_twice_replaces_and_equal_indexes_give_equal_bytes() {
    let mut index = small();
    let dir = saved(&index);
    index.insert(&[1, 2]).unwrap();
    index.save(dir.path()).unwrap();
    let loaded = SidIndex::load(dir.path()).unwrap();
    assert_eq!(loaded.sid(ItemId(3)).unwrap().to_string(), "(1, 2, 2)");
    let again = saved(&loaded);
    for file in [DESCRIPTION, PAYLOAD] {
        assert_eq!(fs::read(dir.path().join(file)).unwrap(), fs::read(again.path().join(file)).unwrap());
    }
}

#[test]
fn truncation_at_every_length_is_refused() {
    for file in [DESCRIPTION, PAYLOAD] {
        let dir = saved(&small());
        let path = dir.path().join(file);
        let bytes = fs::read(&path).unwrap();
        // The last byte of the description is a line end, without which it still says the same.
        let whole = if file == DESCRIPTION { bytes.len() - 1 } else { bytes.len() };
        for length in 0..whole {
            fs::write(&path, &bytes[..length]).unwrap();
            assert!(SidIndex::load(dir.path()).is_err(), "{file} cut to {length} bytes");
        }
        fs::write(&path, [&bytes[..], b"x"].concat()).unwrap();
        assert!(SidIndex::load(dir.path()).is_err(), "{file} with a byte too many");
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    for index in [small(), shared()] {
        for file in [DESCRIPTION, PAYLOAD] {
            let dir = saved(&index);
            let path = dir.path().join(file);
            let bytes = fs::read(&path).unwrap();
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, &flipped).unwrap();
                assert!(SidIndex::load(dir.path()).is_err(), "{file} with bit {bit} flipped");
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
        prop_assert!(SidIndex::load(dir.path()).is_err());
    }
}

#[test]
fn the_payload_is_checked_against_the_description() {
    let index = small();
    let good = words(index.sids());
    let load = |bytes: &[u8]| {
        let dir = saved(&index);
        rewrite_payload(dir.path(), bytes);
        SidIndex::load(dir.path()).unwrap_err()
    };
    let sids = |name, dtype, shape: &[usize], data: &[u8]| file_of(&[(name, dtype, shape.to_vec(), data.to_vec())]);
    assert!(matches!(load(&sids("sids", Dtype::I32, &[3, 3], &good)), IndexError::Tensor { .. }));
    assert!(matches!(load(&sids("sids", Dtype::U32, &[9, 1], &good)), IndexError::Tensor { .. }));
    assert!(matches!(load(&sids("codes", Dtype::U32, &[3, 3], &good)), IndexError::Payload { .. }));
    let two = file_of(&[("sids", Dtype::U32, vec![3, 3], good), ("more", Dtype::U8, vec![1], vec![0])]);
    assert!(matches!(load(&two), IndexError::Tensor { .. }));
    let outside = words(&[1, 2, 0, 0, 4, 0, 1, 2, 1]);
    assert!(matches!(load(&sids("sids", Dtype::U32, &[3, 3], &outside)), IndexError::CodeOutOfRange { code: 4, .. }));
    let twice = words(&[1, 2, 0, 0, 3, 0, 1, 2, 0]);
    assert!(matches!(load(&sids("sids", Dtype::U32, &[3, 3], &twice)), IndexError::DuplicateSid { .. }));
}

#[test]
fn the_description_is_checked_against_the_payload() {
    let load = |change: fn(&mut Description)| {
        let dir = saved(&small());
        rewrite(dir.path(), change);
        SidIndex::load(dir.path()).unwrap_err()
    };
    // Sizes that do not belong together are refused before anything of that size is allocated.
    assert!(matches!(load(|d| d.items = u32::MAX), IndexError::FileSize { .. }));
    assert!(matches!(load(|d| d.items = 0), IndexError::Tensor { .. }));
    assert!(matches!(load(|d| d.payload_bytes = u64::MAX), IndexError::FileSize { .. }));
    assert!(matches!(load(|d| d.payload_bytes -= 1), IndexError::FileSize { .. }));
    assert!(matches!(load(|d| d.payload_crc32 ^= 1), IndexError::Checksum { .. }));
    assert!(matches!(load(|d| d.collision_policy = CollisionPolicy::Share), IndexError::UnusedSuffix));
    assert!(matches!(load(|d| d.layout = SidLayout::new(vec![4, 2]).unwrap()), IndexError::CodeOutOfRange { .. }));
    assert!(matches!(load(|d| d.layout = d.layout.clone().without_suffix()), IndexError::Tensor { .. }));
    assert!(matches!(
        load(|d| d.format_version = 2),
        IndexError::FormatVersion { got: 2, supported: FORMAT_VERSION, .. }
    ));
    assert!(matches!(load(|d| d.format_version = 0), IndexError::FormatVersion { got: 0, .. }));
}

#[test]
fn a_version_to_come_is_named_whatever_its_fields() {
    let dir = saved(&small());
    fs::write(dir.path().join(DESCRIPTION), r#"{"format_version": 7, "shards": [1, 2]}"#).unwrap();
    let error = SidIndex::load(dir.path()).unwrap_err();
    assert!(error.to_string().contains("format version 7, this release reads versions 1 to 1"), "{error}");
}

#[test]
fn missing_and_oversized_files_are_refused() {
    let dir = saved(&small());
    fs::remove_file(dir.path().join(PAYLOAD)).unwrap();
    assert!(matches!(SidIndex::load(dir.path()), Err(IndexError::Io { action: "read", .. })));
    fs::write(dir.path().join(DESCRIPTION), vec![b' '; MAX_DESCRIPTION as usize + 1]).unwrap();
    assert!(matches!(SidIndex::load(dir.path()), Err(IndexError::FileSize { .. })));
    assert!(matches!(SidIndex::load(&dir.path().join("nowhere")), Err(IndexError::Io { .. })));
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
    let expect = |index: &SidIndex| assert_eq!(&SidIndex::load(dir.path()).unwrap(), index);

    let payload = read(PAYLOAD);
    for length in 0..payload.len() {
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

#[test]
fn a_larger_index_survives_a_round_trip() {
    let codes = Array2::from_shape_fn((5000, 3), |(i, level)| (i as u32 * [7919, 104_729, 31][level]) % 64);
    let layout = SidLayout::new(vec![64; 3]).unwrap();
    let index = SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Suffix).unwrap();
    assert_eq!(SidIndex::load(saved(&index).path()).unwrap(), index);
}
