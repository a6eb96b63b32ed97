//! The nearest codeword of each vector.
//!
//! $\lVert x - c \rVert^2 = \lVert x \rVert^2 - 2 x \cdot c + \lVert c \rVert^2$, where the products are one matrix product
//! for a block of rows and the first term does not change which codeword is nearest. The codebook is packed once. Each
//! block of rows is one task: product and minimum stay in the cache, and the blocks do not depend on the number of
//! threads.
//!
//! Processors with a matrix unit (AMX) or dot products of `bf16` (AVX512-BF16) compute the products in `bf16` first, which leaves
//! one codeword for most rows; what is within the error of those products is compared in `f32`. The codeword found is the nearest
//! either way, to the rounding of `f32`.
//!
//! Where the codewords lie far from the origin for their spread, the two terms left are large and nearly equal; a
//! codeword amid the others is then taken off both sides first, which changes no distance.

use std::sync::OnceLock;

use candle_core::{D, DType, Result as TensorResult, Tensor, bail};
use rayon::prelude::*;

use crate::gemm::GemmError;
use crate::host;
use crate::math::{dots, vectorized};
use crate::matmul::{Panels, Target, View, padded, product};

mod distances;
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
mod half;
#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
#[path = "nearest/no_half.rs"]
mod half;
mod lloyd;
mod lowest;
mod residual;

pub use self::{lloyd::ClusterSums, residual::residual_codes};

/// Elements of the block of products that one task holds: they stay in a first-level cache until the least is found.
const PRODUCTS: usize = 1 << 13;

/// Rows of a tile of the product; a block is a whole number of them.
const TILE: usize = 12;

/// Most rows of a block.
const ROWS: usize = 96;

/// Values of a codebook above which it does not stay, in `bf16`, in the second-level cache beside the rows.
const WIDE: usize = 1 << 16;

/// Products of a block by such a codebook: they leave the first-level cache, so that the codewords are read for fewer blocks.
const WIDE_PRODUCTS: usize = 1 << 15;

/// Squared length of the codewords' mean, in units of their mean squared distance to it, above which they are far from
/// the origin: six of the 24 bits of an `f32` are then lost.
const FAR: f64 = 64.0;

/// The same where products are screened in `bf16`, whose eight bits have none to lose, and where distances are wanted, not
/// their order alone.
const FAR_IN_BF16: f64 = 1.0;

/// Codewords a row that may be left by the screening, on average over a block; beyond, the block is multiplied in `f32`.
const FEW: usize = 16;

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
    /// There is not one place for the distance of each vector to each codeword.
    #[error(
        "out has {len} places, but there are {rows} vectors and {codewords} codewords; give it one for each of both"
    )]
    Distances {
        /// Places given.
        len: usize,
        /// Vectors in `x`.
        rows: usize,
        /// Codewords in the codebook.
        codewords: usize,
    },
    /// A code is that of no codeword.
    #[error("row {row} has code {code}, but there are {codewords} codewords")]
    Code {
        /// The row.
        row: usize,
        /// Its code.
        code: u32,
        /// Codewords in the codebook.
        codewords: usize,
    },
    /// There are no sums to add to, or they are of another codebook.
    #[error("{shares} sums were given; give at least one, each for {codewords} codewords of dimension {dim}")]
    Shares {
        /// Sums given.
        shares: usize,
        /// Codewords in the codebook.
        codewords: usize,
        /// Dimension of a codeword.
        dim: usize,
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
    words: Words,
    /// Half of the squared lengths of the codewords, less the centre; infinite up to the width of a row of products.
    half_norms: Vec<f32>,
    centre: Option<Centre>,
}

/// The codewords, less the centre, as products with them are computed.
#[derive(Clone, Debug)]
enum Words {
    /// `(d, codewords)`.
    Exact(Panels),
    /// And the first form, from the first block on for which this one was no use.
    Half(half::Words, OnceLock<Panels>),
}

/// What is taken off both sides.
#[derive(Clone, Debug)]
struct Centre {
    word: Vec<f32>,
    /// The codewords less that one.
    words: Vec<f32>,
}

/// What one thread searches with.
#[derive(Debug, Default)]
struct Buffers {
    half: half::Buffers,
    /// Rows with more than one codeword within the error of the products, and those codewords.
    unsure: Vec<(u32, u32)>,
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
        Self::with_half(values, d, true)
    }

    /// The same for [`distances`](Self::distances) alone: not prepared for what only searches need.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_distances(values: &[f32], d: usize) -> Result<Self, NearestError> {
        Self::prepare(values, d, false, FAR_IN_BF16)
    }

    fn with_half(values: &[f32], d: usize, half: bool) -> Result<Self, NearestError> {
        Self::prepare(values, d, half, if half && half::takes(d) { FAR_IN_BF16 } else { FAR })
    }

    fn prepare(values: &[f32], d: usize, half: bool, far: f64) -> Result<Self, NearestError> {
        if d == 0 || values.is_empty() || !values.len().is_multiple_of(d) {
            return Err(NearestError::Length { what: "codebook", len: values.len(), dim: d });
        }
        let codewords = values.len() / d;
        if u32::try_from(codewords).is_err() {
            return Err(NearestError::Codewords { codewords });
        }
        let half_norms = |codebook: &[f32]| codebook.chunks_exact(d).map(|c| 0.5 * dot(c, c)).collect::<Vec<f32>>();
        let norms = half_norms(values);
        let centre = far_centre(values, d, &norms, far);
        let centre = centre.map(|word| Centre { word: word.to_vec(), words: minus(values, word) });
        let (near, mut half_norms) = match &centre {
            Some(centre) => (centre.words.as_slice(), half_norms(&centre.words)),
            None => (values, norms),
        };
        let words = match half.then(|| half::Words::new(near, d, &half_norms)).flatten() {
            Some(words) => Words::Half(words, OnceLock::new()),
            None => Words::Exact(panels(near, d)?),
        };
        half_norms.resize(padded(codewords).next_multiple_of(half::BLOCK), f32::INFINITY);
        Ok(Self { values: values.to_vec(), d, words, half_norms, centre })
    }

    /// Number of codewords.
    pub fn codewords(&self) -> usize {
        self.values.len() / self.d
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
        let fit = PRODUCTS / self.codewords();
        let (tile, rows) = match &self.words {
            Words::Exact(_) => (TILE, fit),
            Words::Half(..) if self.values.len() > WIDE => (half::BLOCK, WIDE_PRODUCTS / self.codewords()),
            Words::Half(..) => (half::BLOCK, fit),
        };
        rows.clamp(tile, ROWS) / tile * tile
    }

    /// Rows less the centre, which they share with the codewords.
    fn moved<'a>(&self, x: &'a [f32], place: &'a mut Vec<f32>) -> &'a [f32] {
        let Some(Centre { word, .. }) = &self.centre else { return x };
        place.clear();
        place.extend(x.chunks_exact(self.d).flat_map(|row| row.iter().zip(word).map(|(v, c)| v - c)));
        place
    }

    /// The codewords less the centre.
    fn near(&self) -> &[f32] {
        self.centre.as_ref().map_or(&self.values, |centre| &centre.words)
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
        let Buffers { products, moved, half, unsure, .. } = buffers;
        let stride = self.half_norms.len();
        let len = codes.len().next_multiple_of(half::BLOCK) * stride;
        products.resize(products.len().max(len), 0.0);
        let x = self.moved(x, moved);
        match &self.words {
            Words::Exact(panels) => self.assign_exactly(panels, x, codes, products)?,
            Words::Half(words, exact) => {
                words.products(x, stride, &mut products[..len], half);
                unsure.clear();
                let slack = |row| words.slack(row, half);
                let within = lowest::Within { slack, lengths: words.lengths(), unsure };
                lowest::lowest_within(products, &self.half_norms, codes, within);
                if unsure.len() <= FEW * codes.len() {
                    self.lowest_of_few(x, unsure, codes);
                    return Ok(());
                }
                self.assign_exactly(self.made(exact)?, x, codes, products)?;
            }
        }
        Ok(())
    }

    /// The first form of the codewords, packed when it is first asked for.
    fn made<'a>(&self, exact: &'a OnceLock<Panels>) -> Result<&'a Panels, NearestError> {
        match exact.get() {
            Some(panels) => Ok(panels),
            None => {
                let made = panels(self.near(), self.d)?;
                Ok(exact.get_or_init(|| made))
            }
        }
    }

    fn assign_exactly(
        &self,
        panels: &Panels,
        x: &[f32],
        codes: &mut [u32],
        products: &mut [f32],
    ) -> Result<(), NearestError> {
        let stride = self.half_norms.len();
        let products = &mut products[..codes.len() * stride];
        // The products end before the row does, where the norms are infinite; what stands there must be a number.
        products.chunks_exact_mut(stride).for_each(|row| row[padded(self.codewords())..].fill(0.0));
        let rows = View::new(x, codes.len(), self.d, self.d)?;
        product(rows, panels, Target::set(products, stride).with_padding())?;
        lowest::lowest(products, &self.half_norms, codes);
        Ok(())
    }

    /// The nearest of the codewords that are left for each row, in `f32`. They come row by row.
    fn lowest_of_few(&self, x: &[f32], unsure: &[(u32, u32)], codes: &mut [u32]) {
        // Sums that do not wait for each other.
        const AT_ONCE: usize = 4;
        let (d, words) = (self.d, self.near());
        vectorized(
            #[inline(always)]
            || {
                for few in unsure.chunk_by(|a, b| a.0 == b.0) {
                    let row = few[0].0 as usize;
                    let x = &x[row * d..][..d];
                    let (mut code, mut least) = (0, f32::INFINITY);
                    for some in few.chunks(AT_ONCE) {
                        // Rows of no number leave all, the codewords' padding too, which is infinitely far.
                        let word = |at: usize| {
                            let candidate = some.get(at).map_or(0, |&(_, candidate)| candidate as usize);
                            words.get(candidate * d..(candidate + 1) * d).unwrap_or(&words[..d])
                        };
                        let products = dots(x, std::array::from_fn::<_, AT_ONCE, _>(word));
                        for (&(_, candidate), product) in some.iter().zip(products) {
                            let distance = self.half_norms[candidate as usize] - product;
                            if distance < least {
                                (code, least) = (candidate, distance);
                            }
                        }
                    }
                    codes[row] = code;
                }
            },
        );
    }
}

fn panels(words: &[f32], d: usize) -> Result<Panels, NearestError> {
    let mut panels = Panels::default();
    panels.pack(View::new(words, words.len() / d, d, d)?.t());
    Ok(panels)
}

/// The codeword nearest to the codewords' mean where that is `far` from the origin for their spread. Taking off a
/// codeword rather than the mean keeps exact differences exact, and so ties ties.
fn far_centre<'a>(codebook: &'a [f32], d: usize, half_norms: &[f32], far: f64) -> Option<&'a [f32]> {
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
    (length > far * spread).then(closest).flatten()
}

/// Each row less the centre.
fn minus(rows: &[f32], centre: &[f32]) -> Vec<f32> {
    let mut moved = rows.to_vec();
    for row in moved.chunks_exact_mut(centre.len()) {
        row.iter_mut().zip(centre).for_each(|(v, c)| *v -= c);
    }
    moved
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
    // Always: whether they are far would have to be read back from the device.
    let (x, codebook) = about_the_middle(&x.detach(), &codebook.detach())?;
    let half_norms = (codebook.sqr()?.sum(D::Minus1)? * 0.5)?;
    half_norms.unsqueeze(0)?.broadcast_sub(&x.matmul(&codebook.t()?)?)?.argmin(D::Minus1)
}

/// Rows and codewords less the codeword nearest to the mean of all, which changes no distance between them and keeps them
/// apart in the precision of their type wherever they lie. As codewords stand amid the rows, exact differences stay exact.
///
/// # Shapes
/// `x`: `(n, d)`; `codebook`: `(K, d)`, of at least one codeword. Returns the same.
///
/// # Errors
/// When the shapes do not fit or a tensor operation fails.
pub fn about_the_middle(x: &Tensor, codebook: &Tensor) -> TensorResult<(Tensor, Tensor)> {
    let from_mean = codebook.broadcast_sub(&codebook.mean_keepdim(0)?)?;
    let middle = codebook.index_select(&from_mean.sqr()?.sum(D::Minus1)?.argmin_keepdim(0)?, 0)?;
    Ok((x.broadcast_sub(&middle)?, codebook.broadcast_sub(&middle)?))
}

#[cfg(test)]
mod tests;
