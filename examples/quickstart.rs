//! TIGER on made-up data in a minute or two: no file, no network.
//!
//! ```sh
//! cargo run --release --example quickstart
//! ```
//!
//! Trains on the synthetic shop of `genrec::data::synthetic` and compares with popularity, with Semantic-KNN, with a
//! first-order item-transition table, and with the generator's own oracle, the best that any model can do.

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use std::{collections::BTreeMap, path::PathBuf};

use clap::Parser;
use genrec::{
    History,
    data::{Item, LeaveOneOut, Synthetic, SyntheticConfig},
    eval::Suite,
    evaluate::{self, OwnItems, Part, Question},
    index::ItemId,
    model::baseline::Transitions,
    pipeline::{self, Metrics, TigerConfig},
};
use support::{BoxError, DeviceArg, ProgressView, curves::Curves};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Trains and tests TIGER on synthetic data.
#[derive(Debug, Parser)]
struct Args {
    /// Where the run is written; a temporary directory otherwise.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Passes over the training windows; the preset's own number otherwise.
    #[arg(long)]
    epochs: Option<u32>,
    /// Settings as JSON, or a run's `run.json`; what the file leaves out is the quick start's own.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Goes on with the run in `--out`.
    #[arg(long)]
    resume: bool,
    /// Every random choice derives from it; the settings' own (42) otherwise.
    #[arg(long)]
    seed: Option<u64>,
    /// Where tensors live.
    #[arg(long, value_enum, default_value_t = DeviceArg::Cpu)]
    device: DeviceArg,
}

/// Ranks by the generator's true probabilities.
fn oracle(shop: &Synthetic, questions: &[Question<'_>]) -> Suite<ItemId> {
    let mut suite = Suite::standard();
    for (user, question) in questions.iter().enumerate() {
        let best = shop.oracle_ranking(user, question.history.items, evaluate::DEPTH);
        suite.update(&best, &[question.target]);
    }
    suite
}

fn run(args: &Args) -> Result<(), BoxError> {
    let device = args.device.open()?;
    let mut config = support::config_or(args.config.as_deref(), TigerConfig::quickstart)?;
    config.seed = args.seed.unwrap_or(config.seed);
    let shop = SyntheticConfig::default().with_users(5_000).with_seed(config.seed).generate()?;
    if let Some(epochs) = args.epochs {
        config.train.epochs = Some(epochs);
    }
    let temporary = tempfile::tempdir()?;
    let out = args.out.clone().unwrap_or_else(|| temporary.path().join("run"));
    let mut watch = (ProgressView::new(&config.train, None), Curves::new(&out, args.resume));
    let mut outcome = pipeline::run(&shop.dataset, &config, &out, &device, None, args.resume, &mut watch)?;

    let questions = evaluate::questions(&shop.dataset.sequences, Part::Test)?;
    let split = LeaveOneOut::new(&shop.dataset.sequences);
    let training = (0..shop.dataset.sequences.len()).map(|user| split.train(user));
    let transitions =
        Transitions::fit(training.map(|items| items.iter().map(|item| item.0)), shop.dataset.catalogue.len())?;
    let transitions = evaluate::evaluate_scorer(&transitions, &questions, OwnItems::Ranked)?;
    let oracle = oracle(&shop, &questions);
    let extra: BTreeMap<String, Metrics> =
        [("transition table".to_owned(), transitions.report()), ("oracle (the limit)".to_owned(), oracle.report())]
            .into();
    support::print_report(&outcome.report, &extra);

    let recall = |metrics: &Metrics| metrics.get("recall@10").copied().unwrap_or(f64::NAN);
    let ours = recall(&outcome.report.test);
    println!(
        "\nTIGER's Recall@10 is {:.1} % of the oracle's, {:.1} times popularity's and {:.2} times the transition table's.",
        100.0 * ours / recall(&oracle.report()),
        ours / recall(&outcome.report.baselines["popularity"]),
        ours / recall(&transitions.report()),
    );
    let (knn, ndcg) = (&outcome.report.baselines["semantic_knn"], |metrics: &Metrics| metrics["ndcg@10"]);
    println!(
        "Semantic-KNN, which only likens texts, reaches {:.2} times TIGER's Recall@10 and {:.2} times its NDCG@10.",
        recall(knn) / ours,
        ndcg(knn) / ndcg(&outcome.report.test),
    );
    add_an_item(&mut outcome.recommender, &questions)?;
    Ok(())
}

/// Adds an item that training never saw and recommends to someone who just bought its nearest relative.
fn add_an_item(recommender: &mut genrec::Recommender, questions: &[Question<'_>]) -> Result<(), BoxError> {
    let Some(question) = questions.first() else { return Ok(()) };
    let Some(&last) = question.history.items.last() else { return Ok(()) };
    let Some(relative) = recommender.catalogue().get(last).cloned() else { return Ok(()) };
    let item = Item { id: "new-item".into(), title: relative.title.map(|title| format!("{title} II")), ..relative };
    let new = recommender.add_item(item)?;
    let sid = |item| recommender.index().sid(item).map(|sid| sid.to_string()).unwrap_or_default();
    println!("\nA new item, like item {last} {}, gets {} and can be recommended at once.", sid(last), sid(new));
    println!("To someone who has bought item {last}, TIGER recommends, of {} items:", recommender.catalogue().len());
    let history = History { user: None, items: &[last] };
    let found = recommender.recommend(&[history], recommender.catalogue().len())?;
    let rows: Vec<_> = (1..)
        .zip(found.into_iter().flatten())
        .filter(|(rank, found)| *rank <= 5 || found.item == new)
        .map(|(rank, found)| {
            let (title, score) = (found.title.unwrap_or_default(), format!("{:.3}", found.score));
            vec![rank.to_string(), found.id, title, score, found.sid.to_string()]
        })
        .collect();
    println!("{}", support::table(&["rank", "id", "title", "log p", "SID"], &rows));
    Ok(())
}

fn main() {
    support::start();
    support::exit_on_error(run(&Args::parse()));
}
