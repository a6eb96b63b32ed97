//! Settings of every kind: the defaults, the presets, and what each choice looks like written out.

use std::error::Error;

use crate::readers::config::READERS;
use genrec::{
    DecodeConfig,
    data::{BatchConfig, Item, Prepare, ReadOptions, SyntheticConfig, WindowConfig, readers::tabular},
    decode::{Resolve, Shape},
    embed::{EmbedderSpec, TextTemplate, TfidfConfig},
    index::{Reassign, SidLayout, SidVocab},
    kernels::optim::OptimizerConfig,
    model::t5::T5Config,
    pipeline::{Manifest, TigerConfig},
    quantize::{QuantizerConfig, usage::NeighbourConfig},
    train::TrainConfig,
};
use serde::Serialize;

use super::Seeds;

/// Texts that are not the default of anything.
const WRITTEN: &[(&str, &str)] = &[
    (
        "decode.json",
        r#"{"format_version":1,"beams":5,"search":{"type":"sampling","samples":9,"temperature":[1.5,0.5]},"widen_to":80}"#,
    ),
    ("decode.json", r#"{"format_version":1,"free":{"type":"exact"},"cold_start":{"epsilon":0.1}}"#),
    ("decode.json", r#"{"format_version":2,"a_field_of_the_future":true}"#),
    ("tiger", r#"{"quantizer":{"type":"rq_vae","codebook_sizes":[16,16,16]}}"#),
    ("tiger", r#"{"embedder":{"type":"npy","path":"x.npy"},"reassign":{"capacity":2},"precision":"bf16"}"#),
    ("tiger", r#"{"embedder":{"type":"text","embedder":{"type":"bert","dir":"m"}},"by_user":true,"bucketing":null}"#),
    ("quantizer", r#"{"type":"residual_k_means","codebook_sizes":[8,8],"init":"plus_plus","beam":4,"whiten":3}"#),
    ("quantizer", r#"{"type":"hierarchical_k_means","codebook_sizes":[4,4],"balance":1.5,"distance":"cosine"}"#),
    ("quantizer", r#"{"type":"product_k_means","rotation":{"iterations":20},"batch_rows":4096}"#),
    ("quantizer", r#"{"type":"sim_hash_lsh","bits":8,"levels":3,"standardize":true}"#),
    ("quantizer", r#"{"type":"fsq","scalars":[[8,5],[4,4,3]],"hidden":[16]}"#),
    ("quantizer", r#"{"type":"random_ids","codebook_sizes":[256],"seed":18446744073709551615}"#),
    ("quantizer", r#"{"type":"rq_vae","codebook":{"ema":{"decay":0.99}},"sinkhorn":{"epsilon":0.05,"iterations":50}}"#),
    ("quantizer", r#"{"type":"rq_vae","codebook":"sim_vq","restart_after":null,"composition":"partitioned"}"#),
    (
        "quantizer",
        r#"{"type":"rq_vae","shared_codebook":true,"estimator":"rotation_trick","diversity":{},"alignment":{}}"#,
    ),
    (
        "t5",
        r#"{"model_type":"t5","vocab_size":32,"d_model":8,"d_kv":4,"num_heads":2,"feed_forward_proj":"gated-gelu"}"#,
    ),
    ("embedder", r#"{"type":"sentence_t5","dir":"models/st5"}"#),
    ("embedder", r#"{"type":"causal_lm","dir":"models/llama"}"#),
    ("tfidf", r#"{"dim":64,"word_ngrams":[1,2],"char_ngrams":[3,5],"max_df":0.5}"#),
    ("train", r#"{"epochs":null,"max_steps":100,"validate_every":{"steps":10},"cooldown":0.25,"clip_norm":1.0}"#),
    ("optimizer", r#"{"type":"adam_w","weight_decay":0.1,"beta1":0.9,"beta2":0.999}"#),
    ("optimizer", r#"{"type":"adafactor"}"#),
    ("optimizer", r#"{"type":"adagrad"}"#),
    ("schedule", r#"{"type":"constant"}"#),
    ("schedule", r#"{"type":"inverse_sqrt","warmup_steps":10000}"#),
    ("schedule", r#"{"type":"warmup_inverse_sqrt","warmup_steps":1}"#),
    ("schedule", r#"{"type":"cosine","warmup_steps":10,"total_steps":100,"final_factor":0.1}"#),
    ("schedule", r#"{"type":"linear","total_steps":18446744073709551615}"#),
    ("search", r#"{"type":"beam","beams":20,"max_tokens":4}"#),
    ("search", r#"{"type":"sampling","samples":50,"temperature":[1.5,0.5],"top_k":[7,3],"top_p":0.9,"seed":1}"#),
    ("search", r#"{"type":"diverse","beams":6,"groups":3,"strength":0.5}"#),
    ("search", r#"{"type":"exact","k":10,"beams":20}"#),
    ("cold start", r#"{"epsilon":0.1}"#),
    ("resolve", r#"{"type":"exact"}"#),
    ("resolve", r#"{"type":"longest_prefix","at_least":1}"#),
    ("reassign", r#"{"method":{"type":"sinkhorn","epsilon":0.05,"iterations":20},"capacity":1}"#),
    ("reassign", r#"{"method":{"type":"greedy"},"capacity":3}"#),
    ("vocabulary", r#"{"codebook_sizes":[256,256,256],"suffix_size":null}"#),
    (
        "results",
        concat!(
            r#"{"step":1,"epoch":0,"batch":0,"examples":1,"best":{"step":1,"epoch":0,"metric":0.5},"history":[],"#,
            r#""finished":null,"seconds":0.5,"epoch_loss":{"sum":0.5,"steps":1},"#,
            r#""loss_since_validation":{"sum":0.0,"steps":0},"last_epoch_loss":null,"patience_metric":null,"patience_used":0}"#,
        ),
    ),
    ("other parts", "[12,24,52,0]"),
];

pub fn seeds() -> Result<Seeds, Box<dyn Error>> {
    let mut seeds = Seeds::new();
    for (kind, json) in WRITTEN {
        push(&mut seeds, kind, json.as_bytes());
    }
    let tiger = [TigerConfig::paper(), TigerConfig::cpu(), TigerConfig::quickstart()];
    for config in tiger {
        put(&mut seeds, "tiger", &config)?;
        put(&mut seeds, "train", &config.train)?;
        put(&mut seeds, "optimizer", &config.train.optimizer)?;
        put(&mut seeds, "quantizer", &config.quantizer)?;
        put(&mut seeds, "t5", &config.model)?;
        let (dataset, data_crc32) = ("shop".to_owned(), 7);
        put(&mut seeds, "run.json", &Manifest { format_version: 1, config, dataset, data_crc32 })?;
    }
    put(&mut seeds, "decode.json", &DecodeConfig::default())?;
    put(&mut seeds, "quantizer", &QuantizerConfig::default())?;
    put(&mut seeds, "t5", &T5Config::cpu(100))?;
    put(&mut seeds, "embedder", &EmbedderSpec::default())?;
    put(&mut seeds, "tfidf", &TfidfConfig::default())?;
    put(&mut seeds, "train", &TrainConfig::default())?;
    put(&mut seeds, "optimizer", &OptimizerConfig::default())?;
    put(&mut seeds, "shape", &Shape::default())?;
    put(&mut seeds, "resolve", &Resolve::default())?;
    put(&mut seeds, "windows", &WindowConfig::default())?;
    put(&mut seeds, "batches", &BatchConfig::default())?;
    put(&mut seeds, "synthetic", &SyntheticConfig::default())?;
    put(&mut seeds, "data", &Prepare::default())?;
    put(&mut seeds, "data", &ReadOptions::default())?;
    put(&mut seeds, "data", &tabular::InteractionColumns::new("user", "item"))?;
    put(&mut seeds, "data", &tabular::ItemColumns::new("id"))?;
    put(&mut seeds, "reassign", &Reassign::default())?;
    put(&mut seeds, "vocabulary", &SidVocab::new(&SidLayout::new(vec![4, 8])?, 10)?)?;
    put(&mut seeds, "other parts", &NeighbourConfig::default())?;
    put(&mut seeds, "other parts", &TextTemplate::default())?;
    let item = Item::new("b").with_title("Soap").with_categories([["A", "B"]]).with_attribute("colour", "red");
    put(&mut seeds, "other parts", &item)?;
    Ok(seeds)
}

fn put(seeds: &mut Seeds, kind: &str, value: &impl Serialize) -> serde_json::Result<()> {
    push(seeds, kind, &serde_json::to_vec(value)?);
    Ok(())
}

fn push(seeds: &mut Seeds, kind: &str, json: &[u8]) {
    let reader = READERS.iter().position(|(name, _)| *name == kind).expect("a reader of this name");
    seeds.push((format!("{:02}", seeds.len()), [&[reader as u8], json].concat()));
}
