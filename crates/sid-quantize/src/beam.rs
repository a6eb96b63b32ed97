//! Residual coding by a beam instead of greedily.

use candle_core::{Error, Result, Tensor, bail};
use genrec_kernels::nearest::{Codebook, NearestError};
use rayon::prelude::*;

use crate::coding::for_distances;

/// Rows that one parallel task codes.
const BLOCK: usize = 32;

/// Follows the best few prefixes of codes instead of the best one, as additive quantisers do (Babenko and Lempitsky,
/// *Additive Quantization for Extreme Vector Compression*, CVPR 2014): a codeword that is not the nearest of its level may
/// leave a residual that the next codes better.
#[derive(Debug)]
pub(crate) struct BeamSearch {
    width: usize,
    dim: usize,
    levels: Vec<Codebook>,
}

/// A prefix of a row's codes.
#[derive(Clone, Copy, Debug)]
struct Step {
    error: f32,
    /// Place among the prefixes of the level before.
    parent: usize,
    code: u32,
}

impl BeamSearch {
    /// Prepares codebooks `(codes, dim)`, one a level.
    pub(crate) fn new(width: usize, codebooks: &[&Tensor]) -> Result<Self> {
        let levels = codebooks.iter().map(|codebook| for_distances(codebook)).collect::<Result<Vec<_>>>()?;
        let Some(dim) = levels.first().map(Codebook::dim) else {
            bail!("a beam needs a codebook");
        };
        Ok(Self { width, dim, levels })
    }

    /// Writes the codes of each row: those of the smallest squared error that the beam finds, and among equal ones the
    /// first.
    ///
    /// # Shapes
    /// - `xs`: `(n, dim)` row-major; `codes`: `(n, levels)`
    pub(crate) fn codes(&self, xs: &[f32], codes: &mut [u32]) -> Result<()> {
        xs.par_chunks(BLOCK * self.dim)
            .zip(codes.par_chunks_mut(BLOCK * self.levels.len()))
            .try_for_each(|(xs, codes)| self.block(xs, codes))
            .map_err(|error: NearestError| Error::wrap(error))
    }

    fn block(&self, xs: &[f32], codes: &mut [u32]) -> std::result::Result<(), NearestError> {
        let (dim, rows) = (self.dim, xs.len() / self.dim);
        // Of every row the residuals and codes of its prefixes, best first.
        let mut residuals = xs.to_vec();
        let mut prefixes: Vec<Vec<u32>> = vec![Vec::new(); rows];
        let (mut errors, mut moved) = (Vec::new(), Vec::new());
        for level in &self.levels {
            let size = level.codewords();
            let each = prefixes.len() / rows.max(1);
            errors.resize(prefixes.len() * size, 0.0);
            level.distances_of_block(&residuals, &mut errors, &mut moved)?;
            let kept = self.width.min(each * size);
            let (mut next_residuals, mut next_prefixes) = (Vec::with_capacity(rows * kept * dim), Vec::new());
            for row in 0..rows {
                let mut steps: Vec<Step> = Vec::with_capacity(each * size);
                for parent in row * each..(row + 1) * each {
                    let errors = errors[parent * size..][..size].iter().zip(0..);
                    steps.extend(errors.map(|(&error, code)| Step { error, parent, code }));
                }
                let order = |a: &Step, b: &Step| {
                    a.error.total_cmp(&b.error).then(a.parent.cmp(&b.parent)).then(a.code.cmp(&b.code))
                };
                if kept < steps.len() {
                    steps.select_nth_unstable_by(kept, order);
                    steps.truncate(kept);
                }
                steps.sort_unstable_by(order);
                for step in steps {
                    let codewords = level.codewords();
                    let no_word = NearestError::Code { row, code: step.code, codewords };
                    let word = level.word(step.code).ok_or(no_word)?;
                    let residual = &residuals[step.parent * dim..][..dim];
                    next_residuals.extend(residual.iter().zip(word).map(|(r, w)| r - w));
                    let mut prefix = prefixes[step.parent].clone();
                    prefix.push(step.code);
                    next_prefixes.push(prefix);
                }
            }
            (residuals, prefixes) = (next_residuals, next_prefixes);
        }
        let each = prefixes.len() / rows.max(1);
        for (codes, best) in codes.chunks_exact_mut(self.levels.len()).zip(prefixes.chunks_exact(each.max(1))) {
            codes.copy_from_slice(&best[0]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
