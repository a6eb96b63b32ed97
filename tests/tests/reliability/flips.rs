//! Files one bit of which is another, or whose end is cut off: whoever checks them says so.
//!
//! What is small is damaged in every way: each bit flipped, the file cut to each length. `GENREC_FLIPS` sets how many flips, and how
//! many cuts, each file of a run gets: 40 by default, those of a checkpoint and of an index all the same; above the number of bits of
//! its longest file, all. `GENREC_FLIPS_LARGE` sets how many flips and how many cuts a large index gets, and `GENREC_FLIPS_MIB` its
//! size: 20 and 4 MiB by default, 10,000 and 100 MiB in the long form.
//!
//! A damage may pass if it leaves a JSON text that says the same: a lost line break at the end, a digit that no number holds.

use std::{
    error::Error,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use candle_core::Device;
use genrec::{
    Recommender,
    artifacts::RunDir,
    embed::AnyEmbedder,
    index::{CodebookId, CollisionPolicy, ItemId, SidIndex, SidLayout},
    kernels::CounterRng,
    quantize::AnyQuantizer,
    train::{Checkpoint, Every, TrainConfig},
};
use genrec_tests::setting;
use ndarray::Array2;

use crate::{MEMORY, in_memory, tiny};

/// What is to find a damage.
type Check<'a> = &'a dyn Fn() -> Result<(), Box<dyn Error>>;

/// How much a file was damaged, and how often it said the same.
#[derive(Default)]
struct Damaged {
    flips: u64,
    cuts: u64,
    same: u64,
}

/// Damages each file of a directory, `most` bits and lengths of it, and asks every check after each damage.
fn damage(dir: &Path, most: u64, checks: &[Check<'_>]) -> Damaged {
    let mut damaged = Damaged::default();
    for path in files(dir) {
        let whole = fs::read(&path).unwrap();
        let rng = CounterRng::new(4).named(&path.file_name().unwrap().to_string_lossy());
        let some = |count: u64, stream: u64| -> Vec<u64> {
            match count <= most {
                true => (0..count).collect(),
                false => (0..most).map(|draw| rng.stream(stream).below(draw, count)).collect(),
            }
        };
        let mut put = |bytes: &[u8], what: &dyn Fn() -> String| {
            fs::write(&path, bytes).unwrap();
            let found = checks.iter().all(|check| check().is_err());
            if !found {
                assert!(says_the_same(&path, &whole, bytes), "{} of `{}` was not found", what(), path.display());
                damaged.same += 1;
            }
        };
        let (bits, lengths) = (some(8 * whole.len() as u64, 0), some(whole.len() as u64, 1));
        for &bit in &bits {
            let mut flipped = whole.clone();
            flipped[(bit / 8) as usize] ^= 1 << (bit % 8);
            put(&flipped, &|| format!("bit {bit}"));
        }
        for &length in &lengths {
            put(&whole[..length as usize], &|| format!("the cut to {length} bytes"));
        }
        damaged.flips += bits.len() as u64;
        damaged.cuts += lengths.len() as u64;
        fs::write(&path, whole).unwrap();
    }
    assert!(checks.iter().all(|check| check().is_ok()), "what was mended is refused");
    damaged
}

fn says_the_same(path: &Path, whole: &[u8], damaged: &[u8]) -> bool {
    let value = |bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    path.extension().is_some_and(|extension| extension == "json") && value(damaged) == value(whole)
}

/// Every file that says something.
fn files(dir: &Path) -> Vec<PathBuf> {
    let named = |path: &PathBuf| path.file_name().unwrap() != ".lock";
    genrec_tests::contents(dir).into_keys().map(|path| dir.join(path)).filter(named).collect()
}

fn tell(what: &str, Damaged { flips, cuts, same }: Damaged) {
    eprintln!("{what}: {flips} flipped bits and {cuts} cuts, found but for {same} that said the same");
}

/// Dense and sparse levels, a codebook, numbers without an item, and, where they may, items that share.
pub(crate) fn small_index(policy: CollisionPolicy) -> SidIndex {
    let codes = Array2::from_shape_fn((20, 2), |(item, level)| (item as u32 * [7, 11][level]) % 30);
    let layout = SidLayout::new(vec![30, 30]).unwrap();
    let layout = if policy == CollisionPolicy::Share { layout.without_suffix() } else { layout.with_suffix(4) };
    let mut index = SidIndex::from_codes(layout, codes.view(), policy).unwrap();
    index.insert(&[7, 11]).unwrap();
    index.remove(ItemId(4)).unwrap();
    index.with_codebook(CodebookId([7; 16]))
}

#[test]
fn every_bit_of_a_small_index_counts() {
    let dir = in_memory();
    let dir = dir.path();
    for policy in [CollisionPolicy::Suffix, CollisionPolicy::Share] {
        small_index(policy).save(dir).unwrap();
        let opened: Check<'_> = &|| Ok(SidIndex::open(dir).map(drop)?);
        let verified: Check<'_> = &|| Ok(SidIndex::open_mapped(dir)?.verify(dir)?);
        tell("a small index", damage(dir, u64::MAX, &[opened, verified]));
    }
}

#[test]
fn every_bit_of_a_checkpoint_counts() {
    let dir = in_memory();
    let config = TrainConfig::default().with_epochs(Some(1)).with_validate_every(Every::Epochs(1));
    tiny::train(config, 2, 1, Some(dir.path())).unwrap();
    let last = dir.path().join("last");
    let read: Check<'_> = &|| Ok(Checkpoint::read(&last).map(drop)?);
    tell("a checkpoint", damage(&last, u64::MAX, &[read]));
}

/// Whoever loads what nobody has verified may read other numbers than were written, and does not panic; weights of a quantiser have a
/// checksum that loading looks at.
#[test]
fn every_file_of_a_run_is_held_against_its_checksum() {
    let dir = in_memory();
    tiny::run(dir.path());
    let run = RunDir::new(dir.path());
    let found: Check<'_> = &|| {
        drop(Recommender::load(dir.path(), &Device::Cpu));
        drop(AnyEmbedder::load(run.embedder(), &Device::Cpu));
        Ok(run.verify().map(drop)?)
    };
    tell("a run", damage(dir.path(), setting("GENREC_FLIPS", 40), &[found]));

    let loaded: Check<'_> = &|| Ok(AnyQuantizer::load(run.quantizer(), &Device::Cpu).map(drop)?);
    let settings = run.quantizer().join("config.json");
    let text = fs::read(&settings).unwrap();
    fs::remove_file(run.quantizer().join("config.json")).unwrap();
    let put_back = || fs::write(&settings, &text).unwrap();
    let weights: Check<'_> = &|| {
        put_back();
        let loaded = loaded();
        fs::remove_file(&settings).unwrap();
        loaded
    };
    tell("weights of a quantiser", damage(&run.quantizer(), u64::MAX, &[weights]));
    put_back();
}

fn large_index(bytes: u64) -> SidIndex {
    // Eight and a half bytes an item, as `SidIndex` says of ten million.
    let items = (bytes * 2 / 17) as usize;
    let rng = CounterRng::new(9);
    let codes =
        Array2::from_shape_fn((items, 3), |(item, level)| rng.below(3 * item as u64 + level as u64, 256) as u32);
    SidIndex::from_codes(SidLayout::new(vec![256; 3]).unwrap(), codes.view(), CollisionPolicy::Suffix).unwrap()
}

#[test]
fn every_damage_of_a_large_index_is_found() {
    let _memory = MEMORY.lock().unwrap();
    let (count, mib) = (setting("GENREC_FLIPS_LARGE", 20), setting("GENREC_FLIPS_MIB", 4));
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    large_index(mib << 20).save(dir).unwrap();
    let path = dir.join("index.safetensors");
    let length = fs::metadata(&path).unwrap().len();
    let refused = |what: &dyn Fn() -> String| {
        assert!(SidIndex::open(dir).is_err(), "{} was opened", what());
        if let Ok(mapped) = SidIndex::open_mapped(dir) {
            assert!(mapped.verify(dir).is_err(), "{} was verified", what());
        }
    };
    let rng = CounterRng::new(6).named("large");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    for draw in 0..count {
        let bit = rng.below(draw, 8 * length);
        let (mut byte, at) = ([0], bit / 8);
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << (bit % 8)], at).unwrap();
        refused(&|| format!("with bit {bit} flipped it"));
        file.write_all_at(&byte, at).unwrap();
    }
    SidIndex::open_mapped(dir).unwrap().verify(dir).unwrap();
    // Longest first: each is cut from the one before.
    let mut lengths: Vec<u64> = (0..count).map(|draw| rng.stream(1).below(draw, length)).collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    for length in lengths {
        file.set_len(length).unwrap();
        refused(&|| format!("cut to {length} bytes it"));
    }
    eprintln!("an index of {length} bytes: {count} flipped bits and {count} cuts, all found by `open` and by `verify`");
}
