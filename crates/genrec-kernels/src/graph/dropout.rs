//! Dropout whose mask is a hash of the element's position.

use candle_core::{Device, Result, Tensor, bail};
use rayon::prelude::*;

use crate::rng::CounterRng;

/// The mask of one dropout: element `i` is kept if 32 bits hashed from `i` are at least `threshold`.
#[derive(Clone, Copy, Debug)]
pub(super) struct DropoutMask {
    rng: CounterRng,
    threshold: u32,
    scale: f32,
}

impl DropoutMask {
    /// `None` when nothing is dropped.
    pub(super) fn new(p: f64, rng: &CounterRng) -> Result<Option<Self>> {
        if !(0.0..1.0).contains(&p) {
            bail!("the dropout probability is {p}, but must be in [0, 1)")
        }
        let threshold = (p * (1u64 << 32) as f64) as u32;
        if threshold == 0 {
            return Ok(None);
        }
        Ok(Some(Self { rng: *rng, threshold, scale: (1.0 / (1.0 - p)) as f32 }))
    }

    /// Calls `f(i, factor)` for each element of a block that starts at the even position `start`; the factor is 0 or
    /// 1 / (1 - p).
    #[inline(always)]
    pub(super) fn for_each(&self, start: usize, len: usize, mut f: impl FnMut(usize, f32)) {
        let factor = |bits: u32| if bits >= self.threshold { self.scale } else { 0.0 };
        let first = (start / 2) as u64;
        for pair in 0..len / 2 {
            let bits = self.rng.u64_at(first + pair as u64);
            f(2 * pair, factor(bits as u32));
            f(2 * pair + 1, factor((bits >> 32) as u32));
        }
        if len % 2 == 1 {
            f(len - 1, factor(self.rng.u64_at(first + (len / 2) as u64) as u32));
        }
    }

    /// The factors as a tensor.
    pub(super) fn tensor(&self, dims: &[usize], device: &Device) -> Result<Tensor> {
        let mut values = vec![0f32; dims.iter().product()];
        values.par_chunks_mut(super::BLOCK).enumerate().for_each(|(block, values)| {
            self.for_each(block * super::BLOCK, values.len(), |i, factor| values[i] = factor);
        });
        Tensor::from_vec(values, dims, device)
    }
}
