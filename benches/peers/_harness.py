"""What the comparisons share: the worker process, rounds in turn, the table."""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import time
from pathlib import Path


class Worker:
    """genrec's side: one JSON line to it, one back."""

    def __init__(self):
        self.process = subprocess.Popen([os.environ["GENREC_WORKER"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)

    def __call__(self, op, **arguments):
        self.process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise SystemExit(f"the worker failed at {op}: {answer['error']}")
        return answer

    def peak(self):
        return self("memory")["bytes"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--static-dir", default="")
    return parser.parse_args()


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# Long enough for the threads of the side that has just run to stop spinning.
PAUSE = 0.05


def in_turn(rounds, peers, ours, warmup=1):
    """Times every peer and ours round by round; `peers` maps names to functions of the round that return seconds.

    Returns the seconds of each, by name; ours under "genrec"."""
    sides = {**peers, "genrec": ours}
    for round in range(warmup):
        for work in sides.values():
            work(round)
    times = {name: [] for name in sides}
    for round in range(rounds):
        names = list(sides)
        names = names[round % len(names):] + names[:round % len(names)]
        for name in names:
            time.sleep(PAUSE)
            times[name].append(sides[name](round))
    return times


class Table:
    def __init__(self, name, args):
        self.name, self.args, self.rows = name, args, []

    def wants(self, work):
        return self.args.only in work

    def add(self, work, times, at_least, stretch=None, per_round=None, unit="s", **more):
        """A row from the times of every side: the best peer, by its median, against ours."""
        best = min((name for name in times if name != "genrec"), key=lambda name: statistics.median(times[name]))
        ratios = [peer / own for peer, own in zip(times[best], times["genrec"])]
        row = {
            "work": work, "peer": best, "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
            "at_least": at_least, "stretch": stretch, "rounds": len(ratios),
            "seconds": {name: statistics.median(values) for name, values in times.items()}, **more,
        }
        if per_round is not None:
            row["per_second"] = {name: per_round / seconds for name, seconds in row["seconds"].items()}
            row["unit"] = unit
        self.rows.append(row)
        print(f"{work}: {row['ratio']:.2f} times {best} [{row['low']:.2f}, {row['high']:.2f}] "
              f"(at least {at_least}) {json.dumps(row.get('per_second', row['seconds']))}", flush=True)

    def bound(self, work, value, at_most, stretch=None, **more):
        """A row that is no ratio, such as a peak of memory."""
        self.rows.append({"work": work, "value": value, "at_most": at_most, "stretch": stretch, **more})
        print(f"{work}: {value:.3g} (at most {at_most}) {json.dumps(more)}", flush=True)

    def error(self, work, peer, ours, theirs, at_most):
        """A row of errors, lower ones being better: the median of ours over that of the peer's, of a number of seeds."""
        own, other = statistics.median(ours), statistics.median(theirs)
        row = {"work": work, "peer": peer, "error": own / other, "at_most": at_most, "rounds": len(ours),
               "errors": {"genrec": ours, peer: theirs}}
        self.rows.append(row)
        print(f"{work}: {row['error']:.4f} of {peer}'s (at most {at_most}) {own:.6g} {other:.6g}", flush=True)

    def markdown(self):
        lines = ["| work | peer | ratio (median, lowest to highest, rounds) | at least | genrec | peer |",
                 "|---|---|---|---|---|---|"]
        for row in self.rows:
            if "error" in row:
                own, other = (statistics.median(row["errors"][name]) for name in ("genrec", row["peer"]))
                missed = "" if row["error"] <= row["at_most"] else " **missed**"
                lines.append(f"| {row['work']} | {row['peer']} | {row['error']:.4f} (ours over theirs, {row['rounds']} seeds) | "
                             f"at most {row['at_most']}{missed} | {own:.5g} | {other:.5g} |")
                continue
            if "ratio" not in row:
                lines.append(f"| {row['work']} | | | at most {row['at_most']} | {row['value']:.3g} | {row.get('peer_value', '')} |")
                continue
            figures = row.get("per_second", row["seconds"])
            unit = row.get("unit", "s")
            ours, peer = (f"{figures[name]:.4g} {unit}" for name in ("genrec", row["peer"]))
            missed = "" if row["ratio"] >= row["at_least"] else " **missed**"
            lines.append(f"| {row['work']} | {row['peer']} | {row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f}, "
                         f"{row['rounds']}) | {row['at_least']}{missed} | {ours} | {peer} |")
        return "\n".join(lines) + "\n"

    def write(self, **versions):
        print("\n" + self.markdown())
        if not self.args.out:
            return
        self.args.out.mkdir(parents=True, exist_ok=True)
        document = {"format_version": 1, "quick": self.args.quick, "machine": machine(), "versions": versions,
                    "rows": self.rows}
        (self.args.out / f"{self.name}.json").write_text(json.dumps(document, indent=1) + "\n")
        (self.args.out / f"{self.name}.md").write_text(self.markdown())


def machine():
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.processor())
    return {"processor": model, "threads": int(os.environ["RAYON_NUM_THREADS"])}


def peak_here():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
