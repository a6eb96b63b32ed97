//! Models on disk: round trips, and what is said of files that cannot be read.

use std::{collections::HashMap, fs, path::Path};

use candle_core::{DType, Device, Tensor};
use genrec_kernels::ParamError;
use genrec_model::{
    ModelError, Trainable,
    t5::{FeedForwardKind, T5, T5Config},
};

use super::{batch, tiny, values, variants};

fn saved(config: T5Config) -> (T5, tempfile::TempDir) {
    let model = T5::new(config, 3, &Device::Cpu).unwrap();
    let dir = tempfile::tempdir().unwrap();
    model.save(dir.path().join("deep/model")).unwrap();
    (model, dir)
}

fn load(dir: &Path) -> Result<T5, ModelError> {
    T5::load(dir, &Device::Cpu)
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
    for config in variants(19) {
        let (model, dir) = saved(config);
        let first = dir.path().join("deep/model");
        let loaded = load(&first).unwrap();
        assert_eq!(loaded.config(), model.config());
        for ((name, a), (other, b)) in model.parameters().iter().zip(loaded.parameters().iter()) {
            assert_eq!(name, other);
            assert_eq!(values(a), values(b));
        }
        let second = dir.path().join("again");
        loaded.save(&second).unwrap();
        for file in ["config.json", "model.safetensors"] {
            assert_eq!(fs::read(first.join(file)).unwrap(), fs::read(second.join(file)).unwrap(), "{file}");
        }
        assert_eq!(fs::read_dir(&second).unwrap().count(), 2, "no temporary file stays");
    }
}

#[test]
fn only_a_plain_t5_says_that_it_is_one() {
    for (causal, expected) in [(false, "t5"), (true, "genrec-t5-causal-encoder")] {
        let (_, dir) = saved(tiny(19).with_causal_encoder(causal));
        let text = fs::read(dir.path().join("deep/model/config.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(json["model_type"], expected);
        assert_eq!(json.get("causal_encoder"), causal.then_some(&serde_json::Value::Bool(true)));
    }
}

#[test]
fn saving_again_replaces_the_weights() {
    let (_, dir) = saved(tiny(19));
    let other = T5::new(tiny(19), 4, &Device::Cpu).unwrap();
    let path = dir.path().join("deep/model");
    other.save(&path).unwrap();
    let name = "shared.weight";
    let loaded = load(&path).unwrap();
    assert_eq!(values(loaded.parameters().get(name).unwrap()), values(other.parameters().get(name).unwrap()));
}

#[test]
fn the_config_of_others_is_read_leniently() {
    let text = r#"{"model_type": "t5", "vocab_size": 40, "d_model": 12, "feed_forward_proj": "gated-gelu",
        "task_specific_params": {"x": 1}, "n_positions": 512, "tie_word_embeddings": false, "pad_token_id": 3}"#;
    let config: T5Config = serde_json::from_str(text).unwrap();
    assert_eq!((config.vocab_size, config.d_model, config.d_kv, config.num_decoder_layers), (40, 12, 64, 6));
    assert_eq!(config.feed_forward_proj, FeedForwardKind::GatedGelu);
    assert!(!config.tie_word_embeddings && !config.scale_decoder_outputs);
    assert_eq!(config.decoder_start_token_id, 3);
    let back: T5Config = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(back, config);
}

#[test]
fn repeated_tables_and_half_precision_are_accepted() {
    let (model, dir) = saved(tiny(19));
    let dir = dir.path().join("deep/model");
    let mut tensors = weights(&dir);
    let shared = tensors["shared.weight"].clone();
    for alias in ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"] {
        tensors.insert(alias.to_owned(), shared.clone());
    }
    tensors.remove("shared.weight");
    replace(&dir, &tensors);
    assert_eq!(load(&dir).unwrap().num_parameters(), model.num_parameters());

    let half = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.to_dtype(DType::BF16).unwrap())).collect();
    replace(&dir, &half);
    let table = load(&dir).unwrap().parameters().get("shared.weight").unwrap().clone();
    assert_eq!(table.dtype(), DType::F32);
    assert!(values(&table).iter().zip(values(&shared)).all(|(a, b)| (a - b).abs() <= b.abs() / 128.0));
}

#[test]
fn a_head_of_its_own_unties_whatever_the_config_says() {
    let (model, dir) = saved(tiny(19).with_tied_embeddings(false));
    let dir = dir.path().join("deep/model");
    edit_config(&dir, |json| {
        json.insert("tie_word_embeddings".to_owned(), true.into());
    });
    let loaded = load(&dir).unwrap();
    assert!(!loaded.config().tie_word_embeddings && !loaded.config().scale_decoder_outputs);
    let examples = batch(&[(vec![2, 3], vec![4])]);
    assert_eq!(model.loss(&examples).unwrap(), loaded.loss(&examples).unwrap());
}

#[test]
fn a_table_under_another_name_is_compared_too() {
    let (model, dir) = saved(tiny(19).with_tied_embeddings(false));
    let dir = dir.path().join("deep/model");
    edit_config(&dir, |json| {
        json.insert("tie_word_embeddings".to_owned(), true.into());
    });
    let mut tensors = weights(&dir);
    let table = tensors.remove("shared.weight").unwrap();
    tensors.insert("decoder.embed_tokens.weight".to_owned(), table.clone());
    replace(&dir, &tensors);
    let loaded = load(&dir).unwrap();
    assert!(!loaded.config().tie_word_embeddings);
    let examples = batch(&[(vec![2, 3], vec![4])]);
    assert_eq!(model.loss(&examples).unwrap(), loaded.loss(&examples).unwrap());

    let name = "encoder.embed_tokens.weight";
    tensors.insert(name.to_owned(), (&table + 1.0).unwrap());
    tensors.insert("shared.weight".to_owned(), table);
    replace(&dir, &tensors);
    match load(&dir) {
        Err(ModelError::Weights { source: ParamError::Unexpected { name: found }, .. }) => assert_eq!(found, name),
        other => panic!("{other:?}"),
    }
}

#[test]
fn damaged_weights_are_refused() {
    let (_, temp) = saved(tiny(19));
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
    let (_, temp) = saved(tiny(19));
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
    let norm = "encoder.final_layer_norm.weight";
    let missing = refused(&|tensors| drop(tensors.remove(norm)));
    assert!(matches!(missing, ParamError::Missing { name } if name == norm));
    let extra = refused(&|tensors| drop(tensors.insert("x".to_owned(), tensors[norm].clone())));
    assert!(matches!(extra, ParamError::Unexpected { name } if name == "x"));
    let shape = refused(&|tensors| drop(tensors.insert(norm.to_owned(), tensors["shared.weight"].clone())));
    assert!(matches!(shape, ParamError::Shape { expected, got, .. } if expected == [8] && got == [19, 8]));
    let nan = refused(&|tensors| drop(tensors.insert(norm.to_owned(), (&tensors[norm] * f64::NAN).unwrap())));
    assert!(matches!(nan, ParamError::NotFinite { name } if name == norm));
}

#[test]
fn wrong_configs_are_refused() {
    let (_, temp) = saved(tiny(19));
    let dir = temp.path().join("deep/model");
    let good = fs::read(dir.join("config.json")).unwrap();
    let with = |field: &str, value: serde_json::Value| {
        fs::write(dir.join("config.json"), &good).unwrap();
        edit_config(&dir, |json| drop(json.insert(field.to_owned(), value)));
        load(&dir).unwrap_err()
    };
    assert!(matches!(with("model_type", "bert".into()), ModelError::Architecture { found, .. } if found == "bert"));
    let later = with("format_version", 99.into());
    assert!(matches!(later, ModelError::FormatVersion { found: 99, supported: 1, .. }));
    assert!(matches!(with("feed_forward_proj", "gated-silu".into()), ModelError::Json { .. }));
    assert!(matches!(with("d_model", (-1).into()), ModelError::Json { .. }));
    // A shape that no file backs is refused before it is allocated.
    assert!(matches!(with("d_ff", (1u64 << 24).into()), ModelError::Weights { source: ParamError::Shape { .. }, .. }));
    assert!(matches!(with("d_ff", (1u64 << 60).into()), ModelError::Config { .. }));
    fs::write(dir.join("config.json"), "{").unwrap();
    assert!(matches!(load(&dir), Err(ModelError::Json { .. })));
    fs::remove_file(dir.join("config.json")).unwrap();
    assert!(matches!(load(&dir), Err(ModelError::Io { action: "read", .. })));
}

#[test]
fn every_field_has_its_bounds() {
    let named = |edit: &dyn Fn(&mut T5Config)| {
        let mut config = tiny(19);
        edit(&mut config);
        match T5::new(config, 0, &Device::Cpu) {
            Err(ModelError::Config { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(named(&|c| c.vocab_size = 0), "vocab_size");
    assert_eq!(named(&|c| c.d_model = 0), "d_model");
    assert_eq!(named(&|c| c.d_kv = 0), "d_kv");
    assert_eq!(named(&|c| c.d_ff = 0), "d_ff");
    assert_eq!(named(&|c| c.num_layers = 0), "num_layers");
    assert_eq!(named(&|c| c.num_decoder_layers = 0), "num_decoder_layers");
    assert_eq!(named(&|c| c.num_layers = 1025), "num_layers");
    assert_eq!(named(&|c| c.num_decoder_layers = 1025), "num_decoder_layers");
    assert_eq!(named(&|c| c.num_heads = 0), "num_heads");
    assert_eq!(named(&|c| c.relative_attention_num_buckets = 7), "relative_attention_num_buckets");
    assert_eq!(named(&|c| c.relative_attention_num_buckets = 2), "relative_attention_num_buckets");
    assert_eq!(named(&|c| c.relative_attention_max_distance = 4), "relative_attention_max_distance");
    assert_eq!(named(&|c| c.dropout_rate = 1.0), "dropout_rate");
    assert_eq!(named(&|c| c.dropout_rate = f64::NAN), "dropout_rate");
    assert_eq!(named(&|c| c.layer_norm_epsilon = 0.0), "layer_norm_epsilon");
    assert_eq!(named(&|c| c.initializer_factor = f64::INFINITY), "initializer_factor");
    assert_eq!(named(&|c| c.pad_token_id = 19), "pad_token_id");
    assert_eq!(named(&|c| c.eos_token_id = 19), "eos_token_id");
    assert_eq!(named(&|c| c.decoder_start_token_id = 19), "decoder_start_token_id");
    assert_eq!(named(&|c| c.d_model = usize::MAX / 2), "d_model");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let (model, temp) = saved(tiny(19));
    let file = temp.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(model.save(file.join("model")), Err(ModelError::Io { action: "create", .. })));
}
