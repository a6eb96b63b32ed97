//! Where a model is, and what it computes in.

use std::path::Path;

use candle_core::{DType, Device};
use genrec::model::t5::T5;
use serde::Deserialize;

use crate::BoxError;

/// The CPU and `f32` unless told otherwise.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Place {
    cuda: bool,
    bf16: bool,
}

impl Place {
    /// Loads a model directory in Hugging Face's form.
    pub(crate) fn open(&self, dir: &Path) -> Result<T5, BoxError> {
        let device = if self.cuda { Device::new_cuda(0)? } else { Device::Cpu };
        let dtype = if self.bf16 { DType::BF16 } else { DType::F32 };
        Ok(T5::load(dir, &device)?.with_compute_dtype(dtype)?)
    }
}
