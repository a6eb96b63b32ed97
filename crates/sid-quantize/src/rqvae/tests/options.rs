//! Every option changes what is fitted, and in the way it says.

use genrec_kernels::optim::{AdagradConfig, OptimizerConfig, Schedule};

use super::*;
use crate::{Composition, Distance, KMeansInit, Monitor};

fn fitted(config: &RqVaeConfig) -> RqVae {
    config.fit(&mut ArrayRows::from(clustered(400, 12, 9))).unwrap()
}

/// The decoder's last weights and the codes: what an option changes shows in one of them.
fn outcome(config: &RqVaeConfig) -> (Vec<f32>, Vec<u32>) {
    let model = fitted(config);
    let rows = clustered(400, 12, 9);
    let codes = model.encode_array(rows.view(), 400).unwrap().into_raw_vec_and_offset().0;
    let tensors = model.tensors().unwrap();
    (tensors["decoder.2.weight"].flatten_all().unwrap().to_vec1().unwrap(), codes)
}

fn base() -> RqVaeConfig {
    small().with_epochs(12).with_codebook_sizes([16, 16])
}

type Change = fn(RqVaeConfig) -> RqVaeConfig;

#[test]
fn every_option_changes_the_model() {
    let changes: [(&str, Change); 26] = [
        ("commitment", |c| c.with_commitment(1.0)),
        ("rotation trick", |c| c.with_estimator(Estimator::RotationTrick)),
        ("gumbel softmax", |c| c.with_estimator(Estimator::GumbelSoftmax(GumbelSoftmax::default()))),
        ("partitioned", |c| c.with_composition(Composition::Partitioned)),
        ("cosine", |c| c.with_distance(Distance::Cosine)),
        ("ema", |c| c.with_codebook(CodebookLearning::Ema(Ema::default()))),
        ("sim vq", |c| c.with_codebook(CodebookLearning::SimVq).with_restart_after(None)),
        ("shared codebook", |c| c.with_shared_codebook(true)),
        ("sinkhorn", |c| c.with_sinkhorn(Some(Sinkhorn::default()))),
        ("diversity", |c| c.with_diversity(Some(Diversity::default()))),
        ("standardize", |c| c.with_standardize(false)),
        ("whiten", |c| c.with_whiten(Some(12))),
        ("batch size", |c| c.with_batch_size(100)),
        ("epochs", |c| c.with_epochs(13)),
        ("learning rate", |c| c.with_optimizer(OptimizerConfig::AdamW(AdamWConfig::default()), 1e-3)),
        ("optimizer", |c| c.with_optimizer(OptimizerConfig::Adagrad(AdagradConfig::default()), 3e-3)),
        ("schedule", |c| c.with_schedule(Schedule::Constant)),
        ("autoencoder share", |c| c.with_autoencoder_share(0.5)),
        ("init rows", |c| c.with_init(50, 10)),
        ("init iterations", |c| c.with_init(16_384, 0)),
        ("init points", |c| c.with_init_points(KMeansInit::Points)),
        ("init random", |c| c.with_init_points(KMeansInit::Random)),
        ("seed", |c| c.with_seed(1)),
        ("hidden", |c| c.with_hidden([24, 15])),
        ("latent dim", |c| c.with_latent_dim(7)),
        ("codebook sizes", |c| c.with_codebook_sizes([16, 8])),
    ];
    let plain = outcome(&base());
    assert_eq!(plain, outcome(&base()));
    for (name, change) in changes {
        assert_ne!(outcome(&change(base())), plain, "{name} changes nothing");
    }
}

#[test]
fn options_of_options_change_the_model() {
    let gumbel = |start, end| Estimator::GumbelSoftmax(GumbelSoftmax::default().with_temperatures(start, end));
    let sinkhorn = |epsilon, rounds| Some(Sinkhorn::default().with_epsilon(epsilon, rounds));
    let pairs = [
        (base().with_estimator(gumbel(1.0, 0.1)), base().with_estimator(gumbel(2.0, 0.1))),
        (base().with_estimator(gumbel(1.0, 0.1)), base().with_estimator(gumbel(1.0, 0.5))),
        (
            base().with_codebook(CodebookLearning::Ema(Ema::default())),
            base().with_codebook(CodebookLearning::Ema(Ema::default().with_decay(0.5))),
        ),
        (base().with_sinkhorn(sinkhorn(0.01, 50)), base().with_sinkhorn(sinkhorn(1.0, 50))),
        (base().with_sinkhorn(sinkhorn(0.01, 50)), base().with_sinkhorn(sinkhorn(0.01, 1))),
        (
            base().with_diversity(Some(Diversity::default())),
            base().with_diversity(Some(Diversity::default().with_weight(1.0))),
        ),
        (
            base().with_diversity(Some(Diversity::default())),
            base().with_diversity(Some(Diversity::default().with_clusters(3))),
        ),
        (
            base().with_sinkhorn(sinkhorn(0.01, 50)),
            base().with_sinkhorn(sinkhorn(0.01, 50).map(|s| s.with_last_level_only(false))),
        ),
    ];
    for (one, other) in pairs {
        assert_ne!(outcome(&one), outcome(&other), "{one:?} {other:?}");
    }
}

#[test]
fn alignment_brings_items_of_one_behaviour_together() {
    let rows = clustered(400, 12, 9);
    // Behaviour tells the first four of the eight coarse clusters from the others.
    let behaviour = Array2::from_shape_fn((400, 8), |(i, j)| if j == 0 { [2.0, -2.0][i % 8 / 4] } else { 0.0 });
    let fit = |weight: f64| {
        let config = base().with_epochs(40).with_alignment(Some(Alignment::default().with_weight(weight)));
        let (mut xs, mut behaviour) = (ArrayRows::from(rows.view()), ArrayRows::from(behaviour.view()));
        let model = config.fit_aligned(&mut xs, &mut behaviour, &Device::Cpu, &mut ()).unwrap();
        let codes = model.encode_array(rows.view(), 400).unwrap();
        let near = model.reconstruct(&candle_core::Tensor::new(vec![vec![0u32, 0]], &Device::Cpu).unwrap());
        assert!(near.is_ok());
        let z = model.latent(&crate::input::to_tensor(rows.view(), &Device::Cpu).unwrap()).unwrap();
        let z = z.to_vec2::<f32>().unwrap();
        let side =
            |half: usize| z.iter().zip(0..).filter(|(_, i)| i % 8 / 4 == half).map(|(z, _)| z[0]).sum::<f32>() / 200.0;
        (codes, side(0) - side(1))
    };
    let (weak, strong) = (fit(1e-3), fit(30.0));
    assert_ne!(weak.0, strong.0);
    assert!(strong.1 > weak.1 + 0.05, "{} {}", weak.1, strong.1);
    let aligned = base().with_alignment(Some(Alignment::default()));
    assert!(matches!(aligned.fit(&mut ArrayRows::from(rows.view())), Err(QuantizeError::BehaviourMissing)));
    let mut behaviour = ArrayRows::from(behaviour.view());
    let unset = base().fit_aligned(&mut ArrayRows::from(rows.view()), &mut behaviour, &Device::Cpu, &mut ());
    assert!(matches!(unset, Err(QuantizeError::InvalidConfig { field: "alignment", .. })));
}

#[test]
fn every_variant_still_learns() {
    let variants: [(&str, Change); 9] = [
        ("rotation trick", |c| c.with_estimator(Estimator::RotationTrick)),
        ("gumbel softmax", |c| c.with_estimator(Estimator::GumbelSoftmax(GumbelSoftmax::default()))),
        ("partitioned", |c| c.with_composition(Composition::Partitioned)),
        ("cosine", |c| c.with_distance(Distance::Cosine)),
        ("ema", |c| c.with_codebook(CodebookLearning::Ema(Ema::default()))),
        ("sim vq", |c| c.with_codebook(CodebookLearning::SimVq).with_restart_after(None)),
        ("shared codebook", |c| c.with_shared_codebook(true)),
        ("sinkhorn", |c| c.with_sinkhorn(Some(Sinkhorn::default()))),
        ("whiten", |c| c.with_whiten(Some(8)).with_epochs(60)),
    ];
    for (name, change) in variants {
        let rows = clustered(400, 12, 9);
        let model = fitted(&change(base().with_epochs(40)));
        let error = reconstruction_error(&model, &mut ArrayRows::from(rows.view())).unwrap();
        assert!(error.relative < 0.6, "{name}: {error:?}");
        let codes = model.encode_array(rows.view(), 400).unwrap();
        let report = CodeReport::of(codes.view(), model.codebook_sizes()).unwrap();
        assert!(report.levels.iter().all(|level| level.used >= 8), "{name}: {report:?}");
    }
}

#[test]
fn sinkhorn_fills_the_codes_of_a_batch_alike() {
    // Forty rows that all lie nearest to one codeword.
    let rng = CounterRng::new(2);
    let distances: Vec<f32> =
        (0..160).map(|i| if i % 4 == 0 { 0.2 * rng.f32_at(i) } else { 1.0 + rng.f32_at(i) }).collect();
    let distances = candle_core::Tensor::from_vec(distances, (40, 4), &Device::Cpu).unwrap();
    let counts = |sinkhorn: Sinkhorn| {
        let codes = sinkhorn.assign(&distances).unwrap().to_vec1::<u32>().unwrap();
        (0..4).map(|code| codes.iter().filter(|&&c| c == code).count()).collect::<Vec<_>>()
    };
    let even = counts(Sinkhorn::default().with_epsilon(0.01, 500));
    assert!(even.iter().all(|&count| (6..=14).contains(&count)), "{even:?}");
    let all_alike = candle_core::Tensor::zeros((5, 3), DType::F32, &Device::Cpu).unwrap();
    assert!(Sinkhorn::default().assign(&all_alike).is_ok());
}

#[test]
fn patience_looks_at_what_it_is_told() {
    let epochs = |monitor: Monitor| {
        let mut watch = Losses::default();
        let config = base().with_epochs(80).with_patience(Some(2), 0.02).with_monitor(monitor);
        config.fit_with(&mut ArrayRows::from(clustered(400, 12, 9)), &mut watch).unwrap();
        let values: Vec<f64> = watch
            .0
            .iter()
            .filter(|report| report.collision_rate.is_some())
            .map(|report| match monitor {
                Monitor::Loss => report.loss,
                Monitor::Reconstruction => report.reconstruction,
                Monitor::CollisionRate => report.collision_rate.unwrap(),
            })
            .collect();
        // Each of the last two gained no 2 % on the best before it, and the one before them did.
        let gained = |at: usize| {
            let lowest = values[..at].iter().copied().fold(f64::INFINITY, f64::min);
            values[at] < 0.98 * lowest
        };
        let end = values.len();
        assert_eq!([gained(end - 3), gained(end - 2), gained(end - 1)], [true, false, false], "{monitor:?} {values:?}");
        watch.0.len()
    };
    let lengths = [epochs(Monitor::Loss), epochs(Monitor::Reconstruction), epochs(Monitor::CollisionRate)];
    assert!(lengths.iter().all(|&length| length < 80), "{lengths:?}");
    assert!(lengths[0] != lengths[2] || lengths[1] != lengths[2], "{lengths:?}");
}

#[test]
fn options_that_exclude_each_other_are_refused() {
    let field = |config: RqVaeConfig| match config.validate() {
        Err(QuantizeError::InvalidConfig { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let gumbel = || base().with_estimator(Estimator::GumbelSoftmax(GumbelSoftmax::default()));
    assert_eq!(field(base().with_codebook(CodebookLearning::SimVq)), "restart_after");
    assert_eq!(field(gumbel().with_distance(Distance::Cosine)), "estimator");
    assert_eq!(field(gumbel().with_codebook(CodebookLearning::Ema(Ema::default()))), "estimator");
    assert_eq!(field(gumbel().with_sinkhorn(Some(Sinkhorn::default()))), "estimator");
    assert_eq!(field(base().with_shared_codebook(true).with_codebook_sizes([16, 8])), "shared_codebook");
    let uneven = base().with_shared_codebook(true).with_composition(Composition::Partitioned).with_latent_dim(7);
    assert_eq!(field(uneven), "shared_codebook");
    assert_eq!(field(base().with_composition(Composition::Partitioned).with_latent_dim(1)), "latent_dim");
    assert_eq!(field(base().with_codebook(CodebookLearning::Ema(Ema::default().with_decay(1.0)))), "decay");
    assert_eq!(field(base().with_sinkhorn(Some(Sinkhorn::default().with_epsilon(0.0, 5)))), "epsilon");
    let size = base().codebook_sizes[0] as usize;
    for clusters in [0, size] {
        let diversity = Diversity::default().with_clusters(clusters);
        assert_eq!(field(base().with_diversity(Some(diversity))), "diversity.clusters");
    }
    assert_eq!(field(base().with_sinkhorn(Some(Sinkhorn::default().with_epsilon(0.1, 0)))), "iterations");
    let frozen = GumbelSoftmax::default().with_temperatures(0.0, 1.0);
    assert_eq!(field(base().with_estimator(Estimator::GumbelSoftmax(frozen))), "temperature");
    assert_eq!(field(base().with_whiten(Some(0))), "whiten");
}
