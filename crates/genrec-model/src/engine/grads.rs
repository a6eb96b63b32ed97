//! Gradients under way: one flat buffer, a range a parameter.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use genrec_kernels::matmul::Target;
use genrec_kernels::{Gradients, Parameters, vectorized};
use rayon::prelude::*;

/// Elements of the gradient that are summed at once: they stay in the nearest caches.
const REDUCE_BLOCK: usize = 1 << 13;

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

/// The flat buffers at the leaves of a binary tree added up, as a gradient a parameter; zeros where there are none.
pub(crate) fn sum(leaves: &[Option<&[f32]>], ranges: &[Range<usize>], params: &Parameters) -> Result<Gradients> {
    let sums: Vec<Vec<f32>> = ranges
        .par_iter()
        .map(|range| {
            let mut sum = vec![0.0; range.len()];
            for (block, sum) in range.clone().step_by(REDUCE_BLOCK).zip(sum.chunks_mut(REDUCE_BLOCK)) {
                add_tree(leaves, block, sum);
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

/// Writes to `out` the sum of the leaves' values from `start` on: that of their first half and that of their second. Leaves it as it is,
/// and says so, where there are none.
fn add_tree(leaves: &[Option<&[f32]>], start: usize, out: &mut [f32]) -> bool {
    let (first, second) = match leaves {
        [] | [None] => return false,
        [Some(leaf)] => {
            out.copy_from_slice(&leaf[start..start + out.len()]);
            return true;
        }
        _ => leaves.split_at(leaves.len().div_ceil(2)),
    };
    if !add_tree(first, start, out) {
        return add_tree(second, start, out);
    }
    let mut rest;
    let rest = if let [Some(leaf)] = second {
        &leaf[start..start + out.len()]
    } else {
        rest = vec![0.0; out.len()];
        if !add_tree(second, start, &mut rest) {
            return true;
        }
        &rest
    };
    vectorized(
        #[inline(always)]
        || out.iter_mut().zip(rest).for_each(|(out, rest)| *out += rest),
    );
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What makes ranks equal to one: the halves of a tree are trees.
        #[test]
        fn halves_add_up_to_the_whole_bit_for_bit(there in prop::array::uniform8(any::<bool>()), length in 1_usize..40) {
            let parts: Vec<Vec<f32>> = (0..8)
                .map(|part| (0..length).map(|i| ((part * 37 + i * 11) % 101) as f32 * 0.013 - 0.6).collect())
                .collect();
            let leaves: Vec<Option<&[f32]>> =
                parts.iter().zip(there).map(|(part, there)| there.then_some(part.as_slice())).collect();
            let tree = |leaves: &[Option<&[f32]>]| {
                let mut sum = vec![0.0; length];
                assert_eq!(add_tree(leaves, 0, &mut sum), leaves.iter().any(Option::is_some));
                sum
            };
            let whole = tree(&leaves);
            let exact = |i: usize| leaves.iter().flatten().map(|part| f64::from(part[i])).sum::<f64>();
            prop_assert!(whole.iter().enumerate().all(|(i, sum)| (f64::from(*sum) - exact(i)).abs() < 1e-5));
            let (first, second) = leaves.split_at(4);
            let halves: Vec<f32> = tree(first).iter().zip(tree(second)).map(|(a, b)| a + b).collect();
            prop_assert_eq!(halves, whole);
        }
    }
}
