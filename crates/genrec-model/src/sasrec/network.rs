//! The layers on candle's graph: what other devices run, and the oracle of the CPU's engine.

use candle_core::{Result, Tensor};
use genrec_kernels::Parameters;
use genrec_kernels::graph::{self, AttentionOptions};

use super::{
    config::{NormPlacement, SasRecConfig},
    weights::{FINAL_NORM, ITEMS, POSITIONS},
};
use crate::dropout::Dropout;

/// The layers over weights that are tracked by autograd or detached from it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Network<'a> {
    pub(super) config: &'a SasRecConfig,
    pub(super) params: &'a Parameters,
    pub(super) tracked: bool,
}

impl Network<'_> {
    fn get(&self, name: &str) -> Result<Tensor> {
        match self.params.get(name) {
            Some(weight) if self.tracked => Ok(weight.clone()),
            Some(weight) => Ok(weight.detach()),
            None => candle_core::bail!("the model has no weight `{name}`"),
        }
    }

    /// The embeddings of all items, `(items, d_model)`.
    pub(super) fn table(&self) -> Result<Tensor> {
        self.get(ITEMS)
    }

    fn norm(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (self.get(&format!("{name}.weight"))?, self.get(&format!("{name}.bias"))?);
        graph::layer_norm(x, &weight, &bias, self.config.layer_norm_epsilon)
    }

    fn dense(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        graph::linear(x, &self.get(&format!("{name}.weight"))?)?.broadcast_add(&self.get(&format!("{name}.bias"))?)
    }

    /// The state of each position, of which the scores are products with the items.
    ///
    /// # Shapes
    /// `items`, `positions`: `(rows, length)`, `u32`; rows may be filled up at their end. Returns
    /// `(rows, length, d_model)`.
    pub(super) fn forward(&self, items: &Tensor, positions: &Tensor, dropout: &Dropout) -> Result<Tensor> {
        let scale = (self.config.d_model as f64).sqrt();
        let embedded = (graph::embedding(&self.table()?, items)? * scale)?;
        let mut x = dropout.apply((embedded + graph::embedding(&self.get(POSITIONS)?, positions)?)?)?;
        for block in 0..self.config.num_layers {
            x = self.attention(&format!("blocks.{block}"), &x, dropout)?;
            x = self.feed_forward(&format!("blocks.{block}"), &x, dropout)?;
        }
        self.norm(FINAL_NORM, &x)
    }

    fn attention(&self, block: &str, x: &Tensor, dropout: &Dropout) -> Result<Tensor> {
        let normed = self.norm(&format!("{block}.attention_norm"), x)?;
        let (source, base) = match self.config.norm {
            NormPlacement::Queries => (x, &normed),
            NormPlacement::Branches => (&normed, x),
        };
        let (heads, d_head) = (self.config.num_heads, self.config.d_head());
        let split = |x: Tensor| -> Result<Tensor> {
            let (rows, length, _) = x.dims3()?;
            x.reshape((rows, length, heads, d_head))?.transpose(1, 2)?.contiguous()
        };
        let q = split(self.dense(&format!("{block}.attention.q"), &normed)?)?;
        let k = split(graph::linear(source, &self.get(&format!("{block}.attention.k.weight"))?)?)?;
        let v = split(self.dense(&format!("{block}.attention.v"), source)?)?;
        let scale = (d_head as f64).sqrt().recip();
        let mut options = AttentionOptions::default().with_causal(true).with_scale(scale);
        if let Some((rate, rng)) = dropout.next_site() {
            options = options.with_dropout(rate, rng);
        }
        base + graph::attention(&q, &k, &v, &options)?.transpose(1, 2)?.reshape(x.shape())?
    }

    fn feed_forward(&self, block: &str, x: &Tensor, dropout: &Dropout) -> Result<Tensor> {
        let normed = self.norm(&format!("{block}.feed_forward_norm"), x)?;
        let inner = self.dense(&format!("{block}.feed_forward.input"), &normed)?;
        let hidden = match dropout.next_site() {
            Some((rate, rng)) => graph::relu_dropout(&inner, rate, &rng)?,
            None => graph::relu(&inner)?,
        };
        let branch = dropout.apply(self.dense(&format!("{block}.feed_forward.output"), &hidden)?)?;
        match self.config.norm {
            NormPlacement::Queries => normed + branch,
            NormPlacement::Branches => x + branch,
        }
    }
}
