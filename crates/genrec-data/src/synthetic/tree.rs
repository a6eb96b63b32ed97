//! The category tree, its vocabularies and the items on its leaves.

use std::collections::HashSet;
use std::ops::Range;

use crate::rng::Rng;
use crate::{Catalogue, Item, Result, SyntheticConfig};

/// Words of a department that appear in its items' titles.
const DEPARTMENT_WORDS: usize = 4;
/// Words of a category.
const CATEGORY_WORDS: usize = 5;
/// Words of a leaf.
const LEAF_WORDS: usize = 5;
/// Words that may appear in any title.
const COMMON_WORDS: [&str; 16] = [
    "large", "small", "black", "white", "blue", "red", "classic", "deluxe", "mini", "set", "pack", "light", "pro",
    "original", "new", "duo",
];

/// Leaves in depth-first order, items laid over them in rows.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    /// Rows of leaf `l` are `starts[l]..starts[l + 1]`.
    starts: Vec<usize>,
    leaf_of: Vec<u32>,
    brand_of: Vec<u32>,
    popularity: Vec<f64>,
    brand_names: Vec<String>,
    leaves_per_category: usize,
    categories_per_department: usize,
}

impl Tree {
    pub(super) fn grow(config: &SyntheticConfig, rng: &mut Rng) -> Self {
        let (leaves, items) = (config.total_leaves(), config.items);
        let starts: Vec<usize> = (0..=leaves).map(|leaf| leaf * items / leaves).collect();
        let categories = config.departments * config.categories;
        let mut words = Words::default();
        let brand_names = (0..categories * config.brands).map(|_| capitalised(&words.fresh(rng))).collect();
        let (mut leaf_of, mut brand_of, mut popularity) = (Vec::new(), Vec::new(), Vec::new());
        for leaf in 0..leaves {
            let count = starts[leaf + 1] - starts[leaf];
            let mut ranks: Vec<usize> = (1..=count).collect();
            rng.shuffle(&mut ranks);
            for rank in ranks {
                leaf_of.push(leaf as u32);
                let brand = leaf / config.leaves * config.brands + rng.below(config.brands);
                brand_of.push(brand as u32);
                popularity.push((rank as f64).powf(-config.popularity));
            }
        }
        Self {
            starts,
            leaf_of,
            brand_of,
            popularity,
            brand_names,
            leaves_per_category: config.leaves,
            categories_per_department: config.categories,
        }
    }

    /// The items with their texts: a title takes the brand, words of the leaf, of the category and of the department,
    /// and a common word, so that likeness of texts follows likeness of paths.
    pub(super) fn catalogue(&self, config: &SyntheticConfig, rng: &mut Rng) -> Result<Catalogue> {
        let mut words = Words::default();
        for brand in &self.brand_names {
            words.used.insert(brand.to_lowercase());
        }
        words.used.extend(COMMON_WORDS.map(str::to_owned));
        let mut vocabulary = |n: usize, size: usize, rng: &mut Rng| -> Vec<Vec<String>> {
            (0..n).map(|_| (0..size).map(|_| words.fresh(rng)).collect()).collect()
        };
        let categories = config.departments * config.categories;
        let department_words = vocabulary(config.departments, DEPARTMENT_WORDS, rng);
        let category_words = vocabulary(categories, CATEGORY_WORDS, rng);
        let leaf_words = vocabulary(self.leaves(), LEAF_WORDS, rng);
        let mut catalogue = Catalogue::new();
        for row in 0..self.items() {
            let leaf = self.leaf_of(row);
            let category = leaf / self.leaves_per_category;
            let department = category / self.categories_per_department;
            let (d, c, l) = (&department_words[department], &category_words[category], &leaf_words[leaf]);
            let brand = &self.brand_names[self.brand_of(row)];
            let mut title = vec![capitalised(brand)];
            title.extend(pick(l, 3, rng));
            title.extend(pick(c, 2, rng));
            title.extend(pick(d, 1, rng));
            title.push(COMMON_WORDS[rng.below(COMMON_WORDS.len())].to_owned());
            let mut description = pick(l, 2, rng);
            description.extend(pick(c, 2, rng));
            description.extend(pick(d, 2, rng));
            description.push(COMMON_WORDS[rng.below(COMMON_WORDS.len())].to_owned());
            let path = [&d[0], &c[0], &l[0]].map(|word| capitalised(word));
            let cents = 200 + rng.below(9_800);
            catalogue.push(
                Item::new(format!("item-{row}"))
                    .with_title(title.join(" "))
                    .with_brand(brand)
                    .with_price(cents as f64 / 100.0)
                    .with_categories([path])
                    .with_description(description.join(" ")),
            )?;
        }
        Ok(catalogue)
    }

    pub(super) fn items(&self) -> usize {
        self.leaf_of.len()
    }

    pub(super) fn leaves(&self) -> usize {
        self.starts.len() - 1
    }

    pub(super) fn brands(&self) -> usize {
        self.brand_names.len()
    }

    pub(super) fn rows(&self, leaf: usize) -> Range<usize> {
        self.starts[leaf]..self.starts[leaf + 1]
    }

    pub(super) fn leaf_of(&self, row: usize) -> usize {
        self.leaf_of[row] as usize
    }

    pub(super) fn brand_of(&self, row: usize) -> usize {
        self.brand_of[row] as usize
    }

    pub(super) fn popularity(&self, row: usize) -> f64 {
        self.popularity[row]
    }

    /// The next leaf of the same category, the first after the last: where tastes drift to.
    pub(super) fn successor(&self, leaf: usize) -> usize {
        let first = leaf - leaf % self.leaves_per_category;
        first + (leaf + 1 - first) % self.leaves_per_category
    }
}

/// `n` different words in random order (all of them when there are fewer).
fn pick(words: &[String], n: usize, rng: &mut Rng) -> Vec<String> {
    let mut order: Vec<usize> = (0..words.len()).collect();
    rng.shuffle(&mut order);
    order.into_iter().take(n).map(|i| words[i].clone()).collect()
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Pronounceable words, none twice.
#[derive(Default)]
struct Words {
    used: HashSet<String>,
}

impl Words {
    fn fresh(&mut self, rng: &mut Rng) -> String {
        const ONSETS: [&str; 20] =
            ["b", "br", "c", "d", "dr", "f", "g", "gr", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v"];
        const VOWELS: [&str; 8] = ["a", "e", "i", "o", "u", "ai", "ea", "oo"];
        const CODAS: [&str; 8] = ["", "n", "r", "l", "s", "m", "", "t"];
        // Two syllables give some 10^6 words; a third is added where that many are not enough.
        for attempt in 0u32.. {
            let mut word = String::new();
            for _ in 0..2 + attempt / 8 {
                word.push_str(ONSETS[rng.below(ONSETS.len())]);
                word.push_str(VOWELS[rng.below(VOWELS.len())]);
                word.push_str(CODAS[rng.below(CODAS.len())]);
            }
            if self.used.insert(word.clone()) {
                return word;
            }
        }
        String::new()
    }
}
