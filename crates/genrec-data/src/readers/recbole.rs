//! RecBole's atomic files: `.inter` and `.item`.
//!
//! Tab-separated, with a header that types every column: `user_id:token`, `rating:float`, `title:token_seq`. The
//! columns may come in any order and under the names that RecBole's conversion scripts use. Types other than `token`,
//! `float`, `token_seq` and `float_seq` are refused.
//!
//! Some of those scripts quote fields as pandas does, doubled quotes and line breaks inside, and some quote nothing: a
//! field in double quotes is unquoted, and one that merely begins with a quote is taken as it stands.
//!
//! **Ties**: rows are taken in the order of the file. Among interactions of a user at the same `timestamp`, or in a
//! file without that column, this order decides, unless [`Prepare`](crate::Prepare) is told otherwise ([`Ties`](crate::Ties)).
//!
//! Reference: [Zhao et al., RecBole, CIKM 2021](https://arxiv.org/abs/2011.01731).

use std::path::Path;

use serde_json::Value;

use super::delimited::{Field, Quotes, number, time};
use super::records::Records;
use super::text::clean;
use crate::lines::{Fault, LineResult};
use crate::{Interaction, InteractionLog, Item, ReadOptions, ReadReport, Result, python_literal};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Token,
    TokenSequence,
    Float,
    FloatSequence,
}

struct Header {
    columns: Vec<(String, Kind)>,
}

impl Header {
    fn parse(fields: Vec<Field>) -> LineResult<Self> {
        let parse = |Field { text, column }: Field| {
            let typed = text.rsplit_once(':').filter(|(name, _)| !name.is_empty());
            let (name, kind) = typed.ok_or_else(|| Fault::at(column, "a column as `name:type`"))?;
            let kind = match kind.trim() {
                "token" => Kind::Token,
                "token_seq" => Kind::TokenSequence,
                "float" => Kind::Float,
                "float_seq" => Kind::FloatSequence,
                _ => return Err(Fault::at(column + name.len() + 1, "token, token_seq, float or float_seq")),
            };
            Ok((name.to_owned(), kind))
        };
        fields.into_iter().map(parse).collect::<LineResult<_>>().map(|columns| Self { columns })
    }

    fn find(&self, names: &[&str]) -> Option<usize> {
        names.iter().find_map(|name| self.columns.iter().position(|(column, _)| column == name))
    }

    fn require(&self, name: &str) -> LineResult<usize> {
        self.find(&[name]).ok_or_else(|| Fault::at(1, format!("a header with `{name}`")))
    }
}

/// Reads a `.inter` file: `user_id` and `item_id`, and where they are there `timestamp` and `rating`.
///
/// # Errors
/// [`DataError::Open`](crate::DataError::Open) and [`DataError::Read`](crate::DataError::Read);
/// [`DataError::BadLine`](crate::DataError::BadLine) for a header that is not typed or lacks an id (never skipped), and,
/// unless `options` say to skip, for another number of fields, an empty id, or a number that is none.
pub fn read_interactions(path: &Path, options: &ReadOptions) -> Result<(InteractionLog, ReadReport)> {
    let mut log = InteractionLog::new();
    let mut header: Option<([usize; 2], [Option<usize>; 2])> = None;
    let report = Records::open(path, '\t', Quotes::Loose, options)?.for_each(|fields| {
        let Some(([user, item], [timestamp, rating])) = &header else {
            let parsed = Header::parse(fields)?;
            let ids = [parsed.require("user_id")?, parsed.require("item_id")?];
            let others = [parsed.find(&["timestamp"]), parsed.find(&["rating"])];
            header = Some((ids, others));
            return Ok(());
        };
        let given = |at: &Option<usize>| at.map(|at| &fields[at]).filter(|field| !field.text.trim().is_empty());
        let interaction = Interaction {
            user: id(&fields[*user])?,
            item: id(&fields[*item])?,
            timestamp: given(timestamp).map(|field| time(&field.text, field.column)).transpose()?,
            rating: given(rating).map(|field| number(&field.text, field.column, "a rating")).transpose()?,
        };
        Ok(log.push(interaction)?)
    })?;
    Ok((log, report))
}

/// Reads a `.item` file: `item_id`; `title`, `movie_title` or `movie_name`, `brand`, `price`, `description`;
/// `categories`, `category`, `genre`, `class` or a `type:token_seq` as paths of one level each for a `token_seq`; every
/// other column as an attribute.
///
/// A sequence of quoted Python strings, as in the Amazon files, is cut as Python would; any other at commas where there
/// are any, otherwise at spaces.
///
/// # Errors
/// As [`read_interactions`].
pub fn read_items(path: &Path, options: &ReadOptions) -> Result<(Vec<Item>, ReadReport)> {
    let mut items = Vec::new();
    let mut header: Option<(Header, usize)> = None;
    let report = Records::open(path, '\t', Quotes::Loose, options)?.for_each(|fields| {
        let Some((header, key)) = &header else {
            let parsed = Header::parse(fields)?;
            let key = parsed.require("item_id")?;
            header = Some((parsed, key));
            return Ok(());
        };
        let mut item = Item::new(id(&fields[*key])?);
        for (at, (Field { text, column }, (name, kind))) in fields.iter().zip(&header.columns).enumerate() {
            if at == *key || text.trim().is_empty() {
                continue;
            }
            match name.as_str() {
                "title" | "movie_title" | "movie_name" => item.title = clean(text),
                "brand" => item.brand = clean(text),
                "description" => item.description = clean(text),
                "price" => item.price = Some(number(text, *column, "a price")?),
                "categories" | "category" | "genre" | "class" => item.categories = levels(text, *kind),
                // The genres of MovieLens 10M and 20M; elsewhere a `token`, beside the genres.
                "type" if *kind == Kind::TokenSequence => item.categories = levels(text, *kind),
                _ => {
                    if *kind == Kind::Float {
                        number(text, *column, name)?;
                    }
                    if let Some(text) = clean(text) {
                        item.attributes.insert(name.clone(), text);
                    }
                }
            }
        }
        items.push(item);
        Ok(())
    })?;
    Ok((items, report))
}

fn levels(text: &str, kind: Kind) -> Vec<Vec<String>> {
    let level = |token: &str| clean(token).map(|token| vec![token]);
    let bare = |token: &str| level(token.trim().trim_matches(['\'', '"', '[', ']']));
    match kind {
        Kind::Token | Kind::Float => bare(text).into_iter().collect(),
        Kind::TokenSequence | Kind::FloatSequence => match python_strings(text) {
            Some(tokens) => tokens.iter().filter_map(|token| level(token)).collect(),
            None if text.contains(',') => text.split(',').filter_map(bare).collect(),
            None => text.split(' ').filter_map(bare).collect(),
        },
    }
}

/// The strings of a Python set or list whose brackets are gone (`'Beauty', "Men's"`) or still there.
fn python_strings(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    let list = match text.chars().next()? {
        '\'' | '"' => format!("[{text}]"),
        '[' => text.to_owned(),
        _ => return None,
    };
    let Ok(Value::Array(values)) = python_literal::parse(&list) else { return None };
    values.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}

fn id(field: &Field) -> LineResult<&str> {
    let id = field.text.trim();
    if id.is_empty() { Err(Fault::at(field.column, "an id that is not empty")) } else { Ok(id) }
}

#[cfg(test)]
mod tests;
