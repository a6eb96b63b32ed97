//! Counter-based random numbers: a value is a hash of a key and a position, so there is no state to share or to save.
//!
//! The generator keys the SplitMix64 sequence (Steele, Lea and Flood, *Fast Splittable Pseudorandom Number Generators*,
//! OOPSLA 2014) twice. With the 128-bit key $(k_0, k_1)$ of a stream, $\gamma$ = `0x9e3779b97f4a7c15` and Stafford's
//! finaliser *Mix13* written $m$, the value at counter $c$ is
//!
//! $$ u(c) = m\bigl(m(k_0 + (c + 1)\gamma) \oplus k_1\bigr). $$
//!
//! The second round makes two streams differ by more than an offset into one sequence. It is not a cryptographic
//! generator.

use rayon::prelude::*;

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
/// Values that one parallel task writes.
const BLOCK: usize = 1 << 13;

/// Stafford's variant 13 of the 64-bit Murmur finaliser, as in SplitMix64: a bijection that avalanches.
#[inline(always)]
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stateless source of random numbers: the value at a position depends on the seed, the stream and the position alone.
///
/// It is [`Copy`] and never changes, so threads share it freely and what is drawn does not depend on their number.
/// Every purpose takes its own [`stream`](Self::stream) or [`named`](Self::named) sub-stream; drawing the same counter
/// of the same stream twice gives the same value twice.
///
/// ```
/// use genrec_kernels::CounterRng;
///
/// let rng = CounterRng::new(42);
/// let weights = rng.named("encoder.block.0");
/// assert_eq!(weights.u64_at(7), CounterRng::new(42).named("encoder.block.0").u64_at(7));
/// assert_ne!(weights.u64_at(7), rng.named("encoder.block.1").u64_at(7));
/// assert!(rng.below(0, 6) < 6);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CounterRng {
    k0: u64,
    k1: u64,
}

impl CounterRng {
    /// The generator of a seed. Seeds that differ in any bit give unrelated values.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { k0: mix(seed ^ 0x243f_6a88_85a3_08d3), k1: mix(seed.wrapping_add(0x1319_8a2e_0370_7344)) }
    }

    /// The sub-stream of that number, unrelated to this generator and to every other sub-stream.
    #[must_use]
    pub fn stream(&self, stream: u64) -> Self {
        self.derive(stream, 0xa409_3822_299f_31d0)
    }

    /// The sub-stream of that name. Names and numbers do not meet: `named("1")` is not `stream(1)`.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        // FNV-1a, 64 bits, finalised by `derive`.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        self.derive(hash, 0x082e_fa98_ec4e_6c89)
    }

    fn derive(&self, stream: u64, domain: u64) -> Self {
        let k0 = mix(mix(stream.wrapping_add(domain)) ^ self.k0);
        let k1 = mix(mix(stream ^ domain.rotate_left(29)).wrapping_add(self.k1));
        Self { k0, k1: k1 ^ k0.rotate_left(32) }
    }

    /// 64 random bits at a position.
    #[inline(always)]
    #[must_use]
    pub fn u64_at(&self, counter: u64) -> u64 {
        mix(mix(self.k0.wrapping_add(counter.wrapping_add(1).wrapping_mul(GAMMA))) ^ self.k1)
    }

    /// 64 random bits at a position by one round instead of [`u64_at`](Self::u64_at)'s two: a SplitMix64 sequence that
    /// starts where the stream's key says. For masks, which are many and need no more.
    #[inline(always)]
    pub(crate) fn bits_at(&self, counter: u64) -> u64 {
        mix(self.bits_key().wrapping_add(counter.wrapping_add(1).wrapping_mul(GAMMA)))
    }

    /// The start of the sequence of [`bits_at`](Self::bits_at).
    #[inline(always)]
    pub(crate) const fn bits_key(&self) -> u64 {
        self.k0 ^ self.k1.rotate_left(17)
    }

    /// A uniform value in `[0, 1)`, a multiple of 2⁻²⁴.
    #[inline(always)]
    #[must_use]
    pub fn f32_at(&self, counter: u64) -> f32 {
        (self.u64_at(counter) >> 40) as f32 * (1.0 / (1u32 << 24) as f32)
    }

    /// A uniform value in `[0, 1)`, a multiple of 2⁻⁵³.
    #[inline(always)]
    #[must_use]
    pub fn f64_at(&self, counter: u64) -> f64 {
        (self.u64_at(counter) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A standard normal value, by the cosine branch of Box and Muller over the two halves of
    /// [`u64_at`](Self::u64_at); its magnitude is at most 6.8.
    #[inline]
    #[must_use]
    pub fn normal_at(&self, counter: u64) -> f32 {
        let bits = self.u64_at(counter);
        let scale = 1.0 / (1u64 << 32) as f64;
        let radius = ((bits >> 32) as f64 + 0.5) * scale;
        let angle = (bits & 0xffff_ffff) as f64 * scale;
        ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
    }

    /// A uniform integer in `0..n`, by Lemire's multiplication; 0 when `n` is 0. A value's probability is off by less
    /// than 2⁻⁶⁴.
    #[inline]
    #[must_use]
    pub fn below(&self, counter: u64, n: u64) -> u64 {
        ((u128::from(self.u64_at(counter)) * u128::from(n)) >> 64) as u64
    }

    /// A uniform permutation of `0..n`, by Fisher and Yates.
    #[must_use]
    pub fn permutation(&self, n: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n).collect();
        for i in (1..order.len()).rev() {
            let j = self.below(i as u64, i as u64 + 1) as usize;
            order.swap(i, j);
        }
        order
    }

    /// Writes [`f32_at`](Self::f32_at) of position `i` to `out[i]`, in parallel.
    pub fn fill_uniform(&self, out: &mut [f32]) {
        self.fill(out, Self::f32_at);
    }

    /// Writes [`normal_at`](Self::normal_at) of position `i` to `out[i]`, in parallel.
    pub fn fill_normal(&self, out: &mut [f32]) {
        self.fill(out, Self::normal_at);
    }

    fn fill(&self, out: &mut [f32], value: fn(&Self, u64) -> f32) {
        out.par_chunks_mut(BLOCK).enumerate().for_each(|(block, out)| {
            let start = (block * BLOCK) as u64;
            for (counter, slot) in (start..).zip(out) {
                *slot = value(self, counter);
            }
        });
    }
}

#[cfg(test)]
mod tests;
