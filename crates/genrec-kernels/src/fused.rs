//! What a transformer computes beside its matrix products, forward and backward, on slices and on the calling thread.
//!
//! Sequences lie end to end without padding. Nothing is allocated once the scratch has grown to its size, every sum
//! runs in one order, and the functions are checked against the compositions of [`graph`](crate::graph).

mod attention;
mod cross_entropy;
mod elementwise;
mod layer_norm;
mod logistic;
pub(crate) mod rms_norm;

pub use crate::dropout::DropoutMask;

pub use self::attention::{Attention, AttentionGrads, AttentionInputs, AttentionScratch, RelativeBias, attend_past};
pub use self::cross_entropy::{cross_entropy, log_softmax, smoothed_cross_entropy};
pub use self::elementwise::{
    add_dropped, drop_in_place, dropped, gated_gelu, gated_gelu_backward, relu_dropout, relu_dropout_backward,
};
pub use self::layer_norm::{LayerNormGrads, layer_norm, layer_norm_backward};
pub use self::logistic::{Candidates, LogisticGrads, logistic};
pub use self::rms_norm::{rms_norm, rms_norm_backward};

#[cfg(test)]
mod tests;
