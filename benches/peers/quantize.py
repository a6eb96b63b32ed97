"""Fitting and applying quantisers: RQ-VAE, k-means, residual codes, SimHash; and the errors that they leave.

The errors are those of $GENREC_EMBEDDINGS, a .npy or safetensors file of one matrix, where it is named, and of synthetic rows
else.
"""

import os
import tempfile
import warnings
from pathlib import Path

import faiss
import numpy as np
import sklearn
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sklearn.cluster import KMeans

from _harness import Table, Worker, arguments, in_turn, timed


def clustered(rows, dim, seed, clusters=2000):
    """Rows around random centres, as embeddings are: neither uniform noise nor separate balls."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dim), dtype=np.float32)
    return centres[rng.integers(0, clusters, rows)] + rng.standard_normal((rows, dim), dtype=np.float32)


class RqVae(torch.nn.Module):
    """TIGER's RQ-VAE as its reproductions write it."""

    def __init__(self, dim, hidden=(512, 256, 128), latent=32, levels=3, codes=256):
        super().__init__()
        sizes = [dim, *hidden, latent]
        self.encoder, self.decoder = self.mlp(sizes), self.mlp(sizes[::-1])
        self.books = torch.nn.ParameterList(torch.randn(codes, latent) * 0.1 for _ in range(levels))

    @staticmethod
    def mlp(sizes):
        layers = []
        for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
            layers.append(torch.nn.Linear(a, b))
            if i < len(sizes) - 2:
                layers.append(torch.nn.ReLU())
        return torch.nn.Sequential(*layers)

    def quantize(self, z):
        residual, total, loss, codes = z, 0, 0, []
        for book in self.books:
            distance = (book ** 2).sum(1) - 2 * residual.detach() @ book.detach().t()
            code = distance.argmin(1)
            word = F.embedding(code, book)
            loss = loss + ((residual.detach() - word) ** 2).sum(1).mean() + 0.25 * ((residual - word.detach()) ** 2).sum(1).mean()
            residual, total = residual - word.detach(), total + word
            codes.append(code)
        return z + (total - z).detach(), loss, torch.stack(codes, 1)

    def forward(self, x):
        q, loss, _ = self.quantize(self.encoder(x))
        return ((self.decoder(q) - x) ** 2).sum(1).mean() + loss

    @torch.inference_mode()
    def encode(self, x, batch=1024):
        return torch.cat([self.quantize(self.encoder(part))[2] for part in x.split(batch)])


def rq_vae(table, worker, scratch, quick):
    if not (table.wants("RQ-VAE") or table.wants("encode 768")):
        return
    items = clustered(12101, 768, 1)
    np.save(scratch / "items.npy", items)
    worker("quantize-rows", name="items", path=str(scratch / "items.npy"))
    x = torch.from_numpy(items)
    mean, deviation = x.mean(0), x.std(0, unbiased=False)
    standard = (x - mean) / deviation
    model = RqVae(768)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    epochs = 5

    def train():
        for _ in range(epochs):
            for part in torch.randperm(len(standard)).split(1024):
                optimizer.zero_grad(set_to_none=True)
                model(standard[part]).backward()
                optimizer.step()

    rounds = 2 if quick else 7
    if table.wants("RQ-VAE"):
        # Ours leaves out the first epoch of a fit, which also draws the codebooks.
        def ours(_):
            seconds = worker("quantize-rq-vae-fit", rows="items", epochs=epochs + 1)["epochs"]
            return sum(seconds) / len(seconds)

        times = in_turn(rounds, {"torch, fused AdamW": lambda r: timed(train) / epochs}, ours)
        table.add("RQ-VAE epoch, 12,101 x 768", times, 1.1, 1.4)
    if table.wants("encode 768"):
        worker("quantize-rq-vae-fit", rows="items", epochs=6, out=str(scratch / "rqvae"))
        weights = load_file(scratch / "rqvae" / "model.safetensors")
        state = {}
        for part, layers in (("encoder", model.encoder), ("decoder", model.decoder)):
            linear = [i for i, layer in enumerate(layers) if isinstance(layer, torch.nn.Linear)]
            for ours_at, theirs in enumerate(linear):
                for kind in ("weight", "bias"):
                    state[f"{part}.{theirs}.{kind}"] = weights[f"{part}.{ours_at}.{kind}"]
        state.update({f"books.{level}": weights[f"codebooks.{level}"] for level in range(3)})
        model.load_state_dict(state)
        many = x.repeat(4, 1)
        np.save(scratch / "many.npy", many.numpy())
        worker("quantize-rows", name="many", path=str(scratch / "many.npy"))
        shift, scale = [weights[name] for name in sorted(weights) if "mean" in name or "deviation" in name][::-1]
        theirs = model.encode((x - shift) / scale)[:1000].flatten().tolist()
        codes = worker("quantize-rq-vae-encode", rows="items")["codes"]
        same = sum(a == b for a, b in zip(codes, theirs)) / len(codes)
        assert same > 0.99, same
        print(f"{same:.2%} of the codes agree", flush=True)
        times = in_turn(rounds, {"torch": lambda r: timed(lambda: model.encode((many - shift) / scale))},
                        lambda r: worker("quantize-rq-vae-encode", rows="many")["seconds"])
        table.add("encode 768-d -> SID", times, 1.6, 1.8, per_round=len(many), unit="rows/s")


def k_means(table, worker, scratch, quick):
    rows = 20000 if quick else 100000
    for dim, at_least, stretch in ((768, 1.9, 2.4), (32, 1.1, 1.5)):
        name = f"k-means {rows:,} x {dim}, k 256, 20 iterations"
        if not table.wants(name):
            continue
        data = clustered(rows, dim, 2)
        np.save(scratch / f"k{dim}.npy", data)
        worker("quantize-rows", name=f"k{dim}", path=str(scratch / f"k{dim}.npy"))
        inertia = {}

        def scikit(round):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = KMeans(256, init="random", n_init=1, max_iter=20, tol=0, algorithm="lloyd", random_state=round)
                seconds = timed(lambda: model.fit(data))
            inertia["sklearn"] = model.inertia_ / rows
            return seconds

        def by_faiss(round):
            model = faiss.Kmeans(dim, 256, niter=20, seed=round + 1, max_points_per_centroid=rows, verbose=False)
            seconds = timed(lambda: model.train(data))
            inertia["faiss"] = model.obj[-1] / rows
            return seconds

        def ours(round):
            answer = worker("quantize-k-means", rows=f"k{dim}", codes=256, iterations=20, seed=round)
            inertia["genrec"] = answer["inertia"]
            return answer["seconds"]

        times = in_turn(2 if quick else 5, {"sklearn": scikit, "faiss": by_faiss}, ours)
        spread = max(inertia.values()) / min(inertia.values())
        assert spread < 1.03, inertia
        table.add(name, times, at_least, stretch, inertia=inertia)


def residual(table, worker, scratch, quick):
    rows = 20000 if quick else 200000
    for dim, at_least, stretch in ((32, 8, 10), (768, 6, 8)):
        name = f"residual encode 3 x 8 bits, d {dim}"
        if not table.wants(name):
            continue
        count = rows if dim == 32 else rows // 4
        data, training = clustered(count, dim, 3), clustered(8192, dim, 4)
        quantizer = faiss.ResidualQuantizer(dim, 3, 8)
        quantizer.max_beam_size = 1
        quantizer.train_type = faiss.ResidualQuantizer.Train_default
        quantizer.train(training)
        quantizer.max_beam_size = 1
        books = faiss.vector_to_array(quantizer.codebooks).reshape(3, 256, dim)
        names = []
        for level, book in enumerate(books):
            names.append(f"b{dim}.{level}")
            np.save(scratch / "book.npy", np.ascontiguousarray(book))
            worker("quantize-rows", name=names[-1], path=str(scratch / "book.npy"))
        np.save(scratch / "r.npy", data)
        worker("quantize-rows", name=f"r{dim}", path=str(scratch / "r.npy"))
        theirs = quantizer.compute_codes(data[:1000]).astype(int).flatten().tolist()
        same = np.mean(np.array(worker("quantize-encode", rows=f"r{dim}", codebooks=names)["codes"]) == np.array(theirs))
        assert same > 0.999, same
        print(f"{same:.2%} of the codes agree", flush=True)
        times = in_turn(2 if quick else 5, {"faiss": lambda r: timed(lambda: quantizer.compute_codes(data))},
                        lambda r: worker("quantize-encode", rows=f"r{dim}", codebooks=names)["seconds"])
        table.add(name, times, at_least, stretch, per_round=count, unit="rows/s")


def simhash(table, worker, scratch, quick):
    rows = 20000 if quick else 100000
    for bits, at_least, stretch in ((32, 1.2, 1.5), (64, 1.2, 1.5), (256, 1.05, 1.3)):
        name = f"SimHash {bits} bits, 768-d"
        if not table.wants(name):
            continue
        data = clustered(rows, 768, 5)
        normals = np.random.default_rng(6).standard_normal((bits, 768), dtype=np.float32)
        for label, array in (("h", data), (f"n{bits}", normals)):
            np.save(scratch / "h.npy", array)
            worker("quantize-rows", name=label, path=str(scratch / "h.npy"))
        transposed = np.ascontiguousarray(normals.T)
        numpy_side = lambda x=data: np.packbits(x @ transposed > 0, axis=1, bitorder="little")
        lsh = faiss.IndexLSH(768, bits, True, False)
        faiss.copy_array_to_vector(normals.flatten(), lsh.rrot.A)
        words = [int(word) for word in worker("quantize-hash", rows="h", normals=f"n{bits}")["words"]]
        per_row = (bits + 63) // 64
        count = len(words) // per_row
        mine = np.array(words, dtype=np.uint64)[:count * per_row].view(np.uint8).reshape(count, -1)[:, :bits // 8]
        differing = np.unpackbits(mine ^ numpy_side(data[:count])).mean()
        assert differing < 1e-3, differing
        sides = {"numpy": lambda r: timed(numpy_side), "faiss": lambda r: timed(lambda: lsh.sa_encode(data))}
        times = in_turn(3 if quick else 9, sides, lambda r: worker("quantize-hash", rows="h", normals=f"n{bits}")["seconds"])
        table.add(name, times, at_least, stretch, per_round=rows, unit="rows/s")


def mean_error(x, near):
    return float(((x.astype(np.float64) - near) ** 2).sum(1).mean())


def product_error(x, parts, bits, seed):
    quantizer = faiss.ProductQuantizer(x.shape[1], parts, bits)
    quantizer.cp.seed = seed
    quantizer.train(x)
    return mean_error(x, quantizer.decode(quantizer.compute_codes(x)))


def optimized_error(x, parts, bits, seed):
    rotation = faiss.OPQMatrix(x.shape[1], parts)
    inner = faiss.ProductQuantizer(x.shape[1], parts, bits)
    inner.cp.seed = seed
    rotation.pq = inner
    rotation.train(x)
    # A rotation keeps distances.
    return product_error(rotation.apply(x), parts, bits, seed)


def residual_error(x, levels, bits, seed, beam):
    quantizer = faiss.ResidualQuantizer(x.shape[1], levels, bits)
    quantizer.max_beam_size = beam
    quantizer.cp.seed = seed
    quantizer.train(x)
    return mean_error(x, quantizer.decode(quantizer.compute_codes(x)))


def inertia(x, clusters, seed):
    return KMeans(clusters, n_init=1, init="k-means++", random_state=seed).fit(x).inertia_ / len(x)


def embeddings(quick):
    path = os.environ.get("GENREC_EMBEDDINGS")
    if not path:
        return clustered(*((3000, 48) if quick else (12000, 384)), 7, clusters=300)
    matrix = np.load(path) if path.endswith(".npy") else next(iter(load_file(path).values())).numpy()
    return np.ascontiguousarray(matrix[:3000] if quick else matrix, dtype=np.float32)


def errors(table, worker, scratch, quick):
    """Errors of codes on the rows they are fitted on: medians over seeds, ours over theirs."""
    bits, seeds = (5, 3) if quick else (8, 10)
    product, residual = ({"type": kind, "codebook_sizes": [1 << bits] * 3} for kind in ("product_k_means", "residual_k_means"))
    rows = [
        ("PQ", "faiss", product, lambda x, seed: product_error(x, 3, bits, seed), 1.01),
        ("OPQ", "faiss", {**product, "rotation": {}}, lambda x, seed: optimized_error(x, 3, bits, seed), 1.01),
        *((f"residual, beam {beam}", "faiss", {**residual, "beam": beam},
           lambda x, seed, beam=beam: residual_error(x, 3, bits, seed, beam), 1.01) for beam in (1, 5)),
        ("k-means", "sklearn", {**residual, "codebook_sizes": [1 << bits], "init": "plus_plus"},
         lambda x, seed: inertia(x, 1 << bits, seed), 1.005),
    ]
    rows = [(f"error of {name}", *rest) for name, *rest in rows if table.wants(f"error of {name}")]
    if not rows:
        return
    x = embeddings(quick)
    np.save(scratch / "errors.npy", x)
    worker("quantize-rows", name="errors", path=str(scratch / "errors.npy"))
    for name, peer, config, theirs, at_most in rows:
        # OPQ takes a quarter of a minute a fit.
        count = min(seeds, 3) if "OPQ" in name else seeds
        fit = lambda seed: worker("quantize-errors", rows="errors", config={**config, "seed": seed})
        ours = [fit(seed)["mean_squared"] for seed in range(count)]
        table.error(f"{name}, {x.shape[0]:,} x {x.shape[1]}", peer, ours, [theirs(x, seed) for seed in range(count)],
                    at_most)


def main():
    args = arguments()
    threads = int(os.environ["RAYON_NUM_THREADS"])
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    torch.manual_seed(0)
    table, worker = Table("quantize", args), Worker()
    with tempfile.TemporaryDirectory() as scratch:
        for part in (simhash, residual, rq_vae, k_means, errors):
            part(table, worker, Path(scratch), args.quick)
    worker.close()
    table.write(torch=torch.__version__, faiss=faiss.__version__, sklearn=sklearn.__version__, numpy=np.__version__)


if __name__ == "__main__":
    main()
