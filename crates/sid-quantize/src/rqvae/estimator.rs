//! How the gradient of the reconstruction passes the quantiser, which itself has none.

use candle_core::{Result, Tensor};
use genrec_kernels::nearest::nearest_codes;
use serde::{Deserialize, Serialize};

/// How the gradient with respect to the quantised latent vector `z^` becomes one with respect to `z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Estimator {
    /// It is passed on unchanged: the decoder sees `z + sg[z^ - z]` (van den Oord et al. 2017, arXiv 1711.00937).
    #[default]
    StraightThrough,
}

impl Estimator {
    /// The gradient of the reconstruction with respect to `z`.
    ///
    /// # Shapes
    /// - `grad`: gradient with respect to `z^`, `(n, latent)`; result the same
    pub(crate) fn backward(self, grad: &Tensor) -> Tensor {
        match self {
            Self::StraightThrough => grad.clone(),
        }
    }
}

/// What residual quantisation of a batch of latent vectors found.
#[derive(Clone, Debug)]
pub(crate) struct Quantized {
    /// `c_d`, `(n,)` u32 a level.
    pub(crate) codes: Vec<Tensor>,
    /// `r_d`, `(n, latent)` a level; `r_0` is `z`.
    pub(crate) residuals: Vec<Tensor>,
    /// `e_{d,c_d} - r_d`, `(n, latent)` a level.
    pub(crate) errors: Vec<Tensor>,
    /// `z^`, the sum of the chosen codewords, `(n, latent)`.
    pub(crate) latent: Tensor,
}

/// Quantises `z`, `(n, latent)`, greedily.
pub(crate) fn quantize(z: &Tensor, codebooks: &[&Tensor]) -> Result<Quantized> {
    let (mut codes, mut residuals, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    let mut residual = z.clone();
    for codebook in codebooks {
        let level = nearest_codes(&residual, codebook)?;
        let error = (codebook.index_select(&level, 0)? - &residual)?;
        codes.push(level);
        residuals.push(residual);
        // r_{d+1} = r_d - e = -error.
        residual = error.neg()?;
        errors.push(error);
    }
    // The sum of the codewords is what is not left over.
    let latent = (z - &residual)?;
    Ok(Quantized { codes, residuals, errors, latent })
}
