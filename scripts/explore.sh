#!/usr/bin/env bash
# The tests that draw their cases at random, over and over, each time with another seed: explore.sh [MINUTES] [NAME...]
# (default: 10 minutes, all of them; a NAME is part of a test's). CI takes the same seeds every time, this finds what they miss.
#
# One worker per processor gives one test after the other 20 seconds. The first failure ends it: what failed, and what repeats it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${MILLPOND_CACHE:-$HOME/.cache/millpond}/target}
# The steps of a failure come without where it was caught, hundreds of times.
export RUST_BACKTRACE=0
minutes=${1:-10}
shift || true
wanted=$(IFS='|' && echo "$*")
slice=20

# Functions in `proptest!`, and those that go by MILLPOND_SEED or have a runner of their own.
names=$(git ls-files '*.rs' | xargs awk '
  FNR == 1 { inside = 0 }
  /^ *proptest! \{$/ { inside = 1; match($0, /^ */); indent = RLENGTH }
  inside && /^ *\}$/ { match($0, /^ */); if (RLENGTH == indent) inside = 0 }
  inside && before ~ /#\[test\]/ && /^ *fn / { sub(/^ *fn /, ""); sub(/[^a-z0-9_].*/, ""); print }
  { before = $0 }')
names+=$'\n'$(printf '%s\n' every_response_is_read_and_written_as_the_same random_histories_are_what_the_model_says \
  random_histories_read_as_the_model_says results_do_not_depend_on_how_the_work_is_cut \
  shapes_are_the_codecs damage_is_read_as_the_codec_reads_it random_changes)

work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT
cargo test --workspace --locked --tests --no-run 2>&1 | tee "$work/build" | grep -E '^(warning|error)' -A 6 || true
sed -nE 's/^ *Executable .* \((.*)\)$/\1/p' "$work/build" | while read -r binary; do
  "$binary" --list 2>/dev/null | sed -nE 's/: test$//p' | grep -E "(^|::)(${names//$'\n'/|})$" | grep -E "$wanted" | sed "s|^|$binary |" || true
done >"$work/tests"
[ -s "$work/tests" ] || { echo "no such test" >&2 && exit 1; }
echo "$(wc -l <"$work/tests") tests, for $minutes minutes"

end=$(($(date +%s) + minutes * 60))
# worker N: until the time is over. Whoever fails says why and ends.
worker() {
  local binary test seed until child=
  trap 'kill $child 2>/dev/null; exit 1' TERM
  while :; do
    while read -r binary test; do
      until=$(($(date +%s) + slice))
      while [ "$(date +%s)" -lt $until ]; do
        [ "$(date +%s)" -lt $end ] || return 0
        seed=$SRANDOM
        PROPTEST_RNG_SEED=$seed MILLPOND_SEED=$seed "$binary" --exact "$test" --nocapture >"$work/log.$1" 2>&1 &
        child=$!
        if ! wait $child; then
          tail -n 150 "$work/log.$1"
          echo "FAILED. It is repeated by: PROPTEST_RNG_SEED=$seed MILLPOND_SEED=$seed cargo test --workspace --tests -- --exact $test"
          return 1
        fi
        echo "$test" >>"$work/runs.$1"
      done
    done < <(shuf "$work/tests")
  done
}
workers=$(nproc)
for n in $(seq "$workers"); do
  worker "$n" </dev/null &
done
for n in $(seq "$workers"); do
  wait -n
done
echo "runs of each test, none of which failed:"
cat "$work"/runs.* | sort | uniq -c
