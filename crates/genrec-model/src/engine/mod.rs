//! What the CPU engines of the models share: layers over packed weights, a pass over sequences end to end, and a batch in
//! shares whose gradients are summed in one order.

pub(crate) mod grads;
pub(crate) mod layers;
pub(crate) mod pass;
pub(crate) mod shares;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done under a lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
