//! Names, shapes and initial values of every weight.

use candle_core::{DType, Device, Result, Tensor};
use genrec_kernels::{CounterRng, Parameters, init};

use super::config::SasRecConfig;

/// The embeddings of the items, which are the output layer too.
pub(crate) const ITEMS: &str = "item_embedding.weight";
/// The embeddings of the positions.
pub(crate) const POSITIONS: &str = "position_embedding.weight";
/// The norm of the last block's result.
pub(crate) const FINAL_NORM: &str = "final_norm";

/// How a weight starts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Init {
    /// Xavier's normal values.
    Xavier,
    /// The same value everywhere.
    Constant(f64),
}

/// One weight of the model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weight {
    pub(crate) name: String,
    /// A matrix is `(outputs, inputs)`.
    pub(crate) shape: Vec<usize>,
    init: Init,
}

/// Every weight of a configuration.
pub(crate) fn layout(config: &SasRecConfig) -> Vec<Weight> {
    let (d, d_ff) = (config.d_model, config.d_ff);
    let mut weights = Vec::new();
    let mut push = |name: String, shape: &[usize], init| weights.push(Weight { name, shape: shape.to_vec(), init });
    push(ITEMS.to_owned(), &[config.items, d], Init::Xavier);
    push(POSITIONS.to_owned(), &[config.max_len, d], Init::Xavier);
    let mut norms = vec![FINAL_NORM.to_owned()];
    for block in 0..config.num_layers {
        let block = format!("blocks.{block}");
        norms.extend([format!("{block}.attention_norm"), format!("{block}.feed_forward_norm")]);
        for (name, outputs, inputs, bias) in [
            ("attention.q", d, d, true),
            // A bias of the keys would add the same to all scores of a query, which the softmax takes off again.
            ("attention.k", d, d, false),
            ("attention.v", d, d, true),
            ("feed_forward.input", d_ff, d, true),
            ("feed_forward.output", d, d_ff, true),
        ] {
            push(format!("{block}.{name}.weight"), &[outputs, inputs], Init::Xavier);
            if bias {
                push(format!("{block}.{name}.bias"), &[outputs], Init::Constant(0.0));
            }
        }
    }
    for norm in norms {
        push(format!("{norm}.weight"), &[d], Init::Constant(1.0));
        push(format!("{norm}.bias"), &[d], Init::Constant(0.0));
    }
    weights
}

/// Allocates and initialises every weight; each is drawn from a stream of its own name, so that its values do not depend
/// on what else the model holds.
pub(crate) fn initialise(config: &SasRecConfig, seed: u64, device: &Device) -> Result<Parameters> {
    let rng = CounterRng::new(seed);
    fill(config, device, |weight| match (weight.init, weight.shape.as_slice()) {
        (Init::Xavier, &[outputs, inputs]) => init::xavier_normal(&rng.named(&weight.name), outputs, inputs, device),
        (Init::Xavier, shape) => Tensor::zeros(shape, DType::F32, device),
        (Init::Constant(value), shape) => Tensor::full(value as f32, shape, device),
    })
}

/// Allocates every weight with zeros, to be overwritten by stored values.
pub(crate) fn zeros(config: &SasRecConfig, device: &Device) -> Result<Parameters> {
    fill(config, device, |weight| Tensor::zeros(weight.shape.as_slice(), DType::F32, device))
}

fn fill(config: &SasRecConfig, device: &Device, value: impl Fn(&Weight) -> Result<Tensor>) -> Result<Parameters> {
    let mut params = Parameters::new(device);
    for weight in layout(config) {
        let value = value(&weight)?;
        params.insert(weight.name, &value)?;
    }
    Ok(params)
}
