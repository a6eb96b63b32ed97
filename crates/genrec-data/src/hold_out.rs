//! Items that training is not to see.

use std::collections::BTreeSet;

use sid_index::ItemId;

use crate::{DataError, LeaveOneOut, Result, Sequences, rng::Rng};

/// The stream of a seed that items are drawn from.
const STREAM: u64 = 0xC01D;

/// Sequences without some items, and these items.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HeldOut {
    /// The items, ascending.
    pub items: Vec<ItemId>,
    /// Sequences in which they are nobody's but as the last, which is the test item. Users are those of the original, in its
    /// order.
    pub sequences: Sequences,
}

/// Removes a share of the test items from all that is trained on: the protocol for cold start of the TIGER paper
/// (arXiv 2305.05065, section 4.3, "Cold-Start Recommendation": 5 % of the test items).
///
/// The items are drawn by `seed` among the distinct test items of [`LeaveOneOut`], one at least where there is any. They are
/// removed from training and validation parts and from histories, and stay where they are a user's test item. A user who is
/// left with less than [`LeaveOneOut::MIN_LENGTH`] items loses such a last item too, since it would be trained on.
///
/// ```
/// use genrec_data::{ItemId, LeaveOneOut, Sequences, hold_out};
///
/// let mut sequences = Sequences::new();
/// sequences.push("ada", &[3, 1, 4, 1, 5].map(ItemId))?;
/// sequences.push("bob", &[5, 3, 5, 4, 1, 3].map(ItemId))?;
/// // Of the two test items, 5 and 3, seed 0 draws one.
/// let held_out = hold_out(&sequences, 0.5, 0)?;
/// assert_eq!(held_out.items, [ItemId(5)]);
/// assert_eq!(held_out.sequences.items(0), Some(&[3, 1, 4, 1, 5].map(ItemId)[..]));
/// assert_eq!(held_out.sequences.items(1), Some(&[3, 4, 1, 3].map(ItemId)[..]));
/// # Ok::<(), genrec_data::DataError>(())
/// ```
///
/// # Errors
/// [`DataError::Config`] when `share` is not above 0 and below 1.
pub fn hold_out(sequences: &Sequences, share: f64, seed: u64) -> Result<HeldOut> {
    if !(share > 0.0 && share < 1.0) {
        return Err(DataError::config("share", share, "it must be above 0 and below 1"));
    }
    let split = LeaveOneOut::new(sequences);
    let targets: BTreeSet<ItemId> =
        (0..sequences.len()).filter_map(|user| split.test(user).map(|target| target.item)).collect();
    let mut order: Vec<ItemId> = targets.into_iter().collect();
    Rng::new(seed, STREAM).shuffle(&mut order);
    // No more than there are, so within usize.
    order.truncate(((order.len() as f64 * share).round() as usize).max(1));
    order.sort_unstable();
    let gone = |item: &ItemId| order.binary_search(item).is_ok();
    let mut kept = Sequences::new();
    for (user, items) in sequences.iter() {
        let Some((last, before)) = items.split_last() else {
            kept.push(user, items)?;
            continue;
        };
        let mut left: Vec<ItemId> = before.iter().copied().filter(|item| !gone(item)).collect();
        if left.len() + 1 >= LeaveOneOut::MIN_LENGTH || !gone(last) {
            left.push(*last);
        }
        kept.push(user, &left)?;
    }
    Ok(HeldOut { items: order, sequences: kept })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sequences(of: &[Vec<u32>]) -> Sequences {
        let mut sequences = Sequences::new();
        for (user, items) in of.iter().enumerate() {
            sequences.push(&user.to_string(), &items.iter().copied().map(ItemId).collect::<Vec<_>>()).unwrap();
        }
        sequences
    }

    #[test]
    fn shares_outside_their_range_are_refused() {
        for share in [0.0, 1.0, -0.1, f64::NAN] {
            let error = hold_out(&sequences(&[vec![1, 2, 3]]), share, 0).unwrap_err();
            assert!(error.to_string().contains("share"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_held_out_is_trained_on(
            of in prop::collection::vec(prop::collection::vec(0u32..12, 0..9), 1..12),
            share in 0.05f64..0.95,
            seed in any::<u64>(),
        ) {
            let all = sequences(&of);
            let held_out = hold_out(&all, share, seed).unwrap();
            let gone = |item: &ItemId| held_out.items.contains(item);
            let (before, after) = (LeaveOneOut::new(&all), LeaveOneOut::new(&held_out.sequences));
            prop_assert_eq!(all.len(), held_out.sequences.len());
            for user in 0..all.len() {
                prop_assert!(!after.train(user).iter().any(gone));
                prop_assert!(!after.valid(user).is_some_and(|target| gone(&target.item)));
                if let Some(test) = after.test(user) {
                    prop_assert_eq!(Some(test.item), before.test(user).map(|target| target.item));
                    prop_assert!(!test.history.iter().any(gone));
                }
                // What is not held out is all there.
                let left = |sequences: &Sequences| -> Vec<ItemId> {
                    sequences.items(user).unwrap().iter().copied().filter(|item| !gone(item)).collect()
                };
                prop_assert_eq!(left(&all), left(&held_out.sequences));
            }
            let mut targets: Vec<ItemId> = (0..all.len()).filter_map(|user| Some(before.test(user)?.item)).collect();
            targets.sort_unstable();
            targets.dedup();
            prop_assert!(held_out.items.iter().all(|item| targets.contains(item)));
            let wanted = ((targets.len() as f64 * share).round() as usize).max(1).min(targets.len());
            prop_assert_eq!(held_out.items.len(), wanted);
            prop_assert_eq!(hold_out(&all, share, seed).unwrap(), held_out);
        }
    }
}
