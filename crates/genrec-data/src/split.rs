//! Leave-one-out.

use sid_index::ItemId;

use crate::Sequences;

/// A held-out item and everything its user did before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target<'a> {
    /// All earlier items, oldest first, not cut to any length.
    pub history: &'a [ItemId],
    /// The item to be predicted.
    pub item: ItemId,
}

/// The split of the TIGER paper (section 4, after SASRec): the last item of a user is for testing, the one before it
/// for validation, the rest for training.
///
/// A user with fewer than three items keeps them all for training and has neither target: with two, the validation
/// item would leave one training item and no test, and figures over different users could not be compared. The history
/// of the test item includes the validation item.
///
/// ```
/// use genrec_data::{ItemId, LeaveOneOut, Sequences};
///
/// let mut sequences = Sequences::new();
/// sequences.push("ada", &[3, 1, 4, 1].map(ItemId))?;
/// let split = LeaveOneOut::new(&sequences);
/// assert_eq!(split.train(0), [3, 1].map(ItemId));
/// assert_eq!(split.train_counts(5), [0, 1, 0, 1, 0]);
/// assert_eq!(split.valid(0).map(|t| t.item), Some(ItemId(4)));
/// assert_eq!(split.test(0).map(|t| t.history), Some(&[3, 1, 4].map(ItemId)[..]));
/// # Ok::<(), genrec_data::DataError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct LeaveOneOut<'a> {
    sequences: &'a Sequences,
}

impl<'a> LeaveOneOut<'a> {
    /// Shortest sequence that has a validation and a test item.
    pub const MIN_LENGTH: usize = 3;

    /// Splits every user; nothing is copied.
    pub fn new(sequences: &'a Sequences) -> Self {
        Self { sequences }
    }

    /// Number of users, those without targets included.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Whether there is no user.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// The sequences that are split.
    pub fn sequences(&self) -> &'a Sequences {
        self.sequences
    }

    /// The training items of user `i`, oldest first; empty for a user that does not exist.
    pub fn train(&self, i: usize) -> &'a [ItemId] {
        let items = self.sequences.items(i).unwrap_or_default();
        let held_out = if items.len() >= Self::MIN_LENGTH { 2 } else { 0 };
        &items[..items.len() - held_out]
    }

    /// The training items of every user as rows of the catalogue, oldest first: what item models and behaviour learn from.
    pub fn train_rows(&self) -> impl Iterator<Item = impl Iterator<Item = u32> + use<'a>> + use<'a> {
        let split = *self;
        (0..split.len()).map(move |user| split.train(user).iter().map(|item| item.0))
    }

    /// How often each of so many items stands in the training parts. Items past them are not counted.
    ///
    /// # Shapes
    /// `(items,)`
    pub fn train_counts(&self, items: usize) -> Vec<u64> {
        let mut counts = vec![0; items];
        for item in self.train_rows().flatten() {
            if let Some(count) = counts.get_mut(item as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// The validation item of user `i`, if the sequence is long enough.
    pub fn valid(&self, i: usize) -> Option<Target<'a>> {
        self.target(i, 2)
    }

    /// The test item of user `i`, if the sequence is long enough.
    pub fn test(&self, i: usize) -> Option<Target<'a>> {
        self.target(i, 1)
    }

    fn target(&self, i: usize, from_end: usize) -> Option<Target<'a>> {
        let items = self.sequences.items(i).filter(|items| items.len() >= Self::MIN_LENGTH)?;
        let at = items.len() - from_end;
        Some(Target { history: &items[..at], item: items[at] })
    }
}
