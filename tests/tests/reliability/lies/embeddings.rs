//! Lies of embeddings, and of what makes them.

use std::path::Path;

use candle_core::Device;
use genrec::embed::{AnyEmbedder, ArrayProblem, EmbedError, EmbedderSpec, TfidfConfig, io};
use ndarray::Array2;
use safetensors::Dtype;
use serde_json::{Value, json};

use super::{
    Answer,
    files::{Restored, Tensors, edit, retensor},
    lie,
};

pub(super) fn lies(dir: &Path) -> Vec<Answer> {
    use EmbedError::{Array, Config};

    let mut answers = Vec::new();
    let path = dir.join("embeddings.safetensors");
    io::write_safetensors(&path, Array2::from_elem((3, 2), 0.5).view()).unwrap();
    let honest = Restored::new(dir);
    let tensors = |change: &dyn Fn(&mut Tensors)| {
        honest.restore();
        retensor(&path, change);
        io::read_safetensors(&path)
    };
    let nan = tensors(&|file| file.set("embeddings", 3, f32::NAN));
    lie!(
        answers,
        "a NaN among the embeddings",
        nan,
        Array { problem: ArrayProblem::NotFinite { row: 1, column: 1 }, .. },
        "row 1"
    );
    let integers = tensors(&|file| file.retype("embeddings", Dtype::I32));
    lie!(
        answers,
        "embeddings that are integers",
        integers,
        Array { problem: ArrayProblem::WrongTensor { .. }, .. },
        "is I32"
    );
    let two = tensors(&|file| {
        file.add("a", Dtype::F32, &[1]);
        file.add("b", Dtype::F32, &[1]);
        file.remove("embeddings");
    });
    lie!(answers, "no embeddings", two, Array { problem: ArrayProblem::MissingTensor { .. }, .. }, "no tensor named");
    let later = tensors(&|file| file.fields = Some([("format_version".to_owned(), "2".to_owned())].into()));
    lie!(answers, "embeddings of a version to come", later, EmbedError::FormatVersion { .. }, "version 2");

    let embedder = dir.join("embedder");
    let texts: Vec<String> = (0..6).map(|text| format!("red soap {}", text / 2)).collect();
    let spec = EmbedderSpec::Tfidf(TfidfConfig::default().with_dim(2).with_max_df(1.0));
    AnyEmbedder::fit(&spec, &texts, &Device::Cpu).unwrap().save(&embedder).unwrap();
    let honest = Restored::new(&embedder);
    let settings = |change: &dyn Fn(&mut Value)| {
        honest.restore();
        edit(&embedder.join("config.json"), change);
        AnyEmbedder::load(&embedder, &Device::Cpu)
    };
    let other = settings(&|json| json["config"]["seed"] = json!(99));
    lie!(answers, "an embedder of other settings", other, EmbedError::HashMismatch { .. }, "has SHA-256");
    lie!(
        answers,
        "an unknown embedder",
        settings(&|json| json["type"] = json!("magic")),
        EmbedError::Json { .. },
        "`magic`"
    );
    let none = settings(&|json| json["config"]["dim"] = json!(0));
    lie!(answers, "embeddings of no column", none, Config { field: "dim", .. }, "dim is 0");
    answers
}
