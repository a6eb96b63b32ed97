//! A data set in the form of `sequences.txt` and `items.jsonl`.

use genrec::data::{Catalogue, Dataset, readers::neutral};
use serde_json::{Map, Value, json};
use support::BoxError;

/// An id as the neutral form takes it.
fn id<'a>(what: &str, id: &'a str) -> Result<&'a str, BoxError> {
    match id.contains(|c: char| c.is_ascii_whitespace()) {
        true => Err(format!(
            "{what} id `{id}` has white space, which parts ids in `{}`: put another character there",
            neutral::SEQUENCES
        )
        .into()),
        false => Ok(id),
    }
}

pub(crate) fn sequences(dataset: &Dataset) -> Result<String, BoxError> {
    let mut text = String::new();
    for (user, items) in dataset.sequences.iter() {
        text.push_str(id("user", user)?);
        for item in items.iter().filter_map(|&item| dataset.catalogue.get(item)) {
            text.push(' ');
            text.push_str(id("item", &item.id)?);
        }
        text.push('\n');
    }
    Ok(text)
}

pub(crate) fn item_lines(catalogue: &Catalogue) -> Result<String, BoxError> {
    let mut text = String::new();
    for item in catalogue.items() {
        let mut fields: Map<String, Value> =
            item.attributes.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        fields.insert("item_id".to_owned(), json!(id("item", &item.id)?));
        for (name, value) in [
            ("title", json!(item.title)),
            ("brand", json!(item.brand)),
            ("price", json!(item.price)),
            ("categories", json!(item.categories)),
            ("description", json!(item.description)),
        ] {
            if !value.is_null() {
                fields.insert(name.to_owned(), value);
            }
        }
        text.push_str(&Value::Object(fields).to_string());
        text.push('\n');
    }
    Ok(text)
}
