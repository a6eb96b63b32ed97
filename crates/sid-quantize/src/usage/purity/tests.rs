use std::collections::BTreeMap;

use ndarray::{Array2, array};
use proptest::prelude::*;

use super::*;

fn entropy<K: Ord>(values: impl IntoIterator<Item = K>) -> f64 {
    let mut counts = BTreeMap::<K, f64>::new();
    values.into_iter().for_each(|value| *counts.entry(value).or_default() += 1.0);
    let total: f64 = counts.values().sum();
    counts.values().map(|count| -(count / total) * (count / total).log2()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_report_agrees_with_counting(
        rows in (1_usize..4).prop_flat_map(|levels| prop::collection::vec(
            (prop::collection::vec(0_u32..3, levels), prop::option::of(0_u32..4)), 1..40,
        ))
    ) {
        let levels = rows[0].0.len();
        let codes = Array2::from_shape_vec((rows.len(), levels), rows.iter().flat_map(|row| row.0.clone()).collect()).unwrap();
        let categories: Vec<Option<u32>> = rows.iter().map(|row| row.1).collect();
        let report = PurityReport::of(codes.view(), &categories).unwrap();
        let known: Vec<(&[u32], u32)> = rows.iter().filter_map(|(codes, category)| Some((&codes[..], (*category)?))).collect();
        prop_assert_eq!((report.items, report.unlabelled), (known.len(), rows.len() - known.len()));
        prop_assert!((report.entropy_bits - entropy(known.iter().map(|row| row.1))).abs() < 1e-9);
        let n = known.len().max(1) as f64;
        let mut last = report.majority;
        for (at, prefix) in report.prefixes.iter().enumerate() {
            let length = at + 1;
            let mut groups = BTreeMap::<&[u32], BTreeMap<u32, usize>>::new();
            for (codes, category) in &known {
                *groups.entry(&codes[..length]).or_default().entry(*category).or_default() += 1;
            }
            let majorities: usize = groups.values().map(|group| group.values().max().unwrap()).sum();
            prop_assert_eq!((prefix.length, prefix.distinct), (length, groups.len()));
            prop_assert!((prefix.purity - majorities as f64 / n).abs() < 1e-12);
            // H(category | prefix) = H(category, prefix) - H(prefix).
            let joint = entropy(known.iter().map(|(codes, category)| (&codes[..length], category)));
            let alone = entropy(known.iter().map(|(codes, _)| &codes[..length]));
            prop_assert!((prefix.entropy_bits - (joint - alone)).abs() < 1e-9);
            let both = report.entropy_bits + alone;
            let expected = if both > 0.0 { 2.0 * (report.entropy_bits + alone - joint) / both } else { 0.0 };
            prop_assert!((prefix.normalized_mutual_information - expected).abs() < 1e-9);
            prop_assert!(prefix.purity >= last && prefix.purity <= 1.0 && prefix.normalized_mutual_information >= 0.0);
            last = prefix.purity;
        }
    }
}

#[test]
fn a_hierarchy_is_told_from_noise() {
    // The first code is the category, the second is not.
    let codes = Array2::from_shape_fn((64, 2), |(i, j)| if j == 0 { (i % 4) as u32 } else { (i / 16) as u32 });
    let categories: Vec<_> = (0..64).map(|i| Some(100 + i % 4)).collect();
    let report = PurityReport::of(codes.view(), &categories).unwrap();
    assert_eq!((report.categories, report.majority, report.entropy_bits), (4, 0.25, 2.0));
    let [first, both] = report.prefixes[..] else { panic!("{report:?}") };
    assert_eq!((first.purity, first.entropy_bits, first.normalized_mutual_information), (1.0, 0.0, 1.0));
    assert_eq!((both.distinct, both.purity, both.normalized_mutual_information), (16, 1.0, 2.0 * 2.0 / 6.0));
    let turned = codes.slice(ndarray::s![.., ..;-1]);
    let noise = PurityReport::of(turned, &categories).unwrap().prefixes[0];
    assert_eq!((noise.purity, noise.entropy_bits, noise.normalized_mutual_information), (0.25, 2.0, 0.0));
}

#[test]
fn nothing_at_all_is_measured_without_nan() {
    for (codes, categories) in [(Array2::zeros((0, 2)), vec![]), (Array2::zeros((3, 2)), vec![None; 3])] {
        let report = PurityReport::of(codes.view(), &categories).unwrap();
        assert_eq!((report.items, report.unlabelled, report.categories), (0, categories.len(), 0));
        assert_eq!((report.majority, report.entropy_bits), (0.0, 0.0));
        for prefix in report.prefixes {
            assert_eq!((prefix.distinct, prefix.purity, prefix.entropy_bits), (0, 0.0, 0.0));
            assert_eq!(prefix.normalized_mutual_information, 0.0);
        }
    }
    let one = PurityReport::of(array![[5_u32]].view(), &[Some(3)]).unwrap();
    assert_eq!((one.majority, one.prefixes[0].purity, one.prefixes[0].normalized_mutual_information), (1.0, 1.0, 0.0));
    let flat = PurityReport::of(Array2::zeros((2, 0)).view(), &[Some(3), None]).unwrap();
    assert_eq!((flat.items, flat.prefixes.len()), (1, 0));
}

#[test]
fn categories_of_other_items_are_refused() {
    assert!(matches!(
        PurityReport::of(array![[0_u32], [1]].view(), &[Some(1)]),
        Err(QuantizeError::ItemMismatch { what: "categories", expected: 2, got: 1 })
    ));
}

#[test]
fn reports_round_trip_through_json() {
    let codes = array![[0_u32, 1], [0, 2], [1, 1]];
    let report = PurityReport::of(codes.view(), &[Some(1), Some(2), Some(1)]).unwrap();
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<PurityReport>(&json).unwrap(), report);
}
