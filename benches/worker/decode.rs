//! Beam search under a catalogue.

use std::{path::PathBuf, time::Instant};

use candle_core::Device;
use genrec::{
    decode::{BeamSearch, Catalogue, Decoder, DeviceBeamSearch, DeviceCatalogue},
    index::{CollisionPolicy, SidIndex, SidLayout, SidVocab},
    model::{RaggedBatch, Seq2Seq, t5::T5},
};
use ndarray::Array2;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{BoxError, place::Place};

/// The catalogue: one row of codes an item.
#[derive(Debug, Deserialize)]
pub(crate) struct Index {
    codes: Vec<Vec<u32>>,
    codebook_sizes: Vec<u32>,
    user_tokens: u32,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Load {
    model: PathBuf,
    /// Where it decodes, and in what.
    #[serde(flatten)]
    place: Place,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Search {
    tokens: Vec<u32>,
    offsets: Vec<u32>,
    beams: usize,
    /// Users handed over at a time.
    batch: usize,
}

pub(crate) struct Shop {
    index: SidIndex,
    vocab: SidVocab,
    model: Option<T5>,
}

impl Shop {
    pub(crate) fn new(request: &Index) -> Result<Self, BoxError> {
        let layout = SidLayout::new(request.codebook_sizes.clone())?;
        let shape = (request.codes.len(), request.codebook_sizes.len());
        let codes = Array2::from_shape_vec(shape, request.codes.concat())?;
        let index = SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Suffix)?;
        let vocab = SidVocab::new(index.layout(), request.user_tokens)?;
        Ok(Self { index, vocab, model: None })
    }

    /// The tokens of every item, and how many tokens there are.
    pub(crate) fn describe(&self) -> Value {
        let tokens = |sid: &[u32]| (0..).zip(sid).map(|(i, code)| self.vocab.token(i, *code)).collect::<Vec<_>>();
        let items: Vec<_> = self.index.sids().map(|(_, sid)| tokens(&sid)).collect();
        json!({ "vocab_size": self.vocab.size(), "items": items, "first_user": self.vocab.user_range().start })
    }

    pub(crate) fn load(&mut self, load: &Load) -> Result<Value, BoxError> {
        let model = load.place.open(&load.model)?;
        let parameters = model.num_parameters();
        self.model = Some(model);
        Ok(json!({ "parameters": parameters }))
    }

    pub(crate) fn search(&self, request: &Search) -> Result<Value, BoxError> {
        let model = self.model.as_ref().ok_or("decode-load comes first")?;
        let all = RaggedBatch::from_parts(request.tokens.clone(), request.offsets.clone(), Vec::new())?;
        let catalogue = Catalogue::new(&self.index, &self.vocab)?;
        let tables = match model.device() {
            Device::Cpu => None,
            device => Some(DeviceCatalogue::new(&catalogue, device)?),
        };
        let mut found = Vec::new();
        let start = Instant::now();
        for first in (0..all.len()).step_by(request.batch.max(1)) {
            let batch = all.slice(first..first + request.batch);
            found.extend(match &tables {
                None => BeamSearch::new(request.beams).decode(model, &batch, std::slice::from_ref(&catalogue))?,
                Some(tables) => DeviceBeamSearch::new(request.beams).decode(model, &batch, tables)?,
            });
        }
        let seconds = start.elapsed().as_secs_f64();
        let tokens: Vec<Vec<&[u32]>> =
            found.iter().map(|user| user.iter().map(|found| found.tokens.as_slice()).collect()).collect();
        let scores: Vec<Vec<f32>> =
            found.iter().map(|user| user.iter().map(|found| found.log_prob).collect()).collect();
        Ok(json!({ "seconds": seconds, "tokens": tokens, "scores": scores }))
    }
}
