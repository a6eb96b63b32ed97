//! Logs and catalogues as other programs write them. The first byte of an input picks the reader, the second its options;
//! a NUL is between the two files of a reader that takes two.

use std::path::Path;

use genrec::data::{
    OnBadLine, ReadOptions,
    readers::{
        amazon, movielens, neutral, recbole,
        tabular::{self, InteractionColumns, ItemColumns},
    },
};

use super::{put, split, tell};

type Reader = fn(&Path, &ReadOptions);

/// One for each form of data.
pub const READERS: [(&str, [&str; 2], Reader); 10] = [
    ("neutral", ["items.jsonl", "sequences.txt"], |dir, options| tell(neutral::read(dir, options))),
    ("amazon reviews", ["amazon", "unused"], |dir, options| {
        tell(amazon::read_reviews(&dir.join("amazon"), options));
    }),
    ("amazon items", ["amazon", "unused"], |dir, options| {
        tell(amazon::read_items(&dir.join("amazon"), options, |id| id.len() % 7 != 0));
    }),
    ("movielens 100k", ["u.data", "u.item"], |dir, options| movies(dir, movielens::Layout::Ml100k, options)),
    ("movielens 1m", ["ratings.dat", "movies.dat"], |dir, options| movies(dir, movielens::Layout::Ml1m, options)),
    ("movielens csv", ["ratings.csv", "movies.csv"], |dir, options| movies(dir, movielens::Layout::Csv, options)),
    ("recbole", ["a.inter", "a.item"], |dir, options| {
        tell(recbole::read_interactions(&dir.join("a.inter"), options));
        tell(recbole::read_items(&dir.join("a.item"), options));
    }),
    ("csv", ["log.csv", "items.csv"], |dir, options| table(dir, "csv", tabular::Format::Csv, options)),
    ("tsv", ["log.tsv", "items.tsv"], |dir, options| table(dir, "tsv", tabular::Format::Tsv, options)),
    ("json lines", ["log.jsonl", "items.jsonl"], |dir, options| {
        table(dir, "jsonl", tabular::Format::JsonLines, options);
    }),
];

/// Reads an input; whoever reads damaged logs may skip lines or stop at the first.
pub fn read(input: &[u8], dir: &Path) {
    let [reader, options, rest @ ..] = input else { return };
    let on_bad_line = if options & 1 == 0 { OnBadLine::Skip } else { OnBadLine::Fail };
    // A compressed file may hold more than its own size; a line of it may not.
    let options = ReadOptions::default().with_on_bad_line(on_bad_line).with_max_line_bytes(1 << 14);
    let (_, names, reader) = READERS[usize::from(*reader) % READERS.len()];
    let (first, second) = split(rest);
    put(dir, names[0], first);
    put(dir, names[1], second);
    reader(dir, &options);
}

fn movies(dir: &Path, layout: movielens::Layout, options: &ReadOptions) {
    tell(movielens::read(dir, layout, options));
}

fn table(dir: &Path, extension: &str, format: tabular::Format, options: &ReadOptions) {
    let log = InteractionColumns::new("user", "item").with_timestamp("time").with_rating("rating");
    tell(tabular::read_interactions(&dir.join("log").with_extension(extension), format, &log, options));
    let items = ItemColumns::new("id").with_title("title").with_price("price").with_categories("categories");
    let items = items.with_attribute("colour").with_description("text").with_brand("brand");
    tell(tabular::read_items(&dir.join("items").with_extension(extension), format, &items, options));
}
