//! Decoding on a GPU: what the tokens so far left stays where it was computed, and beams are an index of ancestors.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use genrec_kernels::Parameters;
use genrec_kernels::packed::{self, Columns, Norm, Past, PastTable, Sight, Spans};

use super::{
    scale, shape,
    stack::{Masks, Memory, Shape},
    weights::{Kind, Layers},
};
use crate::{
    batch::RaggedBatch,
    t5::{T5, config::T5Config},
};

/// The caches of one decoding run; everything large is shared by clones.
#[derive(Debug, Clone)]
pub(crate) struct Caches {
    /// Whose they are, over the weights as they were at the start.
    params: Parameters,
    layers: Arc<Layers>,
    shape: Shape,
    scale: f64,
    /// Keys and values of the encoded sources for all blocks.
    memory: Arc<Tensor>,
    sources: Arc<Spans>,
    /// The rows of each user, as queries, and the users' sources; `None` until they are asked for.
    groups: Option<Arc<(Spans, Spans)>>,
    past: Vec<Past>,
    device: Device,
}

impl Caches {
    /// Encodes the batch, which has been checked.
    pub(crate) fn new(model: &T5, batch: &RaggedBatch) -> Result<Self> {
        let (config, params, device): (&T5Config, _, _) = (&model.config, &model.params, model.params.device());
        let layers = model.packed_layers()?;
        let (tokens, sources) =
            (Tensor::new(batch.tokens(), device)?, Spans::new(batch.sequences().map(<[u32]>::len), device)?);
        let shape = shape(config, model.dtype);
        let encoded =
            layers.encoder.run(&layers.shared.value, (&tokens, &sources), None, (Masks::OFF, 0), shape, 1.0)?.out;
        Ok(Self {
            params: params.clone(),
            memory: Arc::new(layers.memory.forward(&encoded)?),
            layers,
            shape,
            scale: scale(config),
            sources: Arc::new(sources),
            groups: None,
            past: Vec::new(),
            device: device.clone(),
        })
    }

    pub(crate) fn position(&self) -> usize {
        self.past.len()
    }

    pub(crate) fn belong_to(&self, params: &Parameters) -> bool {
        self.params.shares_with(params)
    }

    /// Goes on from other rows; `users` says whether they may be rows of other users.
    pub(crate) fn select(&mut self, rows: &Tensor, users: bool) -> Result<()> {
        let rows = rows.flatten_all()?.to_device(&self.device)?.contiguous()?;
        if users {
            self.groups = None;
        }
        for past in &mut self.past {
            past.rows = Some(match &past.rows {
                Some(earlier) => earlier.index_select(&rows, 0)?,
                None => rows.clone(),
            });
        }
        Ok(())
    }

    /// Runs of rows of one user, and the users' sources.
    fn groups(&mut self, users: &[u32]) -> Result<Arc<(Spans, Spans)>> {
        if let Some(groups) = &self.groups {
            return Ok(Arc::clone(groups));
        }
        let runs: Vec<&[u32]> = users.chunk_by(|a, b| a == b).collect();
        let queries = Spans::new(runs.iter().map(|run| run.len()), &self.device)?;
        let of: Vec<u32> = runs.iter().filter_map(|run| run.first().copied()).collect();
        let groups = Arc::new((queries, self.sources.select(&of)?));
        self.groups = Some(Arc::clone(&groups));
        Ok(groups)
    }

    /// The log-probabilities of the next token of every row, `(rows, vocabulary)`.
    pub(crate) fn step(&mut self, users: &[u32], tokens: &Tensor) -> Result<Tensor> {
        let groups = self.groups(users)?;
        let (layers, shape) = (Arc::clone(&self.layers), self.shape);
        let stack = &layers.decoder;
        let position = self.past.len();
        let buckets = (0..=position)
            .map(|key| u32::try_from(stack.buckets.bucket(position, key)))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let bias = packed::embed(&stack.bias.value, &Tensor::new(buckets, &self.device)?, None)?;
        let tokens = tokens.to_device(&self.device)?;
        let mut x = packed::embed(&layers.shared.value, &tokens, None)?;
        let mut branch: Option<Tensor> = None;
        let earlier = PastTable::new(&self.past, &self.device)?;
        let mut left: Vec<Tensor> = Vec::new();
        for layer in &stack.layers {
            let joined = branch.as_ref().map(|branch| (branch, None));
            let (sum, normed) = packed::add_norm(&x, joined, &norm(&layer.norm.value, shape, 1.0))?;
            branch = Some(match &layer.kind {
                Kind::SelfAttention { qkv, o } => {
                    let projected = qkv.forward(&normed)?;
                    let attended = earlier.attend(left.len(), &projected, &bias)?;
                    left.push(projected);
                    o.forward(&attended)?
                }
                Kind::CrossAttention { q, o, block } => {
                    let projected = q.forward(&normed)?;
                    let (queries, keys) = &*groups;
                    let sight = Sight { queries, keys, heads: shape.heads, causal: false, mask: None };
                    let [k, v] = Memory::columns(&self.memory, *block, shape.inner);
                    let q = Columns { tensor: &projected, first: 0 };
                    o.forward(&packed::attention(q, k, v, shape.inner, None, &sight)?.out)?
                }
                Kind::FeedForward { input, output } => {
                    output.forward(&packed::relu_dropout(input.forward(&normed)?, None)?)?
                }
            });
            x = sum;
        }
        let branch = branch.as_ref().map(|branch| (branch, None));
        let (_, out) = packed::add_norm(&x, branch, &norm(&stack.final_norm.value, shape, self.scale))?;
        self.past.push(Past { projected: left, rows: None });
        packed::log_softmax(&layers.head.forward(&out)?)
    }
}

fn norm(weight: &Tensor, shape: Shape, scale: f64) -> Norm<'_> {
    Norm { weight, eps: shape.eps, scale, mask: None, dtype: shape.dtype }
}
