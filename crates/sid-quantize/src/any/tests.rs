use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::DType;
use genrec_kernels::{CounterRng, ParamError};
use ndarray::Array2;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::*;
use crate::{
    ArrayRows, CodebookLearning, Composition, Distance, Ema, Estimator, GumbelSoftmax, QuantizeError, RotationConfig,
};

fn rows() -> Array2<f32> {
    let rng = CounterRng::new(1);
    Array2::from_shape_fn((60, 5), |(i, j)| rng.normal_at((i * 5 + j) as u64))
}

/// One of each, for rows of 5 features; all have two levels.
fn configs() -> Vec<QuantizerConfig> {
    vec![
        ResidualKMeansConfig::default().with_codebook_sizes([6, 4]).with_standardize(true).into(),
        RqVaeConfig::default().with_codebook_sizes([6, 4]).with_hidden([7]).with_latent_dim(3).with_epochs(2).into(),
        ProductKMeansConfig::default()
            .with_codebook_sizes([6, 4])
            .with_standardize(true)
            .with_rotation(Some(RotationConfig::default().with_iterations(2)))
            .into(),
        HierarchicalKMeansConfig::default().with_codebook_sizes([6, 4]).with_standardize(true).into(),
        SimHashLshConfig::default().with_bits(3).with_levels(2).into(),
        FsqConfig::default().with_scalars([vec![3, 2], vec![4]]).with_hidden([7]).with_epochs(2).into(),
        RandomIdsConfig::default().with_codebook_sizes([6, 4]).into(),
    ]
}

/// Those whose models hold a codebook a level.
fn with_codebooks() -> Vec<QuantizerConfig> {
    configs().into_iter().filter(|config| tensor_names(config).iter().any(|name| name == "codebooks.1")).collect()
}

fn tensor_names(config: &QuantizerConfig) -> Vec<String> {
    let model = config.fit(&mut ArrayRows::from(rows())).unwrap();
    each!(&model, AnyQuantizer, model => model.tensors()).unwrap().into_keys().collect()
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

/// Type, shape and bytes of tensors by name.
type Weights = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// Replaces the weights by others under a right checksum.
fn reweigh(dir: &Path, change: impl Fn(&mut Weights)) {
    let path = dir.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Weights = file
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
        assert_eq!((loaded.dim(), loaded.codebook_sizes()), (5, model.codebook_sizes()));
        assert_eq!(config.codebook_sizes(), model.codebook_sizes());
        let codes = model.encode_array(rows().view(), 60).unwrap();
        assert_eq!(loaded.encode_array(rows().view(), 7).unwrap(), codes);
        let tensor = Tensor::from_vec(codes.iter().copied().collect::<Vec<_>>(), (60, 2), &Device::Cpu).unwrap();
        let near = |model: &AnyQuantizer| {
            model.as_reconstruct().map(|model| model.reconstruct(&tensor).unwrap().to_vec2::<f32>().unwrap())
        };
        assert_eq!(near(&loaded), near(&model));
        let xs = Tensor::from_vec(rows().into_raw_vec_and_offset().0, (60, 5), &Device::Cpu).unwrap();
        let costs = |model: &AnyQuantizer| model.code_costs(&xs, &[1]).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(costs(&loaded), costs(&model));
        // Saved again, the bytes are the same, and no temporary file is left.
        let before = fs::read(path.join("model.safetensors")).unwrap();
        loaded.save(&path).unwrap();
        assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), before);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2);
    }
}

#[test]
fn every_variant_saves_loads_and_encodes_the_same_codes() {
    let rq_vae =
        || RqVaeConfig::default().with_codebook_sizes([6, 6]).with_hidden([7]).with_latent_dim(4).with_epochs(3);
    let k_means = || ResidualKMeansConfig::default().with_codebook_sizes([6, 4]);
    let variants: [QuantizerConfig; 13] = [
        rq_vae().with_composition(Composition::Partitioned).into(),
        rq_vae().with_shared_codebook(true).into(),
        rq_vae().with_whiten(Some(3)).into(),
        rq_vae().with_distance(Distance::Cosine).into(),
        rq_vae().with_codebook(CodebookLearning::SimVq).with_restart_after(None).into(),
        rq_vae().with_codebook(CodebookLearning::Ema(Ema::default())).into(),
        rq_vae().with_estimator(Estimator::GumbelSoftmax(GumbelSoftmax::default())).into(),
        k_means().with_whiten(Some(3)).with_standardize(true).into(),
        k_means().with_distance(Distance::Cosine).into(),
        k_means().with_beam(3).into(),
        k_means().with_balance(Some(1.0)).into(),
        HierarchicalKMeansConfig::default().with_codebook_sizes([6, 4]).with_distance(Distance::Cosine).into(),
        SimHashLshConfig::default().with_bits(3).with_levels(2).with_whiten(Some(2)).into(),
    ];
    for config in variants {
        let (dir, model) = saved(&config);
        let loaded = AnyQuantizer::load(dir.path().join("quantizer"), &Device::Cpu).unwrap();
        assert_eq!(loaded.config(), config);
        let codes = model.encode_array(rows().view(), 60).unwrap();
        assert_eq!(loaded.encode_array(rows().view(), 60).unwrap(), codes, "{config:?}");
        assert!(codes.iter().any(|&code| code > 0), "{config:?}");
    }
}

#[test]
fn bad_rows_have_typed_errors_whatever_the_quantiser() {
    for config in configs() {
        let fit = |rows: Array2<f32>| config.fit(&mut ArrayRows::from(rows)).map(|model| model.codebook_sizes().len());
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut spoiled = rows();
            spoiled[[17, 3]] = value;
            let error = fit(spoiled).unwrap_err();
            assert!(matches!(error, QuantizeError::RowNotFinite { row: 17, column: 3 }), "{config:?}: {error:?}");
        }
        assert!(matches!(fit(Array2::zeros((0, 5))), Err(QuantizeError::TooFewRows { rows: 0, .. })), "{config:?}");
        let narrow = fit(Array2::zeros((60, 0))).unwrap_err();
        let named = matches!(narrow, QuantizeError::DimMismatch { .. } | QuantizeError::TooFewColumns { .. });
        assert!(named, "{config:?}: {narrow:?}");
        // Rows that are all alike have codes, and the same.
        let model = config.fit(&mut ArrayRows::from(Array2::from_elem((60, 5), 2.5))).unwrap();
        let codes = model.encode_array(Array2::from_elem((60, 5), 2.5).view(), 7).unwrap();
        assert!(codes.outer_iter().all(|row| row == codes.row(0)), "{config:?}");
        // So have rows that occur twice.
        let twice = Array2::from_shape_fn((120, 5), |(i, j)| rows()[[i % 60, j]]);
        let model = config.fit(&mut ArrayRows::from(twice.view())).unwrap();
        let codes = model.encode_array(twice.view(), 120).unwrap();
        assert!((0..60).all(|row| codes.row(row) == codes.row(row + 60)), "{config:?}");
        // One row is enough where there is no codebook to fill, and named where there is.
        match fit(rows().slice(ndarray::s![..1, ..]).to_owned()) {
            Ok(levels) => assert_eq!(levels, 2),
            Err(error) => assert!(matches!(error, QuantizeError::TooFewRows { rows: 1, codes: 6 }), "{error:?}"),
        }
        assert!(model.encode_array(Array2::zeros((2, 4)).view(), 2).is_err(), "{config:?}");
    }
}

#[test]
fn a_lying_configuration_is_found_out() {
    type Change = fn(&mut Value);
    type Check = fn(&QuantizeError) -> bool;
    let cases: [(Change, Check); 7] = [
        (
            |j| j["format_version"] = json!(2),
            |e| matches!(e, QuantizeError::FormatVersion { found: 2, supported: 1, .. }),
        ),
        (|j| j["format_version"] = json!(-1), |e| matches!(e, QuantizeError::Json { .. })),
        (|j| j["surplus"] = json!(0), |e| matches!(e, QuantizeError::Json { .. })),
        (|j| j["quantizer"]["type"] = json!("vq"), |e| matches!(e, QuantizeError::Json { .. })),
        (|j| j["dim"] = json!(0), |e| matches!(e, QuantizeError::InvalidConfig { field: "dim", .. })),
        (|j| j["dim"] = json!(u64::MAX), |e| matches!(e, QuantizeError::InvalidConfig { field: "dim", .. })),
        (|j| j["weights_crc32"] = json!(1), |e| matches!(e, QuantizeError::Checksum { expected: 1, .. })),
    ];
    let of_codebooks: [(Change, Check); 3] = [
        (|j| j["dim"] = json!(6), |e| matches!(e, QuantizeError::Parameters(ParamError::Shape { .. }))),
        (
            |j| j["quantizer"]["codebook_sizes"] = json!([6, 4, 4]),
            // Parts of a product are narrower where there are more of them.
            |e| match e {
                QuantizeError::Parameters(ParamError::Missing { name }) => name == "codebooks.2",
                QuantizeError::Parameters(ParamError::Shape { name, expected, .. }) => {
                    name == "codebooks.0" && expected[..] == [6, 2]
                }
                _ => false,
            },
        ),
        (
            |j| j["quantizer"]["codebook_sizes"] = json!([6]),
            |e| matches!(e, QuantizeError::Parameters(ParamError::Unexpected { name }) if name == "codebooks.1"),
        ),
    ];
    let check = |config: &QuantizerConfig, cases: &[(Change, Check)]| {
        let (dir, model) = saved(config);
        let path = dir.path().join("quantizer");
        for (at, (change, check)) in cases.iter().enumerate() {
            edit(&path, change);
            let error = fails(&path);
            assert!(check(&error), "{config:?}, case {at}: {error:?}");
            model.save(&path).unwrap();
        }
    };
    configs().iter().for_each(|config| check(config, &cases));
    assert!(with_codebooks().len() >= 2);
    with_codebooks().iter().for_each(|config| check(config, &of_codebooks));
    let of_lsh: [(Change, Check); 4] = [
        (|j| j["dim"] = json!(6), |e| matches!(e, QuantizeError::Parameters(ParamError::Shape { .. }))),
        (
            |j| j["quantizer"]["bits"] = json!(4),
            |e| matches!(e, QuantizeError::Parameters(ParamError::Shape { name, .. }) if name == "normals"),
        ),
        (|j| j["quantizer"]["bits"] = json!(33), |e| matches!(e, QuantizeError::InvalidConfig { field: "bits", .. })),
        (
            |j| j["quantizer"]["standardize"] = json!(false),
            |e| matches!(e, QuantizeError::Parameters(ParamError::Unexpected { name }) if name.starts_with("input.")),
        ),
    ];
    check(&SimHashLshConfig::default().with_bits(3).into(), &of_lsh);
}

#[test]
fn lying_weights_are_found_out() {
    for config in configs() {
        let (dir, model) = saved(&config);
        let path = dir.path().join("quantizer");
        reweigh(&path, |tensors| {
            tensors.insert("extra".into(), (Dtype::F32, vec![1], vec![0; 4]));
        });
        assert!(matches!(fails(&path), QuantizeError::Parameters(ParamError::Unexpected { .. })));
        model.save(&path).unwrap();
        for name in tensor_names(&config) {
            let fails = |change: &dyn Fn(&mut Weights)| {
                reweigh(&path, change);
                let error = fails(&path);
                model.save(&path).unwrap();
                error
            };
            let error = fails(&|tensors| drop(tensors.remove(&name)));
            let missing =
                matches!(&error, QuantizeError::Parameters(ParamError::Missing { name: got }) if *got == name);
            assert!(missing, "{config:?}: {error:?}");
            let error = fails(&|tensors| tensors.get_mut(&name).unwrap().1.push(1));
            let shape =
                matches!(&error, QuantizeError::Parameters(ParamError::Shape { name: got, .. }) if *got == name);
            assert!(shape, "{config:?}: {error:?}");
            let error = fails(&|tensors| {
                tensors.get_mut(&name).unwrap().2[..4].copy_from_slice(&f32::NAN.to_le_bytes());
            });
            let value = match &error {
                QuantizeError::Parameters(ParamError::NotFinite { name: got }) => *got == name,
                // Offsets are integers.
                QuantizeError::TreeChildren { level: 1, parent: 0, .. } => name == "children.1",
                _ => false,
            };
            assert!(value, "{config:?}: {error:?}");
            let error = fails(&|tensors| tensors.get_mut(&name).unwrap().0 = Dtype::I32);
            assert!(matches!(&error, QuantizeError::TensorType { name: got, .. } if *got == name), "{error:?}");
            if name == "input.deviation" {
                let error = fails(&|tensors| tensors.get_mut(&name).unwrap().2[..4].fill(0));
                assert!(matches!(error, QuantizeError::InvalidConfig { field: "input.deviation", .. }));
            }
        }
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
    for config in configs() {
        let (_dir, model) = saved(&config);
        assert!(model.encode(&xs).is_err());
        assert!(model.device().is_cpu());
    }
}

mod bytes;

/// Of a row whose distances overflow no code is the nearest.
#[test]
fn costs_that_are_no_numbers_are_refused() {
    let mut refused = 0;
    for config in configs() {
        let model = config.fit(&mut ArrayRows::from(rows())).unwrap();
        let mut xs = rows();
        xs.row_mut(3).fill(f32::MAX);
        let xs = Tensor::from_vec(xs.iter().copied().collect::<Vec<f32>>(), xs.dim(), &Device::Cpu).unwrap();
        match model.code_costs(&xs, &[]) {
            Ok(costs) => {
                assert!(costs.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|cost| !cost.is_nan()));
            }
            // A backtrace follows the message where RUST_BACKTRACE asks for one.
            Err(error) => {
                let message = error.to_string();
                assert!(message.starts_with(&QuantizeError::RowTooLarge { row: 3 }.to_string()), "{message}");
                refused += 1;
            }
        }
    }
    assert!(refused > 2, "{refused}");
}
