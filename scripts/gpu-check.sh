#!/usr/bin/env bash
# Everything that is to be checked and measured on a CUDA GPU, in one go; what it finds goes into OUT.
#
#   scripts/gpu-check.sh OUT
#
# GENREC_DATA       folder with beauty/ (required)
# GENREC_BIN        folder with `quickstart`, `tiger` and `worker`, built with the feature `cuda` elsewhere; built here
#                   otherwise, for which nvcc is needed (scripts/cuda-env.sh)
# GENREC_PYTHON     an interpreter with torch (CUDA), transformers and safetensors; benches/compare makes one otherwise
# GENREC_EMBEDDER   `--embedder` of the training; tfidf otherwise
# GENREC_MINUTES    `--max-minutes` of the training; the preset's 200,000 steps, or its early stop, otherwise
# GENREC_STEPS      which of: quickstart compare train; all otherwise
set -euo pipefail

if [ $# -ne 1 ]; then
  sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
mkdir -p "$1"
OUT=$(cd "$1" && pwd)
: "${GENREC_DATA:?names the folder that holds beauty/}"
GENREC_DATA=$(cd "$GENREC_DATA" && pwd)
if [ -n "${GENREC_BIN:-}" ]; then GENREC_BIN=$(cd "$GENREC_BIN" && pwd); fi
cd "$(dirname "$0")/.."
export GENREC_DATA
steps=" ${GENREC_STEPS:-quickstart compare train} "

nvidia-smi | tee "$OUT/gpu.txt"
if [ -z "${GENREC_BIN:-}" ]; then
  cargo build --release --features cuda --package genrec-examples --examples
  cargo build --release --features cuda --package genrec-benches --bin worker
  target=${CARGO_TARGET_DIR:-target}/release
  GENREC_BIN=$OUT/bin
  mkdir -p "$GENREC_BIN"
  cp "$target/examples/quickstart" "$target/examples/tiger" "$target/worker" "$GENREC_BIN"
fi

if [[ $steps == *" quickstart "* ]]; then
  for device in cpu cuda; do
    rm -rf "$OUT/quickstart-$device"
    "$GENREC_BIN/quickstart" --device "$device" --out "$OUT/quickstart-$device" | tee "$OUT/quickstart-$device.txt"
  done
  # Dropout and sums differ between devices, the quality must not.
  python3 - "$OUT" <<'PYTHON'
import json, sys
recall = {device: json.load(open(f"{sys.argv[1]}/quickstart-{device}/report.json"))["test"]["recall@10"]
          for device in ("cpu", "cuda")}
print(recall)
sys.exit(recall["cuda"] < 0.9 * recall["cpu"])
PYTHON
fi

if [[ $steps == *" compare "* ]]; then
  GENREC_WORKER=$GENREC_BIN/worker benches/compare gpu --out "$OUT" ${GENREC_PYTHON:+--python "$GENREC_PYTHON"} \
    2>&1 | tee "$OUT/compare.txt"
fi

if [[ $steps == *" train "* ]]; then
  # Goes on with a run that was cut off.
  "$GENREC_BIN/tiger" --data "$GENREC_DATA/beauty" --preset paper --device cuda --bf16 --resume --out "$OUT/beauty" \
    --embedder "${GENREC_EMBEDDER:-tfidf}" ${GENREC_MINUTES:+--max-minutes "$GENREC_MINUTES"} \
    2>&1 | tee -a "$OUT/train.txt"
fi
