use proptest::prelude::*;

use super::*;

#[test]
fn the_same_arguments_give_the_same_interval() {
    let values: Vec<f64> = (0..57).map(|i| f64::from(i % 7)).collect();
    let config = BootstrapConfig::default().with_seed(3).with_resamples(300);
    assert_eq!(mean_interval(&values, config), mean_interval(&values, config));
    assert_ne!(mean_interval(&values, config), mean_interval(&values, config.with_seed(4)));
}

#[test]
fn coverage_of_the_true_mean_is_near_the_level() {
    // 300 samples of 60 uniform values; the binomial's standard deviation is about 0.017 at 0.9.
    let mut rng = SplitMix64(99);
    let mut inside = 0;
    for trial in 0..300 {
        let sample: Vec<f64> = (0..60).map(|_| rng.below(1_000_001) as f64 / 1e6).collect();
        let config = BootstrapConfig::default().with_level(0.9).with_resamples(400).with_seed(trial);
        inside += usize::from(mean_interval(&sample, config).unwrap().contains(0.5));
    }
    assert!((250..=285).contains(&inside), "{inside} of 300 intervals at level 0.9 hold the mean");
}

#[test]
fn its_width_is_that_of_the_normal_approximation() {
    let values: Vec<f64> = (0..2000).map(|i| f64::from(i % 5 == 0)).collect();
    let interval = mean_interval(&values, BootstrapConfig::default()).unwrap();
    let expected = 2.0 * 1.96 * (0.2f64 * 0.8 / 2000.0).sqrt();
    assert!(((interval.high - interval.low) / expected - 1.0).abs() < 0.1, "{interval:?} against {expected}");
    assert_eq!(interval.mean, 0.2);
}

#[test]
fn pairing_finds_what_two_intervals_hide() {
    let hard: Vec<f64> = (0..200).map(|i| f64::from(i % 10) / 10.0).collect();
    let better: Vec<f64> = hard.iter().enumerate().map(|(i, v)| v + 0.02 + 0.001 * (i % 3) as f64).collect();
    let config = BootstrapConfig::default();
    let (a, b) = (mean_interval(&better, config).unwrap(), mean_interval(&hard, config).unwrap());
    assert!(a.low < b.high);
    let gain = paired_difference(&better, &hard, config).unwrap();
    assert!(!gain.contains(0.0) && gain.low > 0.02);
    let loss = paired_difference(&hard, &better, config).unwrap();
    assert!((loss.low + gain.high).abs() < 1e-3 && loss.mean == -gain.mean);
}

#[test]
fn every_bad_argument_is_named() {
    let config = BootstrapConfig::default();
    assert_eq!(mean_interval(&[], config), Err(EvalError::NoValues));
    assert!(matches!(mean_interval(&[0.0, f64::NAN], config), Err(EvalError::NotFinite { index: 1, .. })));
    assert_eq!(mean_interval(&[1.0], config.with_resamples(0)), Err(EvalError::NoResamples));
    let limit = MAX_RESAMPLES;
    let error = EvalError::TooManyResamples { resamples: usize::MAX, limit };
    assert_eq!(mean_interval(&[1.0], config.with_resamples(usize::MAX)), Err(error));
    for level in [0.0, 1.0, -0.5, 1.5, f64::NAN] {
        assert!(matches!(mean_interval(&[1.0], config.with_level(level)), Err(EvalError::Level { .. })));
    }
    assert_eq!(paired_difference(&[1.0], &[], config), Err(EvalError::Unpaired { left: 1, right: 0 }));
}

#[cfg(feature = "serde")]
#[test]
fn an_unknown_field_is_refused() {
    let config: BootstrapConfig = serde_json::from_str(r#"{"resamples": 10}"#).unwrap();
    assert_eq!(config, BootstrapConfig::default().with_resamples(10));
    assert!(serde_json::from_str::<BootstrapConfig>(r#"{"resample": 10}"#).is_err());
}

proptest! {
    #[test]
    fn the_interval_lies_within_the_values(values in prop::collection::vec(-5.0f64..5.0, 1..40), seed: u64) {
        let config = BootstrapConfig::default().with_resamples(50).with_seed(seed);
        let Interval { mean, low, high } = mean_interval(&values, config)?;
        let (min, max) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), &v| (a.min(v), b.max(v)));
        let tolerance = 1e-9;
        prop_assert!(min - tolerance <= low && low <= high && high <= max + tolerance);
        prop_assert!(min - tolerance <= mean && mean <= max + tolerance);
    }

    #[test]
    fn a_higher_level_is_never_narrower(values in prop::collection::vec(0.0f64..1.0, 2..30)) {
        let config = BootstrapConfig::default().with_resamples(200);
        let (a, b) = (mean_interval(&values, config.with_level(0.8))?, mean_interval(&values, config.with_level(0.95))?);
        prop_assert!(b.low <= a.low && a.high <= b.high);
    }

    #[test]
    fn equal_values_have_an_interval_of_one_point(value in -3.0f64..3.0, n in 1usize..20) {
        let interval = mean_interval(&vec![value; n], BootstrapConfig::default().with_resamples(20))?;
        prop_assert!((interval.low - value).abs() < 1e-12 && (interval.high - value).abs() < 1e-12);
    }
}
