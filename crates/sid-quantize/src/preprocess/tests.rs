use candle_core::Device;
use genrec_kernels::CounterRng;
use ndarray::{Array2, Axis};

use super::*;
use crate::ArrayRows;

/// Correlated features far from the origin.
fn rows() -> Array2<f32> {
    let rng = CounterRng::new(3);
    Array2::from_shape_fn((400, 6), |(i, j)| {
        let shared = rng.normal_at((i * 7) as u64);
        20.0 + (j as f32) * shared + 0.3 * rng.normal_at((i * 7 + 1 + j) as u64)
    })
}

fn fitted(standardize: bool, whiten: Option<usize>) -> Preprocess {
    let rows = rows();
    Preprocess::fit(Steps { standardize, whiten }, &mut ArrayRows::from(rows.view()), &Device::Cpu).unwrap()
}

fn applied(preprocess: &Preprocess) -> Array2<f32> {
    let rows = rows();
    let mut source = ArrayRows::from(rows.view());
    let mut prepared = preprocess.rows(&mut source);
    let mut out = Array2::zeros((400, prepared.dim()));
    prepared.read(0, out.view_mut()).unwrap();
    out
}

#[test]
fn whitened_features_are_uncorrelated_with_variance_one() {
    for standardize in [false, true] {
        let out = applied(&fitted(standardize, Some(4)));
        let mean = out.mean_axis(Axis(0)).unwrap();
        assert!(mean.iter().all(|m| m.abs() < 1e-3), "{mean}");
        for a in 0..4 {
            for b in 0..4 {
                let covariance = (0..400).map(|i| f64::from(out[(i, a)]) * f64::from(out[(i, b)])).sum::<f64>() / 400.0;
                assert!((covariance - f64::from(u8::from(a == b))).abs() < 1e-3, "{a} {b} {covariance}");
            }
        }
    }
}

#[test]
fn all_forms_of_a_step_agree_and_its_inverse_undoes_it() {
    for (standardize, whiten) in [(false, None), (true, None), (false, Some(6)), (true, Some(6))] {
        let preprocess = fitted(standardize, whiten);
        let rows = rows();
        let tensor = Tensor::from_vec(rows.iter().copied().collect::<Vec<_>>(), (400, 6), &Device::Cpu).unwrap();
        let by_tensor = preprocess.apply(&tensor).unwrap();
        let host = applied(&preprocess);
        for (a, b) in by_tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().zip(&host) {
            assert!((a - b).abs() < 1e-3, "{a} {b}");
        }
        let back = preprocess.invert(&by_tensor).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(rows.iter().zip(back).all(|(x, back)| (x - back).abs() < 2e-2));

        let mut tensors = BTreeMap::new();
        preprocess.tensors(&mut tensors);
        let mut shapes = BTreeMap::new();
        Preprocess::shapes(Steps { standardize, whiten }, 6, &mut shapes);
        crate::saved::expect_shapes(&tensors, &shapes).unwrap();
        let loaded = Preprocess::load(&tensors, &Device::Cpu).unwrap();
        assert_eq!(applied(&loaded), host);
    }
}

#[test]
fn directions_without_variance_keep_their_scale() {
    let rows = Array2::from_shape_fn((50, 3), |(i, j)| if j == 0 { i as f32 } else { 2.0 });
    let steps = Steps { standardize: false, whiten: Some(3) };
    let preprocess = Preprocess::fit(steps, &mut ArrayRows::from(rows.view()), &Device::Cpu).unwrap();
    let mut out = Array2::zeros((50, 3));
    preprocess.rows(&mut ArrayRows::from(rows.view())).read(0, out.view_mut()).unwrap();
    assert!(out.iter().all(|x| x.is_finite()));
    assert!(out.outer_iter().all(|row| row[1].abs() < 1e-3 && row[2].abs() < 1e-3));
    let steps = Steps { standardize: false, whiten: Some(4) };
    let error = Preprocess::fit(steps, &mut ArrayRows::from(rows.view()), &Device::Cpu).unwrap_err();
    assert!(matches!(error, QuantizeError::InvalidConfig { field: "whiten", .. }));
}
