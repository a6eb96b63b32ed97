//! Scores of all items for the next place of a history.

use candle_core::{Result, Tensor};
use genrec_kernels::graph;

use super::{SasRec, input::histories, train::Padded};
use crate::{batch::RaggedBatch, dropout::Dropout, seq2seq::ItemScorer};

/// Histories whose states the graph computes at once.
const AT_ONCE: usize = 256;

/// The product of the state at the last position with the embedding of each item, section III-D of the paper; its softmax is
/// the model's distribution of the next item where it was trained by
/// [`FullCrossEntropy`](super::SasRecLoss::FullCrossEntropy).
///
/// The last [`max_len`](super::SasRecConfig::max_len) items of a history are read. An empty history scores 0 for every item.
/// Items of the history stay in the ranking. The scores are on the model's device; on the CPU, histories are shared out
/// over the threads, and a history's scores do not depend on the others.
impl ItemScorer for SasRec {
    fn scores(&self, batch: &RaggedBatch) -> Result<Tensor> {
        let histories = histories(batch, &self.config)?;
        if let Some(engine) = &self.engine {
            return engine.scores(&histories);
        }
        let network = self.network(false);
        let (table, device) = (network.table()?, self.params.device());
        let mut parts = Vec::new();
        for histories in histories.chunks(AT_ONCE) {
            let read: Vec<&[u32]> = histories.iter().copied().filter(|history| !history.is_empty()).collect();
            let width = self.config.d_model;
            // A row of zeros before the states, for histories without any.
            let mut states = vec![Tensor::zeros((1, width), table.dtype(), device)?];
            if !read.is_empty() {
                states.push(Padded::new(&read, true, self)?.states(network, &Dropout::off())?);
            }
            let mut next = 0;
            let rows = histories.iter().map(|history| {
                next += u32::from(!history.is_empty());
                if history.is_empty() { 0 } else { next }
            });
            let rows = Tensor::from_iter(rows, device)?;
            let states = graph::embedding(&Tensor::cat(&states, 0)?, &rows)?;
            parts.push(graph::linear(&states, &table)?);
        }
        Tensor::cat(&parts, 0)
    }
}
