//! Rows that no embedder should make, through every quantiser.

use std::collections::BTreeSet;

use candle_core::{Device, Tensor};
use genrec::quantize::{
    AnyQuantizer, ArrayRows, Distance, Fit, FsqConfig, HierarchicalKMeansConfig, ProductKMeansConfig, QuantizeError,
    Quantizer, QuantizerConfig, RandomIdsConfig, RankCodes, ResidualKMeansConfig, RqVaeConfig, SimHashLshConfig,
};
use ndarray::Array2;

const DIM: usize = 6;

fn sane() -> Array2<f32> {
    Array2::from_shape_fn((40, DIM), |(row, column)| ((row * 7 + column * 5) % 23) as f32 / 23.0 - 0.5)
}

fn rows() -> Vec<(&'static str, Array2<f32>)> {
    let with = |value: f32| {
        let mut rows = sane();
        rows[[13, 4]] = value;
        rows
    };
    let scaled = |by: f32| sane().mapv(|value| value * by);
    vec![
        ("a NaN", with(f32::NAN)),
        ("an infinity", with(f32::INFINITY)),
        ("a negative infinity", with(f32::NEG_INFINITY)),
        ("one 1e30", with(1e30)),
        ("one f32::MAX", with(f32::MAX)),
        ("one f32::MIN", with(f32::MIN)),
        ("denormals", scaled(1e-40)),
        ("1e18", scaled(1e18)),
        ("1e30", scaled(1e30)),
        ("f32::MAX", scaled(f32::MAX)),
        ("1e30 beside 1e-30", Array2::from_shape_fn((40, DIM), |at| sane()[at] * [1e30, 1e-30][at.1 % 2])),
        ("no row", Array2::zeros((0, DIM))),
        ("one row", sane().slice(ndarray::s![..1, ..]).to_owned()),
        ("all equal", Array2::from_elem((40, DIM), 0.3)),
        ("zeros", Array2::zeros((40, DIM))),
        ("no column", Array2::zeros((40, 0))),
    ]
}

fn quantizers() -> Vec<QuantizerConfig> {
    let rq_vae = RqVaeConfig::default().with_hidden([8]).with_latent_dim(4).with_codebook_sizes([4, 4]);
    let rq_vae = rq_vae.with_batch_size(16).with_epochs(3);
    let residual = ResidualKMeansConfig::default().with_codebook_sizes([4, 4]).with_iterations(5);
    let tree = HierarchicalKMeansConfig::default().with_codebook_sizes([4, 4]).with_iterations(5);
    let product = ProductKMeansConfig::default().with_codebook_sizes([4, 4]).with_iterations(5);
    vec![
        rq_vae.clone().into(),
        rq_vae.clone().with_standardize(false).into(),
        rq_vae.with_whiten(Some(3)).into(),
        residual.clone().into(),
        residual.clone().with_standardize(true).into(),
        residual.clone().with_whiten(Some(3)).into(),
        residual.clone().with_distance(Distance::Cosine).into(),
        residual.clone().with_balance(Some(1.5)).into(),
        residual.with_batch_rows(Some(16)).into(),
        tree.clone().into(),
        tree.with_whiten(Some(3)).into(),
        product.into(),
        SimHashLshConfig::default().into(),
        FsqConfig::default().with_hidden([8]).with_batch_size(16).with_epochs(3).into(),
        RandomIdsConfig::default().into(),
    ]
}

/// Codes of rows, and all that a quantiser says of them: numbers wherever it gives numbers.
fn check(quantizer: &AnyQuantizer, rows: &Array2<f32>, name: &str) {
    let sizes = quantizer.codebook_sizes();
    let codes = match quantizer.encode_array(rows.view(), 16) {
        Ok(codes) => codes,
        Err(error) => {
            let refused = rows.iter().any(|value| !value.is_finite()) || rows.ncols() != DIM;
            assert!(refused, "{name}: {error}");
            return;
        }
    };
    assert!(codes.rows().into_iter().all(|row| row.iter().zip(sizes).all(|(code, size)| code < size)), "{name}");
    if codes.is_empty() {
        return;
    }
    let shape = codes.dim();
    let codes = Tensor::from_vec(codes.into_iter().collect::<Vec<u32>>(), shape, &Device::Cpu).unwrap();
    if let Some(decoder) = quantizer.as_reconstruct() {
        let back = decoder.reconstruct(&codes).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(back.iter().all(|value| value.is_finite()), "{name}: codes were mapped back to no number");
    }
    let xs = Tensor::from_vec(rows.iter().copied().collect::<Vec<f32>>(), rows.dim(), &Device::Cpu).unwrap();
    match quantizer.code_costs(&xs, &[]) {
        Ok(costs) => {
            let costs = costs.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(costs.iter().all(|cost| !cost.is_nan()), "{name}: a code costs no number");
        }
        Err(error) => assert!(error.to_string().contains("its distances are no numbers"), "{name}: {error}"),
    }
}

#[test]
fn rows_of_any_value_are_refused_or_coded() {
    let dir = tempfile::tempdir().unwrap();
    let (mut fitted, mut refused) = (0, BTreeSet::new());
    for (number, config) in quantizers().into_iter().enumerate() {
        let sane = config.fit(&mut ArrayRows::from(sane().view())).unwrap();
        for (what, rows) in rows() {
            let name = format!("quantiser {number}, {what}");
            check(&sane, &rows, &name);
            match config.fit(&mut ArrayRows::from(rows.view())) {
                Ok(model) => {
                    fitted += 1;
                    // Which looks for weights that are no numbers.
                    model.save(dir.path()).unwrap();
                    check(&AnyQuantizer::load(dir.path(), &Device::Cpu).unwrap(), &rows, &name);
                }
                Err(QuantizeError::Tensor(error)) => panic!("{name}: {error}"),
                Err(error) => {
                    let variant = format!("{error:?}");
                    refused.insert(variant.split([' ', '(']).next().unwrap_or_default().to_owned());
                }
            }
        }
    }
    eprintln!("{fitted} quantisers of such rows were fitted, others refused as {refused:?}");
}
