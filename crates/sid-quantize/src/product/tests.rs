use ndarray::{Array2, s};

mod inputs;

use super::*;
use crate::usage::{encode_rows, reconstruction_error};
use crate::{ArrayRows, Distance, KMeansInit, QuantizeError};

/// Features of all columns that a few hidden ones make, each with a little noise of its own.
fn correlated(rows: usize, dim: usize, seed: u64) -> Array2<f32> {
    let rng = CounterRng::new(seed);
    let hidden = 4;
    Array2::from_shape_fn((rows, dim), |(i, j)| {
        let shared: f32 = (0..hidden)
            .map(|h| rng.normal_at((i * hidden + h) as u64) * CounterRng::new(99).normal_at((j * hidden + h) as u64))
            .sum();
        shared + 0.2 * rng.named("noise").normal_at((i * dim + j) as u64)
    })
}

fn small() -> ProductKMeansConfig {
    ProductKMeansConfig::default().with_codebook_sizes([12, 10, 8]).with_iterations(20)
}

fn rotated() -> ProductKMeansConfig {
    small().with_rotation(Some(RotationConfig::default().with_iterations(8)))
}

fn fit(config: &ProductKMeansConfig, rows: &Array2<f32>) -> Result<ProductKMeans> {
    config.fit(&mut ArrayRows::from(rows.view()))
}

fn error(config: &ProductKMeansConfig, rows: &Array2<f32>) -> f64 {
    let model = fit(config, rows).unwrap();
    reconstruction_error(&model, &mut ArrayRows::from(rows.view())).unwrap().mean_squared
}

fn bytes(model: &ProductKMeans) -> Vec<f32> {
    model.tensors().unwrap().values().flat_map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
}

/// The rows in the space of the codebooks.
fn prepared(model: &ProductKMeans, rows: &Array2<f32>) -> Array2<f32> {
    let tensors = model.tensors().unwrap();
    let Some(forward) = tensors.get("input.projection") else { return rows.clone() };
    let forward = Array2::from_shape_vec(forward.dims2().unwrap(), forward.flatten_all().unwrap().to_vec1().unwrap());
    let offset = tensors["input.offset"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    rows.dot(&forward.unwrap()) + &ndarray::Array1::from(offset)
}

#[test]
fn codes_are_the_nearest_of_each_part() {
    let rows = correlated(400, 8, 1);
    for config in [small(), rotated(), rotated().with_whiten(Some(7))] {
        let model = fit(&config, &rows).unwrap();
        let codes = encode_rows(&model, &mut ArrayRows::from(rows.view()), 64).unwrap();
        let features = prepared(&model, &rows);
        // Eight columns in three parts are 3, 3, 2; seven are 3, 2, 2.
        let widths = if config.whiten.is_some() { [3, 2, 2] } else { [3, 3, 2] };
        let mut first = 0;
        for (level, (book, width)) in model.codebooks().iter().zip(widths).enumerate() {
            let book = book.to_vec2::<f32>().unwrap();
            let part = features.slice(s![.., first..first + width]);
            first += width;
            for (row, &code) in part.outer_iter().zip(codes.column(level)) {
                let distance = |word: &Vec<f32>| {
                    assert_eq!(word.len(), width);
                    row.iter().zip(word).map(|(x, w)| f64::from(x - w).powi(2)).sum::<f64>()
                };
                let best = book.iter().map(distance).fold(f64::INFINITY, f64::min);
                assert!(distance(&book[code as usize]) <= best + 1e-4, "level {level}");
            }
        }
        assert_eq!(first, features.ncols());
    }
}

#[test]
fn more_codes_lower_the_error() {
    let rows = correlated(900, 6, 2);
    for rotation in [None, Some(RotationConfig::default().with_iterations(5))] {
        let mut last = f64::INFINITY;
        for codes in [2, 8, 32] {
            let config = small().with_codebook_sizes([codes; 3]).with_rotation(rotation.clone());
            let error = error(&config, &rows);
            assert!(error < 0.8 * last, "{codes} codes: {error}, fewer {last}");
            last = error;
        }
    }
}

#[test]
fn centroids_are_means_of_their_rows() {
    let rows = correlated(400, 6, 3);
    let model = fit(&rotated().with_tolerance(0.0).with_iterations(500), &rows).unwrap();
    let codes = model.encode_array(rows.view(), 64).unwrap();
    let features = prepared(&model, &rows);
    for (level, book) in model.codebooks().iter().enumerate() {
        for (code, centroid) in book.to_vec2::<f32>().unwrap().iter().enumerate() {
            let members: Vec<_> = (0..400).filter(|&row| codes[[row, level]] as usize == code).collect();
            for (column, x) in centroid.iter().enumerate() {
                let sum: f32 = members.iter().map(|&row| features[[row, 2 * level + column]]).sum();
                assert!((sum / members.len() as f32 - x).abs() < 1e-3, "level {level} code {code}");
            }
        }
    }
}

#[test]
fn the_rotation_is_orthogonal_and_lowers_the_error() {
    for (seed, dim, share) in [(4, 12, 0.9), (5, 7, 0.95), (6, 3, 0.99)] {
        let rows = correlated(600, dim, seed) + 3.0;
        let model = fit(&rotated(), &rows).unwrap();
        let rotation = model.tensors().unwrap()["input.projection"].clone();
        let product = rotation.t().unwrap().matmul(&rotation).unwrap().to_vec2::<f32>().unwrap();
        for (i, row) in product.iter().enumerate() {
            for (j, x) in row.iter().enumerate() {
                assert!((x - f32::from(u8::from(i == j))).abs() < 1e-4, "{i} {j} {x}");
            }
        }
        let (with, without) = (error(&rotated(), &rows), error(&small(), &rows));
        assert!(with < share * without, "{dim} columns: {with} against {without}");
    }
}

#[test]
fn a_rotation_makes_up_for_the_order_of_the_columns() {
    let rows = correlated(800, 9, 7);
    let swapped = Array2::from_shape_fn((800, 9), |(i, j)| rows[[i, j * 2 % 9]]);
    let config = rotated().with_rotation(Some(RotationConfig::default()));
    let (a, b) = (error(&config, &rows), error(&config, &swapped));
    assert!((a - b).abs() < 0.1 * a, "{a} {b}");
}

#[test]
fn every_option_changes_the_model() {
    let rows = correlated(500, 6, 8) * 2.0;
    let rotation =
        |change: fn(RotationConfig) -> RotationConfig| rotated().with_rotation(rotated().rotation.map(change));
    // Few iterations, so that none is superfluous.
    let brief = rotated().with_rotation(Some(RotationConfig::default().with_iterations(1)));
    for base in [small(), brief] {
        let model = bytes(&fit(&base, &rows).unwrap());
        for (name, other) in [
            ("codebook_sizes", base.clone().with_codebook_sizes([12, 10, 9])),
            ("iterations", base.clone().with_iterations(1)),
            ("tolerance", base.clone().with_tolerance(0.9)),
            ("batch_rows", base.clone().with_batch_rows(Some(40))),
            ("init", base.clone().with_init(KMeansInit::Points)),
            ("init_rows", base.clone().with_init_rows(100)),
            ("standardize", base.clone().with_standardize(true)),
            ("whiten", base.clone().with_whiten(Some(4))),
            ("rotation", base.clone().with_rotation(Some(RotationConfig::default().with_iterations(2)))),
            ("distance", base.clone().with_rotation(None).with_distance(Distance::Cosine)),
            ("balance", base.clone().with_balance(Some(1.0))),
            ("seed", base.clone().with_seed(1)),
        ] {
            assert!(bytes(&fit(&other, &rows).unwrap()) != model, "{name}");
        }
    }
    let angles = rotated().with_distance(Distance::Cosine);
    assert!(matches!(fit(&angles, &rows), Err(QuantizeError::InvalidConfig { field: "rotation", .. })));
    let model = bytes(&fit(&rotated(), &rows).unwrap());
    assert!(bytes(&fit(&rotation(|r| r.with_iterations(1)), &rows).unwrap()) != model);
    assert!(bytes(&fit(&rotation(|r| r.with_rows(100)), &rows).unwrap()) != model);
    assert!(bytes(&fit(&rotation(|r| r.with_rows(500)), &rows).unwrap()) == model);
}

#[test]
fn one_seed_gives_one_model_at_any_number_of_threads() {
    let rows = correlated(3000, 9, 9);
    for config in [small(), rotated()] {
        let fit = |seed: u64, threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            bytes(&pool.install(|| fit(&config.clone().with_seed(seed), &rows)).unwrap())
        };
        let one = fit(1, 1);
        assert!(one == fit(1, 1));
        assert!(one == fit(1, 2));
        assert!(one != fit(2, 2));
    }
}

/// Breaks at an iteration, and keeps what it was told.
struct Until(usize, Vec<EpochReport>);

impl FitControl for Until {
    fn on_epoch(&mut self, epoch: &EpochReport) -> ControlFlow<()> {
        self.1.push(epoch.clone());
        if self.1.len() < self.0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

#[test]
fn a_fit_that_is_ended_is_still_a_model() {
    let rows = correlated(300, 4, 10);
    for (config, end, level) in [(small(), 1, Some(0)), (rotated(), 3, None), (rotated(), 9, Some(0))] {
        let mut watch = Until(end, Vec::new());
        let model = config.fit_with(&mut ArrayRows::from(rows.view()), &mut watch).unwrap();
        let last = watch.1.last().unwrap();
        let epochs = 60 + config.rotation.as_ref().map_or(0, |rotation| rotation.iterations);
        assert_eq!((watch.1.len(), last.epoch, last.epochs, last.level), (end, end, epochs, level));
        assert_eq!(last.used.len(), if level.is_none() { 3 } else { 1 });
        let error = reconstruction_error(&model, &mut ArrayRows::from(rows.view())).unwrap();
        assert!(error.relative < 0.5, "{error:?}");
    }
}

#[test]
fn reports_are_of_every_part_and_their_errors_add_up() {
    let rows = correlated(500, 6, 11);
    for config in [small(), rotated()] {
        let mut watch = Until(usize::MAX, Vec::new());
        let model = config.fit_with(&mut ArrayRows::from(rows.view()), &mut watch).unwrap();
        let error = reconstruction_error(&model, &mut ArrayRows::from(rows.view())).unwrap().mean_squared;
        let last = |level| watch.1.iter().rfind(|epoch| epoch.level == level).map(|epoch| epoch.reconstruction);
        let sum: f64 = (0..3).map(|level| last(Some(level)).unwrap()).sum();
        assert!((sum - error).abs() < 1e-3 * error, "{sum} {error}");
        assert!(watch.1.iter().zip(1..).all(|(report, epoch)| report.epoch == epoch));
        let rounds: Vec<f64> =
            watch.1.iter().filter(|epoch| epoch.level.is_none()).map(|epoch| epoch.reconstruction).collect();
        assert_eq!(rounds.len(), config.rotation.as_ref().map_or(0, |rotation| rotation.iterations));
        // Each of the two steps lowers the error.
        assert!(rounds.windows(2).all(|pair| pair[1] <= pair[0] * (1.0 + 1e-5)), "{rounds:?}");
    }
}

#[test]
fn costs_are_distances_of_the_part() {
    let rows = correlated(120, 7, 12);
    let model = fit(&rotated(), &rows).unwrap();
    let xs = to_tensor(rows.view(), &Device::Cpu).unwrap();
    let codes = model.encode_array(rows.view(), 120).unwrap();
    // What comes before does not matter: no level is coarser than another.
    for prefix in [&[0_u32, 0][..], &[3, 2]] {
        let costs = model.code_costs(&xs, prefix).unwrap().to_vec2::<f32>().unwrap();
        for (costs, codes) in costs.iter().zip(codes.outer_iter()) {
            let least = costs.iter().copied().fold(f32::INFINITY, f32::min);
            assert!((costs[codes[2] as usize] - least).abs() < 1e-4);
        }
    }
    assert!(model.code_costs(&xs, &[0, 0, 0]).is_err());
    assert!(model.code_costs(&xs, &[12]).is_err());
}
