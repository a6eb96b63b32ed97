//! The form of a Semantic ID: how many positions, how many values at each.

use serde::{Deserialize, Serialize};

use crate::error::{IndexError, Result};

/// Suffix values that a layout has unless told otherwise.
const DEFAULT_SUFFIX: u32 = 256;

/// How many positions a Semantic ID has and how many values each can take.
///
/// The first positions are the quantiser's levels, from coarse to fine. A last one, the *suffix*, numbers the items
/// whose codes are equal; items without a collision carry suffix 0, so that every Semantic ID has one length.
///
/// ```
/// use sid_index::SidLayout;
///
/// let layout = SidLayout::new(vec![256, 256, 256])?;
/// assert_eq!((layout.levels(), layout.positions()), (3, 4));
/// assert_eq!(layout.sizes(), [256, 256, 256, 256]);
/// assert_eq!(layout.without_suffix().positions(), 3);
/// # Ok::<(), sid_index::IndexError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "Parts", try_from = "Parts")]
pub struct SidLayout {
    /// Sizes of all positions, the suffix last.
    sizes: Vec<u32>,
    levels: usize,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    codebook_sizes: Vec<u32>,
    suffix_size: Option<u32>,
}

impl SidLayout {
    /// Greatest number of positions, the suffix included.
    pub const MAX_POSITIONS: usize = 256;

    /// Greatest sum of all positions' sizes.
    pub const MAX_TOTAL: u64 = 1 << 31;

    /// A layout with one codebook a level, from coarse to fine, and a suffix of 256 values.
    ///
    /// # Errors
    /// When there is no level or more than [`MAX_POSITIONS`](Self::MAX_POSITIONS) positions, when a size is zero, or
    /// when the sizes add up to more than [`MAX_TOTAL`](Self::MAX_TOTAL).
    pub fn new(codebook_sizes: Vec<u32>) -> Result<Self> {
        let levels = codebook_sizes.len();
        let layout = Self { sizes: codebook_sizes, levels }.with_suffix(DEFAULT_SUFFIX);
        layout.validate()?;
        Ok(layout)
    }

    /// Sets the number of suffix values. Default: 256, as many as a codebook of the paper has.
    ///
    /// A size of zero is refused by [`validate`](Self::validate), which everything that takes a layout calls.
    #[must_use]
    pub fn with_suffix(mut self, size: u32) -> Self {
        self.sizes.truncate(self.levels);
        self.sizes.push(size);
        self
    }

    /// Takes the suffix away: items with equal codes will share their Semantic ID
    /// ([`CollisionPolicy::Share`](crate::CollisionPolicy::Share)).
    #[must_use]
    pub fn without_suffix(mut self) -> Self {
        self.sizes.truncate(self.levels);
        self
    }

    /// Checks what [`new`](Self::new) promises.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn validate(&self) -> Result<()> {
        if self.levels == 0 {
            return Err(IndexError::NoLevels);
        }
        if self.positions() > Self::MAX_POSITIONS {
            return Err(IndexError::TooManyPositions { positions: self.positions(), max: Self::MAX_POSITIONS });
        }
        if let Some(position) = self.sizes.iter().position(|&size| size == 0) {
            return Err(IndexError::EmptyPosition { position });
        }
        let total = self.sizes.iter().map(|&size| u64::from(size)).sum();
        if total > Self::MAX_TOTAL {
            return Err(IndexError::LayoutTooLarge { total, max: Self::MAX_TOTAL });
        }
        Ok(())
    }

    /// Number of the quantiser's levels.
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// Length of a Semantic ID: the levels, and one for the suffix where there is one.
    pub fn positions(&self) -> usize {
        self.sizes.len()
    }

    /// Number of values at each position, the suffix last.
    pub fn sizes(&self) -> &[u32] {
        &self.sizes
    }

    /// Number of codes of each level.
    pub fn codebook_sizes(&self) -> &[u32] {
        &self.sizes[..self.levels]
    }

    /// Number of suffix values, `None` without a suffix.
    pub fn suffix_size(&self) -> Option<u32> {
        self.sizes.get(self.levels).copied()
    }

    /// Checks the codes of one Semantic ID or of its first positions, and says which is the first outside its size.
    pub(crate) fn first_out_of_range(&self, codes: &[u32]) -> Option<(usize, u32, u32)> {
        codes.iter().zip(&self.sizes).enumerate().find(|(_, (code, size))| code >= size).map(|(p, (&c, &s))| (p, c, s))
    }
}

impl From<SidLayout> for Parts {
    fn from(layout: SidLayout) -> Self {
        Self { suffix_size: layout.suffix_size(), codebook_sizes: layout.codebook_sizes().to_vec() }
    }
}

impl TryFrom<Parts> for SidLayout {
    type Error = IndexError;

    fn try_from(parts: Parts) -> Result<Self> {
        let layout = Self { levels: parts.codebook_sizes.len(), sizes: parts.codebook_sizes };
        let layout = match parts.suffix_size {
            Some(size) => layout.with_suffix(size),
            None => layout,
        };
        layout.validate()?;
        Ok(layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_layout_is_refused() {
        assert!(matches!(SidLayout::new(vec![]), Err(IndexError::NoLevels)));
        assert!(matches!(SidLayout::new(vec![4, 0]), Err(IndexError::EmptyPosition { position: 1 })));
        assert!(matches!(SidLayout::new(vec![4; 256]), Err(IndexError::TooManyPositions { positions: 257, max: 256 })));
        assert!(matches!(SidLayout::new(vec![u32::MAX]), Err(IndexError::LayoutTooLarge { .. })));
        let layout = SidLayout::new(vec![4, 4]).unwrap().with_suffix(0);
        assert!(matches!(layout.validate(), Err(IndexError::EmptyPosition { position: 2 })));
    }

    #[test]
    fn suffix_is_set_once() {
        let layout = SidLayout::new(vec![4, 8]).unwrap().with_suffix(3).with_suffix(5);
        assert_eq!(layout.sizes(), [4, 8, 5]);
        assert_eq!((layout.codebook_sizes(), layout.suffix_size()), (&[4, 8][..], Some(5)));
        let bare = layout.without_suffix();
        assert_eq!((bare.sizes(), bare.suffix_size(), bare.positions()), (&[4, 8][..], None, 2));
    }

    #[test]
    fn json_round_trip_and_refusals() {
        let layout = SidLayout::new(vec![4, 8]).unwrap();
        let json = serde_json::to_string(&layout).unwrap();
        assert_eq!(json, r#"{"codebook_sizes":[4,8],"suffix_size":256}"#);
        assert_eq!(serde_json::from_str::<SidLayout>(&json).unwrap(), layout);
        for bad in [
            r#"{"codebook_sizes":[],"suffix_size":null}"#,
            r#"{"codebook_sizes":[4],"suffix_size":0}"#,
            r#"{"codebook_sizes":[4],"suffix_size":1,"extra":2}"#,
            r#"{"codebook_sizes":[-4],"suffix_size":1}"#,
        ] {
            assert!(serde_json::from_str::<SidLayout>(bad).is_err(), "{bad}");
        }
    }
}
