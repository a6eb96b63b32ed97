//! The built-in quantisers by value, for configuration files, command lines and saved models.

use std::path::Path;

use candle_core::{Device, Result as TensorResult, Tensor};
use serde::{Deserialize, Serialize};

use crate::{
    Fit, FitControl, Quantizer, Reconstruct, ResidualKMeans, ResidualKMeansConfig, Result, RowSource, RqVae,
    RqVaeConfig, saved,
};

/// The configuration of any built-in quantiser, tagged by `"type"` in its JSON form.
///
/// ```
/// use sid_quantize::{QuantizerConfig, ResidualKMeansConfig};
///
/// let config: QuantizerConfig = serde_json::from_str(r#"{"type": "residual_k_means", "seed": 7}"#)?;
/// assert_eq!(config, QuantizerConfig::ResidualKMeans(ResidualKMeansConfig::default().with_seed(7)));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "there is one of it in a run; a box would only burden who matches on it")]
pub enum QuantizerConfig {
    /// See [`RqVaeConfig`].
    RqVae(RqVaeConfig),
    /// See [`ResidualKMeansConfig`].
    ResidualKMeans(ResidualKMeansConfig),
}

impl Default for QuantizerConfig {
    /// The RQ-VAE with its defaults.
    fn default() -> Self {
        Self::RqVae(RqVaeConfig::default())
    }
}

impl QuantizerConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`QuantizeError::InvalidConfig`](crate::QuantizeError::InvalidConfig) names the first field out of its bounds.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::RqVae(config) => config.validate(),
            Self::ResidualKMeans(config) => config.validate(),
        }
    }

    /// Codes in each level's codebook, coarse to fine.
    pub fn codebook_sizes(&self) -> &[u32] {
        match self {
            Self::RqVae(config) => &config.codebook_sizes,
            Self::ResidualKMeans(config) => &config.codebook_sizes,
        }
    }
}

impl From<RqVaeConfig> for QuantizerConfig {
    fn from(config: RqVaeConfig) -> Self {
        Self::RqVae(config)
    }
}

impl From<ResidualKMeansConfig> for QuantizerConfig {
    fn from(config: ResidualKMeansConfig) -> Self {
        Self::ResidualKMeans(config)
    }
}

impl Fit for QuantizerConfig {
    type Model = AnyQuantizer;

    fn fit_on(&self, xs: &mut dyn RowSource, device: &Device, ctl: &mut dyn FitControl) -> Result<AnyQuantizer> {
        Ok(match self {
            Self::RqVae(config) => AnyQuantizer::RqVae(config.fit_on(xs, device, ctl)?),
            Self::ResidualKMeans(config) => AnyQuantizer::ResidualKMeans(config.fit_on(xs, device, ctl)?),
        })
    }
}

/// Any built-in quantiser, fitted; what a directory holds.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use candle_core::Device;
/// use ndarray::Array2;
/// use sid_quantize::{AnyQuantizer, ArrayRows, Fit, Quantizer, ResidualKMeansConfig};
///
/// let embeddings = Array2::from_shape_fn((64, 4), |(i, j)| ((i * 7 + j * 3) % 11) as f32);
/// let config = ResidualKMeansConfig::default().with_codebook_sizes([8, 8]);
/// let fitted = AnyQuantizer::from(config.fit(&mut ArrayRows::from(embeddings.view()))?);
/// fitted.save(dir.path())?;
/// let loaded = AnyQuantizer::load(dir.path(), &Device::Cpu)?;
/// assert_eq!(loaded.encode_array(embeddings.view(), 64)?, fitted.encode_array(embeddings.view(), 64)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one model a process, not an array of them")]
#[non_exhaustive]
pub enum AnyQuantizer {
    /// See [`RqVae`].
    RqVae(RqVae),
    /// See [`ResidualKMeans`].
    ResidualKMeans(ResidualKMeans),
}

impl From<RqVae> for AnyQuantizer {
    fn from(model: RqVae) -> Self {
        Self::RqVae(model)
    }
}

impl From<ResidualKMeans> for AnyQuantizer {
    fn from(model: ResidualKMeans) -> Self {
        Self::ResidualKMeans(model)
    }
}

impl AnyQuantizer {
    /// The configuration it was fitted with.
    pub fn config(&self) -> QuantizerConfig {
        match self {
            Self::RqVae(model) => model.config().clone().into(),
            Self::ResidualKMeans(model) => model.config().clone().into(),
        }
    }

    /// Writes `config.json` and `model.safetensors` to a directory, which is made if it is not there. Each file is
    /// written under a temporary name, synced and renamed.
    ///
    /// # Errors
    /// [`QuantizeError::Io`](crate::QuantizeError::Io) when the directory cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let tensors = match self {
            Self::RqVae(model) => model.tensors()?,
            Self::ResidualKMeans(model) => model.tensors(),
        };
        saved::save(dir.as_ref(), &self.config(), self.dim(), &tensors)
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// When a file is missing, too large, of another format version, not from the same save as the other, or when a
    /// field is out of bounds or a tensor is missing, superfluous, of another shape or type, or not finite.
    pub fn load(dir: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let (config, dim, tensors) = saved::load(dir.as_ref(), device, |config, dim| {
            config.validate()?;
            Ok(match config {
                QuantizerConfig::RqVae(config) => RqVae::shapes(config, dim),
                QuantizerConfig::ResidualKMeans(config) => ResidualKMeans::shapes(config, dim),
            })
        })?;
        Ok(match config {
            QuantizerConfig::RqVae(config) => Self::RqVae(RqVae::from_tensors(config, dim, &tensors, device)?),
            QuantizerConfig::ResidualKMeans(config) => {
                Self::ResidualKMeans(ResidualKMeans::from_tensors(config, dim, &tensors, device)?)
            }
        })
    }

    fn inner(&self) -> &dyn Reconstruct {
        match self {
            Self::RqVae(model) => model,
            Self::ResidualKMeans(model) => model,
        }
    }
}

impl Quantizer for AnyQuantizer {
    fn dim(&self) -> usize {
        self.inner().dim()
    }

    fn codebook_sizes(&self) -> &[u32] {
        self.inner().codebook_sizes()
    }

    fn device(&self) -> &Device {
        self.inner().device()
    }

    fn encode(&self, xs: &Tensor) -> TensorResult<Tensor> {
        self.inner().encode(xs)
    }

    fn encode_slice(&self, xs: &[f32], codes: &mut [u32]) -> TensorResult<bool> {
        self.inner().encode_slice(xs, codes)
    }
}

impl Reconstruct for AnyQuantizer {
    fn reconstruct(&self, codes: &Tensor) -> TensorResult<Tensor> {
        self.inner().reconstruct(codes)
    }
}

#[cfg(test)]
mod tests;
