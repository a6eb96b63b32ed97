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

/// A parameter that is used in `f32`.
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
pub(crate) struct Layers {
    pub(super) shared: Weight,
    pub(super) encoder: Stack,
    pub(super) decoder: Stack,
    /// Keys and values of the encoded source for every decoder block, block by block.
    pub(super) memory: Matrix,
    pub(super) head: Matrix,
    pub(super) dtype: DType,
}

/// The weights to be copied: first promised, in order, then all copied at once and handed out in the same order.
struct Copy<'a> {
    params: &'a Parameters,
    /// The matrices asked for so far.
    groups: Vec<Vec<String>>,
    /// The weights that stay as they are.
    plain: Vec<String>,
}

impl Copy<'_> {
    fn find(&self, name: &str) -> Result<&Tensor> {
        match self.params.get(name) {
            Some(value) => Ok(value),
            None => bail!("the model has no weight `{name}`"),
        }
    }

    /// Promises a weight.
    fn get(&mut self, name: &str) -> Result<Weight> {
        self.plain.push(name.to_owned());
        Ok(Weight { name: name.to_owned(), value: self.find(name)?.detach() })
    }

    /// Promises a matrix.
    fn matrix(&mut self, prefix: &str, names: &[&str]) -> Result<Matrix> {
        let names: Vec<String> = names.iter().map(|name| format!("{prefix}{name}.weight")).collect();
        let weight = self.find(names.first().map_or("", String::as_str))?.detach();
        self.groups.push(names.clone());
        Ok(Matrix { names, weight })
    }

    /// Copies of parameters, side by side.
    fn flat<'n>(&self, names: impl Iterator<Item = &'n String>, dtype: DType) -> Result<Tensor> {
        let parts = names.map(|name| self.find(name)).collect::<Result<Vec<_>>>()?;
        packed::gather(&parts, dtype)
    }

    /// Keeps every promise.
    fn fill(self, matrices: Vec<&mut Matrix>, weights: Vec<&mut Weight>, dtype: DType) -> Result<()> {
        let flat = self.flat(self.groups.iter().flatten(), dtype)?;
        let mut start = 0;
        for (group, matrix) in self.groups.iter().zip(matrices) {
            let (rows, inputs) = matrix.weight.dims2()?;
            let shape = (group.len() * rows, inputs);
            matrix.weight = flat.narrow(0, start, shape.0 * shape.1)?.reshape(shape)?;
            start += shape.0 * shape.1;
        }
        let flat = self.flat(self.plain.iter(), DType::F32)?;
        let mut start = 0;
        for weight in weights {
            let count = weight.value.elem_count();
            weight.value = flat.narrow(0, start, count)?.reshape(weight.value.shape())?;
            start += count;
        }
        Ok(())
    }
}

impl Layers {
    /// The layers over the weights' current values, which later steps of training do not change.
    pub(crate) fn new(config: &T5Config, params: &Parameters, dtype: DType) -> Result<Self> {
        let mut copy = Copy { params, groups: Vec::new(), plain: Vec::new() };
        let encoder = stack(&mut copy, config, false)?;
        let decoder = stack(&mut copy, config, true)?;
        let memory: Vec<String> = (0..config.num_decoder_layers)
            .flat_map(|block| ["k", "v"].map(|part| format!("decoder.block.{block}.layer.1.EncDecAttention.{part}")))
            .collect();
        let memory = copy.matrix("", &memory.iter().map(String::as_str).collect::<Vec<_>>())?;
        let head = copy.matrix("", &[if config.tie_word_embeddings { "shared" } else { "lm_head" }])?;
        let mut layers = Self { shared: copy.get("shared.weight")?, encoder, decoder, memory, head, dtype };
        let (matrices, weights) = layers.promised();
        copy.fill(matrices, weights, dtype)?;
        Ok(layers)
    }

    /// Every matrix and every other weight, in the order in which [`new`](Self::new) asked for them.
    fn promised(&mut self) -> (Vec<&mut Matrix>, Vec<&mut Weight>) {
        let (mut matrices, mut weights): (Vec<&mut Matrix>, Vec<&mut Weight>) = (Vec::new(), Vec::new());
        for stack in [&mut self.encoder, &mut self.decoder] {
            for layer in &mut stack.layers {
                match &mut layer.kind {
                    Kind::SelfAttention { qkv, o } => matrices.extend([qkv, o]),
                    Kind::CrossAttention { q, o, .. } => matrices.extend([q, o]),
                    Kind::FeedForward { input, output } => matrices.extend([input, output]),
                }
                weights.push(&mut layer.norm);
            }
            weights.extend([&mut stack.final_norm, &mut stack.bias]);
        }
        matrices.extend([&mut self.memory, &mut self.head]);
        weights.push(&mut self.shared);
        (matrices, weights)
    }
}

fn stack(copy: &mut Copy<'_>, config: &T5Config, decoder: bool) -> Result<Stack> {
    let (name, blocks) = if decoder { ("decoder", config.num_decoder_layers) } else { ("encoder", config.num_layers) };
    let mut layers = Vec::new();
    for block in 0..blocks {
        let prefix = |layer: usize| format!("{name}.block.{block}.layer.{layer}.");
        let norm = |copy: &mut Copy<'_>, layer: usize| copy.get(&format!("{}layer_norm.weight", prefix(layer)));
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
