//! Constrained beam search over Semantic IDs: logits to ranked sequences to items.
