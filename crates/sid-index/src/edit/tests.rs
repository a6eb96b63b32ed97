use std::collections::BTreeMap;

use ndarray::Array2;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{CollisionPolicy, Node, SidLayout};

/// The same as a sorted map, which needs no base and no overlay.
struct Plain {
    suffix_size: Option<u32>,
    sids: BTreeMap<ItemId, Vec<u32>>,
    by_sid: BTreeMap<(Vec<u32>, ItemId), ()>,
    next: u32,
}

impl Plain {
    fn new(suffix_size: Option<u32>) -> Self {
        Self { suffix_size, sids: BTreeMap::new(), by_sid: BTreeMap::new(), next: 0 }
    }

    /// `None` when the suffixes of the codes have run out.
    fn insert(&mut self, codes: &[u32]) -> Option<ItemId> {
        let mut sid = codes.to_vec();
        if let Some(size) = self.suffix_size {
            let used: Vec<u32> = self.below(codes).iter().map(|item| self.sids[item][codes.len()]).collect();
            let above = used.iter().max().map_or(0, |&suffix| suffix + 1);
            sid.push(if above < size { above } else { (0..size).find(|suffix| !used.contains(suffix))? });
        }
        let item = ItemId(self.next);
        self.next += 1;
        self.by_sid.insert((sid.clone(), item), ());
        self.sids.insert(item, sid);
        Some(item)
    }

    fn remove(&mut self, item: ItemId) -> Option<Vec<u32>> {
        let sid = self.sids.remove(&item)?;
        self.by_sid.remove(&(sid.clone(), item));
        Some(sid)
    }

    fn below(&self, prefix: &[u32]) -> Vec<ItemId> {
        let from = (prefix.to_vec(), ItemId(0));
        let items = self.by_sid.range(from..).map(|((sid, item), ())| (sid, *item));
        items.take_while(|(sid, _)| sid.starts_with(prefix)).map(|(_, item)| item).collect()
    }

    /// Checks every answer that walking the whole trie can give.
    fn check(&self, index: &SidIndex) {
        assert_eq!((index.len(), index.id_bound()), (self.sids.len(), self.next));
        let mut sids = self.sids.iter();
        for (item, sid) in index.sids() {
            assert_eq!(sids.next(), Some((&item, &sid.to_vec())));
        }
        assert_eq!(sids.next(), None);
        let mut open: Vec<(Vec<u32>, Node)> = vec![(Vec::new(), index.root())];
        let mut prefixes = vec![0; index.layout().positions() + 1];
        while let Some((prefix, node)) = open.pop() {
            prefixes[prefix.len()] += 1;
            let expected = self.below(&prefix);
            assert_eq!(index.items_below(node).collect::<Vec<_>>(), expected);
            assert_eq!((index.count_below(node), index.items_below(node).len()), (expected.len(), expected.len()));
            assert_eq!(index.items_with_prefix(&prefix).collect::<Vec<_>>(), expected);
            assert_eq!(index.find(&prefix), Some(node));
            let mut codes: Vec<u32> =
                expected.iter().filter_map(|item| self.sids[item].get(prefix.len()).copied()).collect();
            codes.dedup();
            assert_eq!(index.children(node).map(|(code, _)| code).collect::<Vec<_>>(), codes);
            let mut listed = Vec::new();
            index.prefetch(node);
            index.for_each_group(node, |first, group| {
                listed.extend((0..64).filter(|bit| group >> bit & 1 == 1).map(|bit| first + bit));
            });
            assert_eq!(listed, codes);
            if index.is_leaf(node) {
                assert_eq!(index.item(&prefix), expected.first().copied());
            } else {
                let size = index.layout().sizes()[prefix.len()];
                for code in 0..=size {
                    assert_eq!(index.child(node, code).is_some(), codes.contains(&code));
                }
            }
            open.extend(index.children(node).map(|(code, child)| ([&prefix[..], &[code]].concat(), child)));
        }
        for (length, &count) in prefixes.iter().enumerate() {
            assert_eq!(index.count_prefixes(length), if self.sids.is_empty() && length > 0 { 0 } else { count });
        }
    }
}

fn empty(sizes: &[u32], suffix_size: Option<u32>) -> SidIndex {
    let layout = SidLayout::new(sizes.to_vec()).unwrap();
    let (layout, policy) = match suffix_size {
        Some(size) => (layout.with_suffix(size), CollisionPolicy::Suffix),
        None => (layout.without_suffix(), CollisionPolicy::Share),
    };
    SidIndex::from_sids(layout, &[], policy).unwrap()
}

fn run(seed: u64, operations: usize, sizes: &[u32], suffix_size: Option<u32>, check_every: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut index, mut plain) = (empty(sizes, suffix_size), Plain::new(suffix_size));
    for operation in 0..operations {
        let codes = |rng: &mut ChaCha8Rng| sizes.iter().map(|&size| rng.random_range(0..size)).collect::<Vec<_>>();
        match rng.random_range(0..1000) {
            0..=549 => {
                let codes = codes(&mut rng);
                match plain.insert(&codes) {
                    Some(item) => assert_eq!(index.insert(&codes).unwrap(), item),
                    None => assert!(matches!(index.insert(&codes), Err(IndexError::SuffixOverflow { .. }))),
                }
            }
            550..=559 => {
                let rows = rng.random_range(0..6);
                let codes: Vec<Vec<u32>> = (0..rows).map(|_| codes(&mut rng)).collect();
                let before = (plain.next, index.clone());
                let batch = Array2::from_shape_vec((rows, sizes.len()), codes.concat()).unwrap();
                let added = index.extend(batch.view());
                let expected: Vec<_> = codes.iter().map_while(|row| plain.insert(row)).collect();
                if expected.len() == rows {
                    assert_eq!(added.unwrap(), before.0..before.0 + rows as u32);
                } else {
                    // All or nothing.
                    assert!(matches!(added, Err(IndexError::SuffixOverflow { .. })));
                    assert_eq!(index, before.1);
                    expected.into_iter().for_each(|item| drop(plain.remove(item)));
                    plain.next = before.0;
                }
            }
            560..=997 => {
                let item = ItemId(rng.random_range(0..index.id_bound() + 2));
                assert_eq!(index.remove(item).map(|sid| sid.to_vec()), plain.remove(item));
            }
            _ => index.compact().unwrap(),
        }
        if operation % check_every == 0 {
            plain.check(&index);
        }
    }
    plain.check(&index);
    let before = index.clone();
    index.compact().unwrap();
    assert_eq!((index.pending(), &index), (0, &before));
    plain.check(&index);
}

/// A hundred thousand operations end where an index built at once from the survivors would.
#[test]
fn operations_equal_a_rebuilt_index() {
    run(1, 100_000, &[6, 5, 7], Some(4), 5_000);
    run(2, 20_000, &[6, 5, 7], None, 2_000);
    run(3, 3_000, &[300, 2], Some(256), 500);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn short_histories_equal_a_rebuilt_index(seed: u64, share: bool) {
        run(seed, 200, &[3, 2], (!share).then_some(3), 7);
    }
}

#[test]
fn a_suffix_that_is_free_again_is_given_when_there_is_none_above() {
    let mut index = empty(&[4], Some(3));
    for _ in 0..3 {
        index.insert(&[1]).unwrap();
    }
    assert!(matches!(index.insert(&[1]), Err(IndexError::SuffixOverflow { items: 4, suffix_size: 3, .. })));
    assert_eq!(index.remove(ItemId(1)).unwrap().to_string(), "(1, 1)");
    assert_eq!((index.remove(ItemId(1)), index.remove(ItemId(9))), (None, None));
    assert_eq!(index.insert(&[1]).unwrap(), ItemId(3));
    assert_eq!(index.sid(ItemId(3)).unwrap().to_string(), "(1, 1)");
}

#[test]
fn a_whole_semantic_id_has_no_child_and_an_old_node_no_item_that_is_none() {
    let mut index = empty(&[4, 4], Some(2));
    for code in 0..3 {
        index.insert(&[1, code]).unwrap();
    }
    for code in [0, 1, u32::MAX] {
        assert_eq!(index.find(&[1, 2, 0, code]), None);
    }
    let old = index.root();
    for change in
        [|index: &mut SidIndex| drop(index.remove(ItemId(0))), |index: &mut SidIndex| index.compact().unwrap()]
    {
        change(&mut index);
        assert!(index.items_below(old).all(|item| index.contains(item)));
        assert!(index.count_below(old) <= 3);
        let _ = (index.children(old).count(), index.child(old, 1));
    }
}

#[test]
fn wrong_rows_change_nothing() {
    let mut index = empty(&[4, 4], Some(2));
    index.insert(&[1, 1]).unwrap();
    let before = index.clone();
    assert!(matches!(index.insert(&[1]), Err(IndexError::Levels { expected: 2, got: 1 })));
    assert!(matches!(index.insert(&[1, 4]), Err(IndexError::CodeOutOfRange { item: ItemId(1), position: 1, .. })));
    let rows = ndarray::array![[2, 2], [1, 1], [1, 1]];
    assert!(matches!(index.extend(rows.view()), Err(IndexError::SuffixOverflow { items: 3, .. })));
    assert_eq!(index, before);
}
