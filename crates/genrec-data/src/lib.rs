//! Interaction logs to training sequences: readers, k-core, leave-one-out splits, windows and synthetic data.
