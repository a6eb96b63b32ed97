use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Tensor};
use ndarray::{Array2, array};
use proptest::prelude::*;

use super::*;
use crate::{ArrayRows, Quantizer, Reconstruct, RowSource};

/// Rounds each of two columns to an integer code.
struct Rounding;

impl Quantizer for Rounding {
    fn dim(&self) -> usize {
        2
    }
    fn codebook_sizes(&self) -> &[u32] {
        &[8, 8]
    }
    fn device(&self) -> &Device {
        &Device::Cpu
    }
    fn encode(&self, xs: &Tensor) -> candle_core::Result<Tensor> {
        xs.round()?.to_dtype(candle_core::DType::U32)
    }
}

impl Reconstruct for Rounding {
    fn reconstruct(&self, codes: &Tensor) -> candle_core::Result<Tensor> {
        codes.to_dtype(candle_core::DType::F32)
    }
}

#[test]
fn wrong_codes_are_named() {
    let codes = array![[0_u32, 1], [0, 2]];
    assert!(matches!(
        CodeReport::of(codes.view(), &[2, 2]),
        Err(QuantizeError::CodeOutOfRange { item: 1, level: 1, code: 2, size: 2 })
    ));
    assert!(matches!(CodeReport::of(codes.view(), &[2]), Err(QuantizeError::LevelMismatch { expected: 1, got: 2 })));
}

#[test]
fn nothing_at_all_is_measured_without_nan() {
    let report = CodeReport::of(Array2::zeros((0, 2)).view(), &[4, 4]).unwrap();
    assert_eq!((report.items, report.distinct_sids, report.largest_group), (0, 0, 0));
    assert_eq!((report.collision_rate, report.levels[0].perplexity, report.levels[0].share()), (0.0, 0.0, 0.0));
    let one = CodeReport::of(Array2::zeros((3, 0)).view(), &[]).unwrap();
    assert_eq!((one.distinct_sids, one.largest_group), (1, 3));
}

#[test]
fn reports_round_trip_through_json() {
    let report = CodeReport::of(array![[0_u32, 1], [3, 1], [3, 0]].view(), &[4, 2]).unwrap();
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<CodeReport>(&json).unwrap(), report);
}

#[test]
fn the_gini_coefficient_goes_from_even_to_one_for_all() {
    let gini = |column: Array2<u32>| CodeReport::of(column.view(), &[4]).unwrap().levels[0].gini;
    assert_eq!(gini(array![[0_u32], [1], [2], [3]]), 0.0);
    assert_eq!(gini(array![[2_u32], [2], [2]]), 0.75);
    assert_eq!(gini(array![[0_u32], [0], [3], [3]]), 0.5);
    assert_eq!(gini(Array2::zeros((0, 1))), 0.0);
    // Reports of before it was measured still open.
    let old = r#"{"size": 4, "used": 1, "perplexity": 1.0, "entropy_bits": 0.0}"#;
    assert_eq!(serde_json::from_str::<LevelUsage>(old).unwrap().gini, 0.0);
}

#[test]
fn reconstruction_error_is_the_mean_squared_distance() {
    let mut rows = ArrayRows::from(array![[0.25_f32, 1.0], [2.0, 3.5], [4.0, 5.0]]);
    let error = reconstruction_error(&Rounding, &mut rows).unwrap();
    assert!((error.mean_squared - (0.0625 + 0.25) / 3.0).abs() < 1e-9, "{error:?}");
    let mean = [6.25 / 3.0, 9.5 / 3.0];
    let spread = [[0.25, 1.0], [2.0, 3.5], [4.0, 5.0]]
        .iter()
        .map(|r: &[f64; 2]| (r[0] - mean[0]).powi(2) + (r[1] - mean[1]).powi(2))
        .sum::<f64>()
        / 3.0;
    assert!((error.relative - error.mean_squared / spread).abs() < 1e-9);
}

#[test]
fn scans_refuse_wrong_rows() {
    let mut narrow = ArrayRows::from(Array2::<f32>::zeros((2, 1)));
    assert!(matches!(encode_rows(&Rounding, &mut narrow, 8), Err(QuantizeError::DimMismatch { expected: 2, got: 1 })));
    let mut bad = ArrayRows::from(array![[0.0_f32, 0.0], [0.0, f32::INFINITY]]);
    assert!(matches!(
        reconstruction_error(&Rounding, &mut bad),
        Err(QuantizeError::RowNotFinite { row: 1, column: 1 })
    ));
    assert!(Rounding.encode_array(Array2::zeros((2, 3)).view(), 4).is_err());
}

#[test]
fn arrays_that_are_not_finite_are_refused() {
    let error = Rounding.encode_array(array![[0.0_f32, 1.0], [f32::NAN, 1.0]].view(), 4).unwrap_err();
    assert!(error.to_string().contains("row 1 holds a value that is not finite in column 0"), "{error}");
}

/// Rows without columns, of which any number takes no memory.
struct Empty(usize);

impl RowSource for Empty {
    fn dim(&self) -> usize {
        0
    }
    fn len(&self) -> usize {
        self.0
    }
    fn read(&mut self, _start: usize, _out: ndarray::ArrayViewMut2<'_, f32>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn the_width_is_checked_before_codes_are_allocated() {
    let result = encode_rows(&Rounding, &mut Empty(1 << 50), 8);
    assert!(matches!(result, Err(QuantizeError::DimMismatch { expected: 2, got: 0 })));
}

#[test]
fn batches_do_not_change_codes() {
    let rows = Array2::from_shape_fn((23, 2), |(i, j)| (i % 7) as f32 + j as f32 * 0.3);
    let whole = Rounding.encode_array(rows.view(), 100).unwrap();
    for batch in [0, 1, 5, 23] {
        assert_eq!(Rounding.encode_array(rows.view(), batch).unwrap(), whole);
        assert_eq!(encode_rows(&Rounding, &mut ArrayRows::from(rows.view()), batch).unwrap(), whole);
    }
    // A transposed view is not contiguous.
    let wide = rows.t().to_owned();
    assert_eq!(Rounding.encode_array(wide.t(), 4).unwrap(), whole);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_report_agrees_with_counting(
        codes in (1_usize..4).prop_flat_map(|levels| prop::collection::vec(prop::collection::vec(0_u32..4, levels), 1..40))
    ) {
        let depth = codes[0].len();
        let array = Array2::from_shape_vec((codes.len(), depth), codes.concat()).unwrap();
        let report = CodeReport::of(array.view(), &vec![5; depth]).unwrap();
        let mut groups = BTreeMap::<&[u32], usize>::new();
        for row in &codes {
            *groups.entry(row).or_default() += 1;
        }
        let n = codes.len() as f64;
        prop_assert_eq!(report.items, codes.len());
        prop_assert_eq!(report.distinct_sids, groups.len());
        prop_assert_eq!(report.collision_rate, 1.0 - groups.len() as f64 / n);
        prop_assert_eq!(report.largest_group, *groups.values().max().unwrap());
        prop_assert_eq!(report.colliding_items, groups.values().filter(|&&size| size > 1).sum::<usize>());
        for depth in 1..=depth {
            let prefixes: BTreeSet<_> = codes.iter().map(|row| &row[..depth]).collect();
            prop_assert_eq!(report.distinct_prefixes[depth - 1], prefixes.len());
        }
        for (level, usage) in report.levels.iter().enumerate() {
            let counts: Vec<f64> =
                (0..5).map(|code| codes.iter().filter(|row| row[level] == code).count() as f64).collect();
            let nats: f64 = counts.iter().filter(|&&c| c > 0.0).map(|c| -(c / n) * (c / n).ln()).sum();
            prop_assert_eq!(usage.used as usize, counts.iter().filter(|&&c| c > 0.0).count());
            prop_assert!((usage.entropy_bits - nats / std::f64::consts::LN_2).abs() < 1e-9);
            prop_assert!((usage.perplexity - nats.exp()).abs() < 1e-9);
            // Half the mean difference of two codes' counts, over the mean count.
            let apart: f64 = counts.iter().flat_map(|a| counts.iter().map(move |b| (a - b).abs())).sum();
            prop_assert!((usage.gini - apart / (2.0 * 5.0 * n)).abs() < 1e-9);
            prop_assert!((usage.share() - f64::from(usage.used) / 5.0).abs() < 1e-15);
        }
    }
}
