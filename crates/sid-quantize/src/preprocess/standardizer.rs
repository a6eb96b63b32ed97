//! Per-feature standardisation: `(x - mean) / deviation`, learned from the rows and kept with the model.

use std::collections::BTreeMap;

use candle_core::{Device, Result as TensorResult, Tensor};
use ndarray::ArrayViewMut2;

use crate::saved::matrix;
use crate::usage::scan;
use crate::{QuantizeError, Result, RowSource};
use genrec_kernels::vectorized;

pub(super) const MEAN: &str = "input.mean";
pub(super) const DEVIATION: &str = "input.deviation";

/// Mean and standard deviation of each feature.
#[derive(Clone, Debug)]
pub(crate) struct Standardizer {
    mean: Tensor,
    deviation: Tensor,
    host: Vec<(f32, f32)>,
}

impl Standardizer {
    /// Learns mean and deviation; a feature with one value only is centred and keeps its scale.
    pub(crate) fn fit(rows: &mut dyn RowSource, device: &Device) -> Result<Self> {
        let dim = rows.dim();
        let mut shift = vec![0.0_f64; dim];
        let mut sums = vec![(0.0_f64, 0.0_f64); dim];
        let count = rows.len() as f64;
        scan(dim, rows, |first, block| {
            for (offset, row) in block.outer_iter().enumerate() {
                if first + offset == 0 {
                    shift = row.iter().map(|&x| f64::from(x)).collect();
                }
                // Moments about the first row: no cancellation where the mean is large against the spread.
                for ((&x, sums), shift) in row.iter().zip(&mut sums).zip(&shift) {
                    let x = f64::from(x) - shift;
                    sums.0 += x;
                    sums.1 += x * x;
                }
            }
            Ok(())
        })?;
        let (mut mean, mut deviation) = (Vec::with_capacity(dim), Vec::with_capacity(dim));
        for ((sum, squares), shift) in sums.into_iter().zip(shift) {
            let offset = sum / count;
            let variance = squares / count - offset * offset;
            mean.push((shift + offset) as f32);
            // Below the resolution of f32 a spread is rounding noise.
            let value = variance.max(0.0).sqrt();
            deviation.push(if value > 1e-7 * (shift + offset).abs() && value > 0.0 { value as f32 } else { 1.0 });
        }
        Ok(Self::new(mean, deviation, device)?)
    }

    fn new(mean: Vec<f32>, deviation: Vec<f32>, device: &Device) -> TensorResult<Self> {
        let host = mean.iter().copied().zip(deviation.iter().copied()).collect();
        let dim = mean.len();
        Ok(Self {
            mean: Tensor::from_vec(mean, (1, dim), device)?,
            deviation: Tensor::from_vec(deviation, (1, dim), device)?,
            host,
        })
    }

    /// From what [`tensors`](Self::tensors) gave, each `(1, dim)`.
    ///
    /// A deviation that is not positive is refused: it would turn every row into infinities.
    pub(crate) fn load(tensors: &BTreeMap<String, Tensor>, device: &Device) -> Result<Self> {
        let values =
            |name: &str| -> Result<Vec<f32>> { Ok(matrix(tensors, name, &Device::Cpu)?.flatten_all()?.to_vec1()?) };
        let deviation = values(DEVIATION)?;
        if let Some(&value) = deviation.iter().find(|&&value| value <= 0.0) {
            return Err(QuantizeError::config(DEVIATION, value, "every deviation must be above 0"));
        }
        Ok(Self::new(values(MEAN)?, deviation, device)?)
    }

    pub(crate) fn tensors(&self, into: &mut BTreeMap<String, Tensor>) {
        into.insert(MEAN.to_owned(), self.mean.clone());
        into.insert(DEVIATION.to_owned(), self.deviation.clone());
    }

    /// `(n, dim)` to standardised `(n, dim)`.
    pub(crate) fn apply(&self, xs: &Tensor) -> TensorResult<Tensor> {
        xs.broadcast_sub(&self.mean)?.broadcast_div(&self.deviation)
    }

    /// The inverse of [`apply`](Self::apply).
    pub(crate) fn invert(&self, xs: &Tensor) -> TensorResult<Tensor> {
        xs.broadcast_mul(&self.deviation)?.broadcast_add(&self.mean)
    }

    /// [`apply`](Self::apply) on rows that lie one after another, in place.
    pub(crate) fn apply_rows(&self, rows: &mut [f32]) {
        vectorized(
            #[inline(always)]
            || {
                for row in rows.chunks_exact_mut(self.host.len().max(1)) {
                    for (x, (mean, deviation)) in row.iter_mut().zip(&self.host) {
                        *x = (*x - mean) / deviation;
                    }
                }
            },
        );
    }

    /// [`apply`](Self::apply) on the host, in place.
    pub(crate) fn apply_host(&self, mut rows: ArrayViewMut2<'_, f32>) {
        if let Some(rows) = rows.as_slice_mut() {
            return self.apply_rows(rows);
        }
        for mut row in rows.outer_iter_mut() {
            for (x, (mean, deviation)) in row.iter_mut().zip(&self.host) {
                *x = (*x - mean) / deviation;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::ArrayRows;

    #[test]
    fn rows_get_mean_zero_and_deviation_one() {
        let rows =
            array![[1e4_f32 + 1.0, 5.0, 0.1], [1e4 + 3.0, 5.0, 0.1], [1e4 + 5.0, 5.0, 0.1], [1e4 + 3.0, 5.0, 0.1]];
        let standard = Standardizer::fit(&mut ArrayRows::from(rows.view()), &Device::Cpu).unwrap();
        let mut host = rows.clone();
        standard.apply_host(host.view_mut());
        let half = 2.0_f32.sqrt();
        let expected = [[-half, 0.0, 0.0], [0.0, 0.0, 0.0], [half, 0.0, 0.0], [0.0, 0.0, 0.0]];
        for (row, expected) in host.outer_iter().zip(expected) {
            for (x, expected) in row.iter().zip(expected) {
                assert!((x - expected).abs() < 1e-3, "{host}");
            }
        }
        let tensor = Tensor::from_vec(rows.iter().copied().collect::<Vec<_>>(), (4, 3), &Device::Cpu).unwrap();
        let applied = standard.apply(&tensor).unwrap();
        assert_eq!(applied.to_vec2::<f32>().unwrap().concat(), host.iter().copied().collect::<Vec<_>>());
        let back = standard.invert(&applied).unwrap().to_vec2::<f32>().unwrap();
        for (row, back) in rows.outer_iter().zip(back) {
            for (x, back) in row.iter().zip(back) {
                assert!((x - back).abs() < 2e-3);
            }
        }
    }
}
