//! `catalogue/items.jsonl`: the items of a run, and whether training saw each.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
};

use genrec_data::{Catalogue, Item};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, artifacts};

#[derive(Serialize)]
struct LineRef<'a> {
    seen: bool,
    #[serde(flatten)]
    item: &'a Item,
}

#[derive(Deserialize)]
struct Line {
    seen: bool,
    #[serde(flatten)]
    item: Item,
}

/// Writes one item a line, in the order of their rows.
pub(crate) fn write(path: &Path, catalogue: &Catalogue, seen: &[bool]) -> Result<()> {
    artifacts::write_with(path, |file| {
        for (item, &seen) in catalogue.items().iter().zip(seen) {
            serde_json::to_writer(&mut *file, &LineRef { seen, item }).map_err(std::io::Error::from)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// Reads the first `expected` items and their flags.
///
/// The file may hold more: it is written before the index, whose replacement makes added items part of the run.
pub(crate) fn read(path: &Path, expected: usize) -> Result<(Catalogue, Vec<bool>)> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::MissingArtifact { path: path.to_path_buf() });
        }
        Err(source) => return Err(Error::Io { action: "read", path: path.to_path_buf(), source }),
    };
    let (mut items, mut seen) = (Vec::new(), Vec::new());
    for (number, line) in (1..=expected).zip(BufReader::new(file).lines()) {
        let line = line.map_err(|source| Error::Io { action: "read", path: path.to_path_buf(), source })?;
        let line: Line = serde_json::from_str(&line).map_err(|source| Error::CatalogueLine {
            path: path.to_path_buf(),
            line: number,
            source,
        })?;
        items.push(line.item);
        seen.push(line.seen);
    }
    Ok((Catalogue::from_items(items)?, seen))
}
