//! A run as it is at one moment, with what the routes look up in it.

use std::{collections::BTreeMap, path::Path};

use candle_core::Device;
use genrec::{
    Recommender,
    data::Item,
    embed::{AnyEmbedder, EmbedderSpec},
    index::ItemId,
};
use serde::Serialize;
use support::categories::Categories;

use crate::by_category::ByCategory;

/// Categories told of at most, those with the most items.
const TOLD: usize = 40;

/// A run that does not change: what a request was checked against is what answers it.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) recommender: Recommender,
    /// One category an item, for people to see.
    pub(crate) categories: Categories,
    pub(crate) by_category: ByCategory,
    /// The largest of the categories that can be asked for, with their items.
    pub(crate) largest: Vec<(String, usize)>,
    /// Titles in small letters, by row.
    titles: Vec<String>,
    /// How many snapshots there were before.
    pub(crate) generation: u64,
}

/// What is told of an item.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Shown {
    pub(crate) id: String,
    pub(crate) title: Option<String>,
    pub(crate) category: Option<String>,
    pub(crate) sid: Vec<u32>,
}

impl Snapshot {
    /// Opens a run.
    pub(crate) fn open(
        run: &Path,
        device: &Device,
        embedder: Option<&EmbedderSpec>,
        generation: u64,
    ) -> genrec::Result<Self> {
        let recommender = Recommender::load(run, device)?;
        let recommender = match embedder {
            Some(spec) => recommender.with_embedder(AnyEmbedder::open(spec, device)?),
            None => recommender,
        };
        Ok(Self::of(recommender, generation))
    }

    pub(crate) fn of(recommender: Recommender, generation: u64) -> Self {
        let catalogue = recommender.catalogue();
        let (by_category, categories) = (ByCategory::of(catalogue), Categories::of(catalogue));
        let mut sizes = vec![0_usize; categories.names().len()];
        for &number in categories.by_item() {
            if let Some(size) = sizes.get_mut(number as usize) {
                *size += 1;
            }
        }
        let asked_for = |(name, _): &(String, usize)| by_category.contains(&name.to_lowercase());
        let largest = categories.names().iter().cloned().zip(sizes).filter(asked_for).take(TOLD).collect();
        let titles =
            catalogue.items().iter().map(|item| item.title.as_deref().unwrap_or_default().to_lowercase()).collect();
        Self { categories, by_category, largest, titles, generation, recommender }
    }

    /// The next snapshot: this one with another item.
    pub(crate) fn with_item(&self, item: Item) -> genrec::Result<(Self, ItemId)> {
        let mut recommender = self.recommender.clone();
        let row = recommender.add_item(item)?;
        Ok((Self::of(recommender, self.generation + 1), row))
    }

    /// The category of an item, for people to see.
    pub(crate) fn category(&self, item: ItemId) -> Option<&str> {
        let number = self.categories.by_item().get(item.index())?;
        self.categories.names().get(*number as usize).map(String::as_str)
    }

    pub(crate) fn show(&self, item: ItemId) -> Option<Shown> {
        let (entry, sid) = (self.recommender.catalogue().get(item)?, self.recommender.index().sid(item)?);
        let category = self.category(item).map(str::to_owned);
        Some(Shown { id: entry.id.clone(), title: entry.title.clone(), category, sid: sid.codes().to_vec() })
    }

    /// Items whose id is `query` or whose title holds all its words, the ones that begin with it first.
    pub(crate) fn search(&self, query: &str, most: usize) -> Vec<Shown> {
        let small = query.to_lowercase();
        let (first_word, words) = words(&small);
        let catalogue = self.recommender.catalogue();
        let by_id = catalogue.find(query).or_else(|| catalogue.find(query.trim())).filter(|_| !words.is_empty());
        let (mut first, mut others) = (Vec::new(), Vec::new());
        for (row, title) in (0..).map(ItemId).zip(&self.titles) {
            if first.len() >= most {
                break;
            }
            if Some(row) == by_id || !words.iter().all(|word| title.contains(word)) || title.is_empty() {
                continue;
            }
            if first_word.is_some_and(|word| title.starts_with(word)) {
                first.push(row);
            } else if others.len() < most {
                others.push(row);
            }
        }
        by_id.into_iter().chain(first).chain(others).take(most).filter_map(|item| self.show(item)).collect()
    }

    /// What follows a prefix of Semantic IDs, `None` where no item has it.
    pub(crate) fn children(&self, prefix: &[u32]) -> Option<Vec<Child>> {
        /// Enough to say what a group is of.
        const LOOKED_AT: usize = 4096;
        let index = self.recommender.index();
        let node = index.find(prefix)?;
        let children = index.children(node).map(|(code, child)| {
            let mut counts = BTreeMap::<u32, usize>::new();
            let items = index.items_below(child).take(LOOKED_AT);
            items.filter_map(|item| self.categories.by_item().get(item.index())).for_each(|&category| {
                *counts.entry(category).or_default() += 1;
            });
            let looked_at: usize = counts.values().sum();
            // Of equals the one with the most items of all, which has the lowest number.
            let most = counts.iter().max_by_key(|&(&category, &items)| (items, std::cmp::Reverse(category)));
            let category = most.and_then(|(&category, _)| self.categories.names().get(category as usize)).cloned();
            let share = most.map_or(0.0, |(_, &items)| items as f64 / looked_at.max(1) as f64);
            let examples = if index.is_leaf(child) { 1 } else { 3 };
            let examples = index.items_below(child).take(examples).filter_map(|item| self.show(item)).collect();
            Child { code, items: index.count_below(child), category, share, examples }
        });
        Some(children.collect())
    }
}

/// The first word, and all of them, none twice.
fn words(query: &str) -> (Option<&str>, Vec<&str>) {
    let mut words: Vec<&str> = query.split_whitespace().collect();
    let first = words.first().copied();
    words.sort_unstable();
    words.dedup();
    (first, words)
}

/// One code after a prefix.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Child {
    code: u32,
    /// Items below it.
    items: usize,
    /// The category that most of them are of, as far as was looked.
    category: Option<String>,
    /// Share of the items looked at that are of it.
    share: f64,
    examples: Vec<Shown>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_looked_for_once() {
        assert_eq!(words("soap  a rose a soap a"), (Some("soap"), vec!["a", "rose", "soap"]));
        assert_eq!(words("  "), (None, vec![]));
    }
}
