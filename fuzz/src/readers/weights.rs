//! What holds numbers: quantisers, models, checkpoints, embedders, embeddings. The first byte of an input picks the reader;
//! then come its JSON, a NUL, and its binary file.

use std::path::Path;

use candle_core::{Device, Tensor};
use genrec::{
    embed::{self, AnyEmbedder, Embedder, EmbedderSpec, behaviour::Blend},
    model::{ItemScorer, RaggedBatch, Seq2Seq, Trainable, baseline::CoOccurrence, sasrec::SasRec, t5::T5},
    quantize::{AnyQuantizer, FileRows, Quantizer, RowSource},
    train::{Checkpoint, Progress},
};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{put, split, tell, told};

type Reader = fn(&Path, &[u8], &[u8]);

/// One for each kind of directory or file.
pub const READERS: [(&str, Reader); 9] = [
    ("quantizer", quantizer),
    ("t5", |dir, json, weights| {
        put(dir, "config.json", json);
        put(dir, "model.safetensors", weights);
        let Some(model) = told(T5::load(dir, &Device::Cpu)) else { return };
        // The padding token is one of every vocabulary.
        let mut batch = RaggedBatch::new();
        tell(batch.push(&[model.config().pad_token_id; 2], &[model.config().pad_token_id]));
        tell(model.loss(&batch));
        tell(model.start(&batch));
    }),
    ("checkpoint", checkpoint),
    ("tfidf", |dir, json, weights| {
        let (json, vocabulary) = json.split_at(json.iter().position(|&byte| byte == 1).unwrap_or(json.len()));
        put(dir, "config.json", json);
        put(dir, "vocabulary.json", vocabulary.get(1..).unwrap_or_default());
        put(dir, "model.safetensors", weights);
        tell(AnyEmbedder::load_relocated(dir, dir.join("nowhere"), &Device::Cpu));
    }),
    ("rows", rows),
    ("encoder", encoder),
    ("sasrec", |dir, json, weights| {
        put(dir, "config.json", json);
        put(dir, "model.safetensors", weights);
        let Some(model) = told(SasRec::load(dir, &Device::Cpu)) else { return };
        let mut batch = RaggedBatch::new();
        tell(batch.push(&[0, 0, 0], &[]));
        tell(model.loss(&batch));
        tell(model.scores(&batch));
    }),
    ("blend", |dir, json, weights| {
        put(dir, "config.json", json);
        put(dir, "model.safetensors", weights);
        let Some(blend) = told(Blend::load(dir)) else { return };
        let content = Array2::from_elem((blend.items(), blend.content_dim()), 0.5);
        tell(blend.rows(content.view()));
        tell(blend.new_rows(content.view(), content.view()));
    }),
    ("co_occurrence", |dir, _, weights| {
        put(dir, "model.safetensors", weights);
        let Some(filter) = told(CoOccurrence::load(dir.join("model.safetensors"))) else { return };
        let mut batch = RaggedBatch::new();
        tell(batch.push(&[0, 0], &[]));
        // The scores are of every item.
        if filter.items() <= 1 << 12 {
            tell(filter.scores(&batch));
        }
    }),
];

/// Reads an input.
pub fn read(input: &[u8], dir: &Path) {
    let Some((&reader, rest)) = input.split_first() else { return };
    let (json, binary) = split(rest);
    READERS[usize::from(reader) % READERS.len()].1(dir, json, binary);
}

/// A quantiser; the checksum of its weights is made right where the settings can be read at all.
fn quantizer(dir: &Path, json: &[u8], weights: &[u8]) {
    let mut json = json.to_vec();
    if let Ok(mut manifest) = serde_json::from_slice::<Value>(&json)
        && let Some(crc) = manifest.get_mut("weights_crc32")
    {
        *crc = crc32fast::hash(weights).into();
        json = manifest.to_string().into_bytes();
    }
    put(dir, "config.json", &json);
    put(dir, "model.safetensors", weights);
    let Some(quantizer) = told(AnyQuantizer::load(dir, &Device::Cpu)) else { return };
    tell(quantizer.fingerprint());
    // Random IDs have no weights, hence no bound on their input.
    if quantizer.dim() <= 1 << 12 {
        let rows = Tensor::zeros((2, quantizer.dim()), candle_core::DType::F32, &Device::Cpu).expect("a small tensor");
        tell(quantizer.encode(&rows));
        let mut codes = vec![0; 2 * quantizer.codebook_sizes().len()];
        tell(quantizer.encode_slice(&vec![1.0; 2 * quantizer.dim()], &mut codes));
    }
}

/// `state.json` without its checksums, which are made right.
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

fn checkpoint(dir: &Path, json: &[u8], weights: &[u8]) {
    let sum = |bytes: &[u8]| format!("{:08x}", crc32fast::hash(bytes));
    let mut json = json.to_vec();
    if let Ok(mut file) = serde_json::from_slice::<Value>(&json)
        && let Some(Ok(state)) = file.get("state").map(State::deserialize)
        && let Ok(state) = serde_json::to_vec(&state)
    {
        file["checksums"] = serde_json::json!({"model": sum(weights), "optimizer": sum(weights), "state": sum(&state)});
        json = file.to_string().into_bytes();
    }
    let dir = dir.join("checkpoint");
    std::fs::create_dir_all(&dir).expect("a directory of the test");
    put(&dir, "state.json", &json);
    put(&dir, "model.safetensors", weights);
    put(&dir, "optimizer.safetensors", weights);
    tell(Checkpoint::read(&dir));
}

/// A pretrained encoder whose settings do not go with its weights; their first byte picks the model.
fn encoder(dir: &Path, json: &[u8], _: &[u8]) {
    let Some((&model, json)) = json.split_first() else { return };
    let (name, causal) =
        [("llama", true), ("llama3", true), ("t5", false), ("t5-gated", false)][usize::from(model) % 4];
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/embed").join(name);
    let dir = dir.join("encoder");
    std::fs::create_dir_all(&dir).expect("a directory of the test");
    for file in ["model.safetensors", "tokenizer.json"] {
        std::fs::copy(from.join(file), dir.join(file)).expect("a recorded file");
    }
    put(&dir, "config.json", json);
    let spec = if causal { EmbedderSpec::CausalLm { dir } } else { EmbedderSpec::SentenceT5 { dir } };
    let Some(encoder) = told(AnyEmbedder::open(&spec, &Device::Cpu)) else { return };
    tell(encoder.embed(&["red soap".to_owned()]));
}

/// Arrays of embeddings in both formats, read whole and row by row.
fn rows(dir: &Path, _: &[u8], bytes: &[u8]) {
    put(dir, "rows", bytes);
    let path = dir.join("rows");
    tell(embed::io::read_npy(&path));
    tell(embed::io::read_safetensors(&path));
    for file in [told(FileRows::open_npy(&path)), told(FileRows::open_safetensors(&path, None))] {
        let Some(mut file) = file else { continue };
        if file.dim() <= 1 << 12 {
            let count = file.len().min(3);
            let mut block = ndarray::Array2::zeros((count, file.dim()));
            tell(file.read(file.len() - count, block.view_mut()));
        }
    }
}
