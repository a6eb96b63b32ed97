//! genrec's side of `benches/compare`: reads a JSON request a line, does the work, answers with a JSON line.
//!
//! The driver holds the inputs and asks this process and a peer in turn, so that both see the machine in the same state.
//! Times are taken here, around the work alone.

#![allow(clippy::print_stdout, reason = "the answers are this program's output")]

mod constraint;
mod decode;
mod index;
mod place;
mod quantize;
mod recommend;
mod train;

use std::io::{BufRead, Write};

use genrec::Recommender;
use serde::Deserialize;
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One line of the driver's.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
enum Request {
    /// Peak memory of this process, in bytes.
    Memory,
    /// A model to train.
    TrainLoad(train::Load),
    /// One step on one batch.
    TrainStep(train::Step),
    /// The gradients of one batch, written to a file.
    TrainGradients(train::GradientsTo),
    /// A catalogue; answered with the tokens of its items.
    DecodeIndex(decode::Index),
    /// A model to decode with.
    DecodeLoad(decode::Load),
    /// Beam search for some users.
    DecodeSearch(decode::Search),
    /// A catalogue to constrain steps by.
    ConstraintLoad(constraint::Load),
    /// What may follow the prefixes of some steps.
    ConstraintSteps(constraint::Steps),
    /// What a model says during searches under it.
    ConstraintAnswers(constraint::Answers),
    /// One of these searches.
    ConstraintSearch(constraint::Search),
    /// An index of synthetic codes, its size and times.
    IndexMeasure(index::Measure),
    /// A saved run.
    RecommendLoad(recommend::Load),
    /// The best items of some users, under that run.
    Recommend(recommend::Recommend),
    /// A matrix to work on.
    QuantizeRows(quantize::Rows),
    /// Lloyd's k-means from random rows.
    QuantizeKMeans(quantize::KMeans),
    /// The error of a quantiser on the rows it is fitted on.
    QuantizeErrors(Box<quantize::Errors>),
    /// Greedy residual codes.
    QuantizeEncode(quantize::Encode),
    /// Signs of projections.
    QuantizeHash(quantize::Hash),
    /// Epochs of an RQ-VAE.
    QuantizeRqVaeFit(quantize::RqVaeFit),
    /// Codes by the RQ-VAE fitted last.
    QuantizeRqVaeEncode(quantize::RqVaeEncode),
}

#[derive(Default)]
struct Worker {
    trainer: Option<train::Trainer>,
    shop: Option<decode::Shop>,
    constraint: Option<constraint::Constraint>,
    recommender: Option<Recommender>,
    store: quantize::Store,
}

impl Worker {
    fn answer(&mut self, request: Request) -> Result<Value, BoxError> {
        match request {
            Request::Memory => Ok(json!({ "bytes": peak_memory()? })),
            Request::TrainLoad(load) => {
                let trainer = train::Trainer::load(&load)?;
                let parameters = trainer.num_parameters();
                self.trainer = Some(trainer);
                Ok(json!({ "parameters": parameters }))
            }
            Request::TrainStep(step) => self.trainer()?.step(&step),
            Request::TrainGradients(to) => self.trainer()?.gradients(&to),
            Request::DecodeIndex(index) => {
                let shop = decode::Shop::new(&index)?;
                let description = shop.describe();
                self.shop = Some(shop);
                Ok(description)
            }
            Request::DecodeLoad(load) => self.shop()?.load(&load),
            Request::DecodeSearch(search) => self.shop()?.search(&search),
            Request::ConstraintLoad(load) => {
                self.constraint = Some(constraint::Constraint::load(&load)?);
                Ok(json!({}))
            }
            Request::ConstraintSteps(steps) => self.constraint()?.steps(&steps),
            Request::ConstraintAnswers(answers) => self.constraint()?.answers(&answers),
            Request::ConstraintSearch(search) => self.constraint()?.search(&search),
            Request::IndexMeasure(request) => index::measure(&request),
            Request::RecommendLoad(load) => {
                self.recommender = Some(recommend::load(&load)?);
                Ok(json!({}))
            }
            Request::Recommend(request) => {
                recommend::recommend(self.recommender.as_ref().ok_or("recommend-load comes first")?, &request)
            }
            Request::QuantizeRows(rows) => self.store.read(rows),
            Request::QuantizeKMeans(kmeans) => self.store.kmeans(&kmeans),
            Request::QuantizeErrors(errors) => self.store.errors(&errors),
            Request::QuantizeEncode(encode) => self.store.encode(&encode),
            Request::QuantizeHash(hash) => self.store.hash(&hash),
            Request::QuantizeRqVaeFit(fit) => self.store.rqvae_fit(&fit),
            Request::QuantizeRqVaeEncode(encode) => self.store.rqvae_encode(&encode),
        }
    }

    fn shop(&mut self) -> Result<&mut decode::Shop, BoxError> {
        self.shop.as_mut().ok_or_else(|| "decode-index comes first".into())
    }

    fn constraint(&mut self) -> Result<&mut constraint::Constraint, BoxError> {
        self.constraint.as_mut().ok_or_else(|| "constraint-load comes first".into())
    }

    fn trainer(&mut self) -> Result<&mut train::Trainer, BoxError> {
        self.trainer.as_mut().ok_or_else(|| "train-load comes first".into())
    }
}

/// The high-water mark of the resident set.
fn peak_memory() -> Result<u64, BoxError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

fn main() -> Result<(), BoxError> {
    let mut worker = Worker::default();
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?) {
            Ok(request) => worker.answer(request),
            Err(error) => Err(error.into()),
        };
        let answer = answer.unwrap_or_else(|error| json!({ "error": error.to_string() }));
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}
