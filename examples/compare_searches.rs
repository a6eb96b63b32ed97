//! Every way to search a finished run, on the same test users: what it finds, how fast, how often it writes what is no item.
//!
//! ```sh
//! cargo run --release --example compare_searches -- --run runs/beauty --data DIR --out runs/searches
//! ```
//!
//! The exact search is the ceiling: what any other misses of it is lost by pruning. `report.json` has all figures.

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use std::path::PathBuf;

use clap::Parser;
use genrec::{
    DecodeConfig, Ranked,
    decode::{AnySearch, DiverseBeamSearch, ExactSearch, Resolve, Sampling},
    eval::{InvalidRate, Metric as _},
    evaluate::Question,
    index::ItemId,
    pipeline::Metrics,
};
use serde::Serialize;
use support::{BoxError, asked, create_dir, table, write_file};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compares searches on the test items of a data set.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    source: asked::Source,
    /// Directory for `report.json`.
    #[arg(long)]
    out: PathBuf,
    /// Asks so many users, evenly spaced; all otherwise.
    #[arg(long, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    users: Option<usize>,
    /// Of the searches that draw.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Depths at which invalid sequences are counted: TIGER reports those at 10 and 20.
const DEPTHS: [usize; 5] = [1, 5, 10, 20, 50];

/// Lists that are compared have so many items.
const K: usize = 10;

#[derive(Debug, Serialize)]
struct Row {
    search: String,
    metrics: Metrics,
    users_per_second: f64,
    /// Share of the users whose list is that of the exact search.
    same_as_exact: f64,
    /// Share of invalid sequences among the first so many, of a free search.
    invalid: Vec<(usize, f64)>,
}

/// The searches by name, the exact one first.
fn searches(base: &DecodeConfig, seed: u64) -> Vec<(String, DecodeConfig)> {
    let config = |beams| asked::beam_search(base, beams);
    let exact = AnySearch::Exact(ExactSearch::new(K));
    let mut searches = vec![("exact".to_owned(), config(K).with_search(exact))];
    for beams in [10, 20, 50] {
        searches.push((format!("constraint, {beams} beams"), config(beams)));
    }
    for beams in [10, 20, 50] {
        searches.push((format!("free, filtered, {beams} beams"), config(beams).with_free(Resolve::Exact)));
    }
    searches.push((
        "free, filtered, 10 beams, widened to 80".to_owned(),
        config(10).with_free(Resolve::Exact).with_widen_to(80),
    ));
    for at_least in [1, 2] {
        let free = config(20).with_free(Resolve::LongestPrefix { at_least });
        searches.push((format!("free, prefix of {at_least}, 20 beams"), free));
    }
    let diverse = |strength| AnySearch::Diverse(DiverseBeamSearch::new(20, 4).with_strength(strength));
    searches.push(("diverse, 4 groups of 5".to_owned(), config(20).with_search(diverse(0.5))));
    let sampling = AnySearch::Sampling(Sampling::new(20, seed));
    searches.push(("sampling, 20 without replacement".to_owned(), config(20).with_search(sampling)));
    searches
}

fn invalid(ranked: &[Ranked], deepest: usize) -> Result<Vec<(usize, f64)>, BoxError> {
    let mut rates = Vec::new();
    for k in DEPTHS.into_iter().filter(|&k| k <= deepest) {
        let mut rate = InvalidRate::new(k)?;
        ranked.iter().for_each(|user| rate.update(&user.generated, &[]));
        rates.push((k, rate.value().unwrap_or(0.0)));
    }
    Ok(rates)
}

fn run(args: &Args) -> Result<(), BoxError> {
    create_dir(&args.out)?;
    let (dataset, recommender) = args.source.open()?;
    let questions: Vec<Question<'_>> = asked::test_questions(&dataset, args.users)?;
    let (mut rows, mut exact): (Vec<Row>, Vec<Vec<ItemId>>) = (Vec::new(), Vec::new());
    let searches = searches(recommender.config(), args.seed);
    let all = searches.len();
    for (number, (search, config)) in (1..).zip(searches) {
        let answers = asked::ask(&recommender, &config, &questions, K, &format!("{number} of {all}, {search}"))?;
        let items: Vec<Vec<ItemId>> = answers.items(K).collect();
        if rows.is_empty() {
            exact.clone_from(&items);
        }
        let same = items.iter().zip(&exact).filter(|(own, exact)| own == exact).count();
        let free = matches!(config.free, Some(Resolve::Exact)) && config.widen_to == 0;
        rows.push(Row {
            metrics: answers.metrics(&questions),
            users_per_second: questions.len() as f64 / answers.seconds,
            same_as_exact: same as f64 / questions.len() as f64,
            invalid: if free { invalid(&answers.ranked, config.beams)? } else { Vec::new() },
            search,
        });
        write_file(&args.out.join("report.json"), &serde_json::to_vec_pretty(&rows)?)?;
    }
    println!("{} test users of {}", questions.len(), dataset.name);
    println!("{}", searches_table(&rows));
    let head = ["sequences a user", "invalid@1", "@5", "@10", "@20", "@50"];
    let free = rows.iter().filter(|row| !row.invalid.is_empty()).map(|row| {
        let rates = DEPTHS.map(|k| row.invalid.iter().find(|rate| rate.0 == k).map(|rate| rate.1));
        let cell = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.3} %", 100.0 * rate));
        std::iter::once(row.search.clone()).chain(rates.map(cell)).collect()
    });
    println!("{}", table(&head, &free.collect::<Vec<_>>()));
    println!("All figures are in {}", args.out.join("report.json").display());
    Ok(())
}

fn searches_table(rows: &[Row]) -> impl std::fmt::Display {
    let of = |row: &Row, name: &str| format!("{:.4}", row.metrics.get(name).copied().unwrap_or(0.0));
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let mut cells = vec![row.search.clone()];
            cells.extend(["recall@5", "ndcg@5", "recall@10", "ndcg@10"].map(|name| of(row, name)));
            cells.push(format!("{:.2} %", 100.0 * row.same_as_exact));
            cells.push(format!("{:.0}", row.users_per_second));
            cells
        })
        .collect();
    table(&["search", "Recall@5", "NDCG@5", "Recall@10", "NDCG@10", "list of the exact", "users/s"], &rows)
}

fn main() {
    support::start();
    support::exit_on_error(run(&Args::parse()));
}
