//! Rounding of bounded features, and the codes that it gives.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor, bail};
use rayon::prelude::*;

use crate::encoder::Codes;

/// Keeps the outermost values within reach of the hyperbolic tangent.
const EPSILON: f64 = 1e-3;

/// One latent feature `z` of `L` values: `round(f(z))` with `f(z) = h tanh(z + s) - o`, `h = (L - 1)(1 + eps) / 2`,
/// `o = 1/2` and `s = atanh(o / h)` for an even `L` and 0 otherwise (Mentzer et al. 2023, *Finite Scalar Quantization*,
/// arXiv 2309.15505, section 3.1 and appendix A.1). For `L = 2` that `s` would lie where the tangent is flat and all rows
/// have one value; it is 0 there too, and the sign of `z` decides.
#[derive(Clone, Copy, Debug)]
struct Scalar {
    values: u32,
    half: f32,
    offset: f32,
    shift: f32,
}

impl Scalar {
    fn new(values: u32) -> Self {
        // Of many values a share would reach beyond the outermost.
        let epsilon = EPSILON.min(0.5 / f64::from(values));
        let half = f64::from(values.saturating_sub(1)) * (1.0 + epsilon) / 2.0;
        let offset = if values.is_multiple_of(2) { 0.5 } else { 0.0 };
        let shift = if values == 2 { 0.0 } else { (offset / half).atanh() };
        Self { values, half: half as f32, offset: offset as f32, shift: shift as f32 }
    }

    /// The least value is 0.
    fn digit(self, z: f32) -> u32 {
        let rounded = (self.half * (z + self.shift).tanh() - self.offset).round();
        // NaN becomes the least.
        ((rounded + (self.values / 2) as f32).max(0.0) as u32).min(self.values - 1)
    }
}

/// The features of all codes.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    scalars: Vec<Scalar>,
    /// The features of each code.
    columns: Vec<Range<usize>>,
}

impl Grid {
    /// Features with so many values, code by code.
    pub(crate) fn new(codes: &[Vec<u32>]) -> Self {
        let mut end = 0;
        let range = |code: &Vec<u32>| {
            let start = end;
            end += code.len();
            start..end
        };
        let columns = codes.iter().map(range).collect();
        Self { scalars: codes.iter().flatten().map(|&values| Scalar::new(values)).collect(), columns }
    }

    fn row(&self, of: impl Fn(&Scalar) -> f32, like: &Tensor) -> Result<Tensor> {
        let values: Vec<f32> = self.scalars.iter().map(of).collect();
        Tensor::from_vec(values, (1, self.scalars.len()), like.device())?.to_dtype(like.dtype())
    }

    /// `f(z)` before rounding, and the hyperbolic tangent in it, each `(n, features)`.
    pub(crate) fn bound(&self, z: &Tensor) -> Result<(Tensor, Tensor)> {
        let tanh = z.broadcast_add(&self.row(|s| s.shift, z)?)?.tanh()?;
        let bounded = tanh.broadcast_mul(&self.row(|s| s.half, z)?)?.broadcast_sub(&self.row(|s| s.offset, z)?)?;
        Ok((bounded, tanh))
    }

    /// Rounded features brought to `-1..=1`.
    pub(crate) fn unit(&self, rounded: &Tensor) -> Result<Tensor> {
        rounded.broadcast_div(&self.row(|s| (s.values / 2) as f32, rounded)?)
    }

    /// The gradient with respect to `z`, given the one with respect to the rounded features in `-1..=1`: rounding passes it
    /// on unchanged.
    pub(crate) fn backward(&self, tanh: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let slope = self.row(|s| s.half / (s.values / 2) as f32, grad)?;
        (grad * tanh.sqr()?.affine(-1.0, 1.0)?)?.broadcast_mul(&slope)
    }

    /// The codes of rounded features, `(n,)` u32 a code: the first feature is the least digit.
    pub(crate) fn codes_of(&self, rounded: &Tensor) -> Result<Vec<Tensor>> {
        let digits = rounded.broadcast_add(&self.row(|s| (s.values / 2) as f32, rounded)?)?;
        let mut codes = Vec::with_capacity(self.columns.len());
        for columns in &self.columns {
            let mut base = 1.0;
            let mut weights: Vec<f32> = Vec::with_capacity(columns.len());
            for scalar in &self.scalars[columns.clone()] {
                weights.push(base);
                base *= scalar.values as f32;
            }
            let weights = Tensor::from_vec(weights, (1, columns.len()), digits.device())?.to_dtype(digits.dtype())?;
            let part = digits.narrow(1, columns.start, columns.len())?;
            codes.push(part.broadcast_mul(&weights)?.sum(1)?.to_dtype(DType::U32)?);
        }
        Ok(codes)
    }

    /// The features in `-1..=1` that a code of that level stands for.
    fn values_of(&self, level: usize, mut code: u32) -> impl Iterator<Item = f32> {
        self.scalars[self.columns[level].clone()].iter().map(move |scalar| {
            let digit = code % scalar.values;
            code /= scalar.values;
            (digit as f32 - (scalar.values / 2) as f32) / (scalar.values / 2) as f32
        })
    }

    fn size(&self, level: usize) -> u32 {
        self.scalars[self.columns[level].clone()].iter().map(|scalar| scalar.values).product()
    }

    /// The features that rows of codes stand for, `(n, features)` f32.
    pub(crate) fn decode(&self, codes: &Tensor) -> Result<Tensor> {
        let (rows, levels) = codes.dims2()?;
        if levels != self.columns.len() {
            bail!("codes have {levels} levels, the quantiser has {}", self.columns.len());
        }
        let mut values = Vec::with_capacity(rows * self.scalars.len());
        for (place, code) in codes.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<u32>()?.into_iter().enumerate() {
            let level = place % levels;
            if code >= self.size(level) {
                bail!("code {code} is not below the {} of level {level}", self.size(level));
            }
            values.extend(self.values_of(level, code));
        }
        Tensor::from_vec(values, (rows, self.scalars.len()), codes.device())
    }

    /// The squared distance of each row's features, in `-1..=1` before rounding, to those of each code of a level.
    ///
    /// # Shapes
    /// - `z`: `(n, features)`; result `(n, codes of the level)`
    pub(crate) fn costs(&self, z: &Tensor, level: usize) -> Result<Tensor> {
        let Some(columns) = self.columns.get(level) else {
            bail!("a prefix of {level} codes leaves no level of {} to code", self.columns.len());
        };
        let size = self.size(level) as usize;
        let book: Vec<f32> = (0..self.size(level)).flat_map(|code| self.values_of(level, code)).collect();
        let book = Tensor::from_vec(book, (size, columns.len()), z.device())?;
        let unit = self.unit(&self.bound(z)?.0)?.narrow(1, columns.start, columns.len())?.contiguous()?;
        let words = book.sqr()?.sum(1)?.unsqueeze(0)?;
        let products = unit.matmul(&book.t()?)?.affine(-2.0, 0.0)?;
        products.broadcast_add(&words)?.broadcast_add(&unit.sqr()?.sum_keepdim(1)?)?.relu()
    }
}

impl Codes for Grid {
    fn levels(&self) -> usize {
        self.columns.len()
    }

    fn codes(&self, xs: &[f32], codes: &mut [u32]) -> Result<()> {
        let (width, levels) = (self.scalars.len(), self.columns.len());
        xs.par_chunks(width).zip(codes.par_chunks_mut(levels)).with_min_len(256).for_each(|(row, codes)| {
            for (code, columns) in codes.iter_mut().zip(&self.columns) {
                let digits = row[columns.clone()].iter().zip(&self.scalars[columns.clone()]).rev();
                *code = digits.fold(0, |code, (&z, scalar)| code * scalar.values + scalar.digit(z));
            }
        });
        Ok(())
    }
}
