//! Models on disk: round trips, and what is said of files that cannot be read.

use std::{collections::HashMap, fs, path::Path};

use candle_core::{DType, Device, Tensor};
use genrec_kernels::ParamError;
use genrec_model::{
    ItemScorer, ModelError, Trainable,
    sasrec::{SasRec, SasRecConfig, SasRecLoss},
};

use super::{batch, random_model, tiny, values, variants};

fn saved(config: SasRecConfig) -> (SasRec, tempfile::TempDir) {
    let model = random_model(config, 3);
    let dir = tempfile::tempdir().unwrap();
    model.save(dir.path().join("deep/model")).unwrap();
    (model, dir)
}

fn load(dir: &Path) -> Result<SasRec, ModelError> {
    SasRec::load(dir, &Device::Cpu)
}

fn weights(dir: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu).unwrap()
}

fn replace(dir: &Path, tensors: &HashMap<String, Tensor>) {
    candle_core::safetensors::save(tensors, dir.join("model.safetensors")).unwrap();
}

fn edit_config(dir: &Path, edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
    let path = dir.join("config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(json.as_object_mut().unwrap());
    fs::write(path, serde_json::to_vec(&json).unwrap()).unwrap();
}

#[test]
fn a_round_trip_keeps_every_byte() {
    for config in variants(7) {
        let (model, dir) = saved(config);
        let first = dir.path().join("deep/model");
        let loaded = load(&first).unwrap();
        assert_eq!(loaded.config(), model.config());
        for ((name, a), (other, b)) in model.parameters().iter().zip(loaded.parameters().iter()) {
            assert_eq!(name, other);
            assert_eq!(values(a), values(b));
        }
        let histories = batch(&[vec![2, 3], vec![4]]);
        assert_eq!(values(&model.scores(&histories).unwrap()), values(&loaded.scores(&histories).unwrap()));
        let second = dir.path().join("again");
        loaded.save(&second).unwrap();
        for file in ["config.json", "model.safetensors"] {
            assert_eq!(fs::read(first.join(file)).unwrap(), fs::read(second.join(file)).unwrap(), "{file}");
        }
        assert_eq!(fs::read_dir(&second).unwrap().count(), 2, "no temporary file stays");
    }
}

#[test]
fn half_precision_is_widened() {
    let (model, dir) = saved(tiny(7));
    let dir = dir.path().join("deep/model");
    let half = weights(&dir).iter().map(|(name, t)| (name.clone(), t.to_dtype(DType::BF16).unwrap())).collect();
    replace(&dir, &half);
    let name = "item_embedding.weight";
    let loaded = load(&dir).unwrap();
    let table = loaded.parameters().get(name).unwrap();
    assert_eq!(table.dtype(), DType::F32);
    let before = values(model.parameters().get(name).unwrap());
    assert!(values(table).iter().zip(before).all(|(a, b)| (a - b).abs() <= b.abs() / 128.0));
}

#[test]
fn the_config_is_read_strictly() {
    let config: SasRecConfig = serde_json::from_str(r#"{"items": 40, "loss": {"type": "bce"}}"#).unwrap();
    assert_eq!(config, SasRecConfig::new(40).with_loss(SasRecLoss::bce(1)));
    let config: SasRecConfig =
        serde_json::from_str(r#"{"items": 40, "loss": {"type": "full_cross_entropy"}}"#).unwrap();
    assert_eq!(config, SasRecConfig::new(40));
    for wrong in [
        r#"{"item": 40}"#,
        r#"{"loss": {"type": "hinge"}}"#,
        r#"{"loss": {"type": "bce", "negative": 3}}"#,
        r#"{"norm": "post"}"#,
        r#"{"d_model": -1}"#,
    ] {
        assert!(serde_json::from_str::<SasRecConfig>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn damaged_weights_are_refused() {
    let (_, temp) = saved(tiny(7));
    let dir = temp.path().join("deep/model");
    let path = dir.join("model.safetensors");
    let good = fs::read(&path).unwrap();
    for length in [0, 4, 7, 100, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        assert!(matches!(load(&dir), Err(ModelError::Safetensors { .. })), "cut to {length} bytes");
    }
    let mut long = good.clone();
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, &long).unwrap();
    assert!(matches!(load(&dir), Err(ModelError::Safetensors { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(load(&dir), Err(ModelError::Io { action: "read", .. })));
}

#[test]
fn weights_of_another_model_are_refused() {
    let (_, temp) = saved(tiny(7));
    let dir = temp.path().join("deep/model");
    let good = weights(&dir);
    let refused = |edit: &dyn Fn(&mut HashMap<String, Tensor>)| {
        let mut tensors = good.clone();
        edit(&mut tensors);
        replace(&dir, &tensors);
        match load(&dir) {
            Err(ModelError::Weights { source, .. }) => source,
            other => panic!("{other:?}"),
        }
    };
    let norm = "final_norm.weight";
    let missing = refused(&|tensors| drop(tensors.remove(norm)));
    assert!(matches!(missing, ParamError::Missing { name } if name == norm));
    let extra = refused(&|tensors| drop(tensors.insert("x".to_owned(), tensors[norm].clone())));
    assert!(matches!(extra, ParamError::Unexpected { name } if name == "x"));
    let shape = refused(&|tensors| drop(tensors.insert(norm.to_owned(), tensors["item_embedding.weight"].clone())));
    assert!(matches!(shape, ParamError::Shape { expected, got, .. } if expected == [6] && got == [7, 6]));
    let nan = refused(&|tensors| drop(tensors.insert(norm.to_owned(), (&tensors[norm] * f64::NAN).unwrap())));
    assert!(matches!(nan, ParamError::NotFinite { name } if name == norm));
}

#[test]
fn wrong_configs_are_refused() {
    let (_, temp) = saved(tiny(7));
    let dir = temp.path().join("deep/model");
    let good = fs::read(dir.join("config.json")).unwrap();
    let with = |field: &str, value: serde_json::Value| {
        fs::write(dir.join("config.json"), &good).unwrap();
        edit_config(&dir, |json| drop(json.insert(field.to_owned(), value)));
        load(&dir).unwrap_err()
    };
    let other = with("model_type", "t5".into());
    assert!(matches!(&other, ModelError::Architecture { found, expected: "sasrec", .. } if found == "t5"), "{other}");
    assert!(matches!(with("model_type", 5.into()), ModelError::Architecture { .. }));
    let later = with("format_version", 99.into());
    assert!(matches!(later, ModelError::FormatVersion { found: 99, supported: 1, .. }));
    assert!(matches!(with("format_version", "one".into()), ModelError::Json { expected: "sasrec", .. }));
    assert!(matches!(with("d_model", (-1).into()), ModelError::Json { .. }));
    assert!(matches!(with("x", 1.into()), ModelError::Json { .. }));
    // A shape that no file backs is refused before it is allocated.
    assert!(matches!(with("d_ff", (1u64 << 24).into()), ModelError::Weights { source: ParamError::Shape { .. }, .. }));
    assert!(matches!(with("d_ff", (1u64 << 60).into()), ModelError::Config { .. }));
    for text in ["{", "[]", "3", ""] {
        fs::write(dir.join("config.json"), text).unwrap();
        assert!(matches!(load(&dir), Err(ModelError::Json { .. } | ModelError::Architecture { .. })), "{text}");
    }
    fs::remove_file(dir.join("config.json")).unwrap();
    assert!(matches!(load(&dir), Err(ModelError::Io { action: "read", .. })));
}

#[test]
fn every_field_has_its_bounds() {
    let named = |edit: &dyn Fn(&mut SasRecConfig)| {
        let mut config = tiny(7);
        edit(&mut config);
        match SasRec::new(config, 0, &Device::Cpu) {
            Err(ModelError::Config { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(named(&|c| c.items = 0), "items");
    assert_eq!(named(&|c| c.items = usize::MAX), "items");
    assert_eq!(named(&|c| c.max_len = 0), "max_len");
    assert_eq!(named(&|c| c.max_len = 20_000), "max_len");
    assert_eq!(named(&|c| c.d_model = 0), "d_model");
    assert_eq!(named(&|c| c.num_layers = 0), "num_layers");
    assert_eq!(named(&|c| c.num_layers = 257), "num_layers");
    assert_eq!(named(&|c| c.num_heads = 0), "num_heads");
    assert_eq!(named(&|c| c.num_heads = 4), "num_heads");
    assert_eq!(named(&|c| c.d_ff = 0), "d_ff");
    assert_eq!(named(&|c| c.dropout_rate = 1.0), "dropout_rate");
    assert_eq!(named(&|c| c.dropout_rate = f64::NAN), "dropout_rate");
    assert_eq!(named(&|c| c.layer_norm_epsilon = 0.0), "layer_norm_epsilon");
    assert_eq!(named(&|c| c.loss = SasRecLoss::bce(0)), "negatives");
    assert_eq!(named(&|c| c.loss = SasRecLoss::bce(70_000)), "negatives");
    assert_eq!(named(&|c| c.loss = SasRecLoss::FullCrossEntropy { label_smoothing: 1.0 }), "label_smoothing");
    assert_eq!(named(&|c| (c.d_model, c.num_heads) = (usize::MAX / 2, 1)), "d_model");
    assert!(matches!(SasRec::new(SasRecConfig::default(), 0, &Device::Cpu), Err(ModelError::Config { .. })));
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let (model, temp) = saved(tiny(7));
    let file = temp.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(model.save(file.join("model")), Err(ModelError::Io { action: "create", .. })));
}
