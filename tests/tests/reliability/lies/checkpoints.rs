//! Lies of a checkpoint, and one of another run.

#![allow(clippy::result_large_err, reason = "of the crate's own functions, whose errors hold paths")]

use std::{fs, path::Path};

use genrec::{
    kernels::ParamError,
    train::{Checkpoint, Every, Progress, TrainConfig, TrainError},
};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Answer,
    files::{Restored, Tensors, edit, retensor},
    lie,
};
use crate::tiny::train;

/// `state` of `state.json`, in the order in which its checksum is computed.
#[derive(Serialize, Deserialize)]
struct State {
    config: Value,
    data: DataSize,
    progress: Progress,
}

#[derive(Serialize, Deserialize)]
struct DataSize {
    examples: u64,
    batches: u64,
}

/// Makes the checksums of a checkpoint right, as far as its state can be read.
pub(crate) fn sign(dir: &Path) {
    let sum = |bytes: &[u8]| format!("{:08x}", crc32fast::hash(bytes));
    let of = |name: &str| sum(&fs::read(dir.join(name)).unwrap());
    edit(&dir.join("state.json"), |json| {
        if let Ok(state) = State::deserialize(&json["state"]) {
            json["checksums"]["state"] = sum(&serde_json::to_vec(&state).unwrap()).into();
        }
        json["checksums"]["model"] = of("model.safetensors").into();
        json["checksums"]["optimizer"] = of("optimizer.safetensors").into();
    });
}

pub(crate) fn config() -> TrainConfig {
    let config = TrainConfig::default().with_epochs(Some(2)).with_validate_every(Every::Steps(2));
    config.with_checkpoint_every_steps(1)
}

pub(super) fn lies(dir: &Path) -> Vec<Answer> {
    use TrainError::{ConfigMismatch, Corrupt, DataMismatch, Misfit};

    let mut answers = Vec::new();
    train(config(), 2, 3, Some(dir)).unwrap();
    let (last, honest) = (dir.join("last"), Restored::new(dir));
    let resume = || train(config(), 2, 3, Some(dir));
    let state = |change: &dyn Fn(&mut Value)| {
        honest.restore();
        edit(&last.join("state.json"), change);
        sign(&last);
        Checkpoint::read(&last)
    };
    let progress = |field: &str, value: Value| state(&|json| json["state"]["progress"][field] = value.clone());
    lie!(
        answers,
        "a version to come",
        state(&|json| json["format_version"] = json!(2)),
        TrainError::Version { .. },
        "version 2"
    );
    let unversioned = state(&|json| drop(json.as_object_mut().unwrap().remove("format_version")));
    lie!(answers, "no version", unversioned, Corrupt { .. }, "no format version");
    lie!(
        answers,
        "an unknown field",
        state(&|json| json["shards"] = json!(2)),
        Corrupt { .. },
        "unknown field `shards`"
    );
    lie!(answers, "-1 steps", progress("step", json!(-1)), Corrupt { .. }, "integer `-1`");
    lie!(
        answers,
        "2^63 steps",
        progress("step", json!(1_u64 << 63)),
        Corrupt { .. },
        "more steps or examples than a run can"
    );
    lie!(
        answers,
        "an epoch without a step",
        progress("epoch", json!(99)),
        Corrupt { .. },
        "more batches or epochs than steps"
    );
    let losses = progress("epoch_loss", json!({"sum": 0.0, "steps": 99}));
    lie!(answers, "losses of no step", losses, Corrupt { .. }, "more losses than steps");
    let foreseen = progress("best", json!({"step": 99, "epoch": 1, "metric": 0.5}));
    lie!(answers, "a best step to come", foreseen, Corrupt { .. }, "validated after more steps than");
    lie!(answers, "a cooldown to come", progress("cooling_since", json!(99)), Corrupt { .. }, "cooldown began after");
    honest.restore();
    edit(&last.join("state.json"), |json| json["state"]["progress"]["step"] = json!(5));
    lie!(answers, "another step", Checkpoint::read(&last), Corrupt { .. }, "checksum does not match its content");
    honest.restore();
    fs::copy(last.join("optimizer.safetensors"), last.join("model.safetensors")).unwrap();
    lie!(
        answers,
        "weights of another checkpoint",
        Checkpoint::read(&last),
        Corrupt { .. },
        "do not match the checksum in"
    );
    fs::remove_file(last.join("model.safetensors")).unwrap();
    lie!(answers, "no weights", Checkpoint::read(&last), Corrupt { .. }, "the file is missing");

    // Whole, and of another run.
    honest.restore();
    lie!(
        answers,
        "another model's",
        train(config(), 3, 3, Some(dir)),
        Misfit { source: ParamError::Shape { .. }, .. },
        "does not fit the"
    );
    lie!(answers, "other data's", train(config(), 2, 4, Some(dir)), DataMismatch { what: "examples", .. }, "4");
    let other = train(config().with_learning_rate(0.5), 2, 3, Some(dir));
    lie!(answers, "other settings'", other, ConfigMismatch { .. }, "`learning_rate`");
    let resumed = |change: &dyn Fn(&Path)| {
        honest.restore();
        change(&last);
        sign(&last);
        resume()
    };
    let skipped = resumed(&|last| {
        edit(&last.join("state.json"), |json| json["state"]["progress"]["batch"] = json!(3));
    });
    lie!(answers, "a batch that the epoch does not have", skipped, DataMismatch { .. }, "in the epoch under way");
    let tensors = |file: &'static str, change: fn(&mut Tensors)| resumed(&|last| retensor(&last.join(file), change));
    let nan = tensors("model.safetensors", |file| file.set("w", 0, f32::NAN));
    lie!(answers, "a NaN among the weights", nan, Misfit { source: ParamError::NotFinite { .. }, .. }, "fit the model");
    let integers = tensors("model.safetensors", |file| file.retype("w", Dtype::U32));
    lie!(
        answers,
        "weights that are integers",
        integers,
        Misfit { source: ParamError::Type { .. }, .. },
        "fit the model"
    );
    let more = tensors("model.safetensors", |file| file.add("more", Dtype::F32, &[1]));
    lie!(answers, "a weight too many", more, Misfit { source: ParamError::Unexpected { .. }, .. }, "`more`");
    let none = tensors("optimizer.safetensors", |file| file.remove("step"));
    lie!(answers, "no count of updates", none, Misfit { source: ParamError::Missing { .. }, .. }, "`step`");
    let negative = tensors("optimizer.safetensors", |file| file.get("step").3.fill(0xff));
    lie!(answers, "-1 updates", negative, Misfit { source: ParamError::Count { .. }, .. }, "i64 of at least 0");
    let best = resumed(&|last| fs::remove_dir_all(last.with_file_name("best")).unwrap());
    lie!(answers, "no best checkpoint", best, Corrupt { .. }, "the best checkpoint should be that of step");
    answers
}
