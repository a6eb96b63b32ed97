//! MovieLens, in the layouts of all its releases.
//!
//! | layout | ratings | movies |
//! |---|---|---|
//! | [`Layout::Ml100k`] | `u.data`, tabs | `u.item`, `\|`, nineteen genre flags, ISO 8859-1 |
//! | [`Layout::Ml1m`] (and 10M) | `ratings.dat`, `::` | `movies.dat`, `::`, ISO 8859-1 |
//! | [`Layout::Csv`] (20M, 25M, 32M, latest) | `ratings.csv` | `movies.csv` |
//!
//! Each genre becomes a category path of one level. Times are seconds; many ratings of one user share a second: mind
//! [`Ties`](crate::Ties).
//!
//! Reference: [Harper and Konstan, The MovieLens Datasets, 2015](https://doi.org/10.1145/2827872).

use std::path::Path;

use super::delimited::{Field, number, quoted, split, time};
use super::text::clean;
use crate::lines::{Fault, LineReader, LineResult};
use crate::{Interaction, InteractionLog, Item, ReadOptions, ReadReport, Result};

const GENRES: [&str; 19] = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
];

/// How a release lays out its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// 100K: `u.data` and `u.item`.
    Ml100k,
    /// 1M and 10M: `ratings.dat` and `movies.dat`.
    Ml1m,
    /// 20M, 25M, 32M and latest: `ratings.csv` and `movies.csv`, with a header.
    Csv,
}

impl Layout {
    /// The layout whose ratings file is in a directory; [`Csv`](Self::Csv) when none is, so that reading names what is
    /// missing.
    pub fn detect(directory: &Path) -> Self {
        let there = |layout: &Self| directory.join(layout.ratings()).is_file();
        [Self::Ml100k, Self::Ml1m].into_iter().find(there).unwrap_or(Self::Csv)
    }

    /// Name of the ratings file.
    pub fn ratings(self) -> &'static str {
        match self {
            Self::Ml100k => "u.data",
            Self::Ml1m => "ratings.dat",
            Self::Csv => "ratings.csv",
        }
    }

    /// Name of the movies file.
    pub fn movies(self) -> &'static str {
        match self {
            Self::Ml100k => "u.item",
            Self::Ml1m => "movies.dat",
            Self::Csv => "movies.csv",
        }
    }

    /// Fields of a line: for ratings always four.
    fn fields(self, line: &str, count: usize, delimiter: &str) -> LineResult<Vec<Field>> {
        let fields = match self {
            Self::Csv => quoted(line, ',')?.ok_or_else(|| Fault::at(line.len() + 1, "the closing quote"))?,
            _ => split(line, delimiter).map(|(column, text)| Field { text: text.to_owned(), column }).collect(),
        };
        if fields.len() == count {
            return Ok(fields);
        }
        let column = fields.get(count).map_or(line.len() + 1, |extra| extra.column);
        Err(Fault::at(column, format!("{count} fields (there are {})", fields.len())))
    }
}

/// Reads a release's directory: the log, the movies, and what was seen of both files.
///
/// # Errors
/// [`DataError::Open`](crate::DataError::Open) and [`DataError::Read`](crate::DataError::Read);
/// [`DataError::BadLine`](crate::DataError::BadLine), unless `options` say to skip, for another number of fields, an
/// empty id, a rating or a time that is no number, or another header.
pub fn read(
    directory: &Path,
    layout: Layout,
    options: &ReadOptions,
) -> Result<(InteractionLog, Vec<Item>, ReadReport)> {
    let (log, mut report) = read_ratings(&directory.join(layout.ratings()), layout, options)?;
    let (items, movies) = read_movies(&directory.join(layout.movies()), layout, options)?;
    report.merge(movies);
    Ok((log, items, report))
}

/// Reads the ratings alone.
///
/// # Errors
/// As [`read`].
pub fn read_ratings(path: &Path, layout: Layout, options: &ReadOptions) -> Result<(InteractionLog, ReadReport)> {
    let mut log = InteractionLog::new();
    let mut header = matches!(layout, Layout::Csv);
    let delimiter = if layout == Layout::Ml100k { "\t" } else { "::" };
    let report = LineReader::open(path, options)?.header_if(header).for_each(|line| {
        if std::mem::take(&mut header) {
            return expect_header(line, "userId,movieId,rating,timestamp");
        }
        let fields = layout.fields(line, 4, delimiter)?;
        let [user, item, rating, timestamp] = &fields[..] else { return Err(Fault::at(1, "4 fields")) };
        let log_row = Interaction {
            user: id(user)?,
            item: id(item)?,
            timestamp: Some(time(&timestamp.text, timestamp.column)?),
            rating: Some(number(&rating.text, rating.column, "a rating")?),
        };
        Ok(log.push(log_row)?)
    })?;
    Ok((log, report))
}

/// Reads the movies alone.
///
/// # Errors
/// As [`read`].
pub fn read_movies(path: &Path, layout: Layout, options: &ReadOptions) -> Result<(Vec<Item>, ReadReport)> {
    let mut items = Vec::new();
    let mut header = matches!(layout, Layout::Csv);
    let report = LineReader::open(path, options)?.header_if(header).or_latin1().for_each(|line| {
        if std::mem::take(&mut header) {
            return expect_header(line, "movieId,title,genres");
        }
        let (count, delimiter) = if layout == Layout::Ml100k { (5 + GENRES.len(), "|") } else { (3, "::") };
        let fields = layout.fields(line, count, delimiter)?;
        let mut item = Item::new(id(&fields[0])?);
        item.title = clean(&fields[1].text);
        if layout == Layout::Ml100k {
            for (flag, genre) in fields[5..].iter().zip(GENRES) {
                match flag.text.as_str() {
                    "1" => item.categories.push(vec![genre.to_owned()]),
                    "0" => {}
                    _ => return Err(Fault::at(flag.column, format!("0 or 1 for the genre {genre}"))),
                }
            }
        } else if fields[2].text != "(no genres listed)" {
            item.categories = fields[2].text.split('|').filter_map(clean).map(|genre| vec![genre]).collect();
        }
        items.push(item);
        Ok(())
    })?;
    Ok((items, report))
}

fn expect_header(line: &str, header: &str) -> LineResult<()> {
    if line == header { Ok(()) } else { Err(Fault::at(1, format!("the header {header}"))) }
}

fn id(field: &Field) -> LineResult<&str> {
    let id = field.text.trim();
    if id.is_empty() { Err(Fault::at(field.column, "an id that is not empty")) } else { Ok(id) }
}

#[cfg(test)]
mod tests;
