//! Products in `bf16` on the matrix unit of recent Intel processors (AMX: Sapphire Rapids and later), which finds the few
//! codewords that can be nearest some ten times sooner than vector instructions compare them all. The choice among
//! those few is made in `f32`.
//!
//! A tile register holds 16 rows of 64 bytes. `tdpbf16ps` adds to 16 x 16 sums in `f32` the products of 16 rows of 32 values
//! and of 16 columns of 32, the columns laid out in pairs of values.

#![allow(unsafe_code, reason = "tile registers are reached by assembly alone; every slice is measured before")]

use core::arch::asm;
use std::sync::OnceLock;

use crate::math::vectorized;

/// Rows or columns of a tile.
const TILE: usize = 16;

/// Values that one instruction takes of each row.
const DEPTH: usize = 32;

/// Elements of a tile of `bf16`.
const ELEMENTS: usize = TILE * DEPTH;

/// Rows, and columns, of the block of sums that stays in registers: two tiles each way.
pub(super) const BLOCK: usize = 2 * TILE;

/// Half of the distance between neighbouring `f32` near one.
const HALF_UNIT: f32 = f32::EPSILON / 2.0;

/// Whether the processor has the unit and the system lets this process use it.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        use core::arch::x86_64::{__cpuid, __cpuid_count};
        const AMX_BF16: u32 = 1 << 22;
        const AMX_TILE: u32 = 1 << 24;
        if __cpuid(0).eax < 7 {
            return false;
        }
        let flags = __cpuid_count(7, 0).edx;
        flags & AMX_BF16 != 0 && flags & AMX_TILE != 0 && permitted()
    })
}

/// Asks the kernel for the tiles' state, which is larger than what it saves of a thread otherwise. From then on the kernel
/// refuses alternative signal stacks that are too small for it; where there is one already, it refuses this.
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XTILEDATA: i64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: the call changes nothing but what this process may use; it is unknown to older kernels, which say so.
    unsafe {
        asm!("syscall", inlateout("rax") result, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XTILEDATA, lateout("rcx") _,
            lateout("r11") _, options(nostack));
    }
    result == 0
}

/// What the tile registers hold: all eight of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

static SHAPES: Shapes = Shapes {
    palette: 1,
    start: 0,
    reserved: [0; 14],
    bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The nearest `bf16`, and its value.
#[inline(always)]
fn rounded(value: f32) -> (u16, f32) {
    let bits = value.to_bits();
    let high = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) >> 16;
    (high as u16, f32::from_bits(high << 16))
}

/// Of a vector: its length, and that of what rounding to `bf16` took away.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    whole: f32,
    lost: f32,
}

/// Writes the rounded values, `out` as long or longer, and returns the lengths.
#[inline(always)]
fn round_row(row: &[f32], out: &mut [u16]) -> Lengths {
    const LANES: usize = 16;
    let (mut whole, mut lost) = ([0f32; LANES], [0f32; LANES]);
    let ((row, rest), (out, out_rest)) = (row.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
    for (row, out) in row.iter().zip(&mut *out) {
        for lane in 0..LANES {
            let (bits, near) = rounded(row[lane]);
            out[lane] = bits;
            whole[lane] += row[lane] * row[lane];
            lost[lane] += (row[lane] - near) * (row[lane] - near);
        }
    }
    let tail = out[row.len()..].as_flattened_mut().iter_mut().chain(out_rest);
    for ((value, out), lane) in rest.iter().zip(tail).zip(0..) {
        let (bits, near) = rounded(*value);
        *out = bits;
        whole[lane] += value * value;
        lost[lane] += (value - near) * (value - near);
    }
    Lengths { whole: whole.iter().sum::<f32>().sqrt(), lost: lost.iter().sum::<f32>().sqrt() }
}

/// Codewords as the matrix unit reads them.
#[derive(Debug, Clone)]
pub(super) struct Words {
    /// For each 32 codewords and each 32 dimensions two tiles.
    tiles: Vec<u16>,
    d: usize,
    /// Of each codeword, a little more for those next to nothing, 0 for those that only fill a block.
    lengths: Vec<f32>,
    /// The greatest share of such a length that rounding took away.
    lost: f32,
    greatest_half_norm: f32,
}

/// What one thread multiplies with.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    rows: Vec<u16>,
    lengths: Vec<Lengths>,
}

impl Words {
    /// Lays out codewords, `(codewords, d)` row-major, whose squared lengths are twice `half_norms`; `None` where the
    /// processor has no such unit, or the codewords are too few or too extreme for it.
    pub(super) fn new(words: &[f32], d: usize, half_norms: &[f32]) -> Option<Self> {
        const FEWEST: usize = BLOCK;
        // Above, `bf16` may round to infinity; below, what the unit takes for zero would count.
        const LENGTHS: std::ops::Range<f32> = 1e-9..1e15;
        // Of the longest: what shorter codewords are taken to measure.
        const SHORTEST: f32 = 1e-6;
        let count = words.len() / d;
        if count < FEWEST || d < TILE || !available() {
            return None;
        }
        let chunks = d.div_ceil(DEPTH);
        let mut tiles = vec![0u16; count.div_ceil(BLOCK) * chunks * 2 * ELEMENTS];
        let mut all = Vec::with_capacity(count);
        let mut row = vec![0u16; d];
        for (word, values) in words.chunks_exact(d).enumerate() {
            let lengths = round_row(values, &mut row);
            if !lengths.whole.is_finite() {
                return None;
            }
            all.push(lengths);
            let (block, tile, column) = (word / BLOCK, word % BLOCK / TILE, word % TILE);
            for (at, bits) in row.iter().enumerate() {
                let (chunk, pair, half) = (at / DEPTH, at % DEPTH / 2, at % 2);
                tiles[((block * chunks + chunk) * 2 + tile) * ELEMENTS + pair * DEPTH + 2 * column + half] = *bits;
            }
        }
        let longest = all.iter().fold(0f32, |top, lengths| top.max(lengths.whole));
        let mut lengths: Vec<f32> = all.iter().map(|lengths| lengths.whole.max(SHORTEST * longest)).collect();
        let lost = all.iter().zip(&lengths).fold(0f32, |top, (word, length)| top.max(word.lost / length));
        lengths.resize(count.next_multiple_of(BLOCK), 0.0);
        let greatest_half_norm = half_norms[..count].iter().fold(0f32, |top, norm| top.max(*norm));
        LENGTHS.contains(&longest).then_some(Self { tiles, d, lengths, lost, greatest_half_norm })
    }

    /// Writes `rows x codewords` products, each off by no more than the [`slack`](Self::slack) of its row and codeword.
    ///
    /// # Shapes
    /// `x`: `(rows, d)`; `out`: `(rows to a multiple of 32, stride)`, where `stride` has room for whole blocks of codewords.
    pub(super) fn products(&self, x: &[f32], stride: usize, out: &mut [f32], buffers: &mut Buffers) {
        let (chunks, rows) = (self.d.div_ceil(DEPTH), x.len() / self.d);
        let width = chunks * DEPTH;
        let Buffers { rows: rounded, lengths } = buffers;
        rounded.clear();
        rounded.resize(rows.next_multiple_of(BLOCK) * width, 0);
        lengths.clear();
        vectorized(
            #[inline(always)]
            || {
                for (x, out) in x.chunks_exact(self.d).zip(rounded.chunks_exact_mut(width)) {
                    lengths.push(round_row(x, out));
                }
            },
        );
        let per_block = chunks * 2 * ELEMENTS;
        let blocks = self.tiles.len() / per_block;
        assert!(stride >= blocks * BLOCK && out.len() >= rows.next_multiple_of(BLOCK) * stride);
        // SAFETY: the processor has the unit, or there would be no `Words`; the configuration is 64 bytes long.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const SHAPES, options(nostack, readonly)) };
        // The codewords of a block stay in the first-level cache while all rows pass by.
        for (block, tiles) in self.tiles.chunks_exact(per_block).enumerate() {
            for (rows, out) in rounded.chunks_exact(BLOCK * width).zip(out.chunks_mut(BLOCK * stride)) {
                let place = out[block * BLOCK..].as_mut_ptr();
                // SAFETY: `rows` holds 32 rows of `chunks` times 64 bytes, `tiles` two tiles a chunk, and `out` 32 rows of
                // `stride` with 32 places from `block * 32` on, by the assertion.
                unsafe { block_of_products(rows.as_ptr(), tiles.as_ptr(), chunks, place, stride) };
            }
        }
        // SAFETY: as above.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }

    /// The lengths of the codewords, as many as fill whole blocks.
    pub(super) fn lengths(&self) -> &[f32] {
        &self.lengths
    }

    /// How far a distance of that row, halved and without the row's own length, may be from the truth: a factor on the
    /// codeword's length, by Cauchy and Schwarz what rounding took from either vector times the length of the other, and
    /// what `f32` loses in adding up products; and a term for what is lost otherwise. No number when the row holds none.
    pub(super) fn slack(&self, row: usize, buffers: &Buffers) -> (f32, f32) {
        let Lengths { whole, lost } = buffers.lengths[row];
        let product = lost * (1.0 + self.lost) + whole * self.lost;
        let additions = (self.d + 4) as f32 * HALF_UNIT * whole;
        // A little more, for these sums are rounded too, and so are lengths.
        (1.05 * (product + additions), 5.0 * HALF_UNIT * self.greatest_half_norm)
    }
}

/// 32 x 32 products over `chunks` times 32 dimensions.
///
/// # Safety
/// `rows` points to 32 rows of `64 * chunks` bytes, `tiles` to `2048 * chunks` bytes, `out` to 32 rows of `stride` `f32` of which
/// 32 are written; the tiles are configured.
unsafe fn block_of_products(rows: *const u16, tiles: *const u16, chunks: usize, out: *mut f32, stride: usize) {
    let row_bytes = chunks * 2 * DEPTH;
    let out_bytes = stride * size_of::<f32>();
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{upper} + {row_bytes}*1]",
            "tileloadd tmm6, [{tiles} + {sixty_four}*1]",
            "tileloadd tmm7, [{tiles} + {sixty_four}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{lower} + {row_bytes}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {upper}, 64",
            "add {lower}, 64",
            "add {tiles}, 2048",
            "dec {chunks}",
            "jnz 2b",
            "tilestored [{out} + {out_bytes}*1], tmm0",
            "tilestored [{out} + {out_bytes}*1 + 64], tmm1",
            "tilestored [{out_lower} + {out_bytes}*1], tmm2",
            "tilestored [{out_lower} + {out_bytes}*1 + 64], tmm3",
            upper = inout(reg) rows => _,
            lower = inout(reg) rows.byte_add(TILE * row_bytes) => _,
            tiles = inout(reg) tiles => _,
            chunks = inout(reg) chunks => _,
            row_bytes = in(reg) row_bytes,
            sixty_four = in(reg) 64usize,
            out = in(reg) out,
            out_lower = in(reg) out.byte_add(TILE * out_bytes),
            out_bytes = in(reg) out_bytes,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::CounterRng;

    fn values(seed: u64, count: usize) -> Vec<f32> {
        let rng = CounterRng::new(seed);
        (0..count as u64).map(|i| (rng.f64_at(i) * 2.0 - 1.0) as f32).collect()
    }

    #[test]
    fn products_are_off_by_no_more_than_their_slack() {
        if !available() {
            eprintln!("not run: this processor, or its system, has no AMX");
            return;
        }
        for (rows, words, d) in [(1, 32, 16), (33, 40, 31), (70, 256, 33), (32, 100, 300)] {
            let (x, c) = (values(1, rows * d), values(2, words * d));
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let half_norms: Vec<f32> = c.chunks(d).map(|c| 0.5 * dot(c, c) as f32).collect();
            let packed = Words::new(&c, d, &half_norms).unwrap();
            let stride = words.next_multiple_of(BLOCK);
            let (mut out, mut buffers) = (vec![f32::NAN; rows.next_multiple_of(BLOCK) * stride], Buffers::default());
            packed.products(&x, stride, &mut out, &mut buffers);
            for (row, (x, out)) in x.chunks(d).zip(out.chunks(stride)).enumerate() {
                let (slack, rest) = packed.slack(row, &buffers);
                assert!(f64::from(slack) < 0.02 * dot(x, x).sqrt() && rest < 1e-4, "{slack} {rest}");
                for ((got, c), length) in out.iter().zip(c.chunks(d)).zip(packed.lengths()) {
                    let off = (f64::from(*got) - dot(x, c)).abs();
                    assert!(off < f64::from(slack * length), "{got} {} {slack}", dot(x, c));
                }
            }
        }
    }

    #[test]
    fn what_is_too_extreme_is_left_to_others() {
        let few = vec![1.0; 16 * BLOCK / 2];
        assert!(Words::new(&few, 16, &[8.0; BLOCK / 2]).is_none());
        for extreme in [0.0, 1e-20, 1e20, f32::NAN] {
            let words = vec![extreme; 16 * BLOCK];
            let half = 8.0 * extreme * extreme;
            assert!(Words::new(&words, 16, &[half; BLOCK]).is_none(), "{extreme}");
        }
    }
}
