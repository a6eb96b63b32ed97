use std::collections::BTreeMap;

use ndarray::Array2;
use proptest::prelude::*;

use super::*;

fn codes(rows: usize, levels: usize, size: u64, seed: u64) -> Array2<u32> {
    let rng = CounterRng::new(seed).named("codes");
    Array2::from_shape_fn((rows, levels), |(i, j)| rng.below((i * levels + j) as u64, size) as u32)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn drawn_pairs_share_the_prefix_and_no_more(seed: u64, n in 2_usize..80, levels in 1_usize..4, size in 1_u64..4) {
        let codes = codes(n, levels, size, seed);
        let items: Vec<usize> = (0..n).collect();
        let pairs = Pairs::new(codes.view(), &items);
        for length in 0..=levels {
            let all = pairs.sharing(length, usize::MAX, &CounterRng::new(seed));
            let some = pairs.sharing(length, 3, &CounterRng::new(seed));
            prop_assert_eq!((all.count, all.pairs.len() as u64), (some.count, some.count));
            prop_assert_eq!(some.pairs.len() as u64, some.count.min(3));
            let mut known: Vec<(usize, usize)> = all.pairs.iter().map(|&(a, b)| (a.min(b), a.max(b))).collect();
            known.sort_unstable();
            known.dedup();
            prop_assert_eq!(known.len(), all.pairs.len());
            for (a, b) in all.pairs.iter().chain(&some.pairs) {
                prop_assert!(a != b && shared_prefix(codes.view(), *a, *b) == length);
            }
        }
    }
}

#[test]
fn every_pair_is_drawn_with_the_same_chance() {
    // Groups of very different sizes: 1 + 2 + 3 + 6 items.
    let codes =
        Array2::from_shape_fn(
            (12, 2),
            |(i, j)| if j == 0 { [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3][i] } else { (i % 2) as u32 },
        );
    let pairs = Pairs::new(codes.view(), &(0..12).collect::<Vec<_>>());
    for length in 0..=2 {
        let all = pairs.sharing(length, usize::MAX, &CounterRng::new(0)).pairs;
        // The draw wants fewer than there are, so it is repeated with other seeds.
        let mut counts = BTreeMap::<(usize, usize), f64>::new();
        let per_seed = all.len() - 1;
        let seeds = 4000 * all.len() / per_seed;
        for seed in 0..seeds {
            for (a, b) in pairs.sharing(length, per_seed, &CounterRng::new(seed as u64)).pairs {
                *counts.entry((a.min(b), a.max(b))).or_default() += 1.0;
            }
        }
        assert_eq!(counts.len(), all.len());
        let expected = (seeds * per_seed) as f64 / all.len() as f64;
        for (pair, count) in counts {
            // Six deviations.
            assert!((count - expected).abs() < 6.0 * expected.sqrt(), "{length} {pair:?}: {count} of {expected}");
        }
    }
}
