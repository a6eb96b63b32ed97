//! Fused operations, seeded randomness and optimisers for generative recommendation on candle.

pub mod params;

pub use params::{Gradients, ParamError, Parameters};
