//! How temperature trades accuracy for variety: entropy of the categories in a list, at every level of the Semantic IDs alike
//! or at one alone (TIGER, arXiv 2305.05065, section 4.3 and table 3).
//!
//! ```sh
//! cargo run --release --example diversity -- --run runs/beauty --data DIR --out runs/diversity
//! ```
//!
//! `variety.svg` shows how much of a list is its commonest category, its second, and so on; `categories.svg` which ones all
//! lists together are made of; `report.json` has all figures.

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use std::path::PathBuf;

use clap::Parser;
use genrec::{
    DecodeConfig,
    decode::{AnySearch, PerLevel, Sampling, Shape},
    evaluate::Question,
    index::ItemId,
};
use serde::Serialize;
use support::{BoxError, asked, categories::Categories, create_dir, figures, table, write_file};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the variety of sampled recommendations.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    source: asked::Source,
    /// Directory for the pictures and `report.json`.
    #[arg(long)]
    out: PathBuf,
    /// Users that are asked, evenly spaced.
    #[arg(long, default_value_t = 2_000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    users: usize,
    /// Temperatures, of all levels alike and of each alone.
    #[arg(long, value_delimiter = ',', default_value = "0.5,1,1.5,2,3")]
    temperatures: Vec<f32>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Cut-offs of the paper's table.
const DEPTHS: [usize; 3] = [10, 20, 50];

#[derive(Debug, Serialize)]
struct Row {
    /// Temperature of each level, and of the suffix where there is one; `None` of a beam search.
    temperature: Option<Vec<f32>>,
    /// In bits, at each of the depths.
    entropy: [f64; 3],
    recall_at_10: f64,
    ndcg_at_10: f64,
    /// Share of each category among the ten first items of all users.
    categories: Vec<f64>,
    /// Share of the commonest category of a user's ten first items, of the second, and so on: the mean over users.
    by_rank: Vec<f64>,
}

/// The temperatures of the rows: all levels alike, then one level at a time with 1 at the others.
fn sweep(temperatures: &[f32], levels: usize) -> Vec<Vec<f32>> {
    let alike = temperatures.iter().map(|&temperature| vec![temperature; levels]);
    let alone = (0..levels).flat_map(|level| {
        temperatures
            .iter()
            .filter(|&&temperature| (temperature - 1.0).abs() > f32::EPSILON)
            .map(move |&temperature| (0..levels).map(|other| if other == level { temperature } else { 1.0 }).collect())
    });
    alike.chain(alone).collect()
}

fn config(base: &DecodeConfig, temperature: Option<&Vec<f32>>, seed: u64) -> DecodeConfig {
    let config = asked::beam_search(base, DEPTHS[2]);
    let Some(temperature) = temperature else { return config };
    let mut shape = Shape::default();
    shape.temperature = PerLevel::Each(temperature.clone());
    config.with_search(AnySearch::Sampling(Sampling::new(DEPTHS[2], seed).with_shape(shape)))
}

fn measure(
    answers: &asked::Answers,
    questions: &[Question<'_>],
    categories: &Categories,
    temperature: Option<Vec<f32>>,
) -> Result<Row, BoxError> {
    let labels = categories.labels();
    let of = |item: &ItemId| labels.get(item.index()).copied().flatten();
    let mut entropy = [0.0; 3];
    for (value, depth) in entropy.iter_mut().zip(DEPTHS) {
        *value = categories.entropy(answers.items(depth), depth)?;
    }
    let lists: Vec<Vec<u32>> = answers.items(DEPTHS[0]).map(|items| items.iter().filter_map(of).collect()).collect();
    let mut by_rank = vec![0.0; categories.names().len().min(DEPTHS[0])];
    for list in &lists {
        let mut shares = shares(list.iter().copied(), categories);
        shares.sort_by(|a, b| b.total_cmp(a));
        by_rank.iter_mut().zip(shares).for_each(|(sum, share)| *sum += share / lists.len() as f64);
    }
    let metrics = answers.metrics(questions);
    let metric = |name: &str| metrics.get(name).copied().unwrap_or(0.0);
    Ok(Row {
        temperature,
        entropy,
        recall_at_10: metric("recall@10"),
        ndcg_at_10: metric("ndcg@10"),
        categories: shares(lists.into_iter().flatten(), categories),
        by_rank,
    })
}

/// Share of every category.
fn shares(found: impl Iterator<Item = u32>, categories: &Categories) -> Vec<f64> {
    let mut counts = vec![0_usize; categories.names().len()];
    found.for_each(|category| counts[category as usize] += 1);
    let total = counts.iter().sum::<usize>().max(1) as f64;
    counts.into_iter().map(|count| count as f64 / total).collect()
}

fn name(temperature: Option<&[f32]>) -> String {
    match temperature {
        None => "beam search".to_owned(),
        Some([first, rest @ ..]) if rest.iter().all(|other| other == first) => format!("T = {first}"),
        Some(each) => format!("T = {}", each.iter().map(f32::to_string).collect::<Vec<_>>().join(", ")),
    }
}

fn run(args: &Args) -> Result<(), BoxError> {
    create_dir(&args.out)?;
    let (dataset, recommender) = args.source.open()?;
    let questions = asked::test_questions(&dataset, Some(args.users))?;
    let categories = Categories::of(recommender.catalogue());
    let levels = recommender.index().layout().positions();
    let sweep = sweep(&args.temperatures, levels).into_iter().map(Some);
    let temperatures: Vec<Option<Vec<f32>>> = std::iter::once(None).chain(sweep).collect();
    let (mut rows, all) = (Vec::new(), temperatures.len());
    for (number, temperature) in (1..).zip(temperatures) {
        let config = config(recommender.config(), temperature.as_ref(), args.seed);
        let name = format!("{number} of {all}, {}", name(temperature.as_deref()));
        let answers = asked::ask(&recommender, &config, &questions, DEPTHS[2], &name)?;
        rows.push(measure(&answers, &questions, &categories, temperature)?);
        write_file(&args.out.join("report.json"), &serde_json::to_vec_pretty(&rows)?)?;
    }
    let head = ["temperature of each level and suffix", "Entropy@10", "@20", "@50", "Recall@10", "NDCG@10"];
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let mut cells = vec![name(row.temperature.as_deref())];
            cells.extend(row.entropy.map(|bits| format!("{bits:.2}")));
            cells.extend([row.recall_at_10, row.ndcg_at_10].map(|value| format!("{value:.4}")));
            cells
        })
        .collect();
    println!("{} test users of {}; entropy in bits\n{}", questions.len(), dataset.name, table(&head, &cells));
    let targets = questions.iter().filter_map(|question| categories.by_item().get(question.target.index()).copied());
    let mut bars = vec![
        ("catalogue".to_owned(), shares(categories.by_item().iter().copied(), &categories)),
        ("what users took".to_owned(), shares(targets, &categories)),
    ];
    let (mut ranks, mut by_rank) = (Vec::new(), Vec::new());
    for row in rows {
        ranks = (1..=row.by_rank.len()).map(|rank| format!("category {rank} of a list")).collect();
        let name = name(row.temperature.as_deref());
        bars.push((name.clone(), row.categories));
        by_rank.push((name, row.by_rank));
    }
    let (all, each) = (args.out.join("categories.svg"), args.out.join("variety.svg"));
    figures::shares(&all, "categories of the ten first items of all users", categories.names(), &bars)?;
    figures::shares(&each, "a user's ten first items: commonest category, second, ...", &ranks, &by_rank)?;
    println!("The pictures {} and {} are beside report.json", each.display(), all.display());
    Ok(())
}

fn main() {
    support::start();
    support::exit_on_error(run(&Args::parse()));
}
