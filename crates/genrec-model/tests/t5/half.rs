//! Computing in half precision: the same model, to the rounding of the type.

use candle_core::{DType, Device, Tensor};
use genrec_model::{DecodeState, ModelError, Seq2Seq, Trainable, t5::T5};

use super::{batch, largest_difference, values, variants};

/// Of a forward pass through numbers near one, in f16.
const ROUNDING: f32 = 0.03;

#[test]
fn loss_gradients_and_steps_agree_with_single_precision() {
    let batch =
        batch(&[(vec![3, 4, 5, 6, 7], vec![8, 9, 10]), (vec![5, 3], vec![7, 7, 4]), (vec![9; 9], vec![3, 4, 5])]);
    for config in variants(12) {
        let model = T5::new(config.with_dropout_rate(0.1), 5, &Device::Cpu).unwrap();
        let single = model.clone().with_autograd();
        let half = model.with_compute_dtype(DType::F16).unwrap();
        assert!(largest_difference(&half.logits(&batch).unwrap(), &single.logits(&batch).unwrap()) < ROUNDING);
        let (loss, gradients) = half.loss_and_grads(&batch, 3).unwrap();
        let (expected_loss, expected) = single.loss_and_grads(&batch, 3).unwrap();
        assert!((loss - expected_loss).abs() < ROUNDING * expected_loss, "{loss} {expected_loss}");
        assert!((half.loss(&batch).unwrap() - single.loss(&batch).unwrap()).abs() < ROUNDING * expected_loss);
        for ((name, got), (_, wanted)) in gradients.iter().zip(expected.iter()) {
            assert_eq!(got.dtype(), DType::F32, "{name}");
            let top = values(wanted).into_iter().fold(1e-3f32, |top, value| top.max(value.abs()));
            let far = largest_difference(got, wanted) / top;
            assert!(far < 3.0 * ROUNDING, "{name}: {far}");
        }
        let (mut a, mut b) = (half.start(&batch).unwrap(), single.start(&batch).unwrap());
        for token in [0u32, 5, 9] {
            let tokens = Tensor::full(token, 3, &Device::Cpu).unwrap();
            let (got, wanted) = (half.step(&tokens, &mut a).unwrap(), single.step(&tokens, &mut b).unwrap());
            assert_eq!(got.dtype(), DType::F32);
            assert!(largest_difference(&got, &wanted) < ROUNDING);
        }
    }
}

/// What is rounded from the weights must not outlive them.
#[test]
fn changed_weights_are_seen() {
    let batch = batch(&[(vec![3, 4], vec![5, 6])]);
    let model = T5::new(super::tiny(8), 1, &Device::Cpu).unwrap().with_compute_dtype(DType::F16).unwrap();
    let before = model.logits(&batch).unwrap();
    let table = model.parameters().get("shared.weight").unwrap().affine(2.0, 0.0).unwrap();
    model.parameters().set("shared.weight", &table).unwrap();
    assert!(largest_difference(&before, &model.logits(&batch).unwrap()) > ROUNDING);
}

#[test]
fn rows_reordered_within_their_sequences_go_on_from_theirs() {
    let batch = batch(&[(vec![3, 4], vec![]), (vec![6], vec![])]);
    let fused = T5::new(super::tiny(8), 1, &Device::Cpu).unwrap();
    for model in [fused.clone(), fused.with_autograd()] {
        let tensor = |values: &[u32]| Tensor::new(values, &Device::Cpu).unwrap();
        let run = |reorder: bool| {
            let mut state = model.start(&batch).unwrap();
            state.select_rows(&tensor(&[0, 0, 1, 1])).unwrap();
            model.step(&tensor(&[2, 3, 4, 5]), &mut state).unwrap();
            let rows = tensor(&[1, 0, 3, 3]);
            if reorder {
                state.reorder(&rows).unwrap();
            } else {
                state.select_rows(&rows).unwrap();
            }
            model.step(&tensor(&[5, 4, 3, 2]), &mut state).unwrap()
        };
        assert_eq!(values(&run(true)), values(&run(false)));
    }
}

#[test]
fn types_that_cannot_be_computed_in_are_refused() {
    let model = T5::new(super::tiny(8), 1, &Device::Cpu).unwrap();
    for dtype in [DType::BF16, DType::F64, DType::U8] {
        assert!(matches!(model.clone().with_compute_dtype(dtype), Err(ModelError::Config { .. })), "{dtype:?}");
    }
}
