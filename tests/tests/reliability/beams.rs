//! Sequences decoded from models that know nothing, over indexes that were never trained on: whatever is recommended is an item that
//! is there, that may be recommended, and that is not in the list twice.
//!
//! `GENREC_BEAMS` sets how many beams are decoded in all: 20,000 by default, a million in the long form.

use std::collections::HashSet;

use candle_core::Device;
use genrec::{
    DecodeConfig, History, Searcher, Wanted,
    decode::{
        AnySearch, Catalogue, ColdStart, DeviceBeamSearch, DeviceCatalogue, DiverseBeamSearch, ExactSearch, PerLevel,
        Resolve, Sampling, Shape,
    },
    index::{CollisionPolicy, ItemFilter, ItemId, SidIndex, SidLayout, SidVocab},
    kernels::CounterRng,
    model::{
        RaggedBatch,
        t5::{T5, T5Config},
    },
};
use genrec_tests::setting;
use ndarray::Array2;

/// Numbers for one trial, one after the other.
struct Dice {
    rng: CounterRng,
    thrown: u64,
}

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.thrown += 1;
        self.rng.below(self.thrown, n)
    }

    fn among(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }
}

/// An index of any shape, some of whose items came later and some of whose are gone.
fn index(dice: &mut Dice) -> SidIndex {
    let sizes: Vec<u32> = (0..dice.among(1, 4)).map(|_| dice.among(2, 12) as u32).collect();
    let (items, levels) = (dice.among(12, 300) as usize, sizes.len());
    let policy = if dice.below(3) == 0 { CollisionPolicy::Share } else { CollisionPolicy::Suffix };
    let layout = SidLayout::new(sizes.clone()).unwrap();
    let layout =
        if policy == CollisionPolicy::Share { layout.without_suffix() } else { layout.with_suffix(items as u32 + 20) };
    let mut codes =
        |rows| Array2::from_shape_fn((rows, levels), |(_, level)| dice.below(u64::from(sizes[level])) as u32);
    let (first, later) = (codes(items), codes(10));
    let mut index = SidIndex::from_codes(layout, first.view(), policy).unwrap();
    index.extend(later.view()).unwrap();
    for _ in 0..dice.below(6) {
        index.remove(ItemId(dice.below(u64::from(index.id_bound())) as u32));
    }
    if dice.below(2) == 0 {
        index.compact().unwrap();
    }
    index
}

/// Each way to decode in its turn.
fn config(dice: &mut Dice, trial: u64) -> DecodeConfig {
    let beams = dice.among(1, 50) as usize;
    let shape = || {
        let mut shape = Shape::default();
        shape.temperature = PerLevel::Each(vec![0.3, 4.0]);
        shape.top_k = Some(PerLevel::All(5));
        shape.top_p = Some(PerLevel::All(0.9));
        shape
    };
    let sampling = Sampling::new(beams, trial);
    let config = DecodeConfig::default().with_beams(beams).with_user_tokens(3).with_users_per_batch(16);
    let config = match trial % 9 {
        0 | 1 => config,
        2 => config.with_search(AnySearch::Sampling(sampling)),
        3 => config.with_search(AnySearch::Sampling(sampling.with_shape(shape()))),
        4 => config.with_search(AnySearch::Sampling(sampling.with_shape(shape()).with_replacement())),
        5 => config.with_search(AnySearch::Diverse(DiverseBeamSearch::new(beams, beams.min(3)))),
        6 => config.with_search(AnySearch::Exact(ExactSearch::new(beams))),
        7 => config.with_free(Resolve::Exact).with_widen_to(4 * beams),
        _ => config.with_free(Resolve::LongestPrefix { at_least: dice.below(3) as usize }),
    };
    let config = config.with_exclude_history(dice.below(2) == 0);
    if trial % 9 < 7 && dice.below(4) == 0 { config.with_cold_start(ColdStart::new(0.3)) } else { config }
}

#[test]
fn what_is_recommended_is_there_and_allowed_and_once() {
    let most = setting("GENREC_BEAMS", 20_000);
    let (mut beams, mut listed, mut trial) = (0, 0, 0);
    while beams < most {
        let mut dice = Dice { rng: CounterRng::new(15).stream(trial), thrown: 0 };
        let index = index(&mut dice);
        let vocab = SidVocab::new(index.layout(), 3).unwrap();
        let shape = T5Config::cpu(vocab.size()).with_layers(1, 1).with_d_model(8).with_heads(2, 4).with_d_ff(8);
        let model = T5::new(shape, trial, &Device::Cpu).unwrap();
        let items: Vec<ItemId> = index.sids().map(|(item, _)| item).collect();
        let histories: Vec<Vec<ItemId>> = (0..20)
            .map(|_| (0..dice.among(1, 6)).map(|_| items[dice.below(items.len() as u64) as usize]).collect())
            .collect();
        let users: Vec<History<'_>> = histories.iter().map(|items| History { user: Some("a user"), items }).collect();
        let share = dice.among(1, 4) as u32;
        // Six at the most are of one history, ten at the most are gone: some of the twelve first and ten later are left.
        let filter = ItemFilter::matching(&index, |item| item.0 % 4 < share || item.0 >= index.id_bound() - 9);
        let unseen: Vec<bool> = (0..index.id_bound()).map(|item| item % 5 > 0).collect();
        let config = config(&mut dice, trial);
        let wanted = Wanted::any().with_filter("some", &filter);
        let searcher = Searcher::new(&index, &vocab, &config).with_seen(&unseen);
        let k = dice.among(1, 30) as usize;
        let ranked = searcher.rank_wanted(&model, &users, k, &wanted, &mut |_, _| {}).unwrap();
        for (history, ranked) in histories.iter().zip(&ranked) {
            let mut seen = HashSet::new();
            for &(item, score) in &ranked.items {
                assert!(index.contains(item), "trial {trial}: item {item} is not in the index");
                assert!(filter.allows(&index, item), "trial {trial}: item {item} was left out");
                assert!(!config.exclude_history || !history.contains(&item), "trial {trial}: item {item} was had");
                assert!(seen.insert(item), "trial {trial}: item {item} comes twice");
                assert!(score.is_finite() && score < 1e-3, "trial {trial}: item {item} has the score {score}");
            }
            if config.free.is_none() {
                assert!(ranked.generated.iter().all(Option::is_some), "trial {trial}: a sequence is no item");
                let held_back = config.cold_start.is_some();
                assert!(held_back || !ranked.items.is_empty(), "trial {trial}: nothing was found");
            }
            beams += ranked.generated.len() as u64;
            listed += ranked.items.len() as u64;
        }
        beams += on_device(&model, &index, &vocab, &filter, config.beams);
        trial += 1;
    }
    eprintln!(
        "{beams} beams of {trial} models and indexes, {listed} items listed: all in the index, allowed, and once"
    );
}

/// The search for GPUs, which the processor does too.
fn on_device(model: &T5, index: &SidIndex, vocab: &SidVocab, filter: &ItemFilter, beams: usize) -> u64 {
    let catalogue = Catalogue::new(index, vocab).unwrap().filtered("some", filter).unwrap();
    let tables = DeviceCatalogue::new(&catalogue, &Device::Cpu).unwrap();
    let mut batch = RaggedBatch::new();
    batch.push(&[vocab.user("a user").unwrap()], &[]).unwrap();
    let found = DeviceBeamSearch::new(beams).decode(model, &batch, &tables).unwrap().remove(0);
    let resolved =
        Resolve::Exact.resolve_where(index, vocab, &found, beams, |item| filter.allows(index, item)).unwrap();
    assert_eq!(resolved.invalid, 0);
    let sequences: HashSet<_> = found.iter().map(|hypothesis| &hypothesis.tokens).collect();
    assert!(!found.is_empty() && sequences.len() == found.len(), "a sequence comes twice");
    let allowed = |tokens: &[u32]| {
        let sid = vocab.decode_tokens(tokens).unwrap();
        index.items_with_sid(&sid).any(|item| filter.allows(index, item))
    };
    assert!(found.iter().all(|hypothesis| allowed(&hypothesis.tokens)));
    found.len() as u64
}
