//! Settings and descriptions that are JSON alone. The first byte of an input picks the reader, the rest is the file.

use std::{error::Error, fmt::Debug, path::Path};

use genrec::{
    DecodeConfig, artifacts,
    data::{BatchConfig, Item, Prepare, ReadOptions, SyntheticConfig, WindowConfig, readers::tabular},
    decode::{AnySearch, ColdStart, Resolve, Shape},
    embed::{EmbedderSpec, TextTemplate, TfidfConfig},
    index::{IndexError, Reassign, SemanticId, SidLayout, SidVocab},
    kernels::optim::{OptimizerConfig, Schedule},
    model::t5::T5Config,
    pipeline::{Manifest, Report, TigerConfig},
    quantize::{QuantizerConfig, usage::NeighbourConfig},
    train::{Progress, TrainConfig},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{put, tell, told};

type Reader = fn(&[u8], &Path);

/// One for each kind of file or part of one; a number keeps its reader, or the kept inputs would change their meaning.
pub const READERS: [(&str, Reader); 22] = [
    ("run.json", |json, dir| versioned(json, dir, |run: &Manifest| run.config.validate())),
    ("decode.json", |json, dir| versioned(json, dir, DecodeConfig::validate)),
    ("tiger", |json, _| check(json, TigerConfig::validate)),
    ("quantizer", |json, _| {
        let read = plain(json, QuantizerConfig::validate);
        let _ = read.map(|config| (config.codebook_sizes(), config.with_seed(1)));
    }),
    ("t5", |json, _| check(json, T5Config::validate)),
    ("embedder", |json, _| check(json, valid::<EmbedderSpec>)),
    ("tfidf", |json, _| check(json, TfidfConfig::validate)),
    ("train", |json, _| check(json, TrainConfig::validate)),
    ("optimizer", |json, _| check(json, OptimizerConfig::validate)),
    ("schedule", |json, _| {
        let Some(schedule) = plain(json, Schedule::validate) else { return };
        let finite = |step| assert!(schedule.factor(step).is_finite(), "{schedule:?} at {step}");
        [0, 1, 2, 1000, u64::MAX].into_iter().for_each(finite);
    }),
    ("search", |json, _| check(json, AnySearch::validate)),
    ("cold start", |json, _| {
        let _ = plain(json, ColdStart::validate).map(|start| [0, 1, 10, usize::MAX].map(|k| start.quota(k)));
    }),
    ("resolve", |json, _| check(json, valid::<Resolve>)),
    ("shape", |json, _| check(json, Shape::validate)),
    ("windows", |json, _| check(json, WindowConfig::validate)),
    ("batches", |json, _| check(json, BatchConfig::validate)),
    ("synthetic", |json, _| check(json, SyntheticConfig::validate)),
    ("data", |json, _| {
        check(json, Prepare::validate);
        check(json, ReadOptions::validate);
        check(json, valid::<tabular::InteractionColumns>);
        check(json, valid::<tabular::ItemColumns>);
    }),
    ("reassign", |json, _| check(json, Reassign::validate)),
    ("vocabulary", |json, _| {
        check(json, vocabulary);
        check(json, SidLayout::validate);
    }),
    ("results", |json, _| {
        // A `null` stands for a number that is not finite, which another reader could not know.
        tell(serde_json::from_slice::<Report>(json));
        tell(serde_json::from_slice::<Progress>(json));
    }),
    ("other parts", |json, _| {
        check(json, NeighbourConfig::validate);
        check(json, valid::<TextTemplate>);
        check(json, valid::<SemanticId>);
        check(json, valid::<Item>);
    }),
];

/// Reads an input; `dir` is for readers of files.
pub fn read(input: &[u8], dir: &Path) {
    let Some((&reader, json)) = input.split_first() else { return };
    READERS[usize::from(reader) % READERS.len()].1(json, dir);
}

/// Settings that are valid, where there are any: writing and reading them again must change nothing.
fn plain<T, E>(json: &[u8], validate: impl Fn(&T) -> Result<(), E>) -> Option<T>
where
    T: DeserializeOwned + Serialize + PartialEq + Debug,
    E: Error,
{
    sound(told(serde_json::from_slice(json))?, validate)
}

/// The same where nothing more is asked of them.
fn check<T, E>(json: &[u8], validate: impl Fn(&T) -> Result<(), E>)
where
    T: DeserializeOwned + Serialize + PartialEq + Debug,
    E: Error,
{
    plain(json, validate);
}

/// The same by the reader of files whose version is looked at first.
fn versioned<T, E>(json: &[u8], dir: &Path, validate: impl Fn(&T) -> Result<(), E>)
where
    T: DeserializeOwned + Serialize + PartialEq + Debug,
    E: Error,
{
    put(dir, "settings.json", json);
    told(artifacts::read_versioned(&dir.join("settings.json"))).and_then(|value| sound(value, validate));
}

fn sound<T, E>(value: T, validate: impl Fn(&T) -> Result<(), E>) -> Option<T>
where
    T: DeserializeOwned + Serialize + PartialEq + Debug,
    E: Error,
{
    told(validate(&value))?;
    let written = serde_json::to_vec(&value).expect("valid settings can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(again, value, "settings change when they are written and read again");
    Some(value)
}

/// For what has no invalid values.
#[allow(clippy::unnecessary_wraps, reason = "stands where a `validate` would")]
fn valid<T>(_: &T) -> Result<(), std::convert::Infallible> {
    Ok(())
}

/// A vocabulary finds each of its tokens again.
fn vocabulary(vocab: &SidVocab) -> Result<(), IndexError> {
    let positions = vocab.layout().positions();
    for position in (0..positions + 1).take(5) {
        let range = vocab.position_range(position);
        for token in [range.start, range.end.saturating_sub(1)].into_iter().filter(|token| range.contains(token)) {
            let code = vocab.code(token).expect("a token of a position is a code");
            assert_eq!((code.0, vocab.token(code.0, code.1)), (position, Some(token)));
        }
    }
    let user = vocab.user("someone");
    assert!(user.is_none_or(|user| vocab.user_range().contains(&user) && vocab.code(user).is_none()));
    let mut tokens = Vec::new();
    vocab.encode_sid(&vec![0; positions], &mut tokens)?;
    assert_eq!(vocab.decode_tokens(&tokens), Some(vec![0; positions].into()));
    Ok(())
}
