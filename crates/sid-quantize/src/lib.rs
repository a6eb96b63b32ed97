//! Semantic-ID quantisers: item embeddings to codes with RQ-VAE and residual k-means.
