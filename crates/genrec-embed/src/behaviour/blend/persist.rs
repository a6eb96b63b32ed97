//! A blend on disk: `config.json`, `model.safetensors`.

use std::path::Path;

use ndarray::Array1;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::{Blend, BlendConfig, Side};
use crate::{
    error::{ArrayProblem, EmbedError, Result},
    io::{
        FORMAT_VERSION_KEY, RawTensor, check_tensors_version, create_dir, finite, floats, json_bytes, matrix,
        read_file, read_versioned, tensor_bytes, write_all,
    },
};

/// Newest format written and read.
const FORMAT_VERSION: u32 = 1;
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format_version: u32,
    config: BlendConfig,
}

impl Blend {
    /// Writes the blend into a directory, which is made if need be. Both files are written under temporary names before the first
    /// is renamed, so that a full disk leaves what was there; `config.json` is renamed last, and a crash before that leaves new
    /// weights beside the old configuration, which [`load`](Self::load) notices only where their sizes differ.
    ///
    /// # Errors
    /// [`EmbedError::Io`] when a file cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        create_dir(dir)?;
        let vector = |values: &Array1<f32>| RawTensor::vector(&values.to_vec());
        let tensors = [
            ("behaviour", RawTensor::matrix(self.rows.view())),
            ("behaviour_mean", vector(&self.behaviour.mean)),
            ("content_mean", vector(&self.content.mean)),
            ("factors", RawTensor::vector(&[self.content.factor, self.behaviour.factor])),
        ];
        let (weights, config) = (dir.join(WEIGHTS), dir.join(CONFIG));
        let manifest = Manifest { format_version: FORMAT_VERSION, config: self.config.clone() };
        let files = [
            (&*weights, &*tensor_bytes(&weights, tensors, &[(FORMAT_VERSION_KEY, "1")])?),
            (&*config, &*json_bytes(&config, &manifest)?),
        ];
        write_all(&files)
    }

    /// Reads what [`save`](Self::save) wrote; rows then blend to the same bytes.
    ///
    /// # Errors
    /// When a file is missing, malformed or of a newer format, or when lengths disagree.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let Manifest { config, .. } = read_versioned(&dir.join(CONFIG), FORMAT_VERSION)?;
        config.validate()?;
        let path = dir.join(WEIGHTS);
        let bytes = read_file(&path)?;
        check_tensors_version(&path, &bytes)?;
        let array = |problem| EmbedError::Array { path: path.clone(), problem };
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| array(ArrayProblem::Safetensors(error)))?;
        let rows = matrix(&tensors, "behaviour").and_then(finite).map_err(array)?;
        if rows.ncols() != config.behaviour.dims {
            return Err(array(ArrayProblem::WrongTensor {
                name: "behaviour".to_owned(),
                dtype: "F32".to_owned(),
                shape: rows.shape().to_vec(),
                expected: "a column for each of the `dims` of config.json",
            }));
        }
        let vector = |name: &str, length: Option<usize>, expected| {
            let missing = |_| array(ArrayProblem::MissingTensor { name: name.to_owned() });
            let tensor = tensors.tensor(name).map_err(missing)?;
            let values = floats(tensor.data());
            let fits = tensor.dtype() == Dtype::F32
                && tensor.shape() == [values.len()]
                && !values.is_empty()
                && length.is_none_or(|length| length == values.len())
                && values.iter().all(|value| value.is_finite());
            if fits {
                return Ok(values);
            }
            let (name, dtype, shape) = (name.to_owned(), format!("{:?}", tensor.dtype()), tensor.shape().to_vec());
            Err(array(ArrayProblem::WrongTensor { name, dtype, shape, expected }))
        };
        let factors = vector("factors", Some(2), "F32, two finite values")?;
        let side = |mean: Vec<f32>, at: usize| Side {
            mean: Array1::from(mean),
            factor: factors.get(at).copied().unwrap_or_default(),
        };
        let content = side(vector("content_mean", None, "F32, one finite value a feature")?, 0);
        let dims = Some(rows.ncols());
        let behaviour = side(vector("behaviour_mean", dims, "F32, one finite value a column of behaviour")?, 1);
        Ok(Self { config, content, behaviour, rows })
    }
}
