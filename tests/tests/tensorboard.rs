//! The curves of a run, as TensorBoard itself reads them.

#![allow(clippy::print_stderr, reason = "a test that does not run says so")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::BTreeMap, path::Path, process::Command};

use candle_core::Device;
use genrec::{
    pipeline::{self, Event, TensorBoard, TigerConfig},
    train::ValidationReport,
};
use genrec_tests::{small_config, small_shop};
use serde::Deserialize;

/// What `tests/read_events.py` prints.
#[derive(Debug, Deserialize)]
struct Read {
    scalars: BTreeMap<String, Vec<(u64, f64)>>,
    histograms: BTreeMap<String, Vec<(u64, f64)>>,
    texts: Vec<String>,
}

/// Whatever the directory's files hold, by TensorBoard's own reader; `None` where it is not installed.
fn read(dir: &Path) -> Option<Read> {
    let Some(packages) = std::env::var_os("GENREC_TENSORBOARD") else {
        eprintln!("GENREC_TENSORBOARD is not set: TensorBoard does not read the event files");
        return None;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/read_events.py");
    let output = Command::new("python3").env("PYTHONPATH", packages).arg(script).arg(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// Watches as TensorBoard does, and remembers what it was told.
#[derive(Default)]
struct Told {
    steps: Vec<u64>,
    validations: Vec<ValidationReport>,
    passes: usize,
}

fn run(dir: &Path, events: &Path, config: &TigerConfig, resume: bool) -> (pipeline::Report, Told) {
    let mut told = Told::default();
    let listen = |event: &Event<'_>| match event {
        Event::TrainStep(step) => told.steps.push(step.step),
        Event::Validation(validation) => told.validations.push((*validation).clone()),
        Event::QuantizerEpoch(_) => told.passes += 1,
        _ => {}
    };
    let mut watch = (TensorBoard::create(events, config).unwrap(), listen);
    let dataset = small_shop().dataset;
    let outcome = pipeline::run(&dataset, config, dir, &Device::Cpu, None, resume, &mut watch).unwrap();
    watch.0.finish().unwrap();
    (outcome.report, told)
}

#[test]
fn tensorboard_reads_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let (home, events) = (dir.path().join("run"), dir.path().join("events"));
    let config = small_config();
    let (report, told) = run(&home, &events, &config, false);
    assert!(told.passes > 0 && !told.validations.is_empty() && told.steps.len() >= 10);
    let Some(read) = read(&events) else { return };

    let every_tenth: Vec<u64> = told.steps.iter().copied().filter(|step| step.is_multiple_of(10)).collect();
    for tag in ["train/loss", "train/learning_rate", "train/gradient_norm", "train/epoch"] {
        let steps: Vec<u64> = read.scalars[tag].iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, every_tenth, "{tag}");
    }
    let validated: Vec<(u64, f64)> =
        told.validations.iter().map(|report| (report.step, f64::from(report.metric as f32))).collect();
    assert_eq!(read.scalars["validation/ndcg@10"], validated);
    let recall = f64::from(report.test["recall@10"] as f32);
    assert_eq!(read.scalars["test/recall@10"], [(report.train.steps, recall)]);
    assert!(read.texts[0].contains("\"quantizer\""), "{:?}", read.texts);
    let Some(read) = self::read(&events.join("quantizer")) else { return };
    assert_eq!(read.scalars["fit/loss"].len(), told.passes);
    for level in 1..=report.sid.levels {
        let items = read.histograms[&format!("codes/level {level}")][0].1;
        assert_eq!(items, report.dataset.items as f64, "level {level}");
    }
}

/// A process may be killed after steps that no checkpoint has: the resumed run takes them once more, and their old points go.
#[test]
fn a_resumed_run_replaces_what_it_does_again() {
    let dir = tempfile::tempdir().unwrap();
    let events = dir.path().join("events");
    let config = small_config();
    let mut first = TensorBoard::create(&events, &config).unwrap();
    pipeline::run(&small_shop().dataset, &config, &dir.path().join("a"), &Device::Cpu, None, false, &mut first)
        .unwrap();
    first.finish().unwrap();
    // The same run from its beginning, as after a kill before the first checkpoint.
    let (_, told) = run(&dir.path().join("b"), &events, &config, false);
    let Some(read) = read(&events) else { return };
    let steps: Vec<u64> = read.scalars["train/loss"].iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, told.steps.iter().copied().filter(|step| step.is_multiple_of(10)).collect::<Vec<_>>());
}
