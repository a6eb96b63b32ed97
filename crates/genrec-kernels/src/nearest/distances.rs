//! Squared distances to all codewords.

use rayon::prelude::*;

use super::{Codebook, NearestError, ROWS, Words, dot};
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
        let codewords = self.codewords();
        if !out.len().is_multiple_of(codewords) {
            return Err(NearestError::Output { what: "out", len: out.len(), rows: x.len() / self.d });
        }
        self.check(x, out.len() / codewords)?;
        let panels = match &self.words {
            Words::Exact(panels) => panels,
            Words::Half(_, exact) => self.made(exact)?,
        };
        x.par_chunks(ROWS * self.d).zip(out.par_chunks_mut(ROWS * codewords)).try_for_each_init(
            Vec::new,
            |moved, (x, out)| {
                let x = self.moved(x, moved);
                product(View::new(x, x.len() / self.d, self.d, self.d)?, panels, Target::set(out, codewords))?;
                for (row, out) in x.chunks_exact(self.d).zip(out.chunks_exact_mut(codewords)) {
                    let half = 0.5 * dot(row, row);
                    for (out, half_norm) in out.iter_mut().zip(&self.half_norms) {
                        let distance = 2.0 * (half - *out + half_norm);
                        *out = if distance < 0.0 { 0.0 } else { distance };
                    }
                }
                Ok(())
            },
        )
    }
}
