//! Indexes: dense and sparse levels, shared Semantic IDs, holes, none at all; both formats; signed and as they are.

use std::{error::Error, fs};

use genrec::index::{CodebookId, CollisionPolicy, ItemId, SidIndex, SidLayout};
use genrec_tests::manifest::root;
use ndarray::{Array2, array};

use super::Seeds;

pub fn seeds() -> Result<Seeds, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let mut seeds = Seeds::new();
    for (name, index) in indexes()? {
        index.save(dir)?;
        push(&mut seeds, &name, &fs::read(dir.join("index.json"))?, &fs::read(dir.join("index.safetensors"))?);
    }
    for version in ["v1", "v2"] {
        let dir = root().join(format!("tests/compat/{version}/index"));
        push(&mut seeds, version, &fs::read(dir.join("index.json"))?, &fs::read(dir.join("index.safetensors"))?);
    }
    let shared = concat!(
        r#"{"format_version":1,"layout":{"codebook_sizes":[4,4],"suffix_size":null},"#,
        r#""collision_policy":"share","items":4,"payload_bytes":0,"payload_crc32":0,"crc32":0}"#,
    );
    let sids = [1_u32, 2, 0, 3, 1, 2, 3, 3].map(u32::to_le_bytes).concat();
    seeds.push(("v1-shared".to_owned(), [&[3], shared.as_bytes(), &[0], &sids].concat()));
    let newer = br#"{"format_version": 3, "shards": [1, 2]}"#;
    seeds.push(("v3".to_owned(), [&[0], newer.as_slice()].concat()));
    Ok(seeds)
}

/// One input for the files as they are and under their second name, one signed, and one for the data alone.
fn push(seeds: &mut Seeds, name: &str, json: &[u8], payload: &[u8]) {
    let header = payload.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize + 8);
    for (mode, payload) in [(0, payload), (1, payload), (3, &payload[header..]), (4, payload)] {
        seeds.push((format!("{name}-{mode}"), [&[mode], json.trim_ascii(), &[0], payload].concat()));
    }
}

fn indexes() -> Result<Vec<(String, SidIndex)>, Box<dyn Error>> {
    let (suffix, share) = (CollisionPolicy::Suffix, CollisionPolicy::Share);
    let few = array![[1, 2], [0, 3], [1, 2]];
    let small = SidIndex::from_codes(SidLayout::new(vec![4, 4])?.with_suffix(3), few.view(), suffix)?;
    let shared = SidIndex::from_codes(SidLayout::new(vec![4, 4])?.without_suffix(), few.view(), share)?;
    let empty = SidIndex::from_sids(SidLayout::new(vec![2])?, &[], suffix)?;
    let constant = SidIndex::from_sids(SidLayout::new(vec![1, 1])?.without_suffix(), &[0; 12], share)?;
    let codes = Array2::from_shape_fn((60, 3), |(i, level)| (i as u32 * [7, 11, 13][level]) % 64);
    let mut holes = SidIndex::from_codes(SidLayout::new(vec![64; 3])?, codes.view(), suffix)?;
    for item in (0..60).step_by(7) {
        holes.remove(ItemId(item));
    }
    holes.compact()?;
    let codes = Array2::from_shape_fn((500, 2), |(i, level)| (i as u32 * [1, 3][level]) % 8);
    let dense = SidIndex::from_codes(SidLayout::new(vec![8; 2])?.without_suffix(), codes.view(), share)?;
    let codes = Array2::from_shape_fn((40, 2), |(i, level)| (i as u32 * [7919, 104_729][level]) % 65_536);
    let wide = SidIndex::from_codes(SidLayout::new(vec![65_536; 2])?.with_suffix(1), codes.view(), suffix)?;
    let codes = Array2::from_shape_fn((12, 20), |(i, level)| (i as u32 >> (level % 4)) % 2);
    let long = SidIndex::from_codes(SidLayout::new(vec![2; 20])?, codes.view(), suffix)?;
    Ok([
        ("small", small),
        ("shared", shared),
        ("empty", empty),
        ("constant", constant),
        ("holes", holes.with_codebook(CodebookId([7; 16]))),
        ("dense", dense),
        ("wide", wide),
        ("long", long),
    ]
    .map(|(name, index)| (name.to_owned(), index))
    .into())
}
