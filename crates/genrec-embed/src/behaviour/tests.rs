use ndarray::Array2;

use super::*;

/// Users who stay within one of `blocks` blocks of ten items, each item with every other of its block.
fn planted(blocks: u32) -> Vec<Vec<u32>> {
    let user = |block: u32, user: u32| (0..8).map(|at| 10 * block + (7 * at + user * (at % 3 + 1)) % 10).collect();
    (0..blocks).flat_map(|block| (0..40).map(move |number| (block, number))).map(|(b, n)| user(b, n)).collect()
}

fn both() -> [BehaviourConfig; 2] {
    [BehaviourConfig::default(), BehaviourConfig::mutual_information()].map(|config| config.with_dims(4))
}

fn cosine(rows: &Array2<f32>, a: usize, b: usize) -> f32 {
    rows.row(a).dot(&rows.row(b))
}

#[test]
fn planted_blocks_are_recovered() {
    for config in both() {
        let rows = embed(planted(4), 42, &config).unwrap();
        assert_eq!(rows.dim(), (42, 4));
        for a in 0..40 {
            assert!((cosine(&rows, a, a) - 1.0).abs() < 1e-5);
            for b in 0..40 {
                let (same, cosine) = (a / 10 == b / 10, cosine(&rows, a, b));
                assert!(if same { cosine > 0.9 } else { cosine.abs() < 0.1 }, "items {a} and {b}: {cosine}");
            }
        }
        // Nobody took the last two.
        assert!(rows.row(40).iter().chain(rows.row(41)).all(|&value| value == 0.0));
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_at_any_number_of_threads() {
    let [config, _] = both();
    let run = |seed, threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| embed(planted(4), 40, &config.clone().with_seed(seed)).unwrap())
    };
    assert_eq!(run(3, 1), run(3, 4));
    assert_ne!(run(3, 1), run(4, 1));
}

#[test]
fn fewer_directions_than_columns_leave_zeros() {
    let rows = embed([[0, 1], [1, 0]], 6, &BehaviourConfig::default().with_dims(5)).unwrap();
    assert_eq!(rows.dim(), (6, 5));
    assert!(rows.column(4).iter().all(|value| *value == 0.0) && rows.iter().all(|value| value.is_finite()));
    let nobody = embed([[0_u32; 0]; 0], 6, &BehaviourConfig::default().with_dims(5)).unwrap();
    assert!(nobody.iter().all(|value| *value == 0.0));
}

#[test]
fn what_is_wrong_is_said() {
    let message = |items, config: &BehaviourConfig| embed(planted(1), items, config).unwrap_err().to_string();
    let [config, information] = both();
    assert!(message(4, &config).contains("dims is 4, it must be below the number of items"));
    assert!(message(10, &config.clone().with_dims(0)).contains("dims is 0"));
    assert!(message(10, &config.clone().with_window(0)).contains("window is 0"));
    let wide = BehaviourConfig { oversample: usize::MAX, ..config.clone() };
    assert!(message(10, &wide).contains("oversample is"));
    let nan = Association::MutualInformation { shift: f64::NAN };
    assert!(message(10, &information.with_association(nan)).contains("shift is NaN"));
    assert!(matches!(embed(planted(1), 5, &config), Err(EmbedError::UnknownItem { items: 5, .. })));
}
