//! What can be wrong with the arguments of a metric or an interval.

/// What is wrong with the arguments of a metric, a suite or an interval.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A cut-off of zero ranks.
    #[error("the cut-off of `{metric}` is 0 ranks, which no list can reach; use at least 1")]
    ZeroCutoff {
        /// Name of the metric, without its cut-off.
        metric: &'static str,
    },
    /// A catalogue without items has no coverage.
    #[error("the catalogue has no items, so no share of it can be covered; pass the number of items")]
    EmptyCatalogue,
    /// An interval was asked for over no values.
    #[error("an interval needs at least one value; none were given")]
    NoValues,
    /// A value is NaN or infinite.
    #[error("value {index} is {value}, which is not finite; an interval needs finite values")]
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
    /// A confidence level outside of the open interval from 0 to 1.
    #[error("the confidence level is {level}, but it must lie between 0 and 1, both excluded")]
    Level {
        /// The level given.
        level: f64,
    },
    /// Two suites that are to be merged or compared hold different metrics.
    #[error("one suite measures {left:?}, the other {right:?}; build both with the same metrics in the same order")]
    DifferentMetrics {
        /// Metrics of the first suite.
        left: Vec<String>,
        /// Metrics of the second suite.
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
