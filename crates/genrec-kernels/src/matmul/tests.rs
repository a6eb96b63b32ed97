use proptest::prelude::*;

use super::*;
use crate::rng::CounterRng;

fn values(seed: u64, n: usize) -> Vec<f32> {
    let mut v = vec![0f32; n];
    CounterRng::new(seed).fill_normal(&mut v);
    v
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn equals_the_definition(
        m in 0usize..40, n in 0usize..80, k in 0usize..40, long: bool, ta: bool, packed: bool, tb: bool, add: bool, spill: bool,
        pads in [0usize..3, 0usize..3, 0usize..40],
    ) {
        let k = if long { k + 250 } else { k };
        let side = |rows: usize, cols: usize, t: bool, pad: usize| {
            let (r, c) = if t { (cols, rows) } else { (rows, cols) };
            (r, c, c + pad)
        };
        let (ar, ac, astride) = side(m, k, ta, pads[0]);
        let (br, bc, bstride) = side(k, n, tb, pads[1]);
        let stride = n + pads[2];
        let (a, b, c0) = (values(1, ar * astride), values(2, br * bstride), values(3, m * stride));
        let at = |i: usize, p: usize| if ta { a[p * astride + i] } else { a[i * astride + p] };
        let bt = |p: usize, j: usize| if tb { b[j * bstride + p] } else { b[p * bstride + j] };
        fn turn(view: View<'_>, t: bool) -> View<'_> {
            if t { view.t() } else { view }
        }
        let (av, bv) = (View::new(&a, ar, ac, astride).unwrap(), View::new(&b, br, bc, bstride).unwrap());
        let mut c = c0.clone();
        let target = if add { Target::add(&mut c, stride) } else { Target::set(&mut c, stride) };
        let target = if spill { target.with_padding() } else { target };
        if packed {
            let mut panels = Panels::default();
            panels.pack(turn(bv, tb));
            prop_assert_eq!((panels.rows(), panels.cols()), (k, n));
            product(turn(av, ta), &panels, target).unwrap();
        } else {
            product(turn(av, ta), turn(bv, tb), target).unwrap();
        }
        for i in 0..m {
            for j in 0..n {
                let sum: f64 = (0..k).map(|p| f64::from(at(i, p)) * f64::from(bt(p, j))).sum();
                let want = sum + if add { f64::from(c0[i * stride + j]) } else { 0.0 };
                prop_assert!((f64::from(c[i * stride + j]) - want).abs() < 2e-4, "{} {want}", c[i * stride + j]);
            }
            // The last row's padding may end with the slice.
            let between = i * stride + n..((i + 1) * stride).min(c.len());
            if !spill {
                prop_assert_eq!(&c[between.clone()], &c0[between]);
            } else if packed && !add {
                let zeroed = |at: usize| c[at] == 0.0 || c[at] == c0[at];
                prop_assert!(between.clone().all(zeroed));
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours(m in 1usize..40, n in 1usize..70, k in 1usize..300) {
        let (a, b) = (values(4, m * k), values(5, k * n));
        let mut panels = Panels::default();
        panels.pack(View::new(&b, k, n, n).unwrap());
        let mut whole = vec![0f32; m * n];
        product(View::new(&a, m, k, k).unwrap(), &panels, Target::set(&mut whole, n)).unwrap();
        for (row, want) in a.chunks(k).zip(whole.chunks(n)) {
            let mut one = vec![0f32; n];
            product(View::new(row, 1, k, k).unwrap(), View::new(&b, k, n, n).unwrap(), Target::set(&mut one, n)).unwrap();
            prop_assert_eq!(&one, want);
        }
    }
}

#[test]
fn panels_are_packed_anew() {
    let mut panels = Panels::default();
    let big = values(1, 50 * 40);
    panels.pack(View::new(&big, 50, 40, 40).unwrap());
    panels.pack(View::new(&[1.0, 2.0, 3.0], 1, 3, 3).unwrap());
    let mut c = [9f32; 3];
    product(View::new(&[2.0], 1, 1, 1).unwrap(), &panels, Target::set(&mut c, 3)).unwrap();
    assert_eq!(c, [2.0, 4.0, 6.0]);
}

#[test]
fn misfits_are_errors() {
    let values = [1f32; 12];
    assert!(View::new(&values, 3, 4, 4).is_ok());
    assert!(View::new(&values, 3, 4, 5).is_err());
    assert!(View::new(&values, 3, 4, 3).is_err());
    assert!(View::new(&values, usize::MAX, 4, 4).is_err());
    let a = View::new(&values, 3, 4, 4).unwrap();
    let mut c = [0f32; 8];
    assert_eq!(product(a, a, Target::set(&mut c, 4)), Err(GemmError::Inner { a: 4, b: 3 }));
    // One row needs no stride, and no inner axis is a sum of nothing.
    let mut panels = Panels::default();
    panels.pack(View::new(&[], 0, 4, 4).unwrap());
    let mut row = [9f32; 4];
    product(View::new(&[], 1, 0, 0).unwrap(), &panels, Target::set(&mut row, 0).with_padding()).unwrap();
    assert_eq!(row, [0.0; 4]);
    let long = [1f32; 64];
    panels.pack(View::new(&long, 1, 64, 64).unwrap());
    let mut row = [9f32; 65];
    product(View::new(&[2.0], 1, 1, 1).unwrap(), &panels, Target::set(&mut row, 0).with_padding()).unwrap();
    assert_eq!((row[63], row[64]), (2.0, 9.0));
    assert!(product(a, a.t(), Target::set(&mut c, 3)).is_err());
    assert!(product(a.t(), a, Target::set(&mut c, 4)).is_err());
}
