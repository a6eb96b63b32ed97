//! Values that nobody means: embeddings that are no numbers or too large for any sum of them, texts without a word, histories
//! without an item or with far too many. Whatever takes them refuses them by a typed error or makes numbers of them.

mod histories;
mod quantizers;
mod runs;
