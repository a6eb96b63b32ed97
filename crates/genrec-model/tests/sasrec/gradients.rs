//! The loss is that of the plain loops, and every gradient is its slope.

use genrec_model::{Trainable, sasrec::SasRec};

use super::{batch, random_model, reference::Reference, values, variants};

/// Each holds all of seven items but one; the first is longer than the model sees.
fn examples() -> Vec<Vec<u32>> {
    vec![vec![5, 0, 0, 1, 2, 3, 4, 0, 5, 1], vec![6, 5, 4, 3, 2, 1], vec![3], vec![], vec![0, 6, 2, 4, 6, 5, 3]]
}

fn check(model: &SasRec) {
    const STEP: f64 = 1e-5;
    let batch = batch(&examples());
    let mut reference = Reference::new(model);
    let expected = reference.loss(&examples());
    assert!((f64::from(model.loss(&batch).unwrap()) - expected).abs() < 2e-6 * expected.max(1.0));
    let (loss, gradients) = model.loss_and_grads(&batch, 3).unwrap();
    assert!((f64::from(loss) - expected).abs() < 2e-6 * expected.max(1.0), "{loss} {expected}");

    let names: Vec<&str> = model.parameters().iter().map(|(name, _)| name).collect();
    assert_eq!(gradients.iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
    for (name, gradient) in gradients.iter() {
        assert_eq!(gradient.dims(), model.parameters().get(name).unwrap().dims(), "{name}");
        let gradient = values(gradient);
        assert!(gradient.iter().any(|slope| slope.abs() > 1e-4), "the gradient of {name} is zero everywhere");
        for (index, got) in gradient.into_iter().enumerate() {
            let mut moved = |by: f64| {
                let weight = &mut reference.weights.get_mut(name).unwrap()[index];
                *weight += by;
                let loss = reference.loss(&examples());
                reference.weights.get_mut(name).unwrap()[index] -= by;
                loss
            };
            let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let got = f64::from(got);
            assert!((slope - got).abs() < 5e-6 + 2e-4 * slope.abs(), "{name}[{index}]: {got}, the slope is {slope}");
        }
    }
}

#[test]
fn gradients_of_the_engine_are_slopes() {
    for (seed, config) in (0..).zip(variants(7)) {
        check(&random_model(config, seed));
    }
}

#[test]
fn gradients_of_the_graph_are_slopes() {
    for (seed, config) in (0..).zip(variants(7)) {
        check(&random_model(config, seed).with_autograd());
    }
}
