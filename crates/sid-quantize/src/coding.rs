//! How codebooks make up a row, and the search for the codes that do it best.

use std::ops::Range;

use candle_core::{DType, Device, Error, Result, Tensor, bail};
use genrec_kernels::host;
use genrec_kernels::nearest::{Codebook, NearestError, about_the_middle, nearest_codes, residual_codes};
use serde::{Deserialize, Serialize};

use crate::beam::BeamSearch;

/// How the codebooks of the levels make up a vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Composition {
    /// The vector is the sum of its codewords: each level codes what the levels before it leave, from coarse to fine.
    #[default]
    Residual,
    /// The vector is the concatenation of its codewords: each level codes a part of the columns, the first parts one
    /// column wider where the columns cannot be shared evenly. No level is coarser than another.
    Partitioned,
}

/// What makes a codeword near.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Distance {
    /// The squared Euclidean distance.
    #[default]
    Euclidean,
    /// One minus the cosine of the angle. The codeword itself, not its direction, is what is subtracted and
    /// reconstructed.
    Cosine,
}

/// Everything about a search but the codebooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coding {
    pub(crate) composition: Composition,
    pub(crate) distance: Distance,
    /// Prefixes that are followed at once; 0 and 1 are greedy. Of Euclidean residual coding alone.
    pub(crate) beam: usize,
}

impl Composition {
    /// The columns that each of so many levels codes.
    pub(crate) fn columns(self, width: usize, levels: usize) -> Vec<Range<usize>> {
        match self {
            Self::Residual => vec![0..width; levels],
            Self::Partitioned => {
                let edge = |level: usize| level * (width / levels.max(1)) + level.min(width % levels.max(1));
                (0..levels).map(|level| edge(level)..edge(level + 1)).collect()
            }
        }
    }
}

/// A codebook whose codewords all have length 1, or 0 where they had.
pub(crate) fn directions(codebook: &Tensor) -> Result<Tensor> {
    // By the largest value first: the squares of what f32 can hold are beyond it. Where a length is 0 so is the codeword.
    let least = f64::from(f32::MIN_POSITIVE);
    let scaled = codebook.broadcast_div(&codebook.abs()?.max_keepdim(1)?.maximum(least)?)?;
    scaled.broadcast_div(&scaled.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(least)?)
}

impl Coding {
    /// The codewords that a row is compared with.
    fn compared(self, codebook: &Tensor) -> Result<Tensor> {
        match self.distance {
            Distance::Euclidean => Ok(codebook.clone()),
            Distance::Cosine => directions(codebook),
        }
    }

    /// The nearest codeword of each row, `(n,)` u32.
    pub(crate) fn nearest(self, xs: &Tensor, codebook: &Tensor) -> Result<Tensor> {
        // Among directions the nearest is that at the smallest angle, however long the row is.
        nearest_codes(xs, &self.compared(codebook)?)
    }

    /// The codes of each row, tensor by tensor: on any device and in any precision.
    ///
    /// # Shapes
    /// - `xs`: `(n, width)`; each codebook `(k, columns of its level)`; result `(n, levels)`, u32
    pub(crate) fn encode(self, xs: &Tensor, codebooks: &[&Tensor]) -> Result<Tensor> {
        let on_host = |t: &Tensor| t.device().is_cpu() && t.dtype() == DType::F32;
        if on_host(xs) && codebooks.iter().all(|codebook| on_host(codebook)) {
            let search = Search::new(self, xs.dim(1)?, codebooks.iter().copied())?;
            return search.encode(&xs.to_device(&Device::Cpu)?)?.to_device(xs.device());
        }
        let mut residual = xs.clone();
        let mut codes = Vec::new();
        for (level, (codebook, columns)) in
            codebooks.iter().zip(self.composition.columns(xs.dim(1)?, codebooks.len())).enumerate()
        {
            let part = residual.narrow(1, columns.start, columns.len())?.contiguous()?;
            let found = self.nearest(&part, codebook)?;
            if self.composition == Composition::Residual && level + 1 < codebooks.len() {
                residual = (residual - codebook.index_select(&found, 0)?)?;
            }
            codes.push(found);
        }
        Tensor::stack(&codes, 1)
    }

    /// What each code of the next level would cost each row after a prefix of codes.
    ///
    /// # Shapes
    /// - `xs`: `(n, width)`; result `(n, codes of the level)`, f32
    pub(crate) fn costs(self, xs: &Tensor, codebooks: &[&Tensor], prefix: &[u32]) -> Result<Tensor> {
        let level = prefix.len();
        let Some(codebook) = codebooks.get(level) else {
            bail!("a prefix of {level} codes leaves no level of {} to code", codebooks.len());
        };
        let columns = self.composition.columns(xs.dim(1)?, codebooks.len())[level].clone();
        let mut rows = xs.narrow(1, columns.start, columns.len())?;
        for (&code, codebook) in prefix.iter().zip(codebooks) {
            let word = word(codebook, code)?;
            if self.composition == Composition::Residual {
                rows = rows.broadcast_sub(&word)?;
            }
        }
        self.distances(&rows, codebook)
    }

    /// How far each row is from each codeword.
    ///
    /// # Shapes
    /// - `rows`: `(n, columns)`; `codebook`: `(k, columns)`; result `(n, k)`, none below 0
    pub(crate) fn distances(self, rows: &Tensor, codebook: &Tensor) -> Result<Tensor> {
        let compared = self.compared(codebook)?;
        if self.distance == Distance::Cosine {
            let length = rows.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(f64::from(f32::MIN_POSITIVE))?;
            let cosines = rows.contiguous()?.matmul(&compared.t()?)?.broadcast_div(&length)?;
            return cosines.affine(-1.0, 1.0)?.relu();
        }
        if [rows, codebook].into_iter().all(|t| t.device().is_cpu() && t.dtype() == DType::F32) {
            let codebook = for_distances(codebook)?;
            let shape = (rows.dim(0)?, codebook.codewords());
            let mut out = vec![0.0; shape.0 * shape.1];
            host::read(rows, |rows| codebook.distances(rows, &mut out).map_err(Error::wrap))?;
            return Tensor::from_vec(out, shape, &Device::Cpu);
        }
        // Far from the origin the terms are large and nearly equal.
        let (rows, words) = about_the_middle(rows, codebook)?;
        let squares = |t: &Tensor| t.sqr()?.sum(1);
        let products = rows.matmul(&words.t()?)?.affine(-2.0, 0.0)?;
        products.broadcast_add(&squares(&words)?.unsqueeze(0)?)?.broadcast_add(&squares(&rows)?.unsqueeze(1)?)?.relu()
    }
}

/// One codeword, `(1, columns)`.
fn word(codebook: &Tensor, code: u32) -> Result<Tensor> {
    if code as usize >= codebook.dim(0)? {
        bail!("code {code} is not in a codebook of {} codes", codebook.dim(0)?);
    }
    codebook.narrow(0, code as usize, 1)
}

/// The vector that the codes of each row stand for.
///
/// # Shapes
/// - `codes`: `(n, levels)`, u32; each codebook `(k, columns of its level)`; result `(n, width)`
pub(crate) fn decode(composition: Composition, codes: &Tensor, codebooks: &[&Tensor]) -> Result<Tensor> {
    let (_, levels) = codes.dims2()?;
    if levels != codebooks.len() || levels == 0 {
        bail!("codes have {levels} levels, the quantiser has {}", codebooks.len());
    }
    let words = |level: usize| -> Result<Tensor> {
        codebooks[level].index_select(&codes.narrow(1, level, 1)?.flatten_all()?.contiguous()?, 0)
    };
    match composition {
        Composition::Residual => (1..levels).try_fold(words(0)?, |sum, level| sum + words(level)?),
        Composition::Partitioned => Tensor::cat(&(0..levels).map(words).collect::<Result<Vec<_>>>()?, 1),
    }
}

/// A codebook `(codes, dim)` ready for many searches on the host.
pub(crate) fn prepared(codebook: &Tensor) -> Result<Codebook> {
    on_the_host(codebook, Codebook::new)
}

/// A codebook `(codes, dim)` ready to be compared with rows on the host.
pub(crate) fn for_distances(codebook: &Tensor) -> Result<Codebook> {
    on_the_host(codebook, Codebook::for_distances)
}

fn on_the_host(
    codebook: &Tensor,
    prepare: fn(&[f32], usize) -> std::result::Result<Codebook, NearestError>,
) -> Result<Codebook> {
    let (_, d) = codebook.dims2()?;
    host::read(&codebook.to_device(&Device::Cpu)?, |values| prepare(values, d).map_err(Error::wrap))
}

/// Codebooks ready for many rows on the host.
#[derive(Debug)]
pub(crate) struct Search {
    coding: Coding,
    width: usize,
    columns: Vec<Range<usize>>,
    codebooks: Vec<Codebook>,
    /// What rows are compared with, where that is not the codewords themselves.
    compared: Option<Vec<Codebook>>,
    beam: Option<BeamSearch>,
}

impl Search {
    pub(crate) fn new<'a>(
        coding: Coding,
        width: usize,
        codebooks: impl IntoIterator<Item = &'a Tensor>,
    ) -> Result<Self> {
        let tensors: Vec<&Tensor> = codebooks.into_iter().collect();
        let columns = coding.composition.columns(width, tensors.len());
        let codebooks = tensors.iter().map(|codebook| prepared(codebook)).collect::<Result<Vec<_>>>()?;
        if let Some((book, columns)) =
            codebooks.iter().zip(&columns).find(|(book, columns)| book.dim() != columns.len())
        {
            bail!("codewords of {} columns cannot code {}", book.dim(), columns.len());
        }
        let compared = match coding.distance {
            Distance::Euclidean => None,
            Distance::Cosine => {
                Some(tensors.iter().map(|codebook| prepared(&directions(codebook)?)).collect::<Result<_>>()?)
            }
        };
        let beam = match coding.beam > 1 {
            true => Some(BeamSearch::new(coding.beam, &tensors)?),
            false => None,
        };
        Ok(Self { coding, width, columns, codebooks, compared, beam })
    }

    pub(crate) fn levels(&self) -> usize {
        self.codebooks.len()
    }

    /// `(n, levels)` u32 for `(n, width)` f32 on the CPU.
    pub(crate) fn encode(&self, xs: &Tensor) -> Result<Tensor> {
        let shape = (xs.dim(0)?, self.levels());
        let mut codes = vec![0; shape.0 * shape.1];
        host::read(&xs.to_dtype(DType::F32)?, |xs| self.codes(xs, &mut codes))?;
        Tensor::from_vec(codes, shape, &Device::Cpu)
    }

    /// Writes the codes of each row.
    ///
    /// # Shapes
    /// - `xs`: `(n, width)` row-major; `codes`: `(n, levels)`
    pub(crate) fn codes(&self, xs: &[f32], codes: &mut [u32]) -> Result<()> {
        let levels = self.levels();
        if let Some(beam) = &self.beam {
            return beam.codes(xs, codes);
        }
        if self.coding.composition == Composition::Residual && self.compared.is_none() {
            return residual_codes(xs, &self.codebooks, codes).map_err(Error::wrap);
        }
        let rows = xs.len() / self.width.max(1);
        let mut residual = xs.to_vec();
        let (mut part, mut found) = (Vec::new(), vec![0; rows]);
        for (level, (codebook, columns)) in self.codebooks.iter().zip(&self.columns).enumerate() {
            let compared = self.compared.as_ref().map_or(codebook, |compared| &compared[level]);
            if columns.len() == self.width {
                compared.assign(&residual, &mut found, None).map_err(Error::wrap)?;
            } else {
                part.clear();
                part.extend(residual.chunks_exact(self.width).flat_map(|row| &row[columns.clone()]));
                compared.assign(&part, &mut found, None).map_err(Error::wrap)?;
            }
            for ((codes, residual), &code) in
                codes.chunks_exact_mut(levels).zip(residual.chunks_exact_mut(self.width)).zip(&found)
            {
                codes[level] = code;
                if self.coding.composition == Composition::Residual
                    && let Some(word) = codebook.word(code)
                {
                    residual.iter_mut().zip(word).for_each(|(r, w)| *r -= w);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
