use std::collections::BTreeSet;

use ndarray::Array2;
use proptest::prelude::*;

use super::*;
use crate::{CollisionPolicy, SidLayout};

fn index(codes: &[u32], share: bool) -> SidIndex {
    let codes = Array2::from_shape_vec((codes.len() / 2, 2), codes.to_vec()).unwrap();
    let layout = SidLayout::new(vec![3, 3]).unwrap();
    if share {
        SidIndex::from_codes(layout.without_suffix(), codes.view(), CollisionPolicy::Share).unwrap()
    } else {
        SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Suffix).unwrap()
    }
}

/// Checks every answer against the set of allowed items.
fn check(index: &SidIndex, filter: &ItemFilter, allowed: &BTreeSet<ItemId>) {
    filter.check(index).unwrap();
    assert_eq!(filter.count(index), allowed.len());
    for item in (0..index.id_bound() + 2).map(ItemId) {
        assert_eq!(filter.allows(index, item), allowed.contains(&item), "{item}");
    }
    let mut open = vec![index.root()];
    while let Some(node) = open.pop() {
        let expected = index.items_below(node).any(|item| allowed.contains(&item));
        assert_eq!(filter.any_below(index, node), expected);
        open.extend(index.children(node).map(|(_, child)| child));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn answers_equal_those_of_a_set(
        codes in prop::collection::vec(0u32..3, 40),
        share: bool,
        later in prop::collection::vec((0u32..3, 0u32..3), 0..6),
        gone in prop::collection::vec(0u32..26, 0..8),
        lists in (prop::collection::vec(0u32..20, 0..12), prop::collection::vec(0u32..20, 0..12)),
        kinds in (any::<bool>(), any::<bool>()),
        parity in 1u32..4,
    ) {
        let mut index = index(&codes, share);
        let make = |only: bool, list: &[u32]| {
            let listed: BTreeSet<ItemId> = list.iter().map(|&item| ItemId(item)).collect();
            let items = list.iter().copied().map(ItemId);
            let filter = if only { ItemFilter::only(&index, items) } else { ItemFilter::excluding(&index, items) };
            (filter.unwrap(), move |item: &ItemId| listed.contains(item) == only)
        };
        let (first, is_first) = make(kinds.0, &lists.0);
        let (second, is_second) = make(kinds.1, &lists.1);
        let both = first.intersect(&second).unwrap();
        let odd = ItemFilter::matching(&index, |item| item.0 % parity == 0);
        // Filters stay valid while the index changes; what comes later is not listed.
        for (a, b) in later {
            index.insert(&[a, b]).unwrap();
        }
        for item in gone {
            index.remove(ItemId(item));
        }
        let all: BTreeSet<ItemId> = index.sids().map(|(item, _)| item).collect();
        let of = |test: &dyn Fn(&ItemId) -> bool| all.iter().copied().filter(|item| test(item)).collect::<BTreeSet<_>>();
        check(&index, &first, &of(&is_first));
        check(&index, &both, &of(&|item| is_first(item) && is_second(item)));
        check(&index, &odd, &of(&|item| item.0 < 20 && item.0 % parity == 0));
        check(&index, &ItemFilter::matching(&index, |item| item.0 % 2 == 1), &of(&|item| item.0 % 2 == 1));
    }
}

#[test]
fn a_filter_of_another_index_is_refused() {
    let mut ours = index(&[0, 1, 1, 1], false);
    let filter = ItemFilter::only(&ours, [ItemId(1)]).unwrap();
    let other = index(&[0, 1, 1, 1], false);
    assert!(matches!(filter.check(&other), Err(IndexError::StaleFilter)));
    assert!(matches!(filter.intersect(&ItemFilter::only(&other, []).unwrap()), Err(IndexError::StaleFilter)));
    assert!(matches!(ItemFilter::only(&ours, [ItemId(2)]), Err(IndexError::UnknownItem { item: ItemId(2), items: 2 })));
    ours.insert(&[0, 0]).unwrap();
    filter.check(&ours).unwrap();
    ours.compact().unwrap();
    assert!(matches!(filter.check(&ours), Err(IndexError::StaleFilter)));
}
