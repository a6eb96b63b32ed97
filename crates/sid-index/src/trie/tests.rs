use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::layout::SidLayout;

fn build(sizes: &[u32], rows: &[Vec<u32>]) -> Trie {
    let mut builder = TrieBuilder::new(&SidLayout::new(sizes.to_vec()).unwrap().without_suffix());
    for (place, row) in rows.iter().enumerate() {
        assert_eq!(builder.push(row), place == 0 || rows[place - 1] != *row);
    }
    builder.finish()
}

/// Visits every node and checks all that the trie says of it against maps from prefixes.
fn check_against_maps(sizes: &[u32], rows: &[Vec<u32>]) {
    let (trie, positions) = (build(sizes, rows), sizes.len());
    let mut continuations: BTreeMap<Vec<u32>, BTreeSet<u32>> = BTreeMap::new();
    let mut ranks: BTreeMap<Vec<u32>, Range<u32>> = BTreeMap::new();
    for (rank, row) in (0u32..).zip(rows) {
        for depth in 0..=positions {
            ranks.entry(row[..depth].to_vec()).or_insert(rank..rank).end = rank + 1;
            if depth < positions {
                continuations.entry(row[..depth].to_vec()).or_default().insert(row[depth]);
            }
        }
    }
    let mut seen = vec![0; positions + 1];
    let mut pending = vec![(Vec::new(), 0)];
    while let Some((prefix, node)) = pending.pop() {
        let depth = prefix.len();
        seen[depth] += 1;
        let expected: Vec<u32> = continuations.get(&prefix).into_iter().flatten().copied().collect();
        assert_eq!(trie.children(depth, node).map(|(code, _)| code).collect::<Vec<_>>(), expected);
        assert_eq!(trie.children(depth, node).len(), expected.len());
        assert_eq!(trie.ranks(depth, node), ranks.get(&prefix).cloned().unwrap_or(0..0));
        for code in 0..sizes.get(depth).map_or(3, |size| size + 3) {
            assert_eq!(trie.child(depth, node, code).is_some(), expected.contains(&code));
        }
        for (code, child) in trie.children(depth, node) {
            assert_eq!(trie.child(depth, node, code), Some(child));
            pending.push(([prefix.as_slice(), &[code]].concat(), child));
        }
    }
    for (depth, &seen) in seen.iter().enumerate() {
        assert_eq!(trie.nodes(depth), seen);
    }
    assert_eq!((trie.nodes(positions + 1), trie.items()), (0, rows.len() as u32));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn agrees_with_maps_of_prefixes(
        (sizes, mut rows) in prop::collection::vec(prop::sample::select(vec![1u32, 2, 7, 64, 300]), 1..5).prop_flat_map(|sizes| {
            let row = sizes.iter().map(|&size| 0..size.min(9)).collect::<Vec<_>>();
            (Just(sizes), prop::collection::vec(row, 1..80))
        }),
    ) {
        rows.sort();
        check_against_maps(&sizes, &rows);
    }
}

#[test]
fn wide_and_full_levels_agree_too() {
    let far: Vec<Vec<u32>> = (0..700).map(|i| vec![i * 91 % 65_536, i % 5, i * 7 % 256]).collect();
    let mut far: Vec<_> = far.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    check_against_maps(&[65_536, 5, 256], &far);
    far.dedup_by_key(|row| row[0]);
    check_against_maps(&[65_536, 5, 256], &far);
    let full: Vec<Vec<u32>> = (0..512).map(|i| vec![i / 64, i / 8 % 8, i % 8]).collect();
    check_against_maps(&[8, 8, 8], &full);
}

#[test]
fn the_empty_trie_is_a_root_without_children() {
    check_against_maps(&[4, 4, 4], &[]);
}

#[test]
fn a_node_of_another_trie_is_harmless() {
    let small = build(&[2, 2], &[vec![0, 0], vec![0, 1]]);
    for depth in 0..4 {
        for node in [1, 2, 77, u32::MAX - 1, u32::MAX] {
            assert!(small.ranks(depth, node).end <= 2);
            assert!(small.children(depth, node).count() <= 2);
            let _ = (small.child(depth, node, 1), small.leaf(node, 1, |_| ()));
        }
    }
}
