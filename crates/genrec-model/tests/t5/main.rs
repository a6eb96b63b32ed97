//! Tests of the T5 by its public interface.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod decode;
mod engine;
mod files;
mod golden;
mod gradients;
mod half;
mod shares;
mod training;

use candle_core::{D, Device, Result, Tensor};
use genrec_kernels::graph::log_softmax;
use genrec_model::{
    RaggedBatch,
    t5::{FeedForwardKind, T5, T5Config},
};

/// A model of a few hundred weights, without dropout.
fn tiny(vocab_size: usize) -> T5Config {
    let mut config = T5Config::cpu(vocab_size)
        .with_d_model(8)
        .with_heads(2, 4)
        .with_d_ff(12)
        .with_layers(2, 2)
        .with_dropout_rate(0.0);
    config.relative_attention_num_buckets = 8;
    config.relative_attention_max_distance = 10;
    config
}

/// Every combination of feed-forward network and output layer.
fn variants(vocab_size: usize) -> Vec<T5Config> {
    let mut all = Vec::new();
    for kind in [FeedForwardKind::Relu, FeedForwardKind::GatedGelu] {
        for tied in [true, false] {
            all.push(tiny(vocab_size).with_feed_forward(kind).with_tied_embeddings(tied));
        }
    }
    all.push(tiny(vocab_size).with_causal_encoder(true));
    all
}

fn batch(rows: &[(Vec<u32>, Vec<u32>)]) -> RaggedBatch {
    let mut batch = RaggedBatch::new();
    for (source, target) in rows {
        batch.push(source, target).unwrap();
    }
    batch
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Log-probabilities of the token after `prefix`, by teacher forcing on this source alone.
fn next(model: &T5, source: &[u32], prefix: &[u32]) -> Result<Tensor> {
    let mut target = prefix.to_vec();
    target.push(0);
    let logits = model.logits(&batch(&[(source.to_vec(), target)]))?;
    log_softmax(&logits.get(0)?.get(prefix.len())?)
}

fn ids(tokens: &[u32]) -> Tensor {
    Tensor::new(tokens, &Device::Cpu).unwrap()
}

fn row_argmax(logits: &Tensor) -> Vec<u32> {
    logits.argmax(D::Minus1).unwrap().to_vec1().unwrap()
}
