//! Other codes for items whose codes collide.
//!
//! A quantiser gives near items equal codes. [`Reassign`] moves as few of them as it can to the next best codes, so that no
//! code tuple holds more items than it should: see there.

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::{
    error::{IndexError, Result},
    id::ItemId,
    index::{SidIndex, check_item_count},
    layout::SidLayout,
};

mod costs;
mod levels;
mod occupied;
mod places;
mod sinkhorn;

pub use costs::CodeCosts;

/// Gives items other codes until no code tuple holds more than `capacity` of them.
///
/// It goes from the coarsest level to the finest. Below a code there is room for `capacity` items in every tuple that
/// begins so; while the items with that code fit in, they keep it. Of those that do not, the
/// [`method`](ReassignMethod) says which keep it and which of the codes with room the others get. An item that gets another
/// code at one level gets its deeper codes anew, the cheapest with room. As a rule only the last level is touched; what
/// codes cost is asked only where some item must move, once for each prefix.
///
/// ```
/// use std::convert::Infallible;
///
/// use ndarray::{Array2, array};
/// use sid_index::{CollisionPolicy, Reassign, SidIndex, SidLayout};
///
/// // One level of codewords 0, 1, 2, 3 on a line. The last two items are nearest to codeword 2.
/// let layout = SidLayout::new(vec![4])?.without_suffix();
/// let (items, codes) = ([0.2_f32, 1.9, 2.2], array![[0_u32], [2], [2]]);
/// let mut costs = |_prefix: &[u32], rows: &[u32]| {
///     let distance = |(i, code)| (items[rows[i] as usize] - code as f32).powi(2);
///     Ok::<_, Infallible>(Array2::from_shape_fn((rows.len(), 4), distance))
/// };
/// let repaired = Reassign::default().repair(&layout, codes.view(), &mut costs)?;
/// assert_eq!(repaired.codes, array![[0], [2], [3]]);
/// assert_eq!((repaired.report.moved, repaired.report.left), (vec![1], 0));
/// let mut index = SidIndex::from_codes(layout, repaired.codes.view(), CollisionPolicy::Share)?;
///
/// // An item that comes later takes what is free: the others keep their Semantic IDs.
/// let mut costs = |_prefix: &[u32], rows: &[u32]| {
///     Ok::<_, Infallible>(Array2::from_shape_fn((rows.len(), 4), |(_, code)| (2.0 - code as f32).powi(2)))
/// };
/// let added = Reassign::default().repair_added(&index, array![[2]].view(), &mut costs)?;
/// index.extend(added.codes.view())?;
/// assert_eq!(index.sids().map(|(_, sid)| sid[0]).collect::<Vec<_>>(), [0, 2, 3, 1]);
/// # Ok::<(), sid_index::IndexError>(())
/// ```
///
/// # Limits
/// Items that fit in, `items <= capacity * product of the codebooks' sizes`, are all placed if no cost is infinite.
/// Otherwise those left over keep the codes that they came with, beyond the capacity, and are counted. Where costs
/// are infinite, an item may be left although another order of choices would have placed it.
///
/// A prefix whose items contend takes memory for `(contenders, codes of the level)` costs, with
/// [`Sinkhorn`](ReassignMethod::Sinkhorn) two to three times that in `f64`.
///
/// The result depends on the codes, their order and the costs alone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Reassign {
    /// Which items keep their codes and which codes the others get; [`Greedy`](ReassignMethod::Greedy) by default.
    pub method: ReassignMethod,
    /// Most items that may have the same codes. 1 by default: the codes alone tell all items apart, as LC-Rec has it. A
    /// greater number goes with a suffix of that size; a layout's suffix bounds it.
    pub capacity: u32,
}

/// Which of the items that do not fit keep their code, and which codes with room the others get.
///
/// In files a `type` with the variant's name in snake case, and its fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ReassignMethod {
    /// The items nearest to the code keep it. Then pairs of item and code are taken in ascending order of their cost.
    /// Ties go to the lower item, then to the lower code. The default: fast, and few items go far.
    #[default]
    Greedy,
    /// All items that had the code contend for all codes with room by an entropic optimal-transport plan, which says too who
    /// keeps the code. It is rounded in descending order of mass, and items that a cheaper code has room for then change
    /// to it. The total cost is nearer to the least than by `Greedy`: within 2 % on average in the tests, where 200 rounds
    /// instead of 50 come within 0.1 %. Slower, and items may change places without need, where they had not the nearest
    /// code.
    ///
    /// It is the uniform semantic mapping by which LC-Rec (Zheng et al. 2023, *Adapting Large Language Models by Integrating
    /// Collaborative Semantics for Recommendation*, arXiv 2311.09049, section 3.2) and LETTER (Wang et al. 2024,
    /// *Learnable Item Tokenization for Generative Recommendation*, arXiv 2405.07314) resolve collisions at the last
    /// level, with two differences: every item ends with a place, and where there are more places than items none must
    /// be filled.
    Sinkhorn {
        /// Strength of the entropy, in units of half the range of the finite costs compared. 0.003 by default, as
        /// published. The smaller, the nearer to the cheapest assignment, and the more rounds it takes.
        #[serde(default = "published_epsilon")]
        epsilon: f64,
        /// Rounds of scaling; 50 by default, as published.
        #[serde(default = "published_iterations")]
        iterations: u32,
    },
    /// The earlier items keep the code, and the others in item order take the cheapest code with room, the lower of equals.
    /// So does TorchEasyRec's capacity-limited first-fit, at the last level and in the order of a hash of the item.
    FirstFit,
}

fn published_epsilon() -> f64 {
    3e-3
}

fn published_iterations() -> u32 {
    50
}

impl ReassignMethod {
    /// [`Sinkhorn`](Self::Sinkhorn) with the published strength of the entropy and number of rounds.
    pub fn sinkhorn() -> Self {
        Self::Sinkhorn { epsilon: published_epsilon(), iterations: published_iterations() }
    }
}

/// Codes after a repair.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reassigned {
    /// The codes, `(items, levels)`, in the order of those given.
    pub codes: Array2<u32>,
    /// How many of them are not those given.
    pub report: ReassignReport,
}

/// How many items a repair moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReassignReport {
    /// Items by the first level whose code changed, `(levels,)`.
    pub moved: Vec<usize>,
    /// Items without a place, which keep the codes that they came with, beyond the capacity.
    pub left: usize,
}

impl Default for Reassign {
    fn default() -> Self {
        Self::new(1)
    }
}

impl Reassign {
    /// At most `capacity` items with the same codes, by [`ReassignMethod::Greedy`].
    pub fn new(capacity: u32) -> Self {
        Self { method: ReassignMethod::default(), capacity }
    }

    /// Sets which items keep their codes and which codes the others get.
    #[must_use]
    pub fn with_method(mut self, method: ReassignMethod) -> Self {
        self.method = method;
        self
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// When the capacity or the number of rounds is 0, or `epsilon` is not finite and above 0.
    pub fn validate(&self) -> Result<()> {
        if self.capacity == 0 {
            return Err(IndexError::NoCapacity);
        }
        if let ReassignMethod::Sinkhorn { epsilon, iterations } = self.method {
            if !(epsilon.is_finite() && epsilon > 0.0) {
                return Err(IndexError::Epsilon { epsilon });
            }
            if iterations == 0 {
                return Err(IndexError::NoIterations);
            }
        }
        Ok(())
    }

    /// Repairs the codes of a whole catalogue, before [`SidIndex::from_codes`].
    ///
    /// # Shapes
    /// `codes`: `(items, levels)`, as the quantiser gave them.
    ///
    /// # Errors
    /// When [`validate`](Self::validate) or the layout's fails, the number of columns is not the layout's number of levels,
    /// a code is outside its codebook, there are too many items, or the costs fail, have another shape than asked for,
    /// or hold what is not a number or negative infinity.
    #[allow(clippy::needless_pass_by_value, reason = "a view is passed by value, as ndarray does")]
    pub fn repair<C: CodeCosts>(
        &self,
        layout: &SidLayout,
        codes: ArrayView2<'_, u32>,
        costs: &mut C,
    ) -> Result<Reassigned> {
        layout.validate()?;
        self.run(layout, None, &codes, costs)
    }

    /// Repairs the codes of items that come later, before [`SidIndex::extend`]. The Semantic IDs of the index stay, and
    /// the new items take what they leave free.
    ///
    /// # Shapes
    /// `codes`: `(new items, levels)`. Costs are asked for rows of these: row 0 is the item `index.len()`.
    ///
    /// # Errors
    /// As [`repair`](Self::repair).
    #[allow(clippy::needless_pass_by_value, reason = "a view is passed by value, as ndarray does")]
    pub fn repair_added<C: CodeCosts>(
        &self,
        index: &SidIndex,
        codes: ArrayView2<'_, u32>,
        costs: &mut C,
    ) -> Result<Reassigned> {
        self.run(index.layout(), Some(index), &codes, costs)
    }

    fn run<C: CodeCosts>(
        &self,
        layout: &SidLayout,
        index: Option<&SidIndex>,
        codes: &ArrayView2<'_, u32>,
        costs: &mut C,
    ) -> Result<Reassigned> {
        self.validate()?;
        let levels = layout.levels();
        if codes.ncols() != levels {
            return Err(IndexError::Levels { expected: levels, got: codes.ncols() });
        }
        let known = index.map_or(0, SidIndex::len);
        check_item_count(known.saturating_add(codes.nrows()), layout.positions())?;
        // Fits: just checked.
        let first = known as u32;
        let given: Vec<u32> = codes.iter().copied().collect();
        for (item, row) in (first..).map(ItemId).zip(given.chunks_exact(levels)) {
            if let Some((position, code, size)) = layout.first_out_of_range(row) {
                return Err(IndexError::CodeOutOfRange { item, position, code, size });
            }
        }
        let capacity = u64::from(self.capacity.min(layout.suffix_size().unwrap_or(u32::MAX)));
        let occupied = index.map_or_else(occupied::Occupied::nothing, |index| occupied::Occupied::by(index, capacity));
        let task = levels::Task { method: self.method, capacity, sizes: layout.codebook_sizes(), occupied, first };
        let (mut new, left) = levels::walk(&task, given.clone(), costs)?;

        let mut report = ReassignReport { moved: vec![0; levels], left: 0 };
        for ((new, old), left) in new.chunks_exact_mut(levels).zip(given.chunks_exact(levels)).zip(left) {
            if left {
                report.left += 1;
                new.copy_from_slice(old);
            } else if let Some(level) = new.iter().zip(old).position(|(new, old)| new != old) {
                report.moved[level] += 1;
            }
        }
        let mut repaired = Array2::zeros(codes.raw_dim());
        repaired.iter_mut().zip(new).for_each(|(to, code)| *to = code);
        Ok(Reassigned { codes: repaired, report })
    }
}

#[cfg(test)]
mod tests;
