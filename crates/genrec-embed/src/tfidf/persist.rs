//! A fitted TF-IDF embedder on disk: `config.json`, `vocabulary.json`, `model.safetensors`.

use std::path::Path;

use ndarray::Array2;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::{Tfidf, TfidfConfig, terms::Vocabulary};
use crate::{
    error::{ArrayProblem, EmbedError, Result},
    hash::PartHasher,
    io::{
        FORMAT_VERSION_KEY, RawTensor, check_tensors_version, create_dir, floats, json_bytes, matrix, read_file,
        read_json, read_versioned, tensor_bytes, write_all,
    },
};

/// Newest format written and read.
const FORMAT_VERSION: u32 = 1;
const CONFIG: &str = "config.json";
const VOCABULARY: &str = "vocabulary.json";
const WEIGHTS: &str = "model.safetensors";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format_version: u32,
    r#type: String,
    config: TfidfConfig,
    /// Over configuration, terms, weights: the fingerprint.
    sha256: String,
}

impl Tfidf {
    pub(super) fn from_parts(
        config: TfidfConfig,
        vocabulary: Vocabulary,
        idf: Vec<f32>,
        components: Array2<f32>,
    ) -> Result<Self> {
        let json = serde_json::to_vec(&config).map_err(|source| EmbedError::Json { path: CONFIG.into(), source })?;
        let mut hasher = PartHasher::default().part(&json);
        for term in vocabulary.terms() {
            hasher = hasher.part(term.as_bytes());
        }
        for value in idf.iter().chain(&components) {
            hasher = hasher.raw(&value.to_le_bytes());
        }
        Ok(Self { config, vocabulary, idf, components, sha256: hasher.hex() })
    }

    /// Writes the embedder into a directory, which is made if need be. All files are written under temporary names before the
    /// first is renamed, so that a full disk leaves what was there; `config.json` is renamed last, and a crash before that leaves
    /// files of two saves, which [`load`](Self::load) refuses.
    ///
    /// # Errors
    /// [`EmbedError::Io`] when a file cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        create_dir(dir)?;
        let [vocabulary, weights, config] = [VOCABULARY, WEIGHTS, CONFIG].map(|name| dir.join(name));
        let tensors =
            [("components", RawTensor::matrix(self.components.view())), ("idf", RawTensor::vector(&self.idf))];
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            r#type: "tfidf".to_owned(),
            config: self.config.clone(),
            sha256: self.sha256.clone(),
        };
        let files = [
            (&*vocabulary, &*json_bytes(&vocabulary, &self.vocabulary.terms())?),
            (&*weights, &*tensor_bytes(&weights, tensors, &[(FORMAT_VERSION_KEY, "1")])?),
            (&*config, &*json_bytes(&config, &manifest)?),
        ];
        write_all(&files)
    }

    /// Reads what [`save`](Self::save) wrote; texts then embed to the same bytes.
    ///
    /// # Errors
    /// When a file is missing, malformed or of a newer format, when lengths disagree, and
    /// [`EmbedError::HashMismatch`] when a file is not the one that was saved.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let path = dir.join(CONFIG);
        let manifest: Manifest = read_versioned(&path, FORMAT_VERSION)?;
        if manifest.r#type != "tfidf" {
            return Err(EmbedError::Unsupported {
                path,
                property: "type",
                value: manifest.r#type,
                supported: "tfidf; use AnyEmbedder::load for the others",
            });
        }
        manifest.config.validate()?;
        let path = dir.join(WEIGHTS);
        let bytes = read_file(&path)?;
        check_tensors_version(&path, &bytes)?;
        let array = |problem| EmbedError::Array { path: path.clone(), problem };
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| array(ArrayProblem::Safetensors(error)))?;
        let components = matrix(&tensors, "components").map_err(array)?;
        let terms: Vec<String> = read_json(&dir.join(VOCABULARY))?;
        let idf = tensors.tensor("idf").map_err(|_| array(ArrayProblem::MissingTensor { name: "idf".to_owned() }))?;
        let fits = idf.dtype() == safetensors::Dtype::F32
            && idf.shape() == [terms.len()]
            && components.nrows() == terms.len()
            && components.ncols() > 0;
        let vocabulary = Vocabulary::from_terms(terms).filter(|_| fits).ok_or_else(|| {
            array(ArrayProblem::WrongTensor {
                name: "idf".to_owned(),
                dtype: format!("{:?}", idf.dtype()),
                shape: idf.shape().to_vec(),
                expected: "F32 with one value, and one row of components, a term of vocabulary.json in alphabetical order",
            })
        })?;
        let embedder = Self::from_parts(manifest.config, vocabulary, floats(idf.data()), components)?;
        if embedder.sha256 != manifest.sha256 {
            return Err(EmbedError::HashMismatch {
                path: dir.to_owned(),
                expected: manifest.sha256,
                got: embedder.sha256,
            });
        }
        Ok(embedder)
    }
}
