//! Ranks of the test items, small enough to be kept with every row: any two rows can be compared user by user for ever.

use serde::{Deserialize, Serialize};

/// For each user, in the order of the data, the rank of the test item among the first ten, from 0, or none.
///
/// Written as how many users missed before each hit, then the rank as a letter from `a`: `3a12c` says that the fourth user's
/// item came first and the seventeenth's third.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub(crate) struct Ranks(Vec<Option<u8>>);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Written {
    users: usize,
    hits: String,
}

impl Ranks {
    /// Ranks from the values of `mrr@10` by user.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "one over a rank from 1 to 10")]
    pub(crate) fn from_reciprocal(values: &[f64]) -> Self {
        Self(values.iter().map(|&value| (value > 0.0).then(|| (1.0 / value).round() as u8 - 1)).collect())
    }

    /// Users that were asked.
    pub(crate) fn users(&self) -> usize {
        self.0.len()
    }

    /// Recall within the first `k`, by user.
    pub(crate) fn recall(&self, k: usize) -> Vec<f64> {
        self.0.iter().map(|rank| f64::from(u8::from(rank.is_some_and(|rank| usize::from(rank) < k)))).collect()
    }

    /// NDCG within the first `k`, by user, of the one item that is relevant.
    pub(crate) fn ndcg(&self, k: usize) -> Vec<f64> {
        let gain = |rank: u8| 1.0 / (f64::from(rank) + 2.0).log2();
        self.0.iter().map(|rank| rank.filter(|&rank| usize::from(rank) < k).map_or(0.0, gain)).collect()
    }
}

impl From<Ranks> for Written {
    fn from(ranks: Ranks) -> Self {
        let (mut hits, mut missed) = (String::new(), 0);
        for rank in &ranks.0 {
            let Some(rank) = rank else {
                missed += 1;
                continue;
            };
            if missed > 0 {
                hits.push_str(&missed.to_string());
            }
            hits.push(char::from(b'a' + rank));
            missed = 0;
        }
        Self { users: ranks.0.len(), hits }
    }
}

impl TryFrom<Written> for Ranks {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        const MOST: usize = 1 << 28;
        if written.users > MOST {
            return Err(format!("{} users, at most {MOST}", written.users));
        }
        let (mut ranks, mut missed) = (Vec::new(), 0_usize);
        for byte in written.hits.bytes() {
            match byte {
                b'0'..=b'9' => missed = missed.saturating_mul(10).saturating_add(usize::from(byte - b'0')),
                b'a'..=b'j' => {
                    if missed >= written.users || ranks.len() + missed >= written.users {
                        return Err(format!("more ranks than the {} users", written.users));
                    }
                    ranks.resize(ranks.len() + missed, None);
                    ranks.push(Some(byte - b'a'));
                    missed = 0;
                }
                _ => return Err(format!("`{}` is neither a digit nor a rank from a to j", char::from(byte))),
            }
        }
        ranks.resize(written.users, None);
        Ok(Self(ranks))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn ranks_survive_and_give_their_metrics() {
        let values = [0.0, 1.0, 0.0, 0.0, 1.0 / 3.0, 0.1, 0.0];
        let ranks = Ranks::from_reciprocal(&values);
        let json = serde_json::to_string(&ranks).unwrap();
        assert_eq!(json, r#"{"users":7,"hits":"1a2cj"}"#);
        assert_eq!(serde_json::from_str::<Ranks>(&json).unwrap(), ranks);
        assert_eq!(ranks.recall(5), [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        assert_eq!(ranks.ndcg(5)[4], 0.5);
        assert_eq!(ranks.recall(10)[5], 1.0);
    }

    #[test]
    fn what_is_no_list_of_ranks_is_refused() {
        for bad in [r#"{"users":2,"hits":"2a"}"#, r#"{"users":2,"hits":"k"}"#, r#"{"users":1,"hits":"aa"}"#] {
            assert!(serde_json::from_str::<Ranks>(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Ranks>(r#"{"users":3,"hits":"99999999999999999999999a"}"#).is_err());
    }
}
