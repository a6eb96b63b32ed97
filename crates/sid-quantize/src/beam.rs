//! Residual coding by a beam instead of greedily.

use candle_core::{Device, Error, Result, Tensor, bail};
use genrec_kernels::gemm::GemmError;
use genrec_kernels::host;
use genrec_kernels::matmul::{Panels, Target, View, padded, product};
use rayon::prelude::*;

/// Rows that one parallel task codes.
const BLOCK: usize = 32;

/// One level, packed.
#[derive(Debug)]
struct Level {
    /// `(dim, codes)`.
    panels: Panels,
    values: Vec<f32>,
    /// Squared lengths of the codewords.
    norms: Vec<f32>,
}

/// Follows the best few prefixes of codes instead of the best one, as additive quantisers do (Babenko and Lempitsky,
/// *Additive Quantization for Extreme Vector Compression*, CVPR 2014): a codeword that is not the nearest of its level may
/// leave a residual that the next codes better.
#[derive(Debug)]
pub(crate) struct BeamSearch {
    width: usize,
    dim: usize,
    levels: Vec<Level>,
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
        let level = |codebook: &&Tensor| {
            let (codes, dim) = codebook.dims2()?;
            let values = host::read(&codebook.to_device(&Device::Cpu)?, |values| Ok(values.to_vec()))?;
            let mut panels = Panels::default();
            panels.pack(View::new(&values, codes, dim, dim).map_err(Error::wrap)?.t());
            let norms = values.chunks_exact(dim.max(1)).map(|word| word.iter().map(|x| x * x).sum()).collect();
            Ok(Level { panels, values, norms })
        };
        let levels = codebooks.iter().map(level).collect::<Result<Vec<_>>>()?;
        let Some(dim) = levels.first().map(|level: &Level| level.panels.rows()).filter(|&dim| dim > 0) else {
            bail!("a beam needs a codebook of at least one column");
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
            .map_err(|error: GemmError| Error::wrap(error))
    }

    fn block(&self, xs: &[f32], codes: &mut [u32]) -> std::result::Result<(), GemmError> {
        let (dim, rows) = (self.dim, xs.len() / self.dim);
        // Of every row the residuals, errors and codes of its prefixes, best first.
        let mut residuals = xs.to_vec();
        let mut errors: Vec<f32> = xs.chunks_exact(dim).map(|row| row.iter().map(|x| x * x).sum()).collect();
        let mut prefixes: Vec<Vec<u32>> = vec![Vec::new(); rows];
        let mut products = Vec::new();
        for level in &self.levels {
            let (size, stride) = (level.norms.len(), padded(level.norms.len()));
            let each = errors.len() / rows.max(1);
            products.resize(errors.len() * stride, 0.0);
            let view = View::new(&residuals, errors.len(), dim, dim)?;
            product(view, &level.panels, Target::set(&mut products, stride).with_padding())?;
            let kept = self.width.min(each * size);
            let (mut next_residuals, mut next_errors, mut next_prefixes) =
                (Vec::with_capacity(rows * kept * dim), Vec::with_capacity(rows * kept), Vec::new());
            for row in 0..rows {
                let mut steps: Vec<Step> = Vec::with_capacity(each * size);
                for parent in row * each..(row + 1) * each {
                    let scores = products[parent * stride..].iter().zip(&level.norms).zip(0..);
                    steps.extend(scores.map(|((product, norm), code)| Step {
                        error: errors[parent] - 2.0 * product + norm,
                        parent,
                        code,
                    }));
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
                    let word = &level.values[step.code as usize * dim..][..dim];
                    let residual = &residuals[step.parent * dim..][..dim];
                    next_residuals.extend(residual.iter().zip(word).map(|(r, w)| r - w));
                    next_errors.push(step.error);
                    let mut prefix = prefixes[step.parent].clone();
                    prefix.push(step.code);
                    next_prefixes.push(prefix);
                }
            }
            (residuals, errors, prefixes) = (next_residuals, next_errors, next_prefixes);
        }
        let each = errors.len() / rows.max(1);
        for (codes, best) in codes.chunks_exact_mut(self.levels.len()).zip(prefixes.chunks_exact(each.max(1))) {
            codes.copy_from_slice(&best[0]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
