use candle_core::DType;
use proptest::prelude::*;

use super::*;

const GREEDY: Coding = Coding { composition: Composition::Residual, distance: Distance::Euclidean, beam: 1 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn residual_codes_agree_with_brute_force(
        xs in prop::collection::vec(-4_i8..4, 5 * 3),
        books in prop::collection::vec(-4_i8..4, 2 * 6 * 3),
    ) {
        // Small integers: every distance is exact in f32, ties included.
        let float = |v: &[i8]| v.iter().map(|&x| f32::from(x)).collect::<Vec<_>>();
        let tensor = Tensor::from_vec(float(&xs), (5, 3), &Device::Cpu).unwrap();
        let first = Tensor::from_vec(float(&books[..18]), (6, 3), &Device::Cpu).unwrap();
        let second = Tensor::from_vec(float(&books[18..]), (6, 3), &Device::Cpu).unwrap();
        let codes = GREEDY.encode(&tensor, &[&first, &second]).unwrap();
        let wide = GREEDY.encode(
            &tensor.to_dtype(DType::F64).unwrap(),
            &[&first.to_dtype(DType::F64).unwrap(), &second.to_dtype(DType::F64).unwrap()],
        ).unwrap();
        let decoded = decode(Composition::Residual, &codes, &[&first, &second]).unwrap().to_vec2::<f32>().unwrap();
        let codes = codes.to_vec2::<u32>().unwrap();
        prop_assert_eq!(&wide.to_vec2::<u32>().unwrap(), &codes);
        for (row, x) in xs.chunks(3).enumerate() {
            let mut residual: Vec<i32> = x.iter().map(|&x| i32::from(x)).collect();
            for level in 0..2 {
                let book: Vec<&[i8]> = books[level * 18..][..18].chunks(3).collect();
                let distance = |e: &[i8]| residual.iter().zip(e).map(|(r, &e)| (r - i32::from(e)).pow(2)).sum::<i32>();
                let best = (0..6).min_by_key(|&k| distance(book[k])).unwrap();
                prop_assert_eq!(codes[row][level] as usize, best);
                for (r, &e) in residual.iter_mut().zip(book[best]) {
                    *r -= i32::from(e);
                }
            }
            for ((x, r), near) in x.iter().zip(&residual).zip(&decoded[row]) {
                prop_assert_eq!((i32::from(*x) - r) as f32, *near);
            }
        }
    }
}

#[test]
fn codes_outside_a_codebook_are_refused() {
    let book = Tensor::zeros((4, 2), DType::F32, &Device::Cpu).unwrap();
    let codes = Tensor::new(&[[4_u32]], &Device::Cpu).unwrap();
    assert!(decode(Composition::Residual, &codes, &[&book]).is_err());
    assert!(decode(Composition::Residual, &codes, &[&book, &book]).is_err());
}

fn random(seed: u64, rows: usize, dim: usize) -> Tensor {
    let mut values = vec![0f32; rows * dim];
    genrec_kernels::CounterRng::new(seed).fill_normal(&mut values);
    Tensor::from_vec(values, (rows, dim), &Device::Cpu).unwrap()
}

fn codes_of(coding: Coding, xs: &Tensor, books: &[&Tensor]) -> Vec<Vec<u32>> {
    coding.encode(xs, books).unwrap().to_vec2().unwrap()
}

#[test]
fn parts_share_the_columns() {
    assert_eq!(Composition::Partitioned.columns(7, 3), [0..3, 3..5, 5..7]);
    assert_eq!(Composition::Residual.columns(7, 2), [0..7, 0..7]);
}

#[test]
fn every_form_of_the_search_finds_the_cheapest_code_of_each_level() {
    let xs = random(1, 50, 7);
    for composition in [Composition::Residual, Composition::Partitioned] {
        let books: Vec<Tensor> = composition
            .columns(7, 3)
            .into_iter()
            .zip(2..)
            .map(|(columns, seed)| random(seed, 9, columns.len()))
            .collect();
        let books: Vec<&Tensor> = books.iter().collect();
        for distance in [Distance::Euclidean, Distance::Cosine] {
            let coding = Coding { composition, distance, beam: 1 };
            let codes = codes_of(coding, &xs, &books);
            let wide: Vec<Tensor> = books.iter().map(|book| book.to_dtype(DType::F64).unwrap()).collect();
            let by_tensors = codes_of(coding, &xs.to_dtype(DType::F64).unwrap(), &wide.iter().collect::<Vec<_>>());
            assert_eq!(codes, by_tensors);
            for (row, codes) in codes.iter().enumerate() {
                for level in 0..3 {
                    let row = xs.narrow(0, row, 1).unwrap();
                    let costs = coding.costs(&row, &books, &codes[..level]).unwrap().to_vec2::<f32>().unwrap();
                    let cheapest = costs[0].iter().copied().fold(f32::INFINITY, f32::min);
                    assert!(costs[0][codes[level] as usize] <= cheapest + 1e-5);
                }
            }
        }
    }
    assert!(GREEDY.costs(&xs, &[&random(1, 4, 7)], &[0]).is_err());
    assert!(GREEDY.costs(&xs, &[&random(1, 4, 7), &random(2, 4, 7)], &[4]).is_err());
}

#[test]
fn the_cosine_looks_at_directions_alone() {
    let book = Tensor::new(&[[0.1f32, 0.0], [5.0, 5.0]], &Device::Cpu).unwrap();
    let xs = Tensor::new(&[[9.0f32, 1.0]], &Device::Cpu).unwrap();
    let cosine = Coding { distance: Distance::Cosine, ..GREEDY };
    assert_eq!(codes_of(GREEDY, &xs, &[&book]), [[1]]);
    assert_eq!(codes_of(cosine, &xs, &[&book]), [[0]]);
}

#[test]
fn costs_far_from_the_origin_choose_the_codes_of_the_encoding() {
    for (rows_in, offset) in [(DType::F32, 1e4), (DType::F64, f64::from(2f32.powi(40)))] {
        let far = |seed, rows| random(seed, rows, 5).to_dtype(rows_in).unwrap().affine(1.0, offset).unwrap();
        let (xs, first) = (far(1, 200), far(2, 9));
        let second = random(3, 7, 5).to_dtype(rows_in).unwrap();
        let books = [&first, &second];
        for (row, codes) in codes_of(GREEDY, &xs, &books).iter().enumerate() {
            for level in 0..2 {
                let costs = GREEDY.costs(&xs.narrow(0, row, 1).unwrap(), &books, &codes[..level]).unwrap();
                let cheapest = costs.argmin(1).unwrap().to_vec1::<u32>().unwrap();
                assert_eq!(cheapest[0], codes[level], "row {row}, level {level}, {rows_in:?}");
            }
        }
    }
}
