//! The pieces of a batch shared out over workers and threads.

use crate::share::BatchShare;

/// Shares of a batch whose gradients are summed apart, and so the most threads that a step uses, unless told otherwise. It is fixed,
/// for the order of the sums, and with it every bit of the result, must not depend on the number of threads.
pub(crate) const SHARES: usize = 8;

/// No machine has more threads to give; a bound on what is allocated.
pub(crate) const MOST_SHARES: usize = 1 << 12;

/// The chunks that fall to this worker, by the leaves of the tree by which their gradients are summed. Some leaves may have none.
///
/// Where the number of shares is a multiple of the number of workers, each has as many of the same shares that one worker would have:
/// then the sums over two workers are bit for bit those of one.
pub(crate) fn balance<C>(chunks: Vec<C>, worker: BatchShare, shares: usize, work: impl Fn(&C) -> usize) -> Vec<Vec<C>> {
    if !shares.is_multiple_of(worker.ranks()) {
        let mine = deal(chunks, worker.ranks(), &work).into_iter().nth(worker.rank()).unwrap_or_default();
        return deal(mine, shares, &work);
    }
    let width = shares / worker.ranks();
    deal(chunks, shares, &work).into_iter().skip(worker.rank() * width).take(width).collect()
}

/// Deals chunks out, the largest first, each to the leaf with the least work.
fn deal<C>(mut chunks: Vec<C>, leaves: usize, work: impl Fn(&C) -> usize) -> Vec<Vec<C>> {
    chunks.sort_by_key(|chunk| std::cmp::Reverse(work(chunk)));
    let mut dealt: Vec<(usize, Vec<C>)> = Vec::new();
    dealt.resize_with(leaves, || (0, Vec::new()));
    let order = spread(leaves);
    for chunk in chunks {
        if let Some(&leaf) = order.iter().min_by_key(|&&leaf| dealt[leaf].0) {
            let (sum, share) = &mut dealt[leaf];
            *sum += work(&chunk);
            share.push(chunk);
        }
    }
    dealt.into_iter().map(|(_, chunks)| chunks).collect()
}

/// The leaves of a tree, each as far from those before it as can be: a few chunks then fall to several workers.
fn spread(leaves: usize) -> Vec<usize> {
    if leaves <= 1 {
        return (0..leaves).collect();
    }
    let half = leaves.div_ceil(2);
    let mut second = spread(leaves - half).into_iter().map(|leaf| half + leaf);
    let mut order = Vec::with_capacity(leaves);
    for leaf in spread(half) {
        order.push(leaf);
        order.extend(second.next());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_spread_over_the_tree() {
        assert_eq!(spread(8), [0, 4, 2, 6, 1, 5, 3, 7]);
        assert_eq!(spread(5), [0, 3, 2, 4, 1]);
        assert_eq!((spread(0), spread(1)), (vec![], vec![0]));
    }

    #[test]
    fn few_chunks_fall_to_all_workers() {
        let dealt = |rank, ranks| {
            let worker = BatchShare::new(rank, ranks).unwrap();
            balance(vec![5, 4, 3, 2], worker, SHARES, |chunk| *chunk).into_iter().flatten().collect::<Vec<usize>>()
        };
        assert_eq!([dealt(0, 2), dealt(1, 2)], [vec![5, 3], vec![4, 2]]);
        assert_eq!([dealt(0, 3), dealt(1, 3), dealt(2, 3)], [vec![5], vec![3, 2], vec![4]]);
        let four: Vec<Vec<usize>> = (0..4).map(|rank| dealt(rank, 4)).collect();
        assert_eq!(four, [[5], [3], [4], [2]]);
    }
}
