//! Products in `bf16` by units that make more of them than `f32` allows, which finds the few codewords that can be nearest sooner
//! than vector instructions in `f32` compare them all. The choice among those few is made in `f32`.

pub(super) use crate::bf16::BLOCK;
use crate::bf16::{DEPTH, Lengths, Matrix, Sums, Unit, chunks, left_len, right_len};

/// Half of the distance between neighbouring `f32` near one.
const HALF_UNIT: f32 = f32::EPSILON / 2.0;

/// Whether codewords of that many dimensions are compared by a unit, if they are neither few nor extreme.
pub(super) fn takes(d: usize) -> bool {
    Unit::fastest().is_some_and(|unit| d >= unit.fewest_dimensions())
}

/// Codewords as the unit reads them.
#[derive(Debug, Clone)]
pub(super) struct Words {
    unit: Unit,
    /// A right operand whose columns are codewords.
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
        Self::for_unit(Unit::fastest()?, words, d, half_norms)
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
        let mut row = vec![0u16; d];
        let all: Vec<Lengths> = words.chunks_exact(d).map(|word| unit.round_row(word, &mut row)).collect();
        if all.iter().any(|lengths| !lengths.whole.is_finite()) {
            return None;
        }
        let mut tiles = vec![0u16; right_len(d, count)];
        unit.right(Matrix { values: words, rows: count, cols: d, stride: d }, true, &mut tiles);
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
        let (rows, width) = (x.len() / self.d, chunks(self.d) * DEPTH);
        let Buffers { rows: rounded, lengths } = buffers;
        rounded.clear();
        rounded.resize(left_len(rows, self.d), 0);
        lengths.clear();
        let pairs = x.chunks_exact(self.d).zip(rounded.chunks_exact_mut(width));
        lengths.extend(pairs.map(|(x, out)| self.unit.round_row(x, out)));
        let (rows, cols) = (rows.next_multiple_of(BLOCK), self.lengths.len());
        let sums = Sums { values: out, rows, cols, stride, add: false, spill: false };
        self.unit.product(rounded, &self.tiles, self.d, sums);
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
        if Unit::all().is_empty() {
            eprintln!("not run: this processor, or its system, has neither AMX nor AVX512-BF16");
        }
        let sizes = [(1, 32, 64), (33, 40, 65), (70, 256, 97), (32, 100, 300)];
        for (unit, (rows, words, d)) in Unit::all().into_iter().flat_map(|unit| sizes.map(|size| (unit, size))) {
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
