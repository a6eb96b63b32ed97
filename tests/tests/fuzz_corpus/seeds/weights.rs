//! Small quantisers, models, checkpoints, embedders and arrays.

use std::{error::Error, fs};

use crate::readers::weights::READERS;
use candle_core::Device;
use genrec::{
    embed::{
        self, Tfidf, TfidfConfig,
        behaviour::{BehaviourConfig, Blend, BlendConfig},
    },
    model::baseline::CoOccurrence,
    model::sasrec::{SasRec, SasRecConfig, SasRecLoss},
    model::t5::{FeedForwardKind, T5, T5Config},
};
use genrec_tests::manifest::root;
use ndarray::array;

use super::Seeds;

const PROGRESS: &str = concat!(
    r#"{"step":1,"epoch":0,"batch":0,"examples":1,"best":null,"history":[],"finished":null,"seconds":0.5,"#,
    r#""epoch_loss":{"sum":0.0,"steps":0},"loss_since_validation":{"sum":0.0,"steps":0},"#,
    r#""last_epoch_loss":null,"patience_metric":null,"patience_used":0}"#,
);

pub fn seeds() -> Result<Seeds, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let (config, weights) = (dir.join("config.json"), dir.join("model.safetensors"));
    let mut seeds = Seeds::new();

    let quantizers = root().join("tests/compat/v1/quantizers");
    for entry in fs::read_dir(quantizers)?.filter_map(Result::ok).filter(|entry| entry.path().is_dir()) {
        let dir = entry.path();
        push(&mut seeds, "quantizer", &fs::read(dir.join("config.json"))?, &fs::read(dir.join("model.safetensors"))?);
    }

    let tiny = T5Config::paper(5).with_d_model(2).with_heads(1, 2).with_d_ff(2).with_layers(1, 1);
    let gated = tiny.clone().with_feed_forward(FeedForwardKind::GatedGelu).with_tied_embeddings(false);
    for model in [tiny.clone(), gated, tiny.with_causal_encoder(true)] {
        T5::new(model, 1, &Device::Cpu)?.save(dir)?;
        push(&mut seeds, "t5", &fs::read(&config)?, &fs::read(&weights)?);
    }

    let state = [
        r#"{"format_version":1,"checksums":{},"state":{"config":{"seed":1},"data":{"examples":1,"batches":1},"progress":"#,
        PROGRESS,
        "}}",
    ]
    .concat();
    let tensor = concat!(
        r#"{"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"#,
        r#""step":{"dtype":"I64","shape":[],"data_offsets":[8,16]}}"#,
    );
    let bytes = [&(tensor.len() as u64).to_le_bytes(), tensor.as_bytes(), &[0; 16]].concat();
    push(&mut seeds, "checkpoint", state.as_bytes(), &bytes);

    let texts = ["red soap", "green soap", "red brush"].map(str::to_owned);
    Tfidf::fit(&texts, TfidfConfig::default().with_dim(2))?.save(dir)?;
    let json = [fs::read(&config)?, vec![1], fs::read(dir.join("vocabulary.json"))?].concat();
    push(&mut seeds, "tfidf", &json, &fs::read(&weights)?);

    let rows = array![[1.0_f32, 2.0], [3.0, 4.0]];
    let path = dir.join("rows");
    embed::io::write_npy(&path, rows.view())?;
    push(&mut seeds, "rows", b"", &fs::read(&path)?);
    embed::io::write_safetensors(&path, rows.view())?;
    push(&mut seeds, "rows", b"", &fs::read(&path)?);

    for (number, model) in ["llama", "llama3", "t5", "t5-gated"].iter().enumerate() {
        let config = fs::read(root().join("tests/golden/embed").join(model).join("config.json"))?;
        push(&mut seeds, "encoder", &[&[number as u8 + 4], config.as_slice()].concat(), b"");
    }

    let tiny = SasRecConfig::new(3).with_d_model(2).with_max_len(2).with_layers(1);
    for loss in [SasRecLoss::full_cross_entropy(), SasRecLoss::bce(1)] {
        SasRec::new(tiny.clone().with_loss(loss), 1, &Device::Cpu)?.save(dir)?;
        push(&mut seeds, "sasrec", &fs::read(&config)?, &fs::read(&weights)?);
    }

    let config_of = BehaviourConfig::default().with_dims(1);
    Blend::fit(rows.view(), [[0, 1]], BlendConfig::default().with_behaviour(config_of))?.save(dir)?;
    push(&mut seeds, "blend", &fs::read(&config)?, &fs::read(&weights)?);

    CoOccurrence::fit([[0, 1, 2], [2, 0, 3]], 5)?.save(&weights)?;
    push(&mut seeds, "co_occurrence", b"", &fs::read(&weights)?);
    Ok(seeds)
}

fn push(seeds: &mut Seeds, kind: &str, json: &[u8], binary: &[u8]) {
    let reader = READERS.iter().position(|(name, _)| *name == kind).expect("a reader of this name") as u8;
    seeds.push((format!("{:02}", seeds.len()), [&[reader], json.trim_ascii(), &[0], binary].concat()));
}
