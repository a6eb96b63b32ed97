//! A sparse matrix in compressed rows.

use ndarray::Array2;
use rayon::prelude::*;

/// Rows of `(column, value)`, columns ascending.
#[derive(Debug)]
pub(crate) struct Csr {
    offsets: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f32>,
    width: usize,
}

impl Csr {
    pub(crate) fn from_rows(rows: &[Vec<(u32, f32)>], width: usize) -> Self {
        let entries = rows.iter().map(Vec::len).sum();
        let mut matrix =
            Self { offsets: vec![0], columns: Vec::with_capacity(entries), values: Vec::with_capacity(entries), width };
        for row in rows {
            matrix.columns.extend(row.iter().map(|(column, _)| column));
            matrix.values.extend(row.iter().map(|(_, value)| value));
            matrix.offsets.push(matrix.columns.len());
        }
        matrix
    }

    /// `(rows, columns)`.
    pub(crate) fn dim(&self) -> (usize, usize) {
        (self.offsets.len() - 1, self.width)
    }

    pub(crate) fn transpose(&self) -> Self {
        let (height, width) = self.dim();
        let mut rows = vec![Vec::new(); width];
        for row in 0..height {
            let range = self.offsets[row]..self.offsets[row + 1];
            for (column, value) in self.columns[range.clone()].iter().zip(&self.values[range]) {
                // Rows fit u32 like columns do: callers bound both.
                rows[*column as usize].push((u32::try_from(row).unwrap_or(u32::MAX), *value));
            }
        }
        Self::from_rows(&rows, height)
    }

    /// The product with a dense `(columns, k)` matrix. Each row is summed by one thread, in the order of its columns.
    pub(crate) fn dot(&self, dense: &Array2<f64>) -> Array2<f64> {
        let (height, _) = self.dim();
        let width = dense.ncols();
        let mut product = Array2::zeros((height, width));
        if let Some(values) = product.as_slice_mut() {
            values.par_chunks_mut(width.max(1)).enumerate().for_each(|(row, out)| {
                let range = self.offsets[row]..self.offsets[row + 1];
                for (column, value) in self.columns[range.clone()].iter().zip(&self.values[range]) {
                    let value = f64::from(*value);
                    for (sum, factor) in out.iter_mut().zip(dense.row(*column as usize)) {
                        *sum += value * factor;
                    }
                }
            });
        }
        product
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn products_and_transpose() {
        let matrix = Csr::from_rows(&[vec![(0, 1.0), (2, 2.0)], vec![], vec![(1, -1.0)]], 3);
        let dense = array![[1.0, 0.0], [0.0, 1.0], [3.0, 5.0]];
        assert_eq!(matrix.dot(&dense), array![[7.0, 10.0], [0.0, 0.0], [0.0, -1.0]]);
        assert_eq!(matrix.transpose().dot(&dense), array![[1.0, 0.0], [-3.0, -5.0], [2.0, 0.0]]);
    }
}
