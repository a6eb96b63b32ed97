//! A stack of residual layers over sequences end to end, forward and backward.

use candle_core::{DType, Device, Result, Tensor};
use genrec_kernels::packed::{self, Attended, Columns, DropoutMask, Norm, Pull, Sight, Spans};
use genrec_kernels::{CounterRng, Gradients};

use super::weights::{Kind, Stack};

/// What does not change from layer to layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) heads: usize,
    /// Columns of all heads.
    pub(super) inner: usize,
    pub(super) eps: f64,
    pub(super) dtype: DType,
}

/// Dropout masks, one for each site in the order of the forward pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Masks {
    pub(super) rate: f64,
    pub(super) rng: Option<CounterRng>,
}

impl Masks {
    pub(super) const OFF: Self = Self { rate: 0.0, rng: None };

    fn at(&self, site: usize) -> Result<Option<DropoutMask>> {
        match &self.rng {
            Some(rng) => DropoutMask::new(self.rate, &rng.stream(site as u64)),
            None => Ok(None),
        }
    }
}

/// The encoder's output as the decoder sees it.
#[derive(Debug)]
pub(super) struct Memory<'a> {
    /// Keys and values of all blocks, `(source rows, blocks * 2 * inner)`.
    pub(super) kv: &'a Tensor,
    pub(super) spans: &'a Spans,
}

impl Memory<'_> {
    pub(super) fn columns(tensor: &Tensor, block: usize, inner: usize) -> [Columns<'_>; 2] {
        [2 * block, 2 * block + 1].map(|part| Columns { tensor, first: part * inner })
    }
}

/// What a layer leaves for its backward pass.
#[derive(Debug)]
enum Inside {
    Attention { projected: Tensor, attended: Attended },
    FeedForward { active: Tensor },
}

#[derive(Debug)]
struct Step {
    /// The residual stream that the layer's norm read.
    sum: Tensor,
    normed: Tensor,
    inside: Inside,
}

/// A forward pass of a stack, to go back through.
#[derive(Debug)]
pub(super) struct Run<'a> {
    stack: &'a Stack,
    shape: Shape,
    masks: Masks,
    /// Number of the stack's first site; the embedding's.
    first_site: usize,
    tokens: &'a Tensor,
    spans: &'a Spans,
    steps: Vec<Step>,
    last_sum: Tensor,
    /// Biases by distance, and the bucket of each.
    bias: Tensor,
    distances: Tensor,
    scale: f64,
    /// The stack's result, `(rows, d_model)`.
    pub(super) out: Tensor,
}

/// The bias of each distance of sequences up to that long: `(2 c + 1, heads)`, and the bucket of each distance.
pub(super) fn distances(stack: &Stack, longest: usize, device: &Device) -> Result<(Tensor, Tensor)> {
    let centre = longest.saturating_sub(1).min(stack.buckets.max_distance);
    let buckets = (0..=2 * centre)
        .map(|at| u32::try_from(stack.buckets.bucket(centre.saturating_sub(at), at.saturating_sub(centre))))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let buckets = Tensor::new(buckets, device)?;
    Ok((packed::embed(&stack.bias.value, &buckets, None)?, buckets))
}

impl Stack {
    /// Sites of dropout: the embedding, two for each layer, the output.
    pub(super) fn sites(&self) -> usize {
        2 * self.layers.len() + 2
    }

    /// Runs the stack over tokens whose sequences `spans` tell; `scale` multiplies its result.
    pub(super) fn run<'a>(
        &'a self,
        table: &Tensor,
        (tokens, spans): (&'a Tensor, &'a Spans),
        memory: Option<&Memory<'_>>,
        (masks, first_site): (Masks, usize),
        shape: Shape,
        scale: f64,
    ) -> Result<Run<'a>> {
        let (bias, distances) = distances(self, spans.longest(), tokens.device())?;
        let mut x = packed::embed(table, tokens, masks.at(first_site)?.as_ref())?;
        let mut branch: Option<Tensor> = None;
        let mut steps = Vec::with_capacity(self.layers.len());
        for (i, layer) in self.layers.iter().enumerate() {
            let site = first_site + 2 * i;
            let joined = masks.at(site)?;
            let norm = Norm { weight: &layer.norm.value, eps: shape.eps, scale: 1.0, mask: None, dtype: shape.dtype };
            let (sum, normed) = packed::add_norm(&x, branch.as_ref().map(|branch| (branch, joined.as_ref())), &norm)?;
            let mask = masks.at(site + 1)?;
            let (out, inside) = match &layer.kind {
                Kind::SelfAttention { qkv, o } => {
                    let projected = qkv.forward(&normed)?;
                    let sight = Sight {
                        queries: spans,
                        keys: spans,
                        heads: shape.heads,
                        causal: self.causal,
                        mask: mask.as_ref(),
                    };
                    let [q, k, v] = [0, 1, 2].map(|part| Columns { tensor: &projected, first: part * shape.inner });
                    let attended = packed::attention(q, k, v, shape.inner, Some(&bias), &sight)?;
                    (o.forward(&attended.out)?, Inside::Attention { projected, attended })
                }
                Kind::CrossAttention { q, o, block } => {
                    let Some(memory) = memory else { candle_core::bail!("a decoder needs an encoded source") };
                    let projected = q.forward(&normed)?;
                    let sight = Sight {
                        queries: spans,
                        keys: memory.spans,
                        heads: shape.heads,
                        causal: false,
                        mask: mask.as_ref(),
                    };
                    let [k, v] = Memory::columns(memory.kv, *block, shape.inner);
                    let q = Columns { tensor: &projected, first: 0 };
                    let attended = packed::attention(q, k, v, shape.inner, None, &sight)?;
                    (o.forward(&attended.out)?, Inside::Attention { projected, attended })
                }
                Kind::FeedForward { input, output } => {
                    let active = packed::relu_dropout(input.forward(&normed)?, mask.as_ref())?;
                    (output.forward(&active)?, Inside::FeedForward { active })
                }
            };
            x = sum.clone();
            branch = Some(out);
            steps.push(Step { sum, normed, inside });
        }
        let site = first_site + 2 * self.layers.len();
        let (joined, dropped) = (masks.at(site)?, masks.at(site + 1)?);
        let norm =
            Norm { weight: &self.final_norm.value, eps: shape.eps, scale, mask: dropped.as_ref(), dtype: shape.dtype };
        let branch = branch.as_ref().map(|branch| (branch, joined.as_ref()));
        let (last_sum, out) = packed::add_norm(&x, branch, &norm)?;
        Ok(Run { stack: self, shape, masks, first_site, tokens, spans, steps, last_sum, bias, distances, scale, out })
    }
}

impl Run<'_> {
    /// Goes back from the gradient of [`out`](Self::out). Adds the gradient of the table of embeddings to `table` and returns
    /// it; those of keys and values of the encoded source are written to `memory_grad`.
    pub(super) fn backward(
        self,
        out_grad: &Tensor,
        memory: Option<(&Memory<'_>, &Tensor)>,
        table: Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor> {
        let Self { stack, shape, masks, .. } = self;
        let device = out_grad.device();
        let mut bias_grad = self.bias.zeros_like()?;
        let site = self.first_site + 2 * stack.layers.len();
        let (joined, dropped) = (masks.at(site)?, masks.at(site + 1)?);
        let norm = Norm {
            weight: &stack.final_norm.value,
            eps: shape.eps,
            scale: self.scale,
            mask: dropped.as_ref(),
            dtype: shape.dtype,
        };
        let ask = (!stack.layers.is_empty()).then_some(joined.as_ref());
        let mut back = packed::add_norm_grad(&self.last_sum, &norm, out_grad, None, ask)?;
        gradients.insert(stack.final_norm.name.clone(), back.weight);
        for (i, (layer, step)) in stack.layers.iter().zip(&self.steps).enumerate().rev() {
            let site = self.first_site + 2 * i;
            let Some(branch) = back.branch else { candle_core::bail!("a layer has a branch") };
            let mask = masks.at(site + 1)?;
            let normed_grad = match (&layer.kind, &step.inside) {
                (Kind::SelfAttention { qkv, o }, Inside::Attention { projected, attended }) => {
                    let attended_grad = o.backward(&attended.out, &branch, gradients)?;
                    let projected_grad = packed::blank_like(projected)?;
                    let parts = |tensor| [0, 1, 2].map(|part| Columns { tensor, first: part * shape.inner });
                    let pull = Pull { inputs: parts(projected), grads: parts(&projected_grad) };
                    let sight = Sight {
                        queries: self.spans,
                        keys: self.spans,
                        heads: shape.heads,
                        causal: stack.causal,
                        mask: mask.as_ref(),
                    };
                    let bias = Some((&self.bias, bias_grad));
                    let added = packed::attention_grad(&pull, bias, &sight, attended, &attended_grad)?;
                    bias_grad = added.map_or_else(|| self.bias.zeros_like(), Ok)?;
                    qkv.backward(&step.normed, &projected_grad, gradients)?
                }
                (Kind::CrossAttention { q, o, block }, Inside::Attention { projected, attended }) => {
                    let Some((memory, memory_grad)) = memory else {
                        candle_core::bail!("a decoder needs an encoded source")
                    };
                    let attended_grad = o.backward(&attended.out, &branch, gradients)?;
                    let projected_grad = packed::blank_like(projected)?;
                    let [k, v] = Memory::columns(memory.kv, *block, shape.inner);
                    let [k_grad, v_grad] = Memory::columns(memory_grad, *block, shape.inner);
                    let query = |tensor| Columns { tensor, first: 0 };
                    let pull =
                        Pull { inputs: [query(projected), k, v], grads: [query(&projected_grad), k_grad, v_grad] };
                    let sight = Sight {
                        queries: self.spans,
                        keys: memory.spans,
                        heads: shape.heads,
                        causal: false,
                        mask: mask.as_ref(),
                    };
                    packed::attention_grad(&pull, None, &sight, attended, &attended_grad)?;
                    q.backward(&step.normed, &projected_grad, gradients)?
                }
                (Kind::FeedForward { input, output }, Inside::FeedForward { active }) => {
                    let active_grad = output.backward(active, &branch, gradients)?;
                    let input_grad = packed::relu_dropout_grad(active, active_grad, mask.as_ref())?;
                    input.backward(&step.normed, &input_grad, gradients)?
                }
                _ => candle_core::bail!("a layer goes back through what it did"),
            };
            let joined = masks.at(site)?;
            let norm = Norm { weight: &layer.norm.value, eps: shape.eps, scale: 1.0, mask: None, dtype: shape.dtype };
            let ask = (i > 0).then_some(joined.as_ref());
            back = packed::add_norm_grad(&step.sum, &norm, &normed_grad, Some(&back.x), ask)?;
            gradients.insert(layer.norm.name.clone(), back.weight);
        }
        let buckets = Tensor::zeros(stack.bias.value.shape(), DType::F32, device)?;
        gradients.insert(stack.bias.name.clone(), packed::embed_grad(&bias_grad, &self.distances, None, buckets)?);
        packed::embed_grad(&back.x, self.tokens, masks.at(self.first_site)?.as_ref(), table)
    }
}
