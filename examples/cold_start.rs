//! Recommending items that training has never seen: the cold-start protocol of TIGER (arXiv 2305.05065, section 4.3, figure 5).
//!
//! ```sh
//! cargo run --release --example cold_start -- --data DIR --out runs/cold --max-minutes 30
//! ```
//!
//! A share of the test items is removed from all that is trained on; figures are over the users whose test item is one of them.
//! `OUT/run` is the run that was trained so, with its learning curves, and is taken up when it is there; `OUT/report.json` has all figures.

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use genrec::{
    artifacts::{self, RunDir},
    data::{Dataset, hold_out},
    decode::ColdStart,
    embed::io::read_safetensors,
    eval::bootstrap::Interval,
    pipeline::{self, Budget, TigerConfig},
    quantize::QuantizerConfig,
};
use support::{
    BoxError, DeviceArg, ProgressView, asked,
    cold::{self, Measured},
    create_dir,
    curves::Curves,
    table, write_file,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Trains without some items and measures how well they are found.
#[derive(Debug, Parser)]
struct Args {
    /// Directory with `sequences.txt` and `items.jsonl`.
    #[arg(long)]
    data: PathBuf,
    /// Directory for the run and the report.
    #[arg(long)]
    out: PathBuf,
    /// Share of the test items that is held out.
    #[arg(long, default_value_t = 0.05)]
    share: f64,
    /// Share of unseen items in a list, where the length of the list varies.
    #[arg(long, default_value_t = 0.1)]
    epsilon: f64,
    /// Weight of content beside the first code's probability, where both choose unseen items.
    #[arg(long, default_value_t = cold::WEIGHT)]
    weight: f32,
    /// Sequences generated for every user.
    #[arg(long, default_value_t = 50)]
    beams: usize,
    /// Settings as JSON over those of the preset `cpu` with three codebooks of 256.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Wall-clock minutes for training.
    #[arg(long, value_parser = support::parse_minutes, allow_negative_numbers = true)]
    max_minutes: Option<Duration>,
    /// Draws the held-out items and everything else.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Where tensors live.
    #[arg(long, value_enum, default_value_t = DeviceArg::Cpu)]
    device: DeviceArg,
}

/// The paper's three levels: an unseen item is found by all of its codes but the suffix.
fn preset() -> TigerConfig {
    let mut config = TigerConfig::cpu();
    if let QuantizerConfig::ResidualKMeans(quantizer) = &mut config.quantizer {
        quantizer.codebook_sizes = vec![256; 3];
    }
    config
}

fn train(args: &Args, dataset: &Dataset) -> Result<RunDir, BoxError> {
    let dir = args.out.join("run");
    let mut config = support::config_or(args.config.as_deref(), preset)?;
    config.seed = args.seed;
    if args.max_minutes.is_some() {
        (config.train.epochs, config.train.max_steps) = (None, Some(u64::MAX));
    }
    let run = RunDir::new(&dir);
    if !run.report().exists() {
        let mut watch = (ProgressView::new(&config.train, args.max_minutes), Curves::new(&dir, dir.exists()));
        let budget = args.max_minutes.map(Budget::new);
        pipeline::run(dataset, &config, &dir, &args.device.open()?, budget, dir.exists(), &mut watch)?;
    }
    Ok(run)
}

fn run(args: &Args) -> Result<(), BoxError> {
    ColdStart::new(args.epsilon).with_weight(Some(args.weight)).validate()?;
    create_dir(&args.out)?;
    let mut dataset = asked::dataset(&args.data)?;
    let held_out = hold_out(&dataset.sequences, args.share, args.seed)?;
    dataset.sequences = held_out.sequences;
    let run = train(args, &dataset)?;
    let recommender = asked::open(run.root(), &dataset, args.device)?;
    let report: pipeline::Report = artifacts::read_versioned(&run.report())?;
    if report.dataset.interactions != dataset.statistics().interactions {
        let path = run.root().display();
        let remedy = "give its `--share` and `--seed`, or another `--out`";
        return Err(format!("{path} was trained with other items held out; {remedy}").into());
    }
    let embeddings = read_safetensors(run.embeddings())?;
    let settings = cold::Settings { epsilon: args.epsilon, weight: args.weight, beams: args.beams, seed: args.seed };
    let measured = cold::measure(recommender, &dataset, &held_out.items, embeddings.view(), settings)?;
    print(&measured);
    write_file(&args.out.join("report.json"), &serde_json::to_vec_pretty(&measured)?)
}

fn print(measured: &Measured) {
    println!(
        "{} items held out; Recall over the {} users whose test item is one of them, and over {} other users.\n\
         A list of K items has room for the whole part of epsilon K unseen ones.",
        measured.held_out_items, measured.users, measured.others
    );
    let interval = |interval: Interval| format!("{:.4} [{:.4}, {:.4}]", interval.mean, interval.low, interval.high);
    let rows: Vec<Vec<String>> = measured
        .points
        .iter()
        .map(|point| {
            vec![
                point.method.clone(),
                format!("{:.1}", point.epsilon),
                point.k.to_string(),
                interval(point.held_out),
                point.over_knn.map_or_else(String::new, interval),
                format!("{:.4}", point.others),
            ]
        })
        .collect();
    let names = ["method", "epsilon", "K", "Recall@K, held out", "less Semantic-KNN's of so many unseen", "others"];
    println!("{}", table(&names, &rows));
}

fn main() {
    support::start();
    support::exit_on_error(run(&Args::parse()));
}
