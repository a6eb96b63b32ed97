use std::collections::BTreeSet;

use proptest::prelude::*;
use sid_index::{CollisionPolicy, ItemFilter, ItemId, SidIndex, SidLayout, SidVocab};

use super::*;
use crate::{catalogue::Catalogue, resolve::Resolve, toy::Toy};

fn searches(width: usize, seed: u64) -> Vec<AnySearch> {
    vec![
        AnySearch::Beam(BeamSearch::new(width)),
        AnySearch::Sampling(Sampling::new(width, seed)),
        AnySearch::Sampling(Sampling::new(width, seed).with_replacement()),
        AnySearch::Diverse(DiverseBeamSearch::new(width, width.min(3))),
        AnySearch::Exact(ExactSearch::new(width)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the search, the filters, and what was added and removed: every sequence is an item that is allowed, and a
    /// user for whom some are gets one.
    #[test]
    fn results_are_in_the_catalogue_and_in_the_filter(
        codes in prop::collection::vec(prop::array::uniform2(0u32..4), 1..30),
        later in prop::collection::vec(prop::array::uniform2(0u32..4), 0..6),
        gone in prop::collection::vec(0u32..36, 0..6),
        listed in prop::collection::btree_set(0u32..30, 0..20),
        allowed: bool, seed: u64, width in 1usize..12,
    ) {
        let layout = SidLayout::new(vec![4; 2]).unwrap();
        let rows = ndarray::Array2::from_shape_vec((codes.len(), 2), codes.concat()).unwrap();
        let mut index = SidIndex::from_codes(layout.clone(), rows.view(), CollisionPolicy::Suffix).unwrap();
        later.iter().for_each(|codes| drop(index.insert(codes).map(|item| item.0)));
        gone.iter().for_each(|&item| drop(index.remove(ItemId(item))));
        let vocab = SidVocab::new(&layout, 1).unwrap();
        let toy = Toy::new(vocab.size(), seed, 300);
        let filter = ItemFilter::matching(&index, |item| listed.contains(&item.0) == allowed);
        let mut batch = RaggedBatch::new();
        batch.push(&[1, 2], &[]).unwrap();
        batch.push(&[3], &[]).unwrap();
        let catalogue = Catalogue::new(&index, &vocab).and_then(|catalogue| catalogue.filtered("listed", &filter));
        let Ok(catalogue) = catalogue else {
            prop_assert_eq!(filter.count(&index), 0);
            return Ok(());
        };
        for search in searches(width, seed) {
            for user in search.decode(&toy, &batch, &[&catalogue]).unwrap() {
                prop_assert!(!user.is_empty());
                let resolved = Resolve::Exact.resolve(&index, &vocab, &user, user.len()).unwrap();
                let distinct: BTreeSet<_> = user.iter().map(|found| found.tokens.clone()).collect();
                prop_assert_eq!((resolved.invalid, resolved.items.len()), (0, distinct.len()));
                for found in resolved.items {
                    prop_assert!(catalogue.allows(found.item) && listed.contains(&found.item.0) == allowed);
                }
            }
        }
    }
}
