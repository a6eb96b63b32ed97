use candle_core::Device;
use genrec_kernels::CounterRng;

use super::*;

fn random(seed: u64, rows: usize, dim: usize) -> Tensor {
    let mut values = vec![0f32; rows * dim];
    CounterRng::new(seed).fill_normal(&mut values);
    Tensor::from_vec(values, (rows, dim), &Device::Cpu).unwrap()
}

fn error(x: &[f32], books: &[Vec<Vec<f32>>], codes: &[u32]) -> f64 {
    let rest = x.iter().enumerate().map(|(j, &x)| {
        f64::from(x) - codes.iter().zip(books).map(|(&code, book)| f64::from(book[code as usize][j])).sum::<f64>()
    });
    rest.map(|r| r * r).sum()
}

/// Every tuple of codes.
fn tuples(sizes: &[usize]) -> Vec<Vec<u32>> {
    sizes.iter().fold(vec![Vec::new()], |tuples, &size| {
        tuples.iter().flat_map(|tuple| (0..size as u32).map(|code| [&tuple[..], &[code]].concat())).collect()
    })
}

#[test]
fn a_beam_as_wide_as_the_tree_finds_the_best_tuple_and_wider_beams_are_no_worse() {
    let (sizes, dim, rows) = ([4, 5, 3], 6, 70);
    let tensors: Vec<Tensor> = sizes.iter().zip(7..).map(|(&size, seed)| random(seed, size, dim)).collect();
    let books: Vec<Vec<Vec<f32>>> = tensors.iter().map(|book| book.to_vec2().unwrap()).collect();
    let xs = random(1, rows, dim).to_vec2::<f32>().unwrap();
    let mut totals = Vec::new();
    for width in [1, 2, 4, 20, 60] {
        let beam = BeamSearch::new(width, &tensors.iter().collect::<Vec<_>>()).unwrap();
        let mut codes = vec![0; rows * 3];
        beam.codes(&xs.concat(), &mut codes).unwrap();
        let errors: Vec<f64> = xs.iter().zip(codes.chunks(3)).map(|(x, codes)| error(x, &books, codes)).collect();
        totals.push(errors.iter().sum::<f64>());
        if width == 60 {
            for (x, found) in xs.iter().zip(errors) {
                let best = tuples(&sizes).iter().map(|tuple| error(x, &books, tuple)).fold(f64::INFINITY, f64::min);
                assert!((found - best).abs() < 1e-4);
            }
        }
    }
    assert!(totals.windows(2).all(|pair| pair[1] <= pair[0] + 1e-4), "{totals:?}");
    assert!(totals[4] < totals[0], "{totals:?}");
    assert!(BeamSearch::new(2, &[]).is_err());
}

#[test]
fn a_beam_far_from_the_origin_finds_what_it_finds_at_it() {
    // Sums of these are exact in f32, so that only the search could tell the two places apart.
    let grid =
        |seed, rows| random(seed, rows, 4).affine(16.0, 0.0).unwrap().round().unwrap().affine(0.0625, 0.0).unwrap();
    let (xs, first, second) = (grid(1, 60), grid(2, 12), grid(3, 12));
    let codes = |offset: f64| {
        let [xs, first] = [&xs, &first].map(|t| t.affine(1.0, offset).unwrap());
        let mut codes = vec![0; 120];
        let beam = BeamSearch::new(3, &[&first, &second]).unwrap();
        beam.codes(&xs.to_vec2::<f32>().unwrap().concat(), &mut codes).unwrap();
        codes
    };
    assert_eq!(codes(0.0), codes(16384.0));
}
