//! Gradients under way: one flat buffer, a range a parameter.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use genrec_kernels::matmul::Target;
use genrec_kernels::{Gradients, Parameters, vectorized};
use rayon::prelude::*;

/// Elements of the gradient that one task sums.
const REDUCE_BLOCK: usize = 1 << 16;

/// The sum of the gradients of some of a batch's examples.
#[derive(Debug)]
pub(crate) struct Grads {
    values: Vec<f32>,
    ranges: Arc<[Range<usize>]>,
    /// Whether nothing has been added yet: products then overwrite what an earlier batch left.
    fresh: bool,
}

impl Grads {
    pub(crate) fn new(ranges: Arc<[Range<usize>]>) -> Self {
        let len = ranges.last().map_or(0, |range| range.end);
        Self { values: vec![0.0; len], ranges, fresh: true }
    }

    /// Starts a new sum. The parameters of `added`, whose gradients are always added to, are set to zero; those of the
    /// others are overwritten by the first product.
    pub(crate) fn reset(&mut self, added: &[usize]) {
        self.fresh = true;
        for &id in added {
            self.get(id).fill(0.0);
        }
    }

    /// From now on products add.
    pub(crate) fn keep(&mut self) {
        self.fresh = false;
    }

    /// The gradient of a parameter, to be added to.
    pub(crate) fn get(&mut self, id: usize) -> &mut [f32] {
        &mut self.values[self.ranges[id].clone()]
    }

    /// The gradients of two parameters, to be added to. Empty where both are the same.
    pub(crate) fn pair(&mut self, a: usize, b: usize) -> (&mut [f32], &mut [f32]) {
        let ranges = [self.ranges[a].clone(), self.ranges[b].clone()];
        match self.values.get_disjoint_mut(ranges) {
            Ok([a, b]) => (a, b),
            Err(_) => (&mut [], &mut []),
        }
    }

    /// The gradient of a parameter as the target of the one product that a chunk of examples adds to it.
    pub(crate) fn target(&mut self, id: usize, stride: usize) -> Target<'_> {
        let fresh = self.fresh;
        let values = self.get(id);
        if fresh { Target::set(values, stride) } else { Target::add(values, stride) }
    }

    /// The whole sum, laid out by the ranges.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }
}

/// Where each parameter lies in the flat buffer.
pub(crate) fn ranges(params: &Parameters) -> Arc<[Range<usize>]> {
    let mut start = 0;
    params
        .iter()
        .map(|(_, weight)| {
            let range = start..start + weight.elem_count();
            start = range.end;
            range
        })
        .collect()
}

/// The flat buffers added up in their order, as a gradient a parameter.
pub(crate) fn sum(parts: &[&[f32]], ranges: &[Range<usize>], params: &Parameters) -> Result<Gradients> {
    let sums: Vec<Vec<f32>> = ranges
        .par_iter()
        .map(|range| {
            let mut sum = Vec::with_capacity(range.len());
            for start in range.clone().step_by(REDUCE_BLOCK) {
                let block = start..range.end.min(start + REDUCE_BLOCK);
                let first = sum.len();
                if let Some((head, rest)) = parts.split_first() {
                    sum.extend_from_slice(&head[block.clone()]);
                    vectorized(
                        #[inline(always)]
                        || {
                            for part in rest {
                                sum[first..].iter_mut().zip(&part[block.clone()]).for_each(|(s, v)| *s += v);
                            }
                        },
                    );
                }
            }
            sum
        })
        .collect();
    let mut gradients = Gradients::default();
    for ((name, var), sum) in params.iter().zip(sums) {
        gradients.insert(name, Tensor::from_vec(sum, var.shape(), &Device::Cpu)?);
    }
    Ok(gradients)
}
