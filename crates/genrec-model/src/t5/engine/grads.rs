//! Gradients under way: one flat buffer, a range a parameter.

use std::ops::Range;
use std::sync::Arc;

use genrec_kernels::matmul::Target;

/// The sum of the gradients of some of a batch's examples.
#[derive(Debug)]
pub(super) struct Grads {
    values: Vec<f32>,
    ranges: Arc<[Range<usize>]>,
    /// Whether nothing has been added yet: products then overwrite what an earlier batch left.
    fresh: bool,
}

impl Grads {
    pub(super) fn new(ranges: Arc<[Range<usize>]>) -> Self {
        let len = ranges.last().map_or(0, |range| range.end);
        Self { values: vec![0.0; len], ranges, fresh: true }
    }

    /// Starts a new sum. The parameters of `added`, whose gradients are always added to, are set to zero; those of the
    /// others are overwritten by the first product.
    pub(super) fn reset(&mut self, added: &[usize]) {
        self.fresh = true;
        for &id in added {
            self.get(id).fill(0.0);
        }
    }

    /// From now on products add.
    pub(super) fn keep(&mut self) {
        self.fresh = false;
    }

    /// The gradient of a parameter, to be added to.
    pub(super) fn get(&mut self, id: usize) -> &mut [f32] {
        &mut self.values[self.ranges[id].clone()]
    }

    /// The gradient of a parameter as the target of the one product that a chunk of examples adds to it.
    pub(super) fn target(&mut self, id: usize, stride: usize) -> Target<'_> {
        let fresh = self.fresh;
        let values = self.get(id);
        if fresh { Target::set(values, stride) } else { Target::add(values, stride) }
    }

    /// The whole sum, laid out by the ranges.
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }
}
