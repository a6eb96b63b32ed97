//! Operations on sequences that lie end to end, each with its gradient as a function of its own: what a transformer that
//! trains without padding and without a graph is made of.
//!
//! On CUDA they are kernels of a launch or two, in `f32` and `bf16`; on the CPU the compositions of candle's own operations run that
//! say what they mean, in `f32` ([`best_children`] alone has none). [`supports`] says where to use them. Norms and softmax are in
//! `f32`, and so is the residual stream; in `bf16` the gradient of a query is rounded once for each 32 keys. Dropout has the masks
//! of the CPU's fused operations on every device, bit for bit. Some gradients are added up on a GPU in no fixed order.
//!
//! A function that takes a tensor by value overwrites it on a GPU, and whatever shares its storage: hand over what nothing else
//! reads.

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

/// The widest rows whose norm has a gradient on a GPU: a row for each of eight warps fits in the memory that they share.
pub const WIDEST: usize = 1_280;

/// The farthest distance that a bias of attention may tell apart on a GPU: its gradient is summed in the memory that a block's
/// threads share, beside the tiles.
pub const FARTHEST: usize = 512;

/// Whether a device has kernels for rows of that width and attention over heads of that one, with biases up to that distance:
/// where not, use [`crate::graph`].
pub fn supports(device: &Device, dtype: DType, width: usize, head_width: usize, distance: usize) -> bool {
    let fits = width <= WIDEST && matches!(head_width, 16 | 32 | 64) && distance <= FARTHEST;
    on_device(device) && fits && matches!(dtype, DType::F32 | DType::BF16)
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
