//! Shared by the example programs: devices, embeddings, progress bars, tables, and what compares quantisers.

#![allow(clippy::print_stdout, reason = "example programs talk to a person")]
#![allow(clippy::needless_pass_by_value, reason = "an array view is passed by value, as a slice would be")]

pub mod asked;
pub mod behaviour;
pub mod categories;
pub mod cold;
pub mod curves;
pub mod embed;
pub mod figures;
pub mod fit;
pub mod measure;
pub mod methods;
mod progress;
pub mod report;

use std::{collections::BTreeMap, path::Path, time::Duration};

use candle_core::Device;
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use genrec::pipeline::{Metrics, Report, TigerConfig};
use serde_json::Value;

pub use embed::parse_embedder;
pub use progress::{Progress, ProgressView, waiting};

/// Any error, for programs that only print it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where tensors live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeviceArg {
    /// The processor.
    Cpu,
    /// The first CUDA GPU; needs the feature `cuda`.
    Cuda,
    /// The Apple GPU; needs the feature `metal`.
    Metal,
}

impl DeviceArg {
    /// Opens the device.
    ///
    /// # Errors
    /// When the program was built without the feature, or there is no such device.
    pub fn open(self) -> candle_core::Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda => Device::new_cuda(0),
            Self::Metal => Device::new_metal(0),
        }
    }
}

/// The preset with what a JSON file says otherwise, if there is one. Of the `run.json` of a run the settings are that run's,
/// whatever the preset.
///
/// # Errors
/// When the file cannot be read or is not a configuration; the file is named.
pub fn config_or(file: Option<&Path>, preset: fn() -> TigerConfig) -> Result<TigerConfig, BoxError> {
    let Some(path) = file else { return Ok(preset()) };
    let given = read_json(path)?;
    let parse = || {
        if let Some(config) = given.get("config") {
            return serde_json::from_value(config.clone());
        }
        let mut settings = serde_json::to_value(preset())?;
        overlay(&mut settings, given);
        serde_json::from_value(settings)
    };
    parse().map_err(|error: serde_json::Error| format!("`{}` is no configuration: {error}", path.display()).into())
}

/// A time from a number of minutes on the command line.
///
/// # Errors
/// When it is no number above 0.
pub fn parse_minutes(text: &str) -> Result<Duration, String> {
    let minutes = text.parse::<f64>().ok().filter(|&minutes| minutes > 0.0);
    let time = minutes.and_then(|minutes| Duration::try_from_secs_f64(60.0 * minutes).ok());
    time.ok_or_else(|| "give a number of minutes above 0".to_owned())
}

/// Any JSON file.
///
/// # Errors
/// When the file cannot be read or is not JSON; the file is named.
pub fn read_json(path: &Path) -> Result<Value, BoxError> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("`{}` is not JSON: {error}", path.display()).into())
}

/// Writes beside the place and renames: whoever reads sees the old file or the new one.
///
/// # Errors
/// When the file cannot be written; it is named.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), BoxError> {
    write_files(&[(path, bytes)])
}

/// The same of several files that belong together, none of which is replaced unless there is room for all.
///
/// # Errors
/// When a file cannot be written; it is named.
pub fn write_files(files: &[(&Path, &[u8])]) -> Result<(), BoxError> {
    genrec_files::write_all(files).map_err(|(path, error)| {
        format!("cannot write `{}`: {error}{}", path.display(), genrec_files::remedy(&error)).into()
    })
}

/// Makes a directory with those above it.
///
/// # Errors
/// When it cannot be made; it is named.
pub fn create_dir(path: &Path) -> Result<(), BoxError> {
    genrec_files::create_dir_all(path).map_err(|error| format!("cannot make `{}`: {error}", path.display()).into())
}

/// Replaces the settings that `given` has, down to single fields; those of another `type` as a whole.
pub fn overlay(base: &mut Value, given: Value) {
    match (base, given) {
        (Value::Object(base), Value::Object(given))
            if given.get("type").is_none_or(|other| base.get("type") == Some(other))
                && !(base.len() == 1 && given.len() == 1 && base.keys().ne(given.keys())) =>
        {
            for (name, value) in given {
                overlay(base.entry(name).or_insert(Value::Null), value);
            }
        }
        (base, given) => *base = given,
    }
}

/// Starts a program: settles candle's threads, and logs to standard error what `RUST_LOG` asks for, warnings by default.
///
/// To be called first in `main`, before there is a second thread.
pub fn start() {
    settle_threads();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// Gives the cores to rayon's threads, on which matrix products and our own kernels run, unless the environment says
/// otherwise. candle's element-wise threads spin while they wait and would take the cores from them; and without a number of
/// threads in the environment candle counts the cores in `/proc/cpuinfo` before every matrix product.
#[allow(unsafe_code, reason = "no safe way to set a variable, and candle has no other door")]
fn settle_threads() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (variable, threads) in [("RAYON_NUM_THREADS", cores), ("CANDLE_NUM_THREADS", 1)] {
        if std::env::var_os(variable).is_none() {
            // SAFETY: `start` runs first in `main`, while this is the only thread.
            unsafe { std::env::set_var(variable, threads.to_string()) };
        }
    }
}

/// An error and what caused it, a line each.
pub fn explained(error: &(dyn std::error::Error + Send + Sync)) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many errors say what caused them.
        if !message.ends_with(&cause_text) {
            message.push_str(&format!("\n  because: {cause_text}"));
        }
        source = cause.source();
    }
    message
}

/// Prints an error and everything that caused it, and exits with status 1.
pub fn exit_on_error(result: Result<(), BoxError>) {
    let Err(error) = result else { return };
    let message = format!("error: {}", explained(error.as_ref()));
    #[allow(clippy::print_stderr, reason = "the one place where a program reports its failure")]
    {
        eprintln!("{message}");
    }
    std::process::exit(1);
}

/// A table with a head; all columns but the first and `title` are numbers or IDs and stand to the right.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(head);
    for row in rows {
        table.add_row(row);
    }
    for (column, _) in table.column_iter_mut().zip(head).skip(1).filter(|(_, name)| **name != "title") {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Models against Recall and NDCG, as the paper's table 1.
pub fn metrics_table(rows: &[(&str, &Metrics)]) -> Table {
    let columns = ["recall@5", "ndcg@5", "recall@10", "ndcg@10", "mrr@10"];
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|(name, metrics)| {
            let value = |column: &&str| metrics.get(*column).map_or_else(|| "-".into(), |value| format!("{value:.4}"));
            std::iter::once((*name).to_owned()).chain(columns.iter().map(value)).collect()
        })
        .collect();
    table(&["model", "Recall@5", "NDCG@5", "Recall@10", "NDCG@10", "MRR@10"], &rows)
}

/// Prints a finished run: data, Semantic IDs, training, metrics.
pub fn print_report(report: &Report, extra: &BTreeMap<String, Metrics>) {
    let data = &report.dataset;
    println!(
        "\n{}: {} users, {} items, {} interactions (mean length {:.2}, median {})",
        data.name, data.users, data.items, data.interactions, data.mean_length, data.median_length
    );
    let sid = &report.sid;
    let levels: Vec<Vec<String>> = (0..sid.levels)
        .map(|level| {
            vec![
                (level + 1).to_string(),
                format!("{} of {}", sid.codes_used[level], sid.codebook_sizes[level]),
                format!("{:.1}", sid.perplexity[level]),
            ]
        })
        .collect();
    println!("{}", table(&["level", "codes used", "perplexity"], &levels));
    println!(
        "collision rate {:.2} % over {} levels, largest group {}",
        100.0 * sid.collision_rate,
        sid.levels,
        sid.largest_group
    );
    let train = &report.train;
    println!(
        "{} parameters, {} examples in {} epochs ({} steps), best after epoch {}; {:.0} examples/s\n",
        train.parameters,
        train.examples,
        train.epochs,
        train.steps,
        train.best_epoch.map_or_else(|| "none".into(), |epoch| epoch.to_string()),
        report.timing.examples_per_second
    );
    let mut rows: Vec<(&str, &Metrics)> = vec![("TIGER (test)", &report.test), ("TIGER (validation)", &report.valid)];
    rows.extend(report.baselines.iter().chain(extra).map(|(name, metrics)| (name.as_str(), metrics)));
    println!("{}", metrics_table(&rows));
    if let Some(interval) = report.test_intervals.get("recall@10") {
        println!("test Recall@10 in [{:.4}, {:.4}] (95 % bootstrap over users)", interval.low, interval.high);
    }
    for (name, gain) in &report.recall_at_10_gain {
        println!(
            "test Recall@10, TIGER minus {name}: {:+.4} in [{:+.4}, {:+.4}], paired",
            gain.mean, gain.low, gain.high
        );
    }
    if let Some(invalid) = report.test.get("invalid_rate@10") {
        println!("searching freely, {:.2} % of the ten best sequences are no item's Semantic ID", 100.0 * invalid);
    }
    println!("{:.0} s in all", report.timing.total_seconds);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    fn read(json: &str) -> Result<TigerConfig, BoxError> {
        let mut file = tempfile::NamedTempFile::new()?;
        std::io::Write::write_all(&mut file, json.as_bytes())?;
        config_or(Some(file.path()), TigerConfig::cpu)
    }

    #[test]
    fn a_file_changes_what_it_names_and_nothing_else() {
        let cpu = TigerConfig::cpu();
        assert_eq!(read("{}").unwrap(), cpu);
        let mut smaller = cpu.clone();
        if let genrec::quantize::QuantizerConfig::ResidualKMeans(config) = &mut smaller.quantizer {
            config.codebook_sizes = vec![16, 16];
        }
        assert_ne!(smaller, cpu);
        assert_eq!(read(r#"{"quantizer": {"codebook_sizes": [16, 16]}}"#).unwrap(), smaller);
        let other = read(r#"{"quantizer": {"type": "rq_vae", "codebook_sizes": [16]}}"#).unwrap();
        assert_eq!(other.quantizer.codebook_sizes(), [16]);
        assert_eq!(other.model, cpu.model);
        // What a run was made with, not the preset with some of it: a bidirectional encoder goes without saying.
        let paper = serde_json::json!({ "config": TigerConfig::paper() }).to_string();
        assert_eq!(read(&paper).unwrap(), TigerConfig::paper());
        assert!(read(r#"{"quantiser": {}}"#).unwrap_err().to_string().contains("quantiser"));
        assert!(
            config_or(Some(Path::new("/no/such/file")), TigerConfig::cpu).unwrap_err().to_string().contains("/no/such")
        );
    }
}
