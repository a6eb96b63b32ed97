//! The layers of both stacks over one copy of the weights, in the type that products are computed in.

use candle_core::{DType, Result, Tensor, bail};
use genrec_kernels::packed;
use genrec_kernels::{Gradients, Parameters};

use crate::t5::{config::T5Config, position::Buckets};

/// Matrices of one input width that are multiplied at once: their outputs lie side by side.
#[derive(Debug)]
pub(super) struct Matrix {
    /// The parameters, stacked by rows.
    names: Vec<String>,
    /// `(outputs of all, inputs)`.
    pub(super) weight: Tensor,
}

impl Matrix {
    /// $x W^\top$.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight.t()?)
    }

    /// The gradient of the input; that of the weights goes to `gradients`.
    pub(super) fn backward(&self, x: &Tensor, grad: &Tensor, gradients: &mut Gradients) -> Result<Tensor> {
        let weight = grad.t()?.matmul(x)?.to_dtype(DType::F32)?;
        let rows = weight.dim(0)? / self.names.len();
        for (part, name) in self.names.iter().enumerate() {
            gradients.insert(name.clone(), weight.narrow(0, part * rows, rows)?);
        }
        grad.matmul(&self.weight)
    }
}

/// What a layer does to the normed residual stream.
#[derive(Debug)]
pub(super) enum Kind {
    SelfAttention {
        qkv: Matrix,
        o: Matrix,
    },
    /// Over the encoded source, whose keys and values of all blocks are one product.
    CrossAttention {
        q: Matrix,
        o: Matrix,
        block: usize,
    },
    FeedForward {
        input: Matrix,
        output: Matrix,
    },
}

/// A residual layer and the norm before it.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) norm: Weight,
    pub(super) kind: Kind,
}

/// A parameter that is used as it is.
#[derive(Debug)]
pub(super) struct Weight {
    pub(super) name: String,
    pub(super) value: Tensor,
}

/// The encoder or the decoder.
#[derive(Debug)]
pub(super) struct Stack {
    pub(super) layers: Vec<Layer>,
    pub(super) final_norm: Weight,
    /// `(buckets, heads)`.
    pub(super) bias: Weight,
    pub(super) buckets: Buckets,
    pub(super) causal: bool,
}

/// All layers.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) shared: Weight,
    pub(super) encoder: Stack,
    pub(super) decoder: Stack,
    /// Keys and values of the encoded source for every decoder block, block by block.
    pub(super) memory: Matrix,
    pub(super) head: Matrix,
}

/// Hands out the parts of the flat copy in the order in which they were asked for.
struct Copy<'a> {
    params: &'a Parameters,
    /// The matrices asked for so far.
    groups: Vec<Vec<String>>,
}

impl Copy<'_> {
    fn get(&self, name: &str) -> Result<Weight> {
        match self.params.get(name) {
            Some(value) => Ok(Weight { name: name.to_owned(), value: value.detach() }),
            None => bail!("the model has no weight `{name}`"),
        }
    }

    /// Promises a matrix; [`fill`](Self::fill) keeps the promises in the same order.
    fn matrix(&mut self, prefix: &str, names: &[&str]) -> Result<Matrix> {
        let names: Vec<String> = names.iter().map(|name| format!("{prefix}{name}.weight")).collect();
        let weight = self.get(names.first().map_or("", String::as_str))?.value;
        self.groups.push(names.clone());
        Ok(Matrix { names, weight })
    }

    /// Copies every promised matrix.
    fn fill(self, matrices: Vec<&mut Matrix>, dtype: DType) -> Result<()> {
        let parts: Vec<Tensor> =
            self.groups.iter().flatten().map(|name| Ok(self.get(name)?.value)).collect::<Result<_>>()?;
        let flat = packed::gather(&parts.iter().collect::<Vec<_>>(), dtype)?;
        let mut start = 0;
        for (group, matrix) in self.groups.iter().zip(matrices) {
            let (rows, inputs) = matrix.weight.dims2()?;
            let shape = (group.len() * rows, inputs);
            matrix.weight = flat.narrow(0, start, shape.0 * shape.1)?.reshape(shape)?;
            start += shape.0 * shape.1;
        }
        Ok(())
    }
}

impl Layers {
    /// The layers over the weights' current values.
    pub(super) fn new(config: &T5Config, params: &Parameters, dtype: DType) -> Result<Self> {
        let mut copy = Copy { params, groups: Vec::new() };
        let encoder = stack(&mut copy, config, false)?;
        let decoder = stack(&mut copy, config, true)?;
        let memory: Vec<String> = (0..config.num_decoder_layers)
            .flat_map(|block| ["k", "v"].map(|part| format!("decoder.block.{block}.layer.1.EncDecAttention.{part}")))
            .collect();
        let memory = copy.matrix("", &memory.iter().map(String::as_str).collect::<Vec<_>>())?;
        let head = copy.matrix("", &[if config.tie_word_embeddings { "shared" } else { "lm_head" }])?;
        let mut layers = Self { shared: copy.get("shared.weight")?, encoder, decoder, memory, head };
        copy.fill(layers.matrices(), dtype)?;
        Ok(layers)
    }

    /// Every matrix, in the order in which [`new`](Self::new) asked for them.
    fn matrices(&mut self) -> Vec<&mut Matrix> {
        let layers = self.encoder.layers.iter_mut().chain(&mut self.decoder.layers);
        let mut all: Vec<&mut Matrix> = Vec::new();
        for layer in layers {
            match &mut layer.kind {
                Kind::SelfAttention { qkv, o } => all.extend([qkv, o]),
                Kind::CrossAttention { q, o, .. } => all.extend([q, o]),
                Kind::FeedForward { input, output } => all.extend([input, output]),
            }
        }
        all.extend([&mut self.memory, &mut self.head]);
        all
    }
}

fn stack(copy: &mut Copy<'_>, config: &T5Config, decoder: bool) -> Result<Stack> {
    let (name, blocks) = if decoder { ("decoder", config.num_decoder_layers) } else { ("encoder", config.num_layers) };
    let mut layers = Vec::new();
    for block in 0..blocks {
        let prefix = |layer: usize| format!("{name}.block.{block}.layer.{layer}.");
        let norm = |copy: &Copy<'_>, layer: usize| copy.get(&format!("{}layer_norm.weight", prefix(layer)));
        let own = format!("{}SelfAttention.", prefix(0));
        let kind = Kind::SelfAttention { qkv: copy.matrix(&own, &["q", "k", "v"])?, o: copy.matrix(&own, &["o"])? };
        layers.push(Layer { norm: norm(copy, 0)?, kind });
        if decoder {
            let cross = format!("{}EncDecAttention.", prefix(1));
            let kind = Kind::CrossAttention { q: copy.matrix(&cross, &["q"])?, o: copy.matrix(&cross, &["o"])?, block };
            layers.push(Layer { norm: norm(copy, 1)?, kind });
        }
        let last = if decoder { 2 } else { 1 };
        let dense = format!("{}DenseReluDense.", prefix(last));
        let kind = Kind::FeedForward { input: copy.matrix(&dense, &["wi"])?, output: copy.matrix(&dense, &["wo"])? };
        layers.push(Layer { norm: norm(copy, last)?, kind });
    }
    Ok(Stack {
        layers,
        final_norm: copy.get(&format!("{name}.final_layer_norm.weight"))?,
        bias: copy.get(&format!("{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"))?,
        buckets: Buckets {
            count: config.relative_attention_num_buckets,
            max_distance: config.relative_attention_max_distance,
            bidirectional: !decoder && !config.causal_encoder,
        },
        causal: decoder || config.causal_encoder,
    })
}
