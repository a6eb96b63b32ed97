//! The contracts: a metric that accumulates over users, and one that scores a single user's list.

/// A number accumulated over the ranked lists of many users.
///
/// `I` is whatever names an item: a row number, a string, a newtype. A metric can be filled in several pieces, for
/// example one a thread, that are merged afterwards. Floating-point sums depend on their order, so merge the pieces in
/// a fixed order when the last bits matter.
pub trait Metric<I> {
    /// Name in reports, with the cut-off: `"recall@10"`.
    fn name(&self) -> String;

    /// Adds one user: the items recommended, best first, and the items that are right.
    fn update(&mut self, ranked: &[I], relevant: &[I]);

    /// The value over all users so far, or `None` when no user counted.
    fn value(&self) -> Option<f64>;

    /// Adds everything that another accumulator of the same kind has seen.
    ///
    /// Accumulators with other settings (another cut-off) measure something else. Merging them leaves an accumulator
    /// without a [`value`](Self::value), rather than a wrong one, until it is [`reset`](Self::reset).
    fn merge(&mut self, other: &Self);

    /// Forgets every user.
    fn reset(&mut self);
}

/// A number for a single user's list, averaged over users by whoever collects it.
///
/// [`Suite`](crate::Suite) takes any implementation and keeps the value of every user, which is what confidence
/// intervals and paired comparisons need.
pub trait ListMetric<I> {
    /// Name in reports, with the cut-off and whatever else sets it apart: `"recall@10"`. Two metrics of one name are
    /// taken to measure the same.
    fn name(&self) -> String;

    /// The value for one user.
    ///
    /// `None` means that the user does not count, and is for users without relevant items only; a
    /// [`Suite`](crate::Suite) takes any other `None` as 0, so that all its metrics are over the same users.
    fn score(&self, ranked: &[I], relevant: &[I]) -> Option<f64>;
}

/// A running mean over users that remembers when it was spoilt by a merge of unlike accumulators.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct RunningMean {
    sum: f64,
    count: u64,
    spoilt: bool,
}

impl RunningMean {
    pub(crate) fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self, same_settings: bool) {
        self.sum += other.sum;
        self.count += other.count;
        self.spoilt |= other.spoilt || !same_settings;
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn value(&self) -> Option<f64> {
        (self.count > 0 && !self.spoilt).then(|| self.sum / self.count as f64)
    }
}

/// A metric that has no setting but its cut-off: fields `k` and `mean`.
macro_rules! first_ranks {
    ($metric:ident, $name:literal) => {
        impl $metric {
            /// The metric over the first `k` ranks, with no user seen yet.
            ///
            /// # Errors
            /// [`EvalError::ZeroCutoff`](crate::EvalError::ZeroCutoff) when `k` is 0.
            pub fn new(k: usize) -> $crate::error::Result<Self> {
                $crate::error::check_cutoff($name, k)?;
                Ok(Self::over(k))
            }

            pub(crate) fn over(k: usize) -> Self {
                Self { k, mean: $crate::metric::RunningMean::default() }
            }

            /// Number of ranks that count.
            pub fn k(&self) -> usize {
                self.k
            }

            /// Name in reports, with the cut-off.
            pub fn name(&self) -> String {
                format!(concat!($name, "@{}"), self.k)
            }

            fn same_settings(&self, other: &Self) -> bool {
                self.k == other.k
            }
        }
    };
}

/// What metrics have in common that are a mean over users of their [`ListMetric::score`]: a field `mean`, and the
/// methods `name` and `same_settings`. After the metric stand the bounds of the items that it takes.
macro_rules! averaged_over_users {
    ([$($generics:tt)*] $metric:ty, $($bounds:tt)+) => {
        impl $($generics)* $metric {
            /// Users that counted so far.
            pub fn users(&self) -> u64 {
                self.mean.count()
            }

            /// The mean over all users that counted so far, or `None` when there were none.
            pub fn value(&self) -> Option<f64> {
                self.mean.value()
            }

            /// Adds everything that another accumulator of the same settings has seen; see
            /// [`Metric::merge`](crate::Metric::merge).
            pub fn merge(&mut self, other: &Self) {
                let same_settings = self.same_settings(other);
                self.mean.merge(&other.mean, same_settings);
            }

            /// Forgets every user.
            pub fn reset(&mut self) {
                self.mean = $crate::metric::RunningMean::default();
            }
        }

        impl<I: $($bounds)+> $crate::metric::Metric<I> for $metric {
            fn name(&self) -> String {
                self.name()
            }

            fn update(&mut self, ranked: &[I], relevant: &[I]) {
                if let Some(score) = $crate::metric::ListMetric::score(self, ranked, relevant) {
                    self.mean.add(score);
                }
            }

            fn value(&self) -> Option<f64> {
                self.value()
            }

            fn merge(&mut self, other: &Self) {
                self.merge(other);
            }

            fn reset(&mut self) {
                self.reset();
            }
        }
    };
}

pub(crate) use averaged_over_users;
pub(crate) use first_ranks;
