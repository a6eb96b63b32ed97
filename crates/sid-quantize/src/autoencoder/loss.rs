//! The objectives of an autoencoder, with and without its bottleneck, and their gradients, derived by hand.

use candle_core::{Result, Tensor};
use genrec_kernels::Gradients;

use super::Network;
use super::dense::squared_error;

/// Where in the training an evaluation is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step<'a> {
    /// Steps before this one.
    pub(crate) number: u64,
    /// Share of the training with a bottleneck that is done, in `0..1`.
    pub(crate) progress: f64,
    /// Which rows of the source are in the batch.
    pub(crate) rows: &'a [usize],
}

/// What a bottleneck made of a batch of latent vectors.
pub(crate) trait Found {
    /// What the decoder sees, `(n, latent)`.
    fn latent(&self) -> &Tensor;

    /// The codes of each level, `(n,)` u32 a level.
    fn codes(&self) -> &[Tensor];
}

/// What comes back from a bottleneck.
#[derive(Debug)]
pub(crate) struct Pull {
    /// The gradient with respect to `z`, `(n, latent)`.
    pub(crate) grad_z: Tensor,
    /// What the bottleneck adds to the objective.
    pub(crate) loss: f64,
}

/// A discrete bottleneck between encoder and decoder.
pub(crate) trait Bottleneck {
    /// What it makes of a batch.
    type Found: Found;

    /// Quantises `z`, `(n, latent)`.
    fn quantize(&self, z: &Tensor, step: Step<'_>) -> Result<Self::Found>;

    /// Passes the gradient of the reconstruction with respect to what the decoder saw back to `z`, adds the terms of its
    /// own, and the gradients of its parameters to `gradients`.
    fn backward(
        &self,
        z: &Tensor,
        found: &Self::Found,
        grad: &Tensor,
        step: Step<'_>,
        gradients: &mut Gradients,
    ) -> Result<Pull>;
}

/// One evaluation of an objective on a batch.
#[derive(Debug)]
pub(crate) struct Evaluation<F> {
    /// Mean over the rows of the whole objective.
    pub(crate) loss: f64,
    /// Mean over the rows of `||x - x^||^2`.
    pub(crate) reconstruction: f64,
    /// Of every parameter that the objective depends on.
    pub(crate) gradients: Gradients,
    /// What the bottleneck found; `None` where the objective has none.
    pub(crate) found: Option<F>,
}

/// Mean over the batch of `||x - D(E(x))||^2`: the autoencoder without its bottleneck.
///
/// # Shapes
/// - `xs`: `(n, dim)`
pub(crate) fn evaluate_autoencoder<F>(network: &Network, xs: &Tensor) -> Result<Evaluation<F>> {
    let rows = xs.dim(0)?.max(1) as f64;
    let encoded = network.encoder.trace(xs)?;
    let decoded = network.decoder.trace(encoded.output())?;
    let (sum, grad) = squared_error(decoded.output(), xs, 2.0 / rows)?;
    let mut gradients = Gradients::default();
    if let Some(grad_z) = network.decoder.backward(&decoded, &grad, true, &mut gradients)? {
        network.encoder.backward(&encoded, &grad_z, false, &mut gradients)?;
    }
    let loss = sum / rows;
    Ok(Evaluation { loss, reconstruction: loss, gradients, found: None })
}

/// Mean over the batch of `||x - x^||^2`, with `x^` decoded from what the bottleneck made of `z = E(x)`, and what the
/// bottleneck adds.
///
/// # Shapes
/// - `xs`: `(n, dim)`
pub(crate) fn evaluate<B: Bottleneck>(
    network: &Network,
    bottleneck: &B,
    xs: &Tensor,
    step: Step<'_>,
) -> Result<Evaluation<B::Found>> {
    let rows = xs.dim(0)?.max(1) as f64;
    let encoded = network.encoder.trace(xs)?;
    let found = bottleneck.quantize(encoded.output(), step)?;
    let decoded = network.decoder.trace(found.latent())?;
    let (sum, grad) = squared_error(decoded.output(), xs, 2.0 / rows)?;
    let reconstruction = sum / rows;
    let mut gradients = Gradients::default();
    let grad_latent = match network.decoder.backward(&decoded, &grad, true, &mut gradients)? {
        Some(grad) => grad,
        None => encoded.output().zeros_like()?,
    };
    let Pull { grad_z, loss } = bottleneck.backward(encoded.output(), &found, &grad_latent, step, &mut gradients)?;
    network.encoder.backward(&encoded, &grad_z, false, &mut gradients)?;
    Ok(Evaluation { loss: reconstruction + loss, reconstruction, gradients, found: Some(found) })
}
