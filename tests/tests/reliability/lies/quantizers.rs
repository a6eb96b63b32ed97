//! Lies of a quantiser.

use std::{fs, path::Path};

use candle_core::Device;
use genrec::{
    kernels::ParamError,
    quantize::{
        AnyQuantizer, ArrayRows, Fit, FsqConfig, HierarchicalKMeansConfig, QuantizeError, QuantizerConfig,
        ResidualKMeansConfig, RqVaeConfig, SimHashLshConfig,
    },
};
use ndarray::Array2;
use safetensors::Dtype;
use serde_json::{Value, json};

use super::{
    Answer,
    files::{Restored, Tensors, edit, retensor},
    lie,
};

const JSON: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";

/// Makes the checksum of the weights right.
pub(crate) fn sign(dir: &Path) {
    let crc = crc32fast::hash(&fs::read(dir.join(WEIGHTS)).unwrap());
    edit(&dir.join(JSON), |json| json["weights_crc32"] = crc.into());
}

type Loaded = Result<AnyQuantizer, QuantizeError>;

struct Quantizer<'a> {
    dir: &'a Path,
    honest: Restored<'a>,
}

impl<'a> Quantizer<'a> {
    fn new(dir: &'a Path, config: impl Into<QuantizerConfig>) -> Self {
        let rows = Array2::from_shape_fn((40, 6), |(row, column)| ((row * 7 + column * 5) % 23) as f32 / 23.0);
        config.into().fit(&mut ArrayRows::from(rows.view())).unwrap().save(dir).unwrap();
        Self { dir, honest: Restored::new(dir) }
    }

    fn load(&self) -> Loaded {
        AnyQuantizer::load(self.dir, &Device::Cpu)
    }

    fn settings(&self, change: impl FnOnce(&mut Value)) -> Loaded {
        self.honest.restore();
        edit(&self.dir.join(JSON), change);
        self.load()
    }

    fn set(&self, field: &str, value: Value) -> Loaded {
        self.settings(|json| json["quantizer"][field] = value)
    }

    fn tensors(&self, change: impl FnOnce(&mut Tensors)) -> Loaded {
        self.honest.restore();
        retensor(&self.dir.join(WEIGHTS), change);
        sign(self.dir);
        self.load()
    }

    fn weights(&self, signed: bool, bytes: &[u8]) -> Loaded {
        self.honest.restore();
        fs::write(self.dir.join(WEIGHTS), bytes).unwrap();
        if signed {
            sign(self.dir);
        }
        self.load()
    }
}

pub(super) fn lies(dir: &Path) -> Vec<Answer> {
    use QuantizeError::{InvalidConfig, Json, Parameters, TensorType};

    let mut answers = Vec::new();
    let residual = ResidualKMeansConfig::default().with_codebook_sizes([8, 4]).with_standardize(true);
    let k_means = Quantizer::new(dir, residual);
    let outer = |field: &str, value: Value| k_means.settings(|json| json[field] = value);
    lie!(
        answers,
        "a version to come",
        outer("format_version", json!(2)),
        QuantizeError::FormatVersion { .. },
        "version 2"
    );
    lie!(answers, "an unknown field", outer("shards", json!(2)), Json { .. }, "unknown field `shards`");
    lie!(answers, "an unknown quantiser", k_means.set("type", json!("magic")), Json { .. }, "unknown variant `magic`");
    lie!(answers, "no quantiser", k_means.settings(|json| json["quantizer"] = Value::Null), Json { .. }, "null");
    lie!(answers, "rows of -1 columns", outer("dim", json!(-1)), Json { .. }, "integer `-1`");
    lie!(answers, "rows of no column", outer("dim", json!(0)), InvalidConfig { field: "dim", .. }, "1 to 2^32 columns");
    lie!(
        answers,
        "rows of 2^31 columns",
        outer("dim", json!(1_u64 << 31)),
        InvalidConfig { field: "dim", .. },
        "2^32 values at most"
    );
    lie!(
        answers,
        "rows of another width",
        outer("dim", json!(7)),
        Parameters(ParamError::Shape { .. }),
        "`codebooks.0`"
    );
    lie!(answers, "no level", k_means.set("codebook_sizes", json!([])), InvalidConfig { .. }, "a list of 0");
    lie!(
        answers,
        "a codebook of no codes",
        k_means.set("codebook_sizes", json!([8, 0])),
        InvalidConfig { .. },
        "1 to 1048576 codes"
    );
    lie!(
        answers,
        "no iteration",
        k_means.set("iterations", json!(0)),
        InvalidConfig { field: "iterations", .. },
        "is 0"
    );
    lie!(
        answers,
        "a negative tolerance",
        k_means.set("tolerance", json!(-1.0)),
        InvalidConfig { field: "tolerance", .. },
        "-1"
    );
    lie!(
        answers,
        "a level that was not saved",
        k_means.set("codebook_sizes", json!([8, 4, 2])),
        Parameters(ParamError::Missing { .. }),
        "`codebooks.2`"
    );
    lie!(
        answers,
        "weights of another save",
        k_means.weights(false, b"others"),
        QuantizeError::Checksum { .. },
        "different saves"
    );
    lie!(
        answers,
        "weights that are none",
        k_means.weights(true, b"no weights"),
        QuantizeError::Safetensors { .. },
        "not a safetensors file"
    );
    lie!(
        answers,
        "weights too large",
        k_means.weights(true, &[0; 1_100_000]),
        QuantizeError::FileSize { .. },
        "1100000 bytes"
    );
    let more = k_means.tensors(|file| file.add("codebooks.9", Dtype::F32, &[8, 6]));
    lie!(answers, "a codebook too many", more, Parameters(ParamError::Unexpected { .. }), "`codebooks.9`");
    let nan = k_means.tensors(|file| file.set("codebooks.1", 3, f32::NAN));
    lie!(answers, "a NaN in a codebook", nan, Parameters(ParamError::NotFinite { .. }), "`codebooks.1`");
    let infinite = k_means.tensors(|file| file.set("input.deviation", 0, f32::INFINITY));
    lie!(answers, "an infinite deviation", infinite, Parameters(ParamError::NotFinite { .. }), "`input.deviation`");
    let integers = k_means.tensors(|file| file.retype("codebooks.0", Dtype::U32));
    lie!(answers, "a codebook of integers", integers, TensorType { .. }, "holds U32 where f32");
    let signed = k_means.tensors(|file| file.retype("codebooks.0", Dtype::I32));
    lie!(answers, "a codebook of a type that none has", signed, TensorType { .. }, "holds I32 where f32 or u32");

    let tree = Quantizer::new(dir, HierarchicalKMeansConfig::default().with_codebook_sizes([4, 4]));
    let children = |change: fn(&mut [u8])| tree.tensors(|file| change(&mut file.get("children.1").3));
    let backwards = children(|offsets| offsets[4..8].copy_from_slice(&100_u32.to_le_bytes()));
    lie!(answers, "children that go back", backwards, QuantizeError::TreeChildren { .. }, "the children of parent");
    let floats = tree.tensors(|file| file.retype("children.1", Dtype::F32));
    lie!(answers, "children of half a node", floats, TensorType { .. }, "holds F32 where u32");
    lie!(
        answers,
        "children of one parent more",
        tree.tensors(|file| file.widen("children.1")),
        Parameters(ParamError::Shape { .. }),
        "`children.1`"
    );

    let rq_vae = RqVaeConfig::default().with_hidden([8]).with_latent_dim(4).with_codebook_sizes([4, 4]).with_epochs(1);
    let rq_vae = Quantizer::new(dir, rq_vae);
    lie!(
        answers,
        "no latent column",
        rq_vae.set("latent_dim", json!(0)),
        InvalidConfig { field: "latent_dim", .. },
        "is 0"
    );
    lie!(
        answers,
        "a layer of another width",
        rq_vae.set("hidden", json!([9])),
        Parameters(ParamError::Shape { .. }),
        "`decoder.0.bias`"
    );
    lie!(
        answers,
        "a learning rate below 0",
        rq_vae.set("learning_rate", json!(-0.1)),
        InvalidConfig { field: "learning_rate", .. },
        "-0.1"
    );
    let fsq = Quantizer::new(dir, FsqConfig::default().with_hidden([8]).with_epochs(1));
    lie!(answers, "scalars of no value", fsq.set("scalars", json!([[0]])), InvalidConfig { field: "scalars", .. }, "");
    let lsh = Quantizer::new(dir, SimHashLshConfig::default());
    lie!(answers, "codes of 99 bits", lsh.set("bits", json!(99)), InvalidConfig { field: "bits", .. }, "99");
    answers
}
