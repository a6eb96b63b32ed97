use std::cell::RefCell;

use super::*;

/// Numbers each text by a hash, and notes what it was asked for.
struct Counting {
    name: &'static str,
    asked: RefCell<Vec<String>>,
    fail_after: usize,
}

impl Counting {
    fn new(name: &'static str) -> Self {
        Self { name, asked: RefCell::default(), fail_after: usize::MAX }
    }
}

impl Embedder for Counting {
    fn dim(&self) -> usize {
        3
    }

    fn fingerprint(&self) -> String {
        self.name.to_owned()
    }

    fn embed_with(&self, texts: &[String], progress: &mut dyn FnMut(usize, usize)) -> Result<Array2<f32>> {
        self.asked.borrow_mut().extend_from_slice(texts);
        if self.asked.borrow().len() > self.fail_after {
            return Err(EmbedError::NotFitted);
        }
        progress(texts.len(), texts.len());
        Ok(Array2::from_shape_fn((texts.len(), 3), |(row, column)| {
            f32::from(key(self.name, &texts[row])[column]) / 7.0
        }))
    }
}

fn texts(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("text {i}")).collect()
}

fn run(cache: &EmbeddingCache, embedder: &Counting, texts: &[String]) -> Result<Array2<f32>> {
    cache.embed_with(embedder, texts, &mut |_, _| {})
}

#[test]
fn only_missing_texts_are_embedded_and_rows_come_back_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let cache = EmbeddingCache::open(dir.path().join("new/cache")).unwrap();
    let embedder = Counting::new("a");
    let first = run(&cache, &embedder, &texts(0..5)).unwrap();
    let mut mixed = texts(3..8);
    mixed.push("text 7".to_owned());
    let mut calls = Vec::new();
    let second = cache.embed_with(&embedder, &mixed, &mut |done, all| calls.push((done, all))).unwrap();
    assert_eq!(*embedder.asked.borrow(), texts(0..8), "three were there, one is twice");
    assert_eq!(second.row(0), first.row(3));
    assert_eq!(second.row(4), second.row(5));
    assert_eq!(calls.last(), Some(&(6, 6)));
    assert_eq!(run(&cache, &embedder, &texts(0..5)).unwrap(), first);
    assert_eq!(embedder.asked.borrow().len(), 8);
    assert_eq!(run(&cache, &embedder, &[]).unwrap().dim(), (0, 3));
}

#[test]
fn another_fingerprint_shares_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cache = EmbeddingCache::open(dir.path()).unwrap();
    let (a, b) = (Counting::new("a"), Counting::new("b"));
    assert_ne!(run(&cache, &a, &texts(0..2)).unwrap(), run(&cache, &b, &texts(0..2)).unwrap());
    assert_eq!(b.asked.borrow().len(), 2);
}

#[test]
fn chunks_done_before_a_failure_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let cache = EmbeddingCache::open(dir.path()).unwrap();
    let failing = Counting { fail_after: CHUNK, ..Counting::new("a") };
    assert!(run(&cache, &failing, &texts(0..CHUNK + 10)).is_err());
    let embedder = Counting::new("a");
    run(&cache, &embedder, &texts(0..CHUNK + 10)).unwrap();
    assert_eq!(*embedder.asked.borrow(), texts(CHUNK..CHUNK + 10));
}

#[test]
fn damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let cache = EmbeddingCache::open(dir.path()).unwrap();
    let embedder = Counting::new("a");
    run(&cache, &embedder, &texts(0..2)).unwrap();
    let path = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&path).unwrap();
    let payload = whole.len() - (32 + 2 * 3 * 4 + 2 * 32);
    for at in payload..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        fs::write(&path, damaged).unwrap();
        let error = run(&cache, &embedder, &texts(0..2)).unwrap_err();
        assert!(matches!(error, EmbedError::Array { problem: ArrayProblem::Checksum, .. }), "byte {at}: {error}");
    }
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let error = run(&cache, &embedder, &texts(0..2)).unwrap_err();
    assert!(matches!(error, EmbedError::Array { problem: ArrayProblem::Safetensors(_), .. }));
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cache = EmbeddingCache::open(dir.path()).unwrap();
    let embedder = Counting::new("a");
    run(&cache, &embedder, &texts(0..2)).unwrap();
    let path = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let (old, new) = (&br#""format_version":"1""#[..], &br#""format_version":"2""#[..]);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(old.len()).position(|window| window == old).unwrap();
    bytes[at..at + new.len()].copy_from_slice(new);
    fs::write(&path, bytes).unwrap();
    let error = run(&cache, &embedder, &texts(0..2)).unwrap_err();
    assert!(matches!(error, EmbedError::FormatVersion { got: 2, supported: 1, .. }), "{error}");
}

#[test]
fn a_wrong_shape_is_refused() {
    struct Wrong;
    impl Embedder for Wrong {
        fn dim(&self) -> usize {
            3
        }
        fn fingerprint(&self) -> String {
            String::new()
        }
        fn embed_with(&self, texts: &[String], _: &mut dyn FnMut(usize, usize)) -> Result<Array2<f32>> {
            Ok(Array2::zeros((texts.len(), 2)))
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let cache = EmbeddingCache::open(dir.path()).unwrap();
    let result = cache.embed_with(&Wrong, &texts(0..1), &mut |_, _| {});
    assert!(matches!(result, Err(EmbedError::Shape { expected: (1, 3), got: (1, 2) })));
}
