//! The pieces of a batch shared out over threads.

/// Shares of a batch whose gradients are summed apart, and so the most threads that a step uses. It is fixed, for the
/// order of the sums, and with it every bit of the result, must not depend on the number of threads.
pub(crate) const SHARES: usize = 8;

/// Deals the chunks out, the largest first, each to the share with the least work. There are no empty shares.
pub(crate) fn balance<C>(mut chunks: Vec<C>, work: impl Fn(&C) -> usize) -> Vec<Vec<C>> {
    chunks.sort_by_key(|chunk| std::cmp::Reverse(work(chunk)));
    let mut shares: Vec<(usize, Vec<C>)> = Vec::new();
    shares.resize_with(SHARES.min(chunks.len()), || (0, Vec::new()));
    for chunk in chunks {
        if let Some((sum, share)) = shares.iter_mut().min_by_key(|(sum, _)| *sum) {
            *sum += work(&chunk);
            share.push(chunk);
        }
    }
    shares.into_iter().map(|(_, share)| share).collect()
}
