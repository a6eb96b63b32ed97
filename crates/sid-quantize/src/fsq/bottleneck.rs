//! Rounding between encoder and decoder.

use candle_core::{Result as TensorResult, Tensor};
use genrec_kernels::Gradients;
use ndarray::Array2;

use super::grid::Grid;
use crate::Result;
use crate::autoencoder::{Bottleneck, Found, Learn, Pull, Step};

/// What rounding of a batch of latent vectors found.
#[derive(Debug)]
pub(super) struct Rounded {
    /// `tanh(z + s)`.
    tanh: Tensor,
    latent: Tensor,
    codes: Vec<Tensor>,
}

impl Found for Rounded {
    fn latent(&self) -> &Tensor {
        &self.latent
    }

    fn codes(&self) -> &[Tensor] {
        &self.codes
    }
}

/// A grid, which has nothing to learn.
pub(super) struct Rounding {
    pub(super) grid: Grid,
    pub(super) sizes: Vec<u32>,
}

impl Bottleneck for Rounding {
    type Found = Rounded;

    fn quantize(&self, z: &Tensor, _step: Step<'_>) -> TensorResult<Rounded> {
        let (bounded, tanh) = self.grid.bound(z)?;
        let rounded = bounded.round()?;
        Ok(Rounded { latent: self.grid.unit(&rounded)?, codes: self.grid.codes_of(&rounded)?, tanh })
    }

    fn backward(
        &self,
        _z: &Tensor,
        found: &Rounded,
        grad: &Tensor,
        _step: Step<'_>,
        _gradients: &mut Gradients,
    ) -> TensorResult<Pull> {
        Ok(Pull { grad_z: self.grid.backward(&found.tanh, grad)?, loss: 0.0 })
    }
}

impl Learn for Rounding {
    fn codebook_sizes(&self) -> &[u32] {
        &self.sizes
    }

    fn start(&mut self, _latent: Array2<f32>) -> Result<()> {
        Ok(())
    }

    fn learn(
        &mut self,
        _gradients: &Gradients,
        _found: &Rounded,
        _codes: &[Vec<u32>],
        _rate: f64,
        _step: Step<'_>,
    ) -> Result<u32> {
        Ok(0)
    }
}
