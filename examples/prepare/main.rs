//! Tables of who took what, and of the items, to a directory that every other program reads with `--data`.
//!
//! ```sh
//! cargo run --release --example prepare -- --interactions orders.csv --items items.csv --out data/shop
//! ```
//!
//! CSV, TSV and JSON lines, gzipped or not, and Parquet with `--features parquet`. Columns are found by their usual names, and named by
//! options otherwise. `OUT` gets `sequences.txt`, `items.jsonl` and `prepare.json`, which has the counts that are printed.

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

mod columns;
mod counts;
mod neutral;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use genrec::data::{
    Catalogue, Dataset, Duplicates, Item, OnBadLine, Prepare, ReadOptions, Ties,
    readers::neutral::{ITEMS, SEQUENCES},
};
use support::{BoxError, create_dir, report::json_bytes, table, write_files};

use crate::{
    columns::{Columns, Source, read_items, read_log},
    counts::Counts,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a user had taken before and takes again.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Repeats {
    /// The first time counts.
    First,
    /// The last time counts.
    Last,
    /// Every time counts.
    All,
}

/// The order of what a user took at the same time.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum SameTime {
    /// That of the file.
    File,
    /// Drawn by --seed: tells a model nothing.
    Shuffled,
    /// By item id.
    Id,
}

/// Makes of tables the directory that `--data` of the other programs names, and says what is wrong with them.
#[derive(Debug, Parser)]
struct Args {
    /// Who took what and when: a table with a row for each time.
    #[arg(long)]
    interactions: PathBuf,
    /// What the items are: a table with a row for each.
    #[arg(long)]
    items: PathBuf,
    /// Directory for `sequences.txt` and `items.jsonl`; those of an earlier call are replaced.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    columns: Columns,
    /// Leaves out interactions with a lower rating; those without one stay.
    #[arg(long)]
    min_rating: Option<f64>,
    /// Leaves out users with fewer interactions, as often as others fall below by it. The paper's 5; from 3 on a user has a test, a
    /// validation and something to train on.
    #[arg(long, default_value_t = 5)]
    user_core: usize,
    /// The same of items.
    #[arg(long, default_value_t = 5)]
    item_core: usize,
    #[arg(long, value_enum, default_value_t = Repeats::First)]
    repeats: Repeats,
    #[arg(long, value_enum, default_value_t = SameTime::File)]
    same_time: SameTime,
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Keeps items of the table that nobody took, or too few: they get Semantic IDs too and can be recommended.
    #[arg(long)]
    all_items: bool,
    /// Leaves out rows that cannot be read, and counts them.
    #[arg(long)]
    skip_bad_rows: bool,
}

/// The items that nobody took, or too few, behind the others.
fn with_all(dataset: Dataset, items: Vec<Item>) -> Result<Dataset, BoxError> {
    let mut catalogue: Catalogue = dataset.catalogue;
    for item in items {
        if catalogue.find(&item.id).is_none() {
            catalogue.push(item)?;
        }
    }
    Ok(Dataset::new(dataset.name, catalogue, dataset.sequences)?)
}

/// Files that were not made here are not replaced.
fn claim(out: &Path) -> Result<PathBuf, BoxError> {
    let own = out.join("prepare.json");
    match [SEQUENCES, ITEMS].into_iter().find(|file| out.join(file).exists()) {
        Some(file) if !own.exists() => {
            Err(format!("`{}` has a `{file}` that is not of this program: give another `--out`", out.display()).into())
        }
        _ => Ok(own),
    }
}

fn run(args: &Args) -> Result<(), BoxError> {
    let counts_file = claim(&args.out)?;
    let on_bad_line = if args.skip_bad_rows { OnBadLine::Skip } else { OnBadLine::Fail };
    let options = ReadOptions::default().with_on_bad_line(on_bad_line);
    let (mut log_source, mut item_source) =
        (Source::open(&args.interactions, &options)?, Source::open(&args.items, &options)?);
    let (log, mut seen) = read_log(&mut log_source, &args.columns)?;
    let (items, items_seen) = read_items(&mut item_source, &args.columns)?;
    seen.merge(items_seen);

    let prepare = Prepare::default()
        .with_k_core(args.user_core, args.item_core)
        .with_min_rating(args.min_rating)
        .with_duplicates(match args.repeats {
            Repeats::First => Duplicates::KeepFirst,
            Repeats::Last => Duplicates::KeepLast,
            Repeats::All => Duplicates::KeepAll,
        })
        .with_ties(match args.same_time {
            SameTime::File => Ties::InputOrder,
            SameTime::Shuffled => Ties::Shuffled { seed: args.seed },
            SameTime::Id => Ties::ByItemId,
        });
    let name = args.out.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut dataset = prepare.run(name, &log, items.clone())?;
    if args.all_items {
        dataset = with_all(dataset, items.clone())?;
    }
    let counts = Counts { bad_rows: seen.skipped, ..Counts::of(&log, &items, &dataset, args) };

    let (sequences, lines) = (neutral::sequences(&dataset)?, neutral::item_lines(&dataset.catalogue)?);
    create_dir(&args.out)?;
    write_files(&[
        (&counts_file, json_bytes(&counts)?.as_slice()),
        (&args.out.join(ITEMS), lines.as_bytes()),
        (&args.out.join(SEQUENCES), sequences.as_bytes()),
    ])?;

    for source in [&log_source, &item_source] {
        println!("{}: {}", source.path.display(), source.found.join(", "));
    }
    println!("{}", table(&["of", "count"], &counts.rows()));
    for bad in &seen.examples {
        println!("left out {bad}");
    }
    counts
        .remarks(args, log_source.has("time"), &log_source.others())
        .iter()
        .for_each(|remark| println!("Note: {remark}"));
    let out = args.out.display();
    println!("{out} is ready: `--example tiger -- --data {out} --out` a directory for the run.");
    Ok(())
}

fn main() {
    support::start();
    support::exit_on_error(run(&Args::parse()));
}
