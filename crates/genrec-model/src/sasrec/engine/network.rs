//! The layers of the model over packed weights.

use std::collections::BTreeMap;

use candle_core::{Error, Result, Tensor, bail};
use genrec_kernels::{Parameters, host};

use super::{
    attention::AttentionLayer,
    feed_forward::FeedForward,
    layers::{Dense, Norm, Vector},
};
use crate::{
    engine::layers::Linear,
    sasrec::{
        config::SasRecConfig,
        weights::{FINAL_NORM, ITEMS, POSITIONS},
    },
};

/// One block.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) attention: AttentionLayer,
    pub(super) feed_forward: FeedForward,
}

/// The whole model.
#[derive(Debug)]
pub(super) struct Network {
    /// `(items, d_model)`.
    pub(super) table: Vector,
    /// The same table, packed as the output layer.
    pub(super) head: Linear,
    /// `(max_len, d_model)`.
    pub(super) positions: Vector,
    pub(super) blocks: Vec<Block>,
    pub(super) final_norm: Norm,
    added: Vec<usize>,
    pub(super) items: usize,
    pub(super) d_model: usize,
    pub(super) max_len: usize,
}

/// The dropout site of the embeddings.
pub(super) const FIRST_SITE: u64 = 0;
/// Dropout sites of a block.
const SITES: u64 = 3;

/// Looks parameters up by their names.
struct Names<'a> {
    ids: BTreeMap<&'a str, (usize, &'a [usize])>,
    config: &'a SasRecConfig,
}

impl Names<'_> {
    fn find(&self, name: &str) -> Result<(usize, &[usize])> {
        match self.ids.get(name) {
            Some(found) => Ok(*found),
            None => bail!("the model has no weight `{name}`"),
        }
    }

    fn vector(&self, name: &str) -> Result<Vector> {
        let (id, dims) = self.find(name)?;
        Ok(Vector { id, values: vec![0.0; dims.iter().product()] })
    }

    fn dense(&self, name: &str, biased: bool) -> Result<Dense> {
        let (id, dims) = self.find(&format!("{name}.weight"))?;
        let bias = if biased { Some(self.vector(&format!("{name}.bias"))?) } else { None };
        Ok(Dense { linear: Linear::new(id, dims), bias })
    }

    fn norm(&self, name: &str) -> Result<Norm> {
        Ok(Norm {
            weight: self.vector(&format!("{name}.weight"))?,
            bias: self.vector(&format!("{name}.bias"))?,
            epsilon: self.config.layer_norm_epsilon as f32,
        })
    }

    fn block(&self, index: usize) -> Result<Block> {
        let name = |layer: &str| format!("blocks.{index}.{layer}");
        let site = FIRST_SITE + 1 + SITES * index as u64;
        let placement = self.config.norm;
        let attention = AttentionLayer {
            norm: self.norm(&name("attention_norm"))?,
            placement,
            q: self.dense(&name("attention.q"), true)?,
            k: self.dense(&name("attention.k"), false)?,
            v: self.dense(&name("attention.v"), true)?,
            heads: self.config.num_heads,
            d_head: self.config.d_head(),
            site,
        };
        let feed_forward = FeedForward {
            norm: self.norm(&name("feed_forward_norm"))?,
            placement,
            input: self.dense(&name("feed_forward.input"), true)?,
            output: self.dense(&name("feed_forward.output"), true)?,
            site: site + 1,
        };
        Ok(Block { attention, feed_forward })
    }
}

impl Network {
    /// The layers of a configuration, their weights to be read by [`load`](Self::load).
    pub(super) fn new(config: &SasRecConfig, params: &Parameters) -> Result<Self> {
        let ids = params.iter().enumerate().map(|(id, (name, var))| (name, (id, var.dims()))).collect();
        let names = Names { ids, config };
        let (id, dims) = names.find(ITEMS)?;
        let mut network = Self {
            table: names.vector(ITEMS)?,
            head: Linear::new(id, dims),
            positions: names.vector(POSITIONS)?,
            blocks: (0..config.num_layers).map(|index| names.block(index)).collect::<Result<_>>()?,
            final_norm: names.norm(FINAL_NORM)?,
            added: Vec::new(),
            items: config.items,
            d_model: config.d_model,
            max_len: config.max_len,
        };
        network.added = network.weights().0.into_iter().map(|vector| vector.id).collect();
        Ok(network)
    }

    /// Every vector, and every matrix that is packed.
    fn weights(&mut self) -> (Vec<&mut Vector>, Vec<&mut Linear>) {
        let mut vectors = vec![&mut self.table, &mut self.positions];
        let mut matrices = Vec::new();
        let mut norms = vec![&mut self.final_norm];
        for Block { attention, feed_forward } in &mut self.blocks {
            norms.extend([&mut attention.norm, &mut feed_forward.norm]);
            let AttentionLayer { q, k, v, .. } = attention;
            for dense in [q, k, v, &mut feed_forward.input, &mut feed_forward.output] {
                vectors.extend(&mut dense.bias);
                matrices.push(&mut dense.linear);
            }
        }
        for norm in norms {
            vectors.extend([&mut norm.weight, &mut norm.bias]);
        }
        (vectors, matrices)
    }

    /// Reads every weight and packs the matrices; for both directions when `training`.
    pub(super) fn load(&mut self, params: &Parameters, training: bool) -> Result<()> {
        let values: Vec<&Tensor> = params.iter().map(|(_, weight)| weight).collect();
        let (vectors, matrices) = self.weights();
        for vector in vectors {
            host::read(values[vector.id], |values| {
                vector.values.copy_from_slice(values);
                Ok(())
            })?;
        }
        for matrix in matrices {
            host::read(values[matrix.id], |values| matrix.pack(values, training).map_err(Error::wrap))?;
        }
        // The gradient of the states reads the table itself, whose rows are long enough.
        self.head.pack(&self.table.values, false).map_err(Error::wrap)
    }

    /// Parameters whose gradients are always added to: not those of one product alone.
    pub(super) fn added(&self) -> &[usize] {
        &self.added
    }
}
