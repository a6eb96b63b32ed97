//! Gradient clipping by the norm over all parameters.

use candle_core::Result;

use crate::params::Gradients;

/// Scales all gradients by one factor so that their common Euclidean norm is at most `max_norm`, and returns the norm
/// before scaling. Gradients whose norm is within the bound are left as they are.
///
/// A norm that is not finite is returned and nothing is scaled: whether to skip the step is the caller's choice.
///
/// # Errors
/// When `max_norm` is not above 0, or a tensor operation fails.
pub fn clip_global_norm(grads: &mut Gradients, max_norm: f64) -> Result<f64> {
    if max_norm.is_nan() || max_norm <= 0.0 {
        candle_core::bail!("the largest gradient norm is {max_norm}, but must be above 0; leave clipping out instead")
    }
    let norm = grads.global_norm()?;
    if norm.is_finite() && norm > max_norm {
        grads.scale(max_norm / norm)?;
    }
    Ok(norm)
}
