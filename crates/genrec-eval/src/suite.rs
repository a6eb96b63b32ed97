//! Several metrics over the same users, with the value of every user kept.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use crate::bootstrap::{BootstrapConfig, Interval, mean_interval, paired_difference};
use crate::error::{EvalError, Result};
use crate::metric::{ListMetric, RunningMean};
use crate::rank::{HitRate, Mrr, Ndcg, Recall};
use crate::significance::{PairedTest, RandomisationConfig, paired_randomisation};

type SharedMetric<I> = Arc<dyn ListMetric<I> + Send + Sync>;

/// Several [`ListMetric`]s measured on the same users, whose single values are kept for confidence intervals and paired
/// comparisons.
///
/// A user without relevant items is left out of every metric and counted in [`skipped`](Self::skipped), so that the
/// values of all metrics belong to the same users, in the order of the updates. Memory is 8 bytes a user and metric.
///
/// ```
/// use genrec_eval::{Suite, bootstrap::BootstrapConfig, significance::RandomisationConfig};
/// # fn main() -> Result<(), genrec_eval::EvalError> {
/// let (mut ours, mut popular) = (Suite::standard(), Suite::standard());
/// for user in 0..100u32 {
///     ours.update(&[user, 0, 1], &[user]);
///     popular.update(&[0, 1, 2], &[user]);
/// }
/// assert_eq!(ours.report()["recall@5"], 1.0);
/// assert_eq!(popular.report()["recall@5"], 0.03);
/// let gain = ours.compare(&popular, BootstrapConfig::default())?["recall@5"];
/// assert!(!gain.contains(0.0));
/// let test = ours.test(&popular, RandomisationConfig::default())?["recall@5"];
/// assert!(test.p_value < 0.001);
/// # Ok(())
/// # }
/// ```
pub struct Suite<I> {
    metrics: Vec<SharedMetric<I>>,
    names: Vec<String>,
    values: Vec<Vec<f64>>,
    users: usize,
    skipped: usize,
}

impl<I: Eq + Hash> Suite<I> {
    /// What papers on sequential recommendation report, `recall@5`, `recall@10`, `ndcg@5` and `ndcg@10`, and besides
    /// `mrr@10` and `hit_rate@10`.
    pub fn standard() -> Self {
        let mut suite = Self::new();
        for k in [5, 10] {
            suite.push(format!("recall@{k}"), Arc::new(Recall::over(k)));
            suite.push(format!("ndcg@{k}"), Arc::new(Ndcg::over(k)));
        }
        suite.push("mrr@10".to_owned(), Arc::new(Mrr::over(10)));
        suite.push("hit_rate@10".to_owned(), Arc::new(HitRate::over(10)));
        suite
    }
}

impl<I> Suite<I> {
    /// A suite without metrics, to be filled by [`with`](Self::with).
    pub fn new() -> Self {
        Self { metrics: Vec::new(), names: Vec::new(), values: Vec::new(), users: 0, skipped: 0 }
    }

    /// Adds a metric and forgets the users seen so far, which it would lack.
    ///
    /// # Errors
    /// [`EvalError::DuplicateMetric`] when the suite has a metric of that name.
    pub fn with(mut self, metric: impl ListMetric<I> + Send + Sync + 'static) -> Result<Self> {
        let name = metric.name();
        if self.names.contains(&name) {
            return Err(EvalError::DuplicateMetric { name });
        }
        self.push(name, Arc::new(metric));
        self.reset();
        Ok(self)
    }

    fn push(&mut self, name: String, metric: SharedMetric<I>) {
        self.names.push(name);
        self.metrics.push(metric);
        self.values.push(Vec::new());
    }

    /// Adds one user: the items recommended, best first, and the items that are right.
    pub fn update(&mut self, ranked: &[I], relevant: &[I]) {
        if relevant.is_empty() {
            self.skipped += 1;
            return;
        }
        self.users += 1;
        for (metric, values) in self.metrics.iter().zip(&mut self.values) {
            values.push(metric.score(ranked, relevant).unwrap_or(0.0));
        }
    }

    /// Names of the metrics, in the order in which they were added.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Users that count: those with at least one relevant item.
    pub fn users(&self) -> usize {
        self.users
    }

    /// Users left out because nothing was relevant for them.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// One value a user that counts, in the order of the updates, or `None` when no metric has that name.
    pub fn values(&self, name: &str) -> Option<&[f64]> {
        let at = self.names.iter().position(|own| own == name)?;
        Some(&self.values[at])
    }

    /// The mean over users of the metric of that name; `None` when there is no such metric or no user counted.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.values(name).and_then(mean)
    }

    /// Name and mean over users of every metric; empty when no user counted.
    pub fn report(&self) -> BTreeMap<String, f64> {
        self.names.iter().zip(&self.values).filter_map(|(name, values)| Some((name.clone(), mean(values)?))).collect()
    }

    /// Name, mean and confidence interval of every metric.
    ///
    /// # Errors
    /// When the configuration is out of range or no user counted.
    pub fn intervals(&self, config: BootstrapConfig) -> Result<BTreeMap<String, Interval>> {
        self.names
            .iter()
            .zip(&self.values)
            .map(|(name, values)| Ok((name.clone(), mean_interval(values, config)?)))
            .collect()
    }

    /// By how much every metric is better here than in `baseline`, on the same users, with a paired interval.
    ///
    /// Both suites must have seen the same users in the same order; only their number can be checked.
    ///
    /// # Errors
    /// [`EvalError::DifferentMetrics`], [`EvalError::Unpaired`], or the errors of
    /// [`paired_difference`].
    pub fn compare(&self, baseline: &Self, config: BootstrapConfig) -> Result<BTreeMap<String, Interval>> {
        self.paired_with(baseline, |ours, theirs| paired_difference(ours, theirs, config))
    }

    /// Whether each metric differs from that of `baseline` on the same users, by a paired randomisation test. As with
    /// [`compare`](Self::compare), only the number of the users can be checked.
    ///
    /// # Errors
    /// [`EvalError::DifferentMetrics`], [`EvalError::Unpaired`], or the errors of [`paired_randomisation`].
    pub fn test(&self, baseline: &Self, config: RandomisationConfig) -> Result<BTreeMap<String, PairedTest>> {
        self.paired_with(baseline, |ours, theirs| paired_randomisation(ours, theirs, config))
    }

    /// Name of every metric, and what `pair` makes of its values in both suites.
    fn paired_with<T>(
        &self,
        baseline: &Self,
        pair: impl Fn(&[f64], &[f64]) -> Result<T>,
    ) -> Result<BTreeMap<String, T>> {
        self.check_same_metrics(baseline)?;
        self.names
            .iter()
            .zip(self.values.iter().zip(&baseline.values))
            .map(|(name, (ours, theirs))| Ok((name.clone(), pair(ours, theirs)?)))
            .collect()
    }

    /// Appends the users of another suite with the same metrics.
    ///
    /// # Errors
    /// [`EvalError::DifferentMetrics`]; this suite is then unchanged.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.check_same_metrics(other)?;
        for (values, more) in self.values.iter_mut().zip(&other.values) {
            values.extend_from_slice(more);
        }
        self.users += other.users;
        self.skipped += other.skipped;
        Ok(())
    }

    /// Forgets every user and keeps the metrics.
    pub fn reset(&mut self) {
        self.values.iter_mut().for_each(Vec::clear);
        self.users = 0;
        self.skipped = 0;
    }

    fn check_same_metrics(&self, other: &Self) -> Result<()> {
        if self.names != other.names {
            return Err(EvalError::DifferentMetrics { left: self.names.clone(), right: other.names.clone() });
        }
        Ok(())
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    let mut mean = RunningMean::default();
    values.iter().for_each(|&value| mean.add(value));
    mean.value()
}

impl<I> Default for Suite<I> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I> Clone for Suite<I> {
    fn clone(&self) -> Self {
        Self {
            metrics: self.metrics.clone(),
            names: self.names.clone(),
            values: self.values.clone(),
            users: self.users,
            skipped: self.skipped,
        }
    }
}

impl<I> fmt::Debug for Suite<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suite")
            .field("report", &self.report())
            .field("users", &self.users)
            .field("skipped", &self.skipped)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
