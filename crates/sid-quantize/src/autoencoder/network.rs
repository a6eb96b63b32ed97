//! The trainable part of an autoencoder: two multilayer perceptrons.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result as TensorResult, Tensor};
use genrec_kernels::{CounterRng, Gradients, ParamError, Parameters, init};

use super::dense;
use crate::{QuantizeError, Result};

/// Widest layer.
const WIDEST: usize = 1 << 16;

/// Encoder and decoder, which mirrors it.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) params: Parameters,
    pub(crate) encoder: Mlp,
    pub(crate) decoder: Mlp,
}

/// Checks the widths of the hidden layers and of the latent vector.
pub(crate) fn check_widths(hidden: &[usize], latent_dim: usize) -> Result<()> {
    if hidden.len() > 64 {
        return Err(QuantizeError::config("hidden", hidden.len(), "at most 64 layers are allowed"));
    }
    for (field, widths) in [("hidden", hidden), ("latent_dim", &[latent_dim])] {
        if let Some(width) = widths.iter().find(|&&width| width == 0 || width > WIDEST) {
            return Err(QuantizeError::config(field, width, "a layer may be 1 to 65536 wide"));
        }
    }
    Ok(())
}

/// Widths of the encoder from the rows to the latent vector.
pub(crate) fn widths(dim: usize, hidden: &[usize], latent_dim: usize) -> Vec<usize> {
    std::iter::once(dim).chain(hidden.iter().copied()).chain([latent_dim]).collect()
}

impl Network {
    /// The shape of every parameter, given the encoder's widths.
    pub(crate) fn shapes(widths: &[usize]) -> BTreeMap<String, Vec<usize>> {
        let mut shapes = BTreeMap::new();
        let mut widths = widths.to_vec();
        for part in ["encoder", "decoder"] {
            for (layer, pair) in widths.windows(2).enumerate() {
                shapes.insert(format!("{part}.{layer}.weight"), vec![pair[1], pair[0]]);
                shapes.insert(format!("{part}.{layer}.bias"), vec![pair[1]]);
            }
            widths.reverse();
        }
        shapes
    }

    /// Xavier-normal weights and zero biases.
    pub(crate) fn random(widths: &[usize], rng: CounterRng, device: &Device) -> Result<Self> {
        let mut values = BTreeMap::new();
        for (name, shape) in Self::shapes(widths) {
            let value = match shape[..] {
                [fan_out, fan_in] => init::xavier_normal(&rng.named(&name), fan_out, fan_in, device)?,
                _ => Tensor::zeros(shape, DType::F32, device)?,
            };
            values.insert(name, value);
        }
        Self::new(&values, widths.len().saturating_sub(1), device)
    }

    /// A network of so many layers a side, of the values named as in [`shapes`](Self::shapes); others are not looked at.
    pub(crate) fn new(values: &BTreeMap<String, Tensor>, layers: usize, device: &Device) -> Result<Self> {
        let mut params = Parameters::new(device);
        for (name, value) in
            values.iter().filter(|(name, _)| name.starts_with("encoder.") || name.starts_with("decoder."))
        {
            params.insert(name.clone(), value)?;
        }
        let encoder = Mlp::new(&params, "encoder", layers)?;
        let decoder = Mlp::new(&params, "decoder", layers)?;
        Ok(Self { params, encoder, decoder })
    }
}

/// Fails on the first weight that is not finite: the loss of a step shows what the steps before it did, not the last.
pub(crate) fn check_weights(params: &Parameters) -> Result<()> {
    for (name, var) in params.iter() {
        // A sum is not finite as soon as one term is not.
        if !var.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?.is_finite() {
            return Err(QuantizeError::WeightNotFinite { name: name.to_owned() });
        }
    }
    Ok(())
}

pub(crate) fn parameter(params: &Parameters, name: &str) -> Result<Tensor> {
    Ok(params.get(name).cloned().ok_or_else(|| ParamError::Missing { name: name.to_owned() })?)
}

/// Linear layers with ReLU between them.
#[derive(Clone, Debug)]
pub(crate) struct Mlp {
    name: &'static str,
    pub(crate) layers: Vec<(Tensor, Tensor)>,
}

/// The input of every layer, and the output of the last.
#[derive(Debug)]
pub(crate) struct Trace {
    inputs: Vec<Tensor>,
    output: Tensor,
}

impl Trace {
    pub(crate) fn output(&self) -> &Tensor {
        &self.output
    }
}

impl Mlp {
    fn new(params: &Parameters, name: &'static str, layers: usize) -> Result<Self> {
        let layers = (0..layers)
            .map(|layer| {
                let get = |kind: &str| parameter(params, &format!("{name}.{layer}.{kind}"));
                Ok((get("weight")?, get("bias")?))
            })
            .collect::<Result<_>>()?;
        Ok(Self { name, layers })
    }

    /// `(n, in)` to `(n, out)`.
    pub(crate) fn forward(&self, xs: &Tensor) -> TensorResult<Tensor> {
        Ok(self.trace(xs)?.output)
    }

    /// [`forward`](Self::forward), keeping what [`backward`](Self::backward) needs.
    pub(crate) fn trace(&self, xs: &Tensor) -> TensorResult<Trace> {
        let mut inputs = Vec::with_capacity(self.layers.len());
        // Detached: the gradient is taken by hand, and candle would keep its graph alive for nothing.
        let mut output = xs.detach();
        for (layer, (weight, bias)) in self.layers.iter().enumerate() {
            let hidden = layer + 1 < self.layers.len();
            let next = dense::forward(&output, &weight.detach(), &bias.detach(), hidden)?;
            inputs.push(std::mem::replace(&mut output, next));
        }
        Ok(Trace { inputs, output })
    }

    /// Adds the gradient of every layer, given the one with respect to the output, and returns the one with respect to
    /// the input if it is `wanted`.
    pub(crate) fn backward(
        &self,
        trace: &Trace,
        grad: &Tensor,
        wanted: bool,
        gradients: &mut Gradients,
    ) -> TensorResult<Option<Tensor>> {
        let mut grad = grad.clone();
        for (layer, ((weight, _), input)) in self.layers.iter().zip(&trace.inputs).enumerate().rev() {
            let (dw, db) = dense::backward_parameters(input, &grad)?;
            gradients.insert(format!("{}.{layer}.weight", self.name), dw);
            gradients.insert(format!("{}.{layer}.bias", self.name), db);
            let weight = weight.detach();
            if layer > 0 {
                grad = dense::backward_input(&grad, &weight, Some(input))?;
            } else if wanted {
                return Ok(Some(dense::backward_input(&grad, &weight, None)?));
            }
        }
        Ok(None)
    }
}
