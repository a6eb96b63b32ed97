//! Recommending items that training has never seen: the cold-start protocol of TIGER (arXiv 2305.05065, section 4.3, figure 5).
//!
//! ```sh
//! cargo run --release --example cold_start -- --data DIR --out runs/cold --max-minutes 30
//! ```
//!
//! A share of the test items is removed from all that is trained on; figures are over the users whose test item is one of them.
//! `OUT/run` is the run that was trained so, and is taken up when it is there; `OUT/report.json` has all figures.

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Parser;
use genrec::{
    History, Recommender,
    artifacts::{self, RunDir},
    data::{Dataset, hold_out},
    decode::ColdStart,
    embed::io::read_safetensors,
    eval::{Metric as _, Recall},
    evaluate::{Part, Question, questions},
    index::ItemId,
    model::{
        ItemScorer, RaggedBatch,
        baseline::{KnnHistory, SemanticKnn},
    },
    pipeline::{self, Budget, TigerConfig},
    quantize::QuantizerConfig,
};
use serde::Serialize;
use support::{BoxError, DeviceArg, ProgressView, asked, create_dir, table, write_file};

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

/// Lengths of the lists of the paper's figure 5a.
const LENGTHS: [usize; 4] = [5, 10, 15, 20];

/// Other users that are asked too, to see what they pay.
const OTHERS: usize = 2_000;

/// Recall of one way to recommend.
#[derive(Debug, Serialize)]
struct Row {
    method: &'static str,
    epsilon: f64,
    k: usize,
    /// Over users whose target is held out.
    held_out: f64,
    /// Over users whose target is not.
    others: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    held_out_items: usize,
    users: usize,
    others: usize,
    rows: Vec<Row>,
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
        let mut view = ProgressView::new(config.train.epochs);
        let budget = args.max_minutes.map(Budget::new);
        pipeline::run(dataset, &config, &dir, &args.device.open()?, budget, dir.exists(), &mut view)?;
    }
    Ok(run)
}

/// Checks that the run was trained without these items, and on nothing but this data.
fn check(recommender: &Recommender, run: &RunDir, dataset: &Dataset, held_out: &[ItemId]) -> Result<(), BoxError> {
    let report: pipeline::Report = artifacts::read_versioned(&run.report())?;
    let known = held_out.iter().any(|&item| recommender.seen(item) != Some(false));
    if known || report.dataset.interactions != dataset.statistics().interactions {
        let path = run.root().display();
        let remedy = "give its `--share` and `--seed`, or another `--out`";
        return Err(format!("{path} was trained with other items held out; {remedy}").into());
    }
    Ok(())
}

/// Both groups of users.
struct Users<'a> {
    held_out: Vec<Question<'a>>,
    others: Vec<Question<'a>>,
}

impl Users<'_> {
    /// Recall of both at a depth, of lists from `answer`.
    fn recall(
        &self,
        k: usize,
        answer: impl Fn(&[History<'_>]) -> Result<Vec<Vec<ItemId>>, BoxError>,
    ) -> Result<[f64; 2], BoxError> {
        let of = |questions: &[Question<'_>]| -> Result<f64, BoxError> {
            let histories: Vec<History<'_>> = questions.iter().map(|question| question.history).collect();
            let mut recall = Recall::new(k)?;
            for (items, question) in answer(&histories)?.iter().zip(questions) {
                recall.update(items, &[question.target]);
            }
            Ok(recall.value().unwrap_or(0.0))
        };
        Ok([of(&self.held_out)?, of(&self.others)?])
    }
}

fn generated(recommender: &Recommender, histories: &[History<'_>], k: usize) -> Result<Vec<Vec<ItemId>>, BoxError> {
    let found = recommender.recommend(histories, k)?;
    Ok(found.into_iter().map(|user| user.into_iter().map(|found| found.item).collect()).collect())
}

/// The nearest items by content, of all but the one that they are nearest to.
fn nearest(knn: &SemanticKnn, histories: &[History<'_>], k: usize) -> Result<Vec<Vec<ItemId>>, BoxError> {
    let mut found = Vec::new();
    for histories in histories.chunks(256) {
        let mut batch = RaggedBatch::new();
        for history in histories {
            batch.push(&history.items.iter().map(|item| item.0).collect::<Vec<_>>(), &[])?;
        }
        for (history, scores) in histories.iter().zip(knn.scores(&batch)?.to_vec2::<f32>()?) {
            let others = (0..scores.len() as u32).map(ItemId).filter(|&item| history.items.last() != Some(&item));
            let mut order: Vec<ItemId> = others.collect();
            order.sort_by(|a, b| scores[b.index()].total_cmp(&scores[a.index()]));
            order.truncate(k);
            found.push(order);
        }
    }
    Ok(found)
}

fn run(args: &Args) -> Result<(), BoxError> {
    create_dir(&args.out)?;
    let mut dataset = asked::dataset(&args.data)?;
    let held_out = hold_out(&dataset.sequences, args.share, args.seed)?;
    dataset.sequences = held_out.sequences;
    let run = train(args, &dataset)?;
    let mut recommender = asked::open(run.root(), &dataset, args.device)?;
    check(&recommender, &run, &dataset, &held_out.items)?;
    let base = recommender.config().clone().with_beams(args.beams);
    let embeddings = read_safetensors(run.embeddings())?;
    let nearest_to = |history| SemanticKnn::new(embeddings.view(), history);
    let knn = Arc::new(nearest_to(KnnHistory::LastItem)?);

    let (held, mut others): (Vec<_>, Vec<_>) = questions(&dataset.sequences, Part::Test)?
        .into_iter()
        .partition(|question| held_out.items.binary_search(&question.target).is_ok());
    // Evenly spaced.
    let every = others.len().div_ceil(OTHERS).max(1);
    others = others.into_iter().step_by(every).collect();
    let users = Users { held_out: held, others };
    let mut report = Report {
        held_out_items: held_out.items.len(),
        users: users.held_out.len(),
        others: users.others.len(),
        rows: Vec::new(),
    };
    let shares = (0..=10).map(|tenths| (f64::from(tenths) / 10.0, 10));
    let mut settings: Vec<(f64, usize)> = LENGTHS.iter().map(|&k| (args.epsilon, k)).collect();
    settings.extend(shares.filter(|&(epsilon, _)| (epsilon - args.epsilon).abs() > 1e-9));
    for method in ["TIGER", "TIGER, unseen items by Semantic-KNN"] {
        for &(epsilon, k) in &settings {
            recommender = recommender.with_config(base.clone().with_cold_start(ColdStart::new(epsilon)))?;
            let [held_out, others] = users.recall(k, |histories| generated(&recommender, histories, k))?;
            report.rows.push(Row { method, epsilon, k, held_out, others });
        }
        recommender = recommender.with_unseen_scorer(knn.clone());
    }
    for (method, history) in
        [("Semantic-KNN", KnnHistory::LastItem), ("Semantic-KNN, mean of history", KnnHistory::Mean)]
    {
        let knn = nearest_to(history)?;
        for k in LENGTHS {
            let [held_out, others] = users.recall(k, |histories| nearest(&knn, histories, k))?;
            report.rows.push(Row { method, epsilon: 1.0, k, held_out, others });
        }
    }
    print(&report);
    write_file(&args.out.join("report.json"), &serde_json::to_vec_pretty(&report)?)
}

fn print(report: &Report) {
    println!(
        "{} items held out; Recall over the {} users whose test item is one of them, and over {} other users.\n\
         A list of K items has room for the whole part of epsilon K unseen ones.",
        report.held_out_items, report.users, report.others
    );
    let rows: Vec<Vec<String>> = report
        .rows
        .iter()
        .map(|row| {
            let number = |value: f64| format!("{value:.4}");
            vec![
                row.method.to_owned(),
                format!("{:.1}", row.epsilon),
                row.k.to_string(),
                number(row.held_out),
                number(row.others),
            ]
        })
        .collect();
    println!("{}", table(&["method", "epsilon", "K", "Recall@K, held out", "others"], &rows));
}

fn main() {
    support::start();
    support::exit_on_error(run(&Args::parse()));
}
