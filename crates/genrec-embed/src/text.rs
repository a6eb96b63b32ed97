//! From an item's fields to the text that is embedded.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// One line of a [`TextTemplate`]: a label and the name of the field that follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TextLine {
    /// What is printed before the value, without the colon; empty for the bare value.
    pub label: String,
    /// Name of the field, as the caller's look-up function knows it.
    pub field: String,
}

/// Renders fields of an item as `Label: value` lines, joined by newlines.
///
/// A field that is missing or blank leaves its line out, so that sparse items do not all look alike.
/// The template is part of a run's configuration: another template is another embedding.
///
/// ```
/// use std::borrow::Cow;
/// use genrec_embed::TextTemplate;
///
/// let text = TextTemplate::default().render(|field| match field {
///     "title" => Some(Cow::Borrowed("Cream Blush, Tea Rose")),
///     "categories" => Some(Cow::Borrowed("Beauty > Makeup > Face")),
///     _ => None,
/// });
/// assert_eq!(text, "Title: Cream Blush, Tea Rose\nCategories: Beauty > Makeup > Face");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TextTemplate {
    lines: Vec<TextLine>,
}

impl Default for TextTemplate {
    /// `Title`, `Brand` and `Categories` from the fields `title`, `brand` and `categories`.
    ///
    /// TIGER (section 4.1) embeds title, price, brand and category; the price is left out here, as
    /// it is missing for many items and says little to a sentence encoder. Add it by [`with_line`](Self::with_line).
    fn default() -> Self {
        Self::new([("Title", "title"), ("Brand", "brand"), ("Categories", "categories")])
    }
}

impl TextTemplate {
    /// A template of `(label, field)` lines, in order.
    pub fn new<L: Into<String>, F: Into<String>>(lines: impl IntoIterator<Item = (L, F)>) -> Self {
        let lines =
            lines.into_iter().map(|(label, field)| TextLine { label: label.into(), field: field.into() }).collect();
        Self { lines }
    }

    /// `TITLE`, `CATEGORIES`, `BRAND`: the order and capitals that suit a decoder LLM, whose embedding
    /// is read at the last token.
    pub fn upper_case() -> Self {
        Self::new([("TITLE", "title"), ("CATEGORIES", "categories"), ("BRAND", "brand")])
    }

    /// Adds a line at the end.
    #[must_use]
    pub fn with_line(mut self, label: impl Into<String>, field: impl Into<String>) -> Self {
        self.lines.push(TextLine { label: label.into(), field: field.into() });
        self
    }

    /// The lines in order.
    pub fn lines(&self) -> &[TextLine] {
        &self.lines
    }

    /// The text of one item; empty when no field has a value.
    ///
    /// White space inside a value, newlines included, becomes single spaces: a line stays a line.
    pub fn render<'a>(&self, field: impl Fn(&str) -> Option<Cow<'a, str>>) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let Some(value) = field(&line.field) else { continue };
            let mut words = value.split_whitespace().peekable();
            if words.peek().is_none() {
                continue;
            }
            if !text.is_empty() {
                text.push('\n');
            }
            if !line.label.is_empty() {
                text.push_str(&line.label);
                text.push_str(": ");
            }
            for (position, word) in words.enumerate() {
                if position > 0 {
                    text.push(' ');
                }
                text.push_str(word);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(field: &str) -> Option<Cow<'static, str>> {
        match field {
            "title" => Some(Cow::Borrowed("Nail  Lacquer\n0.5 oz ")),
            "brand" => Some(Cow::Borrowed(" \t")),
            "categories" => Some(Cow::Owned("Beauty > Nails".to_owned())),
            "price" => Some(Cow::Borrowed("8.99")),
            _ => None,
        }
    }

    #[test]
    fn blank_and_missing_fields_leave_their_line_out() {
        assert_eq!(TextTemplate::default().render(item), "Title: Nail Lacquer 0.5 oz\nCategories: Beauty > Nails");
        assert_eq!(TextTemplate::new([("Maker", "maker")]).render(item), "");
    }

    #[test]
    fn order_capitals_and_extra_lines() {
        let template = TextTemplate::upper_case().with_line("", "price");
        assert_eq!(template.render(item), "TITLE: Nail Lacquer 0.5 oz\nCATEGORIES: Beauty > Nails\n8.99");
        assert_eq!(template.lines()[2].field, "brand");
    }

    #[test]
    fn survives_json() {
        let template = TextTemplate::default().with_line("Price", "price");
        let json = serde_json::to_string(&template).unwrap();
        assert_eq!(json.matches("\"label\"").count(), 4);
        assert_eq!(serde_json::from_str::<TextTemplate>(&json).unwrap(), template);
        assert!(serde_json::from_str::<TextTemplate>(r#"[{"label":"a","field":"b","other":1}]"#).is_err());
    }
}
