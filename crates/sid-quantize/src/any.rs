//! The built-in quantisers by value, for configuration files, command lines and saved models.

use std::path::Path;

use candle_core::{Device, Result as TensorResult, Tensor};
use serde::{Deserialize, Serialize};

use crate::saved::{self, Saved};
use crate::{
    Fit, FitControl, Fsq, FsqConfig, HierarchicalKMeans, HierarchicalKMeansConfig, ProductKMeans, ProductKMeansConfig,
    QuantizeError, Quantizer, RandomIds, RandomIdsConfig, RankCodes, Reconstruct, ResidualKMeans, ResidualKMeansConfig,
    Result, RowSource, RqVae, RqVaeConfig, SimHashLsh, SimHashLshConfig,
};

/// The one list of the built-in quantisers: `each!(value, Enum, inner => expression)` is a match over an enum of them, and
/// `each!(fit config, inner => expression)` one that makes of each configuration its model.
macro_rules! each {
    ($value:expr, $enum:ident, $inner:pat => $body:expr) => {
        match $value {
            $enum::RqVae($inner) => $body,
            $enum::ResidualKMeans($inner) => $body,
            $enum::HierarchicalKMeans($inner) => $body,
            $enum::ProductKMeans($inner) => $body,
            $enum::SimHashLsh($inner) => $body,
            $enum::Fsq($inner) => $body,
            $enum::RandomIds($inner) => $body,
        }
    };
    (fit $value:expr, $config:ident => $body:expr) => {
        match $value {
            QuantizerConfig::RqVae($config) => AnyQuantizer::RqVae($body),
            QuantizerConfig::ResidualKMeans($config) => AnyQuantizer::ResidualKMeans($body),
            QuantizerConfig::HierarchicalKMeans($config) => AnyQuantizer::HierarchicalKMeans($body),
            QuantizerConfig::ProductKMeans($config) => AnyQuantizer::ProductKMeans($body),
            QuantizerConfig::SimHashLsh($config) => AnyQuantizer::SimHashLsh($body),
            QuantizerConfig::Fsq($config) => AnyQuantizer::Fsq($body),
            QuantizerConfig::RandomIds($config) => AnyQuantizer::RandomIds($body),
        }
    };
}

macro_rules! conversions {
    ($($variant:ident: $config:ty),+ $(,)?) => {$(
        impl From<$config> for QuantizerConfig {
            fn from(config: $config) -> Self {
                Self::$variant(config)
            }
        }

        impl From<<$config as Fit>::Model> for AnyQuantizer {
            fn from(model: <$config as Fit>::Model) -> Self {
                Self::$variant(model)
            }
        }
    )+};
}

conversions! {
    RqVae: RqVaeConfig,
    ResidualKMeans: ResidualKMeansConfig,
    HierarchicalKMeans: HierarchicalKMeansConfig,
    ProductKMeans: ProductKMeansConfig,
    SimHashLsh: SimHashLshConfig,
    Fsq: FsqConfig,
    RandomIds: RandomIdsConfig,
}

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
    /// See [`HierarchicalKMeansConfig`].
    HierarchicalKMeans(HierarchicalKMeansConfig),
    /// See [`ProductKMeansConfig`].
    ProductKMeans(ProductKMeansConfig),
    /// See [`SimHashLshConfig`].
    SimHashLsh(SimHashLshConfig),
    /// See [`FsqConfig`].
    Fsq(FsqConfig),
    /// See [`RandomIdsConfig`].
    RandomIds(RandomIdsConfig),
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
        each!(self, Self, config => config.validate())
    }

    /// Sets the seed, which every quantiser has.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        each!(&mut self, Self, config => config.seed = seed);
        self
    }

    /// Codes in each level's codebook, coarse to fine.
    pub fn codebook_sizes(&self) -> Vec<u32> {
        match self {
            Self::RqVae(config) => config.codebook_sizes.clone(),
            Self::ResidualKMeans(config) => config.codebook_sizes.clone(),
            Self::HierarchicalKMeans(config) => config.codebook_sizes.clone(),
            Self::ProductKMeans(config) => config.codebook_sizes.clone(),
            Self::SimHashLsh(config) => config.codebook_sizes(),
            Self::Fsq(config) => config.codebook_sizes(),
            Self::RandomIds(config) => config.codebook_sizes.clone(),
        }
    }
}

impl QuantizerConfig {
    /// Fits on rows and on what is known of their users' behaviour; see [`RqVaeConfig::fit_aligned`].
    ///
    /// # Errors
    /// As there, and when the quantiser is none that can be aligned.
    pub fn fit_aligned(
        &self,
        xs: &mut dyn RowSource,
        behaviour: &mut dyn RowSource,
        device: &Device,
        ctl: &mut dyn FitControl,
    ) -> Result<AnyQuantizer> {
        match self {
            Self::RqVae(config) => config.fit_aligned(xs, behaviour, device, ctl).map(AnyQuantizer::RqVae),
            _ => Err(QuantizeError::config("type", "not rq_vae", "only an RQ-VAE can be aligned with behaviour")),
        }
    }
}

impl Fit for QuantizerConfig {
    type Model = AnyQuantizer;

    fn fit_on(&self, xs: &mut dyn RowSource, device: &Device, ctl: &mut dyn FitControl) -> Result<AnyQuantizer> {
        Ok(each!(fit self, config => config.fit_on(xs, device, ctl)?))
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
    /// See [`HierarchicalKMeans`].
    HierarchicalKMeans(HierarchicalKMeans),
    /// See [`ProductKMeans`].
    ProductKMeans(ProductKMeans),
    /// See [`SimHashLsh`].
    SimHashLsh(SimHashLsh),
    /// See [`Fsq`].
    Fsq(Fsq),
    /// See [`RandomIds`].
    RandomIds(RandomIds),
}

impl AnyQuantizer {
    /// The configuration it was fitted with.
    pub fn config(&self) -> QuantizerConfig {
        each!(self, Self, model => model.config().clone().into())
    }

    /// Writes `config.json` and `model.safetensors` to a directory, which is made if it is not there. Both are
    /// written under temporary names and synced before the first is renamed: a full disk leaves what was there. A crash between
    /// the two renames leaves files of two saves, which [`load`](Self::load) refuses.
    ///
    /// # Errors
    /// [`QuantizeError::Io`](crate::QuantizeError::Io) when the directory cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let tensors = each!(self, Self, model => model.tensors())?;
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
            Ok(each!(config, QuantizerConfig, config => elements(config, dim)))
        })?;
        Ok(each!(fit config, config => Saved::from_tensors(config, dim, &tensors, device)?))
    }

    /// A hash of what turns a row into codes: the width, the codebooks' sizes and every weight, or the settings
    /// where there are no weights. Equal on every device and after [`load`](Self::load); the first half of a SHA-256. An index keeps it (`CodebookId` of `sid-index`), so
    /// that codes of one quantiser are not looked up among those of another.
    ///
    /// # Errors
    /// When the weights cannot be brought to the host.
    pub fn fingerprint(&self) -> Result<[u8; 16]> {
        let tensors = each!(self, Self, model => model.tensors())?;
        saved::fingerprint(&self.config(), self.dim(), self.codebook_sizes(), &tensors)
    }

    /// This quantiser as one that maps codes back, if it is such a one.
    pub fn as_reconstruct(&self) -> Option<&dyn Reconstruct> {
        match self {
            Self::RqVae(model) => Some(model),
            Self::ResidualKMeans(model) => Some(model),
            Self::HierarchicalKMeans(model) => Some(model),
            Self::ProductKMeans(model) => Some(model),
            Self::Fsq(model) => Some(model),
            Self::SimHashLsh(_) | Self::RandomIds(_) => None,
        }
    }

    fn inner(&self) -> &dyn RankCodes {
        each!(self, Self, model => model)
    }
}

/// The bound of the model that a configuration makes.
fn elements<C: Fit>(config: &C, dim: usize) -> Option<usize>
where
    C::Model: Saved<Config = C>,
{
    <C::Model as Saved>::elements(config, dim)
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

impl RankCodes for AnyQuantizer {
    fn code_costs(&self, xs: &Tensor, prefix: &[u32]) -> TensorResult<Tensor> {
        self.inner().code_costs(xs, prefix)
    }
}

#[cfg(test)]
mod tests;
