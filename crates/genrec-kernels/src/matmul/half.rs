//! Products whose operands are rounded to `bf16`.

use std::cell::RefCell;

use super::{Store, Target, View};
use crate::bf16::{Matrix, Sums, Unit, left_len, right_len};

/// The processor's unit for products in `bf16`: AMX (under Linux) or AVX512-BF16, both of x86-64.
///
/// Operands are rounded to the nearest, with the eight digits of precision and the range of `f32` that `bf16` has, and what the
/// unit takes for zero is below 1.2e-38. Sums are `f32`. An element of a product depends on its row and column alone, but
/// the units add in orders of their own: another kind of processor may differ in the last digits.
///
/// ```
/// use genrec_kernels::matmul::{Bf16, Panels, Target, View, product};
///
/// if let Some(unit) = Bf16::available() {
///     let (x, weight) = ([1.0, 2.0], [5.0, 6.0, 7.0, 8.003]);
///     let mut panels = Panels::rounded(unit);
///     panels.pack(View::new(&weight, 2, 2, 2)?);
///     let mut y = [0.0; 2];
///     product(View::new(&x, 1, 2, 2)?, &panels, Target::set(&mut y, 2))?;
///     assert_eq!(y, [19.0, 22.0]);
/// }
/// # Ok::<(), genrec_kernels::gemm::GemmError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bf16(Unit);

/// Operands of one product, rounded; a thread keeps the room for the next.
#[derive(Default)]
struct Rounded {
    left: Vec<u16>,
    right: Vec<u16>,
}

thread_local! {
    static ROUNDED: RefCell<Rounded> = const { RefCell::new(Rounded { left: Vec::new(), right: Vec::new() }) };
}

/// The first `len` elements of a buffer that never shrinks.
fn fit(buffer: &mut Vec<u16>, len: usize) -> &mut [u16] {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    &mut buffer[..len]
}

/// The matrix as its rows lie in memory, and whether it is the transposed of that.
fn lying(view: View<'_>) -> (Matrix<'_>, bool) {
    let View { values, rows, cols, row_stride, col_stride } = view;
    match col_stride {
        1 => (Matrix { values, rows, cols, stride: row_stride }, false),
        stride => (Matrix { values, rows: cols, cols: rows, stride }, true),
    }
}

impl Bf16 {
    /// The unit, where the processor has one and the system lets this process use it.
    pub fn available() -> Option<Self> {
        Unit::fastest().map(Self)
    }

    pub(super) fn pack(self, b: View<'_>, tiles: &mut Vec<u16>) {
        // Not cleared: all of it is written.
        tiles.resize(right_len(b.rows, b.cols), 0);
        let (matrix, transposed) = lying(b);
        self.0.right(matrix, transposed, tiles);
    }

    /// The product with a packed right operand of `n` columns; the operands fit each other.
    pub(super) fn product(self, a: View<'_>, tiles: &[u16], n: usize, c: Target<'_>) {
        ROUNDED.with_borrow_mut(|rounded| self.multiply(a, &mut rounded.left, tiles, n, c));
    }

    /// The product with a right operand that is used once; the operands fit each other.
    pub(super) fn product_once(self, a: View<'_>, b: View<'_>, c: Target<'_>) {
        ROUNDED.with_borrow_mut(|Rounded { left, right }| {
            let tiles = fit(right, right_len(b.rows, b.cols));
            let (matrix, transposed) = lying(b);
            self.0.right(matrix, transposed, tiles);
            self.multiply(a, left, tiles, b.cols, c);
        });
    }

    fn multiply(self, a: View<'_>, left: &mut Vec<u16>, tiles: &[u16], n: usize, c: Target<'_>) {
        let Target { values, stride, store, spill } = c;
        let left = fit(left, left_len(a.rows, a.cols));
        let (matrix, transposed) = lying(a);
        self.0.left(matrix, transposed, left);
        let sums = Sums { values, rows: a.rows, cols: n, stride, add: store == Store::Add, spill };
        self.0.product(left, tiles, a.cols, sums);
    }
}
