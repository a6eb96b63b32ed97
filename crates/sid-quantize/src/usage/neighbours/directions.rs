//! Embeddings as directions: what is left of them once their length is divided out.

use std::borrow::Cow;

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::super::scan;
use crate::{QuantizeError, Result, RowSource};

/// Pairs whose rows are held at once.
const PAIRS: usize = 1024;

/// The items whose embedding is not zero.
#[derive(Debug)]
pub(super) struct Directions {
    dim: usize,
    /// Length of every row.
    lengths: Vec<f64>,
    items: Vec<usize>,
}

/// The values of a block, row after row.
pub(super) fn flat<'a>(block: &'a ArrayView2<'_, f32>) -> Cow<'a, [f32]> {
    match block.as_slice() {
        Some(values) => values.into(),
        None => block.iter().copied().collect(),
    }
}

impl Directions {
    /// Reads and checks all rows.
    pub(super) fn of(xs: &mut dyn RowSource) -> Result<Self> {
        let (rows, dim) = (xs.len(), xs.dim());
        if dim == 0 {
            return Err(QuantizeError::DimMismatch { expected: 1, got: 0 });
        }
        if u32::try_from(rows).is_err() {
            return Err(QuantizeError::TooManyRows { rows });
        }
        let mut lengths = Vec::new();
        scan(dim, xs, |_, block| {
            let length = |row: &[f32]| row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
            lengths.par_extend(flat(&block).par_chunks(dim).map(length));
            Ok(())
        })?;
        let items = lengths.iter().enumerate().filter(|(_, length)| **length > 0.0).map(|(item, _)| item).collect();
        Ok(Self { dim, lengths, items })
    }

    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// Indices of the rows that are not zero, in order.
    pub(super) fn items(&self) -> &[usize] {
        &self.items
    }

    /// Brings a row to length 1.
    pub(super) fn normalized<'a>(&self, item: usize, row: &'a [f32]) -> impl Iterator<Item = f32> + use<'a> {
        let length = self.lengths[item];
        row.iter().map(move |&x| (f64::from(x) / length) as f32)
    }

    /// Mean cosine of pairs of items that are not zero; `None` without pairs.
    pub(super) fn mean_cosine(&self, xs: &mut dyn RowSource, pairs: &[(usize, usize)]) -> Result<Option<f64>> {
        let mut sum = 0.0;
        for pairs in pairs.chunks(PAIRS) {
            let mut gather = |items: Vec<usize>| -> Result<Vec<f32>> {
                let mut rows = Array2::zeros((items.len(), self.dim));
                xs.gather(&items, rows.view_mut())?;
                Ok(rows.into_raw_vec_and_offset().0)
            };
            let first = gather(pairs.iter().map(|pair| pair.0).collect())?;
            let second = gather(pairs.iter().map(|pair| pair.1).collect())?;
            let cosines: Vec<f64> = pairs
                .par_iter()
                .zip(first.par_chunks(self.dim).zip(second.par_chunks(self.dim)))
                .map(|(&(a, b), (x, y))| {
                    let product: f64 = x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
                    (product / self.lengths[a] / self.lengths[b]).clamp(-1.0, 1.0)
                })
                .collect();
            sum += cosines.iter().sum::<f64>();
        }
        Ok((!pairs.is_empty()).then(|| sum / pairs.len() as f64))
    }
}
