//! Fused operations, seeded randomness and optimisers for generative recommendation on candle.

pub mod gemm;
pub mod graph;
pub mod init;
pub mod nearest;
pub mod optim;
pub mod params;
pub mod rng;

pub use params::{Gradients, ParamError, Parameters};
pub use rng::CounterRng;
