//! Agreement with NumPy, faiss and scikit-learn on recorded values (`tests/golden/scripts/quantize.py`).

use std::path::PathBuf;

use candle_core::Device;
use ndarray::Array2;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::lsh::{SimHashLsh, SimHashLshConfig};
use crate::saved::Saved;
use crate::usage::reconstruction_error;
use crate::{
    ArrayRows, Fit, KMeansInit, ProductKMeansConfig, Quantizer, Reconstruct, ResidualKMeansConfig, RotationConfig,
};

/// How much above the peer's an error may be.
const ERROR: f64 = 1.01;
const INERTIA: f64 = 1.005;
/// An error so far below the peer's is measured wrongly.
const LOWEST: f64 = 0.9;

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../tests/golden/quantize", name].iter().collect()
}

/// The values of a JSON file of the area.
pub(crate) fn recorded<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}

#[test]
fn simhash_has_numpys_bits() {
    let recorded = candle_core::safetensors::load(path("simhash.safetensors"), &Device::Cpu).unwrap();
    for (name, bits, levels, standardize) in
        [("exact", 20, 5, false), ("plain", 8, 3, false), ("standardized", 8, 3, true)]
    {
        let [rows, normals, codes] = ["rows", "normals", "codes"].map(|part| &recorded[&format!("{name}.{part}")]);
        let config = SimHashLshConfig::default().with_bits(bits).with_levels(levels).with_standardize(standardize);
        let shape = rows.dims2().unwrap();
        let array = Array2::from_shape_vec(shape, rows.flatten_all().unwrap().to_vec1().unwrap()).unwrap();
        // What is learned is learned, and the hyperplanes are the given ones.
        let fitted = config.fit(&mut ArrayRows::from(array.view())).unwrap();
        let mut tensors = fitted.tensors().unwrap();
        assert_eq!(tensors.insert("normals".to_owned(), normals.clone()).unwrap().dims(), normals.dims());
        let model = SimHashLsh::from_tensors(config, shape.1, &tensors, &Device::Cpu).unwrap();
        let theirs = codes.to_vec2::<u32>().unwrap();
        assert_eq!(model.encode(rows).unwrap().to_vec2::<u32>().unwrap(), theirs, "{name}");
        assert_eq!(model.encode_tensors(rows).unwrap().to_vec2::<u32>().unwrap(), theirs, "{name} by tensors");
        let at_once = model.encode_array(array.view(), 7).unwrap();
        assert!(at_once.iter().eq(theirs.iter().flatten()), "{name} by arrays");
    }
}

#[derive(Deserialize)]
struct Errors {
    rows: Facts,
    seeds: u64,
    product: Coded,
    optimized_product: Coded,
    residual: Vec<Coded>,
    k_means: Vec<Clustered>,
}

#[derive(Deserialize)]
struct Facts {
    first: Vec<f32>,
    sum: f64,
    squares: f64,
}

#[derive(Deserialize)]
struct Coded {
    levels: usize,
    bits: u32,
    beam: Option<usize>,
    #[serde(default)]
    progressive: bool,
    error: f64,
}

#[derive(Deserialize)]
struct Clustered {
    clusters: u32,
    inertia: f64,
}

/// 64 random bits for each number, by SplitMix64's finaliser.
fn scattered(count: u64, start: u64) -> impl Iterator<Item = u64> {
    (start + 1..=start + count).map(|number| {
        let mut z = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// The script's rows: factors of falling weight and a little noise, in whole numbers over 1,024.
fn correlated(facts: &Facts) -> Array2<f32> {
    const ROWS: usize = 2000;
    const DIM: usize = 32;
    const FACTORS: usize = 32;
    let bell: Vec<i64> = scattered((ROWS * (FACTORS + DIM)) as u64, 0)
        .map(|bits| bits.to_le_bytes().iter().map(|&byte| i64::from(byte)).sum::<i64>() - 1020)
        .collect();
    let loadings: Vec<i64> = scattered((FACTORS * DIM) as u64, 1 << 32).map(|bits| (bits % 17) as i64 - 8).collect();
    let rows = Array2::from_shape_fn((ROWS, DIM), |(row, column)| {
        let bell = &bell[row * (FACTORS + DIM)..];
        let factors = (0..FACTORS).map(|k| bell[k] * loadings[k * DIM + column] * (64 / (k as i64 + 4))).sum::<i64>();
        (factors + 64 * bell[FACTORS + column]) as f32 / 1024.0
    });
    assert_eq!(rows.row(0).to_vec(), facts.first);
    assert!((rows.mapv(f64::from).sum() - facts.sum).abs() < 1e-6);
    assert!((rows.mapv(|x| f64::from(x).powi(2)).sum() / facts.squares - 1.0).abs() < 1e-12);
    rows
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
}

/// The median over the seeds of `||x - x^||^2`, mean over the rows.
fn error<C: Fit<Model: Reconstruct>>(rows: &Array2<f32>, seeds: u64, config: impl Fn(u64) -> C) -> f64 {
    let mut source = ArrayRows::from(rows.view());
    let errors = (0..seeds).map(|seed| {
        let model = config(seed).fit(&mut source).unwrap();
        reconstruction_error(&model, &mut source).unwrap().mean_squared
    });
    median(errors.collect())
}

fn agrees(what: &str, ours: f64, theirs: f64, at_most: f64) {
    let ratio = ours / theirs;
    assert!((LOWEST..=at_most).contains(&ratio), "{what}: ours {ours}, theirs {theirs}, ratio {ratio}");
}

fn sizes(of: &Coded) -> Vec<u32> {
    vec![1 << of.bits; of.levels]
}

#[test]
fn product_quantisers_reach_faiss() {
    let recorded: Errors = recorded("errors.json");
    let rows = correlated(&recorded.rows);
    let of = &recorded.product;
    let config = |seed| ProductKMeansConfig::default().with_codebook_sizes(sizes(of)).with_seed(seed);
    agrees("product", error(&rows, recorded.seeds, config), of.error, ERROR);
    let of = &recorded.optimized_product;
    let config = |seed| config(seed).with_codebook_sizes(sizes(of)).with_rotation(Some(RotationConfig::default()));
    agrees("optimized product", error(&rows, recorded.seeds, config), of.error, ERROR);
}

#[test]
fn residual_k_means_reaches_faiss() {
    let recorded: Errors = recorded("errors.json");
    let rows = correlated(&recorded.rows);
    for of in &recorded.residual {
        let beam = of.beam.unwrap();
        let init = if of.progressive { KMeansInit::Progressive } else { KMeansInit::PlusPlus };
        let config = ResidualKMeansConfig::default().with_codebook_sizes(sizes(of)).with_beam(beam).with_init(init);
        let error = error(&rows, recorded.seeds, |seed| config.clone().with_seed(seed));
        agrees(&format!("{init:?}, beam {beam}"), error, of.error, ERROR);
    }
}

#[test]
fn k_means_reaches_scikit_learn() {
    let recorded: Errors = recorded("errors.json");
    let rows = correlated(&recorded.rows);
    for of in &recorded.k_means {
        let from_rows =
            ResidualKMeansConfig::default().with_codebook_sizes([of.clusters]).with_init(KMeansInit::PlusPlus);
        let error = error(&rows, recorded.seeds, |seed| from_rows.clone().with_seed(seed));
        agrees(&format!("{} clusters", of.clusters), error, of.inertia, INERTIA);
    }
}
