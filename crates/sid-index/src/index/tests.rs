use std::collections::BTreeMap;

use ndarray::{Array2, array};
use proptest::prelude::*;

use super::*;

fn rows(codes: &[Vec<u32>], levels: usize) -> Array2<u32> {
    Array2::from_shape_vec((codes.len(), levels), codes.concat()).unwrap()
}

fn layout(levels: usize, size: u32) -> SidLayout {
    SidLayout::new(vec![size; levels]).unwrap()
}

/// The Semantic IDs of all items, one behind the other.
fn flat(index: &SidIndex) -> Vec<u32> {
    index.sids().flat_map(|(_, sid)| sid.to_vec()).collect()
}

/// Checks every look-up of an index against maps made from the rows, one item at a time.
fn check(index: &SidIndex, codes: &[Vec<u32>]) {
    let share = index.policy() == CollisionPolicy::Share;
    let mut next: BTreeMap<&[u32], u32> = BTreeMap::new();
    let mut by_sid: BTreeMap<Vec<u32>, Vec<ItemId>> = BTreeMap::new();
    for (item, row) in (0..).map(ItemId).zip(codes) {
        let mut sid = row.clone();
        let suffix = next.entry(row).or_insert(0);
        if !share {
            sid.push(*suffix);
        }
        *suffix += 1;
        assert_eq!(index.sid(item).as_deref(), Some(&sid[..]));
        by_sid.entry(sid).or_default().push(item);
    }
    assert_eq!(index.len(), codes.len());
    assert_eq!(index.sid(ItemId(codes.len() as u32)), None);
    assert_eq!(index.sid(ItemId(u32::MAX)), None);
    for (sid, items) in &by_sid {
        assert_eq!(index.item(sid), Some(items[0]));
        assert_eq!(index.items_with_sid(sid).collect::<Vec<_>>(), *items);
        for length in 0..=sid.len() {
            let expected: Vec<ItemId> = by_sid
                .iter()
                .filter(|(other, _)| other.starts_with(&sid[..length]))
                .flat_map(|(_, i)| i.clone())
                .collect();
            assert_eq!(index.items_with_prefix(&sid[..length]).collect::<Vec<_>>(), expected);
            assert!(length == sid.len() || index.items_with_sid(&sid[..length]).len() == 0);
        }
        let mut other = sid.clone();
        other[0] += 1;
        assert_eq!(index.items_with_sid(&other).collect::<Vec<_>>(), by_sid.get(&other).cloned().unwrap_or_default());
        other.push(0);
        assert_eq!(index.item(&other), None);
    }
    let expected = if codes.is_empty() { 0.0 } else { 1.0 - next.len() as f64 / codes.len() as f64 };
    assert_eq!(index.collision_rate(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn agrees_with_maps(codes in prop::collection::vec(prop::collection::vec(0u32..4, 2), 0..40), share: bool) {
        let policy = if share { CollisionPolicy::Share } else { CollisionPolicy::Suffix };
        let layout = if share { layout(2, 4).without_suffix() } else { layout(2, 4) };
        let index = SidIndex::from_codes(layout.clone(), rows(&codes, 2).view(), policy).unwrap();
        check(&index, &codes);
        prop_assert_eq!(SidIndex::from_sids(layout, &flat(&index), policy).unwrap(), index);
    }

    /// Adding items one by one, or some at a time, equals building from all.
    #[test]
    fn later_items_change_no_earlier_one(
        codes in prop::collection::vec(prop::collection::vec(0u32..3, 2), 1..20),
        first in 0usize..20,
    ) {
        let first = first.min(codes.len());
        let all = SidIndex::from_codes(layout(2, 3), rows(&codes, 2).view(), CollisionPolicy::Suffix).unwrap();
        let mut extended =
            SidIndex::from_codes(layout(2, 3), rows(&codes[..first], 2).view(), CollisionPolicy::Suffix).unwrap();
        let mut inserted = extended.clone();
        let added = extended.extend(rows(&codes[first..], 2).view()).unwrap();
        prop_assert_eq!(added, first as u32..codes.len() as u32);
        for (i, row) in codes.iter().enumerate().skip(first) {
            prop_assert_eq!(inserted.insert(row).unwrap(), ItemId(i as u32));
        }
        prop_assert_eq!(&extended, &all);
        prop_assert_eq!(&inserted, &all);
    }

    /// Layouts too wide for keys of 64 and of 128 bits are sorted by other routines.
    #[test]
    fn wide_layouts_agree_with_maps(
        codes in prop::collection::vec(prop::collection::vec(0u32..3, 9), 0..20),
        wide in prop::sample::select(vec![1u32 << 4, 1 << 10, 1 << 20]),
    ) {
        let layout = SidLayout::new(vec![wide; 9]).unwrap();
        let index = SidIndex::from_codes(layout, rows(&codes, 9).view(), CollisionPolicy::Suffix).unwrap();
        check(&index, &codes);
    }
}

#[test]
fn codebooks_of_one_value_take_no_bits() {
    let codes = vec![vec![0, 1], vec![0, 0], vec![0, 1]];
    let layout = SidLayout::new(vec![1, 2]).unwrap();
    check(&SidIndex::from_codes(layout, rows(&codes, 2).view(), CollisionPolicy::Suffix).unwrap(), &codes);
}

#[test]
fn a_new_suffix_is_above_the_greatest_in_use() {
    let mut index = SidIndex::from_sids(layout(2, 4), &[1, 1, 0, 1, 1, 5], CollisionPolicy::Suffix).unwrap();
    let item = index.insert(&[1, 1]).unwrap();
    assert_eq!(index.sid(item).unwrap().to_string(), "(1, 1, 6)");
}

#[test]
fn overflow_counts_old_and_new_items_and_changes_nothing() {
    let codes = Array2::from_shape_fn((17, 3), |(_, level)| [3, 5, 9][level]);
    let narrow = layout(3, 16).with_suffix(16);
    let error = SidIndex::from_codes(narrow.clone(), codes.view(), CollisionPolicy::Suffix).unwrap_err();
    assert_eq!(
        error.to_string(),
        "17 items share the codes [3, 5, 9] but the suffix has only 16 values; enlarge it with \
         `SidLayout::with_suffix` or add a level"
    );
    let sixteen = codes.slice(ndarray::s![..16, ..]);
    let mut index = SidIndex::from_codes(narrow, sixteen, CollisionPolicy::Suffix).unwrap();
    let before = index.clone();
    assert!(matches!(index.insert(&[3, 5, 9]), Err(IndexError::SuffixOverflow { items: 17, suffix_size: 16, .. })));
    assert_eq!(index, before);
}

#[test]
fn every_misfit_is_refused() {
    let one = array![[1u32, 2]];
    let build = |layout: SidLayout, policy| SidIndex::from_codes(layout, one.view(), policy).unwrap_err();
    assert!(matches!(build(layout(2, 4).without_suffix(), CollisionPolicy::Suffix), IndexError::NoSuffix));
    assert!(matches!(build(layout(2, 4), CollisionPolicy::Share), IndexError::UnusedSuffix));
    assert!(matches!(build(layout(3, 4), CollisionPolicy::Suffix), IndexError::Levels { expected: 3, got: 2 }));
    assert!(matches!(
        build(layout(2, 2), CollisionPolicy::Suffix),
        IndexError::CodeOutOfRange { item: ItemId(0), position: 1, code: 2, size: 2 }
    ));
    let empty_suffix = layout(2, 4).with_suffix(0);
    assert!(matches!(build(empty_suffix, CollisionPolicy::Suffix), IndexError::EmptyPosition { position: 2 }));

    let from_sids = |sids: &[u32]| SidIndex::from_sids(layout(1, 4), sids, CollisionPolicy::Suffix).unwrap_err();
    assert!(matches!(from_sids(&[0, 0, 1]), IndexError::Positions { expected: 2, got: 1 }));
    assert!(matches!(from_sids(&[0, 0, 4, 0]), IndexError::CodeOutOfRange { item: ItemId(1), position: 0, .. }));
    assert!(matches!(
        from_sids(&[3, 1, 0, 0, 3, 1]),
        IndexError::DuplicateSid { first: ItemId(0), second: ItemId(2), .. }
    ));

    let mut index = SidIndex::from_codes(layout(2, 4), one.view(), CollisionPolicy::Suffix).unwrap();
    assert!(matches!(index.insert(&[1]), Err(IndexError::Levels { expected: 2, got: 1 })));
    assert!(matches!(index.insert(&[1, 4]), Err(IndexError::CodeOutOfRange { item: ItemId(1), .. })));
    assert!(matches!(check_item_count(usize::MAX, 4), Err(IndexError::TooManyItems { .. })));
}
