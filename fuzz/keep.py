#!/usr/bin/env python3
"""Chooses the inputs of a fuzz target that are worth keeping, after `cargo fuzz build -s none TARGET`:

    python3 fuzz/keep.py index WORKING_CORPUS

All seeds, and of the rest those that together reach the most edges, up to a number and a size: one at a time, each time
the one with the most edges that none before it has reached, large files at a discount.
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile

MOST, MOST_BYTES = 200, 200_000
FUZZ = pathlib.Path(__file__).resolve().parent


def edges(target: str, files: pathlib.Path) -> dict[pathlib.Path, set[int]]:
    """Which edges each input reaches, by libFuzzer's own merging."""
    [binary] = FUZZ.glob(f"target/*/release/{target}")
    with tempfile.TemporaryDirectory() as scratch:
        control = pathlib.Path(scratch, "control")
        out = pathlib.Path(scratch, "out")
        out.mkdir()
        merge = ["-set_cover_merge=1", "-use_counters=0", f"-merge_control_file={control}"]
        subprocess.run([binary, *merge, out, files], check=True, capture_output=True)
        lines = control.read_text().splitlines()
    names = [pathlib.Path(line) for line in lines[2 : 2 + int(lines[0])]]
    found = {}
    for kind, number, *features in (line.split() for line in lines[2 + len(names) :]):
        if kind == "FT":
            found[names[int(number)]] = {int(feature) for feature in features}
    return found


def main() -> None:
    target, working = sys.argv[1], pathlib.Path(sys.argv[2])
    kept = FUZZ / "corpus" / target
    with tempfile.TemporaryDirectory() as scratch:
        for file in [*working.iterdir(), *kept.iterdir()]:
            shutil.copy(file, scratch)
        reached = edges(target, pathlib.Path(scratch))
        seeds = {file for file in reached if file.name.startswith("seed-")}
        seen = set().union(*(reached[file] for file in seeds))
        chosen, size = [], 0
        rest = {file: features - seen for file, features in reached.items() if file not in seeds}
        while len(chosen) < MOST:
            best = max(rest, key=lambda file: (len(rest[file]) / (2_000 + file.stat().st_size), file.name), default=None)
            if best is None or not rest[best] or size + best.stat().st_size > MOST_BYTES:
                break
            new = rest.pop(best)
            chosen.append(best)
            size += best.stat().st_size
            rest = {file: features - new for file, features in rest.items()}
        everything = set().union(*reached.values())
        have = seen.union(*(reached[file] for file in chosen))
        for file in kept.iterdir():
            if not file.name.startswith("seed-"):
                file.unlink()
        for file in chosen:
            shutil.copy(file, kept)
    print(f"{target}: {len(seeds)} seeds and {len(chosen)} more, {size} bytes, {len(have)} of {len(everything)} edges")


if __name__ == "__main__":
    main()
