use proptest::prelude::*;

use super::*;
use crate::rng::CounterRng;

/// The nearest `bf16`, ties to even, as a `f32`.
fn nearest(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) >> 16 << 16)
}

fn values(seed: u64, n: usize) -> Vec<f32> {
    let mut v = vec![0f32; n];
    CounterRng::new(seed).fill_normal(&mut v);
    v
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn sums_are_those_of_rounded_operands(
        rows in 0usize..75, cols in 0usize..75, inner in 1usize..100, ta: bool, tb: bool, add: bool, spill: bool,
        pads in [0usize..3, 0usize..3, 0usize..40],
    ) {
        let side = |r: usize, c: usize, t: bool, pad: usize| if t { (c, r, r + pad) } else { (r, c, c + pad) };
        let (ar, ac, astride) = side(rows, inner, ta, pads[0]);
        let (br, bc, bstride) = side(inner, cols, tb, pads[1]);
        let stride = cols + pads[2];
        let short = |values: &mut Vec<f32>, pad: usize| values.truncate(values.len().saturating_sub(pad));
        let (mut a, mut b, c0) = (values(1, ar * astride), values(2, br * bstride), values(3, rows * stride));
        short(&mut a, pads[0]);
        short(&mut b, pads[1]);
        for unit in Unit::all() {
            // What an earlier product left must not count.
            let mut left = vec![0x7fc0u16; left_len(rows, inner)];
            let mut right = vec![0x7fc0u16; right_len(inner, cols)];
            unit.left(Matrix { values: &a, rows: ar, cols: ac, stride: astride }, ta, &mut left);
            unit.right(Matrix { values: &b, rows: br, cols: bc, stride: bstride }, tb, &mut right);
            let mut c = c0.clone();
            unit.product(&left, &right, inner, Sums { values: &mut c, rows, cols, stride, add, spill });
            let at = |i: usize, p: usize| nearest(if ta { a[p * astride + i] } else { a[i * astride + p] });
            let bt = |p: usize, j: usize| nearest(if tb { b[j * bstride + p] } else { b[p * bstride + j] });
            for i in 0..rows {
                for j in 0..cols {
                    let sum: f64 = (0..inner).map(|p| f64::from(at(i, p)) * f64::from(bt(p, j))).sum();
                    let want = sum + if add { f64::from(c0[i * stride + j]) } else { 0.0 };
                    let got = c[i * stride + j];
                    prop_assert!((f64::from(got) - want).abs() < 1e-4, "{unit:?} {got} {want}");
                }
                for at in i * stride + cols..(i + 1) * stride {
                    prop_assert!(c[at] == c0[at] || spill && c[at] == if add { c0[at] } else { 0.0 }, "{unit:?}");
                }
            }
        }
    }
}

/// Not a number stays none, ends of the range stay what they are.
#[test]
fn extremes_are_kept() {
    for unit in Unit::all() {
        let row = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e38, -0.0];
        let mut out = [0u16; 5];
        unit.round_row(&row, &mut out);
        for (bits, value) in out.into_iter().zip(row) {
            let got = f32::from_bits(u32::from(bits) << 16);
            assert!(got == nearest(value) || got.is_nan() && value.is_nan(), "{value} {got}");
        }
    }
}
