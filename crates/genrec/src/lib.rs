//! Generative recommendation with Semantic IDs, end to end: TIGER from item text to ranked items.
