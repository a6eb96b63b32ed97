//! The index of a catalogue of any size beside what else could hold it.

use std::{collections::HashMap, hash::Hash, hint::black_box, time::Instant};

use constraint_decoding_trie::transition::build_static_index;
use genrec::{
    data::distinct_codes,
    index::{CollisionPolicy, ItemId, Node, SidIndex, SidLayout},
};
use ndarray::Array2;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::BoxError;

/// Codes of four levels of 256.
const SIZES: [u32; 4] = [256; 4];

#[derive(Debug, Deserialize)]
pub(crate) struct Measure {
    items: usize,
    /// Exponent of Zipf's law; zero for uniform codes.
    exponent: f64,
    /// Random look-ups of each kind and round.
    queries: usize,
    rounds: usize,
    /// Whether to build the larger structures too: a `HashMap` takes some gigabytes at a hundred million.
    others: bool,
}

pub(crate) fn measure(request: &Measure) -> Result<Value, BoxError> {
    let codes = distinct_codes(request.items, &SIZES, request.exponent, 1)?;
    let codes = Array2::from_shape_vec((request.items, SIZES.len()), codes)?;
    reset_peak();
    let before = crate::peak_memory()?;
    let start = Instant::now();
    let index = build(&codes)?;
    let build_seconds = start.elapsed().as_secs_f64();
    let build_bytes = crate::peak_memory()?;
    let dir = std::env::temp_dir().join(format!("genrec-index-{}", std::process::id()));
    let start = Instant::now();
    index.save(&dir)?;
    let save_seconds = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let mapped = SidIndex::open_mapped(&dir)?;
    let map_milliseconds = start.elapsed().as_secs_f64() * 1e3;
    let start = Instant::now();
    drop(SidIndex::open(&dir)?);
    let open_seconds = start.elapsed().as_secs_f64();
    let bytes = index.bytes();
    let per_item = |bytes: usize| bytes as f64 / request.items as f64;

    let mut times = look_ups(&index, &codes, request);
    times.extend(look_ups(&mapped, &codes, request).into_iter().map(|(name, time)| (format!("{name}, mapped"), time)));
    let mut others = Vec::new();
    if request.others {
        others = compete(&codes, request, &mut times);
    }
    drop(mapped);
    std::fs::remove_dir_all(&dir)?;
    Ok(json!({
        "items": request.items,
        "exponent": request.exponent,
        "build_seconds": build_seconds,
        "peak_bytes_before": before,
        "peak_bytes": build_bytes,
        "save_seconds": save_seconds,
        "open_seconds": open_seconds,
        "map_milliseconds": map_milliseconds,
        "mask_bytes_per_item": per_item(bytes.trie),
        "rows_bytes_per_item": per_item(bytes.rows),
        "order_bytes_per_item": per_item(bytes.order),
        "bytes_per_item": per_item(bytes.total()),
        "nanoseconds": times.into_iter().collect::<serde_json::Map<_, _>>(),
        "others": others,
    }))
}

fn build(codes: &Array2<u32>) -> Result<SidIndex, BoxError> {
    let layout = SidLayout::new(SIZES.to_vec())?.without_suffix();
    Ok(SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Share)?)
}

/// Median nanoseconds of a look-up whose place depends on the result of the one before, so that none overlap, and of
/// one whose place does not.
fn timed(request: &Measure, queries: &[u32], mut look_up: impl FnMut(u32) -> u32) -> Value {
    let zero = black_box(0_u32);
    let mut in_turn = Vec::new();
    let mut overlapping = Vec::new();
    for _ in 0..request.rounds {
        let start = Instant::now();
        let mut last = 0;
        for &query in queries {
            last = look_up(query ^ (last & zero));
        }
        black_box(last);
        in_turn.push(start.elapsed().as_secs_f64() * 1e9 / queries.len() as f64);
        let start = Instant::now();
        let mut sum = 0_u32;
        for &query in queries {
            sum = sum.wrapping_add(look_up(query));
        }
        black_box(sum);
        overlapping.push(start.elapsed().as_secs_f64() * 1e9 / queries.len() as f64);
    }
    json!({ "in_turn": median(&mut in_turn), "overlapping": median(&mut overlapping) })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Random items, the same ones in every process.
fn random_items(request: &Measure) -> Vec<u32> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((u128::from(state) * request.items as u128) >> 64) as u32
    };
    std::iter::repeat_with(next).take(request.queries).collect()
}

fn key(row: &[u32]) -> u32 {
    row.iter().fold(0, |key, code| key << 8 | code)
}

fn codes_of(key: u32) -> [u32; 4] {
    [key >> 24, key >> 16 & 255, key >> 8 & 255, key & 255]
}

fn look_ups(index: &SidIndex, codes: &Array2<u32>, request: &Measure) -> Vec<(String, Value)> {
    let items = random_items(request);
    let keys: Vec<u32> = codes.rows().into_iter().map(|row| row.as_slice().map_or(0, key)).collect();
    let wanted: Vec<u32> = items.iter().map(|&item| keys[item as usize]).collect();
    let nodes: Vec<Node> = wanted.iter().filter_map(|&key| index.find(&codes_of(key)[..3])).collect();
    let numbers: Vec<u32> = (0..nodes.len() as u32).collect();
    let find = |depth: usize| {
        timed(request, &wanted, |key| {
            let Some(node) = index.find(&codes_of(key)[..depth]) else { return 0 };
            index.children(node).fold(0, |sum, (code, _)| sum ^ code)
        })
    };
    vec![
        ("plain array".to_owned(), timed(request, &items, |item| keys[item as usize])),
        (
            "item to SID".to_owned(),
            timed(request, &items, |item| {
                index.sid(ItemId(item)).map_or(0, |sid| sid.iter().fold(0, |a, code| a ^ code))
            }),
        ),
        ("SID to item".to_owned(), timed(request, &wanted, |key| index.item(&codes_of(key)).map_or(0, |item| item.0))),
        (
            "children of a node".to_owned(),
            timed(request, &numbers, |number| {
                index.children(nodes[number as usize]).fold(0, |sum, (code, _)| sum ^ code)
            }),
        ),
        ("children of a prefix of 1".to_owned(), find(1)),
        ("children of a prefix of 2".to_owned(), find(2)),
        ("children of a prefix of 3".to_owned(), find(3)),
    ]
}

/// A hash map and a sorted array of the same pairs, and another trie of the same tuples.
fn compete(codes: &Array2<u32>, request: &Measure, times: &mut Vec<(String, Value)>) -> Vec<Value> {
    let items = random_items(request);
    let keys: Vec<u32> = codes.rows().into_iter().map(|row| row.as_slice().map_or(0, key)).collect();
    let wanted: Vec<u32> = items.iter().map(|&item| keys[item as usize]).collect();
    let mut others = Vec::new();

    // Of what a catalogue has, tuples of codes, and of the smallest keys that tuples of four bytes can be packed into.
    let of_codes = (0..).zip(&keys).map(|(item, &key)| (codes_of(key), item));
    hash_map("HashMap", of_codes, codes_of, &wanted, request, times, &mut others);
    let packed = (0..).zip(&keys).map(|(item, &key)| (key, item));
    hash_map("HashMap of packed keys", packed, |key| key, &wanted, request, times, &mut others);

    // It holds its trie in hash maps while it builds: a hundred bytes and more for each node.
    if request.items <= 1_000_000 {
        let rows: Vec<Vec<u32>> = keys.iter().map(|&key| codes_of(key).to_vec()).collect();
        let start = Instant::now();
        let other = build_static_index(&rows, 256, 4, 2).sparse;
        let bytes = 4 * other.row_pointers.len() + 8 * other.data.len();
        others.push(json!({
            "name": "constraint-decoding-trie",
            "build_seconds": start.elapsed().as_secs_f64(),
            "bytes_per_item": bytes as f64 / request.items as f64,
        }));
        let children = |key: u32| {
            let node = codes_of(key).iter().take(3).try_fold(0, |node, &code| other.next_node(node, code));
            node.map_or(0, |node| other.children(node).iter().fold(0, |sum, [code, _]| sum ^ code))
        };
        times.push((
            "children of a prefix of 3, constraint-decoding-trie".to_owned(),
            timed(request, &wanted, children),
        ));
    }

    let start = Instant::now();
    let mut sorted: Vec<(u32, u32)> = (0..).zip(&keys).map(|(item, &key)| (key, item)).collect();
    sorted.sort_unstable();
    others.push(json!({
        "name": "sorted array",
        "build_seconds": start.elapsed().as_secs_f64(),
        "bytes_per_item": 8.0,
    }));
    let find = |key: u32| sorted.binary_search_by_key(&key, |pair| pair.0).map_or(0, |place| sorted[place].1);
    times.push(("SID to item, sorted array".to_owned(), timed(request, &wanted, find)));
    let children = |key: u32| {
        let prefix = key >> 8;
        let start = sorted.partition_point(|pair| pair.0 >> 8 < prefix);
        sorted[start..].iter().take_while(|pair| pair.0 >> 8 == prefix).fold(0, |sum, pair| sum ^ (pair.0 & 255))
    };
    times.push(("children of a prefix of 3, sorted array".to_owned(), timed(request, &wanted, children)));
    others
}

fn hash_map<K: Hash + Eq>(
    name: &str,
    pairs: impl Iterator<Item = (K, u32)>,
    key: impl Fn(u32) -> K,
    wanted: &[u32],
    request: &Measure,
    times: &mut Vec<(String, Value)>,
    others: &mut Vec<Value>,
) {
    let start = Instant::now();
    let map: HashMap<K, u32> = pairs.collect();
    others.push(json!({
        "name": name,
        "build_seconds": start.elapsed().as_secs_f64(),
        // A pair and a byte of control for each slot.
        "bytes_per_item": (size_of::<(K, u32)>() + 1) as f64 * (map.capacity() as f64 * 8.0 / 7.0) / request.items as f64,
    }));
    let find = |wanted| map.get(&key(wanted)).copied().unwrap_or(0);
    times.push((format!("SID to item, {name}"), timed(request, wanted, find)));
}

/// Begins to count the peak of memory anew, where the system can.
fn reset_peak() {
    // Where it cannot, the peak includes the drawing of the codes.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
