//! How unequally recommendations are spread over the catalogue.

use std::hash::Hash;

use crate::error::Result;
use crate::exposure::Exposure;
use crate::metric::Metric;

/// Gini@k: the Gini coefficient of how often the catalogue's items are among the first `k` of a user.
///
/// With $c_1 \le \dots \le c_N$ the numbers of lists that hold each of the $N$ items, those that no list holds
/// included:
///
/// $$ \text{Gini@}k = \sum_{i=1}^{N} (2 i - N - 1) c_i / (N \sum_{i=1}^{N} c_i) $$
///
/// 0 where all items are recommended equally often, $1 - 1/N$ where one item is all that is recommended; it is not
/// divided by that largest value. An item counts once a list, however often the list repeats it. The relevant items
/// are ignored. There is no value while nothing was recommended, nor when more items were ranked than the catalogue
/// has. Gini's coefficient as a measure of sales diversity: Fleder and Hosanagar, *Blockbuster culture's next rise or
/// fall*, Management Science 55(5), 2009.
///
/// ```
/// use genrec_eval::{Gini, Metric};
/// # fn main() -> Result<(), genrec_eval::EvalError> {
/// let mut gini = Gini::new(2, 4)?;
/// gini.update(&["soap", "comb", "brush"], &[]);
/// gini.update(&["soap", "comb"], &[]);
/// assert_eq!(gini.value(), Some(0.5)); // two of four items share all recommendations
/// gini.update(&["brush", "razor"], &[]);
/// gini.update(&["brush", "razor"], &[]);
/// assert_eq!(gini.value(), Some(0.0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Gini<I> {
    exposure: Exposure<I>,
}

impl<I: Eq + Hash + Clone> Gini<I> {
    /// The coefficient over a catalogue of `items` items, of the first `k` of each list.
    ///
    /// # Errors
    /// [`EvalError::ZeroCutoff`](crate::EvalError::ZeroCutoff) when `k` is 0,
    /// [`EvalError::EmptyCatalogue`](crate::EvalError::EmptyCatalogue) when there are no items.
    pub fn new(k: usize, items: usize) -> Result<Self> {
        Ok(Self { exposure: Exposure::new("gini", k, items)? })
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

impl<I: Eq + Hash + Clone> Metric<I> for Gini<I> {
    fn name(&self) -> String {
        format!("gini@{}", self.k())
    }

    fn update(&mut self, ranked: &[I], _relevant: &[I]) {
        self.exposure.update(ranked);
    }

    fn value(&self) -> Option<f64> {
        let never = self.exposure.catalogue().checked_sub(self.items())?;
        if !self.exposure.has_value() || self.items() == 0 {
            return None;
        }
        let mut counts: Vec<u64> = self.exposure.counts().collect();
        counts.sort_unstable();
        let n = self.exposure.catalogue() as f64;
        let total: f64 = counts.iter().map(|&count| count as f64).sum();
        let weighted: f64 =
            counts.iter().enumerate().map(|(i, &count)| (2.0 * (never + i + 1) as f64 - n - 1.0) * count as f64).sum();
        Some(weighted / (n * total))
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
    use proptest::prelude::*;

    use super::*;
    use crate::EvalError;

    /// Half the mean absolute difference between two items, over the mean.
    fn by_pairs(counts: &[f64]) -> f64 {
        let n = counts.len() as f64;
        let differences: f64 = counts.iter().flat_map(|a| counts.iter().map(move |b| (a - b).abs())).sum();
        differences / (2.0 * n * n) / (counts.iter().sum::<f64>() / n)
    }

    proptest! {
        #[test]
        fn agrees_with_the_mean_difference_of_pairs(
            lists in prop::collection::vec(prop::collection::vec(0usize..12, 0..8), 1..20),
            k in 1usize..8,
        ) {
            let mut gini = Gini::new(k, 12)?;
            let mut counts = vec![0.0; 12];
            for list in &lists {
                gini.update(list, &[]);
                let mut top = list[..k.min(list.len())].to_vec();
                top.sort_unstable();
                top.dedup();
                top.into_iter().for_each(|item| counts[item] += 1.0);
            }
            if counts.iter().all(|&count| count == 0.0) {
                prop_assert_eq!(gini.value(), None);
            } else {
                let value = gini.value().unwrap();
                prop_assert!((value - by_pairs(&counts)).abs() < 1e-12, "{value} against {}", by_pairs(&counts));
                prop_assert!((-1e-12..=1.0 - 1.0 / 12.0 + 1e-12).contains(&value));
            }
        }
    }

    #[test]
    fn its_ends_are_reached() {
        let mut gini = Gini::new(1, 10).unwrap();
        assert_eq!((gini.name(), gini.k(), gini.value()), ("gini@1".into(), 1, None));
        gini.update(&[], &[]);
        assert_eq!(gini.value(), None);
        gini.update(&[3, 4], &[4]);
        gini.update(&[3, 3], &[4]);
        assert_eq!((gini.items(), gini.value()), (1, Some(0.9)));
        (0..10).filter(|&item| item != 3).for_each(|item| (0..2).for_each(|_| gini.update(&[item], &[])));
        assert_eq!(gini.value(), Some(0.0));
    }

    #[test]
    fn more_items_than_the_catalogue_has_and_unlike_settings_have_no_value() {
        let mut gini = Gini::new(3, 2).unwrap();
        gini.update(&[1, 2, 3], &[]);
        assert_eq!(gini.value(), None);
        gini.reset();
        gini.update(&[1, 2], &[]);
        assert_eq!(gini.value(), Some(0.0));
        gini.merge(&Gini::new(3, 4).unwrap());
        assert_eq!(gini.value(), None);
        assert_eq!(Gini::<u8>::new(0, 4).unwrap_err(), EvalError::ZeroCutoff { metric: "gini" });
        assert_eq!(Gini::<u8>::new(4, 0).unwrap_err(), EvalError::EmptyCatalogue);
    }
}
