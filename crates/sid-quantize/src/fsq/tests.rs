use candle_core::{Device, Tensor, Var};
use genrec_kernels::CounterRng;
use genrec_kernels::optim::{AdagradConfig, AdamWConfig, OptimizerConfig, Schedule};
use ndarray::Array2;

use super::grid::Grid;
use super::*;
use crate::saved::Saved;
use crate::usage::{CodeReport, reconstruction_error};
use crate::{ArrayRows, Fit, Monitor, QuantizeError, Quantizer, RankCodes, Reconstruct};

fn rows(count: usize, dim: usize) -> Array2<f32> {
    let rng = CounterRng::new(4);
    Array2::from_shape_fn((count, dim), |(i, j)| {
        2.0 * rng.named("cluster").normal_at((i % 40 * dim + j) as u64) + 0.2 * rng.normal_at((i * dim + j) as u64)
    })
}

fn small() -> FsqConfig {
    FsqConfig::default()
        .with_scalars([vec![5, 4], vec![3, 4, 2]])
        .with_hidden([24, 16])
        .with_batch_size(100)
        .with_epochs(30)
        .with_optimizer(OptimizerConfig::AdamW(AdamWConfig::default()), 3e-3)
}

#[test]
fn every_code_of_a_grid_is_its_own_nearest() {
    let scalars = [vec![5, 4], vec![3, 2, 8]];
    let grid = Grid::new(&scalars);
    for (level, size) in [(0, 20), (1, 48)] {
        let codes: Vec<u32> = (0..size).flat_map(|code| if level == 0 { [code, 0] } else { [0, code] }).collect();
        let codes = Tensor::from_vec(codes, (size as usize, 2), &Device::Cpu).unwrap();
        let unit = grid.decode(&codes).unwrap();
        // Values from -1 up to 1, or below it where their number is even.
        let flat = unit.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(flat.iter().all(|v| (-1.0..=1.0).contains(v)));
        let halves: Vec<f32> = scalars.iter().flatten().map(|&values| (values / 2) as f32).collect();
        let rounded = unit.broadcast_mul(&Tensor::new(halves, &Device::Cpu).unwrap()).unwrap();
        let found = grid.codes_of(&rounded).unwrap();
        let expected: Vec<u32> = (0..size).collect();
        assert_eq!(found[level].to_vec1::<u32>().unwrap(), expected);
    }
    assert!(grid.decode(&Tensor::new(&[[20u32, 0]], &Device::Cpu).unwrap()).is_err());
    assert!(grid.decode(&Tensor::new(&[[0u32]], &Device::Cpu).unwrap()).is_err());
}

#[test]
fn all_values_are_reached_and_the_far_ends_are_the_outermost() {
    for values in (2..9u32).chain([255, 1002, 2048]) {
        let grid = Grid::new(&[vec![values]]);
        let fine = if values < 9 { 50.0 } else { 50_000.0 };
        let reach = (12.0 * fine) as i32;
        let z: Vec<f32> = (-reach..=reach).map(|i| i as f32 / fine).collect();
        let last = z.len() - 1;
        let z = Tensor::from_vec(z, (last + 1, 1), &Device::Cpu).unwrap();
        let codes = grid.codes_of(&grid.bound(&z).unwrap().0.round().unwrap()).unwrap()[0].to_vec1::<u32>().unwrap();
        assert!(codes.windows(2).all(|pair| pair[0] <= pair[1]), "{values}");
        assert_eq!((codes[0], codes[last]), (0, values - 1));
        let distinct: std::collections::BTreeSet<u32> = codes.into_iter().collect();
        assert_eq!(distinct.len(), values as usize);
    }
}

#[test]
fn every_number_of_values_has_its_middle_where_features_are() {
    for values in 2..9u32 {
        let grid = Grid::new(&[vec![values]]);
        let z = Tensor::new(&[[-0.9f32], [0.9]], &Device::Cpu).unwrap();
        let codes = grid.codes_of(&grid.bound(&z).unwrap().0.round().unwrap()).unwrap()[0].to_vec1::<u32>().unwrap();
        assert!(codes[0] < values / 2 + values % 2 && codes[1] > codes[0], "{values}: {codes:?}");
    }
}

#[test]
fn the_gradient_equals_candles() {
    let grid = Grid::new(&[vec![5, 4], vec![3]]);
    let rng = CounterRng::new(1);
    let values: Vec<f64> = (0..21).map(|i| f64::from(rng.normal_at(i))).collect();
    let z = Var::from_tensor(&Tensor::from_vec(values, (7, 3), &Device::Cpu).unwrap()).unwrap();
    let weight = Tensor::arange(0.0, 21.0, &Device::Cpu).unwrap().reshape((7, 3)).unwrap();
    let (bounded, tanh) = grid.bound(&z).unwrap();
    let ours = grid.backward(&tanh, &weight).unwrap();
    let store = (grid.unit(&bounded).unwrap() * &weight).unwrap().sum_all().unwrap().backward().unwrap();
    let gap = (ours - store.get(&z).unwrap()).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    assert!(gap.to_scalar::<f64>().unwrap() < 1e-9);
}

#[test]
fn training_lowers_the_error_and_all_forms_of_encoding_agree() {
    let xs = rows(500, 10);
    let model = small().with_epochs(100).fit(&mut ArrayRows::from(xs.view())).unwrap();
    let error = reconstruction_error(&model, &mut ArrayRows::from(xs.view())).unwrap();
    assert!(error.relative < 0.5, "{error:?}");
    let codes = model.encode_array(xs.view(), 100).unwrap();
    let report = CodeReport::of(codes.view(), model.codebook_sizes()).unwrap();
    assert!(report.levels.iter().all(|level| level.used >= 8), "{report:?}");
    let tensor = crate::input::to_tensor(xs.view(), &Device::Cpu).unwrap();
    let rounded = model.grid.bound(&model.latent(&tensor).unwrap()).unwrap().0.round().unwrap();
    let composed = Tensor::stack(&model.grid.codes_of(&rounded).unwrap(), 1).unwrap();
    let composed = composed.flatten_all().unwrap().to_vec1::<u32>().unwrap();
    let differing = composed.iter().zip(&codes).filter(|(a, b)| a != b).count();
    assert!(differing * 200 < composed.len(), "{differing}");
    // A row's own code is the cheapest, up to what the tangent and rounding bend.
    let costs = model.code_costs(&tensor, &[]).unwrap().to_vec2::<f32>().unwrap();
    for (row, costs) in costs.iter().enumerate() {
        let best = costs.iter().copied().fold(f32::INFINITY, f32::min);
        assert!(costs[codes[(row, 0)] as usize] <= best + 1e-4);
    }
    assert!(model.code_costs(&tensor, &[0, 0]).is_err());
    assert!(model.code_costs(&tensor, &[20]).is_err());
    let codes = Tensor::new(&[[0u32, 1]], &Device::Cpu).unwrap();
    assert_eq!(model.reconstruct(&codes).unwrap().dims(), [1, 10]);
}

#[test]
fn every_option_changes_the_model() {
    type Change = fn(FsqConfig) -> FsqConfig;
    let changes: [(&str, Change); 11] = [
        ("scalars", |c| c.with_scalars([vec![5, 4], vec![3, 4, 3]])),
        ("hidden", |c| c.with_hidden([24, 15])),
        ("standardize", |c| c.with_standardize(false)),
        ("whiten", |c| c.with_whiten(Some(8))),
        ("batch size", |c| c.with_batch_size(64)),
        ("epochs", |c| c.with_epochs(31)),
        ("learning rate", |c| c.with_optimizer(OptimizerConfig::AdamW(AdamWConfig::default()), 1e-3)),
        ("optimizer", |c| c.with_optimizer(OptimizerConfig::Adagrad(AdagradConfig::default()), 3e-3)),
        ("schedule", |c| c.with_schedule(Schedule::Constant)),
        ("autoencoder share", |c| c.with_autoencoder_share(0.5)),
        ("seed", |c| c.with_seed(1)),
    ];
    let outcome = |config: FsqConfig| {
        let model = config.fit(&mut ArrayRows::from(rows(200, 10).view())).unwrap();
        model.tensors().unwrap()["decoder.2.weight"].flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let plain = outcome(small());
    assert_eq!(plain, outcome(small()));
    for (name, change) in changes {
        assert_ne!(outcome(change(small())), plain, "{name} changes nothing");
    }
    let epochs = |monitor: Monitor, patience: Option<usize>, gain: f64| {
        struct Count(usize);
        impl crate::FitControl for Count {
            fn on_epoch(&mut self, _: &crate::EpochReport) -> std::ops::ControlFlow<()> {
                self.0 += 1;
                std::ops::ControlFlow::Continue(())
            }
        }
        let mut count = Count(0);
        let config = small().with_epochs(60).with_patience(patience, gain).with_monitor(monitor);
        config.fit_with(&mut ArrayRows::from(rows(200, 10).view()), &mut count).unwrap();
        count.0
    };
    assert_eq!(epochs(Monitor::Loss, None, 0.1), 60);
    assert!(epochs(Monitor::Loss, Some(2), 0.1) < 60);
    assert!(epochs(Monitor::Reconstruction, Some(2), 0.1) < 60 && epochs(Monitor::CollisionRate, Some(2), 0.1) < 60);
}

#[test]
fn bad_fields_and_rows_have_their_errors() {
    let field = |config: FsqConfig| match config.validate() {
        Err(QuantizeError::InvalidConfig { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    FsqConfig::default().validate().unwrap();
    assert_eq!(field(small().with_scalars([vec![5], vec![]])), "scalars");
    assert_eq!(field(small().with_scalars([vec![5, 1]])), "scalars");
    assert_eq!(field(small().with_scalars([vec![u32::MAX, 9]])), "codebook_sizes");
    assert_eq!(field(small().with_scalars([])), "scalars");
    assert_eq!(field(small().with_hidden([0])), "hidden");
    assert_eq!(field(small().with_whiten(Some(0))), "whiten");
    assert_eq!(field(small().with_batch_size(0)), "batch_size");
    let fit = |xs: Array2<f32>| small().with_epochs(2).fit(&mut ArrayRows::from(xs)).map(|model| model.dim());
    assert!(matches!(fit(Array2::zeros((0, 3))), Err(QuantizeError::TooFewRows { rows: 0, codes: 1 })));
    assert!(matches!(fit(Array2::zeros((3, 0))), Err(QuantizeError::DimMismatch { .. })));
    assert!(matches!(fit(Array2::from_elem((3, 2), f32::NAN)), Err(QuantizeError::RowNotFinite { row: 0, column: 0 })));
    // Constant rows and a single row have one code each.
    assert_eq!(fit(Array2::ones((9, 2))).unwrap(), 2);
    assert_eq!(fit(Array2::ones((1, 2))).unwrap(), 2);
}
