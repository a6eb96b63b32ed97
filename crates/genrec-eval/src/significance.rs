//! Whether one system is better than another on the same users, by a paired randomisation test.
//!
//! If both systems were alike, it would be chance which of a user's two values is whose. So the two are swapped for
//! every user by the flip of a coin, which flips the sign of the difference, again and again; the p-value is the share
//! of such relabellings whose mean difference is at least as far from 0 as the one that was measured. Nothing is
//! assumed of how the values are distributed (Fisher, *The Design of Experiments*, 1935; Smucker, Allan and
//! Carterette, *A comparison of statistical significance tests for information retrieval evaluation*, CIKM 2007, who
//! recommend it).
//!
//! An interval of [`paired_difference`](crate::bootstrap::paired_difference) says how large the difference is; the
//! test, whether there is one. Neither is corrected for how many metrics or systems are compared.

use crate::bootstrap::differences;
use crate::error::{EvalError, Result, check_finite};
use crate::rng::SplitMix64;

/// How a randomisation test is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RandomisationConfig {
    /// Number of relabellings, default 10,000: a p-value of 0.05 then has a standard error of 0.002. Time is
    /// proportional to relabellings times users whose values differ.
    pub relabellings: usize,
    /// Where the random numbers start, default 0.
    pub seed: u64,
}

impl Default for RandomisationConfig {
    fn default() -> Self {
        Self { relabellings: 10_000, seed: 0 }
    }
}

impl RandomisationConfig {
    /// Sets the number of relabellings.
    #[must_use]
    pub fn with_relabellings(mut self, relabellings: usize) -> Self {
        self.relabellings = relabellings;
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
    /// [`EvalError::NoRelabellings`].
    pub fn validate(&self) -> Result<()> {
        if self.relabellings == 0 { Err(EvalError::NoRelabellings) } else { Ok(()) }
    }
}

/// What a paired randomisation test found.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PairedTest {
    /// Mean over users of the first system's value minus the second's.
    pub difference: f64,
    /// Two-sided p-value, above 0 and at most 1.
    pub p_value: f64,
    /// Relabellings looked at.
    pub relabellings: usize,
    /// Whether those are all there are, so that the p-value is exact.
    pub exact: bool,
}

/// Tests whether the mean of `a - b`, user by user, is 0, by flipping signs.
///
/// With $d_u = a_u - b_u$ and random signs $s_u$, over $R$ relabellings:
///
/// $$ p = (1 + |\\{ r : |\sum_u s_{ru} d_u| \ge |\sum_u d_u| \\}|) / (1 + R) $$
///
/// The measured labelling is counted as one of them, without which a p-value could be 0 (Phipson and Smyth,
/// *Permutation p-values should never be zero*, SAGMB 9(1), 2010). Where the $m$ users with $d_u \ne 0$ have no more
/// than $R$ relabellings, all $2^m$ are looked at once and $p$ is their share. Sums that differ by rounding alone
/// count as equal. Without any difference, `p` is 1.
///
/// Relabelling `r` takes the signs of 64 users from each of the next numbers of the SplitMix64 sequence that starts at
/// the seed, lowest bit first, users without a difference left out. The same arguments give the same p-value
/// everywhere.
///
/// ```
/// use genrec_eval::significance::{RandomisationConfig, paired_randomisation};
/// # fn main() -> Result<(), genrec_eval::EvalError> {
/// let hits: Vec<f64> = (0..500).map(|user| f64::from(user % 5 == 0)).collect();
/// let more: Vec<f64> = (0..500).map(|user| f64::from(user % 5 == 0 || user % 50 == 1)).collect();
/// let test = paired_randomisation(&more, &hits, RandomisationConfig::default())?;
/// assert_eq!(test.difference, 0.02);
/// assert!(test.exact && test.p_value == 2.0 / 1024.0); // ten users differ, all in favour of the first
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`EvalError::NoRelabellings`], [`EvalError::Unpaired`] when the lengths differ, [`EvalError::NoValues`] when there
/// are no users, and [`EvalError::NotFinite`] when a difference is not finite.
pub fn paired_randomisation(a: &[f64], b: &[f64], config: RandomisationConfig) -> Result<PairedTest> {
    config.validate()?;
    let mut differing = differences(a, b)?;
    check_finite(&differing)?;
    // In units of the largest, so that no sum overflows.
    let largest = differing.iter().fold(0f64, |largest, d| largest.max(d.abs()));
    differing.retain(|&d| d != 0.0);
    differing.iter_mut().for_each(|d| *d /= largest);
    // `+ 0.0` makes of a negative zero, which is the sum of no values, a zero.
    let sum = differing.iter().sum::<f64>() + 0.0;
    let rounding = 1e-12 * differing.iter().map(|d| d.abs()).sum::<f64>();
    let is_extreme = |flipped: f64| flipped.abs() >= sum.abs() - rounding;

    let all = u32::try_from(differing.len()).ok().and_then(|m| 1usize.checked_shl(m));
    let (extreme, relabellings, exact) = match all.filter(|&all| all <= config.relabellings) {
        Some(all) => ((0..all).filter(|&signs| is_extreme(flip(&differing, signs as u64))).count(), all, true),
        None => {
            let mut rng = SplitMix64(config.seed);
            let draw = |_: &usize| is_extreme(differing.chunks(64).map(|users| flip(users, rng.next())).sum());
            (1 + (0..config.relabellings).filter(draw).count(), config.relabellings, false)
        }
    };
    let looked_at = relabellings as f64 + if exact { 0.0 } else { 1.0 };
    let difference = sum / a.len() as f64 * largest;
    Ok(PairedTest { difference, p_value: extreme as f64 / looked_at, relabellings, exact })
}

/// The sum of at most 64 values, those negated whose bit is set.
fn flip(values: &[f64], mut signs: u64) -> f64 {
    let mut sum = 0.0;
    for value in values {
        sum += if signs & 1 == 0 { *value } else { -value };
        signs >>= 1;
    }
    sum
}

#[cfg(test)]
mod tests;
