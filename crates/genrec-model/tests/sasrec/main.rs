//! Tests of SASRec by its public interface.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod engine;
mod files;
mod golden;
mod gradients;
mod reference;
mod scoring;
mod training;

use candle_core::{Device, Tensor};
use genrec_kernels::CounterRng;
use genrec_model::{
    RaggedBatch, Trainable,
    sasrec::{NormPlacement, SasRec, SasRecConfig, SasRecLoss},
};

/// A model of a few hundred weights, without dropout.
fn tiny(items: usize) -> SasRecConfig {
    SasRecConfig::new(items).with_d_model(6).with_d_ff(5).with_heads(2).with_max_len(7).with_dropout_rate(0.0)
}

/// Both places of the norms with each loss.
fn variants(items: usize) -> Vec<SasRecConfig> {
    let mut all = Vec::new();
    for norm in [NormPlacement::Queries, NormPlacement::Branches] {
        for loss in [
            SasRecLoss::full_cross_entropy(),
            SasRecLoss::FullCrossEntropy { label_smoothing: 0.2 },
            SasRecLoss::bce(1),
            SasRecLoss::bce(3),
        ] {
            all.push(tiny(items).with_norm(norm).with_loss(loss));
        }
    }
    all
}

/// A model whose biases are not zero and whose norms are not one.
fn random_model(config: SasRecConfig, seed: u64) -> SasRec {
    let model = SasRec::new(config, seed, &Device::Cpu).unwrap();
    let names: Vec<String> = model.parameters().iter().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let weight = model.parameters().get(&name).unwrap();
        let mut noise = vec![0f32; weight.elem_count()];
        CounterRng::new(seed).named(&name).stream(1).fill_normal(&mut noise);
        let noise = Tensor::from_vec(noise, weight.dims(), &Device::Cpu).unwrap();
        let moved = (weight + (noise * 0.2).unwrap()).unwrap();
        model.parameters().set(&name, &moved).unwrap();
    }
    model
}

fn batch(sequences: &[Vec<u32>]) -> RaggedBatch {
    let mut batch = RaggedBatch::new();
    for sequence in sequences {
        batch.push(sequence, &[]).unwrap();
    }
    batch
}

/// Sequences of 0 to `longest` items.
fn sequences(seed: u64, rows: u64, items: u64, longest: u64) -> Vec<Vec<u32>> {
    let sequence = |row: u64| {
        let rng = CounterRng::new(seed).stream(row);
        (1..1 + rng.below(0, longest + 1)).map(|i| u32::try_from(rng.below(i, items)).unwrap()).collect()
    };
    (0..rows).map(sequence).collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
