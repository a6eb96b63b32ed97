use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::DType;
use genrec_kernels::{CounterRng, ParamError};
use ndarray::Array2;
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::*;
use crate::{ArrayRows, QuantizeError};

fn rows() -> Array2<f32> {
    let rng = CounterRng::new(1);
    Array2::from_shape_fn((60, 5), |(i, j)| rng.normal_at((i * 5 + j) as u64))
}

fn configs() -> [QuantizerConfig; 3] {
    [
        ResidualKMeansConfig::default().with_codebook_sizes([6, 4]).with_standardize(true).into(),
        RqVaeConfig::default().with_codebook_sizes([6, 4]).with_hidden([7]).with_latent_dim(3).with_epochs(2).into(),
        HierarchicalKMeansConfig::default().with_codebook_sizes([6, 4]).with_standardize(true).into(),
    ]
}

/// The tensor of a level's codewords.
fn words(config: &QuantizerConfig, level: usize) -> String {
    match config {
        QuantizerConfig::HierarchicalKMeans(_) => format!("nodes.{level}"),
        _ => format!("codebooks.{level}"),
    }
}

fn saved(config: &QuantizerConfig) -> (tempfile::TempDir, AnyQuantizer) {
    let model = config.fit(&mut ArrayRows::from(rows())).unwrap();
    let dir = tempfile::tempdir().unwrap();
    model.save(dir.path().join("quantizer")).unwrap();
    (dir, model)
}

fn edit(dir: &Path, change: impl Fn(&mut Value)) {
    let path = dir.join("config.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// Replaces the weights by others under a right checksum.
fn reweigh(dir: &Path, change: impl Fn(&mut BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>)) {
    let path = dir.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: BTreeMap<_, _> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(n, (t, s, d))| (n, TensorView::new(*t, s.clone(), d).unwrap()));
    let bytes = safetensors::serialize(views, None).unwrap();
    edit(dir, |json| json["weights_crc32"] = crc32fast::hash(&bytes).into());
    fs::write(path, bytes).unwrap();
}

fn fails(dir: &Path) -> QuantizeError {
    AnyQuantizer::load(dir, &Device::Cpu).map(|_| ()).unwrap_err()
}

#[test]
fn models_round_trip() {
    for config in configs() {
        let (dir, model) = saved(&config);
        let path = dir.path().join("quantizer");
        let loaded = AnyQuantizer::load(&path, &Device::Cpu).unwrap();
        assert_eq!(loaded.config(), config);
        assert_eq!((loaded.dim(), loaded.codebook_sizes()), (5, &[6, 4][..]));
        let codes = model.encode_array(rows().view(), 60).unwrap();
        assert_eq!(loaded.encode_array(rows().view(), 7).unwrap(), codes);
        let tensor = Tensor::from_vec(codes.iter().copied().collect::<Vec<_>>(), (60, 2), &Device::Cpu).unwrap();
        let near = |model: &AnyQuantizer| {
            model.as_reconstruct().unwrap().reconstruct(&tensor).unwrap().to_vec2::<f32>().unwrap()
        };
        assert_eq!(near(&loaded), near(&model));
        // Saved again, the bytes are the same, and no temporary file is left.
        let before = fs::read(path.join("model.safetensors")).unwrap();
        loaded.save(&path).unwrap();
        assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), before);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2);
    }
}

#[test]
fn a_lying_configuration_is_found_out() {
    type Change = fn(&mut Value);
    type Check = fn(&QuantizeError) -> bool;
    let cases: [(Change, Check); 10] = [
        (
            |j| j["format_version"] = json!(2),
            |e| matches!(e, QuantizeError::FormatVersion { found: 2, supported: 1, .. }),
        ),
        (|j| j["format_version"] = json!(-1), |e| matches!(e, QuantizeError::Json { .. })),
        (|j| j["surplus"] = json!(0), |e| matches!(e, QuantizeError::Json { .. })),
        (|j| j["quantizer"]["type"] = json!("vq"), |e| matches!(e, QuantizeError::Json { .. })),
        (|j| j["dim"] = json!(0), |e| matches!(e, QuantizeError::InvalidConfig { field: "dim", .. })),
        (|j| j["dim"] = json!(u64::MAX), |e| matches!(e, QuantizeError::InvalidConfig { field: "dim", .. })),
        (|j| j["dim"] = json!(6), |e| matches!(e, QuantizeError::Parameters(ParamError::Shape { .. }))),
        (
            |j| j["quantizer"]["codebook_sizes"] = json!([6, 4, 4]),
            |e| matches!(e, QuantizeError::Parameters(ParamError::Missing { name }) if name.ends_with(".2")),
        ),
        (
            |j| j["quantizer"]["codebook_sizes"] = json!([6]),
            |e| matches!(e, QuantizeError::Parameters(ParamError::Unexpected { name }) if name.ends_with(".1")),
        ),
        (|j| j["weights_crc32"] = json!(1), |e| matches!(e, QuantizeError::Checksum { expected: 1, .. })),
    ];
    for config in configs() {
        let (dir, model) = saved(&config);
        let path = dir.path().join("quantizer");
        for (at, (change, check)) in cases.iter().enumerate() {
            edit(&path, change);
            let error = fails(&path);
            assert!(check(&error), "case {at}: {error:?}");
            model.save(&path).unwrap();
        }
    }
}

#[test]
fn lying_weights_are_found_out() {
    for config in configs() {
        let (dir, model) = saved(&config);
        let path = dir.path().join("quantizer");
        reweigh(&path, |tensors| {
            tensors.remove(&words(&config, 1));
        });
        assert!(matches!(fails(&path), QuantizeError::Parameters(ParamError::Missing { .. })));
        model.save(&path).unwrap();
        reweigh(&path, |tensors| {
            tensors.insert("extra".into(), (Dtype::F32, vec![1], vec![0; 4]));
        });
        assert!(matches!(fails(&path), QuantizeError::Parameters(ParamError::Unexpected { .. })));
        model.save(&path).unwrap();
        reweigh(&path, |tensors| tensors.get_mut(&words(&config, 0)).unwrap().1.reverse());
        assert!(matches!(fails(&path), QuantizeError::Parameters(ParamError::Shape { .. })));
        model.save(&path).unwrap();
        reweigh(&path, |tensors| {
            tensors.get_mut(&words(&config, 0)).unwrap().2[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        });
        assert!(matches!(fails(&path), QuantizeError::Parameters(ParamError::NotFinite { .. })));
        model.save(&path).unwrap();
        reweigh(&path, |tensors| tensors.get_mut(&words(&config, 0)).unwrap().0 = Dtype::I32);
        assert!(matches!(fails(&path), QuantizeError::TensorType { .. }));
        model.save(&path).unwrap();
        reweigh(&path, |tensors| tensors.get_mut("input.deviation").unwrap().2[..4].fill(0));
        assert!(matches!(fails(&path), QuantizeError::InvalidConfig { field: "input.deviation", .. }));
    }
}

#[test]
fn missing_and_oversized_files_are_refused() {
    let (dir, model) = saved(&configs()[0]);
    let path = dir.path().join("quantizer");
    fs::write(path.join("model.safetensors"), vec![0; 2 << 20]).unwrap();
    assert!(matches!(fails(&path), QuantizeError::FileSize { .. }));
    fs::remove_file(path.join("model.safetensors")).unwrap();
    assert!(matches!(fails(&path), QuantizeError::Io { .. }));
    assert!(matches!(fails(dir.path()), QuantizeError::Io { .. }));
    let in_the_way = dir.path().join("file");
    fs::write(&in_the_way, "").unwrap();
    assert!(matches!(model.save(&in_the_way), Err(QuantizeError::Io { .. })));
}

#[test]
fn the_default_is_the_papers_size() {
    let config = QuantizerConfig::default();
    config.validate().unwrap();
    assert_eq!(config.codebook_sizes(), [256, 256, 256]);
    let xs = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
    let (_dir, model) = saved(&configs()[0]);
    assert!(model.encode(&xs).is_err());
    assert!(model.device().is_cpu());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(288))]

    #[test]
    fn arbitrary_bytes_never_panic(
        model in 0_usize..3,
        which in 0_usize..3,
        junk in prop::collection::vec(any::<u8>(), 0..80),
        at in 0_usize..4000,
    ) {
        // Fitting once is enough; the files are copied for each case.
        static FILES: std::sync::OnceLock<[(Vec<u8>, Vec<u8>); 3]> = std::sync::OnceLock::new();
        let files = FILES.get_or_init(|| {
            configs().map(|config| {
                let (dir, _) = saved(&config);
                let path = dir.path().join("quantizer");
                (fs::read(path.join("config.json")).unwrap(), fs::read(path.join("model.safetensors")).unwrap())
            })
        });
        let (config, weights) = &files[model];
        let (mut config, mut weights) = (config.clone(), weights.clone());
        match which {
            0 => config = junk.clone(),
            1 => {
                let at = at % config.len();
                let end = (at + junk.len()).min(config.len());
                config.splice(at..end, junk.iter().copied());
            }
            _ => {
                let at = at % weights.len();
                let end = (at + junk.len()).min(weights.len());
                weights.splice(at..end, junk.iter().copied());
                let mut json: Value = serde_json::from_slice(&config).unwrap();
                json["weights_crc32"] = crc32fast::hash(&weights).into();
                config = json.to_string().into_bytes();
            }
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), &config).unwrap();
        fs::write(dir.path().join("model.safetensors"), &weights).unwrap();
        if let Ok(model) = AnyQuantizer::load(dir.path(), &Device::Cpu) {
            // What loads must also work.
            prop_assert!(model.encode_array(Array2::zeros((2, model.dim())).view(), 2).is_ok());
        }
    }
}
