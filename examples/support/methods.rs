//! The quantisers that the programs know by name, and how a command line changes one.

use std::path::Path;

use clap::ValueEnum;
use genrec::quantize::{
    Alignment, CodebookLearning, Composition, Distance, Diversity, Ema, Estimator, FsqConfig, GumbelSoftmax,
    HierarchicalKMeansConfig, ProductKMeansConfig, QuantizerConfig, RandomIdsConfig, ResidualKMeansConfig,
    RotationConfig, RqVaeConfig, SimHashLshConfig, Sinkhorn,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{BoxError, overlay, read_json};

/// How much time methods are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A few passes: whether it runs, and roughly what it gives.
    Quick,
    /// The settings that results are reported with.
    #[default]
    Full,
}

impl Mode {
    /// One of two values.
    pub fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

/// A quantiser with settings.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// What it is called in commands, tables and directories: snake case.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Its settings.
    pub config: fn(Mode) -> QuantizerConfig,
}

/// Every method, in the order of tables. All have three codebooks of 256 codes, as TIGER has, or as many bits.
pub const METHODS: &[Method] = &[
    Method { name: "rq_vae", what: "TIGER's residual-quantised autoencoder", config: |mode| rq_vae(mode).into() },
    Method {
        name: "rq_vae_separating",
        what: "a latent vector of 16 features instead of 32",
        config: |mode| rq_vae(mode).with_latent_dim(RqVaeConfig::separating().latent_dim).into(),
    },
    Method {
        name: "rq_vae_rotation",
        what: "gradients by the rotation trick, commitment 1",
        config: |mode| rq_vae(mode).with_estimator(Estimator::RotationTrick).with_commitment(1.0).into(),
    },
    Method {
        name: "rq_vae_gumbel",
        what: "gradients by the Gumbel-softmax",
        config: |mode| rq_vae(mode).with_estimator(Estimator::GumbelSoftmax(GumbelSoftmax::default())).into(),
    },
    Method {
        name: "rq_vae_ema",
        what: "codebooks as running means",
        config: |mode| rq_vae(mode).with_codebook(CodebookLearning::Ema(Ema::default())).into(),
    },
    Method {
        name: "rq_vae_sim_vq",
        what: "codebooks through a shared linear map",
        config: |mode| rq_vae(mode).with_codebook(CodebookLearning::SimVq).with_restart_after(None).into(),
    },
    Method {
        name: "rq_vae_sinkhorn",
        what: "even assignment of the last level",
        config: |mode| rq_vae(mode).with_sinkhorn(Some(Sinkhorn::default())).into(),
    },
    Method {
        name: "pq_vae",
        what: "parts of the latent vector instead of residuals",
        config: |mode| rq_vae(mode).with_composition(Composition::Partitioned).into(),
    },
    Method {
        name: "letter",
        what: "LETTER's alignment with behaviour, and diversity",
        config: |mode| {
            rq_vae(mode).with_alignment(Some(Alignment::default())).with_diversity(Some(Diversity::default())).into()
        },
    },
    Method {
        name: "residual_k_means",
        what: "k-means on the residuals of k-means",
        config: |mode| k_means(mode).into(),
    },
    Method {
        name: "residual_k_means_balanced",
        what: "clusters of equal size",
        config: |mode| k_means(mode).with_balance(Some(1.0)).into(),
    },
    Method {
        name: "residual_k_means_separating",
        what: "64 whitened components, clusters of similar size",
        config: |mode| k_means(mode).with_whiten(Some(64)).with_balance(Some(1.2)).into(),
    },
    Method {
        name: "residual_k_means_beam",
        what: "encoded by a beam of 8",
        config: |mode| k_means(mode).with_beam(8).into(),
    },
    Method {
        name: "residual_k_means_cosine",
        what: "nearness by the angle",
        config: |mode| k_means(mode).with_distance(Distance::Cosine).into(),
    },
    Method { name: "product_k_means", what: "k-means of parts of the features", config: |mode| product(mode).into() },
    Method {
        name: "opq",
        what: "product k-means after a learned rotation",
        config: |mode| {
            let rotation = RotationConfig::default().with_iterations(mode.pick(10, 50));
            product(mode).with_rotation(Some(rotation)).into()
        },
    },
    Method {
        name: "hierarchical_k_means",
        what: "a tree: clusters inside clusters",
        config: |_| HierarchicalKMeansConfig::default().into(),
    },
    Method {
        name: "fsq",
        what: "rounded features of an autoencoder",
        config: |mode| FsqConfig::default().with_epochs(mode.pick(Some(10), None)).into(),
    },
    Method {
        name: "sim_hash_lsh",
        what: "signs of random projections",
        config: |_| SimHashLshConfig::default().into(),
    },
    Method { name: "random_ids", what: "codes that know nothing", config: |_| RandomIdsConfig::default().into() },
];

fn rq_vae(mode: Mode) -> RqVaeConfig {
    RqVaeConfig::default().with_epochs(mode.pick(Some(10), None))
}

fn product(mode: Mode) -> ProductKMeansConfig {
    ProductKMeansConfig::default().with_iterations(mode.pick(10, 100))
}

fn k_means(mode: Mode) -> ResidualKMeansConfig {
    ResidualKMeansConfig::default().with_iterations(mode.pick(10, 100))
}

/// The method of a name.
///
/// # Errors
/// When there is none; the message lists all.
pub fn find(name: &str) -> Result<&'static Method, BoxError> {
    let method = METHODS.iter().find(|method| method.name == name);
    method.ok_or_else(|| format!("`{name}` is not a method: there are {}", list(METHODS.iter())).into())
}

fn list<'a>(methods: impl Iterator<Item = &'a Method>) -> String {
    methods.map(|method| method.name).collect::<Vec<_>>().join(", ")
}

/// What a command line says of a quantiser; what it leaves out is the method's.
#[derive(Debug, Clone, Default)]
pub struct Changes<'a> {
    /// Settings as JSON, all or some; a whole `QuantizerConfig` where there is no method.
    pub file: Option<&'a Path>,
    /// Codes in each level's codebook.
    pub codebooks: Option<&'a [u32]>,
    /// Every random choice derives from it.
    pub seed: Option<u64>,
}

/// Whether a method has codebooks whose sizes can be set.
pub fn has_codebooks(method: &Method) -> bool {
    serde_json::to_value((method.config)(Mode::Full)).is_ok_and(|settings| settings.get("codebook_sizes").is_some())
}

/// The settings of a method, of a file, or of both: the file's fields over the method's.
///
/// # Errors
/// When there is neither, the file is not for a quantiser of the method's type, or a field is unknown or out of bounds.
pub fn configure(method: Option<&Method>, mode: Mode, changes: &Changes<'_>) -> Result<QuantizerConfig, BoxError> {
    let preset = method.map(|method| serde_json::to_value((method.config)(mode))).transpose()?;
    let given = changes.file.map(read_json).transpose()?;
    let mut settings = match (preset, given) {
        (Some(preset), None) => preset,
        (preset, Some(given)) => merge(method, preset, given, changes.file.unwrap_or(Path::new("")))?,
        (None, None) => {
            return Err(format!("give a --method ({}) or a --config", list(METHODS.iter())).into());
        }
    };
    let read = |settings: &Value| -> Result<QuantizerConfig, BoxError> {
        serde_json::from_value(settings.clone()).map_err(|error| match changes.file {
            Some(path) => format!("`{}` is no quantiser's configuration: {error}", path.display()).into(),
            None => BoxError::from(error),
        })
    };
    // With every field that its type has: what a command line sets must be one of them.
    settings = serde_json::to_value(read(&settings)?)?;
    let set = |settings: &mut Value, field: &str, argument: &str, value: Value| -> Result<(), BoxError> {
        let kind = settings["type"].as_str().unwrap_or_default().to_owned();
        let slot = settings.get_mut(field);
        *slot.ok_or_else(|| format!("a `{kind}` has no `{field}`: leave {argument} out, or give a --config"))? = value;
        Ok(())
    };
    if let Some(sizes) = changes.codebooks {
        set(&mut settings, "codebook_sizes", "--codebooks", json!(sizes))?;
    }
    if let Some(seed) = changes.seed
        && settings.get("seed").is_some()
    {
        settings["seed"] = json!(seed);
    }
    let config = read(&settings)?;
    config.validate()?;
    Ok(config)
}

fn merge(method: Option<&Method>, preset: Option<Value>, given: Value, file: &Path) -> Result<Value, BoxError> {
    let kind = |value: &Value| value.get("type").and_then(Value::as_str).map(str::to_owned);
    if !given.is_object() {
        return Err(format!("`{}` is no quantiser's configuration: it must be a JSON object", file.display()).into());
    }
    let (Some(method), Some(mut base)) = (method, preset) else {
        if kind(&given).is_none() {
            let file = file.display();
            return Err(
                format!("`{file}` has no \"type\": add it, or name the --method whose settings it changes").into()
            );
        }
        return Ok(given);
    };
    let (wanted, got) = (kind(&base), kind(&given));
    if let Some(got) = got.filter(|got| Some(got) != wanted.as_ref()) {
        let of_type = METHODS.iter().filter(|method| type_of(&(method.config)(Mode::Full)) == got);
        return Err(format!(
            "`{}` is for a quantiser of type `{got}`, method {} is a `{}`: leave --method out, or take one of that type ({})",
            file.display(),
            method.name,
            wanted.unwrap_or_default(),
            list(of_type)
        )
        .into());
    }
    overlay(&mut base, given);
    Ok(base)
}

/// The `"type"` of a configuration's JSON form.
pub fn type_of(config: &QuantizerConfig) -> String {
    let value = serde_json::to_value(config).unwrap_or_default();
    value["type"].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
