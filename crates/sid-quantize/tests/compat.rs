//! Quantisers written by released formats open in every later release, and code as they did.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::Path,
};

use candle_core::Device;
use ndarray::Array2;
use serde::Deserialize;
use sid_quantize::{AnyQuantizer, Quantizer};

/// One directory a kind and option that has tensors of its own: never written again from the first release of
/// the format on.
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/compat/v1/quantizers");

#[derive(Deserialize)]
struct Expected {
    rows: Vec<Vec<f32>>,
    codes: BTreeMap<String, Vec<Vec<u32>>>,
}

fn expected() -> Expected {
    serde_json::from_slice(&std::fs::read(Path::new(RECORDED).join("expected.json")).unwrap()).unwrap()
}

#[test]
fn version_1_opens_and_codes_alike() {
    let Expected { rows, codes } = expected();
    let rows = Array2::from_shape_vec((rows.len(), rows[0].len()), rows.concat()).unwrap();
    let recorded = std::fs::read_dir(RECORDED).unwrap().map(|entry| entry.unwrap());
    let recorded: BTreeSet<_> = recorded.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name()).collect();
    assert_eq!(recorded, codes.keys().map(OsString::from).collect());
    for (name, codes) in codes {
        let quantizer = AnyQuantizer::load(Path::new(RECORDED).join(&name), &Device::Cpu).unwrap();
        let found = quantizer.encode_array(rows.view(), 7).unwrap();
        assert_eq!(found.outer_iter().map(|row| row.to_vec()).collect::<Vec<_>>(), codes, "{name}");
    }
}

/// While version 1 is the newest, saving must still write the very bytes recorded.
#[test]
fn version_1_is_still_written_alike() {
    for name in expected().codes.keys() {
        let recorded = Path::new(RECORDED).join(name);
        let dir = tempfile::tempdir().unwrap();
        AnyQuantizer::load(&recorded, &Device::Cpu).unwrap().save(dir.path()).unwrap();
        for file in ["config.json", "model.safetensors"] {
            assert!(
                std::fs::read(dir.path().join(file)).unwrap() == std::fs::read(recorded.join(file)).unwrap(),
                "{name}/{file} is written differently: raise the format version and keep reading version 1"
            );
        }
    }
}
