use proptest::prelude::*;

use super::*;

fn test(a: &[f64], b: &[f64], config: RandomisationConfig) -> PairedTest {
    paired_randomisation(a, b, config).unwrap()
}

/// Values between 0 and 1 in steps of a thousandth.
fn uniform(rng: &mut SplitMix64, users: usize) -> Vec<f64> {
    (0..users).map(|_| rng.below(1001) as f64 / 1000.0).collect()
}

#[test]
fn under_the_null_the_p_value_is_uniform() {
    // 400 pairs of equal systems; of values below 0.1, 0.3, .. the binomial's standard deviation is at most 10.
    let (mut rng, trials) = (SplitMix64(5), 400);
    let p_values: Vec<f64> = (0..trials)
        .map(|trial| {
            let (a, b) = (uniform(&mut rng, 40), uniform(&mut rng, 40));
            test(&a, &b, RandomisationConfig::default().with_relabellings(400).with_seed(trial)).p_value
        })
        .collect();
    for level in [0.05, 0.1, 0.3, 0.5, 0.7, 0.9] {
        let below = p_values.iter().filter(|&&p| p <= level).count() as f64;
        let expected = level * trials as f64;
        assert!((below - expected).abs() < 4.0 * (expected * (1.0 - level)).sqrt(), "{below} p-values up to {level}");
    }
}

#[test]
fn a_clear_difference_has_the_smallest_p_value() {
    let mut rng = SplitMix64(6);
    let worse = uniform(&mut rng, 300);
    let better: Vec<f64> = worse.iter().map(|value| value + rng.below(100) as f64 / 1000.0).collect();
    let config = RandomisationConfig::default().with_relabellings(999);
    let found = test(&better, &worse, config);
    assert_eq!((found.p_value, found.relabellings, found.exact), (0.001, 999, false));
    assert!((found.difference - 0.05).abs() < 0.01);
}

#[test]
fn the_mirror_image_and_the_same_seed_give_the_same_p_value() {
    let mut rng = SplitMix64(7);
    let (a, b) = (uniform(&mut rng, 130), uniform(&mut rng, 130));
    let config = RandomisationConfig::default().with_relabellings(500).with_seed(9);
    let (ours, theirs) = (test(&a, &b, config), test(&b, &a, config));
    assert_eq!(ours.p_value, theirs.p_value);
    assert_eq!(ours.difference, -theirs.difference);
    assert_eq!(ours, test(&a, &b, config));
    assert_ne!(ours.p_value, test(&a, &b, config.with_seed(10)).p_value);
}

#[test]
fn few_differences_are_enumerated_and_users_without_one_do_not_count() {
    let config = RandomisationConfig::default();
    let found = test(&[3.0, 1.0, 0.5, 0.5], &[1.0, 0.0, 0.5, 0.5], config);
    // Sums of +-2 +-1: of four, 3 and -3 are as far from 0 as 3 is.
    assert_eq!(found, PairedTest { difference: 0.75, p_value: 0.5, relabellings: 4, exact: true });
    let same = test(&[0.5; 7], &[0.5; 7], config);
    assert_eq!(same, PairedTest { difference: 0.0, p_value: 1.0, relabellings: 1, exact: true });
    // As many users as relabellings allow, and one more.
    let users = |n: usize| test(&vec![1.0; n], &vec![0.0; n], config.with_relabellings(32));
    assert!(users(5).exact && users(5).p_value == 2.0 / 32.0);
    assert!(!users(6).exact && users(6).relabellings == 32);
    assert!(!users(200).exact && users(200).p_value == 1.0 / 33.0);
}

#[test]
fn sums_that_differ_by_rounding_alone_are_equal() {
    // No signs bring the sum nearer to 0 than 0.1, but as measured it is the next number above 0.1.
    let found = test(&[0.1, 0.3, -0.3], &[0.0; 3], RandomisationConfig::default());
    assert_eq!((found.p_value, found.exact), (1.0, true));
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let found = test(&[f64::MAX; 3], &[0.0; 3], RandomisationConfig::default());
    assert_eq!((found.difference, found.p_value), (f64::MAX, 0.25));
}

#[test]
fn every_bad_argument_is_named() {
    let config = RandomisationConfig::default();
    assert_eq!(paired_randomisation(&[], &[], config), Err(EvalError::NoValues));
    assert_eq!(paired_randomisation(&[1.0], &[], config), Err(EvalError::Unpaired { left: 1, right: 0 }));
    let error = paired_randomisation(&[1.0], &[2.0], config.with_relabellings(0));
    assert_eq!(error, Err(EvalError::NoRelabellings));
    for bad in [f64::NAN, f64::INFINITY] {
        let error = paired_randomisation(&[1.0, bad], &[1.0, bad], config);
        assert!(matches!(error, Err(EvalError::NotFinite { index: 1, .. })));
    }
}

#[cfg(feature = "serde")]
#[test]
fn an_unknown_field_is_refused() {
    let config: RandomisationConfig = serde_json::from_str(r#"{"seed": 3}"#).unwrap();
    assert_eq!(config, RandomisationConfig::default().with_seed(3));
    assert!(serde_json::from_str::<RandomisationConfig>(r#"{"permutations": 3}"#).is_err());
}

proptest! {
    #[test]
    fn all_relabellings_agree_with_recursion(
        differences in prop::collection::vec((-4i32..5).prop_map(f64::from), 1..9),
    ) {
        fn sums(differences: &[f64]) -> Vec<f64> {
            match differences.split_first() {
                None => vec![0.0],
                Some((first, rest)) => sums(rest).into_iter().flat_map(|sum| [sum + first, sum - first]).collect(),
            }
        }
        let sums = sums(&differences);
        let measured: f64 = differences.iter().sum();
        let extreme = sums.iter().filter(|sum| sum.abs() >= measured.abs()).count();
        let found = paired_randomisation(&differences, &vec![0.0; differences.len()], RandomisationConfig::default())?;
        prop_assert!((found.p_value - extreme as f64 / sums.len() as f64).abs() < 1e-12);
        prop_assert!((found.difference - measured / differences.len() as f64).abs() < 1e-12);
    }

    #[test]
    fn drawing_comes_near_the_exact_value(seed: u64, values in prop::collection::vec(-1.0f64..1.0, 10..13)) {
        let zeros = vec![0.0; values.len()];
        let exact = paired_randomisation(&values, &zeros, RandomisationConfig::default().with_relabellings(4096))?;
        let drawn = RandomisationConfig::default().with_relabellings(1000).with_seed(seed);
        let drawn = paired_randomisation(&values, &zeros, drawn)?;
        prop_assert!(exact.exact && !drawn.exact);
        prop_assert!((exact.p_value - drawn.p_value).abs() < 0.085, "{exact:?} {drawn:?}"); // over five standard errors
        prop_assert!(drawn.p_value > 0.0 && drawn.p_value <= 1.0);
    }
}
