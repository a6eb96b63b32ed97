//! Training on a GPU without padding and without a graph: the layers over sequences end to end, their gradients written out.

mod decode;
mod stack;
mod weights;

use candle_core::{DType, Result, Tensor};
use genrec_kernels::packed::{self, Spans};
use genrec_kernels::{CounterRng, Gradients, Parameters};

pub(super) use self::decode::Caches;
use self::stack::{Masks, Memory, Shape};
pub(super) use self::weights::Layers;
use super::config::{FeedForwardKind, T5Config};
use crate::batch::RaggedBatch;

/// A batch on the device.
struct Batch {
    tokens: Tensor,
    sources: Spans,
    /// The targets shifted right behind the start token.
    inputs: Tensor,
    targets: Spans,
    labels: Tensor,
}

impl Batch {
    fn new(batch: &RaggedBatch, config: &T5Config, params: &Parameters) -> Result<Self> {
        let (device, targets) = (params.device(), batch.target_len());
        let inputs: Vec<u32> = batch
            .labels()
            .chunks(targets.max(1))
            .flat_map(|target| {
                std::iter::once(config.decoder_start_token_id).chain(target[..target.len() - 1].iter().copied())
            })
            .collect();
        Ok(Self {
            tokens: Tensor::new(batch.tokens(), device)?,
            sources: Spans::new(batch.sequences().map(<[u32]>::len), device)?,
            inputs: Tensor::new(inputs, device)?,
            targets: Spans::new(std::iter::repeat_n(targets, batch.len()), device)?,
            labels: Tensor::new(batch.labels(), device)?,
        })
    }
}

/// Whether the packed layers can compute this model there.
pub(super) fn supports(config: &T5Config, params: &Parameters, dtype: DType) -> bool {
    let distance = config.relative_attention_max_distance;
    config.feed_forward_proj == FeedForwardKind::Relu
        && packed::supports(params.device(), dtype, config.d_model, config.d_kv, distance)
}

fn shape(config: &T5Config, dtype: DType) -> Shape {
    Shape { heads: config.num_heads, inner: config.inner(), eps: config.layer_norm_epsilon, dtype }
}

/// What multiplies the decoder's output before the head.
fn scale(config: &T5Config) -> f64 {
    if config.scale_decoder_outputs { (config.d_model as f64).sqrt().recip() } else { 1.0 }
}

/// The mean loss over the batch and, if `backward`, its gradients. Dropout is drawn from `rng` where there is one.
///
/// The batch has been checked.
pub(super) fn loss(
    config: &T5Config,
    params: &Parameters,
    layers: &Layers,
    batch: &RaggedBatch,
    rng: Option<CounterRng>,
    backward: bool,
) -> Result<(f32, Gradients)> {
    let batch = Batch::new(batch, config, params)?;
    let shape = shape(config, layers.dtype);
    let masks = Masks { rate: config.dropout_rate, rng: rng.filter(|_| config.dropout_rate > 0.0) };
    let table = &layers.shared.value;

    let source = (&batch.tokens, &batch.sources);
    let encoder = layers.encoder.run(table, source, None, (masks, 0), shape, 1.0)?;
    let kv = layers.memory.forward(&encoder.out)?;
    let memory = Memory { kv: &kv, spans: &batch.sources };
    let sites = (masks, layers.encoder.sites());
    let decoder =
        layers.decoder.run(table, (&batch.inputs, &batch.targets), Some(&memory), sites, shape, scale(config))?;
    let (loss, logits_grad) = packed::cross_entropy(layers.head.forward(&decoder.out)?, &batch.labels)?;

    let mut gradients = Gradients::default();
    if backward {
        let out_grad = layers.head.backward(&decoder.out, &logits_grad, &mut gradients)?;
        let table_grad = match gradients.get(&layers.shared.name) {
            Some(grad) => grad.clone(),
            None => table.zeros_like()?,
        };
        let kv_grad = packed::blank_like(&kv)?;
        let table_grad = decoder.backward(&out_grad, Some((&memory, &kv_grad)), table_grad, &mut gradients)?;
        let encoded_grad = layers.memory.backward(&encoder.out, &kv_grad, &mut gradients)?;
        let table_grad = encoder.backward(&encoded_grad, None, table_grad, &mut gradients)?;
        gradients.insert(layers.shared.name.clone(), table_grad);
    }
    // The one place where the host waits.
    Ok((loss.to_scalar::<f32>()?, gradients))
}

#[cfg(test)]
mod tests;
