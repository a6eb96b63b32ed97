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

/// The flat buffers added up by a binary tree of `width` leaves, as a gradient a parameter; zeros where there are none.
pub(crate) fn sum(parts: &[&[f32]], width: usize, ranges: &[Range<usize>], params: &Parameters) -> Result<Gradients> {
    let sums: Vec<Vec<f32>> = ranges
        .par_iter()
        .map(|range| {
            let mut sum = vec![0.0; range.len()];
            for (block, sum) in range.clone().step_by(REDUCE_BLOCK).zip(sum.chunks_mut(REDUCE_BLOCK)) {
                add_tree(parts, width, block, sum);
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

/// Writes to `out` the sum of the parts' values from `start` on: that of the first half of the leaves and that of the second. The last
/// leaves may have no part.
fn add_tree(parts: &[&[f32]], width: usize, start: usize, out: &mut [f32]) {
    match parts {
        [] => out.fill(0.0),
        [part] => out.copy_from_slice(&part[start..start + out.len()]),
        [a, b] if width == 2 => {
            let (a, b) = (&a[start..start + out.len()], &b[start..start + out.len()]);
            vectorized(
                #[inline(always)]
                || out.iter_mut().zip(a).zip(b).for_each(|((out, a), b)| *out = a + b),
            );
        }
        _ => {
            let (first, second) = parts.split_at(parts.len().min(width.div_ceil(2)));
            add_tree(first, width.div_ceil(2), start, out);
            if !second.is_empty() {
                let mut rest = vec![0.0; out.len()];
                add_tree(second, width / 2, start, &mut rest);
                vectorized(
                    #[inline(always)]
                    || out.iter_mut().zip(&rest).for_each(|(out, rest)| *out += rest),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What makes ranks equal to one: the halves of a tree are trees.
        #[test]
        fn halves_add_up_to_the_whole_bit_for_bit(count in 0_usize..=8, length in 1_usize..40) {
            let parts: Vec<Vec<f32>> = (0..count)
                .map(|part| (0..length).map(|i| ((part * 37 + i * 11) % 101) as f32 * 0.013 - 0.6).collect())
                .collect();
            let parts: Vec<&[f32]> = parts.iter().map(Vec::as_slice).collect();
            let tree = |parts: &[&[f32]], width| {
                let mut sum = vec![f32::NAN; length];
                add_tree(parts, width, 0, &mut sum);
                sum
            };
            let whole = tree(&parts, 8);
            let exact: Vec<f64> =
                (0..length).map(|i| parts.iter().map(|part| f64::from(part[i])).sum()).collect();
            prop_assert!(whole.iter().zip(&exact).all(|(sum, exact)| (f64::from(*sum) - exact).abs() < 1e-5));
            let (first, second) = parts.split_at(count.min(4));
            let halves: Vec<f32> = tree(first, 4).iter().zip(tree(second, 4)).map(|(a, b)| a + b).collect();
            prop_assert_eq!(halves, whole);
        }
    }
}
