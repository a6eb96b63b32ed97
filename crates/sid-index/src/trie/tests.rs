use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn build(positions: usize, rows: &[Vec<u32>]) -> PrefixTrie {
    PrefixTrie::from_sorted(positions, rows.iter().map(Vec::as_slice)).unwrap()
}

/// Visits every node and checks all that the trie says of it against maps from prefixes.
fn check_against_maps(positions: usize, rows: &[Vec<u32>]) {
    let trie = build(positions, rows);
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
    let mut seen = 0;
    let mut pending = vec![(Vec::new(), PrefixTrie::ROOT)];
    while let Some((prefix, node)) = pending.pop() {
        seen += 1;
        let expected: Vec<u32> = continuations.get(&prefix).into_iter().flatten().copied().collect();
        assert_eq!(trie.children(node).map(|(code, _)| code).collect::<Vec<_>>(), expected);
        assert_eq!(trie.depth(node), prefix.len());
        assert_eq!(trie.is_leaf(node), prefix.len() == positions);
        assert_eq!(trie.rank_range(node), ranks.get(&prefix).cloned().unwrap_or(0..0));
        assert_eq!(trie.find(&prefix), Some(node));
        for code in 0..8 {
            assert_eq!(trie.child(node, code).is_some(), expected.contains(&code));
        }
        for (code, child) in trie.children(node) {
            assert_eq!(trie.child(node, code), Some(child));
            pending.push(([prefix.as_slice(), &[code]].concat(), child));
        }
    }
    assert_eq!(seen, trie.num_nodes());
    for depth in 1..=positions {
        assert_eq!(trie.nodes_at_depth(depth), ranks.keys().filter(|prefix| prefix.len() == depth).count());
    }
    assert_eq!(trie.nodes_at_depth(positions + 1), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn agrees_with_maps_of_prefixes(
        mut rows in (1usize..5).prop_flat_map(|m| prop::collection::vec(prop::collection::vec(0u32..7, m), 1..60)),
    ) {
        rows.sort();
        check_against_maps(rows[0].len(), &rows);
    }
}

#[test]
fn the_empty_trie_is_a_root_without_children() {
    check_against_maps(3, &[]);
    let trie = build(3, &[]);
    assert_eq!(trie.children(PrefixTrie::ROOT).len(), 0);
    assert_eq!(trie.num_nodes(), 1);
}

#[test]
fn a_node_of_another_trie_is_harmless() {
    let large = build(2, &[vec![0, 0], vec![0, 1], vec![1, 5]]);
    let small = build(1, &[vec![0]]);
    let stranger = large.find(&[1, 5]).unwrap();
    assert_eq!(small.rank_range(stranger), 0..0);
    assert_eq!(small.children(stranger).len(), 0);
    assert_eq!(small.child(stranger, 0), None);
    assert_eq!(small.depth(stranger), 1);
}
