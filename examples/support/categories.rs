//! What kind of thing an item is, to see whether codes know it.

use std::collections::BTreeMap;

use genrec::{
    data::{Catalogue, Item},
    eval::{Entropy, Metric as _},
    index::ItemId,
};

use crate::BoxError;

/// The category of items that have none.
const NONE: &str = "(none)";

/// One category an item: the second of its deepest path, the root where there is but one. In Amazon's sets the first is that
/// of the whole set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Categories {
    names: Vec<String>,
    of: Vec<u32>,
}

impl Categories {
    /// Those of a catalogue, numbered from the one with the most items on; of equals, by name.
    pub fn of(catalogue: &Catalogue) -> Self {
        Self::from_names(catalogue.items().iter().map(name))
    }

    /// One name an item.
    pub fn from_names<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let items: Vec<&str> = names.collect();
        let mut counts = BTreeMap::<&str, usize>::new();
        for name in &items {
            *counts.entry(name).or_default() += 1;
        }
        let mut order: Vec<(&str, usize)> = counts.into_iter().collect();
        order.sort_by_key(|&(_, items)| std::cmp::Reverse(items));
        let number: BTreeMap<&str, u32> = (0..).zip(&order).map(|(number, &(name, _))| (name, number)).collect();
        let of = items.iter().filter_map(|name| number.get(name).copied()).collect();
        Self { names: order.iter().map(|&(name, _)| name.to_owned()).collect(), of }
    }

    /// Names by number.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The number of each item's category, `None` where it has none.
    pub fn labels(&self) -> Vec<Option<u32>> {
        let none = (0..).zip(&self.names).find(|(_, name)| *name == NONE).map(|(number, _)| number);
        self.of.iter().map(|&number| (Some(number) != none).then_some(number)).collect()
    }

    /// Entropy (bits) of the categories of a list's first items, the mean over lists; items without a category do not count.
    ///
    /// # Errors
    /// When `depth` is 0.
    pub fn entropy(&self, lists: impl Iterator<Item = Vec<ItemId>>, depth: usize) -> Result<f64, BoxError> {
        let labels = self.labels();
        let mut metric = Entropy::new(depth)?;
        for items in lists {
            let categories = items.iter().filter_map(|item| labels.get(item.index()).copied().flatten());
            metric.update(&categories.collect::<Vec<_>>(), &[]);
        }
        Ok(metric.value().unwrap_or(0.0))
    }

    /// The number of each item's category.
    pub fn by_item(&self) -> &[u32] {
        &self.of
    }
}

fn name(item: &Item) -> &str {
    item.deepest_category().and_then(|path| path.get(1).or(path.first())).map_or(NONE, String::as_str)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn the_second_of_the_deepest_path_counts() {
        let items = vec![
            Item::new("a").with_categories([vec!["Beauty"], vec!["Beauty", "Makeup", "Nails"]]),
            Item::new("b").with_categories([["Toys"]]),
            Item::new("c"),
            Item::new("d").with_categories([["Beauty", "Makeup"]]),
        ];
        let categories = Categories::of(&Catalogue::from_items(items).unwrap());
        assert_eq!(categories.names(), ["Makeup", "(none)", "Toys"]);
        assert_eq!(categories.by_item(), [0, 2, 1, 0]);
        assert_eq!(categories.labels(), [Some(0), Some(2), None, Some(0)]);
    }
}
