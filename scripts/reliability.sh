#!/usr/bin/env bash
# All that docs/reliability.md reports, in its long form; hours of work, of which every part can be asked for alone.
#
#   scripts/reliability.sh OUT               everything, cheapest first
#   scripts/reliability.sh OUT kills fuzz    these parts alone
#
# gates    licences, advisories, duplicate versions, features one at a time, public interfaces (.ci/run)
# tests    the README's test command: the short form of the rest, threads, old files, values that are not finite, other libraries
# crash    every state that a crash can leave, of every work that writes files
# faults   every operation on a file failing in every way, disks that are full, directories that may not be written
# kills    500 kills at random moments of a fit, of training, of an index's build and of a compaction
# damage   every truncation and every bit of small files, thousands in a large one; files that lie
# beams    a million decoded beams, each looked up
# soak     an hour of recommendations from a run that is replaced a thousand times
# fuzz     executions of each fuzz target; needs cargo-fuzz and a C++ compiler. The corpus and the count stay in OUT, so that
#          a later call goes on
# asan     a tenth of them under AddressSanitizer; needs a nightly compiler besides
#
# What a part prints goes to OUT/PART.log. The first part that fails ends the script.
#
# GENREC_FUZZ_RUNS   executions of each target but `data`, which gets a tenth; 100000000 otherwise
# GENREC_FUZZ_JOBS   processes at a time; as many as there are processors otherwise
set -euo pipefail

readonly PARTS="gates tests crash faults kills damage beams soak fuzz asan"
if [ $# = 0 ]; then
  sed -n '2,24s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
mkdir -p "$1"
OUT=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
RUNS=${GENREC_FUZZ_RUNS:-100000000} JOBS=${GENREC_FUZZ_JOBS:-$(nproc)}
# Errors of candle hold backtraces, which are larger than what a lying file may ask for.
export RUST_BACKTRACE=0
# What cannot be tried on this machine is a failure, not a line that nobody reads.
export GENREC_ALL=1

# Those tests of one file of tests/tests whose names begin like this.
cargo_test() { cargo test --workspace --test "$1" -- --nocapture --test-threads 1 "${@:2}"; }

part_gates() { .ci/run dependencies features api; }
part_tests() { .ci/run tests; }
part_crash() { GENREC_CRASH_STATES=1000000 cargo_test crash crashes; }
part_faults() { GENREC_FAULTS=1000000 cargo_test crash faults full mapped; }
part_kills() { GENREC_KILLS=125 cargo_test reliability kills; }
part_damage() {
  GENREC_FLIPS=1000000000 GENREC_FLIPS_LARGE=10000 GENREC_FLIPS_MIB=100 cargo_test reliability flips lies lengths values
}
part_beams() { GENREC_BEAMS=1000000 cargo_test reliability beams; }
part_soak() { GENREC_SOAK_SECONDS=3600 cargo_test reliability soak; }
part_fuzz() { for target in index config weights data; do fuzz none "" "$target" "$RUNS"; done; }
part_asan() { for target in index config weights data; do fuzz address +nightly "$target" $((RUNS / 10)); done; }

# Runs TARGET until all calls together have made TOTAL executions, a tenth of it for `data`: gzip and text are slow to read.
fuzz() {
  local sanitizer=$1 toolchain=$2 target=$3 total=$4 dir done=0 left log
  [ "$target" = data ] && total=$((total / 10))
  dir=$OUT/$sanitizer-$target
  mkdir -p "$dir/corpus"
  if [ -f "$dir/executions" ]; then done=$(cat "$dir/executions"); fi
  local -x RUSTC_WRAPPER=$PWD/fuzz/rustc.sh
  # shellcheck disable=SC2086 # no tool chain is no word
  cargo $toolchain fuzz build --no-trace-compares -s "$sanitizer" "$target"
  while [ "$done" -lt "$total" ]; do
    left=$(((total - done + JOBS - 1) / JOBS))
    # A call that is cut off loses no more than this.
    if [ "$left" -gt 500000 ]; then left=500000; fi
    local pids=() job
    for job in $(seq "$JOBS"); do
      log=$dir/$job.log
      # shellcheck disable=SC2086
      cargo $toolchain fuzz run --no-trace-compares -s "$sanitizer" "$target" "$dir/corpus" "fuzz/corpus/$target" -- \
        -max_len=4096 -rss_limit_mb="$([ "$sanitizer" = none ] && echo 512 || echo 2048)" -runs="$left" \
        -print_final_stats=1 > "$log" 2>&1 &
      pids+=($!)
    done
    for job in "${!pids[@]}"; do
      wait "${pids[$job]}" || { tail -40 "$dir/$((job + 1)).log"; return 1; }
      log=$dir/$((job + 1)).log
      done=$((done + $(awk '/^stat::number_of_executed_units/ { print $2 }' "$log")))
    done
    echo "$done" > "$dir/executions"
    echo "$target, $sanitizer: $done of $total executions, $(awk '/^stat::peak_rss_mb/ { print $2 }' "$log") MiB at most"
  done
  echo "$target, $sanitizer: $done executions, no panic"
}

for part in ${*:-$PARTS}; do
  declare -F "part_$part" > /dev/null || { echo "no part $part; there are: $PARTS" >&2; exit 2; }
  printf '=== %s\n' "$part"
  start=$SECONDS
  "part_$part" 2>&1 | tee "$OUT/$part.log"
  printf '=== %s: passed in %d s\n' "$part" $((SECONDS - start))
done
