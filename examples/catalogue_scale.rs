//! Builds the index of a catalogue of any size and measures all that a service does with it.
//!
//! ```sh
//! cargo run --release --example catalogue_scale -- --items 10000000 --out runs/scale
//! ```
//!
//! Prints sizes and times and writes them to `report.json`; the index stays in `index/`. The model is a T5 of random
//! weights: how long decoding takes does not depend on what it has learnt.

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use std::{
    hint::black_box,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use candle_core::Device;
use clap::Parser;
use genrec::{
    data::distinct_codes,
    decode::{BeamSearch, Catalogue, Constraint, Decoder},
    index::{CollisionPolicy, ItemId, LiveIndex, Node, SidIndex, SidLayout, SidVocab},
    model::{
        RaggedBatch,
        t5::{T5, T5Config},
    },
};
use ndarray::ArrayView2;
use serde::Serialize;
use support::{BoxError, Progress};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures an index of synthetic Semantic IDs.
#[derive(Debug, Parser)]
struct Args {
    /// Number of items.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    items: usize,
    /// Codes of every level, the coarsest first.
    #[arg(long, value_delimiter = ',', default_value = "256,256,256,256")]
    sizes: Vec<u32>,
    /// Exponent of Zipf's law that the codes follow; 0 for all alike.
    #[arg(long, default_value_t = 0.0)]
    zipf: f64,
    /// The model: `paper`, 4 + 4 layers of 128, or the smaller `cpu`.
    #[arg(long, default_value = "paper", value_parser = ["paper", "cpu"])]
    model: String,
    /// Users decoded together.
    #[arg(long, default_value_t = 32, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    users: usize,
    /// Beams of each.
    #[arg(long, default_value_t = 50, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    beams: usize,
    /// Items of a history.
    #[arg(long, default_value_t = 20, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    history: usize,
    /// Items inserted and removed.
    #[arg(long, default_value_t = 1_000)]
    changes: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Directory for the index and the report.
    #[arg(long)]
    out: PathBuf,
}

/// `report.json`.
#[derive(Debug, Default, Serialize)]
struct Report {
    items: usize,
    sizes: Vec<u32>,
    zipf: f64,
    model: String,
    users: usize,
    beams: usize,
    history: usize,
    seed: u64,
    build_seconds: f64,
    bytes_per_item: f64,
    /// The trie alone.
    mask_bytes_per_item: f64,
    save_seconds: f64,
    open_milliseconds: f64,
    verify_seconds: f64,
    /// Of dependent random look-ups, as all below.
    plain_array_nanoseconds: f64,
    item_to_sid_nanoseconds: f64,
    sid_to_item_nanoseconds: f64,
    children_nanoseconds: f64,
    decode_seconds: f64,
    /// What the constraint took of it by a clock around each question, of all threads over their number; groups of tokens that
    /// it allows are looked at in that time too.
    constraint_seconds: f64,
    constraint_share: f64,
    insert_microseconds: f64,
    remove_microseconds: f64,
    swap_microseconds: f64,
    compact_seconds: f64,
}

/// What is done, in this order, and its share of the time at ten million items.
const PHASES: [(&str, f64); 7] = [
    ("drawing codes", 0.2),
    ("building", 0.17),
    ("saving", 0.05),
    ("verifying", 0.2),
    ("looking up", 0.12),
    ("decoding", 0.06),
    ("changing", 0.2),
];

/// Shows which phase begins, and how far all of it is.
fn begin(progress: &Progress, phase: &str) {
    let before = PHASES.iter().take_while(|(name, _)| *name != phase);
    progress.share(before.map(|(_, share)| share).sum());
    progress.message(phase);
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed().as_secs_f64())
}

/// Random numbers below a bound.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: usize) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((u128::from(self.0) * n as u128) >> 64) as u32
    }
}

/// Nanoseconds of a look-up whose place depends on the result of the one before.
fn look_up(queries: &[u32], mut look: impl FnMut(u32) -> u32) -> f64 {
    let (zero, mut last) = (black_box(0), 0);
    let ((), seconds) = timed(|| queries.iter().for_each(|&query| last = look(query ^ (last & zero))));
    black_box(last);
    seconds * 1e9 / queries.len().max(1) as f64
}

fn look_ups(index: &SidIndex, report: &mut Report, draws: &mut Draws) {
    let queries: Vec<u32> = (0..500_000).map(|_| draws.below(report.items)).collect();
    let plain: Vec<u32> = (0..report.items as u32).collect();
    report.plain_array_nanoseconds = look_up(&queries, |item| plain[item as usize]);
    drop(plain);
    report.item_to_sid_nanoseconds =
        look_up(&queries, |item| index.sid(ItemId(item)).map_or(0, |sid| sid.iter().fold(0, |a, code| a ^ code)));
    let sids: Vec<_> = queries.iter().filter_map(|&item| index.sid(ItemId(item))).collect();
    let numbers: Vec<u32> = (0..sids.len() as u32).collect();
    report.sid_to_item_nanoseconds = look_up(&numbers, |i| index.item(&sids[i as usize]).map_or(0, |item| item.0));
    let parents: Vec<Node> = sids.iter().filter_map(|sid| index.find(&sid[..sid.len() - 1])).collect();
    report.children_nanoseconds =
        look_up(&numbers, |i| index.children(parents[i as usize]).fold(0, |sum, (code, _)| sum ^ code));
}

/// Decodes once and measures how much of it the constraint takes.
fn decode(args: &Args, index: &SidIndex, report: &mut Report, draws: &mut Draws) -> Result<(), BoxError> {
    let vocab = SidVocab::new(index.layout(), 0)?;
    let config = if args.model == "cpu" { T5Config::cpu(vocab.size()) } else { T5Config::paper(vocab.size()) };
    let model = T5::new(config, args.seed, &Device::Cpu)?;
    let catalogue = Catalogue::new(index, &vocab)?;
    let mut batch = RaggedBatch::new();
    for _ in 0..args.users {
        let mut tokens = Vec::new();
        for _ in 0..args.history {
            if let Some(sid) = index.sid(ItemId(draws.below(args.items))) {
                vocab.encode_sid(&sid, &mut tokens)?;
            }
        }
        batch.push(&tokens, &[])?;
    }
    let search = BeamSearch::new(args.beams);
    search.decode(&model, &batch, &[&catalogue])?;
    let (found, seconds) = timed(|| search.decode(&model, &batch, &[&catalogue]));
    found?;
    report.decode_seconds = seconds;
    // Once more, with a look at the clock around every question, which takes a little itself.
    let watched = Watched { constraint: catalogue, nanoseconds: AtomicU64::new(0) };
    search.decode(&model, &batch, std::slice::from_ref(&watched))?;
    let threads = rayon::current_num_threads().min(args.users).max(1);
    report.constraint_seconds = watched.nanoseconds.into_inner() as f64 / 1e9 / threads as f64;
    report.constraint_share = report.constraint_seconds / report.decode_seconds;
    Ok(())
}

/// A constraint that adds up how long it is asked, over all threads.
struct Watched<C> {
    constraint: C,
    nanoseconds: AtomicU64,
}

impl<C> Watched<C> {
    fn timed<T>(&self, ask: impl FnOnce(&C) -> T) -> T {
        let start = Instant::now();
        let answer = ask(&self.constraint);
        self.nanoseconds.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        answer
    }
}

impl<C: Constraint> Constraint for Watched<C> {
    type State = C::State;

    fn start(&self) -> C::State {
        self.constraint.start()
    }

    fn accept(&self, state: &C::State, token: u32) -> Option<C::State> {
        self.timed(|constraint| constraint.accept(state, token))
    }

    fn for_each_allowed(&self, state: &C::State, f: &mut dyn FnMut(u32)) {
        self.timed(|constraint| constraint.for_each_allowed(state, f));
    }

    fn for_each_group(&self, state: &C::State, f: &mut dyn FnMut(u32, u64)) {
        self.timed(|constraint| constraint.for_each_group(state, f));
    }

    fn prepare(&self, state: &C::State) {
        self.timed(|constraint| constraint.prepare(state));
    }

    fn is_complete(&self, state: &C::State) -> bool {
        self.constraint.is_complete(state)
    }
}

fn change(args: &Args, index: SidIndex, report: &mut Report, draws: &mut Draws) -> Result<String, BoxError> {
    let live = LiveIndex::new(index);
    let per_change = |seconds: f64| seconds * 1e6 / args.changes.max(1) as f64;
    let mut new: Vec<Vec<u32>> = Vec::new();
    for _ in 0..args.changes {
        new.push(args.sizes.iter().map(|&size| draws.below(size as usize)).collect());
    }
    let (inserted, seconds) =
        timed(|| live.update(|index| new.iter().map(|codes| index.insert(codes)).collect::<Result<Vec<_>, _>>()));
    report.insert_microseconds = per_change(seconds);
    let gone: Vec<ItemId> = (0..args.changes).map(|_| ItemId(draws.below(args.items))).collect();
    let (removed, seconds) =
        timed(|| live.update(|index| Ok(gone.iter().filter_map(|&item| index.remove(item)).count())));
    report.remove_microseconds = per_change(seconds);
    let changed = format!("{} items inserted, {} removed", inserted?.len(), removed?);
    let copy = SidIndex::clone(&live.snapshot());
    let (old, seconds) = timed(|| live.replace(copy));
    report.swap_microseconds = seconds * 1e6;
    drop(old);
    let (compacted, seconds) = timed(|| live.update(SidIndex::compact));
    compacted?;
    report.compact_seconds = seconds;
    Ok(changed)
}

fn run(args: &Args) -> Result<(), BoxError> {
    let mut report = Report {
        items: args.items,
        sizes: args.sizes.clone(),
        zipf: args.zipf,
        model: args.model.clone(),
        users: args.users,
        beams: args.beams,
        history: args.history,
        seed: args.seed,
        ..Report::default()
    };
    let progress = Progress::new("scale");
    begin(&progress, "drawing codes");
    let codes = distinct_codes(args.items, &args.sizes, args.zipf, args.seed)?;
    let codes = ArrayView2::from_shape((args.items, args.sizes.len()), &codes)?;
    let layout = SidLayout::new(args.sizes.clone())?.without_suffix();
    begin(&progress, "building");
    let (index, seconds) = timed(|| SidIndex::from_codes(layout, codes, CollisionPolicy::Share));
    let index = index?;
    report.build_seconds = seconds;
    let per_item = |bytes: usize| bytes as f64 / args.items.max(1) as f64;
    (report.bytes_per_item, report.mask_bytes_per_item) =
        (per_item(index.bytes().total()), per_item(index.bytes().trie));

    begin(&progress, "saving");
    let dir = args.out.join("index");
    let (saved, seconds) = timed(|| index.save(&dir));
    saved?;
    report.save_seconds = seconds;
    drop(index);
    let (mapped, seconds) = timed(|| SidIndex::open_mapped(&dir));
    let index = mapped?;
    report.open_milliseconds = seconds * 1e3;
    begin(&progress, "verifying");
    let (verified, seconds) = timed(|| index.verify(&dir));
    verified?;
    report.verify_seconds = seconds;

    let mut draws = Draws(args.seed);
    begin(&progress, "looking up");
    look_ups(&index, &mut report, &mut draws);
    begin(&progress, "decoding");
    decode(args, &index, &mut report, &mut draws)?;
    begin(&progress, "changing");
    let changed = change(args, index, &mut report, &mut draws)?;
    drop(progress);
    println!("{changed}");
    write(&args.out, &report)
}

fn write(out: &Path, report: &Report) -> Result<(), BoxError> {
    let value = serde_json::to_value(report)?;
    let rows: Vec<Vec<String>> = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| {
            vec![
                name.replace('_', " "),
                if value.is_f64() { format!("{:.3}", value.as_f64().unwrap_or(f64::NAN)) } else { value.to_string() },
            ]
        })
        .collect();
    println!("{}", support::table(&["measure", "value"], &rows));
    let path = out.join("report.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&value)?)?;
    println!("The index and report.json are in {}", out.display());
    Ok(())
}

fn main() {
    support::start();
    support::exit_on_error(run(&Args::parse()));
}
