//! Dropout whose mask is a hash of the element's position.

use std::ops::Range;

use candle_core::{Device, Result, Tensor, bail};
use rayon::prelude::*;

use crate::rng::CounterRng;

/// Elements that a parallel task of [`DropoutMask::tensor`] fills; a whole number of blocks.
const TASK: usize = 1 << 13;

/// Elements whose bits are drawn together.
const BLOCK: usize = 128;

/// Hashes of a block: each gives 16 bits to four elements.
const WORDS: usize = BLOCK / 4;

/// The mask of one dropout: element `i` is kept if 16 bits hashed from `i` are at least a threshold.
///
/// The probability is rounded to a multiple of 2⁻¹⁶, and kept elements are scaled by the rounded one, so that the mean is
/// exact. Nothing is stored: the backward pass asks the same positions again.
#[derive(Clone, Copy, Debug)]
pub struct DropoutMask {
    rng: CounterRng,
    threshold: u16,
    scale: f32,
}

impl DropoutMask {
    /// The mask of probability `p`; `None` when nothing is dropped.
    ///
    /// # Errors
    /// When `p` is outside `[0, 1)`.
    pub fn new(p: f64, rng: &CounterRng) -> Result<Option<Self>> {
        const ONE: f64 = 65_536.0;
        if !(0.0..1.0).contains(&p) {
            bail!("the dropout probability is {p}, but must be in [0, 1)")
        }
        let threshold = (p * ONE).round().min(ONE - 1.0);
        if threshold == 0.0 {
            return Ok(None);
        }
        Ok(Some(Self { rng: *rng, threshold: threshold as u16, scale: (1.0 / (1.0 - threshold / ONE)) as f32 }))
    }

    /// The probability of dropping, as it was rounded.
    pub(crate) fn probability(&self) -> f32 {
        f32::from(self.threshold) / 65_536.0
    }

    /// What a kept element is multiplied by.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// What a kernel on a device needs to draw the same factors: the key of the hashes, the threshold and the scale.
    pub(crate) fn parts(&self) -> (u64, u32, f32) {
        (self.rng.bits_key(), u32::from(self.threshold), self.scale)
    }

    /// The factors of one block. The four lanes of the hashes follow one another, so that every loop runs over
    /// neighbours.
    #[inline(always)]
    fn fill(&self, block: usize, out: &mut [f32; BLOCK]) {
        let mut words = [0u64; WORDS];
        let first = (block * WORDS) as u64;
        for (word, counter) in words.iter_mut().zip(first..) {
            *word = self.rng.bits_at(counter);
        }
        let threshold = u32::from(self.threshold);
        for (lane, out) in out.as_chunks_mut::<WORDS>().0.iter_mut().enumerate() {
            for (out, word) in out.iter_mut().zip(&words) {
                let bits = (word >> (16 * lane)) as u32 & 0xffff;
                *out = if bits >= threshold { self.scale } else { 0.0 };
            }
        }
    }

    /// Calls `f(range, factors)` for parts of the `len` elements from position `start` on, the range counting from zero; a
    /// factor is 0 or [`scale`](Self::scale).
    #[inline(always)]
    pub fn for_each(&self, start: usize, len: usize, mut f: impl FnMut(Range<usize>, &[f32])) {
        let mut factors = [0f32; BLOCK];
        let mut done = 0;
        while done < len {
            let at = start + done;
            let skip = at % BLOCK;
            self.fill(at / BLOCK, &mut factors);
            let count = (BLOCK - skip).min(len - done);
            f(done..done + count, &factors[skip..skip + count]);
            done += count;
        }
    }

    /// `out[i] = f(x[i], factor)` for the elements from position `start` on.
    #[inline(always)]
    pub(crate) fn map(&self, start: usize, x: &[f32], out: &mut [f32], f: impl Fn(f32, f32) -> f32) {
        self.for_each(start, out.len(), |range, factors| {
            for ((out, x), factor) in out[range.clone()].iter_mut().zip(&x[range]).zip(factors) {
                *out = f(*x, *factor);
            }
        });
    }

    /// The factors of the elements from zero on, as a tensor on the CPU.
    pub(crate) fn tensor(&self, dims: &[usize]) -> Result<Tensor> {
        let mut values = vec![0f32; dims.iter().product()];
        values.par_chunks_mut(TASK).enumerate().for_each(|(task, values)| {
            self.for_each(task * TASK, values.len(), |range, factors| values[range].copy_from_slice(factors));
        });
        Tensor::from_vec(values, dims, &Device::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_has_one_factor_wherever_the_range_starts() {
        let mask = DropoutMask::new(0.3, &CounterRng::new(5)).unwrap().unwrap();
        let mut all = vec![0f32; 1000];
        mask.for_each(0, 1000, |range, factors| all[range].copy_from_slice(factors));
        assert!((mask.scale() - 1.0 / 0.7).abs() < 1e-4);
        let kept = all.iter().filter(|&&factor| factor > 0.0).count();
        assert!((600..800).contains(&kept), "{kept}");
        assert!(all.iter().all(|&factor| factor == 0.0 || factor == mask.scale()));
        for (start, len) in [(0, 0), (1, 1), (1, 300), (127, 2), (128, 129), (501, 499)] {
            let mut part = vec![9f32; len];
            mask.for_each(start, len, |range, factors| part[range].copy_from_slice(factors));
            assert_eq!(part, all[start..start + len], "{start} {len}");
        }
    }

    #[test]
    fn the_share_of_dropped_elements_is_the_probability_and_the_mean_one() {
        for (seed, p) in [(1, 0.1), (2, 0.5), (3, 0.9)] {
            let mask = DropoutMask::new(p, &CounterRng::new(seed)).unwrap().unwrap();
            let n = 1 << 20;
            let (mut dropped, mut sum, mut pairs, mut last) = (0u32, 0f64, 0u32, false);
            mask.for_each(0, n, |_, factors| {
                for &factor in factors {
                    let zero = factor == 0.0;
                    dropped += u32::from(zero);
                    pairs += u32::from(zero && last);
                    last = zero;
                    sum += f64::from(factor);
                }
            });
            let n = n as f64;
            assert!((f64::from(dropped) / n - p).abs() < 5.0 * (p * (1.0 - p) / n).sqrt(), "{p}: {dropped}");
            assert!((sum / n - 1.0).abs() < 5.0 * (p / (1.0 - p) / n).sqrt(), "{p}: {sum}");
            // Neighbours are independent.
            assert!((f64::from(pairs) / n - p * p).abs() < 10.0 * (p * p / n).sqrt(), "{p}: {pairs}");
        }
    }

    #[test]
    fn only_probabilities_below_one() {
        let rng = CounterRng::new(0);
        assert!(DropoutMask::new(0.0, &rng).unwrap().is_none());
        for p in [-0.1, 1.0, f64::NAN] {
            assert!(DropoutMask::new(p, &rng).is_err());
        }
    }
}
