//! Training steps of a T5.

use std::{collections::HashMap, path::PathBuf, time::Instant};

use genrec::{
    kernels::optim::{AdamW, AdamWConfig, Optimizer},
    model::{RaggedBatch, Trainable, t5::T5},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{BoxError, place::Place};

/// A model directory in Hugging Face's form.
#[derive(Debug, Deserialize)]
pub(crate) struct Load {
    model: PathBuf,
    /// Train by candle's autograd rather than by the fused engine.
    #[serde(default)]
    autograd: bool,
    /// Where it is trained, and in what.
    #[serde(flatten)]
    place: Place,
}

/// A batch: sequences end to end, and their targets.
#[derive(Debug, Deserialize)]
pub(crate) struct Batch {
    tokens: Vec<u32>,
    offsets: Vec<u32>,
    labels: Vec<u32>,
}

impl Batch {
    pub(crate) fn ragged(&self) -> Result<RaggedBatch, BoxError> {
        Ok(RaggedBatch::from_parts(self.tokens.clone(), self.offsets.clone(), self.labels.clone())?)
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Step {
    batch: Batch,
    seed: u64,
    lr: f64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct GradientsTo {
    batch: Batch,
    out: PathBuf,
}

pub(crate) struct Trainer {
    model: T5,
    optimizer: AdamW,
}

impl Trainer {
    pub(crate) fn load(load: &Load) -> Result<Self, BoxError> {
        let mut model = load.place.open(&load.model)?;
        if load.autograd {
            model = model.with_autograd();
        }
        let optimizer = AdamW::new(AdamWConfig::default(), model.parameters())?;
        Ok(Self { model, optimizer })
    }

    pub(crate) fn num_parameters(&self) -> usize {
        self.model.num_parameters()
    }

    pub(crate) fn step(&mut self, step: &Step) -> Result<Value, BoxError> {
        let batch = step.batch.ragged()?;
        let start = Instant::now();
        let (loss, gradients) = self.model.loss_and_grads(&batch, step.seed)?;
        let engine = start.elapsed().as_secs_f64();
        self.optimizer.step(self.model.parameters(), &gradients, step.lr)?;
        self.model.parameters().device().synchronize()?;
        Ok(json!({ "loss": loss, "seconds": start.elapsed().as_secs_f64(), "gradient_seconds": engine }))
    }

    pub(crate) fn gradients(&self, to: &GradientsTo) -> Result<Value, BoxError> {
        let (loss, gradients) = self.model.loss_and_grads(&to.batch.ragged()?, 0)?;
        let tensors: HashMap<String, _> = gradients.iter().map(|(name, g)| (name.to_owned(), g.clone())).collect();
        candle_core::safetensors::save(&tensors, &to.out)?;
        Ok(json!({ "loss": loss }))
    }
}
