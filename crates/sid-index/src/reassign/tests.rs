use std::{collections::BTreeMap, convert::Infallible};

use proptest::prelude::*;

use super::*;
use crate::CollisionPolicy;

mod cases;
mod optimum;

const METHODS: [ReassignMethod; 3] =
    [ReassignMethod::Greedy, ReassignMethod::FirstFit, ReassignMethod::Sinkhorn { epsilon: 3e-3, iterations: 50 }];

/// A cost drawn from the prefix, the item and the code; ties are frequent.
fn drawn(seed: u64, prefix: &[u32], item: u32, code: usize) -> f32 {
    let words = prefix.iter().copied().chain([u32::MAX, item, code as u32]);
    let hash = words.fold(seed, |h, word| {
        let mixed = (h ^ u64::from(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    });
    (hash % 16) as f32
}

fn random_costs(sizes: &[u32], seed: u64, first: u32) -> impl CodeCosts<Error = Infallible> {
    move |prefix: &[u32], rows: &[u32]| {
        assert!(rows.windows(2).all(|pair| pair[0] < pair[1]) && !rows.is_empty());
        let shape = (rows.len(), sizes[prefix.len()] as usize);
        Ok(Array2::from_shape_fn(shape, |(i, code)| drawn(seed, prefix, first + rows[i], code)))
    }
}

/// Costs of a single level.
fn table(costs: &Array2<f32>) -> impl CodeCosts<Error = Infallible> {
    |_: &[u32], rows: &[u32]| {
        Ok(Array2::from_shape_fn((rows.len(), costs.ncols()), |(i, code)| costs[[rows[i] as usize, code]]))
    }
}

fn never(_: &[u32], _: &[u32]) -> std::result::Result<Array2<f32>, Infallible> {
    panic!("no item has to move");
}

fn layout(sizes: &[u32]) -> SidLayout {
    SidLayout::new(sizes.to_vec()).unwrap().without_suffix()
}

fn counts(codes: &Array2<u32>) -> BTreeMap<Vec<u32>, usize> {
    let mut counts = BTreeMap::new();
    codes.rows().into_iter().for_each(|row| *counts.entry(row.to_vec()).or_insert(0) += 1);
    counts
}

/// Codes of some items, within their sizes, and the sizes; up to twice as many items as tuples.
fn catalogues() -> impl Strategy<Value = (Vec<u32>, Array2<u32>)> {
    let sizes = prop::sample::select(vec![vec![4], vec![1, 3], vec![2, 2], vec![3, 2, 2], vec![2, 3, 4]]);
    sizes.prop_flat_map(|sizes| {
        let tuples = sizes.iter().product::<u32>() as usize;
        let bounds = sizes.clone();
        // Few codes are used of each level, so that most items collide.
        prop::collection::vec(prop::collection::vec(0u32..8, sizes.len()), 0..2 * tuples + 1).prop_map(move |rows| {
            let code = |(i, l): (usize, usize)| (rows[i][l] / 3).min(bounds[l] - 1);
            (bounds.clone(), Array2::from_shape_fn((rows.len(), bounds.len()), code))
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn what_fits_in_is_placed_and_the_rest_counted(
        (sizes, codes) in catalogues(), capacity in 1u32..4, seed: u64,
    ) {
        let places = capacity as usize * sizes.iter().product::<u32>() as usize;
        for method in METHODS {
            let reassign = Reassign::new(capacity).with_method(method);
            let repair = || {
                reassign.repair(&layout(&sizes), codes.view(), &mut random_costs(&sizes, seed, 0)).unwrap()
            };
            let repaired = repair();
            prop_assert_eq!(&repair(), &repaired);
            prop_assert_eq!(repaired.report.left, codes.nrows().saturating_sub(places));
            let after = counts(&repaired.codes);
            let beyond: usize = after.values().map(|&n| n.saturating_sub(capacity as usize)).sum();
            prop_assert_eq!(beyond, repaired.report.left);

            let changed = codes.rows().into_iter().zip(repaired.codes.rows()).filter(|(old, new)| old != new).count();
            prop_assert_eq!(changed, repaired.report.moved.iter().sum::<usize>());
            if repaired.report.left > 0 {
                continue;
            }
            let rows = || codes.rows().into_iter().zip(repaired.codes.rows());
            for (tuple, before) in counts(&codes) {
                let fits = |length: usize| {
                    let room = capacity as usize * sizes[length..].iter().product::<u32>() as usize;
                    rows().filter(|(old, _)| old.to_vec()[..length] == tuple[..length]).count() <= room
                };
                if !(1..sizes.len()).all(fits) {
                    continue;
                }
                let kept = rows().filter(|(old, new)| old.to_vec() == tuple && old == new).count();
                // A transport plan may exchange items of two overfull codes; the other methods move only who must.
                if before <= capacity as usize || !matches!(method, ReassignMethod::Sinkhorn { .. }) {
                    prop_assert_eq!(kept, before.min(capacity as usize));
                }
            }
        }
    }

    #[test]
    fn codes_that_fit_in_stay_and_cost_nothing((sizes, codes) in catalogues()) {
        let most = counts(&codes).into_values().max().unwrap_or(1) as u32;
        for method in METHODS {
            let reassign = Reassign::new(most).with_method(method);
            let repaired = reassign.repair(&layout(&sizes), codes.view(), &mut never).unwrap();
            prop_assert_eq!(&repaired.codes, &codes);
            prop_assert_eq!(repaired.report, ReassignReport { moved: vec![0; sizes.len()], left: 0 });
        }
    }

    #[test]
    fn later_items_change_none_before(
        (sizes, codes) in catalogues(), split in 0usize..24, capacity in 1u32..3, suffix: bool, seed: u64,
    ) {
        let (old, new) = codes.view().split_at(ndarray::Axis(0), split.min(codes.nrows()));
        let (layout, policy) = if suffix {
            (layout(&sizes).with_suffix(48), CollisionPolicy::Suffix)
        } else {
            (layout(&sizes), CollisionPolicy::Share)
        };
        // Whatever was given stays, beyond the capacity as well.
        let index = SidIndex::from_codes(layout, old, policy).unwrap();
        let before: Vec<_> = index.sids().collect();
        let held = counts(&old.to_owned());
        let tuples = sizes.iter().product::<u32>() as usize;
        let taken: usize = held.values().map(|&n| n.min(capacity as usize)).sum();
        let free = capacity as usize * tuples - taken;
        for method in METHODS {
            let reassign = Reassign::new(capacity).with_method(method);
            let first = old.nrows() as u32;
            let added = reassign.repair_added(&index, new, &mut random_costs(&sizes, seed, first)).unwrap();
            prop_assert_eq!(added.report.left, new.nrows().saturating_sub(free));
            let mut after = held.clone();
            for (tuple, n) in counts(&added.codes) {
                *after.entry(tuple).or_insert(0) += n;
            }
            let beyond = |counts: &BTreeMap<Vec<u32>, usize>| -> usize {
                counts.values().map(|&n| n.saturating_sub(capacity as usize)).sum()
            };
            prop_assert_eq!(beyond(&after), beyond(&held) + added.report.left);
            let mut extended = index.clone();
            extended.extend(added.codes.view()).unwrap();
            prop_assert!(extended.sids().take(before.len()).eq(before.iter().cloned()));
        }
    }

    #[test]
    fn first_fit_keeps_the_earlier((sizes, codes) in catalogues(), capacity in 1u32..3, seed: u64) {
        let reassign = Reassign::new(capacity).with_method(ReassignMethod::FirstFit);
        let repaired = reassign.repair(&layout(&sizes), codes.view(), &mut random_costs(&sizes, seed, 0)).unwrap();
        if codes.nrows() > capacity as usize * sizes.iter().product::<u32>() as usize {
            return Ok(());
        }
        for i in 0..codes.nrows() {
            for j in i + 1..codes.nrows() {
                let same = codes.row(i) == codes.row(j);
                prop_assert!(!same || repaired.codes.row(i) == codes.row(i) || repaired.codes.row(j) != codes.row(j));
            }
        }
    }
}
