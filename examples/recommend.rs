//! Recommends items from a finished run: prints title, score and Semantic ID.
//!
//! ```sh
//! cargo run --release --example recommend -- --run runs/beauty --history 1,2,3 -k 5
//! ```

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use std::path::PathBuf;

use clap::Parser;
use genrec::{History, Recommender, index::ItemId};
use support::{BoxError, DeviceArg};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Recommends items for a history.
#[derive(Debug, Parser)]
struct Args {
    /// Directory of a finished run.
    #[arg(long)]
    run: PathBuf,
    /// Item ids, oldest first, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    history: Vec<String>,
    /// The user's id, as in the training data.
    #[arg(long)]
    user: Option<String>,
    /// How many items, those of the history among them.
    #[arg(short, default_value_t = 10, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    k: usize,
    /// Where tensors live.
    #[arg(long, value_enum, default_value_t = DeviceArg::Cpu)]
    device: DeviceArg,
}

fn run(args: &Args) -> Result<(), BoxError> {
    let recommender = Recommender::load(&args.run, &args.device.open()?)?;
    let items = args.history.iter().map(|id| recommender.find(id.trim())).collect::<Result<Vec<ItemId>, _>>()?;
    let row = |rank: Option<usize>, item: ItemId, score: Option<f32>| {
        let title = recommender.catalogue().get(item).and_then(|item| item.title.clone()).unwrap_or_default();
        let sid = recommender.index().sid(item).map(|sid| sid.to_string()).unwrap_or_default();
        let id = recommender.catalogue().get(item).map(|item| item.id.clone()).unwrap_or_default();
        let title = if title.chars().count() > 70 { title.chars().take(69).chain(['…']).collect() } else { title };
        let rank = rank.map(|rank| rank.to_string());
        let score = score.map(|score| format!("{score:.3}"));
        rank.into_iter().chain([id, title]).chain(score).chain([sid]).collect::<Vec<_>>()
    };
    let history: Vec<_> = items.iter().map(|&item| row(None, item, None)).collect();
    println!("History, oldest first\n{}", support::table(&["id", "title", "SID"], &history));

    let history = History { user: args.user.as_deref(), items: &items };
    let found = recommender.recommend(&[history], args.k)?;
    let rows: Vec<_> =
        found.iter().flatten().enumerate().map(|(i, item)| row(Some(i + 1), item.item, Some(item.score))).collect();
    println!("Recommended\n{}", support::table(&["rank", "id", "title", "log p", "SID"], &rows));
    Ok(())
}

fn main() {
    support::start();
    support::exit_on_error(run(&Args::parse()));
}
