use ndarray::{Array2, array};

use super::*;
use crate::usage::{CodeReport, encode_rows, reconstruction_error};
use crate::{ArrayRows, Distance, KMeansInit, QuantizeError};

fn noise(rows: usize, dim: usize, seed: u64) -> Array2<f32> {
    let rng = CounterRng::new(seed);
    Array2::from_shape_fn((rows, dim), |(i, j)| rng.normal_at((i * dim + j) as u64) * (1.0 + j as f32))
}

fn small() -> ResidualKMeansConfig {
    ResidualKMeansConfig::default().with_codebook_sizes([12, 10, 8]).with_iterations(20)
}

fn bytes(model: &ResidualKMeans) -> Vec<f32> {
    model.tensors().unwrap().values().flat_map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
}

#[test]
fn every_level_lowers_the_error() {
    let rows = noise(900, 6, 1);
    let mut last = f64::INFINITY;
    for levels in 1..=3 {
        let config = small().with_codebook_sizes(&[16, 16, 16][..levels]);
        let model = config.fit(&mut ArrayRows::from(rows.view())).unwrap();
        let error = reconstruction_error(&model, &mut ArrayRows::from(rows.view())).unwrap();
        assert!(error.mean_squared < 0.8 * last, "{levels} levels: {error:?}");
        last = error.mean_squared;
    }
}

#[test]
fn centroids_are_means_of_residuals() {
    let rows = noise(400, 4, 2);
    let model = small().with_tolerance(0.0).with_iterations(500).fit(&mut ArrayRows::from(rows.view())).unwrap();
    let codes = encode_rows(&model, &mut ArrayRows::from(rows.view()), 64).unwrap();
    let mut residual = rows;
    for (level, book) in model.codebooks().iter().enumerate() {
        let book = book.to_vec2::<f32>().unwrap();
        for (code, centroid) in book.iter().enumerate() {
            let members: Vec<_> = (0..400).filter(|&row| codes[[row, level]] as usize == code).collect();
            for (column, x) in centroid.iter().enumerate() {
                let mean = members.iter().map(|&row| residual[[row, column]]).sum::<f32>() / members.len() as f32;
                assert!((mean - x).abs() < 1e-3, "level {level} code {code}: {mean} {x}");
            }
        }
        for (row, mut x) in residual.outer_iter_mut().enumerate() {
            x -= &ndarray::ArrayView1::from(&book[codes[[row, level]] as usize]);
        }
    }
    assert_eq!(CodeReport::of(codes.view(), &[12, 10, 8]).unwrap().levels[0].used, 12);
}

#[test]
fn standardised_features_count_alike() {
    // The last two features decide the groups, the first is a thousand times louder and says nothing.
    let rng = CounterRng::new(3);
    let rows = Array2::from_shape_fn((200, 3), |(i, j)| {
        if j == 0 {
            1000.0 * rng.f32_at(i as u64)
        } else {
            (i % 2) as f32 * 10.0 + 0.01 * rng.normal_at((i * 3 + j) as u64)
        }
    });
    let config = ResidualKMeansConfig::default().with_codebook_sizes([2]).with_standardize(true);
    let model = config.fit(&mut ArrayRows::from(rows.view())).unwrap();
    let codes = model.encode_array(rows.view(), 50).unwrap();
    assert!((2..200).all(|row| codes[[row, 0]] == codes[[row % 2, 0]]));
    assert_ne!(codes[[0, 0]], codes[[1, 0]]);
    let near = model.reconstruct(&Tensor::new(&[[codes[[0, 0]]]], &Device::Cpu).unwrap()).unwrap();
    let near = near.to_vec2::<f32>().unwrap();
    assert!((near[0][0] - 500.0).abs() < 100.0 && near[0][1].abs() < 0.1, "{near:?}");
    let loud = config.with_standardize(false).fit(&mut ArrayRows::from(rows.view())).unwrap();
    let codes = loud.encode_array(rows.view(), 50).unwrap();
    assert!((2..200).any(|row| codes[[row, 0]] != codes[[row % 2, 0]]));
}

#[test]
fn one_seed_gives_one_model_at_any_number_of_threads() {
    let rows = noise(3000, 9, 4);
    let fit = |seed: u64, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        bytes(&pool.install(|| small().with_seed(seed).fit(&mut ArrayRows::from(rows.view()))).unwrap())
    };
    let one = fit(1, 1);
    assert!(one == fit(1, 1));
    assert!(one == fit(1, 2));
    assert!(one != fit(2, 2));
}

#[test]
fn a_fit_that_is_ended_is_still_a_model() {
    struct Once(usize);
    impl FitControl for Once {
        fn on_epoch(&mut self, epoch: &EpochReport) -> ControlFlow<()> {
            self.0 += 1;
            assert_eq!((epoch.epoch, epoch.epochs, epoch.level), (1, 60, Some(0)));
            ControlFlow::Break(())
        }
    }
    let rows = noise(300, 4, 5);
    let mut watch = Once(0);
    let model = small().fit_with(&mut ArrayRows::from(rows.view()), &mut watch).unwrap();
    assert_eq!(watch.0, 1);
    assert_eq!(model.encode_array(rows.view(), 100).unwrap().dim(), (300, 3));
}

#[test]
fn bad_rows_and_fields_have_their_errors() {
    let fit = |config: ResidualKMeansConfig, rows: Array2<f32>| config.fit(&mut ArrayRows::from(rows)).map(|_| ());
    assert!(matches!(fit(small(), noise(11, 4, 0)), Err(QuantizeError::TooFewRows { rows: 11, codes: 12 })));
    assert!(matches!(fit(small(), Array2::zeros((20, 0))), Err(QuantizeError::DimMismatch { .. })));
    let mut rows = noise(30, 4, 0);
    rows[[29, 0]] = f32::NEG_INFINITY;
    for standardize in [false, true] {
        let result = fit(small().with_standardize(standardize), rows.clone());
        assert!(matches!(result, Err(QuantizeError::RowNotFinite { row: 29, column: 0 })));
    }
    for (config, name) in [
        (small().with_iterations(0), "iterations"),
        (small().with_tolerance(f64::NAN), "tolerance"),
        (small().with_batch_rows(Some(11)), "batch_rows"),
        (small().with_whiten(Some(0)), "whiten"),
        (small().with_whiten(Some(5)), "whiten"),
        (small().with_balance(Some(0.9)), "balance"),
        (small().with_beam(0), "beam"),
        (small().with_beam(2000), "beam"),
        (small().with_codebook_sizes([1 << 16]).with_beam(1000), "beam"),
        (small().with_beam(2).with_distance(Distance::Cosine), "beam"),
        (small().with_codebook_sizes(vec![2; 65]), "codebook_sizes"),
        (small().with_codebook_sizes([1 << 21]), "codebook_sizes"),
    ] {
        assert!(
            matches!(fit(config, noise(30, 4, 0)), Err(QuantizeError::InvalidConfig { field, .. }) if field == name)
        );
    }
}

#[test]
fn rows_of_another_width_are_refused() {
    let model = small().fit(&mut ArrayRows::from(noise(100, 4, 6))).unwrap();
    assert!(model.encode(&Tensor::zeros((3, 5), candle_core::DType::F32, &Device::Cpu).unwrap()).is_err());
    assert!(model.encode_array(array![[0.0_f32; 3]].view(), 1).is_err());
    let wrong = Tensor::new(&[[0_u32, 10, 0]], &Device::Cpu).unwrap();
    assert!(model.reconstruct(&wrong).is_err());
}

#[test]
fn every_option_changes_the_codes_or_the_centroids() {
    type Change = fn(ResidualKMeansConfig) -> ResidualKMeansConfig;
    let rows = noise(600, 6, 7);
    let outcome = |config: ResidualKMeansConfig| {
        let model = config.fit(&mut ArrayRows::from(rows.view())).unwrap();
        (bytes(&model), model.encode_array(rows.view(), 100).unwrap())
    };
    let changes: [(&str, Change); 14] = [
        ("codebook sizes", |c| c.with_codebook_sizes([12, 10, 9])),
        ("iterations", |c| c.with_iterations(2)),
        ("tolerance", |c| c.with_tolerance(0.1)),
        ("batch rows", |c| c.with_batch_rows(Some(100))),
        ("points", |c| c.with_init(KMeansInit::Points)),
        ("plus plus", |c| c.with_init(KMeansInit::PlusPlus)),
        ("random", |c| c.with_init(KMeansInit::Random)),
        ("init rows", |c| c.with_init_rows(50)),
        ("standardize", |c| c.with_standardize(true)),
        ("whiten", |c| c.with_whiten(Some(4))),
        ("cosine", |c| c.with_distance(Distance::Cosine)),
        ("balance", |c| c.with_balance(Some(1.0))),
        ("beam", |c| c.with_beam(4)),
        ("seed", |c| c.with_seed(1)),
    ];
    let plain = outcome(small());
    for (name, change) in changes {
        assert!(outcome(change(small())) != plain, "{name} changes nothing");
    }
}

#[test]
fn a_beam_lowers_the_error_and_balance_evens_out_the_use_of_codes() {
    let rows = noise(900, 6, 8);
    let fit = |config: ResidualKMeansConfig| config.fit(&mut ArrayRows::from(rows.view())).unwrap();
    let error =
        |model: &ResidualKMeans| reconstruction_error(model, &mut ArrayRows::from(rows.view())).unwrap().mean_squared;
    assert!(error(&fit(small().with_beam(8))) < 0.97 * error(&fit(small())));
    let perplexity = |model: &ResidualKMeans| {
        let codes = encode_rows(model, &mut ArrayRows::from(rows.view()), 64).unwrap();
        CodeReport::of(codes.view(), &[12, 10, 8]).unwrap().levels[0].perplexity
    };
    assert!(perplexity(&fit(small().with_balance(Some(1.0)))) > perplexity(&fit(small())));
}

#[test]
fn constant_and_repeated_rows_have_codes_and_no_error() {
    let constant = small().fit(&mut ArrayRows::from(Array2::ones((40, 3)))).unwrap();
    let error = reconstruction_error(&constant, &mut ArrayRows::from(Array2::ones((40, 3)))).unwrap();
    assert_eq!(error.mean_squared, 0.0);
    // Twelve different rows, ten times each: one code for each.
    let twelve = noise(12, 3, 9);
    let rows = Array2::from_shape_fn((120, 3), |(i, j)| twelve[[i % 12, j]]);
    let model = small().with_iterations(50).fit(&mut ArrayRows::from(rows.view())).unwrap();
    let codes = model.encode_array(rows.view(), 120).unwrap();
    assert!((12..120).all(|row| codes.row(row) == codes.row(row % 12)));
    let single = small().with_codebook_sizes([1, 1]).fit(&mut ArrayRows::from(noise(1, 3, 1))).unwrap();
    assert_eq!(single.encode_array(noise(1, 3, 1).view(), 1).unwrap(), array![[0, 0]]);
}
