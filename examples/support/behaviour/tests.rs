#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use genrec::data::ItemId;

use super::*;

/// Users who stay within one of `blocks` blocks of ten items, each item with every other of its block.
fn planted(blocks: u32) -> Sequences {
    let mut sequences = Sequences::new();
    for block in 0..blocks {
        for user in 0..40_u32 {
            let items: Vec<ItemId> =
                (0..10).map(|at| ItemId(10 * block + (7 * at + user * (at % 3 + 1)) % 10)).collect();
            sequences.push(&format!("{block}-{user}"), &items).unwrap();
        }
    }
    sequences
}

fn cosine(rows: &Array2<f32>, a: usize, b: usize) -> f32 {
    rows.row(a).dot(&rows.row(b))
}

#[test]
fn the_last_step_of_a_user_is_the_one_that_is_tested() {
    let mut sequences = Sequences::new();
    sequences.push("ada", &[3, 1, 4, 2].map(ItemId)).unwrap();
    sequences.push("bob", &[3, 1].map(ItemId)).unwrap();
    assert_eq!(last_steps(&sequences), [[4, 2]]);
}

#[test]
fn planted_blocks_are_recovered() {
    let config = BehaviourConfig { dims: 4, ..BehaviourConfig::default() };
    let rows = embed(&planted(4), 42, &config).unwrap();
    assert_eq!(rows.dim(), (42, 4));
    for a in 0..40 {
        assert!((cosine(&rows, a, a) - 1.0).abs() < 1e-5);
        for b in 0..40 {
            let (same, cosine) = (a / 10 == b / 10, cosine(&rows, a, b));
            assert!(if same { cosine > 0.9 } else { cosine.abs() < 0.1 }, "items {a} and {b}: {cosine}");
        }
    }
    // Nobody bought the last two.
    assert!(rows.row(40).iter().chain(rows.row(41)).all(|&value| value == 0.0));
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let config = BehaviourConfig { dims: 4, ..BehaviourConfig::default() };
    let run = |seed| embed(&planted(4), 40, &BehaviourConfig { seed, ..config.clone() }).unwrap();
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn held_out_items_do_not_leak() {
    let build = |held_out: [u32; 2]| {
        let mut sequences = Sequences::new();
        for user in 0..20_u32 {
            let first = 2 * (user % 4);
            let items = [first, first + 1, first, held_out[0], held_out[1]].map(ItemId);
            sequences.push(&user.to_string(), &items).unwrap();
        }
        sequences
    };
    let config = BehaviourConfig { dims: 3, ..BehaviourConfig::default() };
    let rows = embed(&build([8, 9]), 10, &config).unwrap();
    assert_eq!(rows, embed(&build([2, 7]), 10, &config).unwrap(), "other targets, same embeddings");
    assert!(rows.row(8).iter().chain(rows.row(9)).all(|&value| value == 0.0));
    assert!(rows.row(0).iter().any(|&value| value != 0.0));
}

#[test]
fn mutual_information_is_that_of_the_counts() {
    let mut sequences = Sequences::new();
    // The last two are held out: training is 0 1 2.
    sequences.push("u", &[0, 1, 2, 3, 3].map(ItemId)).unwrap();
    let near = pairs(&sequences, 4, 1).unwrap();
    assert_eq!(near, [(0, 1, 1.0), (1, 0, 1.0), (1, 2, 1.0), (2, 1, 1.0)]);
    assert_eq!(pairs(&sequences, 4, 2).unwrap().len(), 6);
    // log(1 * 4 / (1 * 2)) for each.
    let values = mutual_information(&near, 4, 1.0);
    assert!(values.iter().all(|&(_, _, value)| (value - 2.0_f64.ln()).abs() < 1e-12) && values.len() == 4);
    assert!(mutual_information(&near, 4, 2.0).is_empty(), "a shift by two leaves nothing");
}

#[test]
fn what_is_wrong_is_said() {
    let message = |items, config: BehaviourConfig| embed(&planted(1), items, &config).unwrap_err().to_string();
    let config = BehaviourConfig { dims: 4, ..BehaviourConfig::default() };
    assert!(message(4, config.clone()).contains("4 dimensions"));
    assert!(message(10, BehaviourConfig { window: 0, ..config.clone() }).contains("window 0"));
    assert!(message(10, BehaviourConfig { shift: f64::NAN, ..config.clone() }).contains("shift NaN"));
    assert!(message(5, config).contains("catalogue differ"));
}
