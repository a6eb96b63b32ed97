//! Items and what is known of them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use sid_index::ItemId;

use crate::lines::Fault;
use crate::{DataError, Result};

/// One item: its outside id and the content that its embedding is made from.
///
/// Unknown content is `None` or empty, never an empty string. Texts are plain Unicode; the readers resolve HTML
/// entities.
///
/// ```
/// use genrec_data::Item;
///
/// let item = Item::new("B004756YJA").with_title("Nail Lacquer").with_categories([["Beauty", "Makeup", "Nails"]]);
/// assert_eq!(item.field("title").as_deref(), Some("Nail Lacquer"));
/// assert_eq!(item.field("categories").as_deref(), Some("Beauty > Makeup > Nails"));
/// assert_eq!(item.field("brand"), None);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Item {
    /// The id by which the outside world knows the item; unique in a catalogue.
    pub id: String,
    /// Title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Brand, maker, author or studio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brand: Option<String>,
    /// Price in the currency of the source; finite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<f64>,
    /// Category paths, each from the root to the leaf.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<Vec<String>>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Everything else the source knows, by its name there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl Item {
    /// An item of which nothing but the id is known.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }

    /// Sets the title.
    #[must_use]
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// Sets the brand.
    #[must_use]
    pub fn with_brand(mut self, brand: impl Into<String>) -> Self {
        self.brand = Some(brand.into());
        self
    }

    /// Sets the price.
    #[must_use]
    pub fn with_price(mut self, price: f64) -> Self {
        self.price = Some(price);
        self
    }

    /// Sets the category paths, each root first.
    #[must_use]
    pub fn with_categories<P, S>(mut self, paths: impl IntoIterator<Item = P>) -> Self
    where
        P: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.categories = paths.into_iter().map(|path| path.into_iter().map(Into::into).collect()).collect();
        self
    }

    /// Sets the description.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with_attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// The text of a field by name, for templates: `id`, `title`, `brand`, `price`, `categories` (the deepest path, the
    /// first of several, joined by `" > "`), `description`, or any attribute. `None` when unknown.
    pub fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            "id" => Some(Cow::Borrowed(&self.id)),
            "title" => self.title.as_deref().map(Cow::Borrowed),
            "brand" => self.brand.as_deref().map(Cow::Borrowed),
            "price" => self.price.map(|price| Cow::Owned(price.to_string())),
            "categories" => self.deepest_category().map(|path| Cow::Owned(path.join(" > "))),
            "description" => self.description.as_deref().map(Cow::Borrowed),
            other => self.attributes.get(other).map(|value| Cow::Borrowed(value.as_str())),
        }
    }

    /// The category path with the most levels; the first of several. `None` when no path has a level.
    pub fn deepest_category(&self) -> Option<&[String]> {
        let mut deepest: Option<&[String]> = None;
        for path in self.categories.iter().filter(|path| !path.is_empty()) {
            if deepest.is_none_or(|best| path.len() > best.len()) {
                deepest = Some(path);
            }
        }
        deepest
    }
}

/// All items, in the order that gives them their [`ItemId`].
///
/// Rows are dense and stable: an item keeps its number when others are [pushed](Self::push) behind it.
///
/// ```
/// use genrec_data::{Catalogue, Item, ItemId};
///
/// let mut catalogue = Catalogue::from_items(vec![Item::new("a"), Item::new("b")])?;
/// assert_eq!(catalogue.find("b"), Some(ItemId(1)));
/// assert_eq!(catalogue.push(Item::new("c"))?, ItemId(2));
/// assert!(catalogue.push(Item::new("a")).is_err());
/// # Ok::<(), genrec_data::DataError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalogue {
    items: Vec<Item>,
    rows: HashMap<String, u32>,
}

impl Catalogue {
    /// An empty catalogue.
    pub fn new() -> Self {
        Self::default()
    }

    /// A catalogue in the order of `items`.
    ///
    /// # Errors
    /// [`DataError::DuplicateItem`], [`DataError::EmptyItemId`], [`DataError::InvalidPrice`], or
    /// [`DataError::TooMany`] beyond `u32::MAX` items.
    pub fn from_items(items: Vec<Item>) -> Result<Self> {
        let mut catalogue = Self { items: Vec::with_capacity(items.len()), rows: HashMap::with_capacity(items.len()) };
        for item in items {
            catalogue.push(item)?;
        }
        Ok(catalogue)
    }

    /// Adds an item behind the others and returns its row.
    ///
    /// # Errors
    /// As [`from_items`](Self::from_items); the catalogue is then unchanged.
    pub fn push(&mut self, item: Item) -> Result<ItemId> {
        let count = self.items.len();
        let row = u32::try_from(count)
            .ok()
            .filter(|&row| row < u32::MAX)
            .ok_or(DataError::TooMany { what: "items", count: count as u64 + 1 })?;
        if item.id.is_empty() {
            return Err(DataError::EmptyItemId { row: count });
        }
        if let Some(price) = item.price.filter(|price| !price.is_finite()) {
            return Err(DataError::InvalidPrice { id: item.id, price });
        }
        if let Some(&first) = self.rows.get(&item.id) {
            return Err(DataError::DuplicateItem { id: item.id, first, second: row });
        }
        self.rows.insert(item.id.clone(), row);
        self.items.push(item);
        Ok(ItemId(row))
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items by row.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The item of a row.
    pub fn get(&self, item: ItemId) -> Option<&Item> {
        self.items.get(item.index())
    }

    /// The row of an outside id.
    pub fn find(&self, id: &str) -> Option<ItemId> {
        self.rows.get(id).copied().map(ItemId)
    }

    /// [`push`](Self::push) for readers: what is wrong with the item is the fault of its line.
    pub(crate) fn push_line(&mut self, item: Item, column: usize) -> std::result::Result<(), Fault> {
        match self.push(item) {
            Ok(_) => Ok(()),
            Err(DataError::DuplicateItem { id, first, .. }) => {
                Err(Fault::at(column, format!("an item id not yet used ({id:?} is row {first})")))
            }
            Err(DataError::EmptyItemId { .. }) => Err(Fault::at(column, "an item id that is not empty")),
            Err(DataError::InvalidPrice { .. }) => Err(Fault::at(column, "a finite price")),
            Err(other) => Err(other.into()),
        }
    }
}
