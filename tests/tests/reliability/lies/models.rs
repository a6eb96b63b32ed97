//! Lies of sequence models, and of what ranks beside them.

use std::path::Path;

use candle_core::Device;
use genrec::{
    kernels::ParamError,
    model::{
        ModelError,
        baseline::CoOccurrence,
        sasrec::{SasRec, SasRecConfig},
        t5::{T5, T5Config},
    },
};
use safetensors::Dtype;
use serde_json::{Value, json};

use super::{
    Answer,
    files::{Restored, Tensors, edit, retensor},
    lie,
};

const JSON: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";

struct Model<'a, M> {
    dir: &'a Path,
    honest: Restored<'a>,
    load: fn(&Path) -> Result<M, ModelError>,
}

impl<'a, M> Model<'a, M> {
    fn new(dir: &'a Path, load: fn(&Path) -> Result<M, ModelError>) -> Self {
        Self { dir, honest: Restored::new(dir), load }
    }

    fn set(&self, field: &str, value: Value) -> Result<M, ModelError> {
        self.honest.restore();
        edit(&self.dir.join(JSON), |json| json[field] = value);
        (self.load)(self.dir)
    }

    fn tensors(&self, change: impl FnOnce(&mut Tensors)) -> Result<M, ModelError> {
        self.honest.restore();
        retensor(&self.dir.join(WEIGHTS), change);
        (self.load)(self.dir)
    }
}

fn of_a_t5(dir: &Path, answers: &mut Vec<Answer>) {
    use ModelError::{Config, Weights};

    let shape = T5Config::cpu(20).with_layers(1, 1).with_d_model(8).with_heads(2, 4).with_d_ff(8);
    T5::new(shape, 1, &Device::Cpu).unwrap().save(dir).unwrap();
    let t5 = Model::new(dir, |dir| T5::load(dir, &Device::Cpu));
    let set = |field: &str, value: Value| t5.set(field, value);
    lie!(answers, "another model", set("model_type", json!("bert")), ModelError::Architecture { .. }, "type `bert`");
    lie!(answers, "a version to come", set("format_version", json!(9)), ModelError::FormatVersion { .. }, "version 9");
    lie!(answers, "a width of -1", set("d_model", json!(-1)), ModelError::Json { .. }, "integer `-1`");
    lie!(answers, "an unknown network", set("feed_forward_proj", json!("swish")), ModelError::Json { .. }, "`swish`");
    lie!(answers, "no token", set("vocab_size", json!(0)), Config { field: "vocab_size", .. }, "at least 1");
    lie!(answers, "no layer", set("num_layers", json!(0)), Config { field: "num_layers", .. }, "at least 1");
    lie!(answers, "2,000 layers", set("num_layers", json!(2_000)), Config { field: "num_layers", .. }, "at most 1024");
    lie!(
        answers,
        "too many weights",
        set("d_model", json!(1_u64 << 40)),
        Config { field: "d_model", .. },
        "so small that"
    );
    lie!(
        answers,
        "an odd number of buckets",
        set("relative_attention_num_buckets", json!(5)),
        Config { .. },
        "even and at least 4"
    );
    lie!(
        answers,
        "buckets past the distance",
        set("relative_attention_max_distance", json!(2)),
        Config { .. },
        "above half of the"
    );
    lie!(answers, "a dropout of 1", set("dropout_rate", json!(1.0)), Config { field: "dropout_rate", .. }, "in [0, 1)");
    lie!(answers, "an epsilon of 0", set("layer_norm_epsilon", json!(0.0)), Config { .. }, "positive and finite");
    lie!(
        answers,
        "no padding token",
        set("pad_token_id", json!(20)),
        Config { field: "pad_token_id", .. },
        "below the vocabulary size"
    );
    lie!(
        answers,
        "no token to start from",
        set("decoder_start_token_id", json!(99)),
        Config { .. },
        "`decoder_start_token_id` is 99"
    );
    let weights = |change: fn(&mut Tensors)| t5.tensors(change);
    const QUERY: &str = "encoder.block.0.layer.0.SelfAttention.q.weight";
    let missing = set("num_layers", json!(2));
    lie!(
        answers,
        "a layer that was not saved",
        missing,
        Weights { source: ParamError::Missing { .. }, .. },
        "encoder.block.1"
    );
    let another = weights(|file| file.add("more", Dtype::F32, &[1]));
    lie!(answers, "a tensor too many", another, Weights { source: ParamError::Unexpected { .. }, .. }, "`more`");
    lie!(
        answers,
        "another vocabulary",
        set("vocab_size", json!(21)),
        Weights { source: ParamError::Shape { .. }, .. },
        "`shared.weight`"
    );
    let nan = weights(|file| file.set(QUERY, 3, f32::NAN));
    lie!(
        answers,
        "a NaN among the weights",
        nan,
        Weights { source: ParamError::NotFinite { .. }, .. },
        "SelfAttention.q"
    );
    let infinite = weights(|file| file.set("shared.weight", 0, f32::NEG_INFINITY));
    lie!(
        answers,
        "an infinite embedding",
        infinite,
        Weights { source: ParamError::NotFinite { .. }, .. },
        "shared.weight"
    );
    let integers = weights(|file| file.retype(QUERY, Dtype::U32));
    lie!(
        answers,
        "weights that are integers",
        integers,
        Weights { source: ParamError::Type { .. }, .. },
        "SelfAttention.q"
    );
}

fn of_a_sasrec(dir: &Path, answers: &mut Vec<Answer>) {
    use ModelError::{Config, Weights};

    let config = SasRecConfig::new(20).with_max_len(4).with_d_model(8).with_layers(1);
    SasRec::new(config, 1, &Device::Cpu).unwrap().save(dir).unwrap();
    let sasrec = Model::new(dir, |dir| SasRec::load(dir, &Device::Cpu));
    let set = |field: &str, value: Value| sasrec.set(field, value);
    lie!(
        answers,
        "a T5 where a SASRec is due",
        set("model_type", json!("t5")),
        ModelError::Architecture { .. },
        "only `sasrec`"
    );
    lie!(answers, "an unknown setting", set("shards", json!(2)), ModelError::Json { .. }, "unknown field `shards`");
    lie!(answers, "no item", set("items", json!(0)), Config { field: "items", .. }, "at least 1");
    lie!(
        answers,
        "3 heads of 8 columns",
        set("num_heads", json!(3)),
        Config { field: "num_heads", .. },
        "a divisor of"
    );
    lie!(answers, "no position", set("max_len", json!(0)), Config { field: "max_len", .. }, "at least 1");
    lie!(
        answers,
        "another catalogue",
        set("items", json!(21)),
        Weights { source: ParamError::Shape { .. }, .. },
        "`item_embedding.weight`"
    );
    let integers = sasrec.tensors(|file| file.retype("position_embedding.weight", Dtype::I32));
    lie!(
        answers,
        "positions that are integers",
        integers,
        Weights { source: ParamError::Type { .. }, .. },
        "`position_embedding.weight`"
    );
}

fn of_co_occurrences(dir: &Path, answers: &mut Vec<Answer>) {
    use ModelError::CoOccurrence as Misfit;

    let path = dir.join("near.safetensors");
    CoOccurrence::fit([vec![0, 1, 2, 3, 1], vec![4, 2, 0]], 6).unwrap().save(&path).unwrap();
    let honest = Restored::new(dir);
    let tensors = |change: fn(&mut Tensors)| {
        honest.restore();
        retensor(&path, change);
        CoOccurrence::load(&path)
    };
    let version = |file: &mut Tensors, version: &str| {
        file.fields = Some([("format_version".to_owned(), version.to_owned())].into());
    };
    lie!(answers, "no version", tensors(|file| drop(file.fields.take())), Misfit { .. }, "no format version");
    honest.restore();
    retensor(&path, |file| version(file, "7"));
    lie!(
        answers,
        "pairs of a version to come",
        CoOccurrence::load(&path),
        ModelError::FormatVersion { .. },
        "version 7"
    );
    lie!(
        answers,
        "no neighbours",
        tensors(|file| file.remove("neighbours")),
        ModelError::Safetensors { .. },
        "neighbours"
    );
    lie!(
        answers,
        "lengths of half an item",
        tensors(|file| file.retype("lengths", Dtype::F32)),
        Misfit { .. },
        "another type"
    );
    let square = tensors(|file| file.get("popularity").2 = vec![2, 3]);
    lie!(answers, "a popularity with two axes", square, Misfit { .. }, "more than one axis");
    lie!(
        answers,
        "an item without a length",
        tensors(|file| file.widen("popularity")),
        Misfit { .. },
        "count items differently"
    );
    lie!(
        answers,
        "a weight of no pair",
        tensors(|file| file.widen("weights")),
        Misfit { .. },
        "count pairs differently"
    );
    lie!(
        answers,
        "a weight that is no number",
        tensors(|file| file.set("weights", 0, f32::NAN)),
        Misfit { .. },
        "is no number"
    );
    lie!(
        answers,
        "a negative popularity",
        tensors(|file| file.set("popularity", 1, -1.0)),
        Misfit { .. },
        "is negative"
    );
    let neighbour = |at: usize, item: u32| {
        honest.restore();
        retensor(&path, |file| file.get("neighbours").3[4 * at..][..4].copy_from_slice(&item.to_le_bytes()));
        CoOccurrence::load(&path)
    };
    lie!(answers, "neighbours out of order", neighbour(0, 5), Misfit { .. }, "not in order");
    let mut last = 0;
    honest.restore();
    retensor(&path, |file| last = file.get("neighbours").2[0] - 1);
    lie!(answers, "a neighbour that is no item", neighbour(last, 6), Misfit { .. }, "not in the catalogue");
}

pub(super) fn lies(dir: &Path) -> Vec<Answer> {
    let mut answers = Vec::new();
    for (part, lies) in
        [("t5", of_a_t5 as fn(&Path, &mut Vec<Answer>)), ("sasrec", of_a_sasrec), ("near", of_co_occurrences)]
    {
        let dir = dir.join(part);
        std::fs::create_dir(&dir).unwrap();
        lies(&dir, &mut answers);
    }
    answers
}
