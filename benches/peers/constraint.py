"""What a constraint over ten million items costs 32 users with 50 beams. One step of it: ours, STATIC's PyTorch code, and the
function that transformers' `generate` asks for every beam. And whole beam searches, ours and STATIC's, of a model that costs
nothing: its log-probabilities are prepared, and STATIC's own softmax of them is left out."""

import sys
import tempfile
import types

import numpy
import torch
import transformers

from _harness import Table, Worker, arguments, in_turn, timed
from index import codes_of

USERS, BEAMS, CODES, LEVELS, STEPS, SEARCHES = 32, 50, 256, 4, 10, 20


class Static:
    """STATIC's step below its dense levels (arXiv 2602.22647)."""

    def __init__(self, folder, codes):
        sys.path.insert(0, str(folder))
        from static_decoding.csr_utils import build_static_index
        from static_decoding import decoding_pt
        self.mask, self.beam_search = decoding_pt.generate_and_apply_logprobs_mask, decoding_pt.sparse_transition_torch
        decoding_pt.F = types.SimpleNamespace(log_softmax=lambda log_probs, dim: log_probs)
        arrays = build_static_index(codes.astype(numpy.int64), CODES, 2)
        self.csr, self.rows, self.widths, self.start, self.allowed, self.dense = (
            torch.as_tensor(a) if isinstance(a, numpy.ndarray) else a for a in arrays)

    def states(self, prefixes):
        """The states after prefixes of two or three codes."""
        states = self.dense[prefixes[:, 0], prefixes[:, 1]]
        if prefixes.shape[1] == 3:
            _, tokens, following = self(states, torch.zeros(len(prefixes), CODES), 2)
            states = following.gather(1, (tokens == prefixes[:, 2:]).int().argmax(1, keepdim=True)).squeeze(1)
        return states

    def __call__(self, states, log_probs, depth):
        return self.mask(log_probs, states, self.csr, self.rows, self.widths[depth], CODES, torch.device("cpu"))

    def search(self, log_probs):
        """A beam search of the model that says `log_probs` (levels, users * beams, codes)."""
        steps = iter(log_probs)
        model = lambda tokens: next(steps)[:len(tokens), None]
        return self.beam_search(model, USERS, BEAMS, BEAMS, 0, LEVELS, CODES, self.widths, self.csr, self.rows, self.start,
                                self.allowed, self.dense, torch.device("cpu"))


class PrefixFunction:
    """transformers' processor with a table of the prefixes that are asked for, which is less than a whole catalogue's."""

    def __init__(self, prefixes, allowed):
        table = {tuple(prefix): codes for prefix, codes in zip(prefixes.tolist(), allowed)}
        self.processor = transformers.PrefixConstrainedLogitsProcessor(lambda user, ids: table[tuple(ids.tolist())], BEAMS)

    def __call__(self, prefixes, log_probs):
        return self.processor(prefixes, log_probs)


def main():
    args = arguments()
    table = Table("constraint", args)
    items = 1_000_000 if args.quick else 10_000_000
    if not args.static_dir:
        print("STATIC is SKIPPED: pass the folder of a checkout with --static-dir", flush=True)
    for kind, exponent in (("uniform", 0.0), ("Zipf", 0.9)):
        codes = codes_of(items, exponent)
        worker = Worker()
        with tempfile.NamedTemporaryFile() as file:
            codes.astype("<u4").tofile(file)
            file.flush()
            worker("constraint-load", codes=file.name, sizes=[CODES] * LEVELS)
        static = Static(args.static_dir, codes) if args.static_dir else None
        rng = numpy.random.default_rng(2)
        for depth in (2, 3):
            name = f"{items / 1e6:g} M items, {kind}, after {depth} codes"
            if not table.wants(name):
                continue
            prefixes = codes[rng.integers(0, items, (STEPS, USERS * BEAMS)), :depth].astype(numpy.int64)
            compare(table, name, worker, static, prefixes)
        name = f"{items / 1e6:g} M items, {kind}, whole searches"
        if static and table.wants(name):
            compare_searches(table, name, worker, static)
        worker.close()
    table.write(torch=torch.__version__, transformers=transformers.__version__)


def compare(table, name, worker, static, prefixes):
    """Ten steps in turn, each with other prefixes, as threads and caches are in a search."""
    steps, depth = torch.as_tensor(prefixes), prefixes.shape[2]
    log_probs = torch.log_softmax(torch.randn(USERS * BEAMS, CODES), -1)
    ours = [worker("constraint-steps", steps=[step.tolist()], list=True)["allowed"] for step in prefixes]
    function = PrefixFunction(prefixes.reshape(-1, depth), [codes for step in ours for codes in step])
    masked = function(steps[0], log_probs)
    assert [row.isfinite().nonzero().flatten().tolist() for row in masked] == ours[0], "transformers allows other codes"
    sides = {"transformers, prefix function": lambda _: timed(lambda: [function(step, log_probs) for step in steps])}
    if static:
        states = [static.states(step) for step in steps]
        values, tokens, _ = static(states[0], log_probs, depth)
        theirs = [sorted(row[finite].tolist()) for row, finite in zip(tokens, values.isfinite())]
        assert theirs == ours[0], "STATIC allows other codes"
        sides["STATIC, PyTorch"] = lambda _: timed(lambda: [static(state, log_probs, depth) for state in states])
    own = lambda _: worker("constraint-steps", steps=prefixes.tolist(), list=False)["seconds"]
    times = in_turn(11, sides, own, warmup=3)
    for peer in sides:
        # STATIC hands over values and next states, ours looks at every value: how it ends is told by whole searches.
        bar = 1.0 if "STATIC" in peer else 10.0
        table.add(f"{name}: {peer}", {peer: times[peer], "genrec": times["genrec"]}, bar, per_round=STEPS, unit="steps/s")


def compare_searches(table, name, worker, static):
    """Every search meets other rows of one table, which stays in the cache as the output of a model would."""
    rows = USERS * BEAMS
    log_probs = torch.log_softmax(torch.randn(LEVELS, rows + SEARCHES, CODES), -1)
    with tempfile.NamedTemporaryFile() as file:
        log_probs.numpy().astype("<f4").tofile(file)
        file.flush()
        worker("constraint-answers", log_probs=file.name, rows=rows + SEARCHES)
    firsts = list(range(SEARCHES))
    ours = lambda list: worker("constraint-search", users=USERS, beams=BEAMS, firsts=firsts, list=list)
    theirs = lambda first: static.search(log_probs[:, first:first + rows])
    # Equal scores are ordered one way here and another there.
    same = [own == other for own, other in zip(ours(True)["found"], (user for i in firsts for user in theirs(i).tolist()))]
    assert sum(same) > 0.95 * len(same), f"STATIC finds other items for {len(same) - sum(same)} of {len(same)} users"
    times = in_turn(15, {"STATIC, PyTorch": lambda _: timed(lambda: [theirs(i) for i in firsts])},
                    lambda _: ours(False)["seconds"], warmup=3)
    table.add(name, times, 10.0, per_round=SEARCHES * LEVELS, unit="steps/s")


if __name__ == "__main__":
    main()
