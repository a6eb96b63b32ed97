//! From hidden states to one vector a text: pooling, dense layers, normalisation.

use std::path::Path;

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use serde::Deserialize;

use super::{Batch, files, nn::Linear};
use crate::{
    error::{EmbedError, Result},
    io::{read_file, read_json},
};

/// How hidden states become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// The mean over tokens, padding left out.
    Mean,
    /// The first token.
    First,
    /// The last token that is not padding.
    Last,
}

#[derive(Debug)]
struct Dense {
    linear: Linear,
    tanh: bool,
    output: usize,
}

/// What follows the transformer.
#[derive(Debug)]
pub(crate) struct Head {
    pooling: Pooling,
    dense: Vec<Dense>,
    normalize: bool,
}

#[derive(Deserialize)]
struct PoolingConfig {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    /// Newer files name the mode instead.
    pooling_mode: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct DenseConfig {
    in_features: usize,
    out_features: usize,
    activation_function: Option<String>,
}

impl Head {
    pub(crate) fn new(pooling: Pooling, normalize: bool) -> Self {
        Self { pooling, dense: Vec::new(), normalize }
    }

    /// The modules that `modules.json` lists after the transformer; without the file `default`. Any order but
    /// transformer, pooling, dense layers, normalisation would be another function, and is refused.
    pub(crate) fn open(dir: &Path, default: Self, device: &Device) -> Result<Self> {
        let Some(modules) = files::modules(dir)? else { return Ok(default) };
        let unsupported = |property, value| {
            let supported = "Transformer, Pooling, Dense, Normalize, in this order";
            Err(EmbedError::Unsupported { path: dir.join("modules.json"), property, value, supported })
        };
        let mut last = None;
        let mut head = Self { pooling: default.pooling, dense: Vec::new(), normalize: false };
        for module in modules {
            // Module types are Python paths; only their last part is stable between versions.
            let kind = module.r#type.rsplit('.').next().unwrap_or_default();
            let place = ["Transformer", "Pooling", "Dense", "Normalize"].iter().position(|known| *known == kind);
            let Some(place) = place else { return unsupported("module", module.r#type) };
            // Dense layers alone may follow their like.
            if last.is_some_and(|last| place < last || (place == last && kind != "Dense")) {
                return unsupported("order of modules", module.r#type);
            }
            last = Some(place);
            match kind {
                "Pooling" => head.pooling = Pooling::open(&dir.join(&module.path))?,
                "Dense" => head.dense.push(Dense::open(&dir.join(&module.path), device)?),
                "Normalize" => head.normalize = true,
                _ => {}
            }
        }
        Ok(head)
    }

    /// Width of an embedding, given that of a hidden state.
    pub(crate) fn dim(&self, hidden: usize) -> usize {
        self.dense.last().map_or(hidden, |dense| dense.output)
    }

    /// `(texts, length, hidden)` to one vector a text.
    pub(crate) fn forward(&self, hidden: &Tensor, batch: &Batch) -> candle_core::Result<Vec<Vec<f32>>> {
        let mut pooled = self.pooling.forward(hidden, batch)?;
        for dense in &self.dense {
            pooled = dense.linear.forward(&pooled)?;
            if dense.tanh {
                pooled = pooled.tanh()?;
            }
        }
        let mut rows = pooled.to_vec2::<f32>()?;
        if self.normalize {
            rows.iter_mut().for_each(|row| normalize(row));
        }
        Ok(rows)
    }
}

/// Scales to unit length; zeros stay zeros.
fn normalize(row: &mut [f32]) {
    let norm = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt().max(1e-12);
    #[allow(clippy::cast_possible_truncation, reason = "components of a unit vector")]
    row.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
}

impl Pooling {
    fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        let config: PoolingConfig = read_json(&path)?;
        let other = config.pooling_mode_max_tokens
            || config.pooling_mode_mean_sqrt_len_tokens
            || config.pooling_mode_weightedmean_tokens;
        let flags = (config.pooling_mode_mean_tokens, config.pooling_mode_cls_token, config.pooling_mode_lasttoken);
        let mode = config.pooling_mode.as_ref().map(|mode| mode.as_str().unwrap_or("several"));
        match (mode, other, flags) {
            (Some("mean"), ..) | (None, false, (true, false, false)) => Ok(Self::Mean),
            (Some("cls"), ..) | (None, false, (false, true, false)) => Ok(Self::First),
            (Some("lasttoken"), ..) | (None, false, (false, false, true)) => Ok(Self::Last),
            _ => Err(EmbedError::Unsupported {
                path,
                property: "pooling",
                value: mode.unwrap_or("another mode, or several").to_owned(),
                supported: "one of mean, cls, lasttoken",
            }),
        }
    }

    fn forward(self, hidden: &Tensor, batch: &Batch) -> candle_core::Result<Tensor> {
        let (texts, length, width) = hidden.dims3()?;
        match self {
            Self::Mean => {
                let mask = batch.mask()?;
                let sums = mask.unsqueeze(1)?.matmul(hidden)?.squeeze(1)?;
                sums.broadcast_div(&mask.sum_keepdim(1)?)
            }
            Self::First => hidden.narrow(1, 0, 1)?.squeeze(1)?.contiguous(),
            Self::Last => {
                let rows: Vec<i64> =
                    (0..).zip(&batch.lengths).map(|(text, n)| (text * length + n - 1) as i64).collect();
                let rows = Tensor::from_vec(rows, texts, hidden.device())?;
                hidden.reshape((texts * length, width))?.index_select(&rows, 0)
            }
        }
    }
}

impl Dense {
    /// Reads `model.safetensors`, or `pytorch_model.bin` where that alone is there.
    fn open(dir: &Path, device: &Device) -> Result<Self> {
        let path = dir.join("config.json");
        let config: DenseConfig = read_json(&path)?;
        let activation = config.activation_function.as_deref().unwrap_or("Tanh");
        let tanh = match activation.rsplit('.').next().unwrap_or_default() {
            "Identity" => false,
            "Tanh" => true,
            _ => {
                return Err(EmbedError::Unsupported {
                    path,
                    property: "activation_function",
                    value: activation.to_owned(),
                    supported: "Identity, Tanh",
                });
            }
        };
        let pickle = dir.join("pytorch_model.bin");
        let vb = if !dir.join("model.safetensors").is_file() && pickle.is_file() {
            read_pickle(&pickle, device)?
        } else {
            files::weights(dir, device)?
        };
        let linear = Linear::load(config.in_features, config.out_features, vb.pp("linear"))?;
        Ok(Self { linear, tanh, output: config.out_features })
    }
}

/// Reads a PyTorch pickle by candle's reader, which evaluates no code but has not been hardened
/// against hostile files.
fn read_pickle(path: &Path, device: &Device) -> Result<VarBuilder<'static>> {
    // For the file's name in the error, as candle's own has none.
    read_file(path)?;
    tracing::warn!("{} is a pickle: use files you trust, or convert it to safetensors", path.display());
    Ok(VarBuilder::from_pth(path, candle_core::DType::F32, device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a directory that lists modules of these kinds, and has a pooling and a dense layer.
    fn open(kinds: &[&str]) -> Result<Head> {
        let dir = tempfile::tempdir().unwrap();
        let path = |kind: &str| if matches!(kind, "Transformer" | "Normalize") { "" } else { kind }.to_owned();
        let modules: Vec<_> =
            kinds.iter().map(|kind| serde_json::json!({"path": path(kind), "type": format!("a.b.{kind}")})).collect();
        let write = |file: &str, content: String| std::fs::write(dir.path().join(file), content).unwrap();
        write("modules.json", serde_json::to_string(&modules).unwrap());
        for module in ["Pooling", "Dense"] {
            std::fs::create_dir(dir.path().join(module)).unwrap();
        }
        write("Pooling/config.json", r#"{"pooling_mode_cls_token": true}"#.to_owned());
        write("Dense/config.json", r#"{"in_features": 2, "out_features": 2}"#.to_owned());
        let tensor = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        let tensors = [("linear.weight", tensor(&[2, 2])), ("linear.bias", tensor(&[2]))].into();
        candle_core::safetensors::save::<&str, _>(&tensors, dir.path().join("Dense/model.safetensors")).unwrap();
        Head::open(dir.path(), Head::new(Pooling::Mean, true), &Device::Cpu)
    }

    #[test]
    fn modules_come_in_one_order() {
        let head = open(&["Transformer", "Pooling", "Dense", "Dense", "Normalize"]).unwrap();
        assert_eq!((head.pooling, head.dense.len(), head.normalize), (Pooling::First, 2, true));
        assert!(!open(&["Transformer", "Pooling"]).unwrap().normalize);
        for (kinds, odd) in [
            (&["Transformer", "Pooling", "Normalize", "Dense"][..], "a.b.Dense"),
            (&["Transformer", "Pooling", "Normalize", "Normalize"], "a.b.Normalize"),
            (&["Transformer", "Normalize", "Pooling"], "a.b.Pooling"),
            (&["Transformer", "Dense", "Pooling"], "a.b.Pooling"),
            (&["Transformer", "Pooling", "Dropout"], "a.b.Dropout"),
        ] {
            match open(kinds) {
                Err(EmbedError::Unsupported { value, .. }) => assert_eq!(value, odd),
                other => panic!("{kinds:?}: {other:?}"),
            }
        }
    }
}
