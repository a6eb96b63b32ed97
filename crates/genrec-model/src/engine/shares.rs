//! The pieces of a batch shared out over workers and threads.

use crate::share::BatchShare;

/// Shares of a batch whose gradients are summed apart, and so the most threads that a step uses, unless told otherwise. It is fixed,
/// for the order of the sums, and with it every bit of the result, must not depend on the number of threads.
pub(crate) const SHARES: usize = 8;

/// The chunks that fall to this worker, a share each, and the shares of the tree by which their gradients are summed.
///
/// Where the number of shares is a multiple of the number of workers, each has as many of the same shares that one worker would have:
/// then the sums over two workers, or four, are bit for bit those of one.
pub(crate) fn balance<C>(
    chunks: Vec<C>,
    worker: BatchShare,
    shares: usize,
    work: impl Fn(&C) -> usize,
) -> (Vec<Vec<C>>, usize) {
    if !shares.is_multiple_of(worker.ranks()) {
        let mine = deal(chunks, worker.ranks(), &work).into_iter().nth(worker.rank()).unwrap_or_default();
        return (deal(mine, shares, &work), shares);
    }
    let width = shares / worker.ranks();
    let mine = deal(chunks, shares, &work).into_iter().skip(worker.rank() * width).take(width);
    (mine.collect(), width)
}

/// Deals chunks out, the largest first, each to the part with the least work. There are no empty parts.
fn deal<C>(mut chunks: Vec<C>, parts: usize, work: impl Fn(&C) -> usize) -> Vec<Vec<C>> {
    chunks.sort_by_key(|chunk| std::cmp::Reverse(work(chunk)));
    let mut shares: Vec<(usize, Vec<C>)> = Vec::new();
    shares.resize_with(parts.min(chunks.len()), || (0, Vec::new()));
    for chunk in chunks {
        if let Some((sum, share)) = shares.iter_mut().min_by_key(|(sum, _)| *sum) {
            *sum += work(&chunk);
            share.push(chunk);
        }
    }
    shares.into_iter().map(|(_, share)| share).collect()
}
