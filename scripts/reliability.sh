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
  GENREC_DAMAGE=5000000 cargo test --workspace --lib damage_is_an_error
}
part_beams() { GENREC_BEAMS=1000000 cargo_test reliability beams; }
part_soak() { GENREC_SOAK_SECONDS=3600 cargo_test reliability soak; }
part_fuzz() { for target in index config weights data; do fuzz none "" "$target" "$RUNS"; done; }
part_asan() { for target in index config weights data; do fuzz address +nightly "$target" $((RUNS / 10)); done; }

# Runs TARGET until all calls together have made TOTAL executions, a tenth of it for `data`: gzip and text are slow to read.
#
# A call begins with the kept inputs and a few of those that were found before: to replay all of them, and to choose among tens of
# thousands, takes several times as long as the executions.
fuzz() {
  local sanitizer=$1 toolchain=$2 target=$3 total=$4 dir done=0 left job mib rss=512 most=0 failed
  [ "$target" = data ] && total=$((total / 10))
  [ "$sanitizer" = none ] || rss=2048
  dir=$OUT/$sanitizer-$target
  mkdir -p "$dir/corpus"
  if [ -f "$dir/executions" ]; then done=$(cat "$dir/executions"); fi
  # What a call had found that was cut off.
  keep_found "$dir"
  local -x RUSTC_WRAPPER=$PWD/fuzz/rustc.sh RAYON_NUM_THREADS=1
  # shellcheck disable=SC2086 # no tool chain is no word
  cargo $toolchain fuzz build --no-trace-compares -s "$sanitizer" "$target"
  while [ "$done" -lt "$total" ]; do
    left=$(((total - done + JOBS - 1) / JOBS))
    # A call that is cut off loses no more than the count of these.
    if [ "$left" -gt 3000000 ]; then left=3000000; fi
    local pids=()
    for job in $(seq "$JOBS"); do
      mkdir "$dir/$job.begin" "$dir/$job.found"
      find "$dir/corpus" -type f -print0 | shuf -z -n 300 | xargs -0 -r cp -t "$dir/$job.begin"
      # shellcheck disable=SC2086
      cargo $toolchain fuzz run --no-trace-compares -s "$sanitizer" "$target" "$dir/$job.found" "$dir/$job.begin" "fuzz/corpus/$target" -- \
        -max_len=4096 -rss_limit_mb=$rss -runs="$left" -print_final_stats=1 > "$dir/$job.log" 2>&1 &
      pids+=($!)
    done
    failed=""
    for job in "${!pids[@]}"; do
      wait "${pids[$job]}" || failed="$failed $((job + 1))"
    done
    for job in $(seq "$JOBS"); do
      done=$((done + $(statistic number_of_executed_units "$dir/$job.log")))
      mib=$(statistic peak_rss_mb "$dir/$job.log")
      if [ "$mib" -gt "$most" ]; then most=$mib; fi
    done
    keep_found "$dir"
    echo "$done" > "$dir/executions"
    for job in $failed; do
      tail -40 "$dir/$job.log"
    done
    [ -z "$failed" ] || return 1
    echo "$target, $sanitizer: $done of $total executions, $most MiB at most"
  done
  echo "$target, $sanitizer: $done executions, no panic"
}

# One of the numbers that libFuzzer ends with, 0 where it did not come so far: NAME LOG.
statistic() { awk -v name="stat::$1:" '$1 == name { number = $2 } END { print number + 0 }' "$2"; }

# Adds some of what the calls in DIR have found to its corpus.
keep_found() {
  local found
  # One at a time: two jobs may have found the same, and `mv` takes no name twice.
  for found in "$1"/*.found; do
    [ ! -d "$found" ] || find "$found" -type f -print0 | shuf -z -n 1000 | xargs -0 -r mv -t "$1/corpus"
  done
  rm -rf "$1"/*.begin "$1"/*.found
}

for part in ${*:-$PARTS}; do
  declare -F "part_$part" > /dev/null || { echo "no part $part; there are: $PARTS" >&2; exit 2; }
  printf '=== %s\n' "$part"
  start=$SECONDS
  "part_$part" 2>&1 | tee "$OUT/$part.log"
  printf '=== %s: passed in %d s\n' "$part" $((SECONDS - start))
done
