"""Ranking metrics by `ranx` and scikit-learn, the rest by SciPy, scikit-learn and NumPy.

    python eval.py OUT

writes into OUT
- metrics.json: ranked lists with their relevant items, each list's metrics by ranx and their means; NDCG is computed by
  scikit-learn besides and must agree; under `groups` the means by ranx when only the relevant items of a group are asked for;
- diversity.json: lists with the categories and counts of items; entropy by SciPy, Gini as the area under the Lorenz curve
  by scikit-learn, coverage and popularity by NumPy;
- levels.json: lists and targets as codes, and the accuracy by level, which scikit-learn checks at the first rank;
- bootstrap.json: values with their percentile intervals, the resamples drawn by SplitMix64 as in Steele, Lea and Flood
  (OOPSLA 2014) and the percentiles by numpy.quantile;
- randomisation.json: paired values with the p-value of SciPy's permutation test where all relabellings are looked at; where
  they are drawn, by the same SplitMix64, SciPy draws too and must come near;
- seeds.json: values with standard error and Student's interval by SciPy.
"""

import json
import sys
from pathlib import Path

import numpy as np
from ranx import Qrels, Run, evaluate
from scipy import stats
from sklearn.metrics import accuracy_score, auc, ndcg_score

METRICS = [f"{name}@{k}" for name in ("recall", "ndcg", "mrr", "hit_rate") for k in (1, 3, 5, 10, 20)]
ITEMS, USERS = 60, 120
GROUP = 4  # one item of so many counts as unseen
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
    groups = {"unseen": group_means(cases, lambda i: i % GROUP == 0), "seen": group_means(cases, lambda i: i % GROUP != 0)}
    return {"users": out, "means": {metric: float(means[metric]) for metric in METRICS}, "groups": groups}


def group_means(cases, member):
    """Means over the users who have relevant items of the group, when those alone are asked for."""
    qrels, run = {}, {}
    for u, (ranked, relevant) in enumerate(cases):
        if own := {f"i{i:03d}": 1 for i in relevant if member(i)}:
            qrels[f"u{u:04d}"] = own
            run[f"u{u:04d}"] = {f"i{i:03d}": float(len(ranked) - r) for r, i in enumerate(ranked)}
    means = evaluate(Qrels(qrels), Run(run), METRICS)
    return {"users": len(qrels), "means": {metric: float(means[metric]) for metric in METRICS}}


def gini(exposure):
    """One less twice the area under the Lorenz curve."""
    shares = np.concatenate([[0], np.cumsum(np.sort(exposure)) / np.sum(exposure)])
    return 1 - 2 * auc(np.linspace(0, 1, len(shares)), shares)


def diversity():
    rng = np.random.default_rng(22)
    items, categories = 50, 7
    category = rng.integers(0, categories, items)
    counts = rng.geometric(0.05, items) - 1
    weights = (counts + 0.5) / (counts + 0.5).sum()
    # Popular items are drawn more often; every fifth list repeats items.
    lists = [rng.choice(items, rng.integers(1, 16), replace=u % 5 == 0, p=weights).tolist() for u in range(80)]
    information = -np.log2(np.maximum(counts, 1) / counts.sum())
    values = {}
    for k in (1, 3, 5, 10, 20):
        top = [ranked[:k] for ranked in lists]
        exposure = np.bincount(np.concatenate([np.unique(t) for t in top]), minlength=items)
        kinds = [np.bincount(category[t]) for t in top]
        values[str(k)] = {
            "entropy": float(np.mean([stats.entropy(kind, base=2) for kind in kinds])),
            "entropy_nats": float(np.mean([stats.entropy(kind) for kind in kinds])),
            "coverage": float(np.count_nonzero(exposure) / items),
            "gini": float(gini(exposure)),
            "popularity": float(np.mean([np.mean(counts[t]) for t in top])),
            "log_popularity": float(np.mean([np.mean(np.log1p(counts[t])) for t in top])),
            "novelty": float(np.mean([np.mean(information[t]) for t in top])),
        }
    return {"categories": category.tolist(), "counts": counts.tolist(), "lists": lists, "values": values}


def levels():
    rng = np.random.default_rng(23)
    users, depth, length = 60, 10, 4
    targets = rng.integers(0, 4, (users, length))
    ranked = rng.integers(0, 4, (users, depth, length))
    ranked[:, :, 0] = np.where(rng.random((users, depth)) < 0.3, targets[:, :1], ranked[:, :, 0])
    values = {}
    for level in range(1, length + 1):
        same = (ranked[:, :, :level] == targets[:, None, :level]).all(-1)
        for k in (1, 5, 10):
            values[f"accuracy_level_{level}@{k}"] = float(same[:, :k].any(1).mean())
        names = [["-".join(map(str, codes[:level])) for codes in rows] for rows in (targets, ranked[:, 0])]
        assert accuracy_score(*names) == values[f"accuracy_level_{level}@1"]
    return {"targets": targets.tolist(), "ranked": ranked.tolist(), "values": values}


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


def randomisation(a, b, relabellings, seed):
    """The p-value of all relabellings, by SciPy, or of those drawn."""
    difference = np.subtract(a, b)
    differing = difference[difference != 0]
    exact = 2 ** len(differing) <= relabellings
    # Users without a difference would only double the number of relabellings.
    by_scipy = stats.permutation_test((differing,), np.mean, permutation_type="samples", vectorized=True,
                                      n_resamples=np.inf if exact else 20000, rng=1)
    p_value = by_scipy.pvalue
    if not exact:
        bits, extreme = splitmix64(seed), 1
        for _ in range(relabellings):
            words = [next(bits) for _ in range(0, len(differing), 64)]
            signs = np.array([1 - 2 * (words[u // 64] >> (u % 64) & 1) for u in range(len(differing))])
            extreme += abs(np.sum(signs * differing)) >= abs(np.sum(differing)) - 1e-12 * np.sum(np.abs(differing))
        p_value = extreme / (1 + relabellings)
        deviation = np.sqrt(by_scipy.pvalue * (1 - by_scipy.pvalue) / relabellings)
        assert abs(p_value - by_scipy.pvalue) < 5 * deviation + 2 / relabellings, (p_value, by_scipy.pvalue)
    return {"a": list(a), "b": list(b), "relabellings": relabellings, "seed": seed, "exact": bool(exact),
            "difference": float(np.mean(difference)), "p_value": float(p_value)}


def over_seeds(values, level):
    low, high = stats.t.interval(level, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    return {"values": values, "level": level, "mean": float(np.mean(values)), "low": float(low), "high": float(high),
            "standard_deviation": float(np.std(values, ddof=1)), "standard_error": float(stats.sem(values))}


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    write(out / "metrics.json", metrics())
    rng = np.random.default_rng(21)
    cases = [(rng.random(n).tolist(), resamples, level, seed)
             for n, resamples, level, seed in [(1, 10, 0.95, 0), (17, 200, 0.95, 1), (80, 333, 0.9, (1 << 63) + 5)]]
    cases.append(((rng.random(150) < 0.1).astype(float).tolist(), 500, 0.99, 42))
    write(out / "bootstrap.json", [interval(*case) for case in cases])
    write(out / "diversity.json", diversity())
    write(out / "levels.json", levels())
    rng = np.random.default_rng(24)
    pair = lambda n, gain: ((rng.random(n) + gain).tolist(), rng.random(n).tolist())
    hits = lambda n, share: (rng.random(n) < share).astype(float).tolist()
    cases = [(*pair(2, 0.0), 100, 0), (*pair(8, 0.2), 1000, 1), (*pair(12, 0.0), 4096, 2),
             (hits(30, 0.3), hits(30, 0.05), 10000, 3), (*pair(70, 0.05), 500, (1 << 63) + 5),
             (hits(200, 0.3), hits(200, 0.25), 400, 6)]
    write(out / "randomisation.json", [randomisation(*case) for case in cases])
    write(out / "seeds.json", [over_seeds(rng.normal(0.04, 0.002, n).tolist(), level)
                               for n, level in [(2, 0.95), (3, 0.9), (4, 0.95), (5, 0.99), (10, 0.95), (31, 0.5)]])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
