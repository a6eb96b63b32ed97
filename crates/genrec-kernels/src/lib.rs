//! Fused operations, seeded randomness and optimisers for generative recommendation on candle.
//!
//! Depend on this crate rather than on the facade to build a model or a quantiser of your own with the same speed and
//! the same determinism. [`graph`] holds trainable operations that never cut a gradient, [`CounterRng`] is the one
//! source of randomness, [`optim`] moves [`Parameters`] against their [`Gradients`].
//!
//! ```
//! # use candle_core::{Device, Result, Tensor};
//! # fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
//! use genrec_kernels::optim::{Optimizer, OptimizerConfig};
//! use genrec_kernels::{CounterRng, Gradients, Parameters, graph, init};
//!
//! let rng = CounterRng::new(7);
//! let mut params = Parameters::new(&Device::Cpu);
//! let weight = params.insert("weight", &init::normal(&rng.named("weight"), (3, 4), 0.1, &Device::Cpu)?)?;
//! let x = init::normal(&rng.named("x"), (8, 4), 1.0, &Device::Cpu)?;
//! let labels = Tensor::from_vec(vec![0u32, 1, 2, 0, 1, 2, 0, 1], 8, &Device::Cpu)?;
//!
//! let loss = || graph::cross_entropy(&graph::linear(&x, &weight)?, &labels);
//! let before = loss()?.to_scalar::<f32>()?;
//! let mut optimizer = OptimizerConfig::default().build(&params)?;
//! for _ in 0..20 {
//!     let grads = Gradients::from_store(&params, &loss()?.backward()?)?;
//!     optimizer.step(&params, &grads, 0.05)?;
//! }
//! assert!(loss()?.to_scalar::<f32>()? < before);
//! # Ok(())
//! # }
//! ```
//!
//! # Alternatives
//! `candle-nn` has layers and AdamW; its fused softmax and norms have no backward, its optimiser's state cannot be
//! saved, and its randomness cannot be seeded on the CPU.
//!
//! # Features
//! `cuda`, `cudnn`, `nccl`, `metal`, `accelerate` and `mkl` pass through to candle. With `cuda` the crate's own kernels are compiled
//! (by `nvcc`, as candle's are) and [`packed`] runs on them; [`graph`] runs as the compositions in [`graph::compose`] on every
//! device but the CPU, and its dropout draws from the device. With `nccl` GPUs can be joined to sum over them ([`nccl`]).
//!
//! # Processors
//! Vector instructions are chosen when the program runs, in [`mod@gemm`] as in the fused operations; a processor
//! without AVX-512 runs the narrower forms. Nearest codewords take the matrix unit (AMX, under Linux) or the dot products of
//! `bf16` (AVX512-BF16) of x86-64 processors that have one.

mod cuda;
mod dropout;
pub mod fused;
pub mod gemm;
pub mod graph;
pub mod host;
pub mod init;
mod math;
pub mod matmul;
pub mod nccl;
pub mod nearest;
pub mod optim;
pub mod packed;
pub mod params;
mod pool;
pub mod rng;
pub mod simhash;

pub use math::vectorized;
pub use params::{Gradients, ParamError, Parameters};
pub use pool::in_pool;
pub use rng::CounterRng;

/// The examples of the README, run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
