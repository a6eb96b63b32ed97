//! Codebooks in the space of the (preprocessed) rows: what the k-means quantisers have in common once they are fitted.

use std::collections::BTreeMap;

use candle_core::{Device, Result as TensorResult, Tensor};

use crate::Result;
use crate::coding::{Coding, Search, decode};
use crate::encoder::{HostEncoder, LazyEncoder, on_host};
use crate::input::{check_costs, check_input};
use crate::preprocess::{Preprocess, Steps};
use crate::saved::{expect_shapes, matrix};

/// Name of a level's codebook in a file.
pub(crate) fn codebook_name(level: usize) -> String {
    format!("codebooks.{level}")
}

/// Preprocessing, codebooks, and how they make up a row.
#[derive(Clone, Debug)]
pub(crate) struct Coder {
    dim: usize,
    preprocess: Preprocess,
    codebooks: Vec<Tensor>,
    coding: Coding,
    device: Device,
    encoder: LazyEncoder,
}

impl Coder {
    pub(crate) fn new(
        dim: usize,
        preprocess: Preprocess,
        codebooks: Vec<Tensor>,
        coding: Coding,
        device: &Device,
    ) -> Self {
        Self { dim, preprocess, codebooks, coding, device: device.clone(), encoder: LazyEncoder::default() }
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn codebooks(&self) -> &[Tensor] {
        &self.codebooks
    }

    fn books(&self) -> Vec<&Tensor> {
        self.codebooks.iter().collect()
    }

    fn host_encoder(&self) -> TensorResult<&HostEncoder> {
        self.encoder.get(|| {
            let width = self.preprocess.projection().map_or(self.dim, |projection| projection.width());
            HostEncoder::new(self.dim, &self.preprocess, [], Search::new(self.coding, width, &self.codebooks)?)
        })
    }

    pub(crate) fn encode(&self, xs: &Tensor) -> TensorResult<Tensor> {
        check_input(xs, self.dim)?;
        if on_host(&self.device, xs) {
            return self.host_encoder()?.encode_tensor(xs);
        }
        if self.coding.beam > 1 {
            // Beams are followed on the host.
            return self.host_encoder()?.encode_tensor(&xs.to_device(&Device::Cpu)?)?.to_device(xs.device());
        }
        self.coding.encode(&self.preprocess.apply(xs)?, &self.books())
    }

    pub(crate) fn encode_slice(&self, xs: &[f32], codes: &mut [u32]) -> TensorResult<bool> {
        if !self.device.is_cpu() {
            return Ok(false);
        }
        self.host_encoder()?.encode(xs, codes)?;
        Ok(true)
    }

    pub(crate) fn reconstruct(&self, codes: &Tensor) -> TensorResult<Tensor> {
        self.preprocess.invert(&decode(self.coding.composition, codes, &self.books())?)
    }

    pub(crate) fn code_costs(&self, xs: &Tensor, prefix: &[u32]) -> TensorResult<Tensor> {
        check_input(xs, self.dim)?;
        check_costs(self.coding.costs(&self.preprocess.apply(xs)?, &self.books(), prefix)?)
    }

    pub(crate) fn tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors: BTreeMap<_, _> =
            self.codebooks.iter().enumerate().map(|(level, book)| (codebook_name(level), book.clone())).collect();
        self.preprocess.tensors(&mut tensors);
        tensors
    }

    /// The shapes of [`tensors`](Self::tensors).
    pub(crate) fn shapes(steps: Steps, dim: usize, sizes: &[u32], coding: Coding) -> BTreeMap<String, Vec<usize>> {
        let columns = coding.composition.columns(steps.width(dim), sizes.len());
        let mut shapes: BTreeMap<_, _> = sizes
            .iter()
            .zip(columns)
            .enumerate()
            .map(|(level, (&size, columns))| (codebook_name(level), vec![size as usize, columns.len()]))
            .collect();
        Preprocess::shapes(steps, dim, &mut shapes);
        shapes
    }

    /// From tensors of these `shapes`.
    pub(crate) fn load(
        dim: usize,
        tensors: &BTreeMap<String, Tensor>,
        shapes: &BTreeMap<String, Vec<usize>>,
        levels: usize,
        coding: Coding,
        device: &Device,
    ) -> Result<Self> {
        expect_shapes(tensors, shapes)?;
        let codebooks =
            (0..levels).map(|level| matrix(tensors, &codebook_name(level), device)).collect::<Result<_>>()?;
        Ok(Self::new(dim, Preprocess::load(tensors, device)?, codebooks, coding, device))
    }
}
