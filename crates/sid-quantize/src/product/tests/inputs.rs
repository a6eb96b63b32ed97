use candle_core::DType;
use ndarray::{Array2, ArrayViewMut2, array};

use super::*;

#[test]
fn rows_that_say_little_are_fitted_all_the_same() {
    let one = small().with_codebook_sizes([1, 1]);
    let constant = Array2::from_elem((40, 5), 2.5_f32);
    let duplicates = Array2::from_shape_fn((60, 5), |(i, j)| ((i % 3) * (j + 1)) as f32);
    let rotation = Some(RotationConfig::default().with_iterations(3));
    for rotation in [None, rotation] {
        for standardize in [false, true] {
            let with =
                |config: ProductKMeansConfig| config.with_rotation(rotation.clone()).with_standardize(standardize);
            assert!(error(&with(one.clone()), &array![[1.0, -2.0, 3.0]]) < 1e-9);
            assert!(error(&with(small()), &constant) < 1e-9);
            assert!(error(&with(small()), &duplicates) < 1e-6);
            assert!(error(&with(small().with_balance(Some(1.0))), &duplicates).is_finite());
        }
    }
}

#[test]
fn bad_rows_and_fields_have_their_errors() {
    for config in [small(), rotated(), rotated().with_standardize(true), small().with_whiten(Some(3))] {
        assert!(matches!(fit(&config, &correlated(11, 4, 0)), Err(QuantizeError::TooFewRows { rows: 11, codes: 12 })));
        assert!(matches!(fit(&config, &Array2::zeros((0, 4))), Err(QuantizeError::TooFewRows { rows: 0, .. })));
        assert!(matches!(fit(&config, &Array2::zeros((20, 0))), Err(QuantizeError::DimMismatch { .. })));
        for bad in [f32::NAN, f32::NEG_INFINITY] {
            let mut rows = correlated(30, 4, 0);
            rows[[29, 1]] = bad;
            assert!(matches!(fit(&config, &rows), Err(QuantizeError::RowNotFinite { row: 29, column: 1 })));
        }
    }
    let narrow = fit(&small(), &correlated(30, 2, 0)).map(|_| ()).unwrap_err();
    assert!(matches!(narrow, QuantizeError::TooFewColumns { columns: 2, levels: 3 }));
    assert!(narrow.to_string().contains("use 2 levels or fewer"), "{narrow}");
    let rotation =
        |change: fn(RotationConfig) -> RotationConfig| rotated().with_rotation(rotated().rotation.map(change));
    assert!(matches!(small().with_whiten(Some(2)).validate(), Err(QuantizeError::TooFewColumns { columns: 2, .. })));
    for (config, name) in [
        (small().with_iterations(0), "iterations"),
        (small().with_tolerance(f64::NAN), "tolerance"),
        (small().with_codebook_sizes(vec![2; 65]), "codebook_sizes"),
        (small().with_batch_rows(Some(11)), "batch_rows"),
        (small().with_balance(Some(0.5)), "balance"),
        (small().with_whiten(Some(0)), "whiten"),
        (small().with_whiten(Some(5)), "whiten"),
        (rotation(|r| r.with_iterations(0)), "rotation.iterations"),
        (rotation(|r| r.with_rows(11)), "rotation.rows"),
    ] {
        let result = fit(&config, &correlated(30, 4, 0)).map(|_| ());
        assert!(matches!(&result, Err(QuantizeError::InvalidConfig { field, .. }) if *field == name), "{result:?}");
    }
    let surplus = serde_json::from_str::<ProductKMeansConfig>(r#"{"rotation": {"iteration": 1}}"#);
    assert!(surplus.unwrap_err().to_string().contains("iteration"));
}

#[test]
fn rows_of_another_width_are_refused() {
    let model = fit(&rotated(), &correlated(100, 4, 6)).unwrap();
    assert!(model.encode(&Tensor::zeros((3, 5), DType::F32, &Device::Cpu).unwrap()).is_err());
    assert!(model.encode_array(array![[0.0_f32; 3]].view(), 1).is_err());
    let wrong = Tensor::new(&[[0_u32, 10, 0]], &Device::Cpu).unwrap();
    assert!(model.reconstruct(&wrong).is_err());
}

/// Rows that can only be read, as those of a file.
struct Streamed(Array2<f32>);

impl RowSource for Streamed {
    fn dim(&self) -> usize {
        self.0.ncols()
    }

    fn len(&self) -> usize {
        self.0.nrows()
    }

    fn read(&mut self, start: usize, out: ArrayViewMut2<'_, f32>) -> Result<()> {
        ArrayRows::from(self.0.view()).read(start, out)
    }
}

#[test]
fn rows_that_are_streamed_give_the_same_model() {
    let rows = correlated(500, 7, 13);
    for config in [small(), rotated(), small().with_batch_rows(Some(50)), small().with_codebook_sizes([9])] {
        let streamed = config.fit(&mut Streamed(rows.clone())).unwrap();
        assert!(bytes(&streamed) == bytes(&fit(&config, &rows).unwrap()));
    }
}
