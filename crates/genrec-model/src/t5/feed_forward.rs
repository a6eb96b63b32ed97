//! The position-wise network.

use candle_core::{Result, Tensor};
use genrec_kernels::graph;

use super::{config::FeedForwardKind, network::Source};
use crate::dropout::Dropout;

/// `W_o relu(W_i x)` or `W_o (gelu(W_0 x) * W_1 x)`.
#[derive(Debug, Clone)]
pub(crate) struct FeedForward {
    input: Tensor,
    gate: Option<Tensor>,
    output: Tensor,
}

impl FeedForward {
    pub(crate) fn new(kind: FeedForwardKind, source: &Source<'_>, prefix: &str) -> Result<Self> {
        let get = |name: &str| source.get(&format!("{prefix}.{name}.weight"));
        let (input, gate) = match kind {
            FeedForwardKind::Relu => (get("wi")?, None),
            FeedForwardKind::GatedGelu => (get("wi_1")?, Some(get("wi_0")?)),
        };
        Ok(Self { input, gate, output: get("wo")? })
    }

    /// # Shapes
    /// `xs`: `(.., d_model)`; the same comes back.
    pub(crate) fn forward(&self, xs: &Tensor, dropout: &Dropout) -> Result<Tensor> {
        let hidden = graph::linear(xs, &self.input)?;
        let hidden = match &self.gate {
            None => match dropout.next_site() {
                Some((rate, rng)) => graph::relu_dropout(&hidden, rate, &rng)?,
                None => graph::relu(&hidden)?,
            },
            Some(gate) => dropout.apply((graph::gelu_new(&graph::linear(xs, gate)?)? * hidden)?)?,
        };
        graph::linear(&hidden, &self.output)
    }
}
