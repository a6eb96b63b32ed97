use ndarray::{Array2, array};
use proptest::prelude::*;

use super::*;
use crate::usage::CodeReport;
use crate::{ArrayRows, QuantizeError};

fn noise(rows: usize, dim: usize, seed: u64) -> Array2<f32> {
    let rng = CounterRng::new(seed);
    Array2::from_shape_fn((rows, dim), |(i, j)| rng.normal_at((i * dim + j) as u64) * (1.0 + j as f32) + 2.0)
}

fn fit(config: &SimHashLshConfig, rows: &Array2<f32>) -> SimHashLsh {
    config.fit(&mut ArrayRows::from(rows.view())).unwrap()
}

fn tensor(rows: &Array2<f32>) -> Tensor {
    Tensor::from_vec(rows.iter().copied().collect::<Vec<_>>(), rows.dim(), &Device::Cpu).unwrap()
}

/// The products with every hyperplane, in `f64`.
fn products(model: &SimHashLsh, rows: &Array2<f32>) -> Vec<Vec<f64>> {
    let prepared = model.preprocess.apply(&tensor(rows)).unwrap().to_vec2::<f32>().unwrap();
    let normals = model.normals().to_vec2::<f32>().unwrap();
    let dot = |x: &[f32], n: &[f32]| x.iter().zip(n).map(|(x, n)| f64::from(*x) * f64::from(*n)).sum();
    prepared.iter().map(|x| normals.iter().map(|n| dot(x, n)).collect()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn codes_are_the_signs_of_the_products(
        seed: u64, n in 1_usize..150, dim in 1_usize..20, bits in 1_u32..=20, levels in 1_usize..12,
        standardize: bool, whiten: bool,
    ) {
        let rows = noise(n, dim, seed);
        let config = SimHashLshConfig::default()
            .with_bits(bits)
            .with_levels(levels)
            .with_standardize(standardize)
            .with_whiten(whiten.then_some(dim.div_ceil(2)))
            .with_seed(seed);
        let model = fit(&config, &rows);
        let codes = model.encode_array(rows.view(), 7).unwrap();
        let by_tensors = model.encode_tensors(&tensor(&rows)).unwrap().to_vec2::<u32>().unwrap();
        for (row, products) in products(&model, &rows).iter().enumerate() {
            for (level, products) in products.chunks(bits as usize).enumerate() {
                for (bit, &product) in products.iter().enumerate() {
                    for code in [codes[[row, level]], by_tensors[row][level]] {
                        prop_assert!(code < 1 << bits);
                        prop_assert!((code >> bit & 1 == 1) == (product > 0.0) || product.abs() < 1e-4);
                    }
                }
            }
        }
    }

    #[test]
    fn costs_are_the_products_of_the_bits_that_differ(
        seed: u64, n in 1_usize..30, bits in 1_u32..8, levels in 1_usize..4, standardize: bool,
    ) {
        let rows = noise(n, 5, seed);
        let config = SimHashLshConfig::default().with_bits(bits).with_levels(levels).with_standardize(standardize);
        let model = fit(&config, &rows);
        let codes = model.encode_array(rows.view(), 64).unwrap();
        let products = products(&model, &rows);
        for level in 0..levels {
            let costs = model.code_costs(&tensor(&rows), &vec![0; level]).unwrap().to_vec2::<f32>().unwrap();
            for (row, costs) in costs.iter().enumerate() {
                prop_assert_eq!(costs.len(), 1 << bits);
                let own = codes[[row, level]];
                prop_assert_eq!(costs[own as usize], 0.0);
                for (code, &cost) in (0_u32..).zip(costs) {
                    let differ = |bit: &usize| (code ^ own) >> bit & 1 == 1;
                    let sum: f64 = (0..bits as usize).filter(differ).map(|bit| products[row][level * bits as usize + bit].abs()).sum();
                    prop_assert!((f64::from(cost) - sum).abs() < 1e-3 * (1.0 + sum), "{cost} {sum}");
                }
            }
        }
    }

    #[test]
    fn bits_across_words_are_put_together(words in prop::collection::vec(any::<u64>(), 1..4), first in 0_usize..190, count in 1_usize..=20) {
        prop_assume!(first + count <= words.len() * WORD);
        let expected = (0..count).fold(0, |code, bit| code | ((words[(first + bit) / WORD] >> ((first + bit) % WORD) & 1) as u32) << bit);
        prop_assert_eq!(bits_of(&words, first, count), expected);
    }
}

/// A model whose hyperplanes are given.
fn by_hand<const N: usize>(bits: u32, levels: usize, normals: &[[f32; 2]; N]) -> SimHashLsh {
    let config = SimHashLshConfig::default().with_bits(bits).with_levels(levels).with_standardize(false);
    let tensors = BTreeMap::from([(NORMALS.to_owned(), Tensor::new(normals, &Device::Cpu).unwrap())]);
    SimHashLsh::from_tensors(config, 2, &tensors, &Device::Cpu).unwrap()
}

#[test]
fn the_first_hyperplane_is_the_least_significant_bit() {
    // codes[d] = sum_i ((x @ normals.T)[d * 3 + i] > 0) << i
    let normals = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [1.0, 1.0], [1.0, -1.0]];
    let model = by_hand(3, 2, &normals);
    let rows = array![[2.0_f32, 1.0], [-2.0, 1.0], [0.0, -3.0], [0.0, 0.0], [-0.0, 5.0]];
    // On the planes themselves the bit is 0.
    let expected = array![[0b011_u32, 0b110], [0b110, 0b000], [0b000, 0b101], [0b000, 0b000], [0b010, 0b010]];
    assert_eq!(model.encode_array(rows.view(), 2).unwrap(), expected);
    assert_eq!(
        model.encode_tensors(&tensor(&rows)).unwrap().to_vec2::<u32>().unwrap().concat(),
        expected.into_raw_vec_and_offset().0
    );
    let costs = model.code_costs(&tensor(&rows), &[7]).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(costs[0], [4.0, 5.0, 1.0, 2.0, 3.0, 4.0, 0.0, 1.0]);
    assert_eq!(costs[3], [0.0; 8]);
}

#[test]
fn the_share_of_differing_bits_is_the_angle() {
    let config = SimHashLshConfig::default().with_bits(20).with_levels(64).with_standardize(false);
    for degrees in [0_u16, 30, 60, 90, 135, 180] {
        let angle = f64::from(degrees).to_radians();
        let mut rows = Array2::<f32>::zeros((2, 12));
        rows[[0, 3]] = 2.0;
        (rows[[1, 3]], rows[[1, 7]]) = (angle.cos() as f32 * 5.0, angle.sin() as f32 * 5.0);
        let codes = fit(&config, &rows).encode_array(rows.view(), 2).unwrap();
        let differing: u32 = codes.row(0).iter().zip(codes.row(1)).map(|(a, b)| (a ^ b).count_ones()).sum();
        let share = f64::from(differing) / 1280.0;
        // Four standard deviations of 1280 fair draws.
        assert!((share - angle / std::f64::consts::PI).abs() < 0.056, "{degrees}: {share}");
    }
}

#[test]
fn the_origin_decides() {
    // All rows lie far out on one side: as they are, they fall into few buckets.
    let rows = noise(500, 8, 3) + 60.0;
    let distinct = |config: SimHashLshConfig| {
        let model = fit(&config, &rows);
        let codes = model.encode_array(rows.view(), 64).unwrap();
        CodeReport::of(codes.view(), model.codebook_sizes()).unwrap().distinct_sids
    };
    let config = SimHashLshConfig::default();
    let (raw, standardized) = (distinct(config.clone().with_standardize(false)), distinct(config.clone()));
    let whitened = distinct(config.with_standardize(false).with_whiten(Some(8)));
    assert!(raw < 100 && standardized > 450 && whitened > 450, "{raw} {standardized} {whitened}");
}

#[test]
fn every_field_changes_the_codes() {
    let rows = noise(100, 6, 4);
    let config = SimHashLshConfig::default().with_bits(5).with_levels(2);
    let codes = |config: &SimHashLshConfig| fit(config, &rows).encode_array(rows.view(), 64).unwrap();
    let base = codes(&config);
    assert_eq!(base, codes(&config));
    assert_eq!(fit(&config, &rows).codebook_sizes(), [32, 32]);
    for other in [
        config.clone().with_bits(6),
        config.clone().with_levels(3),
        config.clone().with_standardize(false),
        config.clone().with_whiten(Some(3)),
        config.clone().with_seed(1),
    ] {
        assert_ne!(codes(&other), base, "{other:?}");
    }
    assert_eq!(serde_json::from_str::<SimHashLshConfig>("{}").unwrap(), SimHashLshConfig::default());
    assert_eq!(SimHashLshConfig::default().codebook_sizes(), [256; 3]);
}

#[test]
fn one_seed_gives_one_model_at_any_number_of_threads() {
    let rows = noise(2000, 33, 5);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let model = fit(&SimHashLshConfig::default(), &rows);
            (model.normals().to_vec2::<f32>().unwrap(), model.encode_array(rows.view(), 64).unwrap())
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn rows_that_are_all_alike_share_their_codes() {
    let constant = Array2::from_elem((5, 3), 7.0_f32);
    let model = fit(&SimHashLshConfig::default(), &constant);
    // What is left of them is the origin, which lies on every hyperplane.
    assert_eq!(model.encode_array(constant.view(), 2).unwrap(), Array2::<u32>::zeros((5, 3)));
    let one = noise(1, 3, 6);
    let model = fit(&SimHashLshConfig::default().with_standardize(false), &one);
    let twice = ndarray::concatenate![ndarray::Axis(0), one, one];
    let codes = model.encode_array(twice.view(), 2).unwrap();
    assert_eq!(codes.row(0), codes.row(1));
    assert_eq!(model.encode_array(Array2::zeros((0, 3)).view(), 2).unwrap().dim(), (0, 3));
}

#[test]
fn bad_rows_and_fields_have_their_errors() {
    let try_fit = |config: SimHashLshConfig, rows: Array2<f32>| config.fit(&mut ArrayRows::from(rows)).map(|_| ());
    let config = SimHashLshConfig::default;
    assert!(matches!(try_fit(config(), Array2::zeros((0, 3))), Err(QuantizeError::TooFewRows { rows: 0, codes: 1 })));
    assert!(matches!(try_fit(config(), Array2::zeros((3, 0))), Err(QuantizeError::DimMismatch { .. })));
    for (bad, standardize) in [(f32::NAN, true), (f32::NAN, false), (f32::INFINITY, true), (f32::NEG_INFINITY, false)] {
        let mut rows = noise(9, 3, 7);
        rows[[8, 1]] = bad;
        let result = try_fit(config().with_standardize(standardize), rows);
        assert!(matches!(result, Err(QuantizeError::RowNotFinite { row: 8, column: 1 })));
    }
    for (config, name) in [
        (config().with_bits(0), "bits"),
        (config().with_bits(21), "bits"),
        (config().with_levels(0), "levels"),
        (config().with_levels(usize::MAX), "levels"),
        (config().with_whiten(Some(0)), "whiten"),
        (config().with_whiten(Some(4)), "whiten"),
    ] {
        assert!(config.codebook_sizes().len() <= 64);
        let result = try_fit(config, noise(9, 3, 8));
        assert!(matches!(result, Err(QuantizeError::InvalidConfig { field, .. }) if field == name));
    }
}

#[test]
fn misfits_are_refused() {
    let rows = noise(9, 3, 9);
    let model = fit(&SimHashLshConfig::default().with_bits(2), &rows);
    assert!(model.encode_array(noise(9, 4, 9).view(), 4).is_err());
    assert!(model.encode(&tensor(&noise(9, 4, 9))).is_err());
    assert!(model.encode(&tensor(&rows).to_dtype(DType::F64).unwrap()).is_err());
    assert!(model.encode_slice(&[0.0; 6], &mut [0; 5]).is_err());
    let xs = tensor(&rows);
    assert!(model.code_costs(&xs, &[3, 3]).is_ok());
    assert!(model.code_costs(&xs, &[4]).is_err());
    assert!(model.code_costs(&xs, &[0, 0, 0]).is_err());
    assert!(model.code_costs(&tensor(&noise(9, 4, 9)), &[]).is_err());
    // So large that the products overflow.
    let far = Array2::from_elem((2, 3), f32::MAX);
    let model = fit(&SimHashLshConfig::default().with_bits(4).with_standardize(false), &rows);
    let codes = model.encode_array(far.view(), 2).unwrap();
    let costs = model.code_costs(&tensor(&far), &[]).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(costs[0][codes[[0, 0]] as usize], 0.0);
    assert!(costs.iter().flatten().all(|cost| !cost.is_nan()), "{costs:?}");
}
