//! What `POST /recommend` asks, checked against a snapshot and the limits.

use std::{borrow::Cow, fmt};

use genrec::{
    DecodeConfig, History,
    decode::{AnySearch, PerLevel, Sampling, Shape},
    index::{ItemFilter, ItemId},
};
use serde::{
    Deserialize,
    de::{
        self, Deserializer, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

use crate::{
    by_category::distinct,
    errors::{ApiError, shortened},
    options::Limits,
    snapshot::Snapshot,
};

/// Names of categories in a list.
const MAX_CATEGORIES: usize = 64;
/// Hotter than this nothing is left of the model.
const MAX_TEMPERATURE: f32 = 100.0;

/// The body of `POST /recommend`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Asked {
    /// Item ids, oldest first: one history, or several in `histories`.
    pub(crate) history: Option<Vec<String>>,
    /// Whose `history` it is.
    pub(crate) user: Option<String>,
    pub(crate) histories: Option<Vec<AskedHistory>>,
    /// Recommendations for each; 10.
    pub(crate) k: Option<usize>,
    /// These items alone.
    pub(crate) only: Option<Vec<String>>,
    /// All but these.
    pub(crate) exclude: Vec<String>,
    /// Items of any of these categories alone.
    pub(crate) categories: Option<Vec<String>>,
    /// No item of any of these.
    pub(crate) exclude_categories: Vec<String>,
    /// Whether items of the history may be recommended; as the run does by default.
    pub(crate) own_items: Option<bool>,
    /// Draws instead of searching for the best.
    pub(crate) temperature: Option<Temperature>,
    /// Where the random numbers of a drawing begin; 0.
    pub(crate) seed: Option<u64>,
}

/// One of several histories: a list of ids, or an object that has them in `items` and may name a `user`.
#[derive(Debug, Clone)]
pub(crate) struct AskedHistory {
    pub(crate) items: Vec<String>,
    pub(crate) user: Option<String>,
}

impl<'de> Deserialize<'de> for AskedHistory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Named {
            items: Vec<String>,
            user: Option<String>,
        }

        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = AskedHistory;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of item ids, or an object with `items`")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<AskedHistory, A::Error> {
                let items = Vec::deserialize(SeqAccessDeserializer::new(list))?;
                Ok(AskedHistory { items, user: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<AskedHistory, A::Error> {
                let Named { items, user } = Named::deserialize(MapAccessDeserializer::new(fields))?;
                Ok(AskedHistory { items, user })
            }
        }
        deserializer.deserialize_any(Of)
    }
}

/// A number, or one for each position of a Semantic ID.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Temperature(PerLevel<f32>);

impl<'de> Deserialize<'de> for Temperature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = Temperature;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a list of numbers, one a level")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Temperature, E> {
                Ok(Temperature(PerLevel::All(value as f32)))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Temperature, E> {
                Ok(Temperature(PerLevel::All(value as f32)))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Temperature, E> {
                Ok(Temperature(PerLevel::All(value as f32)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Temperature, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Temperature(PerLevel::Each(values)))
            }
        }
        deserializer.deserialize_any(Of)
    }
}

/// One history of a request, as rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OwnedHistory {
    user: Option<String>,
    items: Vec<ItemId>,
}

impl OwnedHistory {
    pub(crate) fn borrowed(&self) -> History<'_> {
        History { user: self.user.as_deref(), items: &self.items }
    }
}

/// How a request is to be answered. Requests with equal settings share a batch, and get the same answers as alone; that `k` is
/// part of it is since a search for more items is a wider one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) k: usize,
    pub(crate) config: DecodeConfig,
    filters: Vec<Filter>,
}

/// Named as the request names it.
#[derive(Debug, Clone, PartialEq)]
struct Filter {
    name: &'static str,
    excludes: bool,
    of: Listed,
}

#[derive(Debug, Clone, PartialEq)]
enum Listed {
    Items(Vec<ItemId>),
    /// By name, in small letters and order, none twice: filters of many items are made where batches are decoded, not where
    /// requests are read.
    Categories(Vec<String>),
}

impl Settings {
    /// The filters with their names.
    pub(crate) fn filters<'a>(
        &self,
        snapshot: &'a Snapshot,
    ) -> genrec::Result<Vec<(&'static str, Cow<'a, ItemFilter>)>> {
        let index = snapshot.recommender.index();
        let filter = |filter: &Filter| {
            let made = match (&filter.of, filter.excludes) {
                (Listed::Items(items), true) => Cow::Owned(ItemFilter::excluding(index, items.iter().copied())?),
                (Listed::Items(items), false) => Cow::Owned(ItemFilter::only(index, items.iter().copied())?),
                (Listed::Categories(names), true) => snapshot.by_category.excluding(index, names)?,
                (Listed::Categories(names), false) => snapshot.by_category.only(index, names)?,
            };
            Ok((filter.name, made))
        };
        self.filters.iter().map(filter).collect()
    }

    /// Whether items come in the order of a drawing, not of their scores.
    pub(crate) fn drawn(&self) -> bool {
        matches!(self.config.search, Some(AnySearch::Sampling(_)))
    }
}

impl Asked {
    /// Looks everything up.
    pub(crate) fn check(self, snapshot: &Snapshot, limits: &Limits) -> Result<(Settings, Vec<OwnedHistory>), ApiError> {
        let k = self.k.unwrap_or(10);
        if !(1..=limits.max_k.get()).contains(&k) {
            return Err(ApiError::invalid("invalid_k", format!("`k` is {k}; ask for 1 to {} items", limits.max_k)));
        }
        let config = self.config(snapshot)?;
        let filters = self.filters(snapshot, limits)?;
        let histories = self.histories(snapshot, limits)?;
        Ok((Settings { k, config, filters }, histories))
    }

    fn config(&self, snapshot: &Snapshot) -> Result<DecodeConfig, ApiError> {
        let mut config = snapshot.recommender.config().clone();
        if let Some(own) = self.own_items {
            config = config.with_exclude_history(!own);
        }
        let Some(Temperature(temperature)) = &self.temperature else {
            if self.seed.is_some() {
                let message = "`seed` is for drawing; give a `temperature` too, 1 for the model's own probabilities";
                return Err(ApiError::invalid("seed_without_temperature", message));
            }
            return Ok(config);
        };
        let positions = snapshot.recommender.index().layout().positions();
        let values = match temperature {
            PerLevel::All(value) => std::slice::from_ref(value),
            PerLevel::Each(values) => values,
        };
        if values.is_empty() || values.len() > positions {
            let message =
                format!("`temperature` has {} values; give a number, or 1 to {positions} of them", values.len());
            return Err(ApiError::invalid("invalid_temperature", message));
        }
        if let Some(value) = values.iter().find(|value| !(0.0..=MAX_TEMPERATURE).contains(*value)) {
            let message = format!("`temperature` is {value}; give 0 (the most probable) to {MAX_TEMPERATURE}");
            return Err(ApiError::invalid("invalid_temperature", message));
        }
        let mut shape = Shape::default();
        shape.temperature = temperature.clone();
        let sampling = Sampling::new(config.beams, self.seed.unwrap_or(0)).with_shape(shape);
        // A drawing has an order of its own.
        Ok(config.with_search(AnySearch::Sampling(sampling)).with_rerank(None))
    }

    fn filters(&self, snapshot: &Snapshot, limits: &Limits) -> Result<Vec<Filter>, ApiError> {
        let by_id = |name, ids: &[String]| Ok(Listed::Items(rows(snapshot, name, ids, limits)?));
        let by_category = |name, names: &[String]| {
            if names.len() > MAX_CATEGORIES {
                let message = format!("`{name}` holds {}; give at most {MAX_CATEGORIES} names", names.len());
                return Err(ApiError::invalid("too_many", message));
            }
            let names = distinct(names);
            if let Some(unknown) = names.iter().find(|wanted| !snapshot.by_category.contains(wanted)) {
                let unknown = shortened(unknown);
                let message = format!("`{name}`: no item is of `{unknown}`; GET /info lists the largest categories");
                return Err(ApiError::invalid("unknown_category", message));
            }
            Ok(Listed::Categories(names))
        };
        let mut filters = Vec::new();
        let mut add = |name, excludes, of| filters.push(Filter { name, excludes, of });
        if let Some(ids) = &self.only {
            add("only", false, by_id("only", ids)?);
        }
        if let Some(names) = &self.categories {
            add("categories", false, by_category("categories", names)?);
        }
        if !self.exclude.is_empty() {
            add("exclude", true, by_id("exclude", &self.exclude)?);
        }
        if !self.exclude_categories.is_empty() {
            add("exclude_categories", true, by_category("exclude_categories", &self.exclude_categories)?);
        }
        Ok(filters)
    }

    fn histories(self, snapshot: &Snapshot, limits: &Limits) -> Result<Vec<OwnedHistory>, ApiError> {
        let missing = |message: &str| ApiError::invalid("no_history", message);
        let (asked, one) = match (self.history, self.histories) {
            (Some(items), None) => (vec![AskedHistory { items, user: self.user }], true),
            (None, Some(histories)) if self.user.is_none() => (histories, false),
            (None, Some(_)) => return Err(missing("`user` belongs to `history`; put it into each of `histories`")),
            (Some(_), Some(_)) => return Err(missing("give `history` or `histories`, not both")),
            (None, None) => return Err(missing("give `history`, a list of item ids, or `histories`")),
        };
        let most = limits.max_histories.get();
        if asked.is_empty() || asked.len() > most {
            return Err(missing(&format!("`histories` holds {}; give 1 to {most}", asked.len())));
        }
        let history = |(number, asked): (usize, AskedHistory)| {
            let place = if one { "history".to_owned() } else { format!("histories[{number}].items") };
            let items = rows(snapshot, &place, &asked.items, limits)?;
            if items.is_empty() && (asked.user.is_none() || snapshot.recommender.config().user_tokens == 0) {
                return Err(missing(&format!("`{place}` is empty; give one item at least")));
            }
            Ok(OwnedHistory { user: asked.user, items })
        };
        asked.into_iter().enumerate().map(history).collect()
    }
}

fn rows(snapshot: &Snapshot, place: &str, ids: &[String], limits: &Limits) -> Result<Vec<ItemId>, ApiError> {
    check_length(place, ids.len(), limits.max_items.get())?;
    let catalogue = snapshot.recommender.catalogue();
    let row = |(number, id): (usize, &String)| {
        let place = || format!("`{place}[{number}]`");
        catalogue.find(id).ok_or_else(|| ApiError::unknown_item(&place(), id, catalogue.len()))
    };
    ids.iter().enumerate().map(row).collect()
}

fn check_length(place: &str, length: usize, most: usize) -> Result<(), ApiError> {
    if length <= most {
        return Ok(());
    }
    Err(ApiError::invalid(
        "too_many",
        format!("`{place}` holds {length}; give at most {most}, the latest of a history"),
    ))
}
