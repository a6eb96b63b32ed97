#!/usr/bin/env bash
# Training by several ranks, tried: docs/scale.md.
#
#   scripts/mpi-check.sh DATA OUT      DATA holds sequences.txt and items.jsonl
#
# The losses of one rank beside those of `mpirun -n 1` and `-n 2` and of two threads; a run of two ranks killed and resumed by one, and the
# other way round; a rank killed alone. Takes MPI and libclang from the system, or from Python wheels in a cache.
#
# GENREC_STEPS     steps of each run, 200 otherwise
# GENREC_USERS     users that are read, 3000 otherwise
# GENREC_PROFILE   cargo's profile, `release` otherwise
set -euo pipefail
[ $# = 2 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
DATA=$(cd "$1" && pwd)
mkdir -p "$2"
OUT=$(cd "$2" && pwd)
cd "$(dirname "$0")/.."

source scripts/mpi-env.sh "${XDG_CACHE_HOME:-$HOME/.cache}/genrec/mpich"
command -v mpicc > /dev/null
profile=${GENREC_PROFILE:-release}
cargo build --workspace --profile "$profile" --locked --features genrec-examples/mpi --example train_parallel
target=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
program=$target/${profile/#dev/debug}/examples/train_parallel
steps=${GENREC_STEPS:-200}

# run NAME LAUNCHER.. -- ARGUMENTS..
run() {
  local name=$1 launcher=()
  shift
  while [ "$1" != -- ]; do launcher+=("$1"); shift; done
  shift
  "${launcher[@]}" "$program" --data "$DATA" --out "$OUT/${dir:-$name}" --embedder tfidf --max-steps "$steps" \
    --limit-users "${GENREC_USERS:-3000}" --losses "$OUT/$name.txt" "$@" > "$OUT/$name.log" 2>&1
}

# The share of the processors that each rank takes.
per_rank=$((($(nproc) + 1) / 2))
rm -rf "$OUT"/{one,mpi-1,mpi-2,threads-2,killed,lost} "$OUT"/*.txt
run one env -- --threads 1
run mpi-1 mpirun -n 1 -- --mpi
run mpi-2 env RAYON_NUM_THREADS=$per_rank mpirun -n 2 -- --mpi
run threads-2 env -- --threads 2
for name in one mpi-1 mpi-2 threads-2; do
  printf '%-10s %s\n' "$name" "$(grep 'examples a second' "$OUT/$name.log")"
done

# Killed as a whole after a third of the steps each time: two ranks, resumed by one, resumed by two.
export RAYON_NUM_THREADS=$per_rank
printf '{"train": {"checkpoint_every_steps": %d}}' $((steps / 20)) > "$OUT/often.json"
part=0
for launcher in "mpirun -n 2" "mpirun -n 1"; do
  part=$((part + 1))
  # shellcheck disable=SC2086 # words of a command
  dir=killed run "killed-$part" $launcher -- --mpi --resume --config "$OUT/often.json" &
  launched=$!
  until [ "$(cat "$OUT/killed-$part.txt" 2> /dev/null | wc -l)" -ge $((steps / 3)) ]; do
    kill -0 $launched || { tail -5 "$OUT/killed-$part.log" >&2; exit 1; }
    sleep 0.1
  done
  pkill -KILL -f -- "--out $OUT/killed"
  wait $launched || true
done
dir=killed run resumed mpirun -n 2 -- --mpi --resume --config "$OUT/often.json"

# One rank of two.
run lost mpirun -n 2 -- --mpi &
launched=$!
until [ -s "$OUT/lost.txt" ]; do sleep 0.2; done
start=$(date +%s%N)
pgrep -f -- "^$program .*--out $OUT/lost" | tail -1 | xargs kill -KILL
if wait $launched; then echo "FAILED: a rank was killed, and nobody said so" >&2; exit 1; fi
printf 'a rank killed: all ended after %d ms: %s\n' $((($(date +%s%N) - start) / 1000000)) "$(grep -m 1 'KILLED\|TERMINATION' "$OUT/lost.log")"
run lost mpirun -n 2 -- --mpi --resume

python3 - "$OUT" "$steps" << 'PYTHON'
import json, sys
out, steps = sys.argv[1], int(sys.argv[2])
losses = lambda path: [float(line) for line in open(path)]
one = losses(f"{out}/one.txt")
recall = lambda name: json.load(open(f"{out}/{name}/report.json"))["test"]["recall@10"]
for name in ["mpi-1", "mpi-2", "threads-2"]:
    other = losses(f"{out}/{name}.txt")
    assert len(other) == len(one) == steps, (len(other), len(one))
    worst = max(abs(a - b) / abs(a) for a, b in zip(one, other))
    print(f"{name:10} largest relative difference of {steps} losses {worst:.1e}, Recall@10 {recall(name):.4f} ({recall('one'):.4f})")
    assert worst < 1e-5, worst
for name in ["resumed", "lost"]:
    other = losses(f"{out}/{name}.txt")
    worst = max(abs(a - b) / abs(a) for a, b in zip(one[steps - len(other):], other))
    print(f"{name:10} the last {len(other)} losses differ by {worst:.1e}")
    assert worst < 1e-5, worst
    assert name == "lost" or len(other) < steps / 2, f"{len(other)} losses: nothing was resumed"
PYTHON
