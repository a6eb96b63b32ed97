//! The fitted RQ-VAE and its network: two multilayer perceptrons and a codebook a level.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Result as TensorResult, Tensor};
use genrec_kernels::{CounterRng, Gradients, ParamError, Parameters, init};

use super::{RqVaeConfig, dense};
use crate::coder::codebook_name;
use crate::coding::{Coding, Search, decode};
use crate::encoder::{HostEncoder, LazyEncoder, on_host};
use crate::input::check_input;
use crate::preprocess::Preprocess;
use crate::saved::{Saved, count_elements, expect_shapes, matrix};
use crate::{Quantizer, RankCodes, Reconstruct, Result};

/// Residual-quantised variational autoencoder (Zeghidour et al. 2021, arXiv 2107.03312; for Semantic IDs Rajput et al.
/// 2023, arXiv 2305.05065, section 3.1).
///
/// `z = E(x)`; at level `d` the code is `c_d = argmin_k ||r_d - e_{d,k}||` with `r_0 = z` and
/// `r_{d+1} = r_d - e_{d,c_d}`; the reconstruction is `D(sum_d e_{d,c_d})`. Cloning shares the weights.
#[derive(Clone, Debug)]
pub struct RqVae {
    pub(super) config: RqVaeConfig,
    pub(super) dim: usize,
    pub(super) network: Network,
    pub(super) preprocess: Preprocess,
    encoder: LazyEncoder,
}

impl RqVae {
    /// A fitted network, whose weights no longer change.
    pub(super) fn new(config: RqVaeConfig, dim: usize, network: Network, preprocess: Preprocess) -> Self {
        Self { config, dim, network, preprocess, encoder: LazyEncoder::default() }
    }

    fn host_encoder(&self) -> TensorResult<&HostEncoder> {
        let layers = self.network.encoder.layers.iter().map(|(weight, bias)| (weight, bias));
        self.encoder.get(|| {
            let search = Search::new(self.coding(), self.config.latent_dim, self.network.codebooks())?;
            HostEncoder::new(self.dim, &self.preprocess, layers, search)
        })
    }

    fn coding(&self) -> Coding {
        self.config.coding()
    }

    /// The configuration it was fitted with.
    pub fn config(&self) -> &RqVaeConfig {
        &self.config
    }

    /// The latent vector `E(x)` of each row, before quantisation.
    ///
    /// # Shapes
    /// - `xs`: `(n, dim)`, f32
    /// - result: `(n, latent_dim)`, f32
    ///
    /// # Errors
    /// When the shape, type or device of `xs` is wrong or a tensor operation fails.
    pub fn latent(&self, xs: &Tensor) -> TensorResult<Tensor> {
        check_input(xs, self.dim)?;
        self.network.encoder.forward(&self.preprocess.apply(xs)?)
    }

    /// The codewords of a level, `(codes, latent_dim)`; `None` where there is no such level.
    pub fn codebook(&self, level: usize) -> Option<&Tensor> {
        self.network.codebooks.get(level)
    }

    fn shapes(config: &RqVaeConfig, dim: usize) -> BTreeMap<String, Vec<usize>> {
        let mut shapes = Network::shapes(config, config.steps().width(dim));
        Preprocess::shapes(config.steps(), dim, &mut shapes);
        shapes
    }
}

impl Saved for RqVae {
    type Config = RqVaeConfig;

    fn elements(config: &RqVaeConfig, dim: usize) -> Option<usize> {
        count_elements(&Self::shapes(config, dim))
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = self.network.autoencoder.snapshot()?;
        tensors.extend(self.network.codes.snapshot()?);
        self.preprocess.tensors(&mut tensors);
        Ok(tensors)
    }

    fn from_tensors(
        config: RqVaeConfig,
        dim: usize,
        tensors: &BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        expect_shapes(tensors, &Self::shapes(&config, dim))?;
        let values = Network::shapes(&config, config.steps().width(dim))
            .into_keys()
            .map(|name| matrix(tensors, &name, device).map(|value| (name, value)))
            .collect::<Result<_>>()?;
        let network = Network::new(&values, &config, device)?;
        Ok(Self::new(config, dim, network, Preprocess::load(tensors, device)?))
    }
}

impl Quantizer for RqVae {
    fn dim(&self) -> usize {
        self.dim
    }

    fn codebook_sizes(&self) -> &[u32] {
        &self.config.codebook_sizes
    }

    fn device(&self) -> &Device {
        self.network.autoencoder.device()
    }

    fn encode(&self, xs: &Tensor) -> TensorResult<Tensor> {
        check_input(xs, self.dim)?;
        if on_host(self.device(), xs) {
            return self.host_encoder()?.encode_tensor(xs);
        }
        self.coding().encode(&self.latent(xs)?, &self.network.codebooks())
    }

    fn encode_slice(&self, xs: &[f32], codes: &mut [u32]) -> TensorResult<bool> {
        if !self.device().is_cpu() {
            return Ok(false);
        }
        self.host_encoder()?.encode(xs, codes)?;
        Ok(true)
    }
}

impl Reconstruct for RqVae {
    fn reconstruct(&self, codes: &Tensor) -> TensorResult<Tensor> {
        let latent = decode(self.coding().composition, codes, &self.network.codebooks())?;
        self.preprocess.invert(&self.network.decoder.forward(&latent)?)
    }
}

impl RankCodes for RqVae {
    fn code_costs(&self, xs: &Tensor, prefix: &[u32]) -> TensorResult<Tensor> {
        self.coding().costs(&self.latent(xs)?, &self.network.codebooks(), prefix)
    }
}

/// The trainable part.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// Parameters of encoder and decoder.
    pub(crate) autoencoder: Parameters,
    /// The codebooks, apart from the rest: they are trained only once there are codes.
    pub(crate) codes: Parameters,
    pub(crate) encoder: Mlp,
    pub(crate) decoder: Mlp,
    codebooks: Vec<Tensor>,
}

impl Network {
    /// Widths of the encoder from input to latent vector.
    fn widths(config: &RqVaeConfig, dim: usize) -> Vec<usize> {
        std::iter::once(dim).chain(config.hidden.iter().copied()).chain([config.latent_dim]).collect()
    }

    pub(crate) fn shapes(config: &RqVaeConfig, dim: usize) -> BTreeMap<String, Vec<usize>> {
        let mut shapes = BTreeMap::new();
        let mut widths = Self::widths(config, dim);
        for part in ["encoder", "decoder"] {
            for (layer, pair) in widths.windows(2).enumerate() {
                shapes.insert(format!("{part}.{layer}.weight"), vec![pair[1], pair[0]]);
                shapes.insert(format!("{part}.{layer}.bias"), vec![pair[1]]);
            }
            widths.reverse();
        }
        for (level, &size) in config.codebook_sizes.iter().enumerate() {
            shapes.insert(codebook_name(level), vec![size as usize, config.latent_dim]);
        }
        shapes
    }

    /// Xavier-normal weights, zero biases; codebooks are zero until they are initialised on data.
    pub(crate) fn random(config: &RqVaeConfig, dim: usize, rng: CounterRng, device: &Device) -> Result<Self> {
        let mut values = BTreeMap::new();
        for (name, shape) in Self::shapes(config, dim) {
            let value = match shape[..] {
                [fan_out, fan_in] if name.ends_with(".weight") => {
                    init::xavier_normal(&rng.named(&name), fan_out, fan_in, device)?
                }
                _ => Tensor::zeros(shape, DType::F32, device)?,
            };
            values.insert(name, value);
        }
        Self::new(&values, config, device)
    }

    /// A network of these named values, all of [`shapes`](Self::shapes).
    pub(crate) fn new(values: &BTreeMap<String, Tensor>, config: &RqVaeConfig, device: &Device) -> Result<Self> {
        let (mut autoencoder, mut codes) = (Parameters::new(device), Parameters::new(device));
        let levels = 0..config.codebook_sizes.len();
        let codebook_names: BTreeSet<String> = levels.clone().map(codebook_name).collect();
        for (name, value) in values {
            let part = if codebook_names.contains(name) { &mut codes } else { &mut autoencoder };
            part.insert(name.clone(), value)?;
        }
        let layers = config.hidden.len() + 1;
        let encoder = Mlp::new(&autoencoder, "encoder", layers)?;
        let decoder = Mlp::new(&autoencoder, "decoder", layers)?;
        let codebooks = levels.map(|level| parameter(&codes, &codebook_name(level))).collect::<Result<_>>()?;
        Ok(Self { autoencoder, codes, encoder, decoder, codebooks })
    }

    pub(crate) fn codebooks(&self) -> Vec<&Tensor> {
        self.codebooks.iter().collect()
    }

    /// Replaces the codewords of a level.
    pub(crate) fn set_codebook(&self, level: usize, codewords: &Tensor) -> Result<()> {
        Ok(self.codes.set(&codebook_name(level), codewords)?)
    }
}

fn parameter(params: &Parameters, name: &str) -> Result<Tensor> {
    Ok(params.get(name).cloned().ok_or_else(|| ParamError::Missing { name: name.to_owned() })?)
}

/// Linear layers with ReLU between them.
#[derive(Clone, Debug)]
pub(crate) struct Mlp {
    name: &'static str,
    layers: Vec<(Tensor, Tensor)>,
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
