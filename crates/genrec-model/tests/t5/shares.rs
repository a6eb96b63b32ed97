//! What several workers compute of a batch is what one does.

use std::num::NonZeroUsize;

use candle_core::Device;
use genrec_model::{BatchShare, RaggedBatch, Trainable, t5::T5};

use super::{
    tiny,
    training::{examples, flat},
    variants,
};

/// The losses and gradients of all workers, summed in pairs as a collective of two or four sums them.
fn together(model: &T5, batch: &RaggedBatch, ranks: usize) -> (f32, Vec<f32>) {
    let parts: Vec<(f32, Vec<f32>)> = (0..ranks)
        .map(|rank| {
            let share = BatchShare::new(rank, ranks).unwrap();
            let (loss, gradients) = model.share_loss_and_grads(batch, share, 5).unwrap();
            (loss, flat(&gradients))
        })
        .filter(|(_, gradients)| !gradients.is_empty())
        .collect();
    sum(&parts)
}

fn sum(parts: &[(f32, Vec<f32>)]) -> (f32, Vec<f32>) {
    if let [part] = parts {
        return part.clone();
    }
    let (a, b) = parts.split_at(parts.len().div_ceil(2));
    let ((a, left), (b, right)) = (sum(a), sum(b));
    (a + b, left.iter().zip(&right).map(|(a, b)| a + b).collect())
}

#[test]
fn workers_add_up_to_one_bit_for_bit_where_they_divide_the_shares() {
    for config in variants(40) {
        let model = T5::new(config.with_dropout_rate(0.2), 3, &Device::Cpu).unwrap();
        // Of the second, some workers get nothing.
        for batch in [examples(400, 40), examples(3, 40)] {
            let (loss, gradients) = model.loss_and_grads(&batch, 5).unwrap();
            let gradients = flat(&gradients);
            for ranks in [1, 2, 4, 8] {
                let (summed, others) = together(&model, &batch, ranks);
                assert!((summed - loss).abs() <= 1e-6 * loss, "{ranks} workers: {summed} {loss}");
                assert_eq!(others, gradients, "{ranks} workers");
            }
            for ranks in [3, 7, 20] {
                let (summed, others) = together(&model, &batch, ranks);
                assert!((summed - loss).abs() <= 1e-5 * loss, "{ranks} workers: {summed} {loss}");
                for (a, b) in gradients.iter().zip(&others) {
                    assert!((a - b).abs() < 1e-6 + 1e-4 * a.abs(), "{ranks} workers: {a} {b}");
                }
            }
        }
    }
}

#[test]
fn the_number_of_shares_changes_rounding_alone() {
    let model = T5::new(tiny(40).with_dropout_rate(0.2), 3, &Device::Cpu).unwrap();
    let batch = examples(400, 40);
    let expected = flat(&model.loss_and_grads(&batch, 5).unwrap().1);
    for shares in [1, 6, 48] {
        let model = model.clone().with_shares(NonZeroUsize::new(shares).unwrap());
        let whole = flat(&model.loss_and_grads(&batch, 5).unwrap().1);
        assert!(whole.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6 + 1e-4 * a.abs()));
        if shares > 1 {
            assert_eq!(together(&model, &batch, 2).1, whole, "{shares} shares");
        }
    }
}

/// The masks of a row on candle's graph are those of its micro-batch: of one row each, they do not depend on the worker.
#[test]
fn workers_on_the_graph_add_up_too() {
    let model = T5::new(tiny(40).with_dropout_rate(0.2), 3, &Device::Cpu).unwrap();
    let graph = model.clone().with_autograd().with_micro_batch(Some(1));
    let batch = examples(11, 40);
    let (loss, gradients) = model.loss_and_grads(&batch, 5).unwrap();
    for ranks in [2, 3, 12] {
        let (summed, others) = together(&graph, &batch, ranks);
        assert!((summed - loss).abs() <= 1e-5 * loss, "{ranks} workers: {summed} {loss}");
        for (a, b) in flat(&gradients).iter().zip(&others) {
            assert!((a - b).abs() < 1e-5 + 1e-4 * a.abs(), "{ranks} workers: {a} {b}");
        }
    }
}
