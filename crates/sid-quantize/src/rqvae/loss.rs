//! The training objectives and their gradients, derived by hand.

use candle_core::{DType, Result, Tensor};
use genrec_kernels::Gradients;

use super::RqVaeConfig;
use super::dense::squared_error;
use super::estimator::{Quantized, quantize};
use super::model::Network;
use crate::coder::codebook_name;

/// One evaluation of an objective on a batch.
#[derive(Debug)]
pub(crate) struct Evaluation {
    /// Mean over the rows of the whole objective.
    pub(crate) loss: f64,
    /// Mean over the rows of `||x - x^||^2`.
    pub(crate) reconstruction: f64,
    /// Of every parameter that the objective depends on.
    pub(crate) gradients: Gradients,
    /// What the quantiser found; `None` where the objective has none.
    pub(crate) quantized: Option<Quantized>,
}

/// Mean over the batch of `||x - D(E(x))||^2`: the autoencoder without its quantiser.
///
/// # Shapes
/// - `xs`: `(n, dim)`
pub(crate) fn evaluate_autoencoder(network: &Network, xs: &Tensor) -> Result<Evaluation> {
    let rows = xs.dim(0)?.max(1) as f64;
    let encoded = network.encoder.trace(xs)?;
    let decoded = network.decoder.trace(encoded.output())?;
    let (sum, grad) = squared_error(decoded.output(), xs, 2.0 / rows)?;
    let mut gradients = Gradients::default();
    if let Some(grad_z) = network.decoder.backward(&decoded, &grad, true, &mut gradients)? {
        network.encoder.backward(&encoded, &grad_z, false, &mut gradients)?;
    }
    let loss = sum / rows;
    Ok(Evaluation { loss, reconstruction: loss, gradients, quantized: None })
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
    let (sum, grad) = squared_error(decoded.output(), xs, 2.0 / rows)?;
    let reconstruction = sum / rows;

    let mut gradients = Gradients::default();
    let grad_latent = network.decoder.backward(&decoded, &grad, true, &mut gradients)?;
    let mut grad_z = match grad_latent {
        Some(grad) => config.estimator.backward(&grad),
        None => encoded.output().zeros_like()?,
    };
    let mut sums = Vec::with_capacity(quantized.errors.len());
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
    let quantization = sums.iter().sum::<f64>() / rows;
    let loss = reconstruction + (1.0 + commitment) * quantization;
    Ok(Evaluation { loss, reconstruction, gradients, quantized: Some(quantized) })
}
