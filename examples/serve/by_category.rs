//! Items by the names in their category paths, and filters of them that are made once.

use std::{borrow::Cow, collections::HashMap, sync::OnceLock};

use genrec::{
    data::Catalogue,
    index::{ItemFilter, ItemId, SidIndex},
};

/// Categories of a snapshot, by their names in small letters.
#[derive(Debug)]
pub(crate) struct ByCategory(HashMap<String, Category>);

#[derive(Debug, Default)]
struct Category {
    items: Vec<ItemId>,
    /// Made when it is first asked for; a filter is of one index, that of the snapshot.
    only: OnceLock<ItemFilter>,
    excluding: OnceLock<ItemFilter>,
}

impl ByCategory {
    pub(crate) fn of(catalogue: &Catalogue) -> Self {
        let mut categories: HashMap<String, Category> = HashMap::new();
        for (row, item) in (0..).map(ItemId).zip(catalogue.items()) {
            for name in distinct(item.categories.iter().flatten()) {
                categories.entry(name).or_default().items.push(row);
            }
        }
        Self(categories)
    }

    /// Whether an item has a category of that name, which is in small letters.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Allows the items of any of these categories, named in small letters.
    pub(crate) fn only(&self, index: &SidIndex, names: &[String]) -> genrec::Result<Cow<'_, ItemFilter>> {
        let categories: Vec<&Category> = names.iter().filter_map(|name| self.0.get(name)).collect();
        if let [category] = categories[..] {
            return once(&category.only, || Ok(ItemFilter::only(index, category.items.iter().copied())?));
        }
        let listed = || categories.iter().flat_map(|category| &category.items).copied();
        // Looking an item up costs more than going past one.
        if categories.iter().map(|category| category.items.len()).sum::<usize>() < index.len() / 8 {
            return Ok(Cow::Owned(ItemFilter::only(index, listed())?));
        }
        let mut marks = Vec::new();
        for item in listed() {
            if marks.len() <= item.index() {
                marks.resize(item.index().saturating_add(1).max(index.len()), false);
            }
            if let Some(mark) = marks.get_mut(item.index()) {
                *mark = true;
            }
        }
        let marked = |item: ItemId| marks.get(item.index()).copied().unwrap_or(false);
        Ok(Cow::Owned(ItemFilter::matching(index, marked)))
    }

    /// Allows the items of none of these categories, named in small letters.
    pub(crate) fn excluding(&self, index: &SidIndex, names: &[String]) -> genrec::Result<Cow<'_, ItemFilter>> {
        let mut together: Option<Cow<'_, ItemFilter>> = None;
        for category in names.iter().filter_map(|name| self.0.get(name)) {
            let filter =
                once(&category.excluding, || Ok(ItemFilter::excluding(index, category.items.iter().copied())?))?;
            together = Some(match together {
                Some(before) => Cow::Owned(before.intersect(&filter)?),
                None => filter,
            });
        }
        together.map_or_else(|| Ok(Cow::Owned(ItemFilter::excluding(index, [])?)), Ok)
    }
}

fn once(
    made: &OnceLock<ItemFilter>,
    make: impl FnOnce() -> genrec::Result<ItemFilter>,
) -> genrec::Result<Cow<'_, ItemFilter>> {
    if let Some(filter) = made.get() {
        return Ok(Cow::Borrowed(filter));
    }
    let filter = make()?;
    Ok(Cow::Borrowed(made.get_or_init(|| filter)))
}

/// Names in small letters, in order, none twice.
pub(crate) fn distinct<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().map(|name| name.to_lowercase()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use genrec::{
        data::Item,
        index::{CollisionPolicy, SidLayout},
    };
    use ndarray::Array2;

    use super::*;

    #[test]
    fn filters_hold_the_items_of_all_names_and_are_made_once() {
        let path = |i: usize| {
            [if i.is_multiple_of(2) { "Even" } else { "Odd" }, if i.is_multiple_of(3) { "Third" } else { "Rest" }]
        };
        let items = (0..40).map(|i| {
            let rare: &[&str] = if i == 7 { &["Rare"] } else { &[] };
            Item::new(i.to_string()).with_categories([path(i).to_vec(), rare.to_vec()])
        });
        let catalogue = Catalogue::from_items(items.collect()).unwrap();
        let codes = Array2::from_shape_fn((40, 2), |(item, level)| if level == 0 { item as u32 % 8 } else { 3 });
        let layout = SidLayout::new(vec![8, 8]).unwrap();
        let index = SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Suffix).unwrap();
        let categories = ByCategory::of(&catalogue);
        for names in [&["even"][..], &["rare"], &["even", "third"], &["odd", "rare"], &["rare", "none such"], &[]] {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            let of = |item: ItemId| {
                let found = catalogue.get(item).unwrap().categories.iter().flatten();
                found.into_iter().any(|name| names.contains(&name.to_lowercase()))
            };
            let (only, excluding) =
                (categories.only(&index, &names).unwrap(), categories.excluding(&index, &names).unwrap());
            for item in (0..40).map(ItemId) {
                assert_eq!(only.allows(&index, item), of(item), "{names:?} {item:?}");
                assert_eq!(excluding.allows(&index, item), !of(item), "{names:?} {item:?}");
            }
        }
        let names = ["even".to_owned()];
        let [first, second] = [(); 2].map(|()| categories.only(&index, &names).unwrap());
        let (Cow::Borrowed(first), Cow::Borrowed(second)) = (first, second) else { panic!("made for each request") };
        assert!(std::ptr::eq(first, second));
    }
}
