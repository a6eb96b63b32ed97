use std::collections::BTreeSet;

use candle_core::DType;
use ndarray::{Array2, array};

use super::*;
use crate::usage::CodeReport;
use crate::{ArrayRows, QuantizeError};

fn noise(rows: usize, dim: usize, seed: u64) -> Array2<f32> {
    let rng = CounterRng::new(seed);
    Array2::from_shape_fn((rows, dim), |(i, j)| rng.normal_at((i * dim + j) as u64))
}

fn fit(config: &RandomIdsConfig, rows: &Array2<f32>) -> RandomIds {
    config.fit(&mut ArrayRows::from(rows.view())).unwrap()
}

fn tensor(rows: &Array2<f32>) -> Tensor {
    Tensor::from_vec(rows.iter().copied().collect::<Vec<_>>(), rows.dim(), &Device::Cpu).unwrap()
}

#[test]
fn equal_rows_get_equal_codes_and_others_do_not() {
    let config = RandomIdsConfig::default().with_codebook_sizes([1 << 20; 3]);
    let rows = array![[0.0_f32, 1.0, 2.0], [-0.0, 1.0, 2.0], [1.0, 0.0, 2.0], [0.0, 1.0, 2.0000002], [0.0, 1.0, -2.0]];
    let codes = fit(&config, &rows).encode_array(rows.view(), 2).unwrap();
    assert_eq!(codes.row(0), codes.row(1));
    let distinct: BTreeSet<Vec<u32>> = codes.outer_iter().map(|row| row.to_vec()).collect();
    assert_eq!(distinct.len(), 4);
    // Codes do not depend on the rows that come with a row, nor on those of the fit.
    let other = fit(&config, &noise(20, 3, 1));
    assert_eq!(
        other.encode_array(rows.view().slice(ndarray::s![2.., ..]), 1).unwrap(),
        codes.slice(ndarray::s![2.., ..])
    );
    assert_eq!(
        other.encode(&tensor(&rows)).unwrap().to_vec2::<u32>().unwrap().concat(),
        codes.into_raw_vec_and_offset().0
    );
}

#[test]
fn codes_are_uniform_and_independent_of_content_and_of_one_another() {
    // Rows as near to one another as can be, each feature on a grid.
    let rows = Array2::from_shape_fn((16_384, 2), |(i, j)| if j == 0 { (i % 128) as f32 } else { (i / 128) as f32 });
    let model = fit(&RandomIdsConfig::default().with_codebook_sizes([16, 16]), &rows);
    let codes = model.encode_array(rows.view(), 64).unwrap();
    let mut pairs = [0_u32; 256];
    for row in codes.outer_iter() {
        pairs[(row[0] * 16 + row[1]) as usize] += 1;
    }
    let square = |expected: f64, counts: &[u32]| -> f64 {
        counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
    };
    // 255 degrees of freedom: mean 255, deviation 22.6.
    let all = square(64.0, &pairs);
    assert!((150.0..360.0).contains(&all), "{all}");
    // Neighbours on the grid share a first code no more often than chance: 1016 of 16,256, deviation 31.
    let shared = (0..rows.nrows() - 128).filter(|&i| codes[[i, 0]] == codes[[i + 128, 0]]).count();
    assert!((860..1180).contains(&shared), "{shared}");
}

#[test]
fn every_field_changes_the_codes() {
    let rows = noise(64, 3, 2);
    let codes = |config: &RandomIdsConfig| fit(config, &rows).encode_array(rows.view(), 64).unwrap();
    let config = RandomIdsConfig::default();
    assert_eq!(codes(&config), codes(&config));
    assert_ne!(codes(&config), codes(&config.clone().with_seed(1)));
    let sizes = codes(&config.clone().with_codebook_sizes([2, 3]));
    let report = CodeReport::of(sizes.view(), &[2, 3]).unwrap();
    assert_eq!((report.levels[0].used, report.levels[1].used), (2, 3));
    assert_eq!(serde_json::from_str::<RandomIdsConfig>("{}").unwrap(), config);
    assert_eq!(config.codebook_sizes, [256; 3]);
}

#[test]
fn the_own_code_is_free_and_the_others_are_in_a_fixed_order() {
    let rows = noise(40, 3, 3);
    let model = fit(&RandomIdsConfig::default().with_codebook_sizes([30, 20]), &rows);
    let codes = model.encode_array(rows.view(), 64).unwrap();
    let costs = |prefix: &[u32]| model.code_costs(&tensor(&rows), prefix).unwrap().to_vec2::<f32>().unwrap();
    let first = costs(&[]);
    assert_eq!(first, costs(&[]));
    assert_eq!(costs(&[29])[0].len(), 20);
    let mut orders = BTreeSet::new();
    for level in 0..2 {
        for (row, costs) in costs(&vec![0; level]).iter().enumerate() {
            for (code, &cost) in (0_u32..).zip(costs) {
                assert!(if code == codes[[row, level]] { cost == 0.0 } else { cost > 0.0 && cost <= 1.0 });
            }
            let mut order: Vec<usize> = (0..costs.len()).collect();
            order.sort_by(|&a, &b| costs[a].total_cmp(&costs[b]));
            orders.insert(order);
        }
    }
    assert_eq!(orders.len(), 80);
    // Every code comes next for some row: the order is not the same for all.
    let next: BTreeSet<usize> = orders.iter().filter(|order| order.len() == 30).map(|order| order[1]).collect();
    assert!(next.len() > 15, "{next:?}");
}

#[test]
fn threads_do_not_change_codes() {
    let rows = noise(3000, 5, 4);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| fit(&RandomIdsConfig::default(), &rows).encode_array(rows.view(), 64).unwrap())
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn bad_rows_fields_and_misfits_have_their_errors() {
    let try_fit = |config: RandomIdsConfig, rows: Array2<f32>| config.fit(&mut ArrayRows::from(rows)).map(|_| ());
    let config = RandomIdsConfig::default;
    assert!(matches!(try_fit(config(), Array2::zeros((0, 3))), Err(QuantizeError::TooFewRows { rows: 0, codes: 1 })));
    assert!(matches!(try_fit(config(), Array2::zeros((3, 0))), Err(QuantizeError::DimMismatch { .. })));
    for bad in [f32::NAN, f32::INFINITY] {
        let mut rows = noise(4, 2, 5);
        rows[[3, 1]] = bad;
        assert!(matches!(try_fit(config(), rows), Err(QuantizeError::RowNotFinite { row: 3, column: 1 })));
    }
    for sizes in [vec![], vec![0], vec![2; 65], vec![1 << 21]] {
        let result = try_fit(config().with_codebook_sizes(sizes), noise(4, 2, 5));
        assert!(matches!(result, Err(QuantizeError::InvalidConfig { field: "codebook_sizes", .. })));
    }
    // One row is enough, and so are rows that are all alike.
    let alike = Array2::from_elem((3, 2), 1.0_f32);
    let model = fit(&config(), &alike);
    assert_eq!(
        model.encode_array(alike.view(), 2).unwrap().row(0),
        model.encode_array(alike.view(), 2).unwrap().row(2)
    );
    assert_eq!(model.encode_array(Array2::zeros((0, 2)).view(), 2).unwrap().dim(), (0, 3));
    assert!(model.encode_array(noise(2, 3, 5).view(), 2).is_err());
    assert!(model.encode(&tensor(&noise(2, 3, 5))).is_err());
    assert!(model.encode(&tensor(&alike).to_dtype(DType::F64).unwrap()).is_err());
    assert!(model.encode_slice(&[0.0; 4], &mut [0; 5]).is_err());
    assert!(model.encode_slice(&[0.0; 3], &mut [0; 3]).is_err());
    assert!(model.code_costs(&tensor(&alike), &[256]).is_err());
    assert!(model.code_costs(&tensor(&alike), &[0, 0, 0]).is_err());
    assert!(model.code_costs(&tensor(&noise(2, 3, 5)), &[]).is_err());
}
