"""Gradients of vector-quantize-pytorch, SimHash by NumPy, and how well faiss and scikit-learn code fixed rows.

    python quantize.py OUT

writes OUT/rotation.json, OUT/sim_vq.json, OUT/simhash.safetensors and OUT/errors.json; tests/golden/quantize/README.md says
what they hold.
"""

import json
import sys
import warnings
from pathlib import Path
from statistics import median

import faiss
import numpy as np
import torch
from safetensors.numpy import save_file
from sklearn.cluster import KMeans
from vector_quantize_pytorch import SimVQ
from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to

SEEDS = range(10)


def write(path, value):
    path.write_text(json.dumps(value, separators=(",", ":")) + "\n")


def listed(**tensors):
    return {name: tensor.detach().tolist() for name, tensor in tensors.items()}


def rotation():
    """The gradient that the rotation trick hands back from `tgt` to `src`."""
    torch.manual_seed(30)
    src, tgt, upstream = (torch.randn(24, 6, dtype=torch.float64) for _ in range(3))
    # Near ones, as a trained codebook has, lengths far apart, and a vector of zeros.
    tgt[:6] = src[:6] + 0.05 * tgt[:6]
    tgt[6:9] *= 20
    src[9:12] *= 20
    src[12] = 0
    src.requires_grad_()
    rotated = rotate_to(src, tgt)
    rotated.backward(upstream)
    return listed(src=src, tgt=tgt, upstream=upstream, rotated=rotated, grad_src=src.grad)


def sim_vq():
    """SimVQ with both estimators: the loss is that of `upstream . quantized` and of the codewords."""
    torch.manual_seed(31)
    rows, dim, codes, beta = 40, 6, 9, 0.25
    points, weight = torch.randn(codes, dim, dtype=torch.float64), torch.randn(dim, dim, dtype=torch.float64) * dim**-0.5
    x, upstream = (torch.randn(rows, dim, dtype=torch.float64) for _ in range(2))
    record = {"commitment": beta, **listed(points=points, weight=weight, x=x, upstream=upstream), "cases": []}
    for rotation_trick in (False, True):
        # Its losses are means over the columns too, ours are sums over them: `dim` times as much. Its term of the codewords
        # has weight 1 and that of the rows the other one, as ours have.
        model = SimVQ(dim, codes, rotation_trick=rotation_trick, input_to_quantize_commit_loss_weight=beta,
                      commitment_weight=dim).double()
        model.frozen_codebook.copy_(points)
        model.code_transform.weight.data.copy_(weight)
        leaf = x.clone().requires_grad_()
        quantized, indices, loss = model(leaf[None])
        ((quantized[0] * upstream).sum() + loss).backward()
        record["cases"].append({"rotation_trick": rotation_trick, "loss": loss.item(), **listed(
            indices=indices[0], quantized=quantized[0], grad_x=leaf.grad, grad_weight=model.code_transform.weight.grad)})
    assert len(set(record["cases"][0]["indices"])) > 4
    return record


def hashed(rows, normals, bits):
    """Codes of `bits` bits each, the first of them the least significant: 1 where a product is above 0."""
    above = rows.astype(np.float64) @ normals.astype(np.float64).T > 0
    levels = above.reshape(len(rows), -1, bits)
    return (levels.astype(np.uint32) << np.arange(bits, dtype=np.uint32)).sum(2, dtype=np.uint32)


def clear(rows, normals):
    """The rows whose products are far enough from 0 to have one sign in single precision, however they are summed."""
    rows64, normals64 = rows.astype(np.float64), normals.astype(np.float64)
    slack = 1e-5 * (np.abs(rows64) @ np.abs(normals64).T)
    return (np.abs(rows64 @ normals64.T) > slack).all(1)


def simhash():
    rng = np.random.default_rng(32)
    tensors = {}

    def add(name, rows, normals, bits, of=None):
        codes = hashed(rows if of is None else of, normals, bits)
        tensors.update({f"{name}.rows": rows, f"{name}.normals": normals, f"{name}.codes": codes})

    # Multiples of 1/8: every sum of products is exact in single precision, in any order, and many are 0.
    rows = rng.integers(-4, 5, (60, 12)).astype(np.float32) / 8
    normals = rng.integers(-2, 3, (5 * 20, 12)).astype(np.float32) / 8
    rows[0], normals[3] = 0, 0
    zeros = (rows @ normals.T == 0).mean()
    assert zeros > 0.03, zeros
    add("exact", rows, normals, 20)

    # Real numbers, three codes of 8 bits, as they are and brought to mean 0 and deviation 1.
    for name, standardize in (("plain", False), ("standardized", True)):
        normals = rng.standard_normal((3 * 8, 20), dtype=np.float32)
        rows = rng.standard_normal((100, 20), dtype=np.float32) * np.linspace(0.5, 3, 20, dtype=np.float32) + 1
        if standardize:
            # Rows that would not do are left out until all do: leaving one out moves the means.
            while True:
                wide = rows.astype(np.float64)
                seen = (wide - wide.mean(0)) / wide.std(0)
                good = clear(seen, normals)
                if good.all():
                    break
                rows = rows[good]
        else:
            rows = rows[clear(rows, normals)]
            seen = rows
        assert len(rows) > 80, len(rows)
        add(name, rows, normals, 8, seen)
    return tensors


def scattered(count, start=0):
    """64 random bits for each number, by SplitMix64's finaliser."""
    with np.errstate(over="ignore"):
        z = (np.arange(start + 1, start + count + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


ROWS, DIM, FACTORS = 2000, 32, 32


def correlated():
    """Rows that factors of falling weight make, with a little noise: whole numbers over 1,024, the same anywhere."""
    bits = scattered(ROWS * (FACTORS + DIM))
    # Nearly normal: the sum of eight bytes.
    bell = sum((bits >> np.uint64(8 * byte) & np.uint64(255)).astype(np.int64) for byte in range(8)) - 1020
    bell = bell.reshape(ROWS, FACTORS + DIM)
    loadings = (scattered(FACTORS * DIM, 1 << 32) % np.uint64(17)).astype(np.int64).reshape(FACTORS, DIM) - 8
    weights = 64 // np.arange(4, FACTORS + 4)
    x = bell[:, :FACTORS] @ (loadings * weights[:, None]) + 64 * bell[:, FACTORS:]
    return (x / 1024).astype(np.float32)


def mean_error(x, near):
    return float(((x.astype(np.float64) - near) ** 2).sum(1).mean())


def product(x, parts, bits, seed):
    quantizer = faiss.ProductQuantizer(x.shape[1], parts, bits)
    quantizer.cp.seed = seed
    quantizer.train(x)
    return mean_error(x, quantizer.decode(quantizer.compute_codes(x)))


def optimized(x, parts, bits, seed):
    dim = x.shape[1]
    rotation, inner = faiss.OPQMatrix(dim, parts), faiss.ProductQuantizer(dim, parts, bits)
    inner.cp.seed = seed
    rotation.pq = inner
    rotation.train(x)
    # A rotation keeps distances.
    return product(rotation.apply(x), parts, bits, seed)


def residual(x, levels, bits, beam, progressive, seed):
    """A beam of 1 is greedy, in training too; progressive is faiss's default: each k-means on ever more principal axes."""
    quantizer = faiss.ResidualQuantizer(x.shape[1], levels, bits)
    quantizer.max_beam_size = beam
    kind = faiss.ResidualQuantizer
    quantizer.train_type = kind.Train_progressive_dim if progressive else kind.Train_default
    quantizer.cp.seed = seed
    quantizer.train(x)
    return mean_error(x, quantizer.decode(quantizer.compute_codes(x)))


def inertia(x, clusters, seed):
    return KMeans(clusters, n_init=1, init="k-means++", random_state=seed).fit(x).inertia_ / len(x)


def errors():
    faiss.omp_set_num_threads(1)
    x = correlated()
    assert np.array_equal(x * 1024, np.round(x.astype(np.float64) * 1024))
    over_seeds = lambda work, *arguments: median(work(x, *arguments, seed) for seed in SEEDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "rows": {"first": x[0].tolist(), "sum": float(x.astype(np.float64).sum()),
                     "squares": float((x.astype(np.float64) ** 2).sum())},
            "seeds": len(SEEDS),
            "product": {"levels": 4, "bits": 5, "error": over_seeds(product, 4, 5)},
            "optimized_product": {"levels": 4, "bits": 5, "error": over_seeds(optimized, 4, 5)},
            "residual": [{"levels": 4, "bits": 5, "beam": beam, "progressive": progressive,
                          "error": over_seeds(residual, 4, 5, beam, progressive)}
                         for beam in (1, 5) for progressive in (False, True)],
            "k_means": [{"clusters": clusters, "inertia": over_seeds(inertia, clusters)} for clusters in (32, 64)],
        }


def main(out):
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    write(out / "rotation.json", rotation())
    write(out / "sim_vq.json", sim_vq())
    save_file(simhash(), out / "simhash.safetensors")
    write(out / "errors.json", errors())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
