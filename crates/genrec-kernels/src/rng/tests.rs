use super::*;

const N: usize = 200_000;

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        ab += (x - ma) * (y - mb);
        aa += (x - ma).powi(2);
        bb += (y - mb).powi(2);
    }
    ab / (aa * bb).sqrt()
}

fn uniforms(rng: &CounterRng) -> Vec<f64> {
    (0..N as u64).map(|c| rng.f64_at(c)).collect()
}

#[test]
fn uniform_moments() {
    for seed in [0, 1, 2, u64::MAX] {
        let mut v = vec![0f32; N];
        CounterRng::new(seed).fill_uniform(&mut v);
        let mean = v.iter().map(|&x| f64::from(x)).sum::<f64>() / N as f64;
        let var = v.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / N as f64;
        // Five standard errors of the mean of N uniforms are 3.2e-3.
        assert!((mean - 0.5).abs() < 3.3e-3, "seed {seed}: mean {mean}");
        assert!((var - 1.0 / 12.0).abs() < 1e-3, "seed {seed}: variance {var}");
        assert!(v.iter().all(|x| (0.0..1.0).contains(x)));
    }
}

#[test]
fn normal_moments_and_tails() {
    let mut v = vec![0f32; N];
    CounterRng::new(3).fill_normal(&mut v);
    let moment = |k: i32| v.iter().map(|&x| f64::from(x).powi(k)).sum::<f64>() / N as f64;
    assert!(moment(1).abs() < 0.012, "{}", moment(1));
    assert!((moment(2) - 1.0).abs() < 0.016, "{}", moment(2));
    assert!(moment(3).abs() < 0.05, "{}", moment(3));
    assert!((moment(4) - 3.0).abs() < 0.15, "{}", moment(4));
    let beyond = v.iter().filter(|x| x.abs() > 1.959_964).count() as f64 / N as f64;
    assert!((beyond - 0.05).abs() < 0.0025, "{beyond}");
    assert!(v.iter().all(|x| x.is_finite() && x.abs() < 6.8));
}

#[test]
fn chi_square_over_every_byte() {
    // 255 degrees of freedom: mean 255, standard deviation 22.6; five of them either side.
    let rng = CounterRng::new(9);
    for shift in (0..64).step_by(8) {
        let mut counts = [0u32; 256];
        for c in 0..N as u64 {
            counts[((rng.u64_at(c) >> shift) & 255) as usize] += 1;
        }
        let expected = N as f64 / 256.0;
        let chi: f64 = counts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
        assert!((142.0..368.0).contains(&chi), "byte at bit {shift}: chi-square {chi}");
    }
}

#[test]
fn chi_square_over_pairs_of_neighbours() {
    let rng = CounterRng::new(11);
    let mut counts = [0u32; 256];
    for c in 0..N as u64 {
        let cell = (rng.u64_at(2 * c) >> 60) * 16 + (rng.u64_at(2 * c + 1) >> 60);
        counts[cell as usize] += 1;
    }
    let expected = N as f64 / 256.0;
    let chi: f64 = counts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
    assert!((142.0..368.0).contains(&chi), "chi-square {chi}");
}

#[test]
fn neighbouring_counters_streams_and_seeds_are_uncorrelated() {
    let rng = CounterRng::new(5);
    let base = uniforms(&rng);
    // Five standard errors of a correlation of N pairs are 0.0112.
    let check = |what: &str, other: &[f64]| {
        let r = correlation(&base[..other.len()], other);
        assert!(r.abs() < 0.0112, "{what}: correlation {r}");
    };
    for lag in [1, 2, 3, 8, 64, 128, 1024] {
        check("lag", &base[lag..]);
    }
    check("stream 0", &uniforms(&rng.stream(0)));
    check("stream 1", &uniforms(&rng.stream(1)));
    check("name", &uniforms(&rng.named("w")));
    check("seed", &uniforms(&CounterRng::new(4)));
    let r = correlation(&uniforms(&rng.stream(0)), &uniforms(&rng.stream(1)));
    assert!(r.abs() < 0.0112, "neighbouring streams: correlation {r}");
}

#[test]
fn one_flipped_input_bit_flips_half_of_the_output() {
    let flips = |a: u64, b: u64| f64::from((a ^ b).count_ones());
    let rng = CounterRng::new(1);
    for bit in 0..64 {
        let trials = 2_000u64;
        let by_counter: f64 = (0..trials).map(|c| flips(rng.u64_at(c), rng.u64_at(c ^ (1 << bit)))).sum();
        let by_seed: f64 =
            (0..trials).map(|s| flips(CounterRng::new(s).u64_at(0), CounterRng::new(s ^ (1 << bit)).u64_at(0))).sum();
        let by_stream: f64 =
            (0..trials).map(|s| flips(rng.stream(s).u64_at(0), rng.stream(s ^ (1 << bit)).u64_at(0))).sum();
        for (what, total) in [("counter", by_counter), ("seed", by_seed), ("stream", by_stream)] {
            let mean = total / trials as f64;
            assert!((mean - 32.0).abs() < 0.6, "{what} bit {bit}: {mean} of 64 bits flip");
        }
    }
}

#[test]
fn names_and_numbers_are_apart() {
    let rng = CounterRng::new(0);
    assert_ne!(rng.named("1"), rng.stream(1));
    assert_ne!(rng.named(""), rng);
    assert_ne!(rng.named("a").named("b"), rng.named("b").named("a"));
    assert_ne!(rng.stream(0), rng);
}

#[test]
fn values_are_fixed_for_ever() {
    // A change here changes every seeded result.
    let rng = CounterRng::new(42);
    let seen = [rng.u64_at(0), rng.u64_at(1), rng.stream(7).u64_at(0), rng.named("dropout").u64_at(3)];
    assert_eq!(seen, FIXED);
}

const FIXED: [u64; 4] =
    [8_428_871_186_667_306_270, 16_178_596_993_749_232_933, 8_619_863_282_734_440_740, 2_201_538_648_527_225_764];

#[test]
fn filling_does_not_depend_on_the_number_of_threads() {
    let fill = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut v = vec![0f32; 3 * BLOCK + 17];
        pool.install(|| CounterRng::new(8).fill_normal(&mut v));
        v
    };
    assert_eq!(fill(1), fill(2));
    let v = fill(2);
    assert_eq!(v[BLOCK + 3], CounterRng::new(8).normal_at(BLOCK as u64 + 3));
}

#[test]
fn below_is_uniform_and_permutations_hold_every_element() {
    let rng = CounterRng::new(6);
    let mut counts = [0u32; 7];
    for c in 0..70_000 {
        counts[rng.below(c, 7) as usize] += 1;
    }
    assert!(counts.iter().all(|&n| (9_500..10_500).contains(&n)), "{counts:?}");
    assert_eq!(rng.below(0, 0), 0);
    assert_eq!(rng.below(0, 1), 0);
    let order = rng.permutation(1000);
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
    assert_ne!(order, sorted);
    assert!(rng.permutation(0).is_empty());
    // All six orders of three elements come about equally often.
    let mut orders = std::collections::BTreeMap::new();
    for s in 0..6_000 {
        *orders.entry(rng.stream(s).permutation(3)).or_insert(0u32) += 1;
    }
    assert_eq!(orders.len(), 6);
    assert!(orders.values().all(|&n| (850..1150).contains(&n)), "{orders:?}");
}
