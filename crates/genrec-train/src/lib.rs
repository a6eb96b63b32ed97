//! Training loop for sequence models: schedules, early stopping, exact checkpoints and resume.
