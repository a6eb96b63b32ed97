//! Products in `bf16` by units that make more of them than `f32` allows, which finds the few codewords that can be nearest sooner
//! than vector instructions in `f32` compare them all. The choice among those few is made in `f32`.
//!
//! Either unit adds to sums in `f32` the products of pairs of values: a row's pair with those of 16 codewords, which is how
//! codewords are laid out.

#[cfg(target_os = "linux")]
mod tiles;
mod vectors;

use std::sync::OnceLock;

#[cfg(target_os = "linux")]
use crate::math::vectorized;

/// Rows or columns of a tile.
const TILE: usize = 16;

/// Dimensions of a tile.
const DEPTH: usize = 32;

/// Elements of a tile of `bf16`.
const ELEMENTS: usize = TILE * DEPTH;

/// Rows, and columns, of the block of sums that stays in registers: two tiles each way.
pub(super) const BLOCK: usize = 2 * TILE;

/// Half of the distance between neighbouring `f32` near one.
const HALF_UNIT: f32 = f32::EPSILON / 2.0;

/// What multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// The matrix unit, some ten times as fast as `f32`.
    #[cfg(target_os = "linux")]
    Tiles,
    /// Vector instructions, twice as fast.
    Vectors,
}

impl Unit {
    /// Dimensions below which rounding the rows and looking twice at the products takes longer than what is saved.
    fn fewest_dimensions(self) -> usize {
        match self {
            #[cfg(target_os = "linux")]
            Self::Tiles => 16,
            Self::Vectors => 64,
        }
    }
}

/// The faster of the units that the processor has and the system lets this process use.
fn unit() -> Option<Unit> {
    static UNIT: OnceLock<Option<Unit>> = OnceLock::new();
    *UNIT.get_or_init(|| {
        #[cfg(target_os = "linux")]
        if tiles::available() {
            return Some(Unit::Tiles);
        }
        vectors::available().then_some(Unit::Vectors)
    })
}

/// Whether codewords of that many dimensions are compared by a unit, if they are neither few nor extreme.
pub(super) fn takes(d: usize) -> bool {
    unit().is_some_and(|unit| d >= unit.fewest_dimensions())
}

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

/// What is multiplied: rows of `chunks` times 32 values, a multiple of 32 of them, and for each 32 codewords and each 32 dimensions
/// two tiles; `stride` is from row to row of the result.
#[derive(Clone, Copy)]
struct Operands<'a> {
    rows: &'a [u16],
    words: &'a [u16],
    chunks: usize,
    stride: usize,
}

/// Codewords as the unit reads them.
#[derive(Debug, Clone)]
pub(super) struct Words {
    unit: Unit,
    /// For each 32 codewords and each 32 dimensions two tiles of 16 codewords: row by row pairs of dimensions, of all of them.
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
        Self::for_unit(unit()?, words, d, half_norms)
    }

    fn for_unit(unit: Unit, words: &[f32], d: usize, half_norms: &[f32]) -> Option<Self> {
        const FEWEST: usize = BLOCK;
        // Above, `bf16` may round to infinity; below, what the unit takes for zero would count.
        const LENGTHS: std::ops::Range<f32> = 1e-9..1e15;
        // Of the longest: what shorter codewords are taken to measure.
        const SHORTEST: f32 = 1e-6;
        let count = words.len() / d;
        if count < FEWEST || d < unit.fewest_dimensions() {
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
        LENGTHS.contains(&longest).then_some(Self { unit, tiles, d, lengths, lost, greatest_half_norm })
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
        match self.unit {
            Unit::Vectors => {
                let pairs = x.chunks_exact(self.d).zip(rounded.chunks_exact_mut(width));
                lengths.extend(pairs.map(|(x, out)| vectors::round_row(x, out)));
            }
            #[cfg(target_os = "linux")]
            Unit::Tiles => vectorized(
                #[inline(always)]
                || {
                    lengths.extend(
                        x.chunks_exact(self.d).zip(rounded.chunks_exact_mut(width)).map(|(x, out)| round_row(x, out)),
                    );
                },
            ),
        }
        let per_block = chunks * 2 * ELEMENTS;
        let blocks = self.tiles.len() / per_block;
        assert!(stride >= blocks * BLOCK && out.len() >= rows.next_multiple_of(BLOCK) * stride);
        let operands = Operands { rows: rounded, words: &self.tiles, chunks, stride };
        match self.unit {
            #[cfg(target_os = "linux")]
            Unit::Tiles => tiles::products(&operands, out),
            Unit::Vectors => vectors::products(&operands, out),
        }
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
        let mut units = Vec::new();
        #[cfg(target_os = "linux")]
        match tiles::available() {
            true => units.push(Unit::Tiles),
            false => eprintln!("not run: this processor, or its system, has no AMX"),
        }
        match vectors::available() {
            true => units.push(Unit::Vectors),
            false => eprintln!("not run: this processor has no AVX512-BF16"),
        }
        let sizes = [(1, 32, 64), (33, 40, 65), (70, 256, 97), (32, 100, 300)];
        for (unit, (rows, words, d)) in units.into_iter().flat_map(|unit| sizes.map(|size| (unit, size))) {
            let (x, c) = (values(1, rows * d), values(2, words * d));
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let half_norms: Vec<f32> = c.chunks(d).map(|c| 0.5 * dot(c, c) as f32).collect();
            let packed = Words::for_unit(unit, &c, d, &half_norms).unwrap();
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
        let few = vec![1.0; 64 * BLOCK / 2];
        assert!(Words::new(&few, 64, &[32.0; BLOCK / 2]).is_none());
        for extreme in [0.0, 1e-20, 1e20, f32::NAN] {
            let words = vec![extreme; 64 * BLOCK];
            let half = 32.0 * extreme * extreme;
            assert!(Words::new(&words, 64, &[half; BLOCK]).is_none(), "{extreme}");
        }
    }
}
