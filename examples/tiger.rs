//! TIGER end to end on your data: texts to embeddings to Semantic IDs to a trained model to test metrics.
//!
//! ```sh
//! cargo run --release --example tiger -- --data DIR --out runs/beauty --embedder bert:MODEL_DIR --max-minutes 60
//! ```
//!
//! `DIR` holds `sequences.txt` (`user item item ..`, oldest first) and `items.jsonl` (`item_id`, `title`, `brand`,
//! `categories`); `prepare` makes them of tables. `OUT` gets the run, and its learning curves as `curves.svg` and `curves.png`. A run
//! that was interrupted goes on with `--resume`; without `--max-minutes` it ends with the same bytes.

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Parser, ValueEnum};
use genrec::{
    Ensemble, Recommender,
    data::Dataset,
    evaluate::{Part, questions},
    pipeline::{self, Budget, EmbeddingSource, Precision, TensorBoard, TigerConfig},
    quantize::{QuantizerConfig, ResidualKMeansConfig, RqVaeConfig},
};
use support::{BoxError, DeviceArg, ProgressView, asked, curves::Curves};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Quantizer {
    /// Residual-quantised autoencoder, as in the paper.
    RqVae,
    /// k-means on the residuals of k-means, no encoder.
    ResidualKMeans,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Preset {
    /// The paper's model and schedule; days on a CPU.
    Paper,
    /// A smaller model, over k-means, for an hour on two cores.
    Cpu,
    /// The same over Semantic IDs of content and behaviour, recommending what a user has not taken yet.
    Best,
}

/// Trains and tests TIGER on a directory of interactions and items.
#[derive(Debug, Parser)]
struct Args {
    /// Directory with `sequences.txt` and `items.jsonl`.
    #[arg(long)]
    data: PathBuf,
    /// Directory that the run is written to.
    #[arg(long)]
    out: PathBuf,
    /// Content embeddings: `tfidf`, `bert:DIR`, `sentence-t5:DIR`, `llm:DIR`, or `npy:FILE` of shape (items, features).
    ///
    /// TF-IDF, or that of `--config`, otherwise.
    #[arg(long, value_parser = support::parse_embedder)]
    embedder: Option<EmbeddingSource>,
    /// Embeddings to codes, with default settings where the preset or `--config` has another kind: that of the preset otherwise.
    #[arg(long, value_enum)]
    quantizer: Option<Quantizer>,
    /// Model, batch size, optimiser, schedule.
    #[arg(long, value_enum, default_value_t = Preset::Cpu)]
    preset: Preset,
    /// Settings as JSON, or the `run.json` of another run; what the file leaves out is the preset's. Arguments win over it.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Passes over the training windows; the preset's own number otherwise.
    #[arg(long)]
    epochs: Option<u32>,
    /// Wall-clock minutes from start to report: at most 12 % for the quantiser, at least 10 % for the test, the rest for
    /// embedding and training. Such a run cannot be repeated exactly; with `--resume` it has the minutes once more.
    #[arg(long, value_parser = support::parse_minutes, allow_negative_numbers = true)]
    max_minutes: Option<Duration>,
    /// Trains so many runs, of seeds that follow one another, and tests them together besides: each has Semantic IDs and weights
    /// of its own. `OUT/seed-N` are the runs; each has the minutes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    members: u64,
    /// Writes curves for TensorBoard to that directory, with `--members` to `seed-N` in it.
    #[arg(long, value_name = "DIR")]
    events: Option<PathBuf>,
    /// Reads only the first users; for a quick look.
    #[arg(long)]
    limit_users: Option<usize>,
    /// Goes on with the run in `--out`.
    #[arg(long)]
    resume: bool,
    /// Every random choice derives from it; 42, or that of `--config`, otherwise.
    #[arg(long)]
    seed: Option<u64>,
    /// Where tensors live.
    #[arg(long, value_enum, default_value_t = DeviceArg::Cpu)]
    device: DeviceArg,
    /// Lets the sequence model compute in `bf16`; needs a GPU.
    #[arg(long)]
    bf16: bool,
}

fn config(args: &Args) -> Result<TigerConfig, BoxError> {
    let preset = match args.preset {
        Preset::Paper => TigerConfig::paper,
        Preset::Cpu => TigerConfig::cpu,
        Preset::Best => TigerConfig::best,
    };
    let mut config = support::config_or(args.config.as_deref(), preset)?;
    config.quantizer = match (args.quantizer, config.quantizer) {
        (Some(Quantizer::RqVae), other) if !matches!(other, QuantizerConfig::RqVae(_)) => {
            QuantizerConfig::RqVae(RqVaeConfig::default())
        }
        (Some(Quantizer::ResidualKMeans), other) if !matches!(other, QuantizerConfig::ResidualKMeans(_)) => {
            QuantizerConfig::ResidualKMeans(ResidualKMeansConfig::default())
        }
        (_, same) => same,
    };
    if let Some(embedder) = &args.embedder {
        config.embedder = embedder.clone();
    }
    config.seed = args.seed.unwrap_or(config.seed);
    if args.bf16 {
        config.precision = Precision::Bf16;
    }
    if args.epochs.is_some() {
        config.train.epochs = args.epochs;
        config.train.max_steps = None;
    }
    if args.max_minutes.is_some() && args.epochs.is_none() {
        // The clock decides, not the preset's length.
        config.train.epochs = None;
        config.train.max_steps.get_or_insert(u64::MAX);
    }
    Ok(config)
}

fn read(dir: &Path, limit_users: Option<usize>) -> Result<Dataset, BoxError> {
    let mut dataset = asked::dataset(dir)?;
    if let Some(users) = limit_users {
        dataset.sequences = dataset.sequences.truncated(users);
    }
    Ok(dataset)
}

fn run(args: &Args) -> Result<(), BoxError> {
    let dataset = read(&args.data, args.limit_users)?;
    let config = config(args)?;
    if args.members == 1 {
        train(args, &dataset, &config, &args.out, args.events.as_deref())?;
        println!("The run is in {}: `--example recommend -- --run` it and give a `--history`.", args.out.display());
        return Ok(());
    }
    let mut runs = Vec::new();
    let last = config.seed.checked_add(args.members - 1).ok_or("`--seed` leaves no room for so many `--members`")?;
    for seed in config.seed..=last {
        let member = format!("seed-{seed}");
        let (dir, events) = (args.out.join(&member), args.events.as_ref().map(|events| events.join(&member)));
        println!("\nSeed {seed}, in {}", dir.display());
        runs.push(train(args, &dataset, &config.clone().with_seed(seed), &dir, events.as_deref())?);
    }
    let beams = config.decode.beams;
    let ensemble = Ensemble::new(runs)?.with_candidates(beams);
    let together = asked::evaluate_together(&ensemble, &questions(&dataset.sequences, Part::Test)?)?.report();
    let [recall, ndcg] = ["recall@10", "ndcg@10"].map(|metric| together.get(metric).copied().unwrap_or(0.0));
    println!("\nAll {} together (test): Recall@10 {recall:.4}, NDCG@10 {ndcg:.4}", args.members);
    Ok(())
}

/// Trains one run and prints its report.
fn train(
    args: &Args,
    dataset: &Dataset,
    config: &TigerConfig,
    dir: &Path,
    events: Option<&Path>,
) -> Result<Recommender, BoxError> {
    let device = args.device.open()?;
    let budget = args.max_minutes.map(Budget::new);
    let curves = events.map(|events| TensorBoard::create(events, config)).transpose()?;
    let view = ProgressView::new(&config.train, args.max_minutes);
    let mut watch = (view, (curves, Curves::new(dir, args.resume)));
    let outcome = pipeline::run(dataset, config, dir, &device, budget, args.resume, &mut watch)?;
    support::print_report(&outcome.report, &Default::default());
    let (events, drawn) = watch.1;
    // Neither is worth an error after hours of training.
    if let Some(Err(error)) = events.map(TensorBoard::finish) {
        println!("The curves for TensorBoard are not whole: {error}");
    }
    match drawn.finish() {
        Ok(picture) => picture.iter().for_each(|path| println!("Learning curves: {} and .png", path.display())),
        Err(error) => println!("The learning curves are not whole: {error}"),
    }
    Ok(outcome.recommender)
}

fn main() {
    support::start();
    support::exit_on_error(run(&Args::parse()));
}
