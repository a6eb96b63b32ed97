#!/usr/bin/env python3
"""Load on `examples/serve`: users a second that it sustains, latency at half of that, and faults under hostile requests.

    cargo install oha --locked
    cargo run --release --example serve -- --run RUN --listen 127.0.0.1:8080
    python3 benches/serve_load.py --address 127.0.0.1:8080 --seconds 20
    python3 benches/serve_load.py --address 127.0.0.1:8080 --seconds 20 --hostile
    cargo build --release -p genrec-benches
    python3 benches/serve_load.py --worker target/release/worker --run RUN

The first phase asks over so many connections at once, each waiting for its answer before it asks again; with `--worker`, in
turn with the library itself, which is handed as many histories of the same kind in batches. The second sends
at half the rate that came out, whether answers have come or not, and counts a request's time from when it was due: a server that
falls behind cannot hide it. `--hostile` asks at the same rate once more while others send malformed requests, half
requests and reloads; it fails if a good request got no answer, or a bad one a status of 500 or above. Histories are drawn from
the server's own catalogue. The server's memory is read from its metrics.

Good requests are sent by `oha` (crates.io, 1.16): on a machine that client and server share, a client in Python takes a fifth of
what is measured. The rest is Python's standard library.
"""

import argparse
import http.client
import itertools
import json
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time


class Client:
    """One connection, opened anew after a fault."""

    def __init__(self, address, timeout=30):
        self.host, _, port = address.rpartition(":")
        self.port, self.timeout, self.connection = int(port), timeout, None

    def ask(self, method, path, body=None, kind="application/json"):
        """The status, 0 where there was no answer, and the body."""
        # A connection that the server closed while it was idle is no fault: once more on a new one.
        for _ in range(2):
            fresh = self.connection is None
            try:
                if fresh:
                    self.connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
                    self.connection.connect()
                    self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connection.request(method, path, body, {"content-type": kind} if body is not None else {})
                response = self.connection.getresponse()
                return response.status, response.read()
            except (OSError, http.client.HTTPException):
                if self.connection is not None:
                    self.connection.close()
                self.connection = None
                if fresh:
                    break
        return 0, b""


def catalogue(address):
    """Ids of some hundred items."""
    client, found = Client(address), set()
    for letter in "aeiourstn":
        status, body = client.ask("GET", f"/items?limit=100&q={letter}")
        if status != 200:
            sys.exit(f"GET /items answered {status}: is `serve` at {address}?")
        found.update(item["id"] for item in json.loads(body)["items"])
    return sorted(found)


def bodies(items, k, seed):
    """Requests without end, of 2 to 20 items."""
    rng = random.Random(seed)
    while True:
        history = rng.choices(items, k=rng.randint(2, 20))
        yield json.dumps({"history": history, "k": k})


def resident(address):
    """Resident memory of the server in MiB; nothing where it does not say."""
    _, text = Client(address).ask("GET", "/metrics")
    for line in text.decode().splitlines():
        if line.startswith("process_resident_memory_bytes "):
            return float(line.split()[1]) / 2**20
    return float("nan")


class Library:
    """The same run, asked in batches within one process."""

    def __init__(self, worker, run):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([worker], stdin=pipe, stdout=pipe, text=True)
        self.ask({"op": "recommend-load", "run": run})

    def ask(self, request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            sys.exit(f"{request['op']}: {answer['error']}")
        return answer

    def users_a_second(self, items, args, seed):
        source, users, seconds = bodies(items, args.k, seed), 0, 0.0
        while seconds < args.seconds:
            histories = [json.loads(next(source))["history"] for _ in range(8 * args.batch)]
            answer = self.ask({"op": "recommend", "histories": histories, "k": args.k, "batch": args.batch})
            users, seconds = users + answer["users"], seconds + answer["seconds"]
        return users / seconds


def in_turn(address, items, library, args):
    """The server's users a second as a share of the library's, in rounds."""
    rates, shares = [], []
    for round in range(args.rounds):
        alone = library.users_a_second(items, args, 1000 + round)
        served = closed_loop(address, items, args, round)
        rates.append(served)
        shares.append(served / alone)
        print(f"round {round + 1}: the library {alone:.0f} users/s, the server {served:.0f}", flush=True)
    print(f"the server's share of the library's: median {statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})")
    return statistics.median(rates)


def load(address, items, args, seed, rate=None):
    """What `oha` reports of requests sent as fast as they are answered, or at a rate."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(body + "\n" for body in itertools.islice(bodies(items, args.k, seed), 20_000))
        file.flush()
        command = [args.oha, "--no-tui", "--output-format", "json", "-w", "-z", f"{args.seconds:g}s", "-c", str(args.connections)]
        command += ["-m", "POST", "-T", "application/json", "-Z", file.name]
        if rate is not None:
            command += ["-q", f"{rate:.0f}", "--latency-correction"]
        done = subprocess.run(command + [f"http://{address}/recommend"], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def answers(report):
    """Counts of statuses, and of errors where there was none."""
    return {**report["statusCodeDistribution"], **report["errorDistribution"]}


def closed_loop(address, items, args, seed):
    """Users a second when every connection asks as soon as it was answered."""
    report = load(address, items, args, seed)
    if set(answers(report)) != {"200"}:
        sys.exit(f"answers: {answers(report)}")
    return report["summary"]["requestsPerSec"]


def hostile(address, items, args, stop, seen):
    """Malformed requests, half requests and reloads until `stop`; statuses go to `seen`."""
    host, _, port = address.rpartition(":")
    good = items[0]
    bad = [
        ("POST", "/recommend", b"{", "application/json"),
        ("POST", "/recommend", b'{"history": ["\xff"]}', "application/json"),
        ("POST", "/recommend", b'{"history": [1]}', "application/json"),
        ("POST", "/recommend", json.dumps({"history": ["no such item"]}), "application/json"),
        ("POST", "/recommend", json.dumps({"history": [good] * 5000}), "application/json"),
        ("POST", "/recommend", json.dumps({"history": [good], "k": 10**9}), "application/json"),
        ("POST", "/recommend", json.dumps({"history": [good], "temperature": -1}), "application/json"),
        ("POST", "/recommend", json.dumps({"history": [good], "colour": 1}), "application/json"),
        ("POST", "/recommend", b"[" * 100000, "application/json"),
        ("POST", "/recommend", b"x" * 2000000, "application/json"),
        ("POST", "/recommend", b"history=1", "text/plain"),
        ("POST", "/items", json.dumps({"id": ""}), "application/json"),
        ("GET", "/tree?prefix=x", None, ""),
        ("GET", "/nothing", None, ""),
        ("DELETE", "/items", None, ""),
    ]

    def note(name, status):
        seen[(name, status)] = seen.get((name, status), 0) + 1

    def malformed(seed):
        client, rng = Client(address), random.Random(seed)
        while not stop.is_set():
            method, path, body, kind = rng.choice(bad)
            note("malformed", client.ask(method, path, body, kind)[0])
            time.sleep(args.pause)

    def half():
        rng = random.Random(9)
        while not stop.is_set():
            try:
                with socket.create_connection((host, int(port)), timeout=2) as connection:
                    head = b"POST /recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"
                    connection.sendall(rng.choice([head, head[:40], b"\x16\x03\x01\x00", b"\0" * 64]))
                    time.sleep(0.02)
            except OSError:
                pass

    def reloads():
        client = Client(address)
        while not stop.is_set():
            note("reload", client.ask("POST", "/reload", b"{}")[0])
            stop.wait(args.reload_every)

    return [threading.Thread(target=malformed, args=(seed,)) for seed in range(4)] + [
        threading.Thread(target=half),
        threading.Thread(target=reloads),
    ]


def watch(address, stop, every):
    """Says now and then how much memory the server has."""
    while not stop.wait(every):
        print(f"memory: {resident(address):.0f} MiB", flush=True)


def say(name, report):
    times = report["latencyPercentiles"]
    p50, p99, worst = 1000 * times["p50"], 1000 * times["p99"], 1000 * report["summary"]["slowest"]
    counts = ", ".join(f"{count} of {answer}" for answer, count in sorted(answers(report).items()))
    print(f"{name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {worst:.1f} ms; {counts}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="127.0.0.1:8080")
    parser.add_argument("--seconds", type=float, default=20, help="length of each phase")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--rate", type=float, help="users a second, in place of half of what is sustained; with --hostile that phase alone")
    parser.add_argument("--hostile", action="store_true", help="a third phase, beside malformed requests and reloads")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between malformed requests of a thread")
    parser.add_argument("--reload-every", type=float, default=2.0, help="seconds between reloads")
    parser.add_argument("--worker", help="genrec's side of `benches/compare`, to be measured in turn")
    parser.add_argument("--run", help="the run that is served, for the worker")
    parser.add_argument("--batch", type=int, default=64, help="histories that the worker is handed at a time")
    parser.add_argument("--rounds", type=int, default=5, help="turns of the worker and the server")
    parser.add_argument("--oha", default=shutil.which("oha"), help="the program `oha`; found by PATH otherwise")
    args = parser.parse_args()
    if args.oha is None:
        parser.error("there is no program `oha`: `cargo install oha --locked`, or tell its place by --oha")
    if (args.worker is None) != (args.run is None):
        parser.error("--worker and --run go together")

    items = catalogue(args.address)
    rate = args.rate
    print(f"memory at the start: {resident(args.address):.0f} MiB")
    if args.worker is not None:
        rate = in_turn(args.address, items, Library(args.worker, args.run), args) / 2
    if rate is None:
        sustained = closed_loop(args.address, items, args, 7)
        print(f"sustained over {args.connections} connections: {sustained:.0f} users/s", flush=True)
        rate = sustained / 2
    if args.rate is None or not args.hostile:
        say(f"at {rate:.0f} users/s", load(args.address, items, args, 8, rate))
        print(f"memory: {resident(args.address):.0f} MiB", flush=True)
    if not args.hostile:
        return
    stop, seen = threading.Event(), {}
    threads = hostile(args.address, items, args, stop, seen)
    threads.append(threading.Thread(target=watch, args=(args.address, stop, args.seconds / 10)))
    for thread in threads:
        thread.start()
    report = load(args.address, items, args, 9, rate)
    stop.set()
    for thread in threads:
        thread.join()
    say(f"at {rate:.0f} users/s beside hostile requests", report)
    print("hostile: " + ", ".join(f"{n} {name} {status}" for (name, status), n in sorted(seen.items())))
    lost = {answer: count for answer, count in answers(report).items() if answer != "200"}
    wrong = {key: n for key, n in seen.items() if key[1] >= 500 or (key[0] == "reload" and key[1] != 200)}
    if lost or wrong:
        sys.exit(f"good requests not answered: {lost}; wrong statuses: {wrong}")


if __name__ == "__main__":
    main()
