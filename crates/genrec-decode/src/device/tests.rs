use std::collections::BTreeSet;

use genrec_model::t5::{T5, T5Config};
use ndarray::Array2;
use proptest::prelude::*;
use sid_index::{CollisionPolicy, ItemId, SidIndex, SidLayout, SidVocab};

use super::*;
use crate::{
    beam::BeamSearch,
    decoder::Decoder,
    toy::{Fault, Toy},
};

struct World {
    index: SidIndex,
    vocab: SidVocab,
}

impl World {
    fn new(sizes: &[u32], rows: &[Vec<u32>]) -> Self {
        let layout = SidLayout::new(sizes.to_vec()).unwrap().with_suffix(64);
        let codes = Array2::from_shape_vec((rows.len(), sizes.len()), rows.concat()).unwrap();
        let vocab = SidVocab::new(&layout, 3).unwrap();
        Self { index: SidIndex::from_codes(layout, codes.view(), CollisionPolicy::Suffix).unwrap(), vocab }
    }

    fn catalogue(&self) -> Catalogue<'_> {
        Catalogue::new(&self.index, &self.vocab).unwrap()
    }

    fn toy(&self, seed: u64) -> Toy {
        // So many logits that no two scores are equal.
        Toy::new(self.vocab.size(), seed, 1 << 40)
    }
}

fn histories(count: u32) -> RaggedBatch {
    let mut batch = RaggedBatch::new();
    (0..count).for_each(|user| batch.push(&[3 + user, 9], &[]).unwrap());
    batch
}

fn on_cpu(catalogue: &Catalogue<'_>) -> DeviceCatalogue {
    DeviceCatalogue::new(catalogue, &Device::Cpu).unwrap()
}

proptest! {
    #[test]
    fn it_finds_what_the_search_on_the_host_finds(
        rows in proptest::collection::vec(proptest::collection::vec(0u32..5, 2), 1..40),
        seed in 0u64..1000,
        beams in 1usize..12,
        users in 1u32..4,
        left_out in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let world = World::new(&[5, 5], &rows);
        let catalogue = world.catalogue();
        let excluded = (0..rows.len() as u32).map(ItemId).filter(|item| left_out[item.0 as usize]);
        let catalogue = match catalogue.clone().excluding(excluded) {
            Ok(catalogue) => catalogue,
            Err(DecodeError::Emptied { .. }) => catalogue,
            Err(error) => panic!("{error}"),
        };
        let toy = world.toy(seed);
        let batch = histories(users);
        let expected = BeamSearch::new(beams).decode(&toy, &batch, std::slice::from_ref(&catalogue)).unwrap();
        let found = DeviceBeamSearch::new(beams).decode(&toy, &batch, &on_cpu(&catalogue)).unwrap();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn the_greatest_values_of_wide_rows(
        seed in any::<u32>(),
        width in 8_193usize..24_000,
        k in 1usize..100,
    ) {
        let value = |i: u32| (i.wrapping_mul(2_654_435_761) ^ seed) as f32;
        let row: Vec<f32> = (0..width as u32).map(value).collect();
        let values = Tensor::from_slice(&row, (1, width), &Device::Cpu).unwrap();
        let (best, places) = top(&values, k).unwrap();
        let (best, places) = (best.to_vec2::<f32>().unwrap(), places.to_vec2::<u32>().unwrap());
        let mut sorted = row.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        prop_assert_eq!(&best[0], &sorted[..k]);
        for (value, place) in best[0].iter().zip(&places[0]) {
            prop_assert_eq!(row[*place as usize], *value);
        }
    }
}

/// Through the caches of a real model: its graph, in single and in half precision.
#[test]
fn a_model_on_its_graph_is_searched_alike() {
    let rows: Vec<Vec<u32>> = (0..400u32).map(|i| vec![i % 16, i * 7 % 16, i * 5 % 3]).collect();
    let world = World::new(&[16, 16, 16], &rows);
    let mut config = T5Config::cpu(world.vocab.size()).with_d_model(16).with_heads(2, 8).with_d_ff(32);
    config.initializer_factor = 3.0;
    let single = T5::new(config, 3, &Device::Cpu).unwrap().with_autograd();
    let half = single.clone().with_compute_dtype(DType::F16).unwrap();
    let catalogue = world.catalogue().excluding((0..200).map(|item| ItemId(2 * item))).unwrap();
    for model in [single, half] {
        let batch = histories(3);
        let expected = BeamSearch::new(30).decode(&model, &batch, std::slice::from_ref(&catalogue)).unwrap();
        let found = DeviceBeamSearch::new(30).decode(&model, &batch, &on_cpu(&catalogue)).unwrap();
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found.log_prob - expected.log_prob).abs() < 1e-4, "{found:?} {expected:?}");
        }
        assert_eq!(found, DeviceBeamSearch::new(30).decode(&model, &batch, &on_cpu(&catalogue)).unwrap());
        let sets = |found: &[Vec<Hypothesis>]| -> Vec<BTreeSet<Vec<u32>>> {
            found.iter().map(|user| user.iter().map(|found| found.tokens.clone()).collect()).collect()
        };
        let same: usize = sets(&found).iter().zip(sets(&expected)).map(|(a, b)| a.intersection(&b).count()).sum();
        assert!(same >= 88, "{same} of 90");
    }
}

#[test]
fn wrong_input_is_refused() {
    let world = World::new(&[4, 4], &[vec![1, 2], vec![3, 0]]);
    let tables = on_cpu(&world.catalogue());
    let toy = world.toy(1);
    let decode = |search: DeviceBeamSearch, toy: &Toy, batch: &RaggedBatch| search.decode(toy, batch, &tables);
    let two = DeviceBeamSearch::new(2);
    assert!(matches!(decode(DeviceBeamSearch::new(0), &toy, &histories(1)), Err(DecodeError::NoBeams)));
    assert!(matches!(decode(DeviceBeamSearch::new(5000), &toy, &histories(1)), Err(DecodeError::TooManyBeams { .. })));
    assert!(matches!(decode(two, &toy, &RaggedBatch::new()), Err(DecodeError::EmptyBatch)));
    let small = Toy { vocab_size: 3, ..toy };
    assert!(matches!(decode(two, &small, &histories(1)), Err(DecodeError::UnknownToken { .. })));
    for (fault, text) in [(Fault::Rows, "rows"), (Fault::Width, "shape")] {
        let error = decode(two, &Toy { fault, ..toy }, &histories(2)).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn what_is_no_log_probability_is_an_error_and_probability_zero_is_none() {
    let world = World::new(&[4, 4], &[vec![1, 2], vec![3, 0]]);
    let tables = on_cpu(&world.catalogue());
    let token = world.vocab.position_range(1).start + 2;
    let decode = |value: f32| {
        let toy = Toy { fault: Fault::Value(1, token, value), ..world.toy(1) };
        DeviceBeamSearch::new(3).decode(&toy, &histories(2), &tables)
    };
    for value in [f32::NAN, f32::INFINITY] {
        assert!(matches!(decode(value), Err(DecodeError::NotLogProbs { step: 1 })));
    }
    // Of an item that is left out nothing is asked, as on the host.
    let others = on_cpu(&world.catalogue().excluding([ItemId(0)]).unwrap());
    let toy = Toy { fault: Fault::Value(1, token, f32::NAN), ..world.toy(1) };
    assert_eq!(DeviceBeamSearch::new(3).decode(&toy, &histories(1), &others).unwrap()[0].len(), 1);
    let found = decode(f32::NEG_INFINITY).unwrap();
    assert!(found.iter().all(|user| user.len() == 1 && !user[0].tokens.contains(&token)), "{found:?}");
}

/// The kernel that finds the continuations, beside the search on the host, over the same model.
#[test]
fn kernels_find_what_the_host_finds() {
    let Ok(gpu) = Device::new_cuda(0) else {
        eprintln!("NOT RUN: beam search in kernels (no GPU, or built without the feature `cuda`)");
        return;
    };
    let rows: Vec<Vec<u32>> = (0..900u32).map(|i| vec![i % 16, i * 7 % 16, i * 5 % 3]).collect();
    let world = World::new(&[16, 16, 16], &rows);
    let mut config = T5Config::cpu(world.vocab.size()).with_d_model(48).with_heads(2, 16).with_d_ff(32);
    config.initializer_factor = 3.0;
    for excluded in [0, 300] {
        let catalogue = world.catalogue().excluding((0..excluded).map(|item| ItemId(2 * item))).unwrap();
        let host = T5::new(config.clone(), 3, &Device::Cpu).unwrap();
        let model = T5::new(config.clone(), 3, &gpu).unwrap();
        let tables = DeviceCatalogue::new(&catalogue, &gpu).unwrap();
        for beams in [1, 7, 30, 700] {
            let batch = histories(5);
            let expected = BeamSearch::new(beams).decode(&host, &batch, std::slice::from_ref(&catalogue)).unwrap();
            let found = DeviceBeamSearch::new(beams).decode(&model, &batch, &tables).unwrap();
            assert_eq!(found, DeviceBeamSearch::new(beams).decode(&model, &batch, &tables).unwrap());
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.len(), expected.len());
                let same = found.iter().zip(expected).filter(|(a, b)| a.tokens == b.tokens).count();
                assert!(10 * same >= 9 * found.len(), "{same} of {}", found.len());
                for (found, expected) in found.iter().zip(expected) {
                    assert!((found.log_prob - expected.log_prob).abs() < 1e-3, "{found:?} {expected:?}");
                }
            }
        }
    }
}
