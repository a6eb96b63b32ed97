//! Items that are added: what they must have, and how much of it. Answers hold them, so that what is let in here comes out of
//! every route.

use axum::http::StatusCode;
use genrec::data::Item;

use crate::errors::{ApiError, shortened};

/// Bytes of an id, which is as much as can be looked for, and of a name of a category or an attribute.
pub(crate) const MAX_NAME: usize = 256;
/// Bytes of a title, a brand, or what an attribute says.
const MAX_TEXT: usize = 4 << 10;
/// Bytes of a description.
const MAX_DESCRIPTION: usize = 64 << 10;
/// Names in all category paths, and attributes.
const MAX_NAMES: usize = 64;

/// Checks what a client would add.
pub(crate) fn check(item: &Item) -> Result<(), ApiError> {
    if item.title.as_deref().is_none_or(|title| title.trim().is_empty()) {
        let message = "`title` is missing or empty; an item is known by its text, give it one";
        return Err(ApiError::invalid("no_title", message));
    }
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    length("id", item.id.len(), MAX_NAME)?;
    length("title", text(&item.title), MAX_TEXT)?;
    length("brand", text(&item.brand), MAX_TEXT)?;
    length("description", text(&item.description), MAX_DESCRIPTION)?;
    // An empty path counts too.
    number("categories", item.categories.iter().map(|path| path.len().max(1)).sum())?;
    item.categories.iter().flatten().try_for_each(|name| length("categories", name.len(), MAX_NAME))?;
    number("attributes", item.attributes.len())?;
    item.attributes.iter().try_for_each(|(name, value)| {
        length("attributes", name.len(), MAX_NAME)?;
        length(&format!("attributes.{}", shortened(name)), value.len(), MAX_TEXT)
    })
}

fn length(field: &str, bytes: usize, most: usize) -> Result<(), ApiError> {
    if bytes <= most {
        return Ok(());
    }
    Err(too_large(format!("`{field}` has a text of {bytes} bytes; give at most {most}")))
}

fn number(field: &str, names: usize) -> Result<(), ApiError> {
    if names <= MAX_NAMES {
        return Ok(());
    }
    Err(too_large(format!("`{field}` holds {names} names; give at most {MAX_NAMES}")))
}

fn too_large(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "item_too_large", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_limit() {
        let full = || {
            let mut item = Item::new("i".repeat(MAX_NAME)).with_title("t".repeat(MAX_TEXT));
            item = item.with_brand("b".repeat(MAX_TEXT)).with_categories(vec![vec!["c".repeat(MAX_NAME); 32]; 2]);
            item.description = Some("d".repeat(MAX_DESCRIPTION));
            item.attributes = (0..MAX_NAMES).map(|i| (format!("{i:0>256}"), "v".repeat(MAX_TEXT))).collect();
            item
        };
        check(&full()).unwrap();
        type Enlarge = fn(&mut Item);
        let over: [(&str, Enlarge); 9] = [
            ("id", |item| item.id.push('i')),
            ("title", |item| item.title.as_mut().unwrap().push('t')),
            ("brand", |item| item.brand.as_mut().unwrap().push('b')),
            ("description", |item| item.description.as_mut().unwrap().push('d')),
            ("categories", |item| item.categories[1][31].push('c')),
            ("categories", |item| item.categories.push(vec![])),
            ("attributes", |item| drop(item.attributes.insert("one more".into(), "x".into()))),
            ("attributes", |item| item.attributes = [("n".repeat(257), "x".to_owned())].into()),
            ("attributes.a", |item| item.attributes = [("a".to_owned(), "v".repeat(MAX_TEXT + 1))].into()),
        ];
        for (field, enlarge) in over {
            let mut item = full();
            enlarge(&mut item);
            let error = check(&item).unwrap_err();
            assert_eq!((error.status.as_u16(), error.code), (400, "item_too_large"));
            assert!(error.message.starts_with(&format!("`{field}`")), "{}", error.message);
        }
    }
}
