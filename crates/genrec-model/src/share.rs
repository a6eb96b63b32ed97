//! The share of a batch that one of several workers computes.

/// Which of several workers computes, so that together they compute a batch once.
///
/// Work is dealt out by its length, longest first, each piece to the worker with the least, so that the shares of a batch of many pieces take
/// about the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchShare {
    rank: usize,
    ranks: usize,
}

/// A worker that is not one of those there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("rank {rank} is not one of {ranks}; ranks count from 0")]
pub struct ShareError {
    /// The worker.
    pub rank: usize,
    /// How many there are.
    pub ranks: usize,
}

impl BatchShare {
    /// All of the batch: one worker does everything.
    pub const WHOLE: Self = Self { rank: 0, ranks: 1 };

    /// The share of worker `rank` of `ranks`.
    ///
    /// # Errors
    /// When `rank` is not below `ranks`.
    pub fn new(rank: usize, ranks: usize) -> Result<Self, ShareError> {
        if rank < ranks { Ok(Self { rank, ranks }) } else { Err(ShareError { rank, ranks }) }
    }

    /// The worker, from 0.
    pub fn rank(self) -> usize {
        self.rank
    }

    /// Number of workers.
    pub fn ranks(self) -> usize {
        self.ranks
    }

    /// Whether one worker does everything.
    pub fn is_whole(self) -> bool {
        self.ranks == 1
    }

    /// What falls to this worker of pieces that are in the order of their lengths.
    pub(crate) fn every<T>(self, pieces: Vec<T>) -> Vec<T> {
        if self.is_whole() {
            return pieces;
        }
        pieces.into_iter().skip(self.rank).step_by(self.ranks).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_is_below_the_number_of_ranks() {
        assert_eq!(BatchShare::new(0, 1), Ok(BatchShare::WHOLE));
        assert_eq!(BatchShare::new(2, 2), Err(ShareError { rank: 2, ranks: 2 }));
        assert!(BatchShare::new(0, 0).is_err());
    }

    #[test]
    fn every_piece_falls_to_one_worker() {
        let pieces = |rank| BatchShare::new(rank, 3).unwrap().every((0..7).collect());
        assert_eq!([pieces(0), pieces(1), pieces(2)], [vec![0, 3, 6], vec![1, 4], vec![2, 5]]);
        assert_eq!(BatchShare::WHOLE.every(vec![5, 6]), [5, 6]);
    }
}
