//! Signs of random projections (Charikar, *Similarity Estimation Techniques from Rounding Algorithms*, STOC 2002).

use rayon::prelude::*;

use crate::gemm::GemmError;
use crate::math::vectorized;
use crate::matmul::{Panels, Target, View, padded, product};

/// Rows that one task hashes.
const ROWS: usize = 96;

/// Bits of a word of a hash.
pub const WORD: usize = 64;

/// Hyperplanes prepared for many vectors. Bit `i` of a hash says whether the vector lies on the positive side of
/// hyperplane `i`: two vectors at angle $\theta$ differ in each bit with probability $\theta / \pi$ where the normals are
/// drawn from a normal distribution.
///
/// ```
/// use genrec_kernels::simhash::SimHash;
///
/// let hash = SimHash::new(&[1.0, 0.0, 0.0, 1.0, -1.0, 0.0], 2)?;
/// let mut words = [0; 2];
/// hash.hash(&[1.0, 2.0, -3.0, -1.0], &mut words)?;
/// assert_eq!(words, [0b011, 0b100]);
/// # Ok::<(), genrec_kernels::gemm::GemmError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SimHash {
    /// `(d, bits)`.
    planes: Panels,
}

impl SimHash {
    /// Prepares hyperplanes by their normals, `(bits, d)` row-major.
    ///
    /// # Errors
    /// [`GemmError::Length`] when the slice is no whole number of normals, or holds none.
    pub fn new(normals: &[f32], d: usize) -> Result<Self, GemmError> {
        let bits = normals.len().checked_div(d).unwrap_or(0);
        if bits == 0 || bits * d != normals.len() {
            let (expected, got) = (bits.max(1) * d.max(1), normals.len());
            return Err(GemmError::Length { operand: "normals", rows: bits, cols: d, expected, got });
        }
        let mut planes = Panels::default();
        planes.pack(View::new(normals, bits, d, d)?.t());
        Ok(Self { planes })
    }

    /// Number of hyperplanes.
    pub fn bits(&self) -> usize {
        self.planes.cols()
    }

    /// Words of 64 bits that a hash takes.
    pub fn words(&self) -> usize {
        self.bits().div_ceil(WORD)
    }

    /// Hashes each row: bit `i` is bit `i % 64` of word `i / 64`, the rest is zero.
    ///
    /// # Shapes
    /// `x`: `(n, d)` row-major; `out`: `(n, words)`.
    ///
    /// # Errors
    /// [`GemmError::Length`] when a slice does not fit.
    pub fn hash(&self, x: &[f32], out: &mut [u64]) -> Result<(), GemmError> {
        let (d, words, stride) = (self.planes.rows(), self.words(), padded(self.bits()));
        let rows = x.len() / d;
        if rows * d != x.len() || rows * words != out.len() {
            return Err(GemmError::Length {
                operand: "x",
                rows,
                cols: d,
                expected: out.len() / words * d,
                got: x.len(),
            });
        }
        x.par_chunks(ROWS * d).zip(out.par_chunks_mut(ROWS * words)).try_for_each_init(
            || vec![0f32; ROWS * stride],
            |products, (x, out)| {
                let rows = x.len() / d;
                let products = &mut products[..rows * stride];
                product(View::new(x, rows, d, d)?, &self.planes, Target::set(products, stride).with_padding())?;
                vectorized(
                    #[inline(always)]
                    || {
                        for (products, out) in products.chunks_exact(stride).zip(out.chunks_exact_mut(words)) {
                            for (values, word) in products[..self.bits()].chunks(WORD).zip(out) {
                                *word = signs(values);
                            }
                        }
                    },
                );
                Ok(())
            },
        )
    }
}

/// One bit a value: whether it is above zero.
#[inline(always)]
fn signs(values: &[f32]) -> u64 {
    values.iter().enumerate().fold(0, |word, (bit, &value)| word | (u64::from(value > 0.0) << bit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::CounterRng;

    fn values(seed: u64, n: usize) -> Vec<f32> {
        let mut v = vec![0f32; n];
        CounterRng::new(seed).fill_normal(&mut v);
        v
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn bits_are_the_signs_of_the_products(n in 0usize..200, d in 1usize..40, bits in 1usize..150) {
            let (x, normals) = (values(1, n * d), values(2, bits * d));
            let hash = SimHash::new(&normals, d).unwrap();
            let mut out = vec![u64::MAX; n * hash.words()];
            hash.hash(&x, &mut out).unwrap();
            for (row, words) in x.chunks(d).zip(out.chunks(hash.words())) {
                for bit in 0..hash.words() * WORD {
                    let got = words[bit / WORD] >> (bit % WORD) & 1 == 1;
                    let product = |normal: &[f32]| row.iter().zip(normal).map(|(a, b)| f64::from(a * b)).sum::<f64>();
                    let value = normals.chunks(d).nth(bit).map_or(-1.0, product);
                    prop_assert!(got == (value > 0.0) || value.abs() < 1e-5, "bit {bit}: {value}");
                }
            }
        }
    }

    #[test]
    fn the_share_of_differing_bits_is_the_angle() {
        let (d, bits) = (16, 4096);
        let hash = SimHash::new(&values(3, bits * d), d).unwrap();
        let mut x = vec![0f32; 2 * d];
        (x[0], x[d], x[d + 1]) = (1.0, 1.0, 1.0);
        let mut out = vec![0; 2 * hash.words()];
        hash.hash(&x, &mut out).unwrap();
        let (a, b) = out.split_at(hash.words());
        let differing: u32 = a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert!((f64::from(differing) / bits as f64 - 0.25).abs() < 0.03, "{differing}");
    }

    #[test]
    fn misfits_are_errors() {
        for (normals, d) in [(3, 2), (0, 2), (2, 0)] {
            assert!(SimHash::new(&vec![1.0; normals], d).is_err());
        }
        let hash = SimHash::new(&[1.0; 4], 2).unwrap();
        assert!(hash.hash(&[1.0; 3], &mut [0; 1]).is_err());
        assert!(hash.hash(&[1.0; 4], &mut [0; 1]).is_err());
    }
}
