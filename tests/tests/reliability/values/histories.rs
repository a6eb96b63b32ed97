//! Histories of any length, and weights of any size, through training and decoding.

use candle_core::Device;
use genrec::{
    DecodeConfig, Error, History,
    data::{Dataset, Sequences},
    decode::{AnySearch, DecodeError, DiverseBeamSearch, ExactSearch, Resolve, Sampling},
    index::ItemId,
    model::{
        ItemScorer, RaggedBatch, Trainable,
        sasrec::{SasRec, SasRecConfig},
        t5::{T5, T5Config},
    },
    pipeline::{self, Event},
    train::{BatchSource, BoxError, Every, TrainConfig, TrainError, Trainer},
};
use genrec_tests::told;

use crate::{in_memory, tiny};

fn searches() -> Vec<DecodeConfig> {
    let config = tiny::config().decode.with_rerank(None);
    vec![
        tiny::config().decode,
        config.clone(),
        config.clone().with_search(AnySearch::Sampling(Sampling::new(6, 3))),
        config.clone().with_search(AnySearch::Diverse(DiverseBeamSearch::new(6, 2))),
        config.clone().with_search(AnySearch::Exact(ExactSearch::new(6))),
        config.clone().with_free(Resolve::Exact).with_widen_to(40),
        config.with_free(Resolve::LongestPrefix { at_least: 1 }),
    ]
}

#[test]
fn a_history_of_any_length_is_refused_or_answered() {
    let dir = in_memory();
    let trained = tiny::run(dir.path());
    let long: Vec<ItemId> = (0..10_000).map(|at| ItemId(at % 40)).collect();
    for config in searches() {
        let recommender = trained.clone().with_config(config).unwrap();
        for (user, items) in
            [(Some("a"), &[][..]), (Some(""), &[]), (None, &long[..1]), (Some("a"), &long), (None, &long)]
        {
            let found = recommender.recommend(&[History { user, items }; 3], 5).unwrap();
            assert!(found.iter().all(|list| list == &found[0] && list.iter().all(|found| found.score.is_finite())));
        }
        let nothing = recommender.recommend(&[History { user: None, items: &[] }], 5).unwrap_err();
        assert!(told(&nothing).contains("is empty; every sequence needs at least one token"), "{}", told(&nothing));
        let beyond = [ItemId(40)];
        let unknown = recommender.recommend(&[History { user: None, items: &beyond }], 5);
        assert!(matches!(unknown, Err(Error::UnknownItem { .. })), "{unknown:?}");
        assert_eq!(recommender.recommend(&[], 5).unwrap(), Vec::<Vec<_>>::new());
        for k in [0, 1_000, usize::MAX] {
            let items = [ItemId(3)];
            let found = recommender.recommend(&[History { user: None, items: &items }], k).unwrap();
            let most = if recommender.config().free == Some(Resolve::Exact) { 40 } else { k.min(40) };
            assert!(found[0].len() <= most && (k == 0 || !found[0].is_empty()), "{k}: {}", found[0].len());
        }
    }
}

#[test]
fn weights_of_any_size_are_refused_or_give_numbers() {
    let dir = in_memory();
    let trained = tiny::run(dir.path());
    let items = [ItemId(3), ItemId(5)];
    let (mut refused, mut answered) = (0, 0);
    for factor in [0.0, 1e-40, 1e-20, 1e10, 1e18, 1e25, f64::from(f32::MAX)] {
        let parameters = trained.model().parameters();
        let before = parameters.snapshot().unwrap();
        for (name, value) in &before {
            parameters.set(name, &value.affine(factor, 0.0).unwrap()).unwrap();
        }
        for config in searches() {
            let recommender = trained.clone().with_config(config).unwrap();
            match recommender.recommend(&[History { user: Some("a"), items: &items }], 5) {
                Ok(found) => {
                    answered += 1;
                    assert!(found[0].iter().all(|found| found.score.is_finite()), "weights times {factor}: {found:?}");
                }
                Err(error) => {
                    refused += 1;
                    let expected = matches!(
                        error,
                        Error::Decode(DecodeError::NotALogProb { .. } | DecodeError::NotLogProbs { .. })
                    );
                    assert!(expected, "weights times {factor}: {}", told(&error));
                }
            }
        }
        parameters.restore(&before).unwrap();
    }
    eprintln!("of models with weights of any size {answered} answered and {refused} were refused");
    assert!(answered > 0 && refused > 0);
}

#[test]
fn sequences_of_any_length_are_refused_or_have_a_loss() {
    let model = T5::new(T5Config::cpu(20).with_layers(1, 1).with_d_model(8).with_heads(2, 4), 1, &Device::Cpu).unwrap();
    let long = vec![5; 1_500];
    let loss = |rows: &[(&[u32], &[u32])]| {
        let mut batch = RaggedBatch::new();
        rows.iter().for_each(|(source, target)| batch.push(source, target).unwrap());
        model.loss(&batch).map_err(|error| error.to_string())
    };
    assert!(loss(&[(&[3], &[4])]).unwrap().is_finite());
    assert!(loss(&[(&long, &[4, 5]), (&[3], &[4, 5])]).unwrap().is_finite());
    assert!(loss(&[(&[3], &long)]).unwrap().is_finite());
    for (rows, expected) in [
        (&[][..], "the batch holds no sequence"),
        (&[(&[3][..], &[4][..]), (&[], &[4])], "sequence 1 is empty"),
        (&[(&[3], &[])], "the batch has no labels"),
        (&[(&[20], &[4])], "token 20 at position 0"),
        (&[(&[3], &[u32::MAX])], "label 4294967295"),
    ] {
        let error = loss(rows).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    let sasrec = SasRec::new(SasRecConfig::new(20).with_max_len(8).with_d_model(8), 1, &Device::Cpu).unwrap();
    let sequences = |rows: &[&[u32]]| {
        let mut batch = RaggedBatch::new();
        rows.iter().for_each(|row| batch.push(row, &[]).unwrap());
        batch
    };
    assert!(sasrec.loss(&sequences(&[&long, &[1, 2], &[1]])).unwrap().is_finite());
    assert!(sasrec.loss(&sequences(&[&[1], &[]])).unwrap_err().to_string().contains("nothing to predict"));
    assert!(sasrec.loss(&sequences(&[])).unwrap_err().to_string().contains("holds no sequence"));
    let scores = sasrec.scores(&sequences(&[&long, &[1]])).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(scores.iter().all(|score| score.is_finite()));
}

/// Batches of one sequence.
struct One;

impl BatchSource for One {
    type Batch = RaggedBatch;

    fn num_batches(&self, _epoch: u32) -> usize {
        4
    }

    fn batch(&self, _epoch: u32, index: usize) -> Result<RaggedBatch, BoxError> {
        let mut batch = RaggedBatch::new();
        batch.push(&[index as u32 + 3], &[4, 5])?;
        Ok(batch)
    }

    fn num_examples(&self) -> usize {
        4
    }
}

#[test]
fn training_at_any_rate_ends_by_name_or_in_numbers() {
    let shape = T5Config::cpu(20).with_layers(1, 1).with_d_model(8).with_heads(2, 4);
    let mut stopped = 0;
    for rate in [1e-300, 1e-3, 1e3, 1e30, 1e300] {
        let model = T5::new(shape.clone(), 1, &Device::Cpu).unwrap();
        let config =
            TrainConfig::default().with_learning_rate(rate).with_epochs(Some(2)).with_validate_every(Every::Steps(3));
        let mut metric = |model: &T5| -> Result<f64, BoxError> { Ok(-f64::from(model.loss(&One.batch(0, 0)?)?)) };
        match Trainer::new(config).unwrap().fit(&model, &One, &mut metric, &mut (), None) {
            Ok(report) => assert!(report.best_metric.is_some_and(f64::is_finite)),
            Err(TrainError::NonFinite { .. }) => stopped += 1,
            Err(error) => panic!("rate {rate}: {}", told(&error)),
        }
    }
    assert!(stopped > 0);
}

/// Users with no item, one, two, and all of them; a catalogue of hardly any.
#[test]
fn sequences_too_short_to_train_on_are_left_out_or_named() {
    let mut quiet = |_: &Event<'_>| {};
    let mut run = |sequences: &[&[u32]]| {
        let shop = tiny::shop();
        let mut all = Sequences::new();
        for (user, items) in sequences.iter().enumerate() {
            all.push(&format!("u{user}"), &items.iter().copied().map(ItemId).collect::<Vec<_>>())?;
        }
        let dataset = Dataset::new("short", shop.catalogue, all)?;
        let dir = in_memory();
        pipeline::run(&dataset, &tiny::config(), dir.path(), &Device::Cpu, None, false, &mut quiet).map(drop)
    };
    let everything: Vec<u32> = (0..40).collect();
    let repeated = [7; 60];
    run(&[&[], &[1], &[1, 2], &[1, 2, 3, 4], &everything, &repeated]).unwrap();
    run(&[&[1, 2, 3, 4]]).unwrap();
    for sequences in [&[][..], &[&[][..]], &[&[1], &[2, 3]]] {
        let error = run(sequences).unwrap_err();
        assert!(matches!(error, Error::NoTargets { .. }), "{}", told(&error));
    }
    let error = run(&[&[1, 2, 3, 40]]).unwrap_err();
    assert!(matches!(error, Error::Data(_)), "{}", told(&error));
}
