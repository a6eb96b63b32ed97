#!/usr/bin/env bash
# Makes rows of the paper's tables on a CUDA GPU, several at a time, with the paper's model unless told otherwise.
#
#   scripts/gpu-tables.sh OUT JOBS < ROWS
#
# ROWS has a line for each: TABLE SET ROW SEED, as in `table2 beauty tiger-lsh 1`. Rows that are finished are not run again. Rows that
# read another row's run (sampled-*, hierarchy, *-together, tiger-joint) come in a later call than that row.
# OUT gets results/, a log of each row, and runs/ with embeddings and checkpoints; JOBS is how many run at a time: four to nine fill
# a large card (docs/gpu.md).
#
# GENREC_DATA       folder of the sets (required)
# GENREC_EMBEDDER   `--embedder`, with an absolute path, as in `bert:/DIR`; tfidf otherwise. Embeddings under OUT/runs are taken up
# GENREC_PRESET     `--preset`; paper otherwise. `cpu` is what the tables blocks and best are about
# GENREC_MINUTES    minutes of training a row; 1.5 otherwise
# GENREC_BIN        folder with `reproduce`, built with the feature `cuda` elsewhere, of the commit that GENREC_COMMIT names; built
#                   here otherwise (scripts/cuda-env.sh)
set -euo pipefail

if [ $# -ne 2 ]; then
  sed -n '2,19s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
mkdir -p "$1"
OUT=$(cd "$1" && pwd)
JOBS=$2
: "${GENREC_DATA:?names the folder that holds the sets}"
GENREC_DATA=$(cd "$GENREC_DATA" && pwd)
if [ -n "${GENREC_BIN:-}" ]; then
  : "${GENREC_COMMIT:?names the commit that GENREC_BIN was built of}"
  GENREC_BIN=$(cd "$GENREC_BIN" && pwd)
fi
rows=$(awk 'NF == 4 {print $1, $2, $3, $4} NF && NF != 4 {print "not TABLE SET ROW SEED: " $0 > "/dev/stderr"; exit 2}')
[ -n "$rows" ] || exit 0
cd "$(dirname "$0")/.."
if [ -z "${GENREC_BIN:-}" ]; then
  cargo build --release --features cuda --package genrec-examples --example reproduce
  GENREC_BIN=${CARGO_TARGET_DIR:-target}/release/examples
fi
export GENREC_DATA GENREC_BIN OUT
export GENREC_EMBEDDER=${GENREC_EMBEDDER:-tfidf} GENREC_PRESET=${GENREC_PRESET:-paper} GENREC_MINUTES=${GENREC_MINUTES:-1.5}
export RAYON_NUM_THREADS=${RAYON_NUM_THREADS:-2}

# Launches of several programs overlap under NVIDIA's multi-process service alone; without it they take turns. One that runs
# already serves these too.
if [ -z "${CUDA_MPS_PIPE_DIRECTORY:-}" ] && ! pgrep -f nvidia-cuda-mps-control > /dev/null; then
  pipes=$(mktemp -d)
  export CUDA_MPS_PIPE_DIRECTORY=$pipes CUDA_MPS_LOG_DIRECTORY=$OUT
  if nvidia-cuda-mps-control -d; then
    trap 'echo quit | nvidia-cuda-mps-control; rm -rf "$pipes"' EXIT
  else
    echo "no multi-process service: the rows take turns on the card" >&2
    unset CUDA_MPS_PIPE_DIRECTORY
    rmdir "$pipes"
  fi
fi

row() {
  "$GENREC_BIN/reproduce" "$1" --sets "$2" --rows "$3" --seed "$4" --data "$GENREC_DATA" --preset "$GENREC_PRESET" --bf16 --device cuda \
    --budget "$GENREC_MINUTES" --embedder "$GENREC_EMBEDDER" --out "$OUT/runs" --results "$OUT/results" \
    > "$OUT/$2-$3-s$4.log" 2>&1 || { echo "$1 $2 $3 $4 failed: $OUT/$2-$3-s$4.log" >&2; return 1; }
}
export -f row
# The cheapest row of a set embeds its items for all others. Whatever fails, the others are made.
failed=0
awk '!seen[$2]++ {print "table1", $2, "semantic-knn", 1}' <<< "$rows" | xargs -r -n 4 bash -c 'row "$@"' - || failed=1
xargs -r -P "$JOBS" -n 4 bash -c 'row "$@"' - <<< "$rows" || failed=1
exit "$failed"
