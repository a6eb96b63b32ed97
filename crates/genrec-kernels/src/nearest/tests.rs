use proptest::prelude::*;

use super::*;
use crate::rng::CounterRng;

/// A search with a codebook prepared for it alone.
fn nearest(
    x: &[f32],
    d: usize,
    codebook: &[f32],
    codes: &mut [u32],
    distances: Option<&mut [f32]>,
) -> Result<(), NearestError> {
    Codebook::new(codebook, d)?.assign(x, codes, distances)
}

fn values(seed: u64, n: usize) -> Vec<f32> {
    let mut v = vec![0f32; n];
    CounterRng::new(seed).fill_normal(&mut v);
    v
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn equals_brute_force(seed: u64, n in 0usize..200, d in 1usize..40, k in 1usize..70) {
        let (x, codebook) = (values(seed, n * d), values(seed ^ 1, k * d));
        let (mut codes, mut dist) = (vec![0u32; n], vec![0f32; n]);
        nearest(&x, d, &codebook, &mut codes, Some(&mut dist)).unwrap();
        for (i, row) in x.chunks(d).enumerate() {
            let all: Vec<f64> = codebook
                .chunks(d)
                .map(|c| row.iter().zip(c).map(|(a, b)| f64::from(a - b).powi(2)).sum())
                .collect();
            let least = all.iter().copied().fold(f64::INFINITY, f64::min);
            let got = all[codes[i] as usize];
            prop_assert!(got - least < 1e-4 * (1.0 + least), "row {i}: {got} is not {least}");
            prop_assert!((f64::from(dist[i]) - got).abs() < 1e-4 * (1.0 + got));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn all_distances_equal_brute_force_wherever_they_lie(
        seed: u64, n in 0usize..200, d in 1usize..40, k in 1usize..70, far: bool,
    ) {
        let offset = if far { 3e4 } else { 0.0 };
        let [x, words] = [values(seed, n * d), values(seed ^ 1, k * d)].map(|v| v.iter().map(|v| v + offset).collect::<Vec<_>>());
        let codebook = Codebook::new(&words, d).unwrap();
        let mut got = vec![0f32; n * k];
        codebook.distances(&x, &mut got).unwrap();
        for (row, got) in x.chunks(d).zip(got.chunks(k)) {
            for (word, &got) in words.chunks(d).zip(got) {
                let want: f64 = row.iter().zip(word).map(|(a, b)| f64::from(a - b).powi(2)).sum();
                prop_assert!(got >= 0.0 && (f64::from(got) - want).abs() < 1e-4 * (1.0 + want), "{got} is not {want}");
            }
        }
        prop_assert!(codebook.distances(&x, &mut vec![0.0; n * k + 1]).is_err());
    }
}

#[test]
fn an_outlier_is_not_what_others_are_measured_from() {
    let (n, d, k) = (200, 8, 20);
    let tensor = |v: Vec<f32>, rows| Tensor::from_vec(v, (rows, d), &candle_core::Device::Cpu).unwrap();
    let (x, words) = (tensor(values(1, n * d), n), tensor(values(2, k * d), k));
    let outlier = tensor(vec![3e3; d], 1);
    let words = Tensor::cat(&[&outlier, &words], 0).unwrap();
    let (x, words) = about_the_middle(&x, &words).unwrap();
    let largest = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(largest(&x) < 20.0 && largest(&words.narrow(0, 1, k).unwrap()) < 20.0);
}

#[test]
fn residual_codes_are_level_after_level() {
    let (n, d) = (500, 24);
    let x = values(1, n * d);
    let books: Vec<Codebook> =
        (2..5).map(|seed| Codebook::new(&values(seed, (30 + seed as usize) * d), d).unwrap()).collect();
    let mut codes = vec![0; n * 3];
    residual_codes(&x, &books, &mut codes).unwrap();
    let mut residual = x;
    for (level, book) in books.iter().enumerate() {
        let mut want = vec![0; n];
        book.assign(&residual, &mut want, None).unwrap();
        for ((row, &code), codes) in residual.chunks_mut(d).zip(&want).zip(codes.chunks(3)) {
            assert_eq!(codes[level], code);
            row.iter_mut().zip(book.word(code).unwrap()).for_each(|(r, w)| *r -= w);
        }
    }
}

#[test]
fn ties_go_to_the_lowest_index() {
    // Three distinct codewords, repeated: equal values sit in different lanes and in the remainder.
    for d in [2, 40] {
        let vector = |first: f32| (0..d).map(move |at| if at == 0 { first } else { 0.0 });
        let codebook: Vec<f32> = (0..50).flat_map(|i| vector(f32::from((i % 3) as u8))).collect();
        let x: Vec<f32> = [2.1, 0.9, -1.0, 0.5].into_iter().flat_map(vector).collect();
        let mut codes = [9; 4];
        nearest(&x, d, &codebook, &mut codes, None).unwrap();
        assert_eq!(codes, [2, 1, 0, 0], "{d}");
    }
}

#[test]
fn the_same_at_any_number_of_threads_and_on_tensors() {
    let (n, d, k) = (3000, 24, 77);
    let (x, codebook) = (values(1, n * d), values(2, k * d));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (mut codes, mut dist) = (vec![0u32; n], vec![0f32; n]);
        pool.install(|| nearest(&x, d, &codebook, &mut codes, Some(&mut dist))).unwrap();
        (codes, dist.iter().map(|v| v.to_bits()).collect::<Vec<_>>())
    };
    assert_eq!(run(1), run(2));
    let device = candle_core::Device::Cpu;
    let xt = Tensor::from_slice(&x, (n, d), &device).unwrap();
    let ct = Tensor::from_slice(&codebook, (k, d), &device).unwrap();
    let fused = nearest_codes(&xt, &ct).unwrap().to_vec1::<u32>().unwrap();
    assert_eq!(fused, run(1).0);
    let double = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
    let composed = nearest_codes(&double(&xt), &double(&ct)).unwrap().to_vec1::<u32>().unwrap();
    assert_eq!(fused, composed);
}

#[test]
fn a_common_offset_does_not_blur_the_choice() {
    let (n, d, k) = (200, 768, 64);
    for offset in [0.0, 100.0, 1e4, -1e6] {
        let shifted = |seed| values(seed, d * k.max(n)).into_iter().map(|v| v + offset).collect::<Vec<f32>>();
        let (x, codebook) = (&shifted(1)[..n * d], &shifted(2)[..k * d]);
        let mut codes = vec![0u32; n];
        nearest(x, d, codebook, &mut codes, None).unwrap();
        for (row, &code) in x.chunks(d).zip(&codes) {
            let distance = |c: &[f32]| row.iter().zip(c).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            let least = codebook.chunks(d).map(distance).fold(f64::INFINITY, f64::min);
            let got = distance(&codebook[code as usize * d..][..d]);
            assert!(got - least < 1e-3 * least, "offset {offset}: {got} is not {least}");
        }
    }
}

#[test]
fn every_error_is_reached() {
    let mut codes = [0; 1];
    let run = |x: &[f32], d, c: &[f32], codes: &mut [u32]| nearest(x, d, c, codes, None);
    assert!(matches!(run(&[1.0], 0, &[1.0], &mut codes), Err(NearestError::Length { what: "codebook", .. })));
    assert!(matches!(run(&[1.0; 3], 2, &[1.0; 2], &mut codes), Err(NearestError::Length { what: "x", .. })));
    assert!(matches!(run(&[1.0], 1, &[], &mut codes), Err(NearestError::Length { what: "codebook", .. })));
    assert!(matches!(run(&[1.0; 2], 1, &[1.0], &mut codes), Err(NearestError::Output { rows: 2, .. })));
    let mut short = [];
    let result = nearest(&[1.0], 1, &[1.0], &mut codes, Some(&mut short));
    assert!(matches!(result, Err(NearestError::Output { what: "out_sq_dist", .. })));
    let books = [Codebook::new(&[1.0, 2.0], 2).unwrap(), Codebook::new(&[1.0], 1).unwrap()];
    let mut out = [0; 2];
    assert!(matches!(residual_codes(&[1.0; 2], &books, &mut out), Err(NearestError::Length { .. })));
    assert!(matches!(residual_codes(&[1.0; 2], &[], &mut out), Err(NearestError::Length { .. })));
    assert!(matches!(residual_codes(&[1.0; 2], &books[..1], &mut out), Err(NearestError::Output { .. })));
    let t = Tensor::zeros((2, 3), DType::F32, &candle_core::Device::Cpu).unwrap();
    assert!(nearest_codes(&t, &t.narrow(1, 0, 2).unwrap()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    #[test]
    fn a_pass_of_lloyd_gives_means_and_errors(
        seed: u64, n in 0usize..400, d in 1usize..40, k in 1usize..70, shares in 1usize..6, calls in 1usize..3,
    ) {
        let (x, words) = (values(seed, n * d), values(seed ^ 1, k * d));
        let codebook = Codebook::new(&words, d).unwrap();
        let mut expected = vec![0; n];
        codebook.assign(&x, &mut expected, None).unwrap();
        let before: Vec<u32> = (0..n).map(|row| if row % 3 == 0 { u32::MAX } else { expected[row] }).collect();
        let (mut codes, mut distances) = (before.clone(), vec![0.0; n]);
        let mut parts = vec![ClusterSums::new(k, d); shares];
        let cut = n / calls;
        for (first, last) in [(0, cut * (calls - 1)), (cut * (calls - 1), n)] {
            let x = &x[first * d..last * d];
            codebook.assign_and_sum(x, &mut codes[first..last], &mut distances[first..last], &mut parts).unwrap();
        }
        prop_assert_eq!(&codes, &expected);
        let mut known = vec![ClusterSums::new(k, d); shares];
        codebook.sum(&x, &codes, &mut distances, &mut known).unwrap();
        for (changed, parts) in [(n.div_ceil(3), parts), (0, known)] {
            let mut total = ClusterSums::new(k, d);
            parts.iter().for_each(|part| total.merge(part));
            prop_assert_eq!(total.changed(), changed);
            let mut error = 0.0;
            for code in 0..k {
                let rows: Vec<&[f32]> = x.chunks(d).zip(&codes).filter(|(_, c)| **c as usize == code).map(|(x, _)| x).collect();
                prop_assert_eq!(total.counts()[code], rows.len() as u64);
                let Some(mean) = total.mean(code) else {
                    prop_assert!(rows.is_empty());
                    continue;
                };
                for (axis, mean) in mean.enumerate() {
                    let exact = rows.iter().map(|row| f64::from(row[axis])).sum::<f64>() / rows.len() as f64;
                    prop_assert!((f64::from(mean) - exact).abs() < 1e-5);
                }
                for row in rows {
                    error += row.iter().zip(codebook.word(code as u32).unwrap()).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
                }
            }
            prop_assert!((total.squared_error() - error).abs() < 1e-5 * (1.0 + error));
        }
    }
}

#[test]
fn a_pass_of_lloyd_refuses_what_does_not_fit() {
    let codebook = Codebook::new(&[0.0, 1.0, 2.0, 3.0], 2).unwrap();
    let run = |distances: &mut [f32], shares: &mut [ClusterSums]| {
        codebook.assign_and_sum(&[0.0; 4], &mut [0; 2], distances, shares).unwrap_err()
    };
    assert!(matches!(run(&mut [0.0; 2], &mut []), NearestError::Shares { .. }));
    assert!(matches!(run(&mut [0.0; 2], &mut [ClusterSums::new(3, 2)]), NearestError::Shares { .. }));
    assert!(matches!(run(&mut [0.0], &mut [ClusterSums::new(2, 2)]), NearestError::Output { what: "distances", .. }));
    let error = codebook.sum(&[0.0; 4], &[0, 2], &mut [0.0; 2], &mut [ClusterSums::new(2, 2)]).unwrap_err();
    assert_eq!(error, NearestError::Code { row: 1, code: 2, codewords: 2 });
    assert_eq!(ClusterSums::new(2, 2).mean(0).map(Iterator::count), None);
}

#[test]
fn rows_of_nan_get_the_first_code() {
    for k in [1, 15, 16, 33, 100] {
        let codebook = Codebook::new(&values(3, k * 4), 4).unwrap();
        let mut codes = [7; 2];
        codebook.assign(&[f32::NAN, 1.0, 2.0, 3.0, f32::NAN, f32::NAN, 0.0, 0.0], &mut codes, None).unwrap();
        assert_eq!(codes, [0, 0]);
    }
    let words = values(3, 64 * 20);
    let codebook = Codebook::new(&words, 20).unwrap();
    let mut x = values(4, 40 * 20);
    (x[3], x[21]) = (f32::NAN, f32::INFINITY);
    x[40..60].copy_from_slice(&words[20 * 7..20 * 8]);
    let mut codes = [9; 40];
    codebook.assign(&x, &mut codes, None).unwrap();
    assert_eq!((codes[0], codes[2]), (0, 7));
    // Of a codeword that is no number nothing is the nearest.
    let mut spoilt = words.clone();
    spoilt[20 * 7] = f32::NAN;
    let codebook = Codebook::new(&spoilt, 20).unwrap();
    let mut others = [9; 40];
    codebook.assign(&x, &mut others, None).unwrap();
    assert!(codes.iter().zip(&others).all(|(a, b)| (a == b) != (*a == 7)), "{codes:?} {others:?}");
}

/// The same codeword whichever unit computes the products, but for what rounding cannot tell apart.
#[test]
fn halves_find_the_same_codewords() {
    for (rows, codewords, d, offset, scale) in
        [(300, 256, 32, 0.0, 1.0), (65, 40, 100, 0.0, 1e-3), (97, 300, 17, 1e3, 1.0), (40, 64, 768, 0.5, 1e4)]
    {
        let rng = CounterRng::new(rows as u64);
        let draw = |stream: u64, count: usize| -> Vec<f32> {
            let rng = rng.stream(stream);
            (0..count as u64).map(|i| scale * (rng.f64_at(i) as f32 + offset)).collect()
        };
        let (x, words) = (draw(0, rows * d), draw(1, codewords * d));
        let mut codes = [vec![0; rows], vec![0; rows]];
        let mut distances = [vec![0.0; rows], vec![0.0; rows]];
        for (half, (codes, distances)) in [false, true].into_iter().zip(codes.iter_mut().zip(&mut distances)) {
            let codebook = Codebook::with_half(&words, d, half).unwrap();
            assert_eq!(matches!(codebook.words, Words::Half(..)), half && half::takes(d));
            codebook.assign(&x, codes, Some(distances)).unwrap();
        }
        let differing = codes[0].iter().zip(&codes[1]).filter(|(a, b)| a != b).count();
        assert!(differing * 50 <= rows, "{differing} of {rows}");
        for (a, b) in distances[0].iter().zip(&distances[1]) {
            assert!((a - b).abs() <= 1e-4 * a, "{a} {b}");
        }
    }
}

/// What the screening leaves is counted right whatever the vectors' width, and decided by the exact distances.
#[test]
fn what_is_within_the_slack_is_left() {
    let half_norms = [vec![0.0; 70], vec![f32::INFINITY; 26]].concat();
    let mut products = vec![0.0; 3 * 96];
    // Code 7 lies as near as code 69, but is half as long, so that its distance is known better.
    (products[5], products[7], products[69]) = (2.0, 1.75, 1.75);
    products[96 + 64] = 1.0;
    products[2 * 96] = f32::NAN;
    let lengths: Vec<f32> = (0..96).map(|code| if code == 7 { 0.5 } else { 1.0 }).collect();
    let slack = |row: usize| ([0.1, 0.1, f32::NAN][row], 0.03);
    let (mut codes, mut unsure) = ([9; 3], Vec::new());
    let within = lowest::Within { slack, lengths: &lengths, unsure: &mut unsure };
    lowest::lowest_within(&products, &half_norms, &mut codes, within);
    assert_eq!(unsure[..2], [(0, 5), (0, 69)]);
    assert_eq!(codes[1], 64);
    // A slack that is no number leaves all, the padding too.
    assert!(unsure[2..].iter().copied().eq((0..96).map(|code| (2, code))));
    let words: Vec<f32> = (0..70).map(|at| if at == 69 { 3.0 } else { 0.1 }).collect();
    let codebook = Codebook { half_norms, ..Codebook::new(&words, 1).unwrap() };
    codebook.lowest_of_few(&[1.0, 1.0, f32::NAN], &unsure, &mut codes);
    assert_eq!(codes, [69, 64, 0]);
}

/// Where `bf16` cannot tell the codewords apart, as far from the origin, `f32` does.
#[test]
fn what_the_screening_cannot_tell_apart_is_compared_exactly() {
    let (d, codewords) = (48, 128);
    // Two clouds far from each other: the middle is no centre for either.
    let draw = |seed: u64, rows: usize| -> Vec<f32> {
        let far = |at: usize| if (at / d).is_multiple_of(2) { 300.0 } else { -300.0 };
        values(seed, rows * d).into_iter().enumerate().map(|(at, v)| v + far(at)).collect()
    };
    let (x, words) = (draw(1, 200), draw(2, codewords));
    let mut codes = [vec![0; 200], vec![0; 200]];
    for (half, codes) in [false, true].into_iter().zip(&mut codes) {
        Codebook::with_half(&words, d, half).unwrap().assign(&x, codes, None).unwrap();
    }
    assert_eq!(codes[0], codes[1]);
}
