#!/usr/bin/env bash
# RUSTC_WRAPPER of the fuzz targets: coverage is counted in what reads bytes alone. libFuzzer clears and scans the counters of the
# whole program after each execution, and candle, arrow and the tokenizers have far more of them than the readers.
set -euo pipefail
crate=""
for ((place = 1; place < $#; place++)); do
  if [ "${!place}" = --crate-name ]; then
    next=$((place + 1))
    crate=${!next}
  fi
done
case $crate in
  genrec* | sid_* | config | data | index | weights) exec "$@" ;;
esac
args=()
for arg in "$@"; do
  case $arg in
    -Cpasses=sancov-module | -Cllvm-args=-sanitizer-coverage-*) ;;
    *) args+=("$arg") ;;
  esac
done
exec "${args[@]}"
