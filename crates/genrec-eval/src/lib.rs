//! Ranking metrics for recommendation: Recall, NDCG, MRR, coverage, invalid-id rate and bootstrap intervals.
