//! The neural embedders against values recorded from sentence-transformers and transformers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "a test that finds no data says so")]

use std::path::{Path, PathBuf};

use candle_core::Device;
use genrec_embed::{AnyEmbedder, Bert, CausalLm, EmbedError, Embedder, EmbedderSpec, SentenceT5};
use ndarray::{Array1, Array2, ArrayView1, Axis};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    texts: Vec<String>,
    embeddings: Vec<Vec<f32>>,
}

fn area() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/embed")).to_owned()
}

fn golden(file: &str) -> Golden {
    serde_json::from_slice(&std::fs::read(area().join(file)).unwrap()).unwrap()
}

fn cosine(a: &ArrayView1<'_, f32>, b: &ArrayView1<'_, f32>) -> f64 {
    let (a, b) = (a.mapv(f64::from), b.mapv(f64::from));
    a.dot(&b) / (a.dot(&a) * b.dot(&b)).sqrt()
}

fn worst(rows: &Array2<f32>, expected: &[Vec<f32>]) -> f32 {
    assert_eq!(rows.nrows(), expected.len());
    let differences = rows.outer_iter().zip(expected).map(|(row, expected)| {
        assert_eq!(row.len(), expected.len());
        row.iter().zip(expected).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()))
    });
    differences.fold(0.0, f32::max)
}

/// The real all-MiniLM-L6-v2, if the machine has it.
fn minilm() -> Option<Bert> {
    let Some(dir) = std::env::var_os("GENREC_MINILM") else {
        eprintln!("GENREC_MINILM is not set: all-MiniLM-L6-v2 is not compared with sentence-transformers");
        return None;
    };
    Some(Bert::open(dir, &Device::Cpu).unwrap())
}

#[test]
fn minilm_agrees_with_sentence_transformers() {
    let Some(model) = minilm() else { return };
    let golden = golden("minilm.json");
    assert_eq!((model.max_length(), model.dim()), (256, 384));
    let rows = model.embed(&golden.texts).unwrap();
    for (i, expected) in golden.embeddings.into_iter().enumerate() {
        let cosine = cosine(&rows.row(i), &Array1::from(expected).view());
        assert!(cosine >= 0.99999, "text {i}: cosine {cosine}");
        assert!((rows.row(i).dot(&rows.row(i)) - 1.0).abs() < 1e-5, "text {i} is not of unit length");
    }
    let alone = model.embed(&golden.texts[2..3]).unwrap();
    assert!((&alone.row(0) - &rows.row(2)).iter().all(|difference| difference.abs() < 1e-5));
}

#[test]
fn sentence_t5_agrees_with_transformers() {
    for variant in ["t5", "t5-gated"] {
        let golden = golden(&format!("{variant}/expected.json"));
        let model = SentenceT5::open(area().join(variant), &Device::Cpu).unwrap();
        assert_eq!((model.max_length(), model.dim()), (64, 16));
        let worst = worst(&model.embed(&golden.texts).unwrap(), &golden.embeddings);
        assert!(worst <= 1e-4, "{variant}: {worst}");
    }
}

#[test]
fn llama_agrees_with_transformers() {
    for variant in ["llama", "llama3"] {
        let golden = golden(&format!("{variant}/expected.json"));
        let model = CausalLm::open(area().join(variant), &Device::Cpu).unwrap();
        assert_eq!((model.max_length(), model.dim()), (128, 24));
        let worst = worst(&model.embed(&golden.texts).unwrap(), &golden.embeddings);
        assert!(worst <= 1e-4, "{variant}: {worst}");
    }
}

fn all() -> Vec<AnyEmbedder> {
    let dir = |name: &str| area().join(name);
    [
        EmbedderSpec::SentenceT5 { dir: dir("t5") },
        EmbedderSpec::SentenceT5 { dir: dir("t5-gated") },
        EmbedderSpec::CausalLm { dir: dir("llama") },
    ]
    .iter()
    .map(|spec| AnyEmbedder::open(spec, &Device::Cpu).unwrap())
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn neither_neighbours_nor_order_move_a_row(
        order in Just((0..10).collect::<Vec<usize>>()).prop_shuffle(), keep in 1_usize..=10, tokens in 1_usize..400
    ) {
        let texts = golden("t5/expected.json").texts;
        let order = &order[..keep];
        let some: Vec<String> = order.iter().map(|i| texts[*i].clone()).collect();
        for embedder in all() {
            let expected = embedder.embed(&texts).unwrap().select(Axis(0), order);
            let embedder = match embedder {
                AnyEmbedder::SentenceT5(model) => AnyEmbedder::SentenceT5(model.with_batch_tokens(tokens)),
                AnyEmbedder::CausalLm(model) => AnyEmbedder::CausalLm(model.with_batch_tokens(tokens)),
                other => other,
            };
            let rows = embedder.embed(&some).unwrap();
            prop_assert!((&rows - &expected).iter().all(|difference| difference.abs() <= 1e-5));
        }
    }
}

#[test]
fn one_and_two_threads_give_the_same_bytes() {
    let texts = golden("t5/expected.json").texts;
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| all().iter().flat_map(|embedder| embedder.embed(&texts).unwrap()).map(f32::to_bits).collect())
    };
    let (one, two): (Vec<u32>, Vec<u32>) = (run(1), run(2));
    assert_eq!(one, two);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).map(drop).unwrap();
        }
    }
}

#[test]
fn a_saved_reference_checks_the_model_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let (model, moved, run) = (dir.path().join("model"), dir.path().join("moved"), dir.path().join("run/embedder"));
    copy(&area().join("t5"), &model);
    let texts = golden("t5/expected.json").texts;
    let t5 = SentenceT5::open(&model, &Device::Cpu).unwrap().with_max_length(9).unwrap();
    let embedder = AnyEmbedder::SentenceT5(t5);
    embedder.save(&run).unwrap();
    let loaded = AnyEmbedder::load(&run, &Device::Cpu).unwrap();
    assert_eq!(loaded.fingerprint(), embedder.fingerprint());
    assert_eq!(loaded.embed(&texts).unwrap(), embedder.embed(&texts).unwrap());

    copy(&model, &moved);
    let relocated = AnyEmbedder::load_relocated(&run, &moved, &Device::Cpu).unwrap();
    assert_eq!(relocated.fingerprint(), embedder.fingerprint(), "the place is no part of it");
    for file in ["model.safetensors", "2_Dense/pytorch_model.bin", "tokenizer.json"] {
        let path = model.join(file);
        let whole = std::fs::read(&path).unwrap();
        let mut changed = whole.clone();
        *changed.last_mut().unwrap() ^= 1;
        std::fs::write(&path, changed).unwrap();
        let error = AnyEmbedder::load(&run, &Device::Cpu).unwrap_err();
        assert!(matches!(error, EmbedError::HashMismatch { .. }), "{file}: {error}");
        std::fs::write(&path, whole).unwrap();
    }
    std::fs::remove_dir_all(&model).unwrap();
    assert!(matches!(AnyEmbedder::load(&run, &Device::Cpu), Err(EmbedError::MissingFile { .. })));
}

#[test]
fn tfidf_is_fitted_then_saved_and_loaded() {
    let texts: Vec<String> = ["red nail polish", "blue nail polish", "hair dryer"].map(str::to_owned).to_vec();
    let spec: EmbedderSpec = serde_json::from_str(r#"{"type": "tfidf", "dim": 2, "min_df": 1}"#).unwrap();
    assert!(matches!(AnyEmbedder::open(&spec, &Device::Cpu), Err(EmbedError::NotFitted)));
    let embedder = AnyEmbedder::fit(&spec, &texts, &Device::Cpu).unwrap();
    let dir = tempfile::tempdir().unwrap();
    embedder.save(dir.path()).unwrap();
    let loaded = AnyEmbedder::load(dir.path(), &Device::Cpu).unwrap();
    assert_eq!(loaded.embed(&texts).unwrap(), embedder.embed(&texts).unwrap());
    assert_eq!(loaded.dim(), 2);
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"format_version\": 1", "\"format_version\": 9")).unwrap();
    assert!(matches!(AnyEmbedder::load(dir.path(), &Device::Cpu), Err(EmbedError::FormatVersion { got: 9, .. })));
}

/// A copy of a small model with one file edited.
fn edited(variant: &str, file: &str, from: &str, to: &str) -> (tempfile::TempDir, EmbedderSpec) {
    let dir = tempfile::tempdir().unwrap();
    copy(&area().join(variant), dir.path());
    let path = dir.path().join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
    let place = dir.path().to_owned();
    let spec = if variant.starts_with("t5") {
        EmbedderSpec::SentenceT5 { dir: place }
    } else {
        EmbedderSpec::CausalLm { dir: place }
    };
    (dir, spec)
}

#[test]
fn variants_that_are_not_supported_are_named() {
    let cases = [
        ("t5", "config.json", "\"model_type\": \"t5\"", "\"model_type\": \"mt5\"", "model_type"),
        (
            "t5",
            "config.json",
            "\"feed_forward_proj\": \"relu\"",
            "\"feed_forward_proj\": \"swish\"",
            "feed_forward_proj",
        ),
        (
            "t5",
            "config.json",
            "\"relative_attention_num_buckets\": 8",
            "\"relative_attention_num_buckets\": 2",
            "relative_attention_num_buckets",
        ),
        ("t5", "config.json", "\"num_heads\": 3", "\"num_heads\": 0", "num_heads"),
        ("t5", "modules.json", "models.Normalize", "models.WeightedLayerPooling", "module"),
        (
            "t5",
            "1_Pooling/config.json",
            "\"pooling_mode_max_tokens\": false",
            "\"pooling_mode_max_tokens\": true",
            "pooling",
        ),
        ("t5", "2_Dense/config.json", "linear.Identity", "activation.GELU", "activation_function"),
        ("llama", "config.json", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "num_key_value_heads"),
        ("llama", "config.json", "\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", "hidden_act"),
        ("llama", "config.json", "\"rope_type\": \"default\"", "\"rope_type\": \"yarn\"", "rope_scaling"),
        ("llama", "config.json", "\"head_dim\": 6", "\"head_dim\": 5", "head_dim"),
    ];
    for (variant, file, from, to, expected) in cases {
        let (_dir, spec) = edited(variant, file, from, to);
        let error = AnyEmbedder::open(&spec, &Device::Cpu).unwrap_err();
        assert!(matches!(error, EmbedError::Unsupported { property, .. } if property == expected), "{error}");
    }
}

#[test]
fn files_that_do_not_fit_together_are_refused() {
    let open = |spec: &EmbedderSpec| AnyEmbedder::open(spec, &Device::Cpu);
    let (_dir, spec) = edited("t5", "config.json", "\"d_ff\": 40", "\"d_ff\": 41");
    assert!(matches!(open(&spec), Err(EmbedError::Tensor(_))));
    let (_dir, spec) = edited("t5", "config.json", "{", "[");
    assert!(matches!(open(&spec), Err(EmbedError::Json { .. })));
    let (_dir, spec) = edited("llama", "tokenizer.json", "\"model\"", "\"mode\"");
    assert!(matches!(open(&spec), Err(EmbedError::Tokenizer { .. })));
    let (_dir, spec) = edited("llama", "tokenizer.json", "\"polish\": ", "\"polish\": 9");
    let error = open(&spec).unwrap().embed(&["red polish".to_owned()]).unwrap_err();
    assert!(matches!(error, EmbedError::TokenOutOfRange { .. }), "{error}");
    for file in ["tokenizer.json", "model.safetensors", "config.json"] {
        let dir = tempfile::tempdir().unwrap();
        copy(&area().join("llama"), dir.path());
        std::fs::remove_file(dir.path().join(file)).unwrap();
        let error = CausalLm::open(dir.path(), &Device::Cpu).unwrap_err();
        assert!(matches!(&error, EmbedError::MissingFile { file: missing, .. } if *missing == file), "{error}");
    }
    let model = CausalLm::open(area().join("llama"), &Device::Cpu).unwrap();
    assert!(matches!(model.with_max_length(257), Err(EmbedError::Config { field: "max_length", .. })));
}

#[test]
fn a_model_that_returns_nan_is_a_typed_error() {
    let dir = tempfile::tempdir().unwrap();
    copy(&area().join("llama"), dir.path());
    let path = dir.path().join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let norm = tensors["norm.weight"].affine(f64::NAN, 0.0).unwrap();
    tensors.insert("norm.weight".to_owned(), norm);
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let error = CausalLm::open(dir.path(), &Device::Cpu).unwrap().embed(&["red".to_owned()]).unwrap_err();
    assert!(matches!(error, EmbedError::NotFinite { row: 0, .. }), "{error}");
}

#[test]
fn sharded_weights_and_an_index_that_leaves_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    copy(&area().join("llama"), dir.path());
    let at = |name: &str| dir.path().join(name);
    let tensors = candle_core::safetensors::load(at("model.safetensors"), &Device::Cpu).unwrap();
    let mut map = serde_json::Map::new();
    let mut shards = [std::collections::HashMap::new(), std::collections::HashMap::new()];
    for (i, (name, tensor)) in tensors.into_iter().enumerate() {
        map.insert(name.clone(), format!("model-{}.safetensors", i % 2).into());
        shards[i % 2].insert(name, tensor);
    }
    for (i, shard) in shards.iter().enumerate() {
        candle_core::safetensors::save(shard, at(&format!("model-{i}.safetensors"))).unwrap();
    }
    std::fs::remove_file(at("model.safetensors")).unwrap();
    let index = |map: &serde_json::Map<String, serde_json::Value>| {
        std::fs::write(at("model.safetensors.index.json"), serde_json::json!({ "weight_map": map }).to_string())
            .unwrap();
    };
    index(&map);
    let golden = golden("llama/expected.json");
    let rows = CausalLm::open(dir.path(), &Device::Cpu).unwrap().embed(&golden.texts).unwrap();
    assert!(worst(&rows, &golden.embeddings) <= 1e-4);
    map.insert("norm.weight".to_owned(), "../model-0.safetensors".into());
    index(&map);
    let error = CausalLm::open(dir.path(), &Device::Cpu).unwrap_err();
    assert!(matches!(error, EmbedError::Unsupported { property: "weight file", .. }), "{error}");
}

#[test]
fn real_item_texts_embed_within_the_batch_budget() {
    let (Some(model), Some(data)) = (minilm(), std::env::var_os("GENREC_DATA")) else {
        eprintln!("GENREC_DATA or GENREC_MINILM is not set: no real item text is embedded");
        return;
    };
    let lines = std::fs::read_to_string(Path::new(&data).join("beauty/items.jsonl")).unwrap();
    let texts: Vec<String> = lines.lines().take(64).map(str::to_owned).collect();
    let mut calls = Vec::new();
    let rows = model.embed_with(&texts, &mut |done, all| calls.push((done, all))).unwrap();
    assert_eq!((rows.dim(), calls.last()), ((64, 384), Some(&(64, 64))));
    let small = model.with_batch_tokens(300).embed(&texts).unwrap();
    assert!((&rows - &small).iter().all(|difference| difference.abs() <= 1e-5));
}
