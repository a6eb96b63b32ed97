//! Squared distances to all codewords.

use rayon::prelude::*;

use super::{Codebook, NearestError, ROWS, Words};
use crate::math::{dots, vectorized};
use crate::matmul::{Target, View, product};

impl Codebook {
    /// Writes the squared distance of each row of `x` to each codeword, in the same expanded form by which
    /// [`assign`](Self::assign) chooses; none is below 0.
    ///
    /// # Shapes
    /// `x`: `(n, d)` row-major; `out`: `(n, K)`.
    ///
    /// # Errors
    /// [`NearestError`] when a slice does not fit.
    pub fn distances(&self, x: &[f32], out: &mut [f32]) -> Result<(), NearestError> {
        self.check_distances(x, out)?;
        x.par_chunks(ROWS * self.d)
            .zip(out.par_chunks_mut(ROWS * self.codewords()))
            .try_for_each_init(Vec::new, |moved, (x, out)| self.distances_of_block(x, out, moved))
    }

    /// [`distances`](Self::distances) of a few rows, on the calling thread; `moved` is kept from one call to the next.
    ///
    /// # Errors
    /// As [`distances`](Self::distances).
    pub fn distances_of_block(&self, x: &[f32], out: &mut [f32], moved: &mut Vec<f32>) -> Result<(), NearestError> {
        self.check_distances(x, out)?;
        let codewords = self.codewords();
        let panels = match &self.words {
            Words::Exact(panels) => panels,
            Words::Half(_, exact) => self.made(exact)?,
        };
        let x = self.moved(x, moved);
        product(View::new(x, x.len() / self.d, self.d, self.d)?, panels, Target::set(out, codewords))?;
        vectorized(
            #[inline(always)]
            || {
                for (row, out) in x.chunks_exact(self.d).zip(out.chunks_exact_mut(codewords)) {
                    let [square] = dots(row, [row]);
                    for (out, half_norm) in out.iter_mut().zip(&self.half_norms) {
                        let distance = 2.0 * (0.5 * square - *out + half_norm);
                        *out = if distance < 0.0 { 0.0 } else { distance };
                    }
                }
            },
        );
        Ok(())
    }

    fn check_distances(&self, x: &[f32], out: &[f32]) -> Result<(), NearestError> {
        let (rows, codewords) = (x.len() / self.d, self.codewords());
        if !x.len().is_multiple_of(self.d) {
            return Err(NearestError::Length { what: "x", len: x.len(), dim: self.d });
        }
        if rows.checked_mul(codewords) != Some(out.len()) {
            return Err(NearestError::Distances { len: out.len(), rows, codewords });
        }
        Ok(())
    }
}
