use ndarray::{Array2, ArrayViewMut2};
use proptest::prelude::*;

use super::*;
use crate::usage::encode_rows;
use crate::{ArrayRows, Fit, RandomIdsConfig, ResidualKMeansConfig};

fn noise(rows: usize, dim: usize, seed: u64) -> Array2<f32> {
    let rng = CounterRng::new(seed);
    Array2::from_shape_fn((rows, dim), |(i, j)| rng.normal_at((i * dim + j) as u64))
}

fn codes(rows: usize, levels: usize, size: u64, seed: u64) -> Array2<u32> {
    let rng = CounterRng::new(seed).named("codes");
    Array2::from_shape_fn((rows, levels), |(i, j)| rng.below((i * levels + j) as u64, size) as u32)
}

fn report(xs: &Array2<f32>, codes: &Array2<u32>, config: &NeighbourConfig) -> NeighbourReport {
    NeighbourReport::of(&mut ArrayRows::from(xs.view()), codes.view(), config).unwrap()
}

fn cosine(xs: &Array2<f32>, a: usize, b: usize) -> f64 {
    let dot =
        |a: usize, b: usize| xs.row(a).iter().zip(xs.row(b)).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Rows that have to be read: there is no slice, and no array behind them.
struct Read(Array2<f32>);

impl RowSource for Read {
    fn dim(&self) -> usize {
        self.0.ncols()
    }
    fn len(&self) -> usize {
        self.0.nrows()
    }
    fn read(&mut self, start: usize, out: ArrayViewMut2<'_, f32>) -> Result<()> {
        ArrayRows::from(self.0.view()).read(start, out)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn everything_agrees_with_comparing_all_with_all(
        seed: u64, n in 0_usize..60, dim in 1_usize..6, levels in 0_usize..4, size in 1_u64..4, k in 1_usize..9,
        zeros in prop::collection::vec(0_usize..60, 0..4),
    ) {
        let mut xs = noise(n, dim, seed);
        for &zero in zeros.iter().filter(|&&zero| zero < n) {
            xs.row_mut(zero).fill(0.0);
        }
        let codes = codes(n, levels, size, seed);
        let got = report(&xs, &codes, &NeighbourConfig::default().with_neighbours(k));
        let items: Vec<usize> = (0..n).filter(|&i| xs.row(i).iter().any(|&x| x != 0.0)).collect();
        prop_assert_eq!((got.items, got.zeros, got.queries), (items.len(), n - items.len(), items.len()));
        let shared = |a: usize, b: usize| (0..levels).take_while(|&level| codes[[a, level]] == codes[[b, level]]).count();
        let mut sums = vec![(0_u64, 0.0); levels + 1];
        for (at, &a) in items.iter().enumerate() {
            for &b in &items[at + 1..] {
                sums[shared(a, b)].0 += 1;
                sums[shared(a, b)].1 += cosine(&xs, a, b);
            }
        }
        prop_assert_eq!(got.pairs.len(), levels + 1);
        for (length, (pairs, (count, sum))) in got.pairs.iter().zip(&sums).enumerate() {
            prop_assert_eq!((pairs.length, pairs.count, pairs.sampled as u64), (length, *count, *count));
            match pairs.mean_cosine {
                Some(mean) => prop_assert!((mean - sum / *count as f64).abs() < 1e-6),
                None => prop_assert_eq!(*count, 0),
            }
        }
        let means: Vec<f64> = sums.iter().filter(|(count, _)| *count > 0).map(|(count, sum)| sum / *count as f64).collect();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-6;
        prop_assert_eq!(got.in_order.is_some(), means.len() > 1);
        if means.len() > 1 && !means.windows(2).any(|pair| near(pair[0], pair[1])) {
            prop_assert_eq!(got.in_order, Some(means.windows(2).all(|pair| pair[0] < pair[1])));
        }

        prop_assert_eq!(got.neighbours, k.min(items.len().saturating_sub(1)));
        prop_assert_eq!(got.nearest.len(), levels);
        let all: u64 = sums.iter().map(|(count, _)| count).sum();
        for (at, nearest) in got.nearest.iter().enumerate() {
            let length = at + 1;
            let (mut same, mut asked) = (0, 0);
            for &a in &items {
                let mut others: Vec<usize> = items.iter().copied().filter(|&b| b != a).collect();
                others.sort_by(|&b, &c| cosine(&xs, a, c).total_cmp(&cosine(&xs, a, b)));
                others.truncate(k);
                asked += others.len();
                same += others.iter().filter(|&&b| shared(a, b) >= length).count();
            }
            prop_assert_eq!(nearest.length, length);
            // In one dimension cosines are 1 or -1, and ties go by the order of items on both sides up to rounding.
            if dim > 1 {
                prop_assert_eq!(nearest.share, (asked > 0).then(|| same as f64 / asked as f64));
            }
            let chance: u64 = sums[length..].iter().map(|(count, _)| count).sum();
            prop_assert_eq!(nearest.by_chance, (all > 0).then(|| chance as f64 / all as f64));
        }
    }
}

#[test]
fn a_residual_code_keeps_the_order_and_a_random_one_does_not() {
    // Eight groups of eight groups.
    let (coarse, fine, own) = (noise(8, 16, 1), noise(64, 16, 2), noise(1024, 16, 3));
    let xs =
        Array2::from_shape_fn((1024, 16), |(i, j)| 3.0 * coarse[[i % 8, j]] + fine[[i % 64, j]] + 0.2 * own[[i, j]]);
    let config = NeighbourConfig::default().with_pairs(5000).with_queries(200);
    let mut rows = ArrayRows::from(xs.view());
    let model = ResidualKMeansConfig::default().with_codebook_sizes([8, 8]).fit(&mut rows).unwrap();
    let residual = report(&xs, &encode_rows(&model, &mut rows, 64).unwrap(), &config);
    assert_eq!(residual.in_order, Some(true));
    assert!(
        residual.pairs[1].mean_cosine.unwrap() > 0.7 && residual.pairs[0].mean_cosine.unwrap() < 0.2,
        "{residual:?}"
    );
    assert!(residual.nearest[0].share.unwrap() > 0.95 && residual.nearest[1].share.unwrap() > 0.8, "{residual:?}");
    assert!(residual.nearest[0].by_chance.unwrap() < 0.2);

    let model = RandomIdsConfig::default().with_codebook_sizes([8, 8]).fit(&mut rows).unwrap();
    let random = report(&xs, &encode_rows(&model, &mut rows, 64).unwrap(), &config);
    for nearest in &random.nearest {
        assert!((nearest.share.unwrap() - nearest.by_chance.unwrap()).abs() < 0.05, "{random:?}");
    }
    assert!((random.pairs[1].mean_cosine.unwrap() - random.pairs[0].mean_cosine.unwrap()).abs() < 0.05, "{random:?}");
}

#[test]
fn samples_come_near_the_whole_and_every_field_counts() {
    let (xs, codes) = (noise(400, 4, 4), codes(400, 2, 3, 4));
    let whole = NeighbourConfig::default().with_pairs(usize::MAX);
    let base = report(&xs, &codes, &whole);
    assert_eq!((base.queries, base.pairs.iter().map(|pairs| pairs.count).sum::<u64>()), (400, 400 * 399 / 2));
    let sampled = report(&xs, &codes, &whole.clone().with_pairs(4000).with_queries(150));
    assert_eq!((sampled.queries, sampled.pairs[0].sampled), (150, 4000));
    for (sampled, base) in sampled.pairs.iter().zip(&base.pairs) {
        assert_eq!(sampled.count, base.count);
        assert!((sampled.mean_cosine.unwrap() - base.mean_cosine.unwrap()).abs() < 0.05);
    }
    for (sampled, base) in sampled.nearest.iter().zip(&base.nearest) {
        assert_eq!(sampled.by_chance, base.by_chance);
        assert!((sampled.share.unwrap() - base.share.unwrap()).abs() < 0.05);
    }
    let small = NeighbourConfig::default().with_pairs(50).with_queries(20).with_neighbours(3);
    let one = report(&xs, &codes, &small);
    assert_eq!(one, report(&xs, &codes, &small));
    let mut other = report(&xs, &codes, &small.clone().with_seed(1));
    assert!(one.pairs[0].mean_cosine != other.pairs[0].mean_cosine && one.nearest != other.nearest);
    other = report(&xs, &codes, &small.clone().with_neighbours(4));
    assert!(other.neighbours == 4 && one.nearest != other.nearest && one.pairs == other.pairs);
    other = report(&xs, &codes, &small.clone().with_queries(21));
    assert!(other.queries == 21 && one.nearest != other.nearest && one.pairs == other.pairs);
    other = report(&xs, &codes, &small.with_pairs(51));
    assert!(one.nearest == other.nearest && one.pairs != other.pairs);
}

#[test]
fn threads_blocks_and_sources_do_not_change_the_report() {
    // More rows than a block of the search, and than a block of a scan.
    let (xs, codes) = (noise(10_000, 3, 5), codes(10_000, 2, 4, 5));
    let config = NeighbourConfig::default().with_queries(40).with_pairs(2000);
    let run = |threads: usize, xs: &mut (dyn RowSource + Send)| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| NeighbourReport::of(xs, codes.view(), &config).unwrap())
    };
    let one = run(1, &mut ArrayRows::from(xs.view()));
    assert_eq!(one, run(3, &mut ArrayRows::from(xs.view())));
    assert_eq!(one, run(2, &mut Read(xs.clone())));
    let columns = xs.t().to_owned();
    assert_eq!(one, run(2, &mut ArrayRows::from(columns.t())));

    let found = {
        let mut rows = ArrayRows::from(xs.view());
        let directions = Directions::of(&mut rows).unwrap();
        nearest::of(&directions, &mut rows, &[0, 5000, 9999], 10).unwrap()
    };
    for (query, found) in [0, 5000, 9999].into_iter().zip(found) {
        let mut others: Vec<usize> = (0..10_000).filter(|&item| item != query).collect();
        others.sort_by(|&a, &b| cosine(&xs, query, b).total_cmp(&cosine(&xs, query, a)));
        let furthest = cosine(&xs, query, others[9]);
        assert!(found.len() == 10 && found.iter().all(|&item| cosine(&xs, query, item) > furthest - 1e-6));
    }
}

#[test]
fn nothing_at_all_is_measured_without_nan() {
    let config = NeighbourConfig::default();
    for rows in 0..2 {
        for xs in [Array2::zeros((rows, 3)), Array2::ones((rows, 3)), Array2::zeros((4, 3))] {
            let got = report(&xs, &Array2::zeros((xs.nrows(), 2)), &config);
            assert_eq!((got.items + got.zeros, got.neighbours, got.in_order), (xs.nrows(), 0, None));
            assert!(got.pairs.iter().all(|pairs| (pairs.count, pairs.sampled, pairs.mean_cosine) == (0, 0, None)));
            assert!(got.nearest.iter().all(|nearest| (nearest.share, nearest.by_chance) == (None, None)));
        }
    }
    // All alike, and at either end of what `f32` holds.
    for value in [1.0, f32::MAX, 1e-44] {
        let got = report(&Array2::from_elem((5, 3), value), &Array2::zeros((5, 2)), &config);
        assert_eq!((got.items, got.neighbours, got.in_order), (5, 4, None));
        assert!((got.pairs[2].mean_cosine.unwrap() - 1.0).abs() < 1e-12);
        assert_eq!((got.nearest[1].share, got.nearest[1].by_chance), (Some(1.0), Some(1.0)));
    }
}

#[test]
fn bad_input_has_its_error() {
    let of = |xs: Array2<f32>, items: usize, config: &NeighbourConfig| {
        NeighbourReport::of(&mut ArrayRows::from(xs), Array2::zeros((items, 1)).view(), config)
    };
    let config = NeighbourConfig::default();
    assert!(matches!(
        of(noise(3, 2, 0), 4, &config),
        Err(QuantizeError::ItemMismatch { what: "embeddings", expected: 4, got: 3 })
    ));
    assert!(matches!(of(Array2::zeros((3, 0)), 3, &config), Err(QuantizeError::DimMismatch { expected: 1, got: 0 })));
    for bad in [f32::NAN, f32::INFINITY] {
        let mut xs = noise(3, 2, 0);
        xs[[2, 1]] = bad;
        assert!(matches!(of(xs, 3, &config), Err(QuantizeError::RowNotFinite { row: 2, column: 1 })));
    }
    for (config, name) in [
        (config.clone().with_queries(0), "queries"),
        (config.clone().with_neighbours(0), "neighbours"),
        (config.clone().with_pairs(0), "pairs"),
    ] {
        assert!(
            matches!(of(noise(3, 2, 0), 3, &config), Err(QuantizeError::InvalidConfig { field, .. }) if field == name)
        );
    }
}

#[test]
fn reports_and_configurations_round_trip_through_json() {
    for got in [
        report(&noise(50, 3, 6), &codes(50, 2, 3, 6), &NeighbourConfig::default()),
        report(&Array2::zeros((0, 3)), &Array2::zeros((0, 1)), &NeighbourConfig::default()),
    ] {
        let json = serde_json::to_string(&got).unwrap();
        assert_eq!(serde_json::from_str::<NeighbourReport>(&json).unwrap(), got);
    }
    let config: NeighbourConfig = serde_json::from_str(r#"{"pairs": 7}"#).unwrap();
    assert_eq!(config, NeighbourConfig::default().with_pairs(7));
    assert!(serde_json::from_str::<NeighbourConfig>(r#"{"pair": 7}"#).is_err());
}
