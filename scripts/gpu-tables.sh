#!/usr/bin/env bash
# Makes rows of the paper's tables with the paper's model on a CUDA GPU, several at a time.
#
#   scripts/gpu-tables.sh OUT JOBS < ROWS
#
# ROWS has a line for each: TABLE SET ROW SEED, as in `table2 beauty tiger-lsh 1`. Rows that are finished are not run again.
# OUT gets results/, a log of each row, and runs/ with embeddings and checkpoints; JOBS is how many run at a time: four to nine fill
# a large card (docs/gpu.md).
#
# GENREC_DATA       folder of the sets (required)
# GENREC_EMBEDDER   `--embedder`, as in `bert:DIR`; tfidf otherwise. Embeddings under OUT/runs are taken up
# GENREC_MINUTES    minutes of training a row; 1.5 otherwise
# GENREC_BIN        folder with `reproduce`, built with the feature `cuda` elsewhere; built here otherwise (scripts/cuda-env.sh)
set -euo pipefail

if [ $# -ne 2 ]; then
  sed -n '2,15s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
mkdir -p "$1"
OUT=$(cd "$1" && pwd)
JOBS=$2
: "${GENREC_DATA:?names the folder that holds the sets}"
GENREC_DATA=$(cd "$GENREC_DATA" && pwd)
if [ -n "${GENREC_BIN:-}" ]; then GENREC_BIN=$(cd "$GENREC_BIN" && pwd); fi
cd "$(dirname "$0")/.."
if [ -z "${GENREC_BIN:-}" ]; then
  cargo build --release --features cuda --package genrec-examples --example reproduce
  GENREC_BIN=${CARGO_TARGET_DIR:-target}/release/examples
fi
export GENREC_DATA GENREC_BIN OUT
export GENREC_EMBEDDER=${GENREC_EMBEDDER:-tfidf} GENREC_MINUTES=${GENREC_MINUTES:-1.5}
cores=$(nproc)
export RAYON_NUM_THREADS=${RAYON_NUM_THREADS:-$((cores > 2 * JOBS ? cores / JOBS : 2))}

# Launches of several programs overlap under NVIDIA's multi-process service alone; without it they take turns.
if command -v nvidia-cuda-mps-control > /dev/null; then
  CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d)
  export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY=$OUT
  nvidia-cuda-mps-control -d
  trap 'echo quit | nvidia-cuda-mps-control' EXIT
fi

row() {
  "$GENREC_BIN/reproduce" "$1" --sets "$2" --rows "$3" --seed "$4" --data "$GENREC_DATA" --preset paper --bf16 --device cuda \
    --budget "$GENREC_MINUTES" --embedder "$GENREC_EMBEDDER" --out "$OUT/runs" --results "$OUT/results" \
    > "$OUT/$2-$3-s$4.log" 2>&1 || { echo "$1 $2 $3 $4 failed: $OUT/$2-$3-s$4.log" >&2; return 1; }
}
export -f row
rows=$(cat)
# The cheapest row of a set embeds its items for all others.
awk 'NF && !seen[$2]++ {print "table1", $2, "semantic-knn", 1}' <<< "$rows" | xargs -L 1 bash -c 'row "$@"' -
xargs -P "$JOBS" -L 1 bash -c 'row "$@"' - <<< "$rows"
