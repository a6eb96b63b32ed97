//! How much of the catalogue is ever recommended.

use std::hash::Hash;

use crate::error::Result;
use crate::exposure::Exposure;
use crate::metric::Metric;

/// Catalogue coverage@k: the share of the catalogue's items that are among the first `k` of at least one user.
///
/// $$ \text{Coverage@}k = |\bigcup_u L_{u,k}| / N $$
///
/// The relevant items are ignored. A value above 1 says that items from outside of the catalogue were ranked; it is
/// not clipped, so that the mistake shows. Ge, Delgado-Battenfeld and Jannach, *Beyond accuracy: evaluating recommender
/// systems by coverage and serendipity*, RecSys 2010.
///
/// ```
/// use genrec_eval::{Coverage, Metric};
/// # fn main() -> Result<(), genrec_eval::EvalError> {
/// let mut coverage = Coverage::new(2, 8)?;
/// coverage.update(&[5, 1, 7], &[]);
/// coverage.update(&[5, 5], &[]);
/// assert_eq!(coverage.value(), Some(0.25)); // items 1 and 5 of eight
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Coverage<I> {
    exposure: Exposure<I>,
}

impl<I: Eq + Hash + Clone> Coverage<I> {
    /// Coverage of a catalogue of `items` items by the first `k` of each list.
    ///
    /// # Errors
    /// [`EvalError::ZeroCutoff`](crate::EvalError::ZeroCutoff) when `k` is 0,
    /// [`EvalError::EmptyCatalogue`](crate::EvalError::EmptyCatalogue) when there are no items.
    pub fn new(k: usize, items: usize) -> Result<Self> {
        Ok(Self { exposure: Exposure::new("coverage", k, items)? })
    }

    /// Number of ranks that count.
    pub fn k(&self) -> usize {
        self.exposure.k()
    }

    /// Distinct items recommended so far.
    pub fn items(&self) -> usize {
        self.exposure.distinct()
    }
}

impl<I: Eq + Hash + Clone> Metric<I> for Coverage<I> {
    fn name(&self) -> String {
        format!("coverage@{}", self.k())
    }

    fn update(&mut self, ranked: &[I], _relevant: &[I]) {
        self.exposure.update(ranked);
    }

    fn value(&self) -> Option<f64> {
        self.exposure.has_value().then(|| self.items() as f64 / self.exposure.catalogue() as f64)
    }

    fn merge(&mut self, other: &Self) {
        self.exposure.merge(&other.exposure);
    }

    fn reset(&mut self) {
        self.exposure.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EvalError;

    #[test]
    fn counts_each_item_once_over_all_lists() {
        let mut coverage = Coverage::new(2, 10).unwrap();
        assert_eq!(coverage.name(), "coverage@2");
        assert_eq!(coverage.value(), None);
        coverage.update(&[], &[]);
        assert_eq!(coverage.value(), Some(0.0));
        coverage.update(&["a", "b", "c"], &["c"]);
        coverage.update(&["b", "b"], &[]);
        assert_eq!((coverage.items(), coverage.value()), (2, Some(0.2)));
        coverage.reset();
        assert_eq!(coverage.value(), None);
    }

    #[test]
    fn merging_is_a_union_and_unlike_settings_have_no_value() {
        let (mut left, mut right) = (Coverage::new(1, 4).unwrap(), Coverage::new(1, 4).unwrap());
        left.update(&[1], &[]);
        right.update(&[1], &[]);
        right.update(&[2], &[]);
        left.merge(&right);
        assert_eq!(left.value(), Some(0.5));
        left.merge(&Coverage::new(1, 5).unwrap());
        assert_eq!(left.value(), None);
        left.reset();
        left.update(&[3], &[]);
        assert_eq!(left.value(), Some(0.25));
    }

    #[test]
    fn items_from_outside_the_catalogue_show() {
        let mut coverage = Coverage::new(5, 2).unwrap();
        coverage.update(&[1, 2, 3], &[]);
        assert_eq!(coverage.value(), Some(1.5));
    }

    #[test]
    fn empty_settings_are_refused() {
        assert_eq!(Coverage::<u32>::new(0, 3).unwrap_err(), EvalError::ZeroCutoff { metric: "coverage" });
        assert_eq!(Coverage::<u32>::new(3, 0).unwrap_err(), EvalError::EmptyCatalogue);
    }
}
