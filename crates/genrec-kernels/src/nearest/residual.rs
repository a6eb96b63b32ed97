//! Greedy residual coding.

use rayon::prelude::*;

use super::{Buffers, Codebook, NearestError};

/// Greedy residual codes: at every level the nearest codeword is taken and subtracted.
///
/// # Shapes
/// `x`: `(n, d)` row-major; `codebooks`: one a level, all of dimension `d`; `out`: `(n, levels)`.
///
/// # Errors
/// [`NearestError`] when a slice or a codebook does not fit.
pub fn residual_codes(x: &[f32], codebooks: &[Codebook], out: &mut [u32]) -> Result<(), NearestError> {
    let Some(first) = codebooks.first() else {
        return Err(NearestError::Length { what: "codebooks", len: 0, dim: 0 });
    };
    let (d, levels) = (first.d, codebooks.len());
    if let Some(other) = codebooks.iter().find(|codebook| codebook.d != d) {
        return Err(NearestError::Length { what: "codebook", len: other.values.len(), dim: d });
    }
    if !out.len().is_multiple_of(levels) {
        return Err(NearestError::Output { what: "out", len: out.len(), rows: x.len() / d });
    }
    first.check(x, out.len() / levels)?;
    let block = codebooks.iter().map(Codebook::block).min().unwrap_or(1);
    x.par_chunks(block * d).zip(out.par_chunks_mut(block * levels)).try_for_each_init(
        Buffers::default,
        |buffers, (x, out)| {
            let rows = x.len() / d;
            let (mut residual, mut codes) = (std::mem::take(&mut buffers.residual), std::mem::take(&mut buffers.codes));
            residual.clear();
            residual.extend_from_slice(x);
            codes.resize(rows, 0);
            for (level, codebook) in codebooks.iter().enumerate() {
                codebook.assign_block(&residual, &mut codes, buffers)?;
                for ((residual, &code), out) in
                    residual.chunks_exact_mut(d).zip(&codes).zip(out.chunks_exact_mut(levels))
                {
                    out[level] = code;
                    if level + 1 < levels {
                        let word = &codebook.values[code as usize * d..][..d];
                        residual.iter_mut().zip(word).for_each(|(r, w)| *r -= w);
                    }
                }
            }
            (buffers.residual, buffers.codes) = (residual, codes);
            Ok(())
        },
    )
}
