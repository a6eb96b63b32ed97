"""The index of a catalogue of 0.1 to 100 million items: its size, how long it takes to make, open and ask."""

import sys
import time

import numpy

from _harness import Table, Worker, arguments

SIZES = (100_000, 1_000_000, 10_000_000, 100_000_000)
KINDS = (("uniform", 0.0), ("Zipf", 0.9))
# Bytes an item, seconds and ratios that are to hold at 10 and at 100 million items.
BARS = {10_000_000: {"build": 5.0, "mask": 1.5, "all": 9.0}, 100_000_000: {"build": 60.0, "mask": 1.2, "all": 9.0}}


def codes_of(items, exponent):
    """Distinct tuples of four codes of 256, sorted, for the peers that are written in Python."""
    rng = numpy.random.default_rng(1)
    shares = numpy.arange(1, 257) ** -exponent
    found = numpy.empty(0, numpy.uint32)
    while len(found) < items:
        keys = numpy.zeros(items + items // 4, numpy.uint32)
        for _ in range(4):
            keys = keys * 256 + rng.choice(256, len(keys), p=shares / shares.sum()).astype(numpy.uint32)
        found = numpy.unique(numpy.concatenate([found, keys]))
    found = numpy.sort(rng.permutation(found)[:items])
    return found.view(numpy.uint8).reshape(-1, 4)[:, ::-1]


def static_builder(folder, items, exponent):
    """STATIC's index (arXiv 2602.22647): seconds and bytes an item."""
    sys.path.insert(0, str(folder))
    from static_decoding.csr_utils import build_static_index
    codes = codes_of(items, exponent).astype(numpy.int64)
    start = time.perf_counter()
    arrays = build_static_index(codes, 256, 2)
    seconds = time.perf_counter() - start
    return {"name": "STATIC", "build_seconds": seconds,
            "bytes_per_item": sum(a.nbytes for a in arrays if isinstance(a, numpy.ndarray)) / items}


def main():
    args = arguments()
    table = Table("index", args)
    if not args.static_dir:
        print("STATIC's builder is SKIPPED: pass the folder of a checkout with --static-dir", flush=True)
    for items in SIZES:
        for kind, exponent in KINDS:
            name = f"{items / 1e6:g} M items, {kind}"
            if not table.wants(name) or (args.quick and items > 1_000_000):
                continue
            # A hash map of a hundred million pairs takes gigabytes beside all else; it is measured up to ten.
            worker = Worker()
            found = worker("index-measure", items=items, exponent=exponent, queries=1_000_000, rounds=5,
                           others=items <= 10_000_000)
            worker.close()
            report(table, name, items, found)
            if args.static_dir and items <= 10_000_000:
                other = static_builder(args.static_dir, items, exponent)
                table.bound(f"{name}: {other['name']}", other["bytes_per_item"], None, build_seconds=other["build_seconds"])
    table.write(numpy=numpy.__version__)


def report(table, name, items, found):
    bars = BARS.get(items, {})
    at = lambda what: bars.get(what)
    table.bound(f"{name}: seconds to build", found["build_seconds"], at("build"))
    table.bound(f"{name}: peak MiB while building, codes included", found["peak_bytes"] / 2**20,
                1024 if items == 10_000_000 else None)
    table.bound(f"{name}: bytes an item, trie alone", found["mask_bytes_per_item"], at("mask"))
    table.bound(f"{name}: bytes an item", found["bytes_per_item"], at("all"))
    table.bound(f"{name}: milliseconds to open mapped", found["map_milliseconds"], 50)
    table.bound(f"{name}: seconds to open and verify", found["open_seconds"], None)
    times = found["nanoseconds"]
    plain = times["plain array"]["in_turn"]
    hard = items >= 10_000_000
    for what, most in (("item to SID", 1.5), ("SID to item", 6), ("children of a node", 4), ("children of a prefix of 1", None),
                       ("children of a prefix of 2", None), ("children of a prefix of 3", None)):
        for suffix in ("", ", mapped"):
            own = times[what + suffix]
            table.bound(f"{name}: {what}{suffix}, times a plain array's read", own["in_turn"] / plain,
                        most if hard and not suffix else None, nanoseconds=own, plain=plain)
    for what in times:
        if what.split(", ")[-1] not in ("HashMap", "HashMap of packed keys", "sorted array", "constraint-decoding-trie"):
            continue
        own = times[what.split(", ")[0]]["in_turn"]
        table.bound(f"{name}: {what}, times ours", times[what]["in_turn"] / own, None, nanoseconds=times[what])
    for other in found["others"]:
        table.bound(f"{name}: bytes an item, {other['name']}", other["bytes_per_item"], None,
                    build_seconds=other["build_seconds"])


if __name__ == "__main__":
    main()
