//! Operations on sequences that lie end to end, each with its gradient as a function of its own: what a transformer that
//! trains without padding and without a graph is made of.
//!
//! On CUDA in `f32` and `bf16` each is one launch; elsewhere the compositions of candle's own operations run that say what it
//! means, in `f32`. Sums, norms and softmax are in `f32` throughout, and the residual stream stays `f32`. Dropout has the
//! masks of the CPU's fused operations on every device, bit for bit. Some gradients are added up on a GPU in no fixed order.
//!
//! A function that takes a tensor by value overwrites it on a GPU: hand over what nothing else reads.

mod attention;
mod decode;
mod oracle;
mod rows;

use candle_core::{DType, Device, Result, Tensor};

pub use self::attention::{Attended, Columns, Pull, Sight, Spans, attention, attention_grad};
pub use self::decode::{Past, PastTable, Prefixes, TrieTables, best_children, finds_children, log_softmax};
pub use self::rows::{
    Norm, NormGrads, add_norm, add_norm_grad, cross_entropy, embed, embed_grad, gather, relu_dropout, relu_dropout_grad,
};
use crate::cuda::{on_device, uninit};
pub use crate::dropout::DropoutMask;

/// Whether the kernels of a device attend over heads of that width: where not, use [`crate::graph`].
pub fn supports(device: &Device, dtype: DType, head_width: usize) -> bool {
    let width = matches!(head_width, 16 | 32 | 64);
    match on_device(device) {
        true => width && matches!(dtype, DType::F32 | DType::BF16),
        false => dtype == DType::F32,
    }
}

/// A new tensor of that shape, type and place, whose values mean nothing until something is written over them.
///
/// # Errors
/// When the device has no room.
pub fn blank_like(tensor: &Tensor) -> Result<Tensor> {
    uninit(tensor.dims(), tensor.dtype(), tensor.device())
}

#[cfg(test)]
mod tests;
