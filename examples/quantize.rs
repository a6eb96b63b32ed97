//! Semantic IDs alone: embeddings to codes by any quantiser of the family.
//!
//! ```sh
//! cargo run --release --example quantize -- --method rq_vae --data DIR --embedder bert:MODEL_DIR --out OUT
//! cargo run --release --example quantize -- --method residual_k_means --npy ROWS.npy --out OUT
//! ```
//!
//! `OUT` gets `quantizer/` (to be loaded again), `codes.npy` (the quantiser's codes, of shape `(items, levels)`, in the order of
//! the items), `index/` (Semantic IDs, with a suffix and after `--reassign`), with `--data` the same in `sids.jsonl`, one item
//! with its id a line, `report.json`, and figures. Rows of `--npy` are read in blocks: ten million of them need not fit in memory.

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use std::path::{Path, PathBuf};

use candle_core::Device;
use clap::{Parser, ValueEnum};
use genrec::{
    QuantizerCosts,
    data::Catalogue,
    index::{CollisionPolicy, ItemId, Reassign, ReassignMethod, SidIndex, SidLayout},
    pipeline::EmbeddingSource,
    quantize::{ArrayRows, FileRows, Quantizer, QuantizerConfig, RowSource},
};
use ndarray::Array2;
use support::{
    BoxError, DeviceArg, behaviour,
    categories::Categories,
    create_dir, embed, figures,
    fit::{self, Fitted},
    measure::{Known, measure},
    methods::{self, Changes, Mode},
    report::{self, MethodReport},
    write_file,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The least suffix values: items that may share all codes, as in TIGER.
const SUFFIX: u32 = 256;

/// Who keeps the codes that several items have, and where the others go.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ReassignArg {
    /// The nearest item keeps them, the others take the next best free ones.
    Greedy,
    /// All contend, at the least total distance.
    Sinkhorn,
    /// The first item keeps them.
    FirstFit,
}

impl From<ReassignArg> for Reassign {
    fn from(arg: ReassignArg) -> Self {
        Self::default().with_method(match arg {
            ReassignArg::Greedy => ReassignMethod::Greedy,
            ReassignArg::Sinkhorn => ReassignMethod::sinkhorn(),
            ReassignArg::FirstFit => ReassignMethod::FirstFit,
        })
    }
}

/// Fits a quantiser and gives every item its Semantic ID.
#[derive(Debug, Parser)]
struct Args {
    /// The quantiser by name; a wrong one lists them.
    #[arg(long)]
    method: Option<String>,
    /// Settings as JSON: what the file leaves out is the method's. Without --method, a whole configuration with its "type".
    #[arg(long)]
    config: Option<PathBuf>,
    /// Directory with `items.jsonl`, and `sequences.txt` for settings that align codes with behaviour.
    #[arg(long, required_unless_present = "npy", conflicts_with = "npy")]
    data: Option<PathBuf>,
    /// Content embeddings of the items: `tfidf`, `bert:DIR`, `sentence-t5:DIR`, `llm:DIR`, or `npy:FILE`.
    #[arg(long, value_parser = support::parse_embedder, default_value = "tfidf", conflicts_with = "npy")]
    embedder: EmbeddingSource,
    /// Embeddings of shape (items, features), `f32` or `f64` in C order, read in blocks.
    #[arg(long)]
    npy: Option<PathBuf>,
    /// Directory that the results are written to.
    #[arg(long)]
    out: PathBuf,
    /// Codes in each level's codebook, such as 256,256,256; the method's own otherwise.
    #[arg(long, value_delimiter = ',')]
    codebooks: Option<Vec<u32>>,
    /// Gives items whose codes collide other codes in the index, as far as there are any left; `codes.npy` and the figures keep
    /// those before.
    #[arg(long, value_enum)]
    reassign: Option<ReassignArg>,
    /// Every random choice derives from it; that of the settings otherwise.
    #[arg(long)]
    seed: Option<u64>,
    /// Where tensors live.
    #[arg(long, value_enum, default_value_t = DeviceArg::Cpu)]
    device: DeviceArg,
}

/// What is to be quantised, and what is known of it.
struct Input {
    rows: Box<dyn RowSource>,
    /// The items, where the rows are not all there is.
    catalogue: Option<Catalogue>,
    categories: Option<Categories>,
    steps: Vec<[usize; 2]>,
    behaviour: Option<Array2<f32>>,
}

fn open(args: &Args, config: &QuantizerConfig, device: &Device) -> Result<Input, BoxError> {
    if let Some(path) = &args.npy {
        let rows = FileRows::open_npy(path)?;
        if rows.is_empty() {
            return Err(format!("`{}` holds no row: give one an item", path.display()).into());
        }
        if matches!(config, QuantizerConfig::RqVae(config) if config.alignment.is_some()) {
            return Err(
                "alignment needs what users do: give --data with sequences.txt instead of --npy, or a --config \
                        with \"alignment\": null"
                    .into(),
            );
        }
        return Ok(Input {
            rows: Box::new(rows),
            catalogue: None,
            categories: None,
            steps: Vec::new(),
            behaviour: None,
        });
    }
    let dir = args.data.as_deref().ok_or("give --data or --npy")?;
    let catalogue = embed::catalogue(dir)?;
    let rows = embed::embed(&catalogue, &args.embedder, device, &args.out.join("embeddings"))?;
    let behaviour = behaviour::for_quantizer(config, dir, &catalogue)?;
    let steps = behaviour::read_last_steps(dir, &catalogue)?;
    let categories = Some(Categories::of(&catalogue));
    Ok(Input { rows: Box::new(ArrayRows::from(rows)), catalogue: Some(catalogue), categories, steps, behaviour })
}

/// The index over codes, with as many suffix values as the largest group needs.
fn index(
    out: &Path,
    fitted: &Fitted,
    largest_group: usize,
    reassign: Option<ReassignArg>,
    rows: &mut dyn RowSource,
) -> Result<SidIndex, BoxError> {
    let suffix = u32::try_from(largest_group.next_power_of_two())?.max(SUFFIX);
    let layout = SidLayout::new(fitted.quantizer.codebook_sizes().to_vec())?.with_suffix(suffix);
    let index = match reassign.map(Reassign::from) {
        None => SidIndex::from_codes(layout, fitted.codes.view(), CollisionPolicy::Suffix)?,
        Some(reassign) => {
            let mut costs = QuantizerCosts::new(&fitted.quantizer, rows);
            let repaired = reassign.repair(&layout, fitted.codes.view(), &mut costs)?;
            let moved: usize = repaired.report.moved.iter().sum();
            println!("{moved} items were given other codes, {} still share theirs", repaired.report.left);
            if repaired.report.left > 0 {
                let tuples: f64 = fitted.quantizer.codebook_sizes().iter().map(|&size| f64::from(size)).product();
                println!(
                    "{tuples} tuples of codes for {} items: more levels or codes leave more room",
                    fitted.codes.nrows()
                );
            }
            SidIndex::from_codes(layout, repaired.codes.view(), CollisionPolicy::Suffix)?
        }
    };
    index.save(&out.join("index"))?;
    Ok(index)
}

/// Writes each item's Semantic ID beside the id by which the outside world knows it.
fn write_sids(path: &Path, catalogue: &Catalogue, index: &SidIndex) -> Result<(), BoxError> {
    let mut lines = String::new();
    for (item, sid) in catalogue.items().iter().zip((0..).filter_map(|row| index.sid(ItemId(row)))) {
        lines.push_str(&format!("{}\n", serde_json::json!({"item": item.id, "sid": sid.codes()})));
    }
    write_file(path, lines.as_bytes())
}

fn draw(out: &Path, name: &str, fitted: &Fitted, categories: Option<&Categories>) -> Result<(), BoxError> {
    let codes = fitted.codes.view();
    figures::usage(&out.join("usage.svg"), &format!("{name}: use of codes"), codes, fitted.quantizer.codebook_sizes())?;
    let mosaic = out.join("mosaic.svg");
    let Some(categories) = categories else {
        // One of other items is no longer true.
        return if mosaic.exists() { Ok(std::fs::remove_file(mosaic)?) } else { Ok(()) };
    };
    figures::mosaic(&mosaic, &format!("{name}: categories of codes"), codes, categories)
}

fn run(args: &Args) -> Result<(), BoxError> {
    let device = args.device.open()?;
    let method = args.method.as_deref().map(methods::find).transpose()?;
    let changes = Changes { file: args.config.as_deref(), codebooks: args.codebooks.as_deref(), seed: args.seed };
    let config: QuantizerConfig = methods::configure(method, Mode::Full, &changes)?;
    let name = method.map_or_else(|| methods::type_of(&config), |method| method.name.to_owned());
    let Input { mut rows, catalogue, categories, steps, behaviour } = open(args, &config, &device)?;
    create_dir(&args.out)?;

    let fitted = fit::fit(&name, &config, rows.as_mut(), behaviour.as_ref().map(|rows| rows.view()), &device)?;
    fitted.quantizer.save(args.out.join("quantizer"))?;
    fit::write_codes(&args.out.join("codes.npy"), fitted.codes.view())?;
    let known = Known { categories: categories.as_ref(), steps: &steps };
    let measures = measure(&fitted.quantizer, rows.as_mut(), fitted.codes.view(), known)?;
    let index = index(&args.out, &fitted, measures.largest_group, args.reassign, rows.as_mut())?;
    if let Some(catalogue) = &catalogue {
        write_sids(&args.out.join("sids.jsonl"), catalogue, &index)?;
    }
    let report = MethodReport::new(&name, &config, (rows.len(), rows.dim()), measures, fitted.effort)?;
    report::write_json(&args.out.join("report.json"), &report)?;
    draw(&args.out, &name, &fitted, categories.as_ref())?;

    println!("{}", report::methods_table(std::slice::from_ref(&report)));
    let sizes: Vec<String> = index.layout().sizes().iter().map(u32::to_string).collect();
    println!("{} Semantic IDs of {} codes are in {}", index.len(), sizes.join(" x "), args.out.display());
    Ok(())
}

fn main() {
    support::start();
    support::exit_on_error(run(&Args::parse()));
}
