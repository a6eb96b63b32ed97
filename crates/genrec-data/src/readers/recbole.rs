//! RecBole's atomic files: `.inter` and `.item`.
//!
//! Tab-separated, with a header that types every column: `user_id:token`, `rating:float`, `title:token_seq`. The
//! columns may come in any order and under the names that RecBole's conversion scripts use. Types other than `token`,
//! `float`, `token_seq` and `float_seq` are refused.
//!
//! Reference: [Zhao et al., RecBole, CIKM 2021](https://arxiv.org/abs/2011.01731).

use std::path::Path;

use super::delimited::{number, split, time};
use super::text::clean;
use crate::lines::{Fault, LineReader, LineResult};
use crate::{Interaction, InteractionLog, Item, ReadOptions, ReadReport, Result};

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
    fn parse(line: &str) -> LineResult<Self> {
        let parse = |(column, field): (usize, &str)| {
            let typed = field.rsplit_once(':').filter(|(name, _)| !name.is_empty());
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
        split(line, "\t").map(parse).collect::<LineResult<_>>().map(|columns| Self { columns })
    }

    fn find(&self, names: &[&str]) -> Option<usize> {
        names.iter().find_map(|name| self.columns.iter().position(|(column, _)| column == name))
    }

    fn require(&self, name: &str) -> LineResult<usize> {
        self.find(&[name]).ok_or_else(|| Fault::at(1, format!("a header with `{name}`")))
    }

    fn fields<'a>(&self, line: &'a str) -> LineResult<Vec<(usize, &'a str)>> {
        let fields: Vec<_> = split(line, "\t").collect();
        if fields.len() == self.columns.len() {
            return Ok(fields);
        }
        let column = fields.get(self.columns.len()).map_or(line.len() + 1, |&(column, _)| column);
        Err(Fault::at(column, format!("{} fields, as in the header (there are {})", self.columns.len(), fields.len())))
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
    let mut header: Option<(Header, [usize; 2], [Option<usize>; 2])> = None;
    let report = LineReader::open(path, options)?.with_header().for_each(|line| {
        let Some((header, [user, item], [timestamp, rating])) = &header else {
            let parsed = Header::parse(line)?;
            let ids = [parsed.require("user_id")?, parsed.require("item_id")?];
            let others = [parsed.find(&["timestamp"]), parsed.find(&["rating"])];
            header = Some((parsed, ids, others));
            return Ok(());
        };
        let fields = header.fields(line)?;
        let given = |at: &Option<usize>| at.map(|at| fields[at]).filter(|(_, text)| !text.trim().is_empty());
        let interaction = Interaction {
            user: id(fields[*user])?,
            item: id(fields[*item])?,
            timestamp: given(timestamp).map(|(column, text)| time(text, column)).transpose()?,
            rating: given(rating).map(|(column, text)| number(text, column, "a rating")).transpose()?,
        };
        Ok(log.push(interaction)?)
    })?;
    Ok((log, report))
}

/// Reads a `.item` file: `item_id`; `title` or `movie_title`, `brand`, `price`, `description`; `categories`,
/// `category`, `genre` or `class` as paths of one level each for a `token_seq`; every other column as an attribute.
///
/// # Errors
/// As [`read_interactions`].
pub fn read_items(path: &Path, options: &ReadOptions) -> Result<(Vec<Item>, ReadReport)> {
    let mut items = Vec::new();
    let mut header: Option<(Header, usize)> = None;
    let report = LineReader::open(path, options)?.with_header().for_each(|line| {
        let Some((header, key)) = &header else {
            let parsed = Header::parse(line)?;
            let key = parsed.require("item_id")?;
            header = Some((parsed, key));
            return Ok(());
        };
        let fields = header.fields(line)?;
        let mut item = Item::new(id(fields[*key])?);
        for (at, (&(column, text), (name, kind))) in fields.iter().zip(&header.columns).enumerate() {
            if at == *key || text.trim().is_empty() {
                continue;
            }
            match name.as_str() {
                "title" | "movie_title" => item.title = clean(text),
                "brand" => item.brand = clean(text),
                "description" => item.description = clean(text),
                "price" => item.price = Some(number(text, column, "a price")?),
                "categories" | "category" | "genre" | "class" => item.categories = levels(text, *kind),
                _ => {
                    if *kind == Kind::Float {
                        number(text, column, name)?;
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

/// The tokens of a sequence: at commas where there are any (RecBole's Amazon files), otherwise at spaces.
fn levels(text: &str, kind: Kind) -> Vec<Vec<String>> {
    let tokens: Vec<&str> = match kind {
        Kind::Token | Kind::Float => vec![text],
        Kind::TokenSequence | Kind::FloatSequence if text.contains(',') => text.split(',').collect(),
        Kind::TokenSequence | Kind::FloatSequence => text.split(' ').collect(),
    };
    let bare = |token: &str| clean(token.trim().trim_matches(['\'', '"', '[', ']'])).map(|token| vec![token]);
    tokens.into_iter().filter_map(bare).collect()
}

fn id((column, text): (usize, &str)) -> LineResult<&str> {
    if text.trim().is_empty() { Err(Fault::at(column, "an id that is not empty")) } else { Ok(text.trim()) }
}

#[cfg(test)]
mod tests;
