//! Confidence intervals for means over users, by the percentile bootstrap.
//!
//! Users are drawn with replacement, as many as there are, again and again; the interval runs between two percentiles
//! of the means of these resamples (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13).
//! Comparing two systems on the same users, [`paired_difference`] resamples each user's difference, which removes the
//! variation between users that both systems share: it finds differences that two separate intervals hide
//! (Koehn, *Statistical significance tests for machine translation evaluation*, EMNLP 2004).
//!
//! The draws come from a counter-based generator: resample `r` of `n` values uses the numbers `r n .. (r + 1) n` of the
//! SplitMix64 sequence (Steele, Lea and Flood, OOPSLA 2014) that starts at the seed. The same arguments give the same
//! interval everywhere.

use crate::error::{EvalError, Result, check_finite, check_level};
use crate::rng::SplitMix64;

/// Most resamples that a configuration may ask for: their means take 128 MiB.
pub const MAX_RESAMPLES: usize = 1 << 24;

/// How an interval is made.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct BootstrapConfig {
    /// Number of resamples, default 2,000: the ends of a 95 % interval then rest on 50 resamples each. Time is
    /// proportional to resamples times users; at most [`MAX_RESAMPLES`].
    pub resamples: usize,
    /// Probability that the interval covers, between 0 and 1, default 0.95.
    pub level: f64,
    /// Where the random numbers start, default 0.
    pub seed: u64,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        Self { resamples: 2000, level: 0.95, seed: 0 }
    }
}

impl BootstrapConfig {
    /// Sets the number of resamples.
    #[must_use]
    pub fn with_resamples(mut self, resamples: usize) -> Self {
        self.resamples = resamples;
        self
    }

    /// Sets the level.
    #[must_use]
    pub fn with_level(mut self, level: f64) -> Self {
        self.level = level;
        self
    }

    /// Sets the seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`EvalError::NoResamples`], [`EvalError::TooManyResamples`] or [`EvalError::Level`].
    pub fn validate(&self) -> Result<()> {
        if self.resamples == 0 {
            return Err(EvalError::NoResamples);
        }
        if self.resamples > MAX_RESAMPLES {
            return Err(EvalError::TooManyResamples { resamples: self.resamples, limit: MAX_RESAMPLES });
        }
        check_level(self.level)
    }
}

/// A mean and the interval that it lies in with the level asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Interval {
    /// Mean of the values themselves, not of the resamples.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `value` lies in the interval, its ends included. A paired difference whose interval does not contain 0
    /// is significant at one minus the level.
    pub fn contains(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

/// The mean of `values`, one a user, and its interval.
///
/// ```
/// use genrec_eval::bootstrap::{BootstrapConfig, mean_interval};
/// # fn main() -> Result<(), genrec_eval::EvalError> {
/// let hits: Vec<f64> = (0..400).map(|user| f64::from(user % 4 == 0)).collect();
/// let recall = mean_interval(&hits, BootstrapConfig::default())?;
/// assert_eq!(recall.mean, 0.25);
/// assert!(recall.low > 0.2 && recall.high < 0.3);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the configuration is out of range, there are no values, or one is not finite.
pub fn mean_interval(values: &[f64], config: BootstrapConfig) -> Result<Interval> {
    config.validate()?;
    check_finite(values)?;
    let n = values.len();
    let mut rng = SplitMix64(config.seed);
    let mut means: Vec<f64> =
        (0..config.resamples).map(|_| (0..n).map(|_| values[rng.below(n)]).sum::<f64>() / n as f64).collect();
    means.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - config.level) / 2.0;
    Ok(Interval {
        mean: values.iter().sum::<f64>() / n as f64,
        low: quantile(&means, tail),
        high: quantile(&means, 1.0 - tail),
    })
}

/// The mean of `a - b` user by user, and its interval: how much better `a` is than `b` on the same users.
///
/// # Errors
/// [`EvalError::Unpaired`] when the lengths differ, and the errors of [`mean_interval`].
pub fn paired_difference(a: &[f64], b: &[f64], config: BootstrapConfig) -> Result<Interval> {
    mean_interval(&differences(a, b)?, config)
}

/// `a - b` user by user.
pub(crate) fn differences(a: &[f64], b: &[f64]) -> Result<Vec<f64>> {
    if a.len() != b.len() {
        return Err(EvalError::Unpaired { left: a.len(), right: b.len() });
    }
    Ok(a.iter().zip(b).map(|(a, b)| a - b).collect())
}

/// The `q`-quantile of sorted values, interpolated linearly between neighbours (NumPy's default).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let below = position.floor();
    // Both ends of the list are reached for q in 0..=1, so the index stays inside.
    let low = (below as usize).min(sorted.len() - 1);
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + (sorted[high] - sorted[low]) * (position - below)
}

#[cfg(test)]
mod tests;
