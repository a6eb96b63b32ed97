//! Matrix products of row-major host slices, by the `gemm` crate.
//!
//! The workspace turns on `gemm`'s `x86-v4` feature, which compiles AVX-512 kernels beside the AVX2 and portable ones
//! and chooses between them when the program first runs; on a processor without AVX-512 nothing changes. Feature
//! unification gives candle's own `matmul` the same kernels.

#![allow(unsafe_code, reason = "the gemm crate takes raw pointers; every slice is checked against its shape first")]

/// What is wrong with the operands of a product.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GemmError {
    /// A slice does not hold the elements of its shape.
    #[error("the operand {operand} has {got} elements, but its shape {rows} x {cols} needs {expected}")]
    Length {
        /// `a`, `b` or `c`.
        operand: &'static str,
        /// Rows as stored.
        rows: usize,
        /// Columns as stored.
        cols: usize,
        /// Elements of that shape; `usize::MAX` when their number overflows.
        expected: usize,
        /// Elements given.
        got: usize,
    },
    /// The inner axes differ.
    #[error("the left operand has {a} columns, the right one {b} rows; a product needs as many of one as of the other")]
    Inner {
        /// Columns of the left operand.
        a: usize,
        /// Rows of the right operand.
        b: usize,
    },
}

/// Whether an operand is read as stored or transposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transpose {
    /// As stored.
    #[default]
    No,
    /// Rows for columns.
    Yes,
}

/// Whether a product is split over rayon's threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parallelism {
    /// On the calling thread: inside a loop that is parallel already.
    Single,
    /// Over the threads of the current rayon pool.
    #[default]
    Rayon,
}

/// One operand: a row-major slice, read as stored or transposed.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The elements as stored, row-major.
    pub values: &'a [f32],
    /// Whether the product reads it transposed.
    pub transpose: Transpose,
}

impl<'a> Operand<'a> {
    /// An operand read as stored.
    #[must_use]
    pub fn new(values: &'a [f32]) -> Self {
        Self { values, transpose: Transpose::No }
    }

    /// An operand read transposed.
    #[must_use]
    pub fn transposed(values: &'a [f32]) -> Self {
        Self { values, transpose: Transpose::Yes }
    }

    /// Strides (column, row) of the operand read as `rows x cols`, its length checked.
    fn strides(&self, operand: &'static str, rows: usize, cols: usize) -> Result<(isize, isize), GemmError> {
        let (r, c) = match self.transpose {
            Transpose::No => (rows, cols),
            Transpose::Yes => (cols, rows),
        };
        check(operand, r, c, self.values.len())?;
        // A slice has at most isize::MAX bytes, so its side fits.
        Ok(match self.transpose {
            Transpose::No => (1, cols as isize),
            Transpose::Yes => (rows as isize, 1),
        })
    }
}

fn check(operand: &'static str, rows: usize, cols: usize, got: usize) -> Result<(), GemmError> {
    let expected = rows.saturating_mul(cols);
    if expected == got { Ok(()) } else { Err(GemmError::Length { operand, rows, cols, expected, got }) }
}

/// `c = alpha * op(a) * op(b) + beta * c`.
///
/// With `beta = 0` the old values of `c` are not read. The sum over the inner axis is split in an order that depends on
/// the shape alone, so a product is the same at any number of threads.
///
/// # Shapes
/// `shape` is `(m, n, k)`: `op(a)` is `m x k`, `op(b)` `k x n`, `c` `m x n`, all row-major.
///
/// ```
/// use genrec_kernels::gemm::{Operand, Parallelism, gemm};
///
/// let (a, b) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
/// let mut c = [0.0; 4];
/// gemm((2, 2, 2), 1.0, Operand::new(&a), Operand::transposed(&b), 0.0, &mut c, Parallelism::Single)?;
/// assert_eq!(c, [17.0, 23.0, 39.0, 53.0]);
/// # Ok::<(), genrec_kernels::gemm::GemmError>(())
/// ```
///
/// # Errors
/// [`GemmError::Length`] when a slice does not hold the elements of its shape.
pub fn gemm(
    shape: (usize, usize, usize),
    alpha: f32,
    a: Operand<'_>,
    b: Operand<'_>,
    beta: f32,
    c: &mut [f32],
    parallelism: Parallelism,
) -> Result<(), GemmError> {
    let (m, n, k) = shape;
    let (a_cs, a_rs) = a.strides("a", m, k)?;
    let (b_cs, b_rs) = b.strides("b", k, n)?;
    check("c", m, n, c.len())?;
    if c.is_empty() {
        return Ok(());
    }
    if k == 0 || alpha == 0.0 {
        c.iter_mut().for_each(|v| *v = if beta == 0.0 { 0.0 } else { beta * *v });
        return Ok(());
    }
    let parallelism = match parallelism {
        Parallelism::Single => ::gemm::Parallelism::None,
        Parallelism::Rayon => ::gemm::Parallelism::Rayon(0),
    };
    // SAFETY: each slice was checked to hold exactly the elements that its shape and strides address, `c` is borrowed
    // mutably and so overlaps neither operand, and gemm's `alpha` is the factor on the destination.
    unsafe {
        ::gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            beta != 0.0,
            a.values.as_ptr(),
            a_cs,
            a_rs,
            b.values.as_ptr(),
            b_cs,
            b_rs,
            beta,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::CounterRng;

    fn values(seed: u64, n: usize) -> Vec<f32> {
        let mut v = vec![0f32; n];
        CounterRng::new(seed).fill_normal(&mut v);
        v
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn equals_the_definition(m in 0usize..40, n in 0usize..40, k in 0usize..40, ta: bool, tb: bool, beta in 0u8..3) {
            let (a, b, c0) = (values(1, m * k), values(2, k * n), values(3, m * n));
            let beta = f32::from(beta) * 0.5;
            let at = |i: usize, p: usize| if ta { a[p * m + i] } else { a[i * k + p] };
            let bt = |p: usize, j: usize| if tb { b[j * k + p] } else { b[p * n + j] };
            let op = |t: bool, v| if t { Operand::transposed(v) } else { Operand::new(v) };
            for parallelism in [Parallelism::Single, Parallelism::Rayon] {
                let mut c = c0.clone();
                gemm((m, n, k), 1.5, op(ta, &a), op(tb, &b), beta, &mut c, parallelism).unwrap();
                for i in 0..m {
                    for j in 0..n {
                        let sum: f64 = (0..k).map(|p| f64::from(at(i, p)) * f64::from(bt(p, j))).sum();
                        let want = 1.5 * sum + f64::from(beta * c0[i * n + j]);
                        prop_assert!((f64::from(c[i * n + j]) - want).abs() < 1e-4, "{} {want}", c[i * n + j]);
                    }
                }
            }
        }
    }

    #[test]
    fn lengths_are_checked() {
        let mut c = [0.0; 4];
        let short = [1.0; 3];
        let full = [1.0; 4];
        let run = |a, b, c: &mut [f32]| {
            gemm((2, 2, 2), 1.0, Operand::new(a), Operand::new(b), 0.0, c, Parallelism::Single).unwrap_err()
        };
        let GemmError::Length { operand, expected, got, .. } = run(&short, &full, &mut c) else { panic!() };
        assert_eq!((operand, expected, got), ("a", 4, 3));
        let GemmError::Length { operand, .. } = run(&full, &short, &mut c) else { panic!() };
        assert_eq!(operand, "b");
        let GemmError::Length { operand, .. } = run(&full, &full, &mut c[..1]) else { panic!() };
        assert_eq!(operand, "c");
        let huge =
            gemm((usize::MAX, 2, 2), 1.0, Operand::new(&full), Operand::new(&full), 0.0, &mut c, Parallelism::Single);
        assert!(huge.is_err());
    }

    #[test]
    fn zero_beta_ignores_what_was_there() {
        let mut c = [f32::NAN];
        gemm((1, 1, 1), 1.0, Operand::new(&[2.0]), Operand::new(&[3.0]), 0.0, &mut c, Parallelism::Single).unwrap();
        assert_eq!(c, [6.0]);
    }
}
