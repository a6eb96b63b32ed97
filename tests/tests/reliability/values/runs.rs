//! Embeddings and texts that nobody means, through a whole run.

use candle_core::Device;
use genrec::{
    Error, History, Recommender,
    artifacts::RunDir,
    data::{Catalogue, Dataset, Item},
    embed::{AnyEmbedder, Embedder, EmbedderSpec, TfidfConfig, io::write_npy},
    index::ItemId,
    pipeline::{self, EmbeddingSource, Event},
};
use genrec_tests::told;
use ndarray::{Array1, Array2};

use crate::{in_memory, tiny};

const DIM: usize = 6;

fn run(dataset: &Dataset, embedder: EmbeddingSource) -> Result<Recommender, Error> {
    let dir = in_memory();
    let mut quiet = |_: &Event<'_>| {};
    let config = tiny::config().with_embedder(embedder);
    let recommender = pipeline::run(dataset, &config, dir.path(), &Device::Cpu, None, false, &mut quiet)?.recommender;
    let run = RunDir::new(dir.path());
    run.verify()?;
    let report = std::fs::read_to_string(run.report()).unwrap();
    assert!(!report.contains("null"), "a figure of the report is no number: {report}");
    Ok(recommender)
}

fn answers_in_numbers(recommender: &Recommender) {
    let items = [ItemId(1), ItemId(0)];
    let found = recommender.recommend(&[History { user: None, items: &items }], 10).unwrap();
    assert!(!found[0].is_empty() && found[0].iter().all(|found| found.score.is_finite()));
}

#[test]
fn a_run_of_any_embeddings_fails_by_name_or_recommends() {
    let dataset = tiny::shop();
    let items = dataset.catalogue.len();
    let sane = Array2::from_shape_fn((items, DIM), |(row, column)| ((row * 7 + column * 5) % 23) as f32 / 23.0 - 0.5);
    let with = |value: f32| {
        let mut rows = sane.clone();
        rows[[13, 4]] = value;
        rows
    };
    let dir = in_memory();
    let path = dir.path().join("embeddings.npy");
    for (what, rows, expected) in [
        ("a NaN", with(f32::NAN), Some("not finite")),
        ("an infinity", with(f32::INFINITY), Some("not finite")),
        ("one f32::MAX", with(f32::MAX), Some("the loss became inf")),
        ("1e30", sane.mapv(|value| value * 1e30), Some("the loss became inf")),
        ("1e15", sane.mapv(|value| value * 1e15), None),
        ("denormals", sane.mapv(|value| value * 1e-40), Some("share the codes")),
        ("all equal", Array2::from_elem((items, DIM), 0.3), Some("share the codes")),
        ("zeros", Array2::zeros((items, DIM)), Some("share the codes")),
        ("no row", Array2::zeros((0, DIM)), Some("the embeddings has 0")),
        ("no column", Array2::zeros((items, 0)), Some("columns")),
    ] {
        write_npy(&path, rows.view()).unwrap();
        match (run(&dataset, EmbeddingSource::Npy { path: path.clone() }), expected) {
            (Ok(recommender), None) => answers_in_numbers(&recommender),
            (Err(error), Some(expected)) => {
                let said = told(&error);
                assert!(!matches!(error, Error::Tensor(_)) && said.contains(expected), "{what}: {said}");
            }
            (Ok(_), Some(expected)) => panic!("{what} was taken, where it should be refused: {expected}"),
            (Err(error), None) => panic!("{what}: {}", told(&error)),
        }
    }
}

#[test]
fn an_item_of_any_embedding_is_refused_or_added() {
    let dir = in_memory();
    let mut recommender = tiny::run(dir.path());
    let width = 4;
    let items = recommender.catalogue().len();
    for (number, (value, taken)) in
        [(f32::NAN, false), (f32::INFINITY, false), (1e30, true), (f32::MIN, true), (1e-40, true)]
            .into_iter()
            .enumerate()
    {
        let added = recommender
            .add_item_with_embedding(Item::new(format!("new {number}")), Array1::from_elem(width, value).view());
        assert_eq!(added.is_ok(), taken, "{value}: {added:?}");
    }
    let wide = recommender.add_item_with_embedding(Item::new("wide"), Array1::zeros(width + 1).view());
    assert!(matches!(wide, Err(Error::EmbeddingDim { expected: 4, got: 5 })), "{wide:?}");
    assert_eq!(recommender.catalogue().len(), items + 3);
    answers_in_numbers(&recommender);
}

#[test]
fn texts_of_any_length_are_refused_or_embedded() {
    let long = "soap ".repeat(200_000);
    for texts in
        [&[][..], &[""], &["soap"], &["", "", ""], &["soap"; 5], &["\u{0}", "\u{feff}", "\u{202e}x"], &[&long, ""]]
    {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        let every_word = EmbedderSpec::Tfidf(TfidfConfig::default().with_dim(4).with_min_df(1).with_max_df(1.0));
        let embedder = match AnyEmbedder::fit(&every_word, &texts, &Device::Cpu) {
            Ok(embedder) => embedder,
            Err(error) => {
                let said = told(&error);
                assert!(!texts.iter().any(|text| text.contains("soap")), "{said}");
                assert!(said.contains("leave no term"), "{texts:?}: {said}");
                continue;
            }
        };
        let rows = embedder.embed(&[texts, vec![String::new(), "another word".to_owned()]].concat()).unwrap();
        assert!(rows.iter().all(|value| value.is_finite()));
    }
    // A catalogue whose items have one text, and one whose items have none.
    for (title, expected) in [(Some("soap"), "share the codes"), (None, "leave no term")] {
        let shop = tiny::shop();
        let items = shop.catalogue.items().iter().map(|item| {
            let mut bare = Item::new(item.id.clone());
            bare.title = title.map(str::to_owned);
            bare
        });
        let catalogue = Catalogue::from_items(items.collect()).unwrap();
        let dataset = Dataset::new("bare", catalogue, shop.sequences).unwrap();
        let every_word = EmbedderSpec::Tfidf(TfidfConfig::default().with_dim(4).with_min_df(1).with_max_df(1.0));
        let said = told(&run(&dataset, EmbeddingSource::Text { embedder: every_word }).unwrap_err());
        assert!(said.contains(expected), "{title:?}: {said}");
    }
}
