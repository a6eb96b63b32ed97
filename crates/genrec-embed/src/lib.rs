//! Item text to content embeddings: BERT family, Sentence-T5, decoder LLMs and a weight-free TF-IDF default.
