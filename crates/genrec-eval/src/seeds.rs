//! One figure for several runs that differ by their seed alone: mean, standard error and Student's interval.
//!
//! An interval over seeds answers another question than one over users ([`bootstrap`](crate::bootstrap)): what
//! training once more would give, on the same users, rather than what other users would get from the same weights.
//! Runs are few, so the interval is that of the t distribution, which takes the figures of the runs as normally
//! distributed; a bootstrap of five values would be far too narrow.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{EvalError, Result, check_finite, check_level};
use crate::student::two_sided_quantile;

/// Mean over runs, and how far it can be trusted.
///
/// It prints as results tables have it, with four decimals or as many as are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OverSeeds {
    /// Number of runs.
    pub seeds: usize,
    /// Their mean.
    pub mean: f64,
    /// How far they lie apart; `None` for a single run, which does not tell.
    pub spread: Option<Spread>,
}

/// How far runs lie apart, in the unit of their figure.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Spread {
    /// Standard deviation of the runs, with $n - 1$ in the denominator.
    pub standard_deviation: f64,
    /// Standard error of the mean: the standard deviation over $\sqrt n$.
    pub standard_error: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl fmt::Display for OverSeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(4);
        write!(f, "{:.digits$}", self.mean)?;
        if let Some(Spread { low, high, .. }) = self.spread {
            write!(f, " [{low:.digits$}, {high:.digits$}]")?;
        }
        write!(f, ", {} seed{}", self.seeds, if self.seeds == 1 { "" } else { "s" })
    }
}

/// The mean of one figure of each run and its interval at `level`, 0.95 as a rule.
///
/// With mean $\bar x$ and standard deviation $s$ of $n$ runs, and $t$ the two-sided quantile at $n - 1$ degrees of
/// freedom:
///
/// $$ \bar x \pm t \\, s / \sqrt n $$
///
/// Of two systems with the same seeds, the differences run by run can be given (Student, *The probable error of a
/// mean*, Biometrika 6(1), 1908). Differences are taken from the mean, so that large values with a small spread keep
/// their digits.
///
/// ```
/// use genrec_eval::seeds::over_seeds;
/// # fn main() -> Result<(), genrec_eval::EvalError> {
/// let recall = over_seeds(&[0.0382, 0.0395, 0.0377], 0.95)?;
/// assert_eq!(recall.to_string(), "0.0385 [0.0362, 0.0408], 3 seeds");
/// assert_eq!(format!("{:.2}", over_seeds(&[0.0382], 0.95)?), "0.04, 1 seed");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`EvalError::Level`], [`EvalError::NoValues`] without runs, and [`EvalError::NotFinite`].
pub fn over_seeds(values: &[f64], level: f64) -> Result<OverSeeds> {
    check_level(level)?;
    check_finite(values)?;
    let n = values.len() as f64;
    let mean = values.iter().map(|value| value / n).sum::<f64>();
    let spread = (values.len() > 1).then(|| {
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let standard_deviation = (squares / (n - 1.0)).sqrt();
        let standard_error = standard_deviation / n.sqrt();
        let half = two_sided_quantile(level, values.len() - 1) * standard_error;
        Spread { standard_deviation, standard_error, low: mean - half, high: mean + half }
    });
    Ok(OverSeeds { seeds: values.len(), mean, spread })
}

/// [`over_seeds`] of every metric of the [reports](crate::Suite::report) of several runs.
///
/// ```
/// use genrec_eval::{Suite, seeds::reports_over_seeds};
/// # fn main() -> Result<(), genrec_eval::EvalError> {
/// let mut reports = Vec::new();
/// for seed in 0..4u32 {
///     let mut suite = Suite::standard();
///     suite.update(&[seed, 1, 2], &[2]); // what the run of this seed recommends
///     reports.push(suite.report());
/// }
/// let table = reports_over_seeds(&reports, 0.95)?;
/// assert_eq!(table["recall@5"].to_string(), "1.0000 [1.0000, 1.0000], 4 seeds");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`EvalError::DifferentMetrics`] when a report has other metrics than the first, and the errors of [`over_seeds`].
pub fn reports_over_seeds(reports: &[BTreeMap<String, f64>], level: f64) -> Result<BTreeMap<String, OverSeeds>> {
    let Some((first, others)) = reports.split_first() else { return Err(EvalError::NoValues) };
    for other in others {
        if !first.keys().eq(other.keys()) {
            let names = |report: &BTreeMap<String, f64>| report.keys().cloned().collect();
            return Err(EvalError::DifferentMetrics { left: names(first), right: names(other) });
        }
    }
    let over = |name: &String| -> Result<OverSeeds> {
        let values: Vec<f64> = reports.iter().filter_map(|report| report.get(name).copied()).collect();
        over_seeds(&values, level)
    };
    first.keys().map(|name| Ok((name.clone(), over(name)?))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::SplitMix64;

    #[test]
    fn the_interval_of_normal_runs_holds_the_mean_as_often_as_it_says() {
        // Sums of twelve uniform numbers; of 2,000 intervals at 0.9 the binomial's standard deviation is 13.4.
        let mut rng = SplitMix64(8);
        let mut inside = 0;
        for _ in 0..2000 {
            let run = |_| (0..12).map(|_| rng.below(1_000_001) as f64 / 1e6).sum::<f64>();
            let runs: Vec<f64> = (0..3).map(run).collect();
            let spread = over_seeds(&runs, 0.9).unwrap().spread.unwrap();
            inside += usize::from(spread.low <= 6.0 && 6.0 <= spread.high);
        }
        assert!((1746..=1854).contains(&inside), "{inside} of 2000");
    }

    #[test]
    fn every_bad_argument_is_named() {
        assert_eq!(over_seeds(&[], 0.95), Err(EvalError::NoValues));
        assert_eq!(reports_over_seeds(&[], 0.95), Err(EvalError::NoValues));
        for level in [0.0, 1.0, f64::NAN] {
            assert!(matches!(over_seeds(&[1.0], level), Err(EvalError::Level { .. })));
        }
        assert!(matches!(over_seeds(&[1.0, f64::INFINITY], 0.5), Err(EvalError::NotFinite { index: 1, .. })));
        let report = |name: &str| BTreeMap::from([(name.to_owned(), 0.5)]);
        let error = reports_over_seeds(&[report("a"), report("b")], 0.95).unwrap_err();
        assert_eq!(error, EvalError::DifferentMetrics { left: vec!["a".into()], right: vec!["b".into()] });
    }

    #[test]
    fn one_run_has_no_spread() {
        let one = over_seeds(&[0.25], 0.95).unwrap();
        assert_eq!(one, OverSeeds { seeds: 1, mean: 0.25, spread: None });
        assert_eq!((one.to_string(), format!("{one:.1}")), ("0.2500, 1 seed".into(), "0.2, 1 seed".into()));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn is_read_as_written() {
        for values in [&[0.1][..], &[0.1, 0.3]] {
            let over = over_seeds(values, 0.95).unwrap();
            let json = serde_json::to_string(&over).unwrap();
            assert_eq!(serde_json::from_str::<OverSeeds>(&json).unwrap(), over);
        }
    }

    proptest! {
        #[test]
        fn moves_and_grows_with_its_values(
            values in prop::collection::vec(-1.0f64..1.0, 2..8), by in -5.0f64..5.0, times in 0.1f64..9.0,
        ) {
            let moved: Vec<f64> = values.iter().map(|value| value * times + by).collect();
            let (a, b) = (over_seeds(&values, 0.9)?, over_seeds(&moved, 0.9)?);
            let (sa, sb) = (a.spread.unwrap(), b.spread.unwrap());
            for (from, to) in [(a.mean, b.mean), (sa.low, sb.low), (sa.high, sb.high)] {
                prop_assert!((from * times + by - to).abs() < 1e-9);
            }
            prop_assert!((sa.standard_error * times - sb.standard_error).abs() < 1e-9);
            let wider = over_seeds(&values, 0.95)?.spread.unwrap();
            prop_assert!(wider.low <= sa.low && sa.low <= a.mean && a.mean <= sa.high && sa.high <= wider.high);
        }
    }
}
