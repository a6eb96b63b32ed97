//! Threads that work in parallel.

/// Runs `work` on a thread of rayon's pool and waits for it.
///
/// From a thread outside of the pool every parallel loop is handed over to threads that sleep, and waking them takes tens of
/// microseconds: longer than a small loop. Work of many loops is handed over once; inside of the pool, where nothing has
/// to be handed over, `work` is called as it is.
///
/// ```
/// let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
/// assert_eq!(pool.install(|| genrec_kernels::in_pool(rayon::current_num_threads)), 2);
/// assert!(genrec_kernels::in_pool(rayon::current_thread_index).is_some());
/// # Ok::<(), rayon::ThreadPoolBuildError>(())
/// ```
pub fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}
