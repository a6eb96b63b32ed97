//! The tables and figures of TIGER (arXiv 2305.05065), made anew by one command each.
//!
//! ```sh
//! cargo run --release --example reproduce -- table2 --data DIR --embedder bert:MODEL_DIR --budget 30
//! ```
//!
//! `DIR` holds the sets: `beauty`, `sports`, `toys`. Each row of a table is a file under `--results`, with its manifest: rows that
//! are there are not run again, so a table grows over many sittings, and what was interrupted goes on where it stopped.

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

mod bench;
mod document;
mod figures;
mod plan;
mod published;
mod ranks;
mod row;
mod table;
#[cfg(test)]
mod tests;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser;
use genrec::pipeline::{EmbeddingSource, Precision};
use support::{BoxError, DeviceArg};

use crate::{
    bench::{Bench, Settings},
    plan::{Experiment, Preset, Set},
    table::Rows,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Makes a table or figure of the paper anew, and prints the published figures beside ours.
#[derive(Debug, Parser)]
struct Args {
    /// Which tables, in this order.
    #[arg(required = true, value_enum)]
    experiments: Vec<Experiment>,
    /// Directory of the sets `beauty`, `sports` and `toys`, each with `sequences.txt` and `items.jsonl`.
    #[arg(long)]
    data: PathBuf,
    /// The sets; those of the paper's table otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    sets: Vec<Set>,
    /// Content embeddings: `tfidf`, `bert:DIR`, `sentence-t5:DIR`, `llm:DIR`. All rows of a table are to have the same.
    #[arg(long, value_parser = support::parse_embedder, default_value = "tfidf")]
    embedder: EmbeddingSource,
    /// What TIGER is, but for what a row changes.
    #[arg(long, value_enum, default_value_t = Preset::Cpu)]
    preset: Preset,
    /// Multiplies in `bf16`; needs a GPU.
    #[arg(long)]
    bf16: bool,
    /// Minutes of training a row.
    #[arg(long, value_parser = support::parse_minutes, allow_negative_numbers = true, default_value = "30")]
    budget: Duration,
    /// Validations without progress (NDCG@10 up by 0.001) after which a TIGER row cools down and ends before its time. They come every
    /// two epochs.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    patience: Option<u32>,
    /// Seeds a row, from 1 on; the table's own number otherwise.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Only rows of this seed are made, so that several programs can share a table.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "finished")]
    seed: Option<u64>,
    /// Only these rows, by the names of their files; of the others those that are there.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Where tensors live.
    #[arg(long, value_enum, default_value_t = DeviceArg::Cpu)]
    device: DeviceArg,
    /// Directory of the runs: embeddings, checkpoints, models. What lies there is taken up. `runs/reproduce` otherwise, of the preset
    /// `paper` `runs/reproduce-paper`.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Directory of the finished rows. `docs/results` otherwise, of the preset `paper` `docs/results/paper`.
    #[arg(long)]
    results: Option<PathBuf>,
    /// A Markdown file whose sections are replaced by the tables.
    #[arg(long)]
    document: Option<PathBuf>,
    /// Runs nothing: tables of the rows that are there.
    #[arg(long)]
    finished: bool,
}

/// What was typed, without the places of this machine.
fn command(args: &Args) -> String {
    let names: Vec<String> = args.experiments.iter().map(|experiment| experiment.name()).collect();
    let embedder = match &args.embedder {
        EmbeddingSource::Text { embedder } => serde_json::to_value(embedder).ok(),
        _ => None,
    };
    let kind = embedder.as_ref().and_then(|value| value.get("type")?.as_str()).unwrap_or("npy").to_owned();
    let place = if kind == "tfidf" { "" } else { ":MODEL_DIR" };
    let mut text = format!(
        "reproduce {} --data $GENREC_DATA --embedder {kind}{place} --budget {}",
        names.join(" "),
        args.budget.as_secs_f64() / 60.0
    );
    for (name, values) in
        [("sets", args.sets.iter().map(|set| set.name()).collect::<Vec<_>>()), ("rows", rows_named(args))]
    {
        if !values.is_empty() {
            text.push_str(&format!(" --{name} {}", values.join(",")));
        }
    }
    for (name, value) in [("patience", args.patience.map(u64::from)), ("seeds", args.seeds), ("seed", args.seed)] {
        if let Some(value) = value {
            text.push_str(&format!(" --{name} {value}"));
        }
    }
    if let Some(results) = &args.results {
        let place = if results.is_relative() { Some(results.as_os_str()) } else { results.file_name() };
        text.push_str(&format!(" --results {}", place.unwrap_or_default().display()));
    }
    if args.preset != Preset::Cpu {
        text.push_str(&format!(" --preset {:?}", args.preset).to_lowercase());
    }
    if args.bf16 {
        text.push_str(" --bf16");
    }
    if args.device != DeviceArg::Cpu {
        text.push_str(&format!(" --device {:?}", args.device).to_lowercase());
    }
    text
}

fn rows_named(args: &Args) -> Vec<&str> {
    args.rows.iter().map(String::as_str).collect()
}

/// The rows of an experiment on a set, made where they are not there yet.
fn rows(experiment: Experiment, bench: &Bench<'_>, set: Set, args: &Args) -> Result<Vec<Rows>, BoxError> {
    let mut lines = Vec::new();
    for line in experiment.lines().into_iter().filter(|line| args.preset.has(line)) {
        let seeds = 1..=args.seeds.unwrap_or(experiment.seeds()).max(args.seed.unwrap_or(1));
        let mut rows = Vec::new();
        for seed in seeds {
            let wanted = (args.rows.is_empty() || args.rows.iter().any(|name| name == line.name))
                && args.seed.is_none_or(|only| only == seed);
            if args.finished || !wanted {
                rows.extend(bench.finished(&line, seed)?);
            } else {
                println!("{}, {}, seed {seed}", set.title(), line.label);
                rows.push(bench.row(&line, seed)?);
            }
        }
        if !rows.is_empty() {
            let against = line.against.or(Some(experiment.reference())).filter(|other| *other != line.name);
            lines.push(Rows { name: line.name, against, label: line.label.clone(), rows, paper: (line.paper)(set) });
        }
    }
    Ok(lines)
}

fn section(experiment: Experiment, settings: &Settings, args: &Args) -> Result<String, BoxError> {
    let sets = if args.sets.is_empty() { experiment.sets() } else { &args.sets };
    let mut text = format!("### {}{}\n", experiment.title(), args.preset.remark());
    let mut statistics = Vec::new();
    for &set in sets {
        let bench = Bench::open(settings, set)?;
        if experiment == Experiment::Table6 {
            statistics.push((set, bench.dataset().statistics()));
            continue;
        }
        let lines = rows(experiment, &bench, set, args)?;
        if lines.is_empty() {
            continue;
        }
        write!(text, "\n**{}**\n\n", set.title())?;
        match experiment {
            Experiment::Table3 | Experiment::Table4 => text.push_str(&table::entropy(&lines)?),
            Experiment::Figure4 => text.push_str(&table::purity(&lines)?),
            Experiment::Figure5 => text.push_str(&table::cold_start(&lines)?),
            Experiment::Figure6 => text.push_str(&table::invalid(&lines)?),
            _ => text.push_str(&table::recall_and_ndcg(&lines)?),
        }
        let differences = table::differences(&lines)?;
        if !differences.is_empty() {
            write!(text, "\n{differences}")?;
        }
        if experiment == Experiment::Blocks {
            write!(text, "\n{}", table::invalid(&lines)?)?;
        }
        if experiment.shows_codes() {
            write!(text, "\n{}", table::codes(&lines)?)?;
        }
        if let Some(figure) = figures::draw(experiment, set, &lines, &settings.results)? {
            write!(text, "\n{}", picture(experiment, set, &figure, args.document.as_deref()))?;
        }
    }
    if !statistics.is_empty() {
        write!(text, "\n{}", table::statistics(&statistics)?)?;
    }
    Ok(text)
}

/// A figure in a document: by its place seen from there.
fn picture(experiment: Experiment, set: Set, figure: &Path, document: Option<&Path>) -> String {
    let from = document.and_then(Path::parent);
    let place = from.and_then(|from| figure.strip_prefix(from).ok()).unwrap_or(figure);
    let (svg, png) = (place.display().to_string(), place.with_extension("png").display().to_string());
    format!("![{}, {}]({svg})\n\nThe same as [PNG]({png}).\n", experiment.title(), set.title())
}

/// Names that are no row's are mistyped, and some tables are of one preset.
fn check_asked(args: &Args) -> Result<(), BoxError> {
    if let Some(other) = args.experiments.iter().find(|&&one| !args.preset.makes(one)) {
        return Err(format!("`{}` is about the preset `cpu`: leave `--preset paper` out", other.name()).into());
    }
    let lines = args.experiments.iter().flat_map(|experiment| experiment.lines());
    let lines: Vec<plan::Line> = lines.filter(|line| args.preset.has(line)).collect();
    match args.rows.iter().find(|name| lines.iter().all(|line| line.name != **name)) {
        None => Ok(()),
        Some(name) => {
            let names: Vec<&str> = lines.iter().map(|line| line.name).collect();
            Err(format!("`{name}` is no row of these tables with this preset; they have {}", names.join(", ")).into())
        }
    }
}

fn run(args: &Args) -> Result<(), BoxError> {
    check_asked(args)?;
    if args.document.is_some() && !args.sets.is_empty() {
        return Err(
            "a section of a document has all sets of its table: leave `--sets` out, with `--finished` if need be"
                .into(),
        );
    }
    let settings = Settings {
        command: command(args),
        commit: bench::commit(),
        data: args.data.clone(),
        out: args.out.clone().unwrap_or_else(|| format!("runs/reproduce{}", args.preset.suffix()).into()),
        results: args.results.clone().unwrap_or_else(|| args.preset.results().into()),
        embedder: args.embedder.clone(),
        preset: args.preset,
        precision: if args.bf16 { Precision::Bf16 } else { Precision::F32 },
        budget: args.budget,
        patience: args.patience,
        device: args.device,
    };
    for &experiment in &args.experiments {
        let text = section(experiment, &settings, args)?;
        println!("\n{text}");
        if let Some(document) = &args.document {
            let name = format!("{}{}", experiment.name(), args.preset.suffix());
            document::write_section(document, &name, &text)?;
        }
    }
    Ok(())
}

fn main() {
    support::start();
    support::exit_on_error(run(&Args::parse()));
}
