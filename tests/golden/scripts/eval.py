"""Ranking metrics by `ranx` and scikit-learn, and bootstrap intervals by NumPy.

    python eval.py OUT

writes OUT/metrics.json: ranked lists with their relevant items, each list's metrics by ranx and their means; NDCG is
computed by scikit-learn besides and must agree. And OUT/bootstrap.json: values with their percentile intervals, the
resamples drawn by SplitMix64 as in Steele, Lea and Flood (OOPSLA 2014) and the percentiles by numpy.quantile.
"""

import json
import sys
from pathlib import Path

import numpy as np
from ranx import Qrels, Run, evaluate
from sklearn.metrics import ndcg_score

METRICS = [f"{name}@{k}" for name in ("recall", "ndcg", "mrr", "hit_rate") for k in (1, 3, 5, 10, 20)]
ITEMS, USERS = 60, 120
MASK = (1 << 64) - 1


def write(path, value):
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n")


def lists():
    """Lists of 1 to 30 items without repeats and 1 to 12 relevant items, half of the users with a single one."""
    rng = np.random.default_rng(20)
    for user in range(USERS):
        order = rng.permutation(ITEMS)
        ranked = order[: rng.integers(1, 31)]
        relevant = rng.permutation(ITEMS)[: 1 if user % 2 == 0 else rng.integers(1, 13)]
        yield ranked.tolist(), relevant.tolist()


def check_with_sklearn(ranked, relevant, scores):
    truth = np.zeros((1, ITEMS))
    truth[0, relevant] = 1
    score = np.zeros((1, ITEMS))
    score[0, ranked] = np.arange(len(ranked), 0, -1)
    for k in (1, 3, 5, 10, 20):
        if k <= len(ranked):  # beyond, scikit-learn averages over the ties of all items not ranked
            ours = ndcg_score(truth, score, k=k)
            assert abs(ours - scores[f"ndcg@{k}"]) < 1e-12, (ours, scores[f"ndcg@{k}"])


def metrics():
    cases = list(lists())
    key = "u{:04d}".format
    item = "i{:03d}".format
    qrels = Qrels({key(u): {item(i): 1 for i in relevant} for u, (_, relevant) in enumerate(cases)})
    run = Run({key(u): {item(i): float(len(ranked) - r) for r, i in enumerate(ranked)}
               for u, (ranked, _) in enumerate(cases)})
    means = evaluate(qrels, run, METRICS)
    evaluate(qrels, run, METRICS, return_mean=False)
    out = []
    for u, (ranked, relevant) in enumerate(cases):
        scores = {metric: float(run.scores[metric][key(u)]) for metric in METRICS}
        check_with_sklearn(ranked, relevant, scores)
        out.append({"ranked": ranked, "relevant": relevant, "scores": scores})
    return {"users": out, "means": {metric: float(means[metric]) for metric in METRICS}}


def splitmix64(state):
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def interval(values, resamples, level, seed):
    bits = splitmix64(seed)
    n = len(values)
    means = [np.mean([values[(next(bits) * n) >> 64] for _ in range(n)]) for _ in range(resamples)]
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return {"values": values, "resamples": resamples, "level": level, "seed": seed,
            "mean": float(np.mean(values)), "low": float(low), "high": float(high)}


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    write(out / "metrics.json", metrics())
    rng = np.random.default_rng(21)
    cases = [(rng.random(n).tolist(), resamples, level, seed)
             for n, resamples, level, seed in [(1, 10, 0.95, 0), (17, 200, 0.95, 1), (80, 333, 0.9, (1 << 63) + 5)]]
    cases.append(((rng.random(150) < 0.1).astype(float).tolist(), 500, 0.99, 42))
    write(out / "bootstrap.json", [interval(*case) for case in cases])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
