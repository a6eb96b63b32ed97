//! Every weight gets a gradient, and it is the slope of the loss.

use candle_core::{Device, Tensor};
use genrec_kernels::CounterRng;
use genrec_model::{RaggedBatch, Trainable, t5::T5};

use super::{batch, values, variants};

const VOCAB: usize = 17;
/// Rounding of the loss blurs the short step, the kinks of ReLU the long one; a right gradient agrees with one of them.
const STEPS: [f32; 2] = [4e-3, 1e-3];

fn examples() -> RaggedBatch {
    batch(&[
        (vec![2, 3, 4, 5, 6, 7], vec![8, 9]),
        (vec![10], vec![11, 12]),
        (vec![13, 14, 2, 16], vec![3, 15]),
        (vec![2, 3, 4], vec![8, 12]),
    ])
}

/// The loss with entry `index` of a weight moved by `by`.
fn moved(model: &T5, name: &str, index: usize, by: f32, seed: u64) -> f64 {
    let before = model.parameters().get(name).unwrap().copy().unwrap();
    let mut entries = values(&before);
    entries[index] += by;
    let after = Tensor::from_vec(entries, before.shape().clone(), &Device::Cpu).unwrap();
    model.parameters().set(name, &after).unwrap();
    let loss = model.loss_and_grads(&examples(), seed).unwrap().0;
    model.parameters().set(name, &before).unwrap();
    f64::from(loss)
}

/// Checks, of every weight, the entries of steepest slope and some random ones. Returns how many were checked.
fn check(model: &T5, seed: u64) -> usize {
    let (_, gradients) = model.loss_and_grads(&examples(), seed).unwrap();
    let names: Vec<&str> = model.parameters().iter().map(|(name, _)| name).collect();
    assert_eq!(gradients.iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
    let mut checked = 0;
    for (name, gradient) in gradients.iter() {
        assert_eq!(gradient.dims(), model.parameters().get(name).unwrap().dims(), "{name}");
        let slopes = values(gradient);
        let mut order: Vec<usize> = (0..slopes.len()).collect();
        order.sort_by(|a, b| slopes[*b].abs().total_cmp(&slopes[*a].abs()));
        assert!(slopes[order[0]].abs() > 1e-5, "the gradient of {name} is zero everywhere");
        let rng = CounterRng::new(seed).named(name);
        let random = (0..2).map(|i| rng.below(i, slopes.len() as u64) as usize);
        for index in order.iter().copied().take(2).chain(random) {
            let got = f64::from(slopes[index]);
            let slope = |step: f32| {
                let (ahead, behind) = (moved(model, name, index, step, seed), moved(model, name, index, -step, seed));
                (ahead - behind) / f64::from(2.0 * step)
            };
            let near = |slope: f64| (slope - got).abs() < 4e-4 + 0.01 * slope.abs();
            if !STEPS.into_iter().any(|step| near(slope(step))) {
                panic!("{name}[{index}]: the gradient is {got}, the slopes are {:?}", STEPS.map(slope));
            }
            checked += 1;
        }
    }
    checked
}

#[test]
fn gradients_are_slopes() {
    for config in variants(VOCAB) {
        let model = T5::new(config.with_layers(2, 1), 5, &Device::Cpu).unwrap();
        for model in [model.clone(), model.with_autograd()] {
            assert_eq!(check(&model, 0), 4 * model.parameters().len());
        }
    }
}

#[test]
fn gradients_are_slopes_under_dropout() {
    for config in variants(VOCAB) {
        let model = T5::new(config.with_layers(1, 2).with_dropout_rate(0.2), 6, &Device::Cpu)
            .unwrap()
            .with_micro_batch(Some(2));
        for model in [model.clone(), model.with_autograd()] {
            assert_eq!(check(&model, 77), 4 * model.parameters().len());
        }
    }
}

#[test]
fn an_unused_token_has_no_gradient_in_an_untied_table() {
    let config = variants(VOCAB).remove(1);
    assert!(!config.tie_word_embeddings);
    let model = T5::new(config, 5, &Device::Cpu).unwrap();
    let (_, gradients) = model.loss_and_grads(&examples(), 0).unwrap();
    let table = gradients.get("shared.weight").unwrap().to_vec2::<f32>().unwrap();
    // 1 and 15: never read; 0: the decoder's start.
    for (token, row) in table.iter().enumerate() {
        assert_eq!(row.iter().all(|x| *x == 0.0), [1, 9, 12, 15].contains(&token), "token {token}");
    }
}
