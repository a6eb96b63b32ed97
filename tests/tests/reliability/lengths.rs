//! Numbers that no file can mean. Each number of each JSON file, and each length, shape and offset in the header of each binary one,
//! becomes 0, 1, 2^31, 2^32, 2^63 and 2^64 - 1, under right checksums: a reader says what is wrong, or reads what may be, and takes no
//! memory on the word of a number.

use std::{fs, path::Path};

use candle_core::{Device, Tensor};
use genrec::{
    History, Recommender,
    artifacts::{self, RunDir},
    embed::{AnyEmbedder, io},
    index::{CollisionPolicy, ItemId, SidIndex},
    model::{
        ItemScorer, RaggedBatch, Seq2Seq, Trainable,
        baseline::CoOccurrence,
        sasrec::{SasRec, SasRecConfig},
        t5::T5,
    },
    pipeline::Manifest,
    quantize::{
        AnyQuantizer, ArrayRows, FileRows, Fit, FsqConfig, HierarchicalKMeansConfig, ProductKMeansConfig, Quantizer,
        QuantizerConfig, RandomIdsConfig, ResidualKMeansConfig, RowSource, RqVaeConfig, SimHashLshConfig,
    },
    train::Checkpoint,
};
use genrec_tests::told;
use ndarray::Array2;
use serde_json::Value;

use crate::{
    MEMORY,
    flips::small_index,
    in_memory,
    lies::{checkpoints, index, quantizers},
    memory, tiny,
};

const NUMBERS: [u64; 6] = [0, 1, 1 << 31, 1 << 32, 1 << 63, u64::MAX];
/// The most that one allocation may take, whichever test asks for it meanwhile: far above any file here, and far below any of these
/// numbers but the first two.
const MOST: usize = 64 << 20;

/// A value, or an error that can say what it is.
fn some<T, E: std::error::Error>(result: Result<T, E>) -> Option<T> {
    result.map_err(|error| assert!(!told(&error).is_empty())).ok()
}

/// Paths of all numbers in a value.
fn numbers(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(at.to_owned()),
        Value::Array(all) => all.iter().enumerate().for_each(|(i, value)| numbers(value, &format!("{at}/{i}"), found)),
        Value::Object(all) => all.iter().for_each(|(key, value)| {
            numbers(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
        }),
        _ => {}
    }
}

/// All that a JSON text becomes when one of its numbers does.
fn changed(text: &[u8]) -> Vec<Vec<u8>> {
    let value: Value = serde_json::from_slice(text).unwrap();
    let mut paths = Vec::new();
    numbers(&value, "", &mut paths);
    let with = |path: &String, number: u64| {
        let mut value = value.clone();
        *value.pointer_mut(path).unwrap() = number.into();
        value.to_string().into_bytes()
    };
    paths.iter().flat_map(|path| NUMBERS.map(|number| with(path, number))).collect()
}

/// All that a safetensors file becomes when a number of its header does, or the length before that.
fn changed_header(bytes: &[u8]) -> Vec<Vec<u8>> {
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let with_length = NUMBERS.map(|length| [&length.to_le_bytes()[..], &bytes[8..]].concat());
    let with_header = changed(&bytes[8..header]).into_iter().map(|mut json| {
        json.resize(json.len().next_multiple_of(8), b' ');
        [&(json.len() as u64).to_le_bytes()[..], &json, &bytes[header..]].concat()
    });
    with_length.into_iter().chain(with_header).collect()
}

/// Reads a directory with each file of its in every changed form; `sign` makes checksums right. Returns how many forms there were.
fn read_changed(dir: &Path, files: &[&str], sign: &dyn Fn(), read: &dyn Fn()) -> usize {
    let mut forms = 0;
    memory::within(MOST, read);
    for file in files {
        let path = dir.join(file);
        let whole = fs::read(&path).unwrap();
        let all = if file.ends_with(".json") { changed(&whole) } else { changed_header(&whole) };
        forms += all.len();
        for bytes in all {
            // What signs a file may write another.
            let before: Vec<Vec<u8>> = files.iter().map(|file| fs::read(dir.join(file)).unwrap()).collect();
            fs::write(&path, bytes).unwrap();
            sign();
            memory::within(MOST, read);
            files.iter().zip(before).for_each(|(file, bytes)| fs::write(dir.join(file), bytes).unwrap());
            fs::write(&path, &whole).unwrap();
        }
    }
    forms
}

#[test]
fn no_number_is_taken_at_its_word() {
    let _memory = MEMORY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let forms: usize =
        [of_an_index(), of_quantizers(), of_models(), of_a_checkpoint(), of_a_run(), of_rows()].iter().sum();
    eprintln!("{forms} files with a number that they cannot mean");
}

fn of_an_index() -> usize {
    let dir = in_memory();
    let dir = dir.path();
    let read = || {
        let opened = some(SidIndex::open(dir));
        let verified = some(SidIndex::open_mapped(dir)).and_then(|index| some(index.verify(dir)));
        assert_eq!(opened.is_some(), verified.is_some());
    };
    let mut forms = 0;
    for policy in [CollisionPolicy::Suffix, CollisionPolicy::Share] {
        small_index(policy).save(dir).unwrap();
        let files = ["index.json", "index.safetensors"];
        forms += read_changed(dir, &files, &|| (), &read) + read_changed(dir, &files, &|| index::sign(dir), &read);
    }
    forms
}

fn of_quantizers() -> usize {
    let configs: [QuantizerConfig; 7] = [
        RqVaeConfig::default().with_hidden([4]).with_latent_dim(2).with_codebook_sizes([4, 4]).with_epochs(1).into(),
        ResidualKMeansConfig::default().with_codebook_sizes([4, 4]).with_standardize(true).into(),
        HierarchicalKMeansConfig::default().with_codebook_sizes([4, 4]).into(),
        ProductKMeansConfig::default().with_codebook_sizes([4, 4]).into(),
        SimHashLshConfig::default().into(),
        FsqConfig::default().with_hidden([4]).with_epochs(1).into(),
        RandomIdsConfig::default().into(),
    ];
    let rows = Array2::from_shape_fn((30, 6), |(row, column)| ((row * 7 + column * 5) % 23) as f32 / 23.0);
    let of_one = |config: QuantizerConfig| {
        let dir = in_memory();
        let dir = dir.path();
        config.fit(&mut ArrayRows::from(rows.view())).unwrap().save(dir).unwrap();
        let read = || {
            let Some(quantizer) = some(AnyQuantizer::load(dir, &Device::Cpu)) else { return };
            some(quantizer.fingerprint());
            if quantizer.dim() <= 1 << 10 {
                some(
                    quantizer
                        .encode(&Tensor::zeros((2, quantizer.dim()), candle_core::DType::F32, &Device::Cpu).unwrap()),
                );
            }
        };
        read_changed(dir, &["config.json", "model.safetensors"], &|| quantizers::sign(dir), &read)
    };
    configs.into_iter().map(of_one).sum()
}

fn of_models() -> usize {
    let files = ["config.json", "model.safetensors"];
    let dir = in_memory();
    let run = RunDir::new(dir.path());
    tiny::run(dir.path());
    let of_t5 = read_changed(&run.model(), &files, &|| (), &|| {
        let Some(model) = some(T5::load(run.model(), &Device::Cpu)) else { return };
        let mut batch = RaggedBatch::new();
        batch.push(&[model.config().pad_token_id; 2], &[model.config().pad_token_id]).unwrap();
        some(model.loss(&batch));
        some(model.start(&batch));
    });
    let dir = in_memory();
    let config = SasRecConfig::new(20).with_max_len(4).with_d_model(8).with_layers(1);
    SasRec::new(config, 1, &Device::Cpu).unwrap().save(dir.path()).unwrap();
    let of_sasrec = read_changed(dir.path(), &files, &|| (), &|| {
        let Some(model) = some(SasRec::load(dir.path(), &Device::Cpu)) else { return };
        let mut batch = RaggedBatch::new();
        batch.push(&[0, 0, 0], &[]).unwrap();
        some(model.loss(&batch));
        some(model.scores(&batch));
    });
    of_t5 + of_sasrec
}

fn of_a_checkpoint() -> usize {
    let dir = in_memory();
    tiny::train(checkpoints::config(), 2, 3, Some(dir.path())).unwrap();
    let last = dir.path().join("last");
    let files = ["state.json", "model.safetensors", "optimizer.safetensors"];
    // Training goes on in a copy, as it writes.
    let read = || {
        some(Checkpoint::read(&last));
        let copy = in_memory();
        for name in ["last", "best"] {
            fs::create_dir(copy.path().join(name)).unwrap();
            for file in files {
                fs::copy(dir.path().join(name).join(file), copy.path().join(name).join(file)).unwrap();
            }
        }
        some(tiny::train(checkpoints::config(), 2, 3, Some(copy.path())));
    };
    read_changed(&last, &files, &|| checkpoints::sign(&last), &read)
}

fn of_a_run() -> usize {
    let dir = in_memory();
    let dir = dir.path();
    let run = RunDir::new(dir);
    tiny::run(dir);
    let read = || {
        if let Some(manifest) = some(artifacts::read_versioned::<Manifest>(&run.manifest())) {
            some(manifest.config.validate());
        }
        some(run.verify());
        some(AnyEmbedder::load(run.embedder(), &Device::Cpu));
        some(io::read_safetensors(run.embeddings()));
        some(CoOccurrence::load(run.co_occurrence()));
        let Some(recommender) = some(Recommender::load(dir, &Device::Cpu)) else { return };
        let items = [ItemId(3), ItemId(5)];
        some(recommender.recommend(&[History { user: Some("a"), items: &items }], 5));
    };
    let files = [
        "run.json",
        "decode.json",
        "checksums.json",
        "embedder/config.json",
        "embedder/model.safetensors",
        "embeddings.safetensors",
        "co-occurrence.safetensors",
    ];
    let mut forms = read_changed(dir, &files, &|| (), &read);
    for search in [
        r#""search": {"type": "beam", "beams": 5, "max_tokens": 256}"#,
        r#""search": {"type": "exact", "k": 5, "beams": 5, "max_rows": 65536, "max_tokens": 256}"#,
        r#""search": {"type": "diverse", "beams": 6, "groups": 2, "strength": 0.5, "max_tokens": 256}"#,
        r#""search": {"type": "sampling", "samples": 5, "temperature": 1.0, "top_k": 3, "top_p": 0.5, "seed": 1, "max_tokens": 256}"#,
        r#""search": {"type": "sampling", "samples": 5, "replacement": true}"#,
        r#""free": {"type": "longest_prefix", "at_least": 1}, "widen_to": 40"#,
        r#""cold_start": {"epsilon": 0.5, "prefix": 1, "weight": 1.0}"#,
        r#""rerank": {"weight": 1.0, "floor": 0.01, "candidates": 50}"#,
    ] {
        let json = format!(
            r#"{{"format_version": 1, "beams": 5, "users_per_batch": 2, "max_history": 9, "user_tokens": 2, {search}}}"#
        );
        fs::write(run.decode(), json).unwrap();
        forms += read_changed(dir, &["decode.json"], &|| (), &read);
    }
    forms
}

/// Arrays of embeddings as NumPy writes them.
fn of_rows() -> usize {
    let dir = in_memory();
    let path = dir.path().join("rows.npy");
    io::write_npy(&path, Array2::from_elem((3, 2), 0.5).view()).unwrap();
    let whole = fs::read(&path).unwrap();
    let shape = b"(3, 2)";
    let at = whole.windows(shape.len()).position(|part| part == shape).unwrap();
    let mut forms = 0;
    for number in NUMBERS {
        for shape in [format!("({number}, 2)"), format!("(3, {number})"), format!("({number}, {number})")] {
            let mut bytes = whole.clone();
            // The header is padded with spaces before its line break.
            let end = 10 + usize::from(u16::from_le_bytes([whole[8], whole[9]])) - 1;
            let rest = whole[at + 6..end].to_vec();
            bytes[at..end].fill(b' ');
            bytes[at..][..shape.len()].copy_from_slice(shape.as_bytes());
            let dict = rest.iter().position(|&byte| byte == b'}').unwrap();
            bytes[at + shape.len()..][..=dict].copy_from_slice(&rest[..=dict]);
            fs::write(&path, bytes).unwrap();
            memory::within(MOST, || {
                some(io::read_npy(&path));
                if let Some(rows) = some(FileRows::open_npy(&path)) {
                    assert!(rows.len() <= 3 || rows.dim() == 0);
                }
            });
            forms += 1;
        }
    }
    forms
}
