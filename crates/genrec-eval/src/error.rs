//! What can be wrong with the arguments of a metric, an interval or a test, and the checks that they share.

/// What is wrong with the arguments of a metric, a suite, an interval or a test.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A cut-off of zero ranks.
    #[error("the cut-off of `{metric}` is 0 ranks, which no list can reach; use at least 1")]
    ZeroCutoff {
        /// Name of the metric, without its cut-off.
        metric: &'static str,
    },
    /// A prefix of no codes, which every item shares.
    #[error("level 0 asks for no codes, which every pair of Semantic IDs shares; count levels from 1")]
    ZeroLevel,
    /// A catalogue without items has no coverage.
    #[error("the catalogue has no items, so no share of it can be covered; pass the number of items")]
    EmptyCatalogue,
    /// An interval or a test was asked for over no values.
    #[error("intervals and tests need at least one value; none were given")]
    NoValues,
    /// A value is NaN or infinite.
    #[error("value {index} is {value}, which is not finite; intervals and tests need finite values")]
    NotFinite {
        /// Position in the slice.
        index: usize,
        /// The value there.
        value: f64,
    },
    /// Two sets of values that are to be paired differ in number.
    #[error("{left} values cannot be paired with {right}; score both systems on the same users, in the same order")]
    Unpaired {
        /// Values of the first system.
        left: usize,
        /// Values of the second system.
        right: usize,
    },
    /// No bootstrap resamples.
    #[error("a bootstrap of 0 resamples gives no interval; use at least 1, better 1,000")]
    NoResamples,
    /// More bootstrap resamples than memory is set aside for.
    #[error("{resamples} resamples were asked for, but at most {limit} are kept; 2,000 are enough for a 95 % interval")]
    TooManyResamples {
        /// The number given.
        resamples: usize,
        /// The largest that is taken.
        limit: usize,
    },
    /// No relabellings of a randomisation test.
    #[error("a randomisation test of 0 relabellings gives no p-value; use at least 1, better 10,000")]
    NoRelabellings,
    /// A confidence level outside of the open interval from 0 to 1.
    #[error("the confidence level is {level}, but it must lie between 0 and 1, both excluded")]
    Level {
        /// The level given.
        level: f64,
    },
    /// Two suites or reports that are to be merged or compared hold different metrics.
    #[error("one side measures {left:?}, the other {right:?}; build both with the same metrics in the same order")]
    DifferentMetrics {
        /// Metrics of the first side.
        left: Vec<String>,
        /// Metrics of the second side.
        right: Vec<String>,
    },
    /// A suite was given two metrics of one name.
    #[error("the suite already has a metric named `{name}`; names are the keys of its report")]
    DuplicateMetric {
        /// The name that is taken.
        name: String,
    },
}

/// Result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, EvalError>;

/// Refuses a cut-off of no ranks.
pub(crate) fn check_cutoff(metric: &'static str, k: usize) -> Result<()> {
    if k == 0 {
        return Err(EvalError::ZeroCutoff { metric });
    }
    Ok(())
}

/// Refuses no values, and values that are not finite.
pub(crate) fn check_finite(values: &[f64]) -> Result<()> {
    if values.is_empty() {
        return Err(EvalError::NoValues);
    }
    match values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        Some((index, &value)) => Err(EvalError::NotFinite { index, value }),
        None => Ok(()),
    }
}

/// Refuses a level that is no probability strictly between 0 and 1.
pub(crate) fn check_level(level: f64) -> Result<()> {
    if level > 0.0 && level < 1.0 { Ok(()) } else { Err(EvalError::Level { level }) }
}
