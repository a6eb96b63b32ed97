use proptest::prelude::*;

use super::*;

fn texts() -> Vec<String> {
    let colours = ["red", "blue", "green", "pink", "black"];
    let things = ["nail polish", "hair dryer", "shampoo bottle", "eye shadow palette", "lip balm"];
    let brands = ["acme", "zeta", "orion"];
    (0..60).map(|i| format!("Title: {} {}\nBrand: {}", colours[i % 5], things[(i / 5) % 5], brands[i % 3])).collect()
}

fn config() -> TfidfConfig {
    TfidfConfig::default().with_dim(8)
}

fn bits(rows: &Array2<f32>) -> Vec<u32> {
    rows.iter().map(|value| value.to_bits()).collect()
}

fn cosine(rows: &Array2<f32>, a: usize, b: usize) -> f32 {
    rows.row(a).dot(&rows.row(b))
}

#[test]
fn items_of_one_kind_are_nearer_than_others() {
    let tfidf = Tfidf::fit(&texts(), config()).unwrap();
    let unseen = ["purple nail polish", "red nail polish", "silent hair dryer", "quantum flux"].map(str::to_owned);
    let rows = tfidf.embed(&unseen).unwrap();
    assert_eq!(rows.dim(), (4, 8));
    assert!(cosine(&rows, 0, 1) > cosine(&rows, 0, 2) + 0.3);
    assert!((cosine(&rows, 1, 1) - 1.0).abs() < 1e-5);
    assert!(rows.row(3).iter().all(|value| *value == 0.0), "no known term");
}

#[test]
fn one_seed_gives_the_same_bytes_at_any_number_of_threads() {
    let run = |threads, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let tfidf = Tfidf::fit(&texts(), config().with_seed(seed)).unwrap();
            (bits(&tfidf.embed(&texts()).unwrap()), tfidf.fingerprint())
        })
    };
    let (rows, fingerprint) = run(1, 0);
    assert_eq!((rows.clone(), fingerprint.clone()), run(2, 0));
    assert_eq!((rows, fingerprint.clone()), run(3, 0));
    assert_ne!(fingerprint, run(1, 7).1, "the seed is part of the fingerprint");
}

#[test]
fn the_width_is_bounded_by_the_rank() {
    let twice = ["a b".to_owned(), "a b".to_owned()];
    let tfidf = Tfidf::fit(&twice, TfidfConfig::default().with_max_df(1.0)).unwrap();
    assert_eq!((tfidf.dim(), tfidf.vocabulary_size()), (1, 3));
    assert!(matches!(Tfidf::fit(&[], config()), Err(EmbedError::EmptyVocabulary { texts: 0, .. })));
    assert!(matches!(Tfidf::fit(&twice, config().with_dim(0)), Err(EmbedError::Config { field: "dim", .. })));
}

#[test]
fn saved_and_loaded_it_embeds_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let tfidf = Tfidf::fit(&texts(), config().with_char_ngrams(3, 4)).unwrap();
    tfidf.save(dir.path()).unwrap();
    let loaded = Tfidf::load(dir.path()).unwrap();
    assert_eq!(loaded.fingerprint(), tfidf.fingerprint());
    assert_eq!(loaded.config(), tfidf.config());
    let unseen = ["pink eye palette".to_owned(), String::new()];
    assert_eq!(bits(&loaded.embed(&unseen).unwrap()), bits(&tfidf.embed(&unseen).unwrap()));
}

#[test]
fn a_changed_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    Tfidf::fit(&texts(), config()).unwrap().save(dir.path()).unwrap();
    let edit = |name: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(at(name)).unwrap();
        assert!(text.contains(from));
        std::fs::write(at(name), text.replacen(from, to, 1)).unwrap();
        let result = Tfidf::load(dir.path());
        std::fs::write(at(name), text).unwrap();
        result.unwrap_err()
    };
    assert!(matches!(edit("vocabulary.json", "\"acme\"", "\"acmd\""), EmbedError::HashMismatch { .. }));
    assert!(matches!(edit("vocabulary.json", "\"acme\"", "\"zzz\""), EmbedError::Array { .. }));
    assert!(matches!(edit("vocabulary.json", "[", ""), EmbedError::Json { .. }));
    assert!(matches!(edit("config.json", "\"seed\": 0", "\"seed\": 1"), EmbedError::HashMismatch { .. }));
    assert!(matches!(edit("config.json", "\"tfidf\"", "\"bert\""), EmbedError::Unsupported { .. }));
    assert!(matches!(
        edit("config.json", "\"format_version\": 1", "\"format_version\": 2"),
        EmbedError::FormatVersion { got: 2, supported: 1, .. }
    ));
    let mut weights = std::fs::read(at("model.safetensors")).unwrap();
    *weights.last_mut().unwrap() ^= 1;
    std::fs::write(at("model.safetensors"), weights).unwrap();
    assert!(matches!(Tfidf::load(dir.path()), Err(EmbedError::HashMismatch { .. })));
    std::fs::remove_file(at("model.safetensors")).unwrap();
    assert!(matches!(Tfidf::load(dir.path()), Err(EmbedError::Io { .. })));
}

#[test]
fn progress_ends_with_every_text() {
    let tfidf = Tfidf::fit(&texts(), config()).unwrap();
    let many: Vec<String> = texts().into_iter().cycle().take(CHUNK + 1).collect();
    let mut calls = Vec::new();
    tfidf.embed_with(&many, &mut |done, all| calls.push((done, all))).unwrap();
    assert_eq!(calls, [(CHUNK, CHUNK + 1), (CHUNK + 1, CHUNK + 1)]);
    assert_eq!(tfidf.embed(&[]).unwrap().dim(), (0, 8));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_row_depends_on_its_text_alone(mut order in Just((0..20).collect::<Vec<usize>>()).prop_shuffle(), keep in 1_usize..20) {
        let tfidf = Tfidf::fit(&texts(), config()).unwrap();
        let all = tfidf.embed(&texts()).unwrap();
        order.truncate(keep);
        let some: Vec<String> = order.iter().map(|i| texts()[*i].clone()).collect();
        prop_assert_eq!(tfidf.embed(&some).unwrap(), all.select(ndarray::Axis(0), &order));
    }

    #[test]
    fn any_text_embeds_to_a_unit_row_or_zeros(text in ".{0,40}") {
        let tfidf = Tfidf::fit(&texts(), config().with_char_ngrams(1, 2)).unwrap();
        let rows = tfidf.embed(&[text]).unwrap();
        let norm = rows.row(0).dot(&rows.row(0));
        prop_assert!(norm == 0.0 || (norm - 1.0).abs() < 1e-5);
    }
}
