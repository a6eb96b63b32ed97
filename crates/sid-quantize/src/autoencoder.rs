//! Autoencoders with a discrete bottleneck: what RQ-VAE and FSQ share.

mod dense;
mod loss;
mod network;
mod plan;
mod training;

pub(crate) use loss::{Bottleneck, Found, Pull, Step, evaluate, evaluate_autoencoder};
pub(crate) use network::{Network, check_weights, check_widths, parameter, widths};
pub use plan::Monitor;
pub(crate) use plan::Plan;
pub(crate) use training::{Learn, Training};
