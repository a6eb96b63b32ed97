//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

use super::config::{OptimError, check};

/// How the learning rate changes over training: a factor on the base rate for each step.
///
/// TIGER's sequence model trains at 0.01 for its first 10,000 steps and by the inverse square root of the step after
/// them (Rajput et al. 2023, section 4): a base rate of 0.01 and [`Schedule::tiger`].
///
/// ```
/// use genrec_kernels::optim::Schedule;
///
/// let schedule = Schedule::tiger();
/// assert_eq!(schedule.factor(1), 1.0);
/// assert_eq!(schedule.factor(40_000), 0.5);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Schedule {
    /// The base rate throughout.
    #[default]
    Constant,
    /// Linear from 0 to the base rate, then constant.
    Warmup {
        /// Steps until the base rate is reached.
        warmup_steps: u64,
    },
    /// Constant for `warmup_steps` steps, then $\sqrt{\text{warmup steps} / \text{step}}$ (Vaswani et al. 2017,
    /// section 5.3, and T5).
    InverseSqrt {
        /// Steps before the rate falls.
        warmup_steps: u64,
    },
    /// Linear from 0 to the base rate over `warmup_steps` steps, then $\sqrt{\text{warmup steps} / \text{step}}$.
    WarmupInverseSqrt {
        /// Steps until the base rate is reached and falls again.
        warmup_steps: u64,
    },
    /// Linear from 0 to the base rate, then half a cosine down to `final_factor` of it at `total_steps`, and constant
    /// from there (Loshchilov and Hutter, *SGDR*, ICLR 2017).
    Cosine {
        /// Steps until the base rate is reached.
        #[serde(default)]
        warmup_steps: u64,
        /// Step at which the lowest rate is reached, above `warmup_steps`.
        total_steps: u64,
        /// Share of the base rate left at the end, in `[0, 1]`.
        #[serde(default)]
        final_factor: f64,
    },
    /// Linear from 0 to the base rate, then linear down to `final_factor` of it at `total_steps`, and constant from
    /// there.
    Linear {
        /// Steps until the base rate is reached.
        #[serde(default)]
        warmup_steps: u64,
        /// Step at which the lowest rate is reached, above `warmup_steps`.
        total_steps: u64,
        /// Share of the base rate left at the end, in `[0, 1]`.
        #[serde(default)]
        final_factor: f64,
    },
}

impl Schedule {
    /// TIGER's own: constant for 10,000 steps, then inverse square root.
    #[must_use]
    pub const fn tiger() -> Self {
        Self::InverseSqrt { warmup_steps: 10_000 }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`OptimError::OutOfRange`] names the first field outside its range.
    pub fn validate(&self) -> Result<(), OptimError> {
        match *self {
            Self::Constant | Self::Warmup { .. } | Self::InverseSqrt { .. } | Self::WarmupInverseSqrt { .. } => Ok(()),
            Self::Cosine { warmup_steps, total_steps, final_factor }
            | Self::Linear { warmup_steps, total_steps, final_factor } => {
                check("total_steps", total_steps as f64, total_steps > warmup_steps, "above warmup_steps")?;
                check("final_factor", final_factor, (0.0..=1.0).contains(&final_factor), "in [0, 1]")
            }
        }
    }

    /// The factor on the base rate at a step, counted from 1; step 0 counts as step 1, so that no step of a linear
    /// warm-up has rate 0.
    #[must_use]
    pub fn factor(&self, step: u64) -> f64 {
        let step = step.max(1);
        let t = step as f64;
        let rise = |warmup: u64| if step < warmup { t / warmup as f64 } else { 1.0 };
        let fall = |warmup: u64| (warmup.max(1) as f64 / step.max(warmup) as f64).sqrt();
        // Share of the way from the end of the warm-up to the last step.
        let progress = |warmup: u64, total: u64| {
            let span = total.saturating_sub(warmup).max(1) as f64;
            (step.saturating_sub(warmup) as f64 / span).min(1.0)
        };
        match *self {
            Self::Constant => 1.0,
            Self::Warmup { warmup_steps } => rise(warmup_steps),
            Self::InverseSqrt { warmup_steps } => fall(warmup_steps),
            Self::WarmupInverseSqrt { warmup_steps } => rise(warmup_steps) * fall(warmup_steps),
            Self::Cosine { warmup_steps, total_steps, final_factor } => {
                if step < warmup_steps {
                    return rise(warmup_steps);
                }
                let half = 0.5 * (1.0 + (std::f64::consts::PI * progress(warmup_steps, total_steps)).cos());
                final_factor + (1.0 - final_factor) * half
            }
            Self::Linear { warmup_steps, total_steps, final_factor } => {
                if step < warmup_steps {
                    return rise(warmup_steps);
                }
                1.0 + (final_factor - 1.0) * progress(warmup_steps, total_steps)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn constant_and_warmup() {
        close(Schedule::Constant.factor(1_000_000), 1.0);
        let s = Schedule::Warmup { warmup_steps: 4 };
        for (step, want) in [(0, 0.25), (1, 0.25), (2, 0.5), (4, 1.0), (9, 1.0)] {
            close(s.factor(step), want);
        }
    }

    #[test]
    fn inverse_square_root() {
        let flat = Schedule::tiger();
        for (step, want) in [(1, 1.0), (10_000, 1.0), (40_000, 0.5), (250_000, 0.2)] {
            close(flat.factor(step), want);
        }
        let rising = Schedule::WarmupInverseSqrt { warmup_steps: 100 };
        for (step, want) in [(1, 0.01), (50, 0.5), (100, 1.0), (400, 0.5)] {
            close(rising.factor(step), want);
        }
        close(Schedule::InverseSqrt { warmup_steps: 0 }.factor(4), 0.5);
    }

    #[test]
    fn cosine_and_linear() {
        let s = Schedule::Cosine { warmup_steps: 10, total_steps: 110, final_factor: 0.1 };
        for (step, want) in [(5, 0.5), (10, 1.0), (60, 0.55), (110, 0.1), (500, 0.1)] {
            close(s.factor(step), want);
        }
        let s = Schedule::Linear { warmup_steps: 0, total_steps: 100, final_factor: 0.0 };
        for (step, want) in [(25, 0.75), (100, 0.0), (101, 0.0)] {
            close(s.factor(step), want);
        }
        // A total below the warm-up ends at the lowest rate and divides by nothing.
        assert!(Schedule::Cosine { warmup_steps: 10, total_steps: 5, final_factor: 0.0 }.factor(20).is_finite());
    }

    #[test]
    fn every_field_is_checked() {
        let both = |warmup_steps, total_steps, final_factor| {
            let cosine = Schedule::Cosine { warmup_steps, total_steps, final_factor }.validate();
            let linear = Schedule::Linear { warmup_steps, total_steps, final_factor }.validate();
            match (cosine, linear) {
                (Ok(()), Ok(())) => None,
                (Err(OptimError::OutOfRange { name, .. }), Err(OptimError::OutOfRange { name: same, .. })) => {
                    assert_eq!(name, same);
                    Some(name)
                }
                other => panic!("{other:?}"),
            }
        };
        for good in [(0, 1, 0.0), (10, 11, 1.0), (100, 1_900, 0.05)] {
            assert_eq!(both(good.0, good.1, good.2), None);
        }
        for bad in [-5.0, -f64::MIN_POSITIVE, 1.5, f64::NAN, f64::INFINITY] {
            assert_eq!(both(0, 10, bad), Some("final_factor"));
        }
        for (warmup, total) in [(0, 0), (10, 10), (10, 5)] {
            assert_eq!(both(warmup, total, 0.0), Some("total_steps"));
        }
        for good in [Schedule::Constant, Schedule::Warmup { warmup_steps: 0 }, Schedule::tiger()] {
            good.validate().unwrap();
        }
    }

    #[test]
    fn files_name_the_kind() {
        let s: Schedule = serde_json::from_str(r#"{ "type": "inverse_sqrt", "warmup_steps": 10000 }"#).unwrap();
        assert_eq!(s, Schedule::tiger());
        assert!(serde_json::from_str::<Schedule>(r#"{ "type": "warmup", "warmup_steps": 1, "total": 2 }"#).is_err());
        let text = serde_json::to_string(&Schedule::Warmup { warmup_steps: 3 }).unwrap();
        assert_eq!(text, r#"{"type":"warmup","warmup_steps":3}"#);
    }
}
