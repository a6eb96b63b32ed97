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
#[command(about, long_about = None)]
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
    /// How many items.
    #[arg(short, default_value_t = 10)]
    k: usize,
    /// Where tensors live.
    #[arg(long, value_enum, default_value_t = DeviceArg::Cpu)]
    device: DeviceArg,
}

fn run(args: &Args) -> Result<(), BoxError> {
    let recommender = Recommender::load(&args.run, &args.device.open()?)?;
    let items = args.history.iter().map(|id| recommender.find(id.trim())).collect::<Result<Vec<ItemId>, _>>()?;
    let row = |rank: String, item: ItemId, score: String| {
        let title = recommender.catalogue().get(item).and_then(|item| item.title.clone()).unwrap_or_default();
        let sid = recommender.index().sid(item).map(|sid| sid.to_string()).unwrap_or_default();
        let id = recommender.catalogue().get(item).map(|item| item.id.clone()).unwrap_or_default();
        vec![rank, id, title.chars().take(70).collect(), score, sid]
    };
    let history: Vec<_> = items.iter().map(|&item| row(String::new(), item, String::new())).collect();
    println!("History, oldest first\n{}", support::table(&["", "id", "title", "", "SID"], &history));

    let history = History { user: args.user.as_deref(), items: &items };
    let found = recommender.recommend(&[history], args.k)?;
    let rows: Vec<_> = found
        .iter()
        .flatten()
        .enumerate()
        .map(|(i, item)| row((i + 1).to_string(), item.item, format!("{:.3}", item.score)))
        .collect();
    println!("Recommended\n{}", support::table(&["rank", "id", "title", "log p", "SID"], &rows));
    Ok(())
}

fn main() {
    support::start();
    support::exit_on_error(run(&Args::parse()));
}
