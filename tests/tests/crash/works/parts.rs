//! Whatever has no test of its own is saved over another of its kind.

use std::{fmt::Debug, path::Path};

use candle_core::Device;
use genrec::{
    embed::{
        EmbedError, Tfidf, TfidfConfig,
        behaviour::{BehaviourConfig, Blend, BlendConfig},
        io,
    },
    model::{
        baseline::CoOccurrence,
        sasrec::{SasRec, SasRecConfig},
        t5::{T5, T5Config},
    },
    quantize::{AnyQuantizer, QuantizeError},
};
use ndarray::Array2;

use super::{BoxError, Work, quantizer};

pub(crate) const PARTS: Work = Work {
    prepare: |root| save(root, 0).unwrap(),
    is_whole: |root| open_quantizer(root).is_ok() && Tfidf::load(root.join("tfidf")).is_ok(),
    ..Work::new("parts", |root| save(root, 1), is_done)
};

/// What a save of seed 1 leaves differs in every file of weights from what one of seed 0 does.
fn save(root: &Path, seed: usize) -> Result<(), BoxError> {
    let config = T5Config::cpu(20).with_d_model(8).with_heads(1, 4).with_d_ff(8).with_layers(1, 1);
    T5::new(config, seed as u64, &Device::Cpu)?.save(root.join("t5"))?;
    let config = SasRecConfig::new(9).with_d_model(8).with_heads(1).with_d_ff(8).with_layers(1).with_max_len(5);
    SasRec::new(config, seed as u64, &Device::Cpu)?.save(root.join("sasrec"))?;
    quantizer::fitted(seed + 1)?.save(root.join("quantizer"))?;
    let rows = Array2::from_shape_fn((6, 4), |(row, column)| ((row * (5 + seed) + column * 3) % 7) as f32);
    io::write_npy(root.join("rows.npy"), rows.view())?;
    io::write_safetensors(root.join("rows.safetensors"), rows.view())?;
    let words = ["red", "blue", "green", "grey"];
    let texts: Vec<_> = (0..8).map(|at| format!("{} polish {}", words[at % 4], words[(at + seed) % 3])).collect();
    Tfidf::fit(&texts, TfidfConfig::default().with_min_df(1))?.save(root.join("tfidf"))?;
    let taken = [[0, 1, 2 + seed as u32], [1, 0, 3], [2, 3, 4], [3, 2, 5]];
    let config = BlendConfig::default().with_neighbours(1).with_behaviour(BehaviourConfig::default().with_dims(2));
    Blend::fit(rows.view(), taken, config)?.save(root.join("blend"))?;
    CoOccurrence::fit(taken, 6)?.save(root.join("co-occurrence.safetensors"))?;
    Ok(())
}

fn open_quantizer(root: &Path) -> Result<AnyQuantizer, QuantizeError> {
    AnyQuantizer::load(root.join("quantizer"), &Device::Cpu)
}

/// Every part opens, or is known to have files of two saves.
fn is_done(root: &Path) -> bool {
    fn open<T, E: Debug>(opened: Result<T, E>) {
        opened.unwrap();
    }
    open(T5::load(root.join("t5"), &Device::Cpu));
    open(SasRec::load(root.join("sasrec"), &Device::Cpu));
    open(io::read_npy(root.join("rows.npy")));
    open(io::read_safetensors(root.join("rows.safetensors")));
    assert!(matches!(open_quantizer(root), Ok(_) | Err(QuantizeError::Checksum { .. })));
    assert!(matches!(Tfidf::load(root.join("tfidf")), Ok(_) | Err(EmbedError::HashMismatch { .. })));
    open(Blend::load(root.join("blend")));
    open(CoOccurrence::load(root.join("co-occurrence.safetensors")));
    true
}
