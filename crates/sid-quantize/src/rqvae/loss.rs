//! The training objective and its gradient, derived by hand.

use candle_core::{DType, Result, Tensor};
use genrec_kernels::Gradients;

use super::RqVaeConfig;
use super::estimator::{Quantized, quantize};
use super::model::Network;
use crate::residual::codebook_name;

/// One evaluation of the objective on a batch.
#[derive(Debug)]
pub(crate) struct Evaluation {
    /// Mean over the rows of the whole objective.
    pub(crate) loss: f64,
    /// Mean over the rows of `||x - x^||^2`.
    pub(crate) reconstruction: f64,
    pub(crate) gradients: Gradients,
    pub(crate) quantized: Quantized,
}

/// Mean over the batch of
/// `||x - x^||^2 + sum_d ( ||sg[r_d] - e_{c_d}||^2 + beta ||r_d - sg[e_{c_d}]||^2 )` (the TIGER paper, section 3.1),
/// squared norms summed over their axis.
///
/// A residual counts as a function of `z` alone: the codewords subtracted before it are held constant, so that each
/// codebook is moved by its own level only.
///
/// # Shapes
/// - `xs`: `(n, dim)`
pub(crate) fn evaluate(network: &Network, config: &RqVaeConfig, xs: &Tensor) -> Result<Evaluation> {
    let commitment = config.commitment;
    let rows = xs.dim(0)?.max(1) as f64;
    let encoded = network.encoder.trace(xs)?;
    let quantized = quantize(encoded.output(), &network.codebooks())?;
    let decoded = network.decoder.trace(&quantized.latent)?;
    let difference = (decoded.output() - xs)?;

    let mut gradients = Gradients::default();
    let grad = difference.affine(2.0 / rows, 0.0)?;
    let grad_latent = network.decoder.backward(&decoded, &grad, true, &mut gradients)?;
    let mut grad_z = match grad_latent {
        Some(grad) => config.estimator.backward(&grad),
        None => encoded.output().zeros_like()?,
    };
    let mut sums = vec![difference.sqr()?.sum_all()?];
    for (level, (error, codes)) in quantized.errors.iter().zip(&quantized.codes).enumerate() {
        sums.push(error.sqr()?.sum_all()?);
        // d/dr of beta ||r - e||^2 is -2 beta (e - r).
        grad_z = (grad_z - error.affine(2.0 * commitment / rows, 0.0)?)?;
        let book = network.codebooks()[level];
        let grad = book.zeros_like()?.index_add(codes, &error.affine(2.0 / rows, 0.0)?, 0)?;
        gradients.insert(codebook_name(level), grad);
    }
    network.encoder.backward(&encoded, &grad_z, false, &mut gradients)?;

    let sums = Tensor::stack(&sums, 0)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    let reconstruction = sums[0] / rows;
    let quantization = sums[1..].iter().sum::<f64>() / rows;
    Ok(Evaluation { loss: reconstruction + (1.0 + commitment) * quantization, reconstruction, gradients, quantized })
}
