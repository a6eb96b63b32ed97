//! The nearest codeword of each vector.
//!
//! $\lVert x - c \rVert^2 = \lVert x \rVert^2 - 2 x \cdot c + \lVert c \rVert^2$, where the products are one matrix product
//! for a block of rows and the first term does not change which codeword is nearest. The codebook is packed once. Each
//! block of rows is one task: product and minimum stay in the cache, and the blocks do not depend on the number of
//! threads.
//!
//! Where the codewords lie far from the origin for their spread, the two terms left are large and nearly equal; a
//! codeword amid the others is then taken off both sides first, which changes no distance.

use candle_core::{D, DType, Result as TensorResult, Tensor, bail};
use rayon::prelude::*;

use crate::gemm::GemmError;
use crate::host;
use crate::matmul::{Panels, Target, View, padded, product};

/// Elements of the block of products that one task holds.
const PRODUCTS: usize = 1 << 14;

/// Most rows of a block: eight tiles of the product.
const ROWS: usize = 96;

/// Squared length of the codewords' mean, in units of their mean squared distance to it, above which they are far from
/// the origin: six of the 24 bits of an `f32` are then lost.
const FAR: f64 = 64.0;

/// What is wrong with the vectors or the codebook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NearestError {
    /// A slice is no whole number of vectors, or there is no codeword.
    #[error("{what} has {len} elements, which must be a positive multiple of the dimension {dim}")]
    Length {
        /// `x`, `codebook` or `codebooks`.
        what: &'static str,
        /// Elements given.
        len: usize,
        /// Dimension of a vector.
        dim: usize,
    },
    /// An output has no place for each row.
    #[error("{what} has {len} places, but there are {rows} vectors; give it one place for each")]
    Output {
        /// `out`, `out_codes` or `out_sq_dist`.
        what: &'static str,
        /// Places given.
        len: usize,
        /// Vectors in `x`.
        rows: usize,
    },
    /// More codewords than a `u32` counts.
    #[error("{codewords} codewords cannot be numbered by u32; split the codebook")]
    Codewords {
        /// Codewords in the codebook.
        codewords: usize,
    },
    /// The matrix product failed.
    #[error(transparent)]
    Gemm(#[from] GemmError),
}

/// Codewords prepared for many searches.
///
/// Ties go to the lowest index, and a row that holds NaN gets code 0. The choice is made in the expanded form in `f32`,
/// about a codeword amid the others where they are far from the origin. Results are the same at any number of threads.
///
/// ```
/// use genrec_kernels::nearest::Codebook;
///
/// let codebook = Codebook::new(&[0.0, 0.0, 1.0, 1.0], 2)?;
/// let (mut codes, mut distances) = ([0; 2], [0.0; 2]);
/// codebook.assign(&[0.9, 1.2, 0.1, 0.0], &mut codes, Some(&mut distances))?;
/// assert_eq!(codes, [1, 0]);
/// assert!((distances[1] - 0.01).abs() < 1e-6);
/// # Ok::<(), genrec_kernels::nearest::NearestError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Codebook {
    values: Vec<f32>,
    d: usize,
    /// `(d, codewords)`, less the centre.
    words: Panels,
    half_norms: Vec<f32>,
    centre: Option<Vec<f32>>,
}

/// What one thread searches with.
#[derive(Debug, Default)]
struct Buffers {
    products: Vec<f32>,
    moved: Vec<f32>,
    residual: Vec<f32>,
    codes: Vec<u32>,
}

impl Codebook {
    /// Prepares codewords, `(K, d)` row-major.
    ///
    /// # Errors
    /// [`NearestError`] when there is no codeword, the slice is no whole number of them, or there are too many.
    pub fn new(values: &[f32], d: usize) -> Result<Self, NearestError> {
        if d == 0 || values.is_empty() || !values.len().is_multiple_of(d) {
            return Err(NearestError::Length { what: "codebook", len: values.len(), dim: d });
        }
        let codewords = values.len() / d;
        if u32::try_from(codewords).is_err() {
            return Err(NearestError::Codewords { codewords });
        }
        let half_norms = |codebook: &[f32]| codebook.chunks_exact(d).map(|c| 0.5 * dot(c, c)).collect::<Vec<f32>>();
        let norms = half_norms(values);
        let centre = far_centre(values, d, &norms).map(<[f32]>::to_vec);
        let centred = centre.as_ref().map(|centre| minus(values, centre));
        let (near, half_norms) = match &centred {
            Some(centred) => (centred.as_slice(), half_norms(centred)),
            None => (values, norms),
        };
        let mut words = Panels::default();
        words.pack(View::new(near, codewords, d, d)?.t());
        Ok(Self { values: values.to_vec(), d, words, half_norms, centre })
    }

    /// Number of codewords.
    pub fn codewords(&self) -> usize {
        self.half_norms.len()
    }

    /// Dimension of a codeword.
    pub fn dim(&self) -> usize {
        self.d
    }

    /// The codeword of that index.
    pub fn word(&self, code: u32) -> Option<&[f32]> {
        self.values.chunks_exact(self.d).nth(code as usize)
    }

    /// Rows that one task takes.
    fn block(&self) -> usize {
        (PRODUCTS / self.codewords()).clamp(12, ROWS)
    }

    fn check(&self, x: &[f32], places: usize) -> Result<usize, NearestError> {
        if !x.len().is_multiple_of(self.d) {
            return Err(NearestError::Length { what: "x", len: x.len(), dim: self.d });
        }
        let rows = x.len() / self.d;
        if places != rows {
            return Err(NearestError::Output { what: "out_codes", len: places, rows });
        }
        Ok(rows)
    }

    /// Writes for each row of `x` the index of its nearest codeword and, if asked, the squared distance to it, which is
    /// computed from the difference of the two vectors and so does not suffer the cancellation of the expanded form.
    ///
    /// # Shapes
    /// `x`: `(n, d)` row-major; outputs: `(n,)`.
    ///
    /// # Errors
    /// [`NearestError`] when a slice does not fit.
    pub fn assign(
        &self,
        x: &[f32],
        out_codes: &mut [u32],
        out_sq_dist: Option<&mut [f32]>,
    ) -> Result<(), NearestError> {
        let rows = self.check(x, out_codes.len())?;
        if let Some(out) = &out_sq_dist
            && out.len() != rows
        {
            return Err(NearestError::Output { what: "out_sq_dist", len: out.len(), rows });
        }
        let block = self.block();
        x.par_chunks(block * self.d)
            .zip(out_codes.par_chunks_mut(block))
            .try_for_each_init(Buffers::default, |buffers, (x, codes)| self.assign_block(x, codes, buffers))?;
        if let Some(out) = out_sq_dist {
            x.par_chunks(self.d).zip(&*out_codes).zip(out).with_min_len(256).for_each(|((x, &code), out)| {
                let start = code as usize * self.d;
                *out = x.iter().zip(&self.values[start..start + self.d]).map(|(a, b)| (a - b) * (a - b)).sum();
            });
        }
        Ok(())
    }

    fn assign_block(&self, x: &[f32], codes: &mut [u32], buffers: &mut Buffers) -> Result<(), NearestError> {
        let Buffers { products, moved, .. } = buffers;
        let stride = padded(self.codewords());
        products.resize(products.len().max(codes.len() * stride), 0.0);
        let products = &mut products[..codes.len() * stride];
        let x = match &self.centre {
            None => x,
            Some(centre) => {
                moved.clear();
                moved.extend(x.chunks_exact(self.d).flat_map(|row| row.iter().zip(centre).map(|(v, c)| v - c)));
                moved
            }
        };
        product(View::new(x, codes.len(), self.d, self.d)?, &self.words, Target::set(products, stride).with_padding())?;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for (products, code) in products.chunks_exact(stride).zip(codes) {
                    *code = lowest(&products[..self.half_norms.len()], &self.half_norms);
                }
            },
        );
        Ok(())
    }
}

/// Greedy residual codes: at every level the nearest codeword is taken and subtracted.
///
/// # Shapes
/// `x`: `(n, d)` row-major; `codebooks`: one a level, all of dimension `d`; `out`: `(n, levels)`.
///
/// # Errors
/// [`NearestError`] when a slice or a codebook does not fit.
pub fn residual_codes(x: &[f32], codebooks: &[Codebook], out: &mut [u32]) -> Result<(), NearestError> {
    let Some(first) = codebooks.first() else {
        return Err(NearestError::Length { what: "codebooks", len: 0, dim: 0 });
    };
    let (d, levels) = (first.d, codebooks.len());
    if let Some(other) = codebooks.iter().find(|codebook| codebook.d != d) {
        return Err(NearestError::Length { what: "codebook", len: other.values.len(), dim: d });
    }
    if !out.len().is_multiple_of(levels) {
        return Err(NearestError::Output { what: "out", len: out.len(), rows: x.len() / d });
    }
    first.check(x, out.len() / levels)?;
    let block = codebooks.iter().map(Codebook::block).min().unwrap_or(1);
    x.par_chunks(block * d).zip(out.par_chunks_mut(block * levels)).try_for_each_init(
        Buffers::default,
        |buffers, (x, out)| {
            let rows = x.len() / d;
            let (mut residual, mut codes) = (std::mem::take(&mut buffers.residual), std::mem::take(&mut buffers.codes));
            residual.clear();
            residual.extend_from_slice(x);
            codes.resize(rows, 0);
            for (level, codebook) in codebooks.iter().enumerate() {
                codebook.assign_block(&residual, &mut codes, buffers)?;
                for ((residual, &code), out) in
                    residual.chunks_exact_mut(d).zip(&codes).zip(out.chunks_exact_mut(levels))
                {
                    out[level] = code;
                    if level + 1 < levels {
                        let word = &codebook.values[code as usize * d..][..d];
                        residual.iter_mut().zip(word).for_each(|(r, w)| *r -= w);
                    }
                }
            }
            (buffers.residual, buffers.codes) = (residual, codes);
            Ok(())
        },
    )
}

/// The codeword nearest to the codewords' mean where that is [`FAR`] from the origin for their spread. Taking off a
/// codeword rather than the mean keeps exact differences exact, and so ties ties.
fn far_centre<'a>(codebook: &'a [f32], d: usize, half_norms: &[f32]) -> Option<&'a [f32]> {
    let count = half_norms.len() as f64;
    let mut mean = vec![0f64; d];
    for word in codebook.chunks_exact(d) {
        mean.iter_mut().zip(word).for_each(|(m, &v)| *m += f64::from(v));
    }
    mean.iter_mut().for_each(|m| *m /= count);
    let length: f64 = mean.iter().map(|m| m * m).sum();
    let spread = half_norms.iter().map(|&h| 2.0 * f64::from(h)).sum::<f64>() / count - length;
    let distance = |word: &[f32]| word.iter().zip(&mean).map(|(&v, m)| (f64::from(v) - m).powi(2)).sum::<f64>();
    let closest = || codebook.chunks_exact(d).min_by(|a, b| distance(a).total_cmp(&distance(b)));
    (length > FAR * spread).then(closest).flatten()
}

/// Each row less the centre.
fn minus(rows: &[f32], centre: &[f32]) -> Vec<f32> {
    let mut moved = rows.to_vec();
    for row in moved.chunks_exact_mut(centre.len()) {
        row.iter_mut().zip(centre).for_each(|(v, c)| *v -= c);
    }
    moved
}

/// Index of the least `half_norm - product`, the first of equals.
#[inline(always)]
fn lowest(products: &[f32], half_norms: &[f32]) -> u32 {
    const LANES: usize = 16;
    let mut best = [f32::INFINITY; LANES];
    let mut index = [0u32; LANES];
    let mut start = 0u32;
    let (products, rest) = products.as_chunks::<LANES>();
    let (norms, rest_norms) = half_norms.as_chunks::<LANES>();
    for (p, h) in products.iter().zip(norms) {
        for lane in 0..LANES {
            let value = h[lane] - p[lane];
            let less = value < best[lane];
            best[lane] = if less { value } else { best[lane] };
            index[lane] = if less { start } else { index[lane] };
        }
        start += LANES as u32;
    }
    let (mut value, mut at) = (f32::INFINITY, 0);
    for lane in 0..LANES {
        let candidate = index[lane] + lane as u32;
        if best[lane] < value || (best[lane] == value && candidate < at && value < f32::INFINITY) {
            (value, at) = (best[lane], candidate);
        }
    }
    for (i, (p, h)) in (start..).zip(rest.iter().zip(rest_norms)) {
        if h - p < value {
            (value, at) = (h - p, i);
        }
    }
    at
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// [`Codebook::assign`] on tensors: the fused form for `f32` on the CPU, a composition ending in `argmin` elsewhere.
///
/// # Shapes
/// `x`: `(n, d)`; `codebook`: `(K, d)`. Returns `(n,)`, `u32`. No gradient passes.
///
/// # Errors
/// When the shapes do not fit or a tensor operation fails.
pub fn nearest_codes(x: &Tensor, codebook: &Tensor) -> TensorResult<Tensor> {
    let ((rows, d), (codewords, width)) = (x.dims2()?, codebook.dims2()?);
    if d != width || codewords == 0 {
        bail!("{codewords} codewords of dimension {width} cannot be compared with vectors of dimension {d}")
    }
    let fused = x.device().is_cpu() && x.dtype() == DType::F32 && codebook.dtype() == DType::F32;
    if fused && d > 0 {
        let codebook = host::read(codebook, |values| Codebook::new(values, d).map_err(candle_core::Error::wrap))?;
        let mut codes = vec![0u32; rows];
        host::read(x, |x| codebook.assign(x, &mut codes, None).map_err(candle_core::Error::wrap))?;
        return Tensor::from_vec(codes, rows, &candle_core::Device::Cpu);
    }
    // Always about the first codeword: whether they are far would have to be read back from the device.
    let centre = codebook.detach().narrow(0, 0, 1)?;
    let (x, codebook) = (x.detach().broadcast_sub(&centre)?, codebook.detach().broadcast_sub(&centre)?);
    let half_norms = (codebook.sqr()?.sum(D::Minus1)? * 0.5)?;
    half_norms.unsqueeze(0)?.broadcast_sub(&x.matmul(&codebook.t()?)?)?.argmin(D::Minus1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::CounterRng;

    /// A search with a codebook prepared for it alone.
    fn nearest(
        x: &[f32],
        d: usize,
        codebook: &[f32],
        codes: &mut [u32],
        distances: Option<&mut [f32]>,
    ) -> Result<(), NearestError> {
        Codebook::new(codebook, d)?.assign(x, codes, distances)
    }

    fn values(seed: u64, n: usize) -> Vec<f32> {
        let mut v = vec![0f32; n];
        CounterRng::new(seed).fill_normal(&mut v);
        v
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn equals_brute_force(seed: u64, n in 0usize..200, d in 1usize..40, k in 1usize..70) {
            let (x, codebook) = (values(seed, n * d), values(seed ^ 1, k * d));
            let (mut codes, mut dist) = (vec![0u32; n], vec![0f32; n]);
            nearest(&x, d, &codebook, &mut codes, Some(&mut dist)).unwrap();
            for (i, row) in x.chunks(d).enumerate() {
                let all: Vec<f64> = codebook
                    .chunks(d)
                    .map(|c| row.iter().zip(c).map(|(a, b)| f64::from(a - b).powi(2)).sum())
                    .collect();
                let least = all.iter().copied().fold(f64::INFINITY, f64::min);
                let got = all[codes[i] as usize];
                prop_assert!(got - least < 1e-4 * (1.0 + least), "row {i}: {got} is not {least}");
                prop_assert!((f64::from(dist[i]) - got).abs() < 1e-4 * (1.0 + got));
            }
        }
    }

    #[test]
    fn residual_codes_are_level_after_level() {
        let (n, d) = (500, 24);
        let x = values(1, n * d);
        let books: Vec<Codebook> =
            (2..5).map(|seed| Codebook::new(&values(seed, (30 + seed as usize) * d), d).unwrap()).collect();
        let mut codes = vec![0; n * 3];
        residual_codes(&x, &books, &mut codes).unwrap();
        let mut residual = x;
        for (level, book) in books.iter().enumerate() {
            let mut want = vec![0; n];
            book.assign(&residual, &mut want, None).unwrap();
            for ((row, &code), codes) in residual.chunks_mut(d).zip(&want).zip(codes.chunks(3)) {
                assert_eq!(codes[level], code);
                row.iter_mut().zip(book.word(code).unwrap()).for_each(|(r, w)| *r -= w);
            }
        }
    }

    #[test]
    fn ties_go_to_the_lowest_index() {
        // Three distinct codewords, repeated: equal values sit in different lanes and in the remainder.
        let codebook: Vec<f32> = (0..50).flat_map(|i| [f32::from((i % 3) as u8), 0.0]).collect();
        let mut codes = [9; 4];
        nearest(&[2.1, 0.0, 0.9, 0.0, -1.0, 0.0, 0.5, 0.0], 2, &codebook, &mut codes, None).unwrap();
        assert_eq!(codes, [2, 1, 0, 0]);
    }

    #[test]
    fn the_same_at_any_number_of_threads_and_on_tensors() {
        let (n, d, k) = (3000, 24, 77);
        let (x, codebook) = (values(1, n * d), values(2, k * d));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (mut codes, mut dist) = (vec![0u32; n], vec![0f32; n]);
            pool.install(|| nearest(&x, d, &codebook, &mut codes, Some(&mut dist))).unwrap();
            (codes, dist.iter().map(|v| v.to_bits()).collect::<Vec<_>>())
        };
        assert_eq!(run(1), run(2));
        let device = candle_core::Device::Cpu;
        let xt = Tensor::from_slice(&x, (n, d), &device).unwrap();
        let ct = Tensor::from_slice(&codebook, (k, d), &device).unwrap();
        let fused = nearest_codes(&xt, &ct).unwrap().to_vec1::<u32>().unwrap();
        assert_eq!(fused, run(1).0);
        let double = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
        let composed = nearest_codes(&double(&xt), &double(&ct)).unwrap().to_vec1::<u32>().unwrap();
        assert_eq!(fused, composed);
    }

    #[test]
    fn a_common_offset_does_not_blur_the_choice() {
        let (n, d, k) = (200, 768, 64);
        for offset in [0.0, 100.0, 1e4, -1e6] {
            let shifted = |seed| values(seed, d * k.max(n)).into_iter().map(|v| v + offset).collect::<Vec<f32>>();
            let (x, codebook) = (&shifted(1)[..n * d], &shifted(2)[..k * d]);
            let mut codes = vec![0u32; n];
            nearest(x, d, codebook, &mut codes, None).unwrap();
            for (row, &code) in x.chunks(d).zip(&codes) {
                let distance = |c: &[f32]| row.iter().zip(c).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
                let least = codebook.chunks(d).map(distance).fold(f64::INFINITY, f64::min);
                let got = distance(&codebook[code as usize * d..][..d]);
                assert!(got - least < 1e-3 * least, "offset {offset}: {got} is not {least}");
            }
        }
    }

    #[test]
    fn every_error_is_reached() {
        let mut codes = [0; 1];
        let run = |x: &[f32], d, c: &[f32], codes: &mut [u32]| nearest(x, d, c, codes, None);
        assert!(matches!(run(&[1.0], 0, &[1.0], &mut codes), Err(NearestError::Length { what: "codebook", .. })));
        assert!(matches!(run(&[1.0; 3], 2, &[1.0; 2], &mut codes), Err(NearestError::Length { what: "x", .. })));
        assert!(matches!(run(&[1.0], 1, &[], &mut codes), Err(NearestError::Length { what: "codebook", .. })));
        assert!(matches!(run(&[1.0; 2], 1, &[1.0], &mut codes), Err(NearestError::Output { rows: 2, .. })));
        let mut short = [];
        let result = nearest(&[1.0], 1, &[1.0], &mut codes, Some(&mut short));
        assert!(matches!(result, Err(NearestError::Output { what: "out_sq_dist", .. })));
        let books = [Codebook::new(&[1.0, 2.0], 2).unwrap(), Codebook::new(&[1.0], 1).unwrap()];
        let mut out = [0; 2];
        assert!(matches!(residual_codes(&[1.0; 2], &books, &mut out), Err(NearestError::Length { .. })));
        assert!(matches!(residual_codes(&[1.0; 2], &[], &mut out), Err(NearestError::Length { .. })));
        assert!(matches!(residual_codes(&[1.0; 2], &books[..1], &mut out), Err(NearestError::Output { .. })));
        let t = Tensor::zeros((2, 3), DType::F32, &candle_core::Device::Cpu).unwrap();
        assert!(nearest_codes(&t, &t.narrow(1, 0, 2).unwrap()).is_err());
    }
}
