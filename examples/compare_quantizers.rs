//! Every quantiser of the family on the same embeddings, side by side.
//!
//! ```sh
//! cargo run --release --example compare_quantizers -- --data DIR --embedder bert:MODEL_DIR --out OUT
//! ```
//!
//! `OUT/report.json` is written after each method, and methods that it holds with the same settings are not run again.
//! `OUT/METHOD/` gets `codes.npy` and figures of their use and of the items' categories; `OUT/comparison.svg` has all
//! methods.

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use std::path::{Path, PathBuf};

use candle_core::Device;
use clap::Parser;
use genrec::{
    data::Catalogue,
    pipeline::EmbeddingSource,
    quantize::{ArrayRows, QuantizerConfig},
};
use ndarray::Array2;
use support::{
    BoxError, DeviceArg, behaviour,
    categories::Categories,
    create_dir, embed, figures, fit,
    measure::{Known, measure},
    methods::{self, Changes, METHODS, Method, Mode},
    report::{self, Comparison, MethodReport, Subject},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Fits all quantisers to the same embeddings and compares their codes.
#[derive(Debug, Parser)]
struct Args {
    /// Directory with `items.jsonl` and `sequences.txt`.
    #[arg(long)]
    data: PathBuf,
    /// Content embeddings of the items: `tfidf`, `bert:DIR`, `sentence-t5:DIR`, `llm:DIR`, or `npy:FILE`.
    #[arg(long, default_value = "tfidf")]
    embedder: String,
    /// Directory that the results are written to; an interrupted comparison goes on in it.
    #[arg(long)]
    out: PathBuf,
    /// A few passes each: whether it runs, and roughly what it gives.
    #[arg(long)]
    quick: bool,
    /// Only these, separated by commas; a wrong name lists them.
    #[arg(long, value_delimiter = ',')]
    methods: Option<Vec<String>>,
    /// Codes in each level's codebook, such as 16,16,16, of methods that have codebooks; 256,256,256 otherwise. Give few where
    /// there are few items.
    #[arg(long, value_delimiter = ',')]
    codebooks: Option<Vec<u32>>,
    /// Every random choice derives from it.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Where tensors live.
    #[arg(long, value_enum, default_value_t = DeviceArg::Cpu)]
    device: DeviceArg,
}

/// What all methods share.
struct Bench<'a> {
    embeddings: Array2<f32>,
    data: &'a Path,
    catalogue: Catalogue,
    categories: Categories,
    steps: Vec<[usize; 2]>,
    device: Device,
    out: &'a Path,
}

impl Bench<'_> {
    /// Fits one method, unless its row is there already, and draws its figures; `name` stands beside the progress.
    fn run(
        &self,
        name: &str,
        method: &Method,
        config: &QuantizerConfig,
        comparison: &mut Comparison,
    ) -> Result<(), BoxError> {
        let dir = self.out.join(method.name);
        let path = dir.join("codes.npy");
        let codes = if comparison.find(method.name, config).is_some() && path.exists() {
            fit::read_codes(&path)?
        } else {
            let mut rows = ArrayRows::from(self.embeddings.view());
            let behaviour = behaviour::for_quantizer(config, self.data, &self.catalogue)?;
            let behaviour = behaviour.as_ref().map(|rows| rows.view());
            let fitted = fit::fit(name, config, &mut rows, behaviour, &self.device)?;
            let known = Known { categories: Some(&self.categories), steps: &self.steps };
            let measures = measure(&fitted.quantizer, &mut rows, fitted.codes.view(), known)?;
            create_dir(&dir)?;
            fit::write_codes(&path, fitted.codes.view())?;
            let row = MethodReport::new(method.name, config, self.embeddings.dim(), measures, fitted.effort)?;
            comparison.put(row, &self.out.join("report.json"))?;
            fitted.codes
        };
        let row = comparison.find(method.name, config);
        let sizes = row.map_or(&[][..], |row| &row.measures.codebook_sizes);
        let title = |what: &str| format!("{}, {}: {what}", method.name, method.what);
        figures::usage(&dir.join("usage.svg"), &title("use of codes"), codes.view(), sizes)?;
        figures::mosaic(&dir.join("mosaic.svg"), &title("categories of codes"), codes.view(), &self.categories)
    }
}

fn chosen(names: Option<&[String]>) -> Result<Vec<&'static Method>, BoxError> {
    match names {
        Some(names) => names.iter().map(|name| methods::find(name.trim())).collect(),
        None => Ok(METHODS.iter().collect()),
    }
}

fn run(args: &Args) -> Result<(), BoxError> {
    let device = args.device.open()?;
    let mode = if args.quick { Mode::Quick } else { Mode::Full };
    let changes = Changes { seed: Some(args.seed), ..Changes::default() };
    // Settings that do not suit a method are that method's failure alone.
    let methods: Vec<(&Method, Result<QuantizerConfig, BoxError>)> = chosen(args.methods.as_deref())?
        .into_iter()
        .map(|method| {
            let sizes = args.codebooks.as_deref().filter(|_| methods::has_codebooks(method));
            (method, methods::configure(Some(method), mode, &Changes { codebooks: sizes, ..changes.clone() }))
        })
        .collect();
    let source: EmbeddingSource = support::parse_embedder(&args.embedder)?;

    create_dir(&args.out)?;
    let catalogue = embed::catalogue(&args.data)?;
    let embeddings = embed::embed(&catalogue, &source, &device, &args.out.join("embeddings"))?;
    let subject = Subject {
        dataset: args.data.file_name().unwrap_or(args.data.as_os_str()).to_string_lossy().into_owned(),
        embedder: args.embedder.clone(),
        embeddings: report::checksum(embeddings.view()),
        mode,
        seed: args.seed,
    };
    let title = format!("{}: {} items, {}", subject.dataset, catalogue.len(), source_name(&source));
    let mut comparison = Comparison::open(&args.out.join("report.json"), subject)?;
    let categories = Categories::of(&catalogue);
    let steps = behaviour::read_last_steps(&args.data, &catalogue)?;
    let bench = Bench { embeddings, data: &args.data, catalogue, categories, steps, device, out: &args.out };
    let mut failures = Vec::new();
    let all = methods.len();
    for (number, (method, config)) in (1..).zip(methods) {
        let name = format!("{number} of {all}, {}", method.name);
        if let Err(error) = config.and_then(|config| bench.run(&name, method, &config, &mut comparison)) {
            failures.push(format!("{}: {error}", method.name));
        }
        figures::comparison(&args.out.join("comparison.svg"), &title, &comparison.methods)?;
    }
    println!("{title}\n{}", report::methods_table(&comparison.methods));
    println!("Codes, figures and report.json are in {}", args.out.display());
    if failures.is_empty() { Ok(()) } else { Err(format!("not all methods ran:\n{}", failures.join("\n")).into()) }
}

/// The kind of embedder, without its place.
fn source_name(source: &EmbeddingSource) -> String {
    let value = serde_json::to_value(source).unwrap_or_default();
    let kind = value["embedder"]["type"].as_str().or(value["type"].as_str());
    kind.unwrap_or("embeddings").to_owned()
}

fn main() {
    support::start();
    support::exit_on_error(run(&Args::parse()));
}
